//! What is written beside the repositories in a location, as JSON: the location's marker, who a cluster is, the manifest
//! of a backup, the report of a restore. All are create-only: nothing is ever overwritten.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::backup::BackupSpec;
use crate::operation::OperationPhase;

/// Paths below a location's prefix.
pub mod paths {
    /// The marker of a location.
    pub const LOCATION: &str = "location.json";

    /// A cluster's folder. `uid` is the UID of its namespace `kube-system`.
    #[must_use]
    pub fn cluster(uid: &str) -> String {
        format!("clusters/{uid}")
    }

    /// Who the cluster is.
    #[must_use]
    pub fn cluster_identity(uid: &str) -> String {
        format!("clusters/{uid}/cluster.json")
    }

    /// The cluster's restic repository.
    #[must_use]
    pub fn repository(uid: &str) -> String {
        format!("clusters/{uid}/repository")
    }

    /// The password of the cluster's repository, where the location keeps it.
    #[must_use]
    pub fn password(uid: &str) -> String {
        format!("clusters/{uid}/repository-password")
    }

    /// Manifests of the cluster's backups.
    #[must_use]
    pub fn backups(uid: &str) -> String {
        format!("clusters/{uid}/backups/")
    }

    /// Manifest of one backup; `backup` is `<name>.<uid>`.
    #[must_use]
    pub fn backup(uid: &str, backup: &str) -> String {
        format!("clusters/{uid}/backups/{backup}.json")
    }

    /// Report of one restore into the cluster; `restore` is `<name>.<uid>`.
    #[must_use]
    pub fn restore(uid: &str, restore: &str) -> String {
        format!("clusters/{uid}/restores/{restore}.json")
    }
}

/// Marks a location, so that it is never mistaken for another.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LocationMarker {
    /// Random, made once.
    pub uuid: String,
    /// Version of everything that [`paths`] names: 1.
    pub format_version: u32,
}

/// Format version that this code reads and writes.
pub const FORMAT_VERSION: u32 = 1;

/// Who a cluster is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterIdentity {
    /// UID of namespace `kube-system`.
    pub uid: String,
    /// Name for people: the Shoot's or the `ApplicationCluster`'s.
    pub name: String,
    /// Gardener project namespace or whatever the garden side calls the tenant.
    pub project: String,
    /// Issuer of the cluster's tokens.
    pub issuer: String,
}

/// A backup exists when its manifest exists: it is written last.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupManifest {
    /// [`FORMAT_VERSION`].
    pub format_version: u32,
    /// Name of the `Backup`.
    pub name: String,
    /// UID of the `Backup`.
    pub uid: String,
    /// Name of the source cluster for people.
    pub cluster: String,
    /// UID of the source cluster's namespace `kube-system`.
    pub cluster_uid: String,
    /// Kubernetes version of the source cluster.
    pub kubernetes_version: String,
    /// Version of the agent.
    pub agent_version: String,
    /// What was asked for.
    pub spec: BackupSpec,
    /// `Completed` or `PartiallyFailed`.
    pub phase: OperationPhase,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub completed: Timestamp,
    /// Namespaces that were backed up.
    pub namespaces: Vec<String>,
    /// The snapshot of the Kubernetes objects.
    pub objects: ObjectsEntry,
    /// The snapshots of volumes.
    pub volumes: Vec<VolumeEntry>,
    /// Everything that could not be backed up, up to [`MAX_LISTED`].
    pub skipped: Vec<SkippedEntry>,
    /// How many could not be backed up in all.
    pub skipped_total: u64,
}

/// Entries that a manifest or a report lists of one sort, so that its size is bounded; the total is counted beside it.
pub const MAX_LISTED: usize = 10_000;

/// The snapshot of the Kubernetes objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectsEntry {
    /// Id of the snapshot in the cluster's repository.
    pub snapshot: String,
    /// Number of objects.
    pub count: u64,
    /// Bytes as JSON.
    pub bytes: u64,
}

/// The snapshot of one volume.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeEntry {
    /// Namespace of the claim.
    pub namespace: String,
    /// Name of the PersistentVolumeClaim.
    pub claim: String,
    /// Id of the snapshot in the cluster's repository.
    pub snapshot: String,
    /// Storage class of the claim.
    pub storage_class: Option<String>,
    /// Capacity of the volume as Kubernetes writes it.
    pub capacity: Option<String>,
    /// Regular files.
    pub files: u64,
    /// Bytes of regular files.
    pub bytes: u64,
}

/// One thing that could not be backed up.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SkippedEntry {
    /// `deployments.apps/shop/web`, `volume shop/data: var/lib/file`.
    pub item: String,
    /// Why.
    pub reason: String,
}

/// What a restore did, object by object.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreReport {
    /// [`FORMAT_VERSION`].
    pub format_version: u32,
    /// Name of the `Restore`.
    pub name: String,
    /// UID of the `Restore`.
    pub uid: String,
    /// The backup's manifest below the location's prefix.
    pub manifest: String,
    /// How it ended.
    pub phase: OperationPhase,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub completed: Timestamp,
    /// Every object and what happened to it, up to [`MAX_LISTED`].
    pub items: Vec<ReportItem>,
    /// How many there are in all.
    pub items_total: u64,
}

/// One line of a report.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReportItem {
    /// `deployments.apps/shop/web`, `volume shop/data`.
    pub item: String,
    /// What happened.
    pub action: ReportAction,
    /// Why, where that is not plain.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// What a restore did with one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum ReportAction {
    /// It was not there and is there now.
    Created,
    /// It was there and was changed.
    Changed,
    /// It was left alone.
    Skipped,
    /// It did not work.
    Failed,
}
