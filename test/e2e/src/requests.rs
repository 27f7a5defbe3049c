//! What a person writes: clusters, locations, backups, restores; and what a person waits for.

use std::fmt::Debug;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use shoot_backup_api::backup_location::{LocationCluster, LocationPhase};
use shoot_backup_api::conditions;
use shoot_backup_api::names::{ANNOTATION_ENABLED, ANNOTATION_OPERATION, GROUP, VERSION};
use shoot_backup_api::shoot::Shoot;
use shoot_backup_api::{ApplicationCluster, ApplicationClusterPhase, Backup, BackupLocation, OperationPhase, Restore};
use shoot_backup_landscape::Landscape;

use crate::wait::{Seen, until};

/// Kinds of ours as they come from JSON.
pub trait Ours:
    Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Serialize
{
}
impl<K> Ours for K where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Serialize
{
}

/// One project of the garden, as a member of it sees it.
#[derive(Clone)]
pub struct Project {
    /// Client of the garden.
    pub client: Client,
    /// The project's namespace.
    pub namespace: String,
}

impl Project {
    /// The API of one kind in this project.
    #[must_use]
    pub fn api<K: Ours>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Creates an object of ours from its spec.
    pub async fn create<K: Ours>(&self, name: &str, spec: Value) -> Result<K> {
        let object = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"), "kind": K::kind(&()),
            "metadata": {"name": name, "namespace": self.namespace}, "spec": spec,
        });
        let object: K = serde_json::from_value(object).context("failed to build the object")?;
        let created = self.api::<K>().create(&PostParams::default(), &object).await;
        created.with_context(|| format!("failed to create {} {name}", K::kind(&())))
    }

    /// Asks for an operation by annotation.
    pub async fn request<K: Ours>(&self, name: &str, operation: &str) -> Result<()> {
        self.annotate::<K>(name, ANNOTATION_OPERATION, Some(operation)).await
    }

    /// Sets or removes an annotation.
    pub async fn annotate<K: Ours>(&self, name: &str, key: &str, value: Option<&str>) -> Result<()> {
        let patch = json!({"metadata": {"annotations": {key: value}}});
        let patched = self.api::<K>().patch_metadata(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.map(drop).with_context(|| format!("failed to annotate {} {name}", K::kind(&())))
    }

    /// Opts a Shoot in.
    pub async fn enable(&self, shoot: &str) -> Result<()> {
        self.annotate::<Shoot>(shoot, ANNOTATION_ENABLED, Some("true")).await
    }

    /// Waits until a look at one object gives something.
    pub async fn wait_for<K: Ours, T>(
        &self,
        name: &str,
        what: &str,
        deadline: Duration,
        look: impl Fn(&K) -> Option<T>,
    ) -> Result<T> {
        let api = self.api::<K>();
        until(&format!("{} {name} {what}", K::kind(&())), deadline, || async {
            let object = api.get(name).await?;
            Ok(match look(&object) {
                Some(value) => Seen::Done(value),
                None => Seen::NotYet(serde_json::to_string(&object).map(|text| seen(&text))?),
            })
        })
        .await
    }

    /// Waits until a cluster is in a phase.
    pub async fn cluster_in(&self, name: &str, phase: ApplicationClusterPhase) -> Result<ApplicationCluster> {
        let what = format!("is {phase:?}");
        self.wait_for(name, &what, Duration::from_mins(2), |cluster: &ApplicationCluster| {
            let reached = cluster.status.as_ref().is_some_and(|status| status.phase == phase);
            reached.then(|| cluster.clone())
        })
        .await
    }

    /// Waits until a location is Valid or Failed for a cluster, and returns what the cluster says of it.
    pub async fn location_tried(&self, location: &str, cluster: &str) -> Result<LocationCluster> {
        self.location_until(location, cluster, |entry| {
            matches!(entry.phase, LocationPhase::Valid | LocationPhase::Failed)
        })
        .await
    }

    /// Waits until a location is valid for a cluster.
    pub async fn location_valid(&self, location: &str, cluster: &str) -> Result<()> {
        self.location_until(location, cluster, |entry| entry.phase == LocationPhase::Valid).await.map(drop)
    }

    /// Waits until a cluster's entry of a location is as wanted.
    pub async fn location_until(
        &self,
        location: &str,
        cluster: &str,
        wanted: impl Fn(&LocationCluster) -> bool,
    ) -> Result<LocationCluster> {
        let what = format!("has the wanted state for cluster {cluster}");
        self.wait_for(location, &what, Duration::from_secs(90), |location: &BackupLocation| {
            let status = location.status.as_ref()?;
            status.clusters.iter().find(|entry| entry.name == cluster).filter(|entry| wanted(entry)).cloned()
        })
        .await
    }

    /// Creates a backup of namespaces.
    pub async fn back_up(&self, name: &str, cluster: &str, location: &str, namespaces: &[&str]) -> Result<Backup> {
        let spec = json!({"cluster": cluster, "location": location, "namespaces": namespaces});
        self.create(name, spec).await
    }

    /// Waits until a backup has ended, and returns it.
    pub async fn backup_ended(&self, name: &str) -> Result<Backup> {
        self.wait_for(name, "has ended", Duration::from_mins(5), |backup: &Backup| {
            let ended = backup.status.as_ref().is_some_and(|status| status.phase.is_final());
            ended.then(|| backup.clone())
        })
        .await
    }

    /// Waits until a backup has completed without anything skipped.
    pub async fn backup_completed(&self, name: &str) -> Result<Backup> {
        let backup = self.backup_ended(name).await?;
        expect_completed(
            name,
            backup.status.as_ref().map(|status| (status.phase, &status.conditions, &status.errors)),
        )?;
        Ok(backup)
    }

    /// Waits until a restore has ended, and returns it.
    pub async fn restore_ended(&self, name: &str) -> Result<Restore> {
        self.wait_for(name, "has ended", Duration::from_mins(5), |restore: &Restore| {
            let ended = restore.status.as_ref().is_some_and(|status| status.phase.is_final());
            ended.then(|| restore.clone())
        })
        .await
    }

    /// Waits until a restore has completed without any failure.
    pub async fn restore_completed(&self, name: &str) -> Result<Restore> {
        let restore = self.restore_ended(name).await?;
        let status = restore.status.as_ref();
        expect_completed(name, status.map(|status| (status.phase, &status.conditions, &status.errors)))?;
        Ok(restore)
    }
}

fn expect_completed<E: Debug>(
    name: &str,
    status: Option<(OperationPhase, &Vec<k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition>, &Vec<E>)>,
) -> Result<()> {
    let Some((phase, conditions, errors)) = status else { bail!("{name} has no status") };
    if phase != OperationPhase::Completed {
        let message = conditions::find(conditions, "Ready").map_or("", |condition| condition.message.as_str());
        bail!("{name} is {phase}: {message}; errors: {errors:?}");
    }
    Ok(())
}

/// The part of an object that explains why it is not as wanted.
fn seen(text: &str) -> String {
    let value: Value = serde_json::from_str(text).unwrap_or_default();
    let mut status = value["status"].to_string();
    status.truncate(2000);
    format!("annotations {} status {status}", value["metadata"]["annotations"])
}

/// Spec of a location in the landscape's Azure, below a prefix of its own.
#[must_use]
pub fn location_spec(landscape: &Landscape, prefix: &str) -> Value {
    let azure = landscape.azure();
    json!({
        "account": azure.account,
        "container": azure.container,
        "prefix": prefix,
        "cloud": "Custom",
        "endpoints": {"blob": azure.blob_endpoint, "authority": azure.authority_host},
        "identity": {"clientID": azure.client_id, "tenantID": azure.tenant_id},
    })
}

/// The exact credential that a cluster needs at Entra ID: issuer and subject.
pub fn needed_credential(cluster: &ApplicationCluster) -> Result<(String, String)> {
    let identity = cluster.status.as_ref().and_then(|status| status.workload_identity.as_ref());
    let identity = identity.with_context(|| format!("cluster {} shows no workload identity", cluster.name_any()))?;
    Ok((identity.issuer.clone(), identity.subject.clone()))
}
