//! What a mover mounts to read a volume.
//!
//! A pod mounts claims of its own namespace only, and movers never run in an application's namespace: no quota, policy
//! or webhook of the application is in their way. So the volume gets a *twin*: a second `PersistentVolume` object for
//! the same storage, bound to a claim in the agent's namespace. A twin is always of reclaim policy `Retain`, so that its
//! deletion never touches data.
//!
//! [`mount_source`] is the one place that decides what is mounted; a snapshot of the volume would be decided here too.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{
    ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeSpec,
    VolumeResourceRequirements,
};
use kube::api::{DeleteParams, ObjectMeta, PostParams};
use kube::{Api, ResourceExt};
use sha2::{Digest, Sha256};

use super::job::{MoverError, labels};
use crate::context::Context;
use crate::operation::Running;
use crate::retry;

/// Annotation of volumes and claims that we make: what they are for.
pub const ANNOTATION_ROLE: &str = "shootbackup.extensions.gardener.cloud/volume-role";
/// Role of a twin and of its claim.
pub const ROLE_TWIN: &str = "twin";

/// How long the binding of a twin may take: a matter of the cluster's controller manager alone.
const PATIENCE: Duration = Duration::from_mins(2);

/// What a mover mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountSource {
    /// Claim in the agent's namespace.
    pub claim: String,
}

/// Why a claim has no data that a mover could read; it is skipped and counted.
#[must_use]
pub fn unreadable(claim: &PersistentVolumeClaim, volume: Option<&PersistentVolume>) -> Option<String> {
    let block = |mode: &Option<String>| mode.as_deref() == Some("Block");
    let Some(volume) = volume else {
        return Some("its PersistentVolume does not exist any more".to_owned());
    };
    let spec = volume.spec.as_ref();
    if block(&claim.spec.as_ref().and_then(|spec| spec.volume_mode.clone()))
        || block(&spec.and_then(|spec| spec.volume_mode.clone()))
    {
        return Some("block volumes have no files: back up what is on it by the application's own means".to_owned());
    }
    if claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Lost") {
        return Some("its volume is lost: Kubernetes reports phase Lost".to_owned());
    }
    None
}

/// Makes what a mover mounts to read the volume of a claim.
pub async fn mount_source(
    context: &Context,
    running: &Running,
    name: &str,
    volume: &PersistentVolume,
) -> Result<MountSource, MoverError> {
    let (twin, claim) = build(name, &context.pod.namespace, running.uid(), volume);
    let volumes: Api<PersistentVolume> = Api::all(context.client.clone());
    let error = |what: String| move |source| MoverError::Api { what, source };
    let created = retry::call(|| async { volumes.create(&PostParams::default(), &twin).await }).await;
    accept_existing(created).map_err(error(format!("create PersistentVolume {name}")))?;
    let claims = context.own::<PersistentVolumeClaim>();
    let created = retry::call(|| async { claims.create(&PostParams::default(), &claim).await }).await;
    accept_existing(created).map_err(error(format!("create PersistentVolumeClaim {name}")))?;
    bound(&claims, name).await?;
    Ok(MountSource { claim: name.to_owned() })
}

/// Waits until the twin's claim is bound. The scheduler puts a pod whose claim is not bound yet aside and may look at it
/// again only minutes later.
async fn bound(claims: &Api<PersistentVolumeClaim>, name: &str) -> Result<(), MoverError> {
    let error = |what: String| move |source| MoverError::Api { what, source };
    let waiting = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(100));
        loop {
            ticks.tick().await;
            let claim = retry::call(|| claims.get(name)).await;
            let claim = claim.map_err(error(format!("get PersistentVolumeClaim {name}")))?;
            if claim.status.is_some_and(|status| status.phase.as_deref() == Some("Bound")) {
                return Ok(());
            }
        }
    };
    let reason = || format!("PersistentVolumeClaim {name} is not bound to its volume after {} s", PATIENCE.as_secs());
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| Err(MoverError::NotStarted { reason: reason() }))
}

/// Removes a twin and its claim. The storage behind it stays.
pub async fn release(context: &Context, name: &str) -> Result<(), MoverError> {
    let error = |what: String| move |source| MoverError::Api { what, source };
    let claims = context.own::<PersistentVolumeClaim>();
    let parameters = DeleteParams::default();
    retry::absent(retry::call(|| claims.delete(name, &parameters)).await)
        .map_err(error(format!("delete PersistentVolumeClaim {name}")))?;
    let volumes: Api<PersistentVolume> = Api::all(context.client.clone());
    retry::absent(retry::call(|| volumes.delete(name, &parameters)).await)
        .map_err(error(format!("delete PersistentVolume {name}")))?;
    Ok(())
}

/// The answer to our own first request may have been lost: names are unique to operation, attempt and volume.
fn accept_existing<T>(result: Result<T, kube::Error>) -> Result<(), kube::Error> {
    match result {
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        result => result.map(drop),
    }
}

/// A name for what one attempt makes for one volume. The start is part of it, because a retry counts attempts anew: it
/// must never take what the run before is still deleting for its own.
#[must_use]
pub fn unique_name(running: &Running, namespace: &str, claim: &str) -> String {
    let text = format!("{}/{}/{}/{namespace}/{claim}", running.uid(), running.started(), running.attempt());
    let digest = hex::encode(Sha256::digest(text.as_bytes()));
    format!("shoot-backup-{}", &digest[..16])
}

/// The twin of a volume, and its claim in `namespace`.
#[must_use]
pub fn build(
    name: &str,
    namespace: &str,
    operation_uid: &str,
    volume: &PersistentVolume,
) -> (PersistentVolume, PersistentVolumeClaim) {
    let metadata = |namespace: Option<&str>| ObjectMeta {
        name: Some(name.to_owned()),
        namespace: namespace.map(str::to_owned),
        labels: Some(labels(operation_uid)),
        annotations: Some(BTreeMap::from([(ANNOTATION_ROLE.to_owned(), ROLE_TWIN.to_owned())])),
        ..ObjectMeta::default()
    };
    let source = volume.spec.clone().unwrap_or_default();
    let access_modes = Some(access_modes(source.access_modes.as_deref().unwrap_or_default()));
    let claim = PersistentVolumeClaim {
        metadata: metadata(Some(namespace)),
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: access_modes.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: source.capacity.clone(),
                ..VolumeResourceRequirements::default()
            }),
            // Empty, not absent: no default class, no provisioner.
            storage_class_name: Some(String::new()),
            volume_mode: source.volume_mode.clone(),
            volume_name: Some(name.to_owned()),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    };
    let twin = PersistentVolume {
        metadata: metadata(None),
        spec: Some(PersistentVolumeSpec {
            access_modes,
            claim_ref: Some(ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("PersistentVolumeClaim".to_owned()),
                namespace: Some(namespace.to_owned()),
                name: Some(name.to_owned()),
                ..ObjectReference::default()
            }),
            persistent_volume_reclaim_policy: Some("Retain".to_owned()),
            storage_class_name: None,
            volume_attributes_class_name: None,
            ..source
        }),
        status: None,
    };
    (twin, claim)
}

/// A volume that only one pod may use is in use already: its twin asks for one node instead.
fn access_modes(modes: &[String]) -> Vec<String> {
    let mut modes: Vec<String> = modes
        .iter()
        .map(|mode| if mode == "ReadWriteOncePod" { "ReadWriteOnce".to_owned() } else { mode.clone() })
        .collect();
    modes.dedup();
    modes
}

/// Whether a volume with these modes can be mounted on one node at a time only.
#[must_use]
pub fn is_bound_to_a_node(volume: &PersistentVolume) -> bool {
    let modes = volume.spec.as_ref().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default();
    !modes.iter().any(|mode| mode == "ReadWriteMany" || mode == "ReadOnlyMany")
}

/// `<namespace>/<name>` of a claim.
#[must_use]
pub fn claim_path(claim: &PersistentVolumeClaim) -> String {
    format!("{}/{}", claim.namespace().unwrap_or_default(), claim.name_any())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::operation::running::Start;

    fn volume() -> PersistentVolume {
        serde_json::from_value(json!({
            "metadata": {"name": "pvc-1", "uid": "original", "annotations": {"pv.kubernetes.io/provisioned-by": "csi"},
                         "finalizers": ["kubernetes.io/pv-protection"]},
            "spec": {
                "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOncePod"], "storageClassName": "fast",
                "persistentVolumeReclaimPolicy": "Delete", "volumeAttributesClassName": "gold",
                "claimRef": {"namespace": "shop", "name": "data", "uid": "claim"},
                "csi": {"driver": "disk.csi", "volumeHandle": "handle"},
                "mountOptions": ["noatime"],
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                    {"key": "zone", "operator": "In", "values": ["a"]}]}]}}
            },
            "status": {"phase": "Bound"}
        }))
        .unwrap()
    }

    #[test]
    fn a_twin_never_deletes_and_never_touches_the_originals_claim() {
        let original = volume();
        let (twin, claim) = build("twin", "shoot-backup", "uid", &original);
        let spec = twin.spec.unwrap();
        assert_eq!(spec.persistent_volume_reclaim_policy.as_deref(), Some("Retain"));
        let reference = spec.claim_ref.unwrap();
        assert_eq!(reference.namespace.as_deref(), Some("shoot-backup"));
        assert_eq!(reference.name.as_deref(), Some("twin"));
        assert_eq!(reference.uid, None);
        assert_eq!(twin.metadata.name.as_deref(), Some("twin"));
        assert_eq!(twin.metadata.uid, None);
        assert_eq!(twin.metadata.finalizers, None);
        assert!(!twin.metadata.annotations.unwrap().contains_key("pv.kubernetes.io/provisioned-by"));
        assert_eq!(claim.metadata.namespace.as_deref(), Some("shoot-backup"));
        assert_eq!(claim.spec.unwrap().storage_class_name.as_deref(), Some(""));
    }

    #[test]
    fn a_twin_is_the_same_storage() {
        let original = volume().spec.unwrap();
        let (twin, _) = build("twin", "shoot-backup", "uid", &volume());
        let spec = twin.spec.unwrap();
        assert_eq!(spec.csi, original.csi);
        assert_eq!(spec.node_affinity, original.node_affinity);
        assert_eq!(spec.mount_options, original.mount_options);
        assert_eq!(spec.capacity, original.capacity);
        assert_eq!(spec.access_modes.unwrap(), ["ReadWriteOnce"]);
        assert_eq!(spec.storage_class_name, None);
    }

    #[test]
    fn block_and_lost_volumes_are_skipped_with_a_reason() {
        let claim = |value: serde_json::Value| serde_json::from_value::<PersistentVolumeClaim>(value).unwrap();
        let volume = volume();
        assert_eq!(unreadable(&claim(json!({"metadata": {}})), Some(&volume)), None);
        assert!(unreadable(&claim(json!({"metadata": {}})), None).is_some());
        assert!(unreadable(&claim(json!({"metadata": {}, "spec": {"volumeMode": "Block"}})), Some(&volume)).is_some());
        assert!(unreadable(&claim(json!({"metadata": {}, "status": {"phase": "Lost"}})), Some(&volume)).is_some());
    }

    #[test]
    fn names_differ_between_volumes_and_runs() {
        let running = Running::test();
        let name = unique_name(&running, "shop", "data");
        assert_ne!(name, unique_name(&running, "shop", "logs"));
        assert_eq!(name, unique_name(&running, "shop", "data"));
        assert!(name.len() <= 63);
        let retried = Running::new(Start {
            kind: running.kind(),
            name: String::new(),
            uid: running.uid().to_owned(),
            origin_uid: String::new(),
            attempt: running.attempt(),
            started: running.started() + jiff::SignedDuration::from_secs(1),
            deadline: tokio::time::Instant::now(),
            timeout: "1h".to_owned(),
            cancel: tokio_util::sync::CancellationToken::new(),
        });
        assert_ne!(name, unique_name(&retried, "shop", "data"));
    }
}
