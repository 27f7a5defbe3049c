//! Where a repository's files live: a flat space of named blobs that are written once.

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

mod azure;
mod azure_error;
mod azure_probe;
mod directory;
mod error;
mod memory;
mod retry;
mod scoped;

pub use azure::{AzureOptions, AzureStore};
pub use azure_probe::{Verb, VerbOutcome};
pub use directory::DirectoryStore;
pub use error::{StoreError, StoreErrorKind};
pub use memory::MemoryStore;
pub use scoped::Scoped;

/// One blob of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobEntry {
    /// Its whole path, prefix included.
    pub path: String,
    /// Its length in bytes.
    pub size: u64,
    /// When it was last written, by the store's clock; `None` where the store does not say.
    pub modified: Option<jiff::Timestamp>,
}

/// A store of blobs under slash-separated paths.
///
/// Implementations are safe to share and to call concurrently. They retry what is worth retrying: a retryable error that
/// comes out of here has already been tried for about two minutes.
#[async_trait]
pub trait BlobStore: Send + Sync + std::fmt::Debug {
    /// Writes a blob that must not exist yet: [`StoreErrorKind::AlreadyExists`] when it does. Atomic: a reader sees the
    /// whole blob or none.
    async fn create(&self, path: &str, data: Bytes) -> Result<(), StoreError>;

    /// Reads a whole blob.
    async fn read(&self, path: &str) -> Result<Bytes, StoreError>;

    /// Reads exactly `length` bytes from `offset`; [`StoreErrorKind::Corrupt`] when the blob ends before.
    async fn read_range(&self, path: &str, offset: u64, length: u64) -> Result<Bytes, StoreError>;

    /// Lists all blobs whose path starts with `prefix` (as text: `a/b` also finds `a/bc`), page by page, in no order.
    fn list<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<BlobEntry, StoreError>>;

    /// Deletes one blob; [`StoreErrorKind::NotFound`] when it is not there. Nothing else ever deletes.
    async fn delete(&self, path: &str) -> Result<(), StoreError>;
}
