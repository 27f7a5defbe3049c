//! Writes the status of one operation.

use std::sync::Mutex;
use std::sync::PoisonError;

use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use shoot_backup_api::names;

use super::AgentOperation;
use super::status::OperationStatus;
use crate::retry;

/// Conflicts in a row that a write endures: others change only annotations, and rarely.
const MAX_CONFLICTS: usize = 10;

/// Why a status was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The object is gone; another of the same name does not count.
    #[error("failed to write the status: the object was deleted")]
    Gone,
    /// The API server refused it.
    #[error("failed to write the status")]
    Api(#[source] kube::Error),
}

/// Writes the status of one object. Every write carries the version it is based on: a write whose answer was not waited
/// for can therefore never overwrite a later one.
#[derive(Debug)]
pub struct StatusWriter<K> {
    api: Api<K>,
    name: String,
    uid: String,
    version: Mutex<Option<String>>,
}

impl<K: AgentOperation> StatusWriter<K> {
    /// A writer for an object as it was read last.
    #[must_use]
    pub fn new(api: Api<K>, object: &K) -> Self {
        Self {
            api,
            name: object.name_any(),
            uid: object.uid().unwrap_or_default(),
            version: Mutex::new(object.resource_version()),
        }
    }

    /// Writes the status once; calls that fail for a reason that passes are not repeated.
    pub async fn write(&self, status: &OperationStatus) -> Result<(), WriteError> {
        for _ in 0..MAX_CONFLICTS {
            match self.attempt(status).await {
                Ok(()) => return Ok(()),
                Err(kube::Error::Api(answer)) if answer.code == 404 => return Err(WriteError::Gone),
                Err(kube::Error::Api(answer)) if answer.code == 409 => self.refresh().await?,
                Err(error) => return Err(WriteError::Api(error)),
            }
        }
        self.attempt(status).await.map_err(WriteError::Api)
    }

    /// Writes the status, and repeats for about two minutes what is worth repeating.
    pub async fn write_surely(&self, status: &OperationStatus) -> Result<(), WriteError> {
        let written = retry::call(|| async {
            match self.write(status).await {
                Ok(()) => Ok(Ok(())),
                Err(WriteError::Api(error)) => Err(error),
                Err(gone @ WriteError::Gone) => Ok(Err(gone)),
            }
        });
        written.await.map_err(WriteError::Api)?
    }

    async fn attempt(&self, status: &OperationStatus) -> Result<(), kube::Error> {
        let version = self.version.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let patch = json!({
            "apiVersion": K::api_version(&()),
            "kind": K::kind(&()),
            "metadata": {"name": self.name, "uid": self.uid, "resourceVersion": version},
            "status": status,
        });
        let parameters = PatchParams::apply(names::AGENT_NAME).force();
        let written: K = self.api.patch_status(&self.name, &parameters, &Patch::Apply(&patch)).await?;
        *self.version.lock().unwrap_or_else(PoisonError::into_inner) = written.resource_version();
        Ok(())
    }

    async fn refresh(&self) -> Result<(), WriteError> {
        let object = retry::absent(self.api.get_metadata(&self.name).await).map_err(WriteError::Api)?;
        match object {
            Some(object) if object.uid().as_deref() == Some(self.uid.as_str()) => {
                *self.version.lock().unwrap_or_else(PoisonError::into_inner) = object.resource_version();
                Ok(())
            }
            _ => Err(WriteError::Gone),
        }
    }
}
