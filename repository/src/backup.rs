//! Backs up a directory of a file system.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{self, Seek};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::AsyncReadExt;

use crate::blob::BlobKind;
use crate::content::{self, Content, ContentError};
use crate::error::RepositoryError;
use crate::id::Id;
use crate::inode::{self, Entry, Stamp};
use crate::node::{Metadata, Node};
use crate::reader::Reader;
use crate::repository::Repository;
use crate::skipped::Skipped;
use crate::snapshot::SnapshotInfo;
use crate::writer::{SnapshotWriter, Summary};

/// How to back up.
#[derive(Clone, Debug, Default)]
pub struct BackupOptions {
    /// The snapshot to compare with: files that have the size, times and inode that they have there are not read again.
    /// One that is no longer there is passed over.
    pub parent: Option<Id>,
}

/// How far a backup or a restore is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Entries done that are no directories.
    pub files: u64,
    /// Directories done.
    pub directories: u64,
    /// Bytes of files done.
    pub bytes: u64,
}

/// What became of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryBackup {
    /// The snapshot.
    pub summary: Summary,
    /// What could not be read, or changed while it was read.
    pub skipped: Skipped,
}

/// Backs up everything below `root`, which may itself be a link, into one new snapshot.
///
/// The snapshot has the directory at `info.paths[0]`, its parents made up; with no path, or `/`, the directory's entries
/// are the snapshot's root, and its own mode and owner are not kept.
///
/// No link is followed. What vanishes, cannot be read or is a socket is left out and counted. A file that changes while
/// it is read is read once more; when it changes again, it is kept as it was read, and counted too. `progress` is called
/// often and must be quick. Memory: see [`SnapshotWriter`], and the names in the directories that are open.
pub async fn backup_directory(
    repository: &Repository,
    root: &Path,
    info: SnapshotInfo,
    options: BackupOptions,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<DirectoryBackup, RepositoryError> {
    let failed = |source| RepositoryError::Source { name: root.to_string_lossy().into_owned(), source };
    let place = root.to_owned();
    let (descriptor, metadata) = blocking(move || {
        let descriptor: OwnedFd = std::fs::File::open(place)?.into();
        let metadata = inode::directory_metadata(&descriptor)?;
        Ok((descriptor, metadata))
    })
    .await?
    .map_err(failed)?;

    let index = Arc::new(repository.load_index().await?);
    let mut writer = SnapshotWriter::new(repository.clone(), Arc::clone(&index));
    let components = components(&info);
    let parent = Parent::open(Reader::new(repository.clone(), index), options.parent, &components).await;
    if let Some(parent) = parent.id {
        writer.set_parent(parent);
    }
    for (at, name) in components.iter().enumerate() {
        let last = at + 1 == components.len();
        let metadata = if last { metadata.clone() } else { Metadata::synthetic(0o755) };
        writer.begin_directory_with(name, metadata).await?;
    }
    let bytes = AtomicU64::new(0);
    let mut walk =
        Walk { writer, parent, skipped: Skipped::default(), bytes: &bytes, done: Progress::default(), progress };
    walk.run(descriptor).await.map_err(|error| match error {
        WalkError::Root(source) => failed(source),
        WalkError::Repository(error) => error,
    })?;
    let Walk { mut writer, skipped, .. } = walk;
    for _ in &components {
        writer.end_directory().await?;
    }
    let summary = writer.finish(info).await?;
    Ok(DirectoryBackup { summary, skipped })
}

/// The names that lead to the directory in the snapshot.
fn components(info: &SnapshotInfo) -> Vec<OsString> {
    let path = info.paths.first().map(String::as_str).unwrap_or_default();
    path.split('/').filter(|part| !matches!(*part, "" | "." | "..")).map(OsString::from).collect()
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<io::Result<T>, RepositoryError> {
    Ok(tokio::task::spawn_blocking(work).await?)
}

/// The snapshot to compare with. Whatever is wrong with it only makes the backup slower.
struct Parent {
    reader: Reader,
    id: Option<Id>,
    root: Option<Id>,
}

impl Parent {
    async fn open(reader: Reader, id: Option<Id>, components: &[OsString]) -> Self {
        let mut parent = Self { reader, id: None, root: None };
        let Some(id) = id else { return parent };
        match parent.reader.repository().snapshot(&id).await {
            Ok(snapshot) => (parent.id, parent.root) = (Some(id), Some(snapshot.tree)),
            Err(error) => {
                tracing::warn!(snapshot = %id, %error, "reading all files: the snapshot to compare with is not usable");
                return parent;
            }
        }
        for name in components {
            let nodes = parent.nodes(parent.root).await;
            parent.root = nodes.get(name).and_then(|node| node.subtree);
        }
        parent
    }

    async fn nodes(&self, tree: Option<Id>) -> HashMap<OsString, Node> {
        let Some(id) = tree else { return HashMap::new() };
        match self.reader.tree(&id).await {
            Ok(tree) => tree.nodes.into_iter().map(|node| (node.name.clone(), node)).collect(),
            Err(error) => {
                tracing::warn!(tree = %id, %error, "reading all files of a directory: its last listing is not usable");
                HashMap::new()
            }
        }
    }
}

enum WalkError {
    /// The root cannot be listed.
    Root(io::Error),
    Repository(RepositoryError),
}

impl From<RepositoryError> for WalkError {
    fn from(error: RepositoryError) -> Self {
        Self::Repository(error)
    }
}

struct Walk<'a> {
    writer: SnapshotWriter,
    parent: Parent,
    skipped: Skipped,
    bytes: &'a AtomicU64,
    done: Progress,
    progress: &'a (dyn Fn(Progress) + Send + Sync),
}

/// A directory that is being read.
struct Level {
    descriptor: Arc<OwnedFd>,
    path: PathBuf,
    names: std::vec::IntoIter<OsString>,
    parent: HashMap<OsString, Node>,
}

impl Walk<'_> {
    async fn run(&mut self, root: OwnedFd) -> Result<(), WalkError> {
        let root = self.level(root, PathBuf::new(), self.parent.root).await?.map_err(WalkError::Root)?;
        let mut levels = vec![root];
        while let Some(level) = levels.last_mut() {
            let Some(name) = level.names.next() else {
                levels.pop();
                if !levels.is_empty() {
                    self.writer.end_directory().await?;
                    self.done.directories += 1;
                }
                continue;
            };
            let path = level.path.join(&name);
            let parent = level.parent.remove(&name);
            let subtree = parent.as_ref().and_then(|node| node.subtree);
            let parent = parent.filter(|node| self.is_complete(node));
            let (directory, entry_name) = (Arc::clone(&level.descriptor), name.clone());
            match blocking(move || inode::inspect(&directory, &entry_name, parent)).await? {
                Err(error) => self.skipped.add(&path, &error.to_string()),
                Ok(Entry::Skipped(reason)) => self.skipped.add(&path, reason),
                Ok(Entry::Directory { descriptor, metadata }) => {
                    match self.level(descriptor, path.clone(), subtree).await? {
                        Ok(level) => {
                            self.writer.begin_directory_with(name, metadata).await?;
                            levels.push(level);
                        }
                        Err(error) => self.skipped.add(&path, &error.to_string()),
                    }
                }
                Ok(entry) => self.add(&path, name, entry).await?,
            }
            self.report();
        }
        Ok(())
    }

    async fn level(
        &self,
        descriptor: OwnedFd,
        path: PathBuf,
        parent: Option<Id>,
    ) -> Result<io::Result<Level>, RepositoryError> {
        let descriptor = Arc::new(descriptor);
        let directory = Arc::clone(&descriptor);
        let names = match blocking(move || inode::names(&directory)).await? {
            Ok(names) => names.into_iter(),
            Err(error) => return Ok(Err(error)),
        };
        Ok(Ok(Level { descriptor, path, names, parent: self.parent.nodes(parent).await }))
    }

    /// Whether the repository still has all of a file: a snapshot can outlive damage to its packs.
    fn is_complete(&self, node: &Node) -> bool {
        node.content.iter().flatten().all(|id| self.writer.packer().has(BlobKind::Data, id))
    }

    async fn add(&mut self, path: &Path, name: OsString, entry: Entry) -> Result<(), RepositoryError> {
        match entry {
            Entry::Unchanged(node) => {
                self.bytes.fetch_add(node.size, Ordering::Relaxed);
                self.writer.add_node(node)?;
            }
            Entry::Other(node) => self.writer.add_node(node)?,
            Entry::Small { metadata, data, changed } => {
                self.bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
                self.writer.add_file(name, metadata, io::Cursor::new(data)).await?;
                if changed {
                    self.skipped.add(path, CHANGED);
                }
            }
            Entry::File { file, metadata, stat } => match self.read(file, stat).await {
                Ok((content, changed)) => {
                    self.writer.push_file(name, metadata, content);
                    if changed {
                        self.skipped.add(path, CHANGED);
                    }
                }
                Err(ContentError::Source(error)) => {
                    self.skipped.add(path, &error.to_string());
                    return Ok(());
                }
                Err(ContentError::Repository(error)) => return Err(error),
            },
            Entry::Directory { .. } | Entry::Skipped(_) => return Ok(()),
        }
        self.done.files += 1;
        Ok(())
    }

    /// Stores a file's content; whether it changed while it was read, twice.
    async fn read(&self, file: std::fs::File, mut stamp: Stamp) -> Result<(Content, bool), ContentError> {
        let joined = |error| ContentError::Repository(RepositoryError::Worker(error));
        let (bytes, done, progress) = (self.bytes, self.done, self.progress);
        let mut file = file;
        let mut again = false;
        loop {
            let before = bytes.load(Ordering::Relaxed);
            let reader = tokio::fs::File::from_std(file.try_clone().map_err(ContentError::Source)?);
            // No more than there was at first: a file that grows faster than it goes up would never end.
            let reader = reader.take(stamp.size);
            let content = content::save(self.writer.packer(), reader, &|length| {
                let bytes = bytes.fetch_add(length, Ordering::Relaxed) + length;
                progress(Progress { bytes, ..done });
            })
            .await?;
            let now;
            (file, now) = tokio::task::spawn_blocking(move || {
                file.rewind()?;
                let now = Stamp::of(&file)?;
                Ok::<_, io::Error>((file, now))
            })
            .await
            .map_err(joined)?
            .map_err(ContentError::Source)?;
            let changed = now != stamp || content.size != stamp.size;
            if !changed || again {
                return Ok((content, changed));
            }
            (stamp, again) = (now, true);
            bytes.store(before, Ordering::Relaxed);
        }
    }

    fn report(&mut self) {
        self.done.bytes = self.bytes.load(Ordering::Relaxed);
        (self.progress)(self.done);
    }
}

const CHANGED: &str = "it changed while it was read; the backup has a copy that may be of no single moment";

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::MemoryStore;

    #[tokio::test]
    async fn a_file_that_grows_faster_than_it_is_read_ends_and_is_told() {
        const GROWTH: usize = 300 * 1024;
        let repository = Repository::open_or_init(Arc::new(MemoryStore::new()), "password").await.unwrap();
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("log");
        std::fs::write(&path, vec![1; 1 << 20]).unwrap();
        let log = std::fs::File::options().append(true).open(&path).unwrap();
        let calls = AtomicU64::new(0);
        let grow = |_: Progress| {
            // More with each read than a read takes, up to what would be a clear failure.
            if calls.fetch_add(1, Ordering::Relaxed) < 200 {
                (&log).write_all(&vec![1; GROWTH]).unwrap();
            }
        };
        let info = SnapshotInfo {
            hostname: "alpha".to_owned(),
            paths: Vec::new(),
            tags: Vec::new(),
            time: jiff::Timestamp::UNIX_EPOCH,
        };
        let done = backup_directory(&repository, root.path(), info, BackupOptions::default(), &grow).await.unwrap();
        assert_eq!((done.summary.files, done.skipped.count), (1, 1));
        assert_eq!(done.skipped.first[0].reason, CHANGED);
        // Two reads: one of 1 MiB, one of what there was after it.
        assert!(done.summary.bytes < 8 << 20, "{}", done.summary.bytes);
    }
}
