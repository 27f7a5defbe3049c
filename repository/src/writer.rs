//! Writes one snapshot, directory by directory.

use std::ffi::{OsStr, OsString};
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::AsyncRead;

use crate::blob::BlobKind;
use crate::content::{self, Content, ContentError};
use crate::error::RepositoryError;
use crate::id::Id;
use crate::index::Index;
use crate::node::{Metadata, Node, NodeKind, is_entry_name};
use crate::packer::Packer;
use crate::repository::Repository;
use crate::snapshot::{Snapshot, SnapshotInfo};
use crate::tree::Tree;

/// What became of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSummary {
    /// Its length in bytes.
    pub bytes: u64,
    /// Of how many blobs it consists.
    pub blobs: u64,
}

/// What a finished snapshot holds, and what it cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The snapshot.
    pub snapshot: Id,
    /// Its root directory.
    pub tree: Id,
    /// Entries that are no directories.
    pub files: u64,
    /// Directories, the root not counted.
    pub directories: u64,
    /// Bytes in all files.
    pub bytes: u64,
    /// Bytes that the repository did not have before, uncompressed.
    pub bytes_added: u64,
    /// Bytes that were stored for them, compressed and encrypted.
    pub bytes_stored: u64,
}

/// Writes one snapshot depth first; entries of a directory come in any order.
///
/// Memory holds the entries of the open directories, the packs under way (about 120 MiB at most) and the index. Dropping
/// the writer leaves packs that no snapshot uses; the repository stays whole.
#[derive(Debug)]
pub struct SnapshotWriter {
    packer: Arc<Packer>,
    /// The root first. Never empty.
    open: Vec<OpenDirectory>,
    parent: Option<Id>,
    files: u64,
    directories: u64,
    bytes: u64,
}

#[derive(Debug)]
struct OpenDirectory {
    name: OsString,
    metadata: Metadata,
    tree: Tree,
}

impl SnapshotWriter {
    pub(crate) fn new(repository: Repository, index: Arc<Index>) -> Self {
        let root = OpenDirectory { name: OsString::new(), metadata: Metadata::synthetic(0o700), tree: Tree::default() };
        Self {
            packer: Arc::new(Packer::new(repository, index)),
            open: vec![root],
            parent: None,
            files: 0,
            directories: 0,
            bytes: 0,
        }
    }

    /// Names the snapshot that this one was compared with.
    pub fn set_parent(&mut self, parent: Id) {
        self.parent = Some(parent);
    }

    /// Opens a directory of mode 0700 in the one that is open.
    pub async fn begin_directory(&mut self, name: impl AsRef<OsStr> + Send) -> Result<(), RepositoryError> {
        self.begin_directory_with(name, Metadata::synthetic(0o700)).await
    }

    /// Opens a directory in the one that is open.
    #[expect(clippy::unused_async, reason = "all that changes the snapshot is called alike")]
    pub async fn begin_directory_with(
        &mut self,
        name: impl AsRef<OsStr> + Send,
        metadata: Metadata,
    ) -> Result<(), RepositoryError> {
        let name = entry_name(name.as_ref())?;
        self.open.push(OpenDirectory { name, metadata, tree: Tree::default() });
        Ok(())
    }

    /// Closes the directory that was opened last.
    pub async fn end_directory(&mut self) -> Result<(), RepositoryError> {
        if self.open.len() < 2 {
            return Err(RepositoryError::Misuse { reason: "a directory was ended that was not begun" });
        }
        let Some(directory) = self.open.pop() else { return Ok(()) };
        let subtree = self.save_tree(directory.tree).await?;
        let mut node = Node::new(directory.name, NodeKind::Dir, directory.metadata);
        node.subtree = Some(subtree);
        self.directories += 1;
        self.push(node);
        Ok(())
    }

    /// Adds a regular file of mode 0600 with fixed times and owner: equal bytes make equal trees.
    pub async fn add_bytes(
        &mut self,
        name: impl AsRef<OsStr> + Send,
        data: Bytes,
    ) -> Result<FileSummary, RepositoryError> {
        self.add_file(name, Metadata::synthetic(0o600), std::io::Cursor::new(data)).await
    }

    /// Adds a regular file and reads its content to the end.
    ///
    /// When reading fails the file is not added, and the writer can go on with others.
    pub async fn add_file<R: AsyncRead + Send + Unpin>(
        &mut self,
        name: impl AsRef<OsStr> + Send,
        metadata: Metadata,
        content: R,
    ) -> Result<FileSummary, RepositoryError> {
        let name = entry_name(name.as_ref())?;
        match content::save(&self.packer, content, &|_| ()).await {
            Ok(content) => Ok(self.push_file(name, metadata, content)),
            Err(ContentError::Source(source)) => {
                Err(RepositoryError::Source { name: name.to_string_lossy().into_owned(), source })
            }
            Err(ContentError::Repository(error)) => Err(error),
        }
    }

    /// Adds an entry that is complete: a link or a device, or a file whose blobs the repository has.
    pub(crate) fn add_node(&mut self, node: Node) -> Result<(), RepositoryError> {
        entry_name(&node.name)?;
        self.files += 1;
        self.bytes += node.size;
        self.push(node);
        Ok(())
    }

    pub(crate) fn push_file(&mut self, name: OsString, metadata: Metadata, content: Content) -> FileSummary {
        let summary = FileSummary { bytes: content.size, blobs: content.ids.len() as u64 };
        let mut node = Node::new(name, NodeKind::File, metadata);
        node.size = content.size;
        node.content = Some(content.ids);
        self.files += 1;
        self.bytes += content.size;
        self.push(node);
        summary
    }

    pub(crate) const fn packer(&self) -> &Arc<Packer> {
        &self.packer
    }

    fn push(&mut self, node: Node) {
        if let Some(directory) = self.open.last_mut() {
            directory.tree.nodes.push(node);
        }
    }

    async fn save_tree(&self, mut tree: Tree) -> Result<Id, RepositoryError> {
        tree.sort().map_err(|name| RepositoryError::DuplicateName { name })?;
        let blob = tree.to_blob().map_err(|error| RepositoryError::malformed("a new directory", error))?;
        drop(tree);
        self.packer.save(BlobKind::Tree, blob.into()).await
    }

    /// Stores what is left, then the index, then the snapshot.
    pub async fn finish(mut self, info: SnapshotInfo) -> Result<Summary, RepositoryError> {
        let Some(root) = self.open.pop().filter(|_| self.open.is_empty()) else {
            return Err(RepositoryError::Misuse { reason: "a directory was begun and not ended" });
        };
        let tree = self.save_tree(root.tree).await?;
        let stored = self.packer.finish().await?;
        let snapshot = Snapshot::new(info, tree, self.parent);
        let id = self.packer.repository().save_json("snapshots", &snapshot).await?;
        Ok(Summary {
            snapshot: id,
            tree,
            files: self.files,
            directories: self.directories,
            bytes: self.bytes,
            bytes_added: stored.plain,
            bytes_stored: stored.packed,
        })
    }
}

fn entry_name(name: &OsStr) -> Result<OsString, RepositoryError> {
    if is_entry_name(name) {
        Ok(name.to_owned())
    } else {
        Err(RepositoryError::InvalidName { name: name.to_string_lossy().into_owned() })
    }
}
