//! Fills packs with blobs that are not stored yet, uploads them, and writes the index of what is uploaded.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::task::{JoinError, JoinSet};

use crate::blob::{self, BlobKind, SealedBlob};
use crate::error::RepositoryError;
use crate::id::Id;
use crate::index::{Index, IndexBlob, IndexFile, IndexPack};
use crate::pack::PackBuilder;
use crate::repository::{Repository, create_addressed};

/// Packs that are being uploaded at once. With one more waiting and two being filled, about 7 * 16 MiB of memory.
const UPLOADS: usize = 4;
/// An index file is written when so many blobs or packs are uploaded: a backup that is killed loses no more than these
/// for the next one, and memory does not grow with what is uploaded.
const INDEX_BLOBS: usize = 20_000;
const INDEX_PACKS: usize = 128;
/// Blobs up to this size are hashed and encrypted where they are, in well under a millisecond; handing them to another
/// thread would take about as long.
const INLINE: usize = 64 * 1024;

/// The blobs of one new snapshot on their way to the store.
#[derive(Debug)]
pub(crate) struct Packer {
    repository: Repository,
    known: Arc<Index>,
    /// Blobs that this packer took in: 36 bytes each, like an index of the new data. Whoever adds one seals it.
    fresh: Mutex<HashSet<(Id, BlobKind)>>,
    open: tokio::sync::Mutex<Open>,
    plain_bytes: AtomicU64,
    stored_bytes: AtomicU64,
}

#[derive(Debug, Default)]
struct Open {
    data: PackBuilder,
    tree: PackBuilder,
    uploads: JoinSet<Result<IndexPack, RepositoryError>>,
    /// Uploaded, not yet in an index file.
    packs: Vec<IndexPack>,
    blobs: usize,
    /// Blobs in index files.
    indexed: usize,
}

/// What a packer stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stored {
    /// Bytes of new blobs before compression.
    pub(crate) plain: u64,
    /// Bytes of their sealed form.
    pub(crate) packed: u64,
}

/// A blob that is being hashed and sealed, perhaps already on another thread.
pub(crate) enum Sealing {
    Done(Result<(Id, Option<SealedBlob>), RepositoryError>),
    Running(tokio::task::JoinHandle<Result<(Id, Option<SealedBlob>), RepositoryError>>),
}

impl Packer {
    pub(crate) fn new(repository: Repository, known: Arc<Index>) -> Self {
        Self {
            repository,
            known,
            fresh: Mutex::default(),
            open: tokio::sync::Mutex::default(),
            plain_bytes: AtomicU64::new(0),
            stored_bytes: AtomicU64::new(0),
        }
    }

    pub(crate) const fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Whether the repository has this blob or this packer will store it.
    pub(crate) fn has(&self, kind: BlobKind, id: &Id) -> bool {
        self.known.find(kind, id).is_some()
            || self.fresh.lock().unwrap_or_else(PoisonError::into_inner).contains(&(*id, kind))
    }

    /// Stores a blob unless it is there already; its id.
    pub(crate) async fn save(self: &Arc<Self>, kind: BlobKind, plain: Bytes) -> Result<Id, RepositoryError> {
        let sealing = self.start(kind, plain);
        self.finish_blob(sealing).await
    }

    /// Starts to hash and seal. [`Packer::finish_blob`] must follow, else [`Packer::finish`] fails.
    pub(crate) fn start(self: &Arc<Self>, kind: BlobKind, plain: Bytes) -> Sealing {
        if plain.len() <= INLINE {
            return Sealing::Done(self.seal(kind, &plain));
        }
        let packer = Arc::clone(self);
        Sealing::Running(tokio::task::spawn_blocking(move || packer.seal(kind, &plain)))
    }

    /// Waits for the seal and puts the blob into a pack. Waits for an upload when too many are under way.
    pub(crate) async fn finish_blob(&self, sealing: Sealing) -> Result<Id, RepositoryError> {
        let (id, sealed) = match sealing {
            Sealing::Done(result) => result?,
            Sealing::Running(task) => task.await??,
        };
        if let Some(blob) = sealed {
            let mut open = self.open.lock().await;
            let builder = match blob.kind {
                BlobKind::Data => &mut open.data,
                BlobKind::Tree => &mut open.tree,
            };
            if builder.push(&blob) {
                let full = std::mem::take(builder);
                self.upload(&mut open, full).await?;
            }
        }
        Ok(id)
    }

    fn seal(&self, kind: BlobKind, plain: &[u8]) -> Result<(Id, Option<SealedBlob>), RepositoryError> {
        let id = Id::of(plain);
        if self.known.find(kind, &id).is_some()
            || !self.fresh.lock().unwrap_or_else(PoisonError::into_inner).insert((id, kind))
        {
            return Ok((id, None));
        }
        self.plain_bytes.fetch_add(plain.len() as u64, Ordering::Relaxed);
        let sealed = blob::seal(kind, id, plain, self.repository.key())
            .map_err(|error| RepositoryError::malformed(format!("new blob {id}"), error))?;
        Ok((id, Some(sealed)))
    }

    async fn upload(&self, open: &mut Open, pack: PackBuilder) -> Result<(), RepositoryError> {
        while open.uploads.len() >= UPLOADS {
            let done = open.uploads.join_next().await;
            self.record(open, done).await?;
        }
        let repository = self.repository.clone();
        open.uploads.spawn(async move {
            let sealer = repository.clone();
            let (id, bytes, blobs) = tokio::task::spawn_blocking(move || {
                let (bytes, blobs) = pack.finish(sealer.key())?;
                Ok::<_, RepositoryError>((Id::of(&bytes), Bytes::from(bytes), blobs))
            })
            .await??;
            let length = bytes.len();
            create_addressed(&**repository.store(), &pack_path(&id), bytes).await?;
            tracing::debug!(pack = %id, blobs = blobs.len(), length, "stored a pack");
            Ok(IndexPack { id, blobs: blobs.iter().map(IndexBlob::from).collect() })
        });
        Ok(())
    }

    /// Takes in the end of an upload; writes an index file when there is enough for one.
    async fn record(
        &self,
        open: &mut Open,
        done: Option<Result<Result<IndexPack, RepositoryError>, JoinError>>,
    ) -> Result<(), RepositoryError> {
        let Some(done) = done else { return Ok(()) };
        let pack = done??;
        self.stored_bytes.fetch_add(pack.stored_bytes(), Ordering::Relaxed);
        open.blobs += pack.blobs.len();
        open.packs.push(pack);
        if open.blobs >= INDEX_BLOBS || open.packs.len() >= INDEX_PACKS {
            self.write_index(open).await?;
        }
        Ok(())
    }

    async fn write_index(&self, open: &mut Open) -> Result<(), RepositoryError> {
        if open.packs.is_empty() {
            return Ok(());
        }
        let file = IndexFile { supersedes: None, packs: std::mem::take(&mut open.packs) };
        let id = self.repository.save_json("index", &file).await?;
        tracing::debug!(index = %id, packs = file.packs.len(), blobs = open.blobs, "stored an index file");
        open.indexed += std::mem::take(&mut open.blobs);
        Ok(())
    }

    /// Stores what is left. When this returns, every blob that was saved is in the store and in its index.
    pub(crate) async fn finish(&self) -> Result<Stored, RepositoryError> {
        let mut open = self.open.lock().await;
        for pack in [std::mem::take(&mut open.data), std::mem::take(&mut open.tree)] {
            if !pack.is_empty() {
                self.upload(&mut open, pack).await?;
            }
        }
        while let Some(done) = open.uploads.join_next().await {
            self.record(&mut open, Some(done)).await?;
        }
        self.write_index(&mut open).await?;
        // A call that was cancelled, or whose error the caller passed over, left a blob out: the snapshot must not exist.
        if open.indexed != self.fresh.lock().unwrap_or_else(PoisonError::into_inner).len() {
            return Err(RepositoryError::Misuse { reason: "an earlier write was cancelled or failed; start again" });
        }
        Ok(Stored {
            plain: self.plain_bytes.load(Ordering::Relaxed),
            packed: self.stored_bytes.load(Ordering::Relaxed),
        })
    }
}

/// Where a pack is stored.
pub(crate) fn pack_path(id: &Id) -> String {
    let name = id.to_string();
    format!("data/{}/{name}", &name[..2])
}
