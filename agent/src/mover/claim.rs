//! A new volume for data that is restored: made for a temporary claim in the agent's namespace, filled by a mover, then
//! handed over to the claim that it is meant for.
//!
//! Until the target claim is bound the volume's data is worth nothing to anyone else, so an attempt that is cut off
//! throws it away ([`settle`]); from then on it is never touched.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use k8s_openapi::api::core::v1::{
    PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use shoot_backup_api::names;

use super::job::labels;
use super::twin::ANNOTATION_ROLE;
use crate::context::Context;
use crate::operation::Running;
use crate::retry;

/// Role of a temporary claim.
pub const ROLE_TEMPORARY: &str = "temporary";
/// Role of a volume between its temporary claim and its target.
pub const ROLE_HANDOVER: &str = "handover";
/// Annotation of a volume in hand-over: the target claim, `<namespace>/<name>`.
const ANNOTATION_TARGET: &str = "shootbackup.extensions.gardener.cloud/target-claim";
/// Annotation of a volume in hand-over: the reclaim policy that it gets back.
const ANNOTATION_POLICY: &str = "shootbackup.extensions.gardener.cloud/reclaim-policy";
/// Annotation of a volume in hand-over: UID of its temporary claim.
const ANNOTATION_TEMPORARY_UID: &str = "shootbackup.extensions.gardener.cloud/temporary-claim-uid";
/// Kubernetes' annotation of volumes that a provisioner made: only these are ever thrown away.
const ANNOTATION_PROVISIONED: &str = "pv.kubernetes.io/provisioned-by";
/// How often a volume is looked at that others change while it is settled.
const SETTLE_TRIES: usize = 5;
/// How long a controller of Kubernetes may take for one step.
const PATIENCE: Duration = Duration::from_mins(2);

/// Why a volume was not made or not handed over.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The API server refused a step.
    #[error("failed to {what}")]
    Api {
        /// The step.
        what: String,
        /// Why.
        source: kube::Error,
    },
    /// A controller of Kubernetes did not do its part.
    #[error("{what} took longer than {} s: look at the events of the claim and the volume", PATIENCE.as_secs())]
    Timeout {
        /// What was waited for.
        what: String,
    },
    /// Kubernetes took a volume that was there before.
    #[error(
        "bound to an existing volume {volume}: it is kept as it is; bind it to a claim of its own or delete it, so that \
         the storage class makes a new one"
    )]
    Existing {
        /// The volume.
        volume: String,
    },
    /// A claim of the target's name came up meanwhile.
    #[error("claim {claim} exists by now and is bound to another volume: it was left alone; delete it to restore it")]
    Occupied {
        /// `<namespace>/<name>`.
        claim: String,
    },
}

/// What volume to make.
#[derive(Clone, Debug)]
pub struct ClaimRequest {
    /// Storage class; `None` means the cluster's default.
    pub storage_class: Option<String>,
    /// Access modes of the target claim.
    pub access_modes: Vec<String>,
    /// Size.
    pub size: Quantity,
}

/// Creates a temporary claim. With a class that waits for a consumer its volume comes with the mover's pod.
pub async fn create_temporary(
    context: &Context,
    running: &Running,
    name: &str,
    request: &ClaimRequest,
) -> Result<(), ClaimError> {
    let claim = PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(labels(running.uid())),
            annotations: Some(BTreeMap::from([(ANNOTATION_ROLE.to_owned(), ROLE_TEMPORARY.to_owned())])),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(request.access_modes.clone()),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([("storage".to_owned(), request.size.clone())])),
                ..VolumeResourceRequirements::default()
            }),
            storage_class_name: request.storage_class.clone(),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    };
    let claims = context.own::<PersistentVolumeClaim>();
    match retry::call(|| async { claims.create(&PostParams::default(), &claim).await }).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        Err(source) => Err(api(format!("create PersistentVolumeClaim {name}"))(source)),
    }
}

/// Hands the volume of a temporary claim over to a new claim `target` (its namespace, name, labels, annotations and
/// spec; `spec.volumeName` is filled in here). The mover's Job must be gone.
/// 1. Mark the volume, so that a cut off hand-over can be settled, and make it `Retain`.
/// 2. Delete the temporary claim and wait until it is gone.
/// 3. Point the volume at the target.
/// 4. Create the target and wait until it is bound.
/// 5. Give the volume its reclaim policy back and remove our marks.
pub async fn hand_over(
    context: &Context,
    running: &Running,
    temporary: &str,
    target: &PersistentVolumeClaim,
) -> Result<(), ClaimError> {
    let path = super::twin::claim_path(target);
    let claims = context.own::<PersistentVolumeClaim>();
    let claim = retry::call(|| claims.get(temporary)).await.map_err(api(format!("get claim {temporary}")))?;
    let name = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone()).unwrap_or_default();
    let volumes: Api<PersistentVolume> = Api::all(context.client.clone());
    let volume = retry::call(|| volumes.get(&name)).await.map_err(api(format!("get volume {name} of {temporary}")))?;
    // What is marked may be thrown away when the hand-over is cut off, so nothing else is ever marked.
    if !is_made_for(&volume, &claim) {
        return Err(ClaimError::Existing { volume: name });
    }
    mark(&volumes, running, &volume, &claim, &path).await?;
    retry::absent(retry::call(|| async { claims.delete(temporary, &DeleteParams::default()).await }).await)
        .map_err(api(format!("delete claim {temporary}")))?;
    until(format!("deletion of claim {temporary}"), || async {
        Ok(retry::absent(retry::call(|| claims.get(temporary)).await)
            .map_err(api(format!("get claim {temporary}")))?
            .is_none())
    })
    .await?;
    let reference = json!({"spec": {"claimRef": {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": target.namespace(), "name": target.name_any(),
        "uid": null, "resourceVersion": null,
    }}});
    patch(&volumes, &name, &reference).await?;
    bind(context, target, &name, &path).await?;
    unmark(&volumes, &volume).await
}

/// Whether a volume was made for this claim. Kubernetes may also bind a volume that was there before, whose data is
/// someone's; such a one is older than the claim. Times have whole seconds: of one that was there in the same second the
/// mover sees that it is not empty.
fn is_made_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    match (&volume.metadata.creation_timestamp, &claim.metadata.creation_timestamp) {
        (Some(made), Some(asked)) => made.0 >= asked.0,
        _ => false,
    }
}

/// Marks a volume as in hand-over.
async fn mark(
    volumes: &Api<PersistentVolume>,
    running: &Running,
    volume: &PersistentVolume,
    temporary: &PersistentVolumeClaim,
    target: &str,
) -> Result<(), ClaimError> {
    let change = json!({
        "metadata": {
            "labels": {names::LABEL_OPERATION_UID: running.uid()},
            "annotations": {
                ANNOTATION_ROLE: ROLE_HANDOVER,
                ANNOTATION_TARGET: target,
                ANNOTATION_POLICY: policy(volume),
                ANNOTATION_TEMPORARY_UID: temporary.uid(),
            },
        },
        "spec": {"persistentVolumeReclaimPolicy": "Retain"},
    });
    patch(volumes, &volume.name_any(), &change).await
}

/// Creates the target claim and waits until it is bound to the volume.
async fn bind(context: &Context, target: &PersistentVolumeClaim, volume: &str, path: &str) -> Result<(), ClaimError> {
    let mut claim = target.clone();
    claim.spec.get_or_insert_default().volume_name = Some(volume.to_owned());
    let claims: Api<PersistentVolumeClaim> =
        Api::namespaced(context.client.clone(), &target.namespace().unwrap_or_default());
    let name = target.name_any();
    match retry::call(|| async { claims.create(&PostParams::default(), &claim).await }).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.is_already_exists() => {
            let there = retry::call(|| claims.get(&name)).await.map_err(api(format!("get claim {path}")))?;
            if there.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()) != Some(volume) {
                return Err(ClaimError::Occupied { claim: path.to_owned() });
            }
        }
        Err(source) => return Err(api(format!("create claim {path}"))(source)),
    }
    until(format!("binding of claim {path} to volume {volume}"), || async {
        let claim = retry::call(|| claims.get(&name)).await.map_err(api(format!("get claim {path}")))?;
        Ok(claim.status.and_then(|status| status.phase).as_deref() == Some("Bound"))
    })
    .await
}

/// Gives a volume its reclaim policy back and removes our marks.
async fn unmark(volumes: &Api<PersistentVolume>, volume: &PersistentVolume) -> Result<(), ClaimError> {
    let policy = volume.annotations().get(ANNOTATION_POLICY).cloned().unwrap_or_else(|| policy(volume));
    patch(volumes, &volume.name_any(), &unmarked(&json!({"persistentVolumeReclaimPolicy": policy}))).await
}

fn unmarked(spec: &serde_json::Value) -> serde_json::Value {
    json!({
        "metadata": {
            "labels": {names::LABEL_OPERATION_UID: null},
            "annotations": {
                ANNOTATION_ROLE: null, ANNOTATION_TARGET: null, ANNOTATION_POLICY: null, ANNOTATION_TEMPORARY_UID: null,
            },
        },
        "spec": spec,
    })
}

/// What becomes of a volume whose hand-over was cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// The target has it: finish the hand-over.
    Finish,
    /// Nobody has it: the provisioner may remove it.
    Discard,
    /// It is not ours to decide about.
    Leave,
}

/// Decides about a volume with the operation's label. `target` is the claim that its annotation names, as it is now.
#[must_use]
pub fn settlement(volume: &PersistentVolume, target: Option<&PersistentVolumeClaim>) -> Settlement {
    if volume.annotations().get(ANNOTATION_ROLE).map(String::as_str) != Some(ROLE_HANDOVER) {
        return Settlement::Leave;
    }
    let name = volume.name_any();
    if target.and_then(|claim| claim.spec.as_ref()?.volume_name.as_deref()) == Some(name.as_str()) {
        return Settlement::Finish;
    }
    if volume.annotations().contains_key(ANNOTATION_PROVISIONED) { Settlement::Discard } else { Settlement::Leave }
}

/// Settles a volume whose hand-over was cut off. When it changes meanwhile it is looked at again: what was decided may no
/// longer be right.
pub async fn settle(context: &Context, volume: &PersistentVolume) -> Result<(), ClaimError> {
    let volumes: Api<PersistentVolume> = Api::all(context.client.clone());
    let name = volume.name_any();
    let mut volume = volume.clone();
    for _ in 1..SETTLE_TRIES {
        match settle_as_seen(context, &volumes, &volume).await {
            Err(ClaimError::Api { source: kube::Error::Api(status), .. }) if status.is_conflict() => {}
            result => return result,
        }
        let found = retry::absent(retry::call(|| volumes.get(&name)).await).map_err(api(format!("get {name}")))?;
        let Some(found) = found else { return Ok(()) };
        volume = found;
    }
    settle_as_seen(context, &volumes, &volume).await
}

async fn settle_as_seen(
    context: &Context,
    volumes: &Api<PersistentVolume>,
    volume: &PersistentVolume,
) -> Result<(), ClaimError> {
    let path = volume.annotations().get(ANNOTATION_TARGET).cloned().unwrap_or_default();
    let (namespace, name) = path.split_once('/').unwrap_or_default();
    let target = if name.is_empty() {
        None
    } else {
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), namespace);
        retry::absent(retry::call(|| claims.get(name)).await).map_err(api(format!("get claim {path}")))?
    };
    match settlement(volume, target.as_ref()) {
        Settlement::Leave => Ok(()),
        Settlement::Finish => unmark(volumes, volume).await,
        Settlement::Discard => patch(volumes, &volume.name_any(), &discarded(volume, &context.pod.namespace)).await,
    }
}

/// What makes the provisioner remove a volume, refused if the volume is no longer as it was seen.
fn discarded(volume: &PersistentVolume, namespace: &str) -> serde_json::Value {
    // A claimRef with the UID of a claim that is gone makes the volume Released, and only released volumes are removed by
    // their provisioner.
    let uid = volume.annotations().get(ANNOTATION_TEMPORARY_UID);
    let mut change = unmarked(&json!({
        "persistentVolumeReclaimPolicy": "Delete",
        "claimRef": {
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": namespace, "name": "discarded", "uid": uid,
            "resourceVersion": null,
        },
    }));
    change["metadata"]["resourceVersion"] = json!(volume.resource_version());
    change
}

/// Throws away a temporary claim and the volume that was made for it, whatever its class does with volumes. A volume that
/// was there before is kept.
pub async fn discard(context: &Context, claim: &PersistentVolumeClaim) -> Result<(), ClaimError> {
    let name = claim.name_any();
    let volumes: Api<PersistentVolume> = Api::all(context.client.clone());
    let volume = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone()).unwrap_or_default();
    if !volume.is_empty() && claim.annotations().get(ANNOTATION_ROLE).map(String::as_str) == Some(ROLE_TEMPORARY) {
        let found = retry::absent(retry::call(|| volumes.get(&volume)).await).map_err(api(format!("get {volume}")))?;
        if let Some(policy) = found.and_then(|found| policy_of_discarded(&found, claim)) {
            patch(&volumes, &volume, &json!({"spec": {"persistentVolumeReclaimPolicy": policy}})).await?;
        }
    }
    let claims = context.own::<PersistentVolumeClaim>();
    retry::absent(retry::call(|| async { claims.delete(&name, &DeleteParams::default()).await }).await)
        .map_err(api(format!("delete claim {name}")))?;
    Ok(())
}

/// The reclaim policy that a volume has to have when its temporary claim goes; `None`: the one that it has.
fn policy_of_discarded(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<&'static str> {
    // Never a volume that plays another role: a twin's storage belongs to someone.
    if volume.annotations().contains_key(ANNOTATION_ROLE) {
        return None;
    }
    if !is_made_for(volume, claim) {
        // It was there before, and must not go with a claim that took it by chance.
        return (policy(volume) != "Retain").then_some("Retain");
    }
    volume.annotations().contains_key(ANNOTATION_PROVISIONED).then_some("Delete")
}

/// Throws away the temporary claim of this name, if it is there.
pub async fn discard_temporary(context: &Context, name: &str) -> Result<(), ClaimError> {
    let claims = context.own::<PersistentVolumeClaim>();
    let found = retry::absent(retry::call(|| claims.get(name)).await).map_err(api(format!("get claim {name}")))?;
    match found {
        Some(claim) => discard(context, &claim).await,
        None => Ok(()),
    }
}

fn policy(volume: &PersistentVolume) -> String {
    let policy = volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.clone());
    policy.unwrap_or_else(|| "Delete".to_owned())
}

async fn patch(volumes: &Api<PersistentVolume>, name: &str, change: &serde_json::Value) -> Result<(), ClaimError> {
    retry::call(|| async { volumes.patch(name, &PatchParams::default(), &Patch::Merge(change)).await })
        .await
        .map(drop)
        .map_err(api(format!("change PersistentVolume {name}")))
}

fn api(what: String) -> impl FnOnce(kube::Error) -> ClaimError {
    move |source| ClaimError::Api { what, source }
}

/// Waits until something holds, within bounds.
async fn until<F, Fut>(what: String, mut holds: F) -> Result<(), ClaimError>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<bool, ClaimError>>,
{
    let waiting = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(500));
        loop {
            ticks.tick().await;
            if holds().await? {
                return Ok(());
            }
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or(Err(ClaimError::Timeout { what }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(role: &str, provisioned: bool) -> PersistentVolume {
        let mut annotations = BTreeMap::from([(ANNOTATION_ROLE.to_owned(), role.to_owned())]);
        if provisioned {
            annotations.insert(ANNOTATION_PROVISIONED.to_owned(), "csi".to_owned());
        }
        PersistentVolume {
            metadata: ObjectMeta {
                name: Some("pvc-1".to_owned()),
                annotations: Some(annotations),
                ..ObjectMeta::default()
            },
            ..PersistentVolume::default()
        }
    }

    fn claim(volume: &str) -> PersistentVolumeClaim {
        serde_json::from_value(json!({"metadata": {"name": "data"}, "spec": {"volumeName": volume}})).unwrap()
    }

    #[test]
    fn a_volume_that_its_target_has_is_never_thrown_away() {
        let volume = volume(ROLE_HANDOVER, true);
        assert_eq!(settlement(&volume, Some(&claim("pvc-1"))), Settlement::Finish);
        assert_eq!(settlement(&volume, Some(&claim("other"))), Settlement::Discard);
        assert_eq!(settlement(&volume, None), Settlement::Discard);
    }

    #[test]
    fn a_volume_is_thrown_away_only_as_it_was_seen() {
        let mut seen = volume(ROLE_HANDOVER, true);
        seen.metadata.resource_version = Some("7".to_owned());
        let change = discarded(&seen, "shoot-backup");
        assert_eq!(change["metadata"]["resourceVersion"], "7");
        assert_eq!(change["metadata"]["labels"][names::LABEL_OPERATION_UID], json!(null));
        assert_eq!(change["spec"]["claimRef"]["name"], "discarded");
    }

    #[test]
    fn a_volume_that_was_there_before_its_temporary_claim_is_kept() {
        let volume = |made: &str, policy: &str| -> PersistentVolume {
            serde_json::from_value(json!({
                "metadata": {"name": "pv", "creationTimestamp": made, "annotations": {ANNOTATION_PROVISIONED: "csi"}},
                "spec": {"persistentVolumeReclaimPolicy": policy},
            }))
            .unwrap()
        };
        let claim: PersistentVolumeClaim =
            serde_json::from_value(json!({"metadata": {"creationTimestamp": "2026-01-01T12:00:00Z"}})).unwrap();
        for (made, policy, expected) in [
            ("2026-01-01T12:00:00Z", "Retain", Some("Delete")),
            ("2026-01-01T12:00:03Z", "Delete", Some("Delete")),
            ("2026-01-01T11:59:59Z", "Retain", None),
            ("2026-01-01T11:59:59Z", "Delete", Some("Retain")),
        ] {
            assert_eq!(policy_of_discarded(&volume(made, policy), &claim), expected, "{made} {policy}");
        }
        let mut twin = volume("2026-01-01T12:00:03Z", "Retain");
        twin.annotations_mut().insert(ANNOTATION_ROLE.to_owned(), super::super::twin::ROLE_TWIN.to_owned());
        assert_eq!(policy_of_discarded(&twin, &claim), None);
    }

    #[test]
    fn a_twin_and_a_volume_that_no_provisioner_made_are_never_thrown_away() {
        assert_eq!(settlement(&volume(super::super::twin::ROLE_TWIN, true), None), Settlement::Leave);
        assert_eq!(settlement(&volume(ROLE_HANDOVER, false), None), Settlement::Leave);
    }
}
