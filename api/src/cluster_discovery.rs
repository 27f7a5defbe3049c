//! `ClusterDiscovery`: which Shoots of a project are taken in, by label selector.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::operation::ItemError;
use crate::references::{AzureIdentity, SecretKeyReference};

/// Which Shoots to take in. The own garden is watched; a foreign one is asked at an interval.
#[derive(CustomResource, Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[kube(
    group = "shootbackup.extensions.gardener.cloud",
    version = "v1alpha1",
    kind = "ClusterDiscovery",
    plural = "clusterdiscoveries",
    singular = "clusterdiscovery",
    namespaced,
    status = "ClusterDiscoveryStatus",
    derive = "PartialEq",
    shortname = "cdisc",
    category = "shootbackup",
    doc = "Which Shoots are taken in for backup.",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Discovered", type_ = "integer", json_path = ".status.counts.discovered"),
    printcolumn(name = "Associated", type_ = "integer", json_path = ".status.counts.associated"),
    printcolumn(name = "Failed", type_ = "integer", json_path = ".status.counts.failed"),
    printcolumn(name = "Last", type_ = "date", json_path = ".status.lastAutomaticDiscovery.completionTime"),
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
#[x_kube(validation = Rule::new("!has(self.garden) || self.garden.namespaces.size() > 0").message("garden.namespaces must name at least one project namespace of the foreign garden"))]
pub struct ClusterDiscoverySpec {
    /// Selects Shoots by their labels, in Kubernetes' grammar. An empty selector selects all Shoots.
    pub shoot_selector: LabelSelector,
    /// A foreign garden. Without it the Shoots of this project in the own garden are meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub garden: Option<ForeignGarden>,
    /// Whether discovery runs by itself. If not, it runs when the annotation
    /// `shootbackup.extensions.gardener.cloud/operation: discover` asks for it.
    #[serde(default = "default_true")]
    pub auto_discover: bool,
    /// Time between two automatic discoveries of a foreign garden, such as `1h`; 15 minutes at least.
    #[serde(default = "default_interval")]
    #[x_kube(
        validation = Rule::new("duration(self) >= duration('15m')").message("interval must be 15m or more")
    )]
    #[schemars(regex(pattern = r"^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$"), length(min = 2, max = 21))]
    pub interval: String,
    /// Identity for the clusters that are found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<AzureIdentity>,
    /// Location that the clusters found are associated with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub location: Option<String>,
}

/// How to reach a foreign garden.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ForeignGarden {
    /// Secret in the same namespace with a kubeconfig for the foreign garden. Its user needs `list` on Shoots and
    /// `create` on `shoots/adminkubeconfig` in the namespaces below.
    pub kubeconfig_secret_ref: SecretKeyReference,
    /// Project namespaces in the foreign garden.
    #[schemars(length(min = 1, max = 64))]
    pub namespaces: Vec<String>,
}

fn default_true() -> bool {
    true
}

fn default_interval() -> String {
    "1h".to_owned()
}

/// Where a discovery stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, schemars::JsonSchema)]
pub enum ClusterDiscoveryPhase {
    /// Never ran.
    #[default]
    Pending,
    /// The spec cannot be used; the condition says why.
    Invalid,
    /// Runs now.
    InProgress,
    /// The last run worked.
    Success,
    /// The last run failed; the condition says why.
    Failed,
}

/// What discovery found.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterDiscoveryStatus {
    /// Generation of the spec that this status is about.
    #[serde(default)]
    pub observed_generation: i64,
    /// Where it stands.
    #[serde(default)]
    pub phase: ClusterDiscoveryPhase,
    /// `Ready`.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// The last run by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_automatic_discovery: Option<DiscoveryRun>,
    /// The last run that somebody asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_manual_discovery: Option<DiscoveryRun>,
    /// Counts of the last run.
    #[serde(default)]
    pub counts: DiscoveryCounts,
    /// The first errors of the last run.
    #[schemars(length(max = 10))]
    #[serde(default)]
    pub errors: Vec<ItemError>,
}

/// One run of discovery.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DiscoveryRun {
    /// When it began.
    pub start_time: Time,
    /// When it ended.
    pub completion_time: Time,
    /// Whether it worked.
    pub succeeded: bool,
}

/// How many clusters are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DiscoveryCounts {
    /// Shoots that the selector matches.
    pub discovered: i64,
    /// Clusters of this discovery whose Shoot is gone.
    pub removed: i64,
    /// Clusters of this discovery whose Shoot is there and no longer matches.
    pub unmanaged: i64,
    /// Clusters that were removed or unmanaged before and match again.
    pub remanaged: i64,
    /// Shoots that match and were left out: opted out, or taken in by something else.
    pub skipped: i64,
    /// Shoots that could not be taken in.
    pub failed: i64,
    /// Clusters that belong to this discovery now.
    pub associated: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn discovery(interval: &str) -> ClusterDiscovery {
        ClusterDiscovery::new(
            "all",
            ClusterDiscoverySpec {
                shoot_selector: LabelSelector::default(),
                garden: None,
                auto_discover: true,
                interval: interval.to_owned(),
                identity: None,
                location: None,
            },
        )
    }

    #[test]
    fn an_interval_below_15_minutes_is_refused() {
        assert!(discovery("15m").validate_cel().is_ok());
        assert!(discovery("14m59s").validate_cel().is_err());
    }
}
