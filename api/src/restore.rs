//! `Restore`: a backup brought back, in the same or another cluster, under the same or another name.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::backup::{VolumePolicy, default_timeout};
use crate::operation::{ItemError, Operation, OperationPhase, Progress};

/// What to restore, and where to.
#[derive(CustomResource, Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[kube(
    group = "shootbackup.extensions.gardener.cloud",
    version = "v1alpha1",
    kind = "Restore",
    namespaced,
    status = "RestoreStatus",
    derive = "PartialEq",
    shortname = "srs",
    category = "shootbackup",
    doc = "A backup brought back into a cluster.",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Backup", type_ = "string", json_path = ".spec.backup"),
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.cluster"),
    printcolumn(name = "Created", type_ = "integer", json_path = ".status.result.created"),
    printcolumn(name = "Changed", type_ = "integer", json_path = ".status.result.changed"),
    printcolumn(name = "Skipped", type_ = "integer", json_path = ".status.result.skipped"),
    printcolumn(name = "Failed", type_ = "integer", json_path = ".status.result.failed"),
    printcolumn(name = "Volumes", type_ = "integer", json_path = ".status.result.volumesVerified"),
    printcolumn(name = "Step", type_ = "string", json_path = ".status.progress.step", priority = 1),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].message",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[cfg_attr(test, kube(cel))]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self == oldSelf").message("a Restore cannot be changed: create another"))]
#[x_kube(validation = Rule::new("has(self.backup) || has(self.source)").message("one of backup and source must be set"))]
pub struct RestoreSpec {
    /// `Backup` in the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub backup: Option<String>,
    /// Where the backup is, for one that has no `Backup` object (any more). The garden side fills it in for the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<RestoreSource>,
    /// `ApplicationCluster` in the same namespace to restore into. It must be able to use the backup's location.
    #[schemars(length(min = 1, max = 253))]
    pub cluster: String,
    /// Namespaces of the backup to restore; empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    pub included_namespaces: Vec<String>,
    /// New names for namespaces: from the backup's name to the name here.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub namespace_mapping: BTreeMap<String, String>,
    /// New names for storage classes: from the backup's name to the name here.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub storage_class_mapping: BTreeMap<String, String>,
    /// Resources to restore, as `resource` or `resource.group`. Empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub included_resources: Vec<String>,
    /// Resources to leave out; wins over `includedResources`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub excluded_resources: Vec<String>,
    /// What happens to objects that are already there.
    #[serde(default)]
    pub conflict_policy: ConflictPolicy,
    /// Whether the data of volumes is restored.
    #[serde(default)]
    pub volumes: VolumePolicy,
    /// Longest time that it may take, such as `4h`. Then it fails.
    #[serde(default = "default_timeout")]
    #[schemars(regex(pattern = r"^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$"), length(min = 2, max = 21))]
    pub timeout: String,
}

/// Where a backup is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestoreSource {
    /// `BackupLocation` in the same namespace.
    pub location: String,
    /// UID of the source cluster's namespace `kube-system`.
    #[serde(rename = "clusterUID")]
    pub cluster_uid: String,
    /// The manifest's file name without `.json`: `<name>.<uid>` of the backup.
    pub backup: String,
}

/// What happens to objects that are already there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema)]
pub enum ConflictPolicy {
    /// They stay as they are. A volume claim that is there keeps its data.
    #[default]
    Skip,
    /// They become what the backup has. The data of a volume claim that is there is never overwritten.
    Overwrite,
}

/// How a restore went.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestoreStatus {
    /// Generation of the spec that this status is about.
    #[serde(default)]
    pub observed_generation: i64,
    /// Where it stands.
    #[serde(default)]
    pub phase: OperationPhase,
    /// `Ready`.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// When the agent began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// How often an agent began it.
    #[serde(default)]
    pub attempts: i64,
    /// How far it is.
    #[serde(default)]
    pub progress: Progress,
    /// What came out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<RestoreResult>,
    /// The first errors. The report in the location has all.
    #[schemars(length(max = 10))]
    #[serde(default)]
    pub errors: Vec<ItemError>,
}

/// What a restore did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RestoreResult {
    /// Path of the report below the location's prefix.
    pub report: String,
    /// Objects that were created.
    pub created: i64,
    /// Objects that were there and were changed.
    pub changed: i64,
    /// Objects that were left alone: they were there, or others make them.
    pub skipped: i64,
    /// Objects, files and volumes that failed. One makes the restore `PartiallyFailed`.
    pub failed: i64,
    /// Volumes whose data was written.
    pub volumes: i64,
    /// Volumes whose data was read back and is that of the manifest.
    pub volumes_verified: i64,
    /// Bytes of volume data.
    pub bytes: i64,
}

impl Operation for Restore {
    fn cluster(&self) -> &str {
        &self.spec.cluster
    }

    fn phase(&self) -> OperationPhase {
        self.status.as_ref().map(|status| status.phase).unwrap_or_default()
    }

    /// What is there already is left alone, so a restore can go on with what failed.
    fn may_retry(phase: OperationPhase) -> bool {
        matches!(phase, OperationPhase::Failed | OperationPhase::Cancelled | OperationPhase::PartiallyFailed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restore_names_its_backup_or_its_source() {
        let spec = |extra: serde_json::Value| {
            let mut spec = serde_json::json!({"cluster": "alpha"});
            spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            Restore::new("r", serde_json::from_value(spec).unwrap())
        };
        assert!(spec(serde_json::json!({"backup": "nightly"})).validate_cel().is_ok());
        let source = serde_json::json!({"source": {"location": "main", "clusterUID": "u", "backup": "nightly.u"}});
        assert!(spec(source).validate_cel().is_ok());
        assert!(spec(serde_json::json!({})).validate_cel().is_err());
    }
}
