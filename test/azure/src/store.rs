//! The configuration in memory and in its file: each change is on disk before anyone sees it.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::Mutex;

use crate::model::Configuration;
use crate::signing::{SigningError, SigningKey};

/// Why the state file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file is there and cannot be read.
    #[error("failed to read the state file {path}: {source}")]
    Read {
        /// The state file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file holds something else.
    #[error("failed to parse the state file {path}, remove it to start afresh: {source}")]
    Parse {
        /// The state file.
        path: PathBuf,
        /// The cause.
        source: serde_json::Error,
    },
    /// The file cannot be written: the change did not happen.
    #[error("failed to write the state file {path}: {source}")]
    Write {
        /// The state file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// No signing key can be made or read.
    #[error(transparent)]
    Signing(#[from] SigningError),
}

/// Holds the configuration. Readers get a snapshot that no later change alters.
pub struct Store {
    path: PathBuf,
    current: RwLock<Arc<Configuration>>,
    // Changes follow one another: read, change, write to disk, publish.
    changes: Mutex<()>,
}

impl Store {
    /// Reads the file, or begins with an empty configuration and a new signing key where there is none.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let configuration = match std::fs::read(path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map_err(|source| StoreError::Parse { path: path.to_owned(), source })?
            }
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
                let configuration =
                    Configuration { signing_key: SigningKey::generate()?.to_base64(), ..Configuration::default() };
                save(path, &configuration)?;
                configuration
            }
            Err(source) => return Err(StoreError::Read { path: path.to_owned(), source }),
        };
        Ok(Self { path: path.to_owned(), current: RwLock::new(Arc::new(configuration)), changes: Mutex::new(()) })
    }

    /// The configuration as of now.
    pub fn snapshot(&self) -> Arc<Configuration> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Applies a change. An `Err` inside is the change's own refusal: nothing was changed then.
    pub async fn change<T, E>(
        &self,
        change: impl FnOnce(&mut Configuration) -> Result<T, E>,
    ) -> Result<Result<T, E>, StoreError> {
        let _one_at_a_time = self.changes.lock().await;
        let mut next = (*self.snapshot()).clone();
        match change(&mut next) {
            Ok(value) => {
                save(&self.path, &next)?;
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
                Ok(Ok(value))
            }
            Err(refusal) => Ok(Err(refusal)),
        }
    }
}

/// Writes beside and renames, so that a crash leaves the old file or the new one. Only the owner may read it: it
/// holds the signing key.
fn save(path: &Path, configuration: &Configuration) -> Result<(), StoreError> {
    let failed = |source| StoreError::Write { path: path.to_owned(), source };
    let bytes = serde_json::to_vec_pretty(configuration).map_err(|source| failed(source.into()))?;
    let beside = path.with_extension("new");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)
        .map_err(failed)?;
    file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(failed)?;
    std::fs::rename(&beside, path).map_err(failed)
}
