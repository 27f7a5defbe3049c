//! Volumes: a directory of the node for every claim of the landscape's storage classes.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{DeleteParams, PostParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};

use crate::error::{Doing, Error, Result};

const PROVISIONER: &str = "landscape.local/path";
/// Set by the scheduler when it has chosen a node for a claim that waits for its first consumer.
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";

/// The storage classes of every cluster with a node.
pub(crate) fn storage_classes() -> Vec<Value> {
    let class = |name: &str, policy: &str, default: bool| {
        json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
            "metadata": {
                "name": name,
                "annotations": {"storageclass.kubernetes.io/is-default-class": default.to_string()},
            },
            "provisioner": PROVISIONER,
            "reclaimPolicy": policy,
            "volumeBindingMode": "WaitForFirstConsumer",
        })
    };
    vec![
        class("local-path", "Delete", true),
        class("local-path-retain", "Retain", false),
        class("fast", "Delete", false),
    ]
}

struct Provisioner {
    client: Client,
    /// Holds one directory per volume.
    folder: PathBuf,
}

/// Provisions and deletes volumes until dropped.
pub(crate) async fn run(client: Client, folder: PathBuf) {
    let provisioner = Arc::new(Provisioner { client: client.clone(), folder });
    let claims = Controller::new(Api::<PersistentVolumeClaim>::all(client.clone()), watcher::Config::default())
        .run(provide, retry, provisioner.clone())
        .for_each(|_| async {});
    let volumes = Controller::new(Api::<PersistentVolume>::all(client), watcher::Config::default())
        .run(reclaim, retry, provisioner)
        .for_each(|_| async {});
    tokio::join!(claims, volumes);
}

fn retry<K>(_object: Arc<K>, error: &Error, _provisioner: Arc<Provisioner>) -> Action {
    tracing::warn!(%error, "failed to provision");
    Action::requeue(Duration::from_secs(1))
}

/// Makes the volume of a claim whose node is chosen.
async fn provide(claim: Arc<PersistentVolumeClaim>, provisioner: Arc<Provisioner>) -> Result<Action> {
    let Some(spec) = claim.spec.as_ref().filter(|spec| spec.volume_name.as_deref().unwrap_or_default().is_empty())
    else {
        return Ok(Action::await_change());
    };
    let (Some(class), Some(node)) = (&spec.storage_class_name, claim.annotations().get(SELECTED_NODE)) else {
        return Ok(Action::await_change());
    };
    let classes: Api<StorageClass> = Api::all(provisioner.client.clone());
    let Some(class) = classes.get_opt(class).await.doing(|| format!("get StorageClass {class}"))? else {
        return Ok(Action::requeue(Duration::from_secs(5)));
    };
    if class.provisioner != PROVISIONER {
        return Ok(Action::await_change());
    }
    let uid = claim.uid().unwrap_or_default();
    let name = format!("pvc-{uid}");
    let directory = provisioner.folder.join(&name);
    make(&directory)?;
    let requests = spec.resources.as_ref().and_then(|resources| resources.requests.clone()).unwrap_or_default();
    let volume: PersistentVolume = serde_json::from_value(json!({
        "metadata": {"name": name, "annotations": {PROVISIONED_BY: PROVISIONER}},
        "spec": {
            "capacity": requests.into_iter().filter(|(resource, _)| resource == "storage").collect::<BTreeMap<_, _>>(),
            "accessModes": spec.access_modes,
            "volumeMode": "Filesystem",
            "storageClassName": class.name_any(),
            "persistentVolumeReclaimPolicy": class.reclaim_policy,
            "claimRef": {
                "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "namespace": claim.namespace(), "name": claim.name_any(), "uid": uid,
            },
            "local": {"path": directory},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]},
            ]}]}},
        },
    }))
    .map_err(|error| Error::Precondition(format!("failed to describe volume {name}: {error}")))?;
    let volumes: Api<PersistentVolume> = Api::all(provisioner.client.clone());
    match volumes.create(&PostParams::default(), &volume).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => {}
        other => other.map(|_| ()).doing(|| format!("create PersistentVolume {name}"))?,
    }
    Ok(Action::await_change())
}

/// Removes a volume that its claim has released, directory first: a directory without an object would be lost.
async fn reclaim(volume: Arc<PersistentVolume>, provisioner: Arc<Provisioner>) -> Result<Action> {
    let ours = volume.annotations().get(PROVISIONED_BY).is_some_and(|by| by == PROVISIONER);
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
    let policy = volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
    if !ours || phase != Some("Released") || policy != Some("Delete") {
        return Ok(Action::await_change());
    }
    let name = volume.name_any();
    let directory = provisioner.folder.join(&name);
    let gone = directory.clone();
    let removed = tokio::task::spawn_blocking(move || fs::remove_dir_all(&gone)).await.unwrap_or(Ok(()));
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).doing(|| format!("remove {}", directory.display()));
        }
        _ => {}
    }
    let volumes: Api<PersistentVolume> = Api::all(provisioner.client.clone());
    match volumes.delete(&name, &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => {}
        other => other.map(|_| ()).doing(|| format!("delete PersistentVolume {name}"))?,
    }
    Ok(Action::await_change())
}

/// A directory that every user may write to, as fresh volumes of clouds are after the kubelet's fsGroup.
fn make(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).doing(|| format!("create {}", directory.display()))?;
    fs::set_permissions(directory, Permissions::from_mode(0o777)).doing(|| format!("open up {}", directory.display()))
}
