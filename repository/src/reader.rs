//! Reads blobs, directories and files of a repository.

use std::sync::Arc;

use bytes::Bytes;

use crate::blob::{self, BlobKind};
use crate::error::RepositoryError;
use crate::id::Id;
use crate::index::{Index, Location};
use crate::node::Node;
use crate::pack::PackError;
use crate::packer::pack_path;
use crate::read_ahead::ReadAhead;
use crate::repository::Repository;
use crate::tree::Tree;

/// Blobs up to this size are opened where they are; larger ones on another thread.
const INLINE: u32 = 64 * 1024;

/// Reads from a repository as its index was when the reader was made. Cloning it is cheap.
///
/// Every blob is authenticated and hashed; damaged ones are errors that name pack and blob.
#[derive(Clone, Debug)]
pub struct Reader {
    repository: Repository,
    index: Arc<Index>,
    ahead: Arc<ReadAhead>,
}

impl Reader {
    pub(crate) fn new(repository: Repository, index: Arc<Index>) -> Self {
        let ahead = Arc::new(ReadAhead::new(Arc::clone(repository.store())));
        Self { repository, index, ahead }
    }

    /// The repository it reads from.
    #[must_use]
    pub const fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The entries of one directory of a snapshot; `""` and `"/"` are its root.
    pub async fn entries(&self, snapshot: &Id, path: &str) -> Result<Vec<Node>, RepositoryError> {
        let mut tree = self.tree(&self.repository.snapshot(snapshot).await?.tree).await?;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let subtree = tree.find(part.as_ref()).and_then(|node| node.subtree);
            let subtree = subtree.ok_or_else(|| missing(snapshot, path, "directory"))?;
            tree = self.tree(&subtree).await?;
        }
        Ok(tree.nodes)
    }

    /// The entry at a path of a snapshot.
    pub async fn find(&self, snapshot: &Id, path: &str) -> Result<Node, RepositoryError> {
        let trimmed = path.trim_matches('/');
        let (directory, name) = trimmed.rsplit_once('/').unwrap_or(("", trimmed));
        let entries = self.entries(snapshot, directory).await?;
        entries.into_iter().find(|node| node.name == name).ok_or_else(|| missing(snapshot, path, "entry"))
    }

    /// A file's whole content. `limit` is how many bytes the caller is ready to hold.
    pub async fn read_file(&self, node: &Node, limit: u64) -> Result<Bytes, RepositoryError> {
        let too_large = |size| RepositoryError::TooLarge { name: node.display_name(), size, limit };
        if node.size > limit {
            return Err(too_large(node.size));
        }
        let ids = node.content.as_deref().unwrap_or_default();
        if let [id] = ids {
            let data = self.blob(BlobKind::Data, id).await?;
            return if data.len() as u64 > limit { Err(too_large(data.len() as u64)) } else { Ok(data) };
        }
        let mut whole = Vec::new();
        for id in ids {
            let data = self.blob(BlobKind::Data, id).await?;
            let size = whole.len() as u64 + data.len() as u64;
            if size > limit {
                return Err(too_large(size));
            }
            whole.extend_from_slice(&data);
        }
        Ok(whole.into())
    }

    /// A directory's entries by its tree id.
    pub async fn tree(&self, id: &Id) -> Result<Tree, RepositoryError> {
        let blob = self.blob(BlobKind::Tree, id).await?;
        serde_json::from_slice(&blob).map_err(|error| RepositoryError::malformed(format!("tree {id}"), error))
    }

    /// Whether the index names this blob.
    #[must_use]
    pub(crate) fn locate(&self, kind: BlobKind, id: &Id) -> Option<Location> {
        self.index.find(kind, id)
    }

    /// One blob's content, checked against its id.
    pub(crate) async fn blob(&self, kind: BlobKind, id: &Id) -> Result<Bytes, RepositoryError> {
        let location = self.locate(kind, id).ok_or(RepositoryError::MissingBlob { kind: kind.as_str(), id: *id })?;
        let (pack, blob) = (location.pack, *id);
        let sealed = self.ahead.read(&pack_path(&pack), &location).await.map_err(|source| match source.kind() {
            // A pack that is gone or short is damage; all else is the store's own trouble.
            crate::store::StoreErrorKind::NotFound | crate::store::StoreErrorKind::Corrupt => {
                Box::new(PackError::Store { pack, blob, source }).into()
            }
            _ => RepositoryError::Store(source),
        })?;
        let repository = self.repository.clone();
        let open = move || {
            blob::open(blob, &sealed, location.uncompressed, repository.key())
                .map(Bytes::from)
                .map_err(|source| Box::new(PackError::Blob { pack, blob, kind, source }))
        };
        let opened = if location.uncompressed.unwrap_or(location.length) <= INLINE {
            open()
        } else {
            tokio::task::spawn_blocking(open).await?
        };
        Ok(opened?)
    }
}

fn missing(snapshot: &Id, path: &str, expected: &'static str) -> RepositoryError {
    RepositoryError::MissingPath { snapshot: *snapshot, path: path.to_owned(), expected }
}
