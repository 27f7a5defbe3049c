//! A part of a store, as a store of its own.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};

use super::{BlobEntry, BlobStore, StoreError};

/// All blobs of a store below a prefix; paths are relative to it.
#[derive(Clone, Debug)]
pub struct Scoped {
    store: Arc<dyn BlobStore>,
    prefix: String,
}

impl Scoped {
    /// The part of `store` below `prefix`, which needs no slash at its end.
    #[must_use]
    pub fn new(store: Arc<dyn BlobStore>, prefix: &str) -> Self {
        let trimmed = prefix.trim_matches('/');
        let prefix = if trimmed.is_empty() { String::new() } else { format!("{trimmed}/") };
        Self { store, prefix }
    }

    fn path(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }
}

#[async_trait]
impl BlobStore for Scoped {
    async fn create(&self, path: &str, data: Bytes) -> Result<(), StoreError> {
        self.store.create(&self.path(path), data).await
    }

    async fn read(&self, path: &str) -> Result<Bytes, StoreError> {
        self.store.read(&self.path(path)).await
    }

    async fn read_range(&self, path: &str, offset: u64, length: u64) -> Result<Bytes, StoreError> {
        self.store.read_range(&self.path(path), offset, length).await
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<BlobEntry, StoreError>> {
        // The inner listing borrows its prefix, which only lives here: the stream carries both.
        let whole = self.path(prefix);
        stream::once(async move { whole })
            .flat_map(move |whole| {
                let store = Arc::clone(&self.store);
                async_listing(store, whole)
            })
            .map(move |entry| {
                entry.map(|mut entry| {
                    entry.path.drain(..self.prefix.len().min(entry.path.len()));
                    entry
                })
            })
            .boxed()
    }

    async fn delete(&self, path: &str) -> Result<(), StoreError> {
        self.store.delete(&self.path(path)).await
    }
}

/// A listing that owns its store and prefix. A small channel joins it to the task that holds the borrow.
fn async_listing(store: Arc<dyn BlobStore>, prefix: String) -> BoxStream<'static, Result<BlobEntry, StoreError>> {
    let (sender, receiver) = tokio::sync::mpsc::channel(64);
    let listing = async move {
        let mut entries = store.list(&prefix);
        while let Some(entry) = entries.next().await {
            if sender.send(entry).await.is_err() {
                return;
            }
        }
    };
    // Both ends run in the caller's task: the listing makes progress whenever the receiver is polled.
    let driver = stream::once(listing).filter_map(|()| async { None });
    let arrived =
        stream::unfold(receiver, |mut receiver| async move { receiver.recv().await.map(|entry| (entry, receiver)) });
    stream::select(driver, arrived).boxed()
}
