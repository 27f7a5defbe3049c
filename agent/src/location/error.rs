//! Why a location cannot be used.

use shoot_backup_repository::{RepositoryError, StoreError};

use crate::config::ConfigError;

/// Why a location cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LocationError {
    /// There is no such object in the agent's namespace.
    #[error(
        "BackupLocation {name} is not known in this cluster: create it in the project's namespace and select this \
         cluster in its spec.clusters"
    )]
    Missing {
        /// Its name.
        name: String,
    },
    /// The API server did not answer.
    #[error("failed to get BackupLocation {name}")]
    Get {
        /// Its name.
        name: String,
        /// Why.
        source: kube::Error,
    },
    /// Neither the location nor the cluster names an identity.
    #[error(
        "BackupLocation {name} has no identity: set spec.identity there, or spec.identity of this cluster's \
         ApplicationCluster"
    )]
    NoIdentity {
        /// Its name.
        name: String,
    },
    /// An endpoint is no URL.
    #[error("failed to understand the endpoint {url:?} of BackupLocation {name}: {reason}")]
    Endpoint {
        /// Name of the location.
        name: String,
        /// The endpoint.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The agent's own configuration is unusable.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The store failed.
    #[error("failed to {what} in BackupLocation {name}, whose status says what to do")]
    Store {
        /// What was done.
        what: String,
        /// Name of the location.
        name: String,
        /// Why.
        source: Box<StoreError>,
    },
    /// The repository failed.
    #[error("failed to {what} in BackupLocation {name}, whose status says what to do")]
    Repository {
        /// What was done.
        what: String,
        /// Name of the location.
        name: String,
        /// Why.
        source: Box<RepositoryError>,
    },
    /// A file of ours is not what it should be.
    #[error("failed to understand {path} in BackupLocation {name}: {reason}; restore the file from a copy")]
    Malformed {
        /// The file below the location's prefix.
        path: String,
        /// Name of the location.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A newer version wrote this location.
    #[error(
        "BackupLocation {name} has format version {found}, this agent knows up to {known}: upgrade shoot-backup, or \
         use another prefix"
    )]
    Format {
        /// Name of the location.
        name: String,
        /// Version found.
        found: u32,
        /// Version known.
        known: u32,
    },
}

impl LocationError {
    /// One word for programs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "LocationMissing",
            Self::Get { .. } => "ApiServer",
            Self::NoIdentity { .. } => "NoIdentity",
            Self::Endpoint { .. } => "InvalidEndpoint",
            Self::Config(_) => "Configuration",
            Self::Store { .. } => "Storage",
            Self::Repository { .. } => "Repository",
            Self::Malformed { .. } => "Malformed",
            Self::Format { .. } => "UnknownFormat",
        }
    }

    /// The store's error, where that is the cause.
    #[must_use]
    pub fn store_error(&self) -> Option<&StoreError> {
        match self {
            Self::Store { source, .. } => Some(source),
            Self::Repository { source, .. } => source.store_error(),
            _ => None,
        }
    }
}
