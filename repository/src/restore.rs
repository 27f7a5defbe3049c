//! Restores a directory of a snapshot to a file system, and checks what it wrote.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::{StreamExt, stream};

use crate::backup::Progress;
use crate::blob::BlobKind;
use crate::error::RepositoryError;
use crate::id::Id;
use crate::node::{Node, is_entry_name};
use crate::reader::Reader;
use crate::skipped::Skipped;
use crate::target;
use crate::verify;

/// Blobs of a file that are read ahead while one is written: at most 8 MiB each, and as much again sealed.
const READ_AHEAD: usize = 4;

/// How to restore.
#[derive(Clone, Debug, Default)]
pub struct RestoreOptions {
    /// The directory of the snapshot whose entries go into the target. `None`: the one that the snapshot was taken of,
    /// when it was taken of one, else the snapshot's root.
    pub path: Option<String>,
}

/// What became of a restore.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DirectoryRestore {
    /// Entries restored that are no directories.
    pub files: u64,
    /// Directories restored, the target not counted.
    pub directories: u64,
    /// Bytes of files restored.
    pub bytes: u64,
    /// Files that were read back and are what the snapshot says.
    pub verified_files: u64,
    /// Their bytes.
    pub verified_bytes: u64,
    /// What could not be restored, or is not what it must be.
    pub failed: Skipped,
}

/// Restores a directory into `target`, then reads every file back from the disk and compares it with the snapshot.
///
/// What the target has of the same name is replaced, directories are merged, all else there stays. No link in the target
/// is followed, and no name of the snapshot leads out of it. Zeros become holes. Metadata is set last, that of
/// directories when their entries are done. What cannot be restored is left out and counted; a store that does not
/// answer, or a full disk, ends the restore. `progress` is called often and must be quick.
///
/// Memory: the blobs of one file that are read ahead, the entries of the directories that are open, and about 100 bytes
/// for each file with several names.
pub async fn restore_directory(
    reader: &Reader,
    snapshot: &Id,
    target: &Path,
    options: RestoreOptions,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<DirectoryRestore, RepositoryError> {
    let (node, tree) = start(reader, snapshot, options).await?;
    let failed = |source| RepositoryError::Target { path: target.to_string_lossy().into_owned(), source };
    let place = target.to_owned();
    let root = Arc::new(blocking(move || target::open_target(&place)).await?.map_err(failed)?);
    let mut walk = Walk {
        reader,
        root: Arc::clone(&root),
        links: HashMap::new(),
        result: DirectoryRestore::default(),
        progress,
        target,
    };
    walk.run(tree).await?;
    let mut result = walk.result;
    let place = Arc::clone(&root);
    // On disk before it is read back, and before the directory's own metadata.
    blocking(move || Ok(rustix::fs::syncfs(&*place)?)).await?.map_err(failed)?;
    verify::directory(reader, &root, tree, &mut result).await?;
    if let Some(mut node) = node {
        // The target's own name is not the snapshot's.
        node.name = ".".into();
        let place = Arc::clone(&root);
        if let Err(error) = blocking(move || target::set_metadata(place.as_fd(), &place, &node)).await? {
            result.failed.add(Path::new("."), &format!("its metadata: {error}"));
        }
    }
    Ok(result)
}

/// The directory to restore: its entry, if it has one, and its tree.
async fn start(reader: &Reader, snapshot: &Id, options: RestoreOptions) -> Result<(Option<Node>, Id), RepositoryError> {
    let known = reader.repository().snapshot(snapshot).await?;
    let (path, asked) = match (options.path, known.paths.as_slice()) {
        (Some(path), _) => (path, true),
        (None, [path]) => (path.clone(), false),
        (None, _) => return Ok((None, known.tree)),
    };
    if path.split('/').all(str::is_empty) {
        return Ok((None, known.tree));
    }
    match reader.find(snapshot, &path).await {
        Ok(node) if node.subtree.is_some() => {
            let tree = node.subtree.unwrap_or(known.tree);
            Ok((Some(node), tree))
        }
        Ok(_) | Err(RepositoryError::MissingPath { .. }) if !asked => Ok((None, known.tree)),
        Ok(_) => Err(RepositoryError::MissingPath { snapshot: *snapshot, path, expected: "directory" }),
        Err(error) => Err(error),
    }
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<io::Result<T>, RepositoryError> {
    Ok(tokio::task::spawn_blocking(work).await?)
}

/// Whether an error of the repository concerns only what was read, so that the rest can still be restored.
pub(crate) const fn is_local(error: &RepositoryError) -> bool {
    matches!(error, RepositoryError::Pack(_) | RepositoryError::MissingBlob { .. } | RepositoryError::Malformed { .. })
}

struct Walk<'a> {
    reader: &'a Reader,
    root: Arc<OwnedFd>,
    /// The first name of each inode that has several.
    links: HashMap<(u64, u64), PathBuf>,
    result: DirectoryRestore,
    progress: &'a (dyn Fn(Progress) + Send + Sync),
    target: &'a Path,
}

/// A directory that is being filled.
struct Level {
    descriptor: Arc<OwnedFd>,
    /// Its parent and entry; `None` for the target.
    own: Option<(Arc<OwnedFd>, Node)>,
    path: PathBuf,
    nodes: std::vec::IntoIter<Node>,
}

impl Walk<'_> {
    async fn run(&mut self, tree: Id) -> Result<(), RepositoryError> {
        let nodes = self.reader.tree(&tree).await?.nodes.into_iter();
        let mut levels = vec![Level { descriptor: Arc::clone(&self.root), own: None, path: PathBuf::new(), nodes }];
        while let Some(level) = levels.last_mut() {
            let Some(node) = level.nodes.next() else {
                if let Some(Level { descriptor, own: Some((parent, node)), path, .. }) = levels.pop() {
                    let done = blocking(move || target::set_metadata(descriptor.as_fd(), &parent, &node)).await?;
                    self.note(&path, done.map_err(|error| with_context("its metadata", &error)))?;
                    self.result.directories += 1;
                    self.report();
                }
                continue;
            };
            let path = level.path.join(&node.name);
            let parent = Arc::clone(&level.descriptor);
            if !is_entry_name(&node.name) {
                self.result.failed.add(&path, "its name would lead out of its directory");
            } else if let (true, Some(subtree)) = (node.is_directory(), node.subtree) {
                if let Some(level) = self.enter(parent, path, node, subtree).await? {
                    levels.push(level);
                }
            } else {
                self.entry(parent, &path, node).await?;
                self.report();
            }
        }
        Ok(())
    }

    async fn enter(
        &mut self,
        parent: Arc<OwnedFd>,
        path: PathBuf,
        node: Node,
        subtree: Id,
    ) -> Result<Option<Level>, RepositoryError> {
        let nodes = match self.reader.tree(&subtree).await {
            Ok(tree) => tree.nodes.into_iter(),
            Err(error) if is_local(&error) => {
                self.result.failed.add(&path, &error.to_string());
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let (directory, name) = (Arc::clone(&parent), node.name.clone());
        let made = blocking(move || target::make_directory(&directory, &name)).await?;
        Ok(self.note(&path, made)?.map(|descriptor| Level {
            descriptor: Arc::new(descriptor),
            own: Some((parent, node)),
            path,
            nodes,
        }))
    }

    async fn entry(&mut self, parent: Arc<OwnedFd>, path: &Path, node: Node) -> Result<(), RepositoryError> {
        let inode = (node.metadata.device_id, node.metadata.inode);
        let linked = node.metadata.links > 1 && node.metadata.inode != 0;
        if linked && let Some(first) = self.links.get(&inode) {
            let (root, first, name) = (Arc::clone(&self.root), first.clone(), node.name.clone());
            let made = blocking(move || target::make_hard_link(&root, &first, &parent, &name)).await?;
            if self.note(path, made)?.is_some() {
                self.result.files += 1;
            }
            return Ok(());
        }
        let done = if node.is_file() {
            self.file(parent, path, node).await?
        } else {
            let made = blocking(move || target::make_other(&parent, &node)).await?;
            self.note(path, made)?.is_some()
        };
        if done {
            self.result.files += 1;
            if linked {
                self.links.insert(inode, path.to_owned());
            }
        }
        Ok(())
    }

    /// Writes one file; false when it failed and what was written of it is removed.
    async fn file(&mut self, parent: Arc<OwnedFd>, path: &Path, node: Node) -> Result<bool, RepositoryError> {
        let (directory, name) = (Arc::clone(&parent), node.name.clone());
        let made = blocking(move || target::make_file(&directory, &name)).await?;
        let Some(file) = self.note(path, made)? else { return Ok(false) };
        let file = Arc::new(file);
        let (directory, name) = (Arc::clone(&parent), node.name.clone());
        match self.content(&file, path, &node).await {
            Ok(Some(length)) => {
                let done = blocking(move || target::finish_file(&parent, &node, &file, length)).await?;
                // The content is there: a file without all of its metadata is better than none.
                self.note(path, done.map_err(|error| with_context("its metadata", &error)))?;
                Ok(true)
            }
            incomplete => {
                let removed = blocking(move || target::make_room(&directory, &name)).await?;
                self.note(path, removed)?;
                incomplete.map(|_| false)
            }
        }
    }

    /// Writes a file's blobs; its length, or `None` when one is damaged or the disk refuses it.
    async fn content(
        &mut self,
        file: &Arc<std::fs::File>,
        path: &Path,
        node: &Node,
    ) -> Result<Option<u64>, RepositoryError> {
        let reader = self.reader;
        let mut blobs = stream::iter(node.content.clone().unwrap_or_default())
            .map(|id| async move { reader.blob(BlobKind::Data, &id).await })
            .buffered(READ_AHEAD);
        let (mut offset, mut refused) = (0, None);
        while let Some(blob) = blobs.next().await {
            let blob = match blob {
                Ok(blob) => blob,
                Err(error) if is_local(&error) => {
                    refused = Some(error.to_string());
                    break;
                }
                Err(error) => return Err(error),
            };
            let (output, length) = (Arc::clone(file), blob.len() as u64);
            if let Err(error) = blocking(move || target::write_sparse(&output, offset, &blob)).await? {
                if is_final(&error) {
                    return Err(self.target_error(error));
                }
                refused = Some(error.to_string());
                break;
            }
            offset += length;
            (self.progress)(Progress { bytes: self.result.bytes + offset, ..self.done() });
        }
        drop(blobs);
        if let Some(reason) = refused {
            self.result.failed.add(path, &reason);
            return Ok(None);
        }
        self.result.bytes += offset;
        Ok(Some(offset))
    }

    /// Counts a failure; one that every further entry would meet too is an error.
    fn note<T>(&mut self, path: &Path, result: io::Result<T>) -> Result<Option<T>, RepositoryError> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) if is_final(&error) => Err(self.target_error(error)),
            Err(error) => {
                self.result.failed.add(path, &error.to_string());
                Ok(None)
            }
        }
    }

    fn target_error(&self, source: io::Error) -> RepositoryError {
        RepositoryError::Target { path: self.target.to_string_lossy().into_owned(), source }
    }

    const fn done(&self) -> Progress {
        Progress { files: self.result.files, directories: self.result.directories, bytes: self.result.bytes }
    }

    fn report(&self) {
        (self.progress)(self.done());
    }
}

fn is_final(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::ReadOnlyFilesystem
    )
}

fn with_context(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}
