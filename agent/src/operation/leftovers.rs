//! Removes what attempts leave in the cluster: Jobs, temporary claims, twins. Never data that belongs to anyone, and
//! nothing in the location.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};
use shoot_backup_api::names::LABEL_OPERATION_UID;
use shoot_backup_api::{Backup, Operation, Restore};
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::mover::claim::{self, ClaimError, ROLE_TEMPORARY};
use crate::mover::twin::{ANNOTATION_ROLE, ROLE_TWIN};
use crate::retry;

/// How often things without an operation are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_mins(10);
/// How long pods and claims may take to go.
const PATIENCE: Duration = Duration::from_secs(90);

/// Why something was not removed.
#[derive(Debug, thiserror::Error)]
pub enum LeftoverError {
    /// The API server refused a step.
    #[error("failed to {what}")]
    Api {
        /// The step.
        what: &'static str,
        /// Why.
        source: kube::Error,
    },
    /// A volume could not be settled.
    #[error("failed to settle a volume")]
    Claim(#[from] ClaimError),
    /// Pods or claims did not go in time.
    #[error("{what} of this operation were still there after {} s; a node may be unreachable", PATIENCE.as_secs())]
    Timeout {
        /// What.
        what: &'static str,
    },
}

/// Removes everything with the label of an operation: Jobs first, so that nothing uses the claims, then claims, then
/// volumes.
pub async fn remove(context: &Context, uid: &str) -> Result<(), LeftoverError> {
    // Boxed, because Kubernetes' own types make its future large.
    Box::pin(remove_labelled(context, uid)).await
}

async fn remove_labelled(context: &Context, uid: &str) -> Result<(), LeftoverError> {
    let labelled = ListParams::default().labels(&format!("{LABEL_OPERATION_UID}={uid}"));
    let jobs = context.own::<Job>();
    for job in list(&jobs, &labelled, "list Jobs").await? {
        let name = job.name_any();
        retry::absent(retry::call(|| async { jobs.delete(&name, &DeleteParams::background()).await }).await)
            .map_err(|source| LeftoverError::Api { what: "delete a Job", source })?;
    }
    until_gone(&context.own::<Pod>(), &labelled, "mover pods").await?;
    let claims = context.own::<PersistentVolumeClaim>();
    for found in list(&claims, &labelled, "list claims").await? {
        if found.annotations().get(ANNOTATION_ROLE).map(String::as_str) == Some(ROLE_TEMPORARY) {
            claim::discard(context, &found).await?;
        } else {
            let name = found.name_any();
            retry::absent(retry::call(|| async { claims.delete(&name, &DeleteParams::default()).await }).await)
                .map_err(|source| LeftoverError::Api { what: "delete a claim", source })?;
        }
    }
    until_gone(&claims, &labelled, "claims").await?;
    let volumes: Api<PersistentVolume> = Api::all(context.client.clone());
    for volume in list(&volumes, &labelled, "list volumes").await? {
        if volume.annotations().get(ANNOTATION_ROLE).map(String::as_str) == Some(ROLE_TWIN) {
            let name = volume.name_any();
            retry::absent(retry::call(|| async { volumes.delete(&name, &DeleteParams::default()).await }).await)
                .map_err(|source| LeftoverError::Api { what: "delete a twin", source })?;
        } else {
            claim::settle(context, &volume).await?;
        }
    }
    Ok(())
}

/// Removes, again and again until `stop`, what belongs to operations that do not exist any more or have ended: their
/// objects were deleted while no agent ran.
pub async fn sweep(context: Arc<Context>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        if let Err(error) = sweep_once(&context).await {
            tracing::warn!(%error, "failed to look for leftovers; trying again in ten minutes");
        }
    }
}

async fn sweep_once(context: &Context) -> Result<(), LeftoverError> {
    // Leftovers first, operations second: what is found belongs to an operation that is listed, or to none.
    let found = found_uids(context).await?;
    if found.is_empty() {
        return Ok(());
    }
    let everything = ListParams::default();
    let backups = list(&context.own::<Backup>(), &everything, "list Backups").await?;
    let restores = list(&context.own::<Restore>(), &everything, "list Restores").await?;
    let active: BTreeSet<String> = backups
        .iter()
        .filter(|backup| !backup.phase().is_final())
        .filter_map(ResourceExt::uid)
        .chain(restores.iter().filter(|restore| !restore.phase().is_final()).filter_map(ResourceExt::uid))
        .collect();
    for uid in found.difference(&active) {
        // Held meanwhile, so that a retry waits: what it makes is not what it left.
        let Some(_held) = context.registry.hold(uid) else { continue };
        tracing::info!(uid, "removing what an operation left that is no more");
        remove(context, uid).await?;
    }
    Ok(())
}

async fn found_uids(context: &Context) -> Result<BTreeSet<String>, LeftoverError> {
    let labelled = ListParams::default().labels(LABEL_OPERATION_UID);
    let volumes: Api<PersistentVolume> = Api::all(context.client.clone());
    let mut found = BTreeSet::new();
    let mut add = |labels: Option<&String>| found.extend(labels.cloned());
    list(&context.own::<Job>(), &labelled, "list Jobs")
        .await?
        .iter()
        .for_each(|job| add(job.labels().get(LABEL_OPERATION_UID)));
    list(&context.own::<PersistentVolumeClaim>(), &labelled, "list claims")
        .await?
        .iter()
        .for_each(|claim| add(claim.labels().get(LABEL_OPERATION_UID)));
    list(&volumes, &labelled, "list volumes")
        .await?
        .iter()
        .for_each(|volume| add(volume.labels().get(LABEL_OPERATION_UID)));
    Ok(found)
}

async fn list<K>(api: &Api<K>, parameters: &ListParams, what: &'static str) -> Result<Vec<K>, LeftoverError>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    retry::call(|| api.list(parameters))
        .await
        .map(|list| list.items)
        .map_err(|source| LeftoverError::Api { what, source })
}

async fn until_gone<K>(api: &Api<K>, parameters: &ListParams, what: &'static str) -> Result<(), LeftoverError>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let waiting = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(500));
        loop {
            ticks.tick().await;
            if list(api, parameters, "look whether all is gone").await?.is_empty() {
                return Ok(());
            }
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or(Err(LeftoverError::Timeout { what }))
}
