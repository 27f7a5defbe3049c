//! Why an operation on a repository failed.

use crate::crypto::CryptoError;
use crate::id::Id;
use crate::pack::PackError;
use crate::store::StoreError;

/// A failed operation on a repository.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no repository in this place.
    #[error(
        "failed to open the repository: there is none here (no file `config`); make a first backup or check the location's prefix"
    )]
    NotInitialized,
    /// No key file opens with this password.
    #[error(
        "failed to open the repository: none of its {keys} keys opens with this password; give the password that it was made with"
    )]
    WrongPassword {
        /// How many keys were tried.
        keys: usize,
    },
    /// The repository is of a version this program does not know.
    #[error(
        "failed to open the repository: format version {version} is not supported (only version 2 is); migrate it with `restic migrate upgrade_repo_v2`"
    )]
    UnsupportedVersion {
        /// The version that its configuration names.
        version: u32,
    },
    /// Something could not be encrypted or decrypted.
    #[error("failed to process {what}: {source}")]
    Crypto {
        /// What it was.
        what: String,
        /// Why.
        source: CryptoError,
    },
    /// A stored file is not what the format says.
    #[error("failed to understand {what}: {reason}; the file is damaged, restore it from a copy of the repository")]
    Malformed {
        /// Which file.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A pack's contents are not what they must be.
    #[error(transparent)]
    Pack(#[from] Box<PackError>),
    /// The index does not know a blob that something refers to.
    #[error(
        "failed to find {kind} blob {id}: no index names it; the repository lost data, check it with `restic check`"
    )]
    MissingBlob {
        /// `data` or `tree`.
        kind: &'static str,
        /// The blob.
        id: Id,
    },
    /// No such snapshot.
    #[error("failed to find snapshot {id}: there is none of this id")]
    MissingSnapshot {
        /// The snapshot.
        id: Id,
    },
    /// A path that a snapshot does not have.
    #[error("failed to find {path:?} in snapshot {snapshot}: there is no such {expected}")]
    MissingPath {
        /// The snapshot.
        snapshot: Id,
        /// The path asked for.
        path: String,
        /// `directory` or `file`.
        expected: &'static str,
    },
    /// A file is longer than the caller was ready to hold.
    #[error("failed to read {name:?}: it has {size} bytes and the limit is {limit}")]
    TooLarge {
        /// The file's name.
        name: String,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// A name that no directory entry can have.
    #[error("failed to add {name:?}: a name has no slash and no NUL, and is not empty, . or ..")]
    InvalidName {
        /// The name.
        name: String,
    },
    /// The same name twice in one directory.
    #[error("failed to write a directory: it has two entries named {name:?}")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// The calls of a writer do not pair up.
    #[error("failed to write the snapshot: {reason}")]
    Misuse {
        /// What does not fit.
        reason: &'static str,
    },
    /// Reading what is to be backed up failed.
    #[error("failed to read {name:?}: {source}")]
    Source {
        /// What was read.
        name: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// Writing to the restore's target failed as a whole.
    #[error("failed to restore to {path:?}: {source}")]
    Target {
        /// Where.
        path: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A worker thread ended without a result.
    #[error("failed to finish a computation: its thread ended early: {0}")]
    Worker(#[from] tokio::task::JoinError),
}

impl RepositoryError {
    /// Whether the same call may succeed later without anyone doing anything.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_retryable())
    }

    /// A short fixed name, for metrics and conditions.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Store(error) => error.label(),
            Self::NotInitialized => "not-initialized",
            Self::WrongPassword { .. } => "wrong-password",
            Self::UnsupportedVersion { .. } => "unsupported-version",
            Self::Crypto { .. } | Self::Malformed { .. } | Self::Pack(_) => "corrupt",
            Self::MissingBlob { .. } => "missing-blob",
            Self::MissingSnapshot { .. } => "missing-snapshot",
            Self::MissingPath { .. } => "missing-path",
            Self::TooLarge { .. } => "too-large",
            Self::InvalidName { .. } | Self::DuplicateName { .. } | Self::Misuse { .. } => "misuse",
            Self::Source { .. } => "source",
            Self::Target { .. } => "target",
            Self::Worker(_) => "worker",
        }
    }

    /// The store's error, when it was the store that failed.
    #[must_use]
    pub const fn store_error(&self) -> Option<&StoreError> {
        match self {
            Self::Store(error) => Some(error),
            _ => None,
        }
    }

    pub(crate) fn crypto(what: impl Into<String>, source: CryptoError) -> Self {
        Self::Crypto { what: what.into(), source }
    }

    #[expect(clippy::needless_pass_by_value, reason = "errors and texts come as they are")]
    pub(crate) fn malformed(what: impl Into<String>, reason: impl ToString) -> Self {
        Self::Malformed { what: what.into(), reason: reason.to_string() }
    }
}
