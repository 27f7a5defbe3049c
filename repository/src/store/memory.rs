//! A store in memory, for tests of what is built on stores.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};

use super::{BlobEntry, BlobStore, StoreError, StoreErrorKind};

/// Blobs in a map. Holds all data in memory: not for anything but tests.
#[derive(Default)]
pub struct MemoryStore {
    blobs: Mutex<BTreeMap<String, (Bytes, jiff::Timestamp)>>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The map; a panic elsewhere cannot leave it half changed, so a poisoned lock is still good.
    fn blobs(&self) -> MutexGuard<'_, BTreeMap<String, (Bytes, jiff::Timestamp)>> {
        self.blobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MemoryStore({} blobs)", self.blobs().len())
    }
}

fn not_found(verb: &str, path: &str) -> StoreError {
    StoreError::new(StoreErrorKind::NotFound, format!("failed to {verb} {path}: there is no such blob"))
}

#[async_trait]
impl BlobStore for MemoryStore {
    async fn create(&self, path: &str, data: Bytes) -> Result<(), StoreError> {
        use std::collections::btree_map::Entry;
        match self.blobs().entry(path.to_owned()) {
            Entry::Occupied(_) => Err(StoreError::new(
                StoreErrorKind::AlreadyExists,
                format!("failed to create {path}: it exists already"),
            )),
            Entry::Vacant(vacant) => {
                vacant.insert((data, jiff::Timestamp::now()));
                Ok(())
            }
        }
    }

    async fn read(&self, path: &str) -> Result<Bytes, StoreError> {
        self.blobs().get(path).map(|(data, _)| data.clone()).ok_or_else(|| not_found("read", path))
    }

    async fn read_range(&self, path: &str, offset: u64, length: u64) -> Result<Bytes, StoreError> {
        let data = self.read(path).await?;
        usize::try_from(offset)
            .ok()
            .and_then(|start| Some(start..start.checked_add(usize::try_from(length).ok()?)?))
            .filter(|range| range.end <= data.len())
            .map(|range| data.slice(range))
            .ok_or_else(|| short(path, offset, length, data.len() as u64))
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<BlobEntry, StoreError>> {
        let entries: Vec<_> = self
            .blobs()
            .range(prefix.to_owned()..)
            .take_while(|(path, _)| path.starts_with(prefix))
            .map(|(path, (data, modified))| {
                Ok(BlobEntry { path: path.clone(), size: data.len() as u64, modified: Some(*modified) })
            })
            .collect();
        stream::iter(entries).boxed()
    }

    async fn delete(&self, path: &str) -> Result<(), StoreError> {
        self.blobs().remove(path).map(drop).ok_or_else(|| not_found("delete", path))
    }
}

/// The error of a range that reaches beyond the blob's end.
pub(super) fn short(path: &str, offset: u64, length: u64, size: u64) -> StoreError {
    StoreError::new(
        StoreErrorKind::Corrupt,
        format!("failed to read {length} bytes of {path} from byte {offset}: it has {size} bytes"),
    )
}
