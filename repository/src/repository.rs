//! A repository: opening and making one, and its files outside packs.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};

use crate::chunker::Tables;
use crate::crypto::{Key, fill_random};
use crate::error::RepositoryError;
use crate::go_json;
use crate::id::Id;
use crate::index::{Index, IndexFile};
use crate::key_file::KeyFile;
use crate::polynomial::Polynomial;
use crate::reader::Reader;
use crate::snapshot::Snapshot;
use crate::store::{BlobStore, StoreError, StoreErrorKind};
use crate::unpacked;
use crate::writer::SnapshotWriter;

const CONFIG: &str = "config";
const VERSION: u32 = 2;
/// The first key of a repository, before its name is known to anyone: see [`Repository::open_or_init`].
const FIRST_KEY: &str = "first-key";
/// restic tries as many keys and no more.
const MAX_KEYS: usize = 20;
/// Index files and snapshots read at once.
const PARALLEL_READS: usize = 4;

/// The file `config`.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Config {
    version: u32,
    id: Id,
    chunker_polynomial: Polynomial,
}

/// An open repository. Cloning it is cheap.
#[derive(Clone, Debug)]
pub struct Repository {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Arc<dyn BlobStore>,
    key: Key,
    id: Id,
    tables: Tables,
}

impl Repository {
    /// Opens the repository, or makes it where there is none. Safe when several do it at once, and when one is killed
    /// midway.
    ///
    /// 1. Who finds no `config` offers a key by creating `first-key`; the store lets one win, and all take the winner's.
    /// 2. The winner's key is stored under its own name in `keys/`, as often as anyone likes: always the same bytes.
    /// 3. `config` is created; who comes second reads the first one's.
    ///
    /// So there is one master key, whoever wins each step. Stock restic ignores `first-key`, which is a copy of a file in
    /// `keys/` and stays, since a store may forbid deletion.
    pub async fn open_or_init(store: Arc<dyn BlobStore>, password: &str) -> Result<Self, RepositoryError> {
        match Self::open(Arc::clone(&store), password).await {
            Err(RepositoryError::NotInitialized) => {}
            result => return result,
        }
        let (secret, random) =
            (password.to_owned(), Key::random().map_err(|error| RepositoryError::crypto("a new key", error))?);
        let offered = tokio::task::spawn_blocking(move || {
            let file = KeyFile::seal(&random, &secret)?;
            go_json::to_vec(&file).map_err(|error| RepositoryError::malformed("a new key", error))
        })
        .await??;
        create_or_keep(&*store, FIRST_KEY, offered.into()).await?;
        let agreed = store.read(FIRST_KEY).await?;
        let key = open_key(&agreed, password, FIRST_KEY).await?.ok_or(RepositoryError::WrongPassword { keys: 1 })?;
        create_or_keep(&*store, &format!("keys/{}", Id::of(&agreed)), agreed).await?;

        let mut id = [0; 32];
        fill_random(&mut id).map_err(|error| RepositoryError::crypto("a new repository", error))?;
        let polynomial = Polynomial::random().map_err(|error| RepositoryError::crypto("a new repository", error))?;
        let config = Config { version: VERSION, id: Id::from_bytes(id), chunker_polynomial: polynomial };
        let json = go_json::to_vec(&config).map_err(|error| RepositoryError::malformed(CONFIG, error))?;
        let sealed = key.seal(&json).map_err(|error| RepositoryError::crypto(CONFIG, error))?;
        create_or_keep(&*store, CONFIG, sealed.into()).await?;
        Self::open(store, password).await
    }

    /// Opens a repository that is there.
    pub async fn open(store: Arc<dyn BlobStore>, password: &str) -> Result<Self, RepositoryError> {
        let sealed = store.read(CONFIG).await.map_err(|error| match error.kind() {
            StoreErrorKind::NotFound if error.code() != Some("ContainerNotFound") => RepositoryError::NotInitialized,
            _ => error.into(),
        })?;
        let (key, config) = find_key(&*store, password, &sealed).await?;
        if config.version != VERSION {
            return Err(RepositoryError::UnsupportedVersion { version: config.version });
        }
        let tables = Tables::new(config.chunker_polynomial);
        tracing::debug!(repository = %config.id, "opened");
        Ok(Self { inner: Arc::new(Inner { store, key, id: config.id, tables }) })
    }

    /// The repository's own id, random, made with it.
    #[must_use]
    pub fn id(&self) -> Id {
        self.inner.id
    }

    /// All snapshots, oldest first.
    pub async fn snapshots(&self) -> Result<Vec<(Id, Snapshot)>, RepositoryError> {
        let mut snapshots: Vec<_> = self.stream_snapshots().try_collect().await?;
        snapshots.sort_by_key(|(id, snapshot)| (snapshot.time, *id));
        Ok(snapshots)
    }

    /// All snapshots in no order, without holding them.
    #[must_use]
    pub fn stream_snapshots(&self) -> BoxStream<'_, Result<(Id, Snapshot), RepositoryError>> {
        self.ids("snapshots/")
            .map_ok(move |id| async move { Ok((id, self.snapshot(&id).await?)) })
            .try_buffer_unordered(PARALLEL_READS)
            .boxed()
    }

    /// One snapshot.
    pub async fn snapshot(&self, id: &Id) -> Result<Snapshot, RepositoryError> {
        match self.load_json("snapshots", id).await {
            Err(RepositoryError::Store(error)) if error.kind() == StoreErrorKind::NotFound => {
                Err(RepositoryError::MissingSnapshot { id: *id })
            }
            result => result,
        }
    }

    /// A writer for one new snapshot. Loads the index, so that what is stored already is not stored again.
    pub async fn writer(&self) -> Result<SnapshotWriter, RepositoryError> {
        Ok(SnapshotWriter::new(self.clone(), Arc::new(self.load_index().await?)))
    }

    /// A reader of all snapshots that are there now.
    pub async fn reader(&self) -> Result<Reader, RepositoryError> {
        Ok(Reader::new(self.clone(), Arc::new(self.load_index().await?)))
    }

    pub(crate) fn store(&self) -> &Arc<dyn BlobStore> {
        &self.inner.store
    }

    pub(crate) fn key(&self) -> &Key {
        &self.inner.key
    }

    pub(crate) fn tables(&self) -> &Tables {
        &self.inner.tables
    }

    pub(crate) async fn load_index(&self) -> Result<Index, RepositoryError> {
        let mut index = Index::default();
        let mut files = self
            .ids("index/")
            .map_ok(move |id| async move { self.load_json::<IndexFile>("index", &id).await })
            .try_buffer_unordered(PARALLEL_READS);
        while let Some(file) = files.try_next().await? {
            index.add(file);
        }
        drop(files);
        let index = tokio::task::spawn_blocking(move || {
            index.seal();
            index
        })
        .await?;
        tracing::debug!(blobs = index.len(), "loaded the index");
        Ok(index)
    }

    /// Writes a file outside packs and gives its id. What it refers to must be stored already.
    pub(crate) async fn save_json<T: Serialize>(&self, folder: &str, value: &T) -> Result<Id, RepositoryError> {
        let what = format!("a new file of {folder}/");
        let json = go_json::to_vec(value).map_err(|error| RepositoryError::malformed(&*what, error))?;
        let repository = self.clone();
        let sealed = tokio::task::spawn_blocking(move || unpacked::seal(&json, repository.key(), &what)).await??;
        let id = Id::of(&sealed);
        create_addressed(&**self.store(), &format!("{folder}/{id}"), sealed.into()).await?;
        Ok(id)
    }

    async fn load_json<T: serde::de::DeserializeOwned + Send + 'static>(
        &self,
        folder: &str,
        id: &Id,
    ) -> Result<T, RepositoryError> {
        let what = format!("{folder}/{id}");
        let sealed = self.store().read(&what).await?;
        let repository = self.clone();
        let expected = *id;
        tokio::task::spawn_blocking(move || {
            let actual = Id::of(&sealed);
            if actual != expected {
                return Err(RepositoryError::malformed(what, format!("its bytes hash to {actual}")));
            }
            let json = unpacked::open(&sealed, repository.key(), &what)?;
            serde_json::from_slice(&json).map_err(|error| RepositoryError::malformed(what, error))
        })
        .await?
    }

    /// The ids of the files in a folder. What has no id for its name (left by tools, by file systems) is passed over.
    fn ids(&self, folder: &'static str) -> BoxStream<'_, Result<Id, RepositoryError>> {
        self.store()
            .list(folder)
            .map_err(RepositoryError::from)
            .try_filter_map(move |entry| async move {
                Ok(entry.path.strip_prefix(folder).and_then(|name| name.parse().ok()))
            })
            .boxed()
    }
}

/// Creates a blob of which any content will do: another one that is there already stays.
async fn create_or_keep(store: &dyn BlobStore, path: &str, data: Bytes) -> Result<(), StoreError> {
    match store.create(path, data).await {
        Err(error) if error.kind() == StoreErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

/// Creates a blob that is named by its content. When it is there already with the same length, it is the same blob: the
/// answer to an earlier try was lost.
pub(crate) async fn create_addressed(store: &dyn BlobStore, path: &str, data: Bytes) -> Result<(), StoreError> {
    let length = data.len() as u64;
    let error = match store.create(path, data).await {
        Err(error) if error.kind() == StoreErrorKind::AlreadyExists => error,
        result => return result,
    };
    let mut entries = store.list(path);
    while let Some(entry) = entries.try_next().await? {
        if entry.path == path && entry.size == length {
            return Ok(());
        }
    }
    Err(error)
}

/// Finds the key that opens the configuration. A key whose password fits but that does not open it is passed over: a
/// killed `restic init` can leave one.
async fn find_key(store: &dyn BlobStore, password: &str, sealed: &[u8]) -> Result<(Key, Config), RepositoryError> {
    let mut entries = store.list("keys/").take(MAX_KEYS);
    let mut keys = 0;
    let mut mismatch = None;
    while let Some(entry) = entries.try_next().await? {
        if entry.path.trim_start_matches("keys/").parse::<Id>().is_err() {
            continue;
        }
        keys += 1;
        let file = store.read(&entry.path).await?;
        let key = match open_key(&file, password, &entry.path).await {
            Ok(Some(key)) => key,
            Ok(None) => continue,
            // One damaged key file does not keep the others from opening the repository.
            Err(error) => {
                mismatch = Some(error);
                continue;
            }
        };
        match key.open(sealed) {
            Ok(json) => {
                let config =
                    serde_json::from_slice(&json).map_err(|error| RepositoryError::malformed(CONFIG, error))?;
                return Ok((key, config));
            }
            Err(error) => mismatch = Some(RepositoryError::crypto(CONFIG, error)),
        }
    }
    Err(mismatch.unwrap_or(RepositoryError::WrongPassword { keys }))
}

async fn open_key(file: &[u8], password: &str, path: &str) -> Result<Option<Key>, RepositoryError> {
    let file: KeyFile = serde_json::from_slice(file).map_err(|error| RepositoryError::malformed(path, error))?;
    let password = password.to_owned();
    tokio::task::spawn_blocking(move || file.open(&password)).await?
}
