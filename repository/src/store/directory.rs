//! A store in a directory: for local use, and for stock restic to read what we wrote.

use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

use super::memory::short;
use super::{BlobEntry, BlobStore, StoreError, StoreErrorKind};

/// Blobs as files below a directory.
///
/// A blob is written under a temporary name, flushed to disk, and linked to its own, which fails when that exists: so it
/// is atomic and never overwrites. What a killed writer leaves ends in `.partial` and no listing shows it.
#[derive(Clone, Debug)]
pub struct DirectoryStore {
    root: PathBuf,
}

const PARTIAL: &str = ".partial";

impl DirectoryStore {
    /// The store in this directory, which is made when the first blob is written.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn file(&self, verb: &str, path: &str) -> Result<PathBuf, StoreError> {
        if path.is_empty() || path.split('/').any(|part| matches!(part, "" | "." | "..")) || path.contains('\0') {
            return Err(StoreError::new(
                StoreErrorKind::Other,
                format!("failed to {verb} {path:?}: a blob's path has non-empty parts other than . and .."),
            ));
        }
        Ok(self.root.join(path))
    }
}

fn failed(verb: &str, path: &str, error: io::Error) -> StoreError {
    let kind = match error.kind() {
        io::ErrorKind::NotFound => StoreErrorKind::NotFound,
        io::ErrorKind::AlreadyExists => StoreErrorKind::AlreadyExists,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => StoreErrorKind::Forbidden,
        _ => StoreErrorKind::Other,
    };
    StoreError::new(kind, format!("failed to {verb} {path}: {error}")).with_source(error)
}

#[async_trait]
impl BlobStore for DirectoryStore {
    async fn create(&self, path: &str, data: Bytes) -> Result<(), StoreError> {
        let target = self.file("create", path)?;
        let parent = target.parent().unwrap_or(&self.root);
        let written = async {
            tokio::fs::create_dir_all(parent).await?;
            let mut random = [0; 8];
            crate::crypto::fill_random(&mut random).map_err(io::Error::other)?;
            let partial = parent.join(format!(".{}{PARTIAL}", hex::encode(random)));
            let linked = write_and_link(&partial, &target, &data).await;
            tokio::fs::remove_file(&partial)
                .await
                .or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })?;
            linked?;
            // The name is durable only once its directory is.
            tokio::fs::File::open(parent).await?.sync_all().await
        };
        written.await.map_err(|error| failed("create", path, error))
    }

    async fn read(&self, path: &str) -> Result<Bytes, StoreError> {
        let file = self.file("read", path)?;
        tokio::fs::read(file).await.map(Bytes::from).map_err(|error| failed("read", path, error))
    }

    async fn read_range(&self, path: &str, offset: u64, length: u64) -> Result<Bytes, StoreError> {
        let file = self.file("read", path)?;
        let read = async {
            let mut file = tokio::fs::File::open(file).await?;
            let size = file.metadata().await?.len();
            if offset.checked_add(length).is_none_or(|end| end > size) {
                return Ok(Err(short(path, offset, length, size)));
            }
            file.seek(io::SeekFrom::Start(offset)).await?;
            let mut data = vec![0; usize::try_from(length).map_err(io::Error::other)?];
            file.read_exact(&mut data).await?;
            Ok(Ok(Bytes::from(data)))
        };
        read.await.map_err(|error| failed("read", path, error))?
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<BlobEntry, StoreError>> {
        let start = prefix.rsplit_once('/').map_or(self.root.clone(), |(directory, _)| self.root.join(directory));
        stream::try_unfold(Walk { open: Vec::new(), start: Some(start) }, move |mut walk| async move {
            let entry = walk.next(&self.root, prefix).await.map_err(|error| failed("list", prefix, error))?;
            Ok(entry.map(|entry| (entry, walk)))
        })
        .boxed()
    }

    async fn delete(&self, path: &str) -> Result<(), StoreError> {
        let file = self.file("delete", path)?;
        tokio::fs::remove_file(file).await.map_err(|error| failed("delete", path, error))
    }
}

async fn write_and_link(partial: &Path, target: &Path, data: &[u8]) -> io::Result<()> {
    let mut file = tokio::fs::OpenOptions::new().write(true).create_new(true).open(partial).await?;
    file.write_all(data).await?;
    file.sync_all().await?;
    tokio::fs::hard_link(partial, target).await
}

/// A walk through the directories: holds one open directory for each level, not their entries.
struct Walk {
    start: Option<PathBuf>,
    open: Vec<tokio::fs::ReadDir>,
}

impl Walk {
    async fn next(&mut self, root: &Path, prefix: &str) -> io::Result<Option<BlobEntry>> {
        if let Some(start) = self.start.take() {
            match tokio::fs::read_dir(start).await {
                Ok(directory) => self.open.push(directory),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        while let Some(directory) = self.open.last_mut() {
            let Some(entry) = directory.next_entry().await? else {
                self.open.pop();
                continue;
            };
            let file = entry.path();
            let Some(path) = file.strip_prefix(root).ok().and_then(Path::to_str) else { continue };
            let metadata = match entry.metadata().await {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if metadata.is_dir() {
                // A directory can hold a match when it lies below the prefix, or the prefix below it.
                if path.starts_with(prefix) || prefix.starts_with(path) {
                    self.open.push(tokio::fs::read_dir(&file).await?);
                }
            } else if path.starts_with(prefix) && !path.ends_with(PARTIAL) {
                let modified = metadata.modified().ok().and_then(|time| jiff::Timestamp::try_from(time).ok());
                return Ok(Some(BlobEntry { path: path.to_owned(), size: metadata.len(), modified }));
            }
        }
        Ok(None)
    }
}
