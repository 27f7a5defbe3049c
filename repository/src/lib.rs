//! The storage engine: restic repository format v2 over blob stores.
//!
//! The format is that of the [restic design document](https://restic.readthedocs.io/en/stable/100_references.html):
//! whoever has the password reads what this crate writes with stock restic, and the other way round. All that is written
//! is created once and never overwritten, in the order data, index, snapshot, so a writer that is killed leaves nothing
//! but packs that no one refers to. There are no lock files; those that restic leaves are passed over.

mod backup;
mod base64_bytes;
mod blob;
mod chunker;
mod content;
mod crypto;
mod error;
mod go_json;
mod id;
mod index;
mod inode;
mod key_file;
mod node;
mod pack;
mod packer;
mod polynomial;
mod quoting;
mod read_ahead;
mod reader;
mod repository;
mod restore;
mod skipped;
mod snapshot;
mod store;
mod target;
mod tree;
mod unpacked;
mod verify;
mod writer;

pub use backup::{BackupOptions, DirectoryBackup, Progress, backup_directory};
pub use blob::{BlobError, BlobKind};
pub use crypto::CryptoError;
pub use error::RepositoryError;
pub use id::{Id, ParseIdError};
pub use node::{ExtendedAttribute, Metadata, Node, NodeKind};
pub use pack::PackError;
pub use reader::Reader;
pub use repository::Repository;
pub use restore::{DirectoryRestore, RestoreOptions, restore_directory};
pub use skipped::{Skipped, SkippedItem};
pub use snapshot::{Snapshot, SnapshotInfo};
pub use store::{
    AzureOptions, AzureStore, BlobEntry, BlobStore, DirectoryStore, MemoryStore, Scoped, StoreError, StoreErrorKind,
    Verb, VerbOutcome,
};
pub use tree::Tree;
pub use writer::{FileSummary, SnapshotWriter, Summary};
