//! A location opened for work: its store, its repositories, its manifests.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use shoot_backup_api::manifest::{BackupManifest, FORMAT_VERSION, paths};
use shoot_backup_api::{BackupLocation, names};
use shoot_backup_repository::{
    AzureOptions, AzureStore, BlobStore, Repository, RepositoryError, Scoped, StoreError, StoreErrorKind,
};

use super::LocationError;
use crate::config::Identity;
use crate::context::Context;
use crate::mover::protocol::Target;
use crate::retry;

/// A location that this process talks to with its own identity.
#[derive(Clone, Debug)]
pub struct Location {
    name: String,
    store: Arc<dyn BlobStore>,
    target: Target,
}

/// What became of a file that is written once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// SHA-256 of the content, in hexadecimal.
    pub digest: String,
    /// Whether it was there before with other content; it was left as it is then.
    pub conflict: bool,
}

/// Opens the mirrored location of this name. Nothing is read from the storage yet.
pub async fn open(context: &Context, name: &str) -> Result<Location, LocationError> {
    let api = context.own::<BackupLocation>();
    let object = retry::absent(retry::call(|| api.get(name)).await)
        .map_err(|source| LocationError::Get { name: name.to_owned(), source })?
        .ok_or_else(|| LocationError::Missing { name: name.to_owned() })?;
    let config = context.config().await?;
    let target = target(name, &object, &config.identity)?;
    Location::connect(name, target, context.extra_ca().await?)
}

/// Where and as whom to reach a location: its own identity, else that of the cluster.
pub fn target(name: &str, object: &BackupLocation, fallback: &Identity) -> Result<Target, LocationError> {
    let (client_id, tenant_id) = match &object.spec.identity {
        Some(identity) => (identity.client_id.clone(), identity.tenant_id.clone()),
        None => (fallback.client_id.clone(), fallback.tenant_id.clone()),
    };
    if client_id.is_empty() || tenant_id.is_empty() {
        return Err(LocationError::NoIdentity { name: name.to_owned() });
    }
    Ok(Target {
        location: name.to_owned(),
        endpoint: object.spec.blob_endpoint(),
        container: object.spec.container.clone(),
        prefix: object.spec.prefix.clone(),
        client_id,
        tenant_id,
        authority_host: object.spec.authority_host(),
    })
}

/// A store for a target, with the projected token of this pod.
pub fn azure_store(target: &Target, extra_ca_pem: Option<Vec<u8>>) -> Result<AzureStore, LocationError> {
    let url = |text: &str| {
        text.parse().map_err(|error: url::ParseError| LocationError::Endpoint {
            name: target.location.clone(),
            url: text.to_owned(),
            reason: error.to_string(),
        })
    };
    let options = AzureOptions {
        endpoint: url(&target.endpoint)?,
        container: target.container.clone(),
        prefix: target.prefix.clone(),
        client_id: target.client_id.clone(),
        tenant_id: target.tenant_id.clone(),
        token_file: PathBuf::from(names::TOKEN_FILE),
        authority_host: url(&target.authority_host)?,
        extra_ca_pem,
    };
    AzureStore::new(options).map_err(|source| LocationError::Store {
        what: "set up access".to_owned(),
        name: target.location.clone(),
        source: Box::new(source),
    })
}

impl Location {
    /// Connects to a target.
    pub fn connect(name: &str, target: Target, extra_ca_pem: Option<Vec<u8>>) -> Result<Self, LocationError> {
        let store = Arc::new(azure_store(&target, extra_ca_pem)?);
        Ok(Self::with_store(name, target, store))
    }

    /// A location over any store.
    #[must_use]
    pub fn with_store(name: &str, target: Target, store: Arc<dyn BlobStore>) -> Self {
        Self { name: name.to_owned(), store, target }
    }

    /// Name of the `BackupLocation`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The store; paths are below the location's prefix.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn BlobStore> {
        &self.store
    }

    /// What a mover needs to reach the same place.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Opens the repository of a cluster that has one, this or another.
    pub async fn repository(&self, cluster_uid: &str) -> Result<Repository, LocationError> {
        let password = self.password(cluster_uid).await?;
        let store: Arc<dyn BlobStore> = Arc::new(Scoped::new(self.store.clone(), &paths::repository(cluster_uid)));
        Repository::open(store, &password).await.map_err(|source| self.repository_error(cluster_uid, source))
    }

    /// Opens the repository of this cluster; makes it, and its password, where there is none.
    pub async fn own_repository(&self, cluster_uid: &str) -> Result<Repository, LocationError> {
        self.ensure_password(cluster_uid).await?;
        let password = self.password(cluster_uid).await?;
        let store: Arc<dyn BlobStore> = Arc::new(Scoped::new(self.store.clone(), &paths::repository(cluster_uid)));
        Repository::open_or_init(store, &password).await.map_err(|source| self.repository_error(cluster_uid, source))
    }

    /// The password of a cluster's repository, where the location keeps it.
    async fn password(&self, cluster_uid: &str) -> Result<String, LocationError> {
        let path = paths::password(cluster_uid);
        let bytes = self.store.read(&path).await.map_err(|source| self.store_error(format!("read {path}"), source))?;
        let text = std::str::from_utf8(&bytes).map(str::trim).unwrap_or_default();
        if text.is_empty() {
            return Err(self.malformed(&path, "it is no text"));
        }
        Ok(text.to_owned())
    }

    /// Makes a password where there is none. Of two that do it at once, the first wins and both go on with its password,
    /// because the password is read back afterwards.
    async fn ensure_password(&self, cluster_uid: &str) -> Result<(), LocationError> {
        let path = paths::password(cluster_uid);
        match self.store.read(&path).await {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == StoreErrorKind::NotFound => {}
            Err(source) => return Err(self.store_error(format!("read {path}"), source)),
        }
        let mut random = [0_u8; 32];
        getrandom::fill(&mut random).map_err(|error| {
            let source = StoreError::new(StoreErrorKind::Other, format!("failed to get random bytes: {error}"));
            self.store_error(format!("make {path}"), source)
        })?;
        match self.store.create(&path, Bytes::from(hex::encode(random))).await {
            Err(error) if error.kind() != StoreErrorKind::AlreadyExists => {
                Err(self.store_error(format!("create {path}"), error))
            }
            _ => Ok(()),
        }
    }

    /// The manifest of a backup; `backup` is `<name>.<uid>`. `None` if there is no such backup.
    pub async fn manifest(&self, cluster_uid: &str, backup: &str) -> Result<Option<BackupManifest>, LocationError> {
        let path = paths::backup(cluster_uid, backup);
        let manifest: Option<BackupManifest> = self.read_json(&path).await?;
        match manifest {
            Some(manifest) if manifest.format_version > FORMAT_VERSION => Err(LocationError::Format {
                name: self.name.clone(),
                found: manifest.format_version,
                known: FORMAT_VERSION,
            }),
            manifest => Ok(manifest),
        }
    }

    /// Reads a JSON file; `None` if it is not there.
    pub async fn read_json<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, LocationError> {
        match self.store.read(path).await {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map(Some).map_err(|error| self.malformed(path, &error.to_string()))
            }
            Err(error) if error.kind() == StoreErrorKind::NotFound && error.code() != Some("ContainerNotFound") => {
                Ok(None)
            }
            Err(source) => Err(self.store_error(format!("read {path}"), source)),
        }
    }

    /// Writes a JSON file that is never overwritten. One that is there already is left as it is.
    pub async fn create_json<T: Serialize>(&self, path: &str, value: &T) -> Result<Written, LocationError> {
        let json = serde_json::to_vec_pretty(value).map_err(|error| self.malformed(path, &error.to_string()))?;
        let digest = hex::encode(Sha256::digest(&json));
        match self.store.create(path, Bytes::from(json.clone())).await {
            Ok(()) => Ok(Written { digest, conflict: false }),
            Err(error) if error.kind() == StoreErrorKind::AlreadyExists => {
                let there =
                    self.store.read(path).await.map_err(|source| self.store_error(format!("read {path}"), source))?;
                Ok(Written { digest: hex::encode(Sha256::digest(&there)), conflict: there != json })
            }
            Err(source) => Err(self.store_error(format!("create {path}"), source)),
        }
    }

    fn store_error(&self, what: String, source: StoreError) -> LocationError {
        LocationError::Store { what, name: self.name.clone(), source: Box::new(source) }
    }

    fn repository_error(&self, cluster_uid: &str, source: RepositoryError) -> LocationError {
        LocationError::Repository {
            what: format!("open the repository of cluster {cluster_uid}"),
            name: self.name.clone(),
            source: Box::new(source),
        }
    }

    fn malformed(&self, path: &str, reason: &str) -> LocationError {
        LocationError::Malformed { path: path.to_owned(), name: self.name.clone(), reason: reason.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use shoot_backup_repository::MemoryStore;

    use super::*;

    fn location(store: &Arc<MemoryStore>) -> Location {
        Location::with_store("main", Target::default(), store.clone())
    }

    #[tokio::test]
    async fn two_that_make_a_password_at_once_go_on_with_the_same() {
        let store = Arc::new(MemoryStore::new());
        let (one, two) = (location(&store), location(&store));
        let (first, second) = tokio::join!(one.ensure_password("c"), two.ensure_password("c"));
        first.unwrap();
        second.unwrap();
        let password = one.password("c").await.unwrap();
        assert_eq!(password.len(), 64);
        assert_eq!(password, two.password("c").await.unwrap());
    }

    #[tokio::test]
    async fn a_backup_without_its_manifest_does_not_exist() {
        let location = location(&Arc::new(MemoryStore::new()));
        assert!(location.manifest("c", "nightly.u").await.unwrap().is_none());
    }

    #[tokio::test]
    async fn what_is_written_once_stays() {
        let location = location(&Arc::new(MemoryStore::new()));
        let first = location.create_json("a.json", &1).await.unwrap();
        assert!(!first.conflict);
        assert_eq!(location.create_json("a.json", &1).await.unwrap(), first);
        let second = location.create_json("a.json", &2).await.unwrap();
        assert!(second.conflict);
        assert_eq!(second.digest, first.digest);
        assert_eq!(location.read_json::<i32>("a.json").await.unwrap(), Some(1));
    }

    #[test]
    fn the_locations_identity_wins_over_the_clusters() {
        let mut object: BackupLocation = serde_json::from_value(serde_json::json!({
            "apiVersion": "shootbackup.extensions.gardener.cloud/v1alpha1", "kind": "BackupLocation",
            "metadata": {"name": "main"},
            "spec": {"account": "account", "container": "backups",
                     "identity": {"clientID": "own", "tenantID": "tenant"}}
        }))
        .unwrap();
        let fallback = Identity { client_id: "cluster".to_owned(), tenant_id: "tenant".to_owned() };
        assert_eq!(target("main", &object, &fallback).unwrap().client_id, "own");
        object.spec.identity = None;
        assert_eq!(target("main", &object, &fallback).unwrap().client_id, "cluster");
        let error = target("main", &object, &Identity::default()).unwrap_err();
        assert_eq!(error.reason(), "NoIdentity");
    }
}
