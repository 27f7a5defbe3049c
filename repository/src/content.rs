//! A file's bytes on their way into blobs.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesOrdered;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::blob::BlobKind;
use crate::chunker::Chunker;
use crate::error::RepositoryError;
use crate::id::Id;
use crate::packer::Packer;

const READ: usize = 256 * 1024;
/// Chunks of a file that are sealed at once: at most 8 MiB each, and as much again sealed.
const IN_FLIGHT: usize = 3;

/// A file's blobs and its length.
#[derive(Debug, Default)]
pub(crate) struct Content {
    pub(crate) ids: Vec<Id>,
    pub(crate) size: u64,
}

/// Why a file's content could not be stored.
#[derive(Debug)]
pub(crate) enum ContentError {
    /// Reading failed. The packer is as good as before.
    Source(std::io::Error),
    /// The repository failed.
    Repository(RepositoryError),
}

/// Cuts, hashes and stores what the reader gives.
pub(crate) async fn save<R: AsyncRead + Unpin>(
    packer: &Arc<Packer>,
    mut reader: R,
    advanced: &(dyn Fn(u64) + Send + Sync),
) -> Result<Content, ContentError> {
    let mut chunker = Chunker::new(packer.repository().tables());
    let mut content = Content::default();
    let mut pending = FuturesOrdered::new();
    let mut buffer = vec![0; READ];
    let mut chunk = Vec::new();
    let mut failure = None;
    loop {
        let length = match reader.read(&mut buffer).await {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) => {
                failure = Some(error);
                break;
            }
        };
        content.size += length as u64;
        advanced(length as u64);
        let mut part = &buffer[..length];
        while let Some(cut) = chunker.next_cut(part) {
            chunk.extend_from_slice(&part[..cut]);
            part = &part[cut..];
            let sealing = packer.start(BlobKind::Data, Bytes::from(std::mem::take(&mut chunk)));
            pending.push_back(packer.finish_blob(sealing));
            if pending.len() >= IN_FLIGHT
                && let Some(id) = pending.next().await
            {
                content.ids.push(id.map_err(ContentError::Repository)?);
            }
        }
        chunk.extend_from_slice(part);
    }
    if !chunk.is_empty() && failure.is_none() {
        let sealing = packer.start(BlobKind::Data, Bytes::from(chunk));
        pending.push_back(packer.finish_blob(sealing));
    }
    // Also after a failed read: what was begun is stored, so that the packer knows where each of its blobs is.
    while let Some(id) = pending.next().await {
        content.ids.push(id.map_err(ContentError::Repository)?);
    }
    failure.map_or(Ok(content), |error| Err(ContentError::Source(error)))
}
