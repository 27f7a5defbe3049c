//! `Backup`: one backup of namespaces of one cluster.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::operation::{ItemError, Operation, OperationPhase, Progress};

/// What to back up, and where to.
#[derive(CustomResource, Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[kube(
    group = "shootbackup.extensions.gardener.cloud",
    version = "v1alpha1",
    kind = "Backup",
    namespaced,
    status = "BackupStatus",
    derive = "PartialEq",
    shortname = "sbk",
    category = "shootbackup",
    doc = "A backup of namespaces of one cluster.",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.cluster"),
    printcolumn(name = "Location", type_ = "string", json_path = ".spec.location"),
    printcolumn(name = "Objects", type_ = "integer", json_path = ".status.result.objects"),
    printcolumn(name = "Volumes", type_ = "integer", json_path = ".status.result.volumes"),
    printcolumn(name = "Bytes", type_ = "integer", json_path = ".status.result.bytes"),
    printcolumn(name = "Skipped", type_ = "integer", json_path = ".status.result.skipped"),
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
#[x_kube(validation = Rule::new("self == oldSelf").message("a Backup cannot be changed: create another"))]
#[x_kube(validation = Rule::new("has(self.namespaces) != has(self.namespaceSelector)").message("exactly one of namespaces and namespaceSelector must be set"))]
pub struct BackupSpec {
    /// `ApplicationCluster` in the same namespace.
    #[schemars(length(min = 1, max = 253))]
    pub cluster: String,
    /// `BackupLocation` in the same namespace.
    #[schemars(length(min = 1, max = 253))]
    pub location: String,
    /// Namespaces to back up. `["*"]` means all but those of the system (`kube-*`, `shoot-backup`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub namespaces: Option<Vec<String>>,
    /// Namespaces to back up, by label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// Resources to back up, as `resource` or `resource.group`: `configmaps`, `deployments.apps`. Empty: all but those
    /// that never make sense in a backup (see the concepts page).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub included_resources: Vec<String>,
    /// Resources to leave out; wins over `includedResources`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub excluded_resources: Vec<String>,
    /// Only objects with these labels. Namespaces themselves and what they need of cluster-scoped objects are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_selector: Option<LabelSelector>,
    /// Whether the data of volumes is backed up.
    #[serde(default)]
    pub volumes: VolumePolicy,
    /// Longest time that it may take, such as `4h`. Then it fails.
    #[serde(default = "default_timeout")]
    #[schemars(regex(pattern = r"^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$"), length(min = 2, max = 21))]
    pub timeout: String,
}

/// Default of `timeout`.
#[must_use]
pub fn default_timeout() -> String {
    "4h".to_owned()
}

/// What happens to the data of volumes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema)]
pub enum VolumePolicy {
    /// The data of every bound PersistentVolumeClaim is backed up (restored).
    #[default]
    Include,
    /// Objects only.
    Exclude,
}

/// How a backup went.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupStatus {
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
    /// How often an agent began it: more than once if the agent was restarted meanwhile.
    #[serde(default)]
    pub attempts: i64,
    /// How far it is.
    #[serde(default)]
    pub progress: Progress,
    /// What came out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<BackupResult>,
    /// The first errors. The manifest in the location has all that was skipped.
    #[schemars(length(max = 10))]
    #[serde(default)]
    pub errors: Vec<ItemError>,
}

/// What a backup holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct BackupResult {
    /// UID of the source cluster's namespace `kube-system`: its folder in the location.
    #[serde(rename = "clusterUID")]
    pub cluster_uid: String,
    /// Path of the manifest below the location's prefix.
    pub manifest: String,
    /// SHA-256 of the manifest, in hexadecimal.
    pub manifest_digest: String,
    /// Kubernetes objects.
    pub objects: i64,
    /// Volumes.
    pub volumes: i64,
    /// Files of volumes.
    pub files: i64,
    /// Bytes of objects and volumes.
    pub bytes: i64,
    /// Bytes that were new to the repository, as stored (compressed, encrypted).
    pub stored_bytes: i64,
    /// Items that could not be backed up. One makes the backup `PartiallyFailed`.
    pub skipped: i64,
}

impl Operation for Backup {
    fn cluster(&self) -> &str {
        &self.spec.cluster
    }

    fn phase(&self) -> OperationPhase {
        self.status.as_ref().map(|status| status.phase).unwrap_or_default()
    }

    /// One with a manifest is there, whole or not: nothing is ever overwritten, so it takes a new `Backup`.
    fn may_retry(phase: OperationPhase) -> bool {
        matches!(phase, OperationPhase::Failed | OperationPhase::Cancelled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backup(namespaces: Option<&[&str]>) -> Backup {
        let spec = serde_json::json!({
            "cluster": "alpha",
            "location": "main",
            "namespaces": namespaces,
        });
        Backup::new("nightly", serde_json::from_value(spec).unwrap())
    }

    #[test]
    fn a_backup_says_which_namespaces() {
        assert!(backup(Some(&["shop"])).validate_cel().is_ok());
        assert!(backup(None).validate_cel().is_err());
        let mut both = backup(Some(&["shop"]));
        both.spec.namespace_selector = Some(LabelSelector::default());
        assert!(both.validate_cel().is_err());
    }

    #[test]
    fn a_backup_never_changes() {
        let old = backup(Some(&["shop"]));
        assert!(old.validate_cel_update(&old).is_ok());
        assert!(backup(Some(&["other"])).validate_cel_update(&old).is_err());
    }
}
