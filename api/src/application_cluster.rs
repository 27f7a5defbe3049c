//! `ApplicationCluster`: one cluster whose applications are backed up.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::backup_location::LocationPhase;
use crate::references::{AzureIdentity, SecretKeyReference};

/// One cluster: a Shoot, or any cluster by kubeconfig.
#[derive(CustomResource, Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[kube(
    group = "shootbackup.extensions.gardener.cloud",
    version = "v1alpha1",
    kind = "ApplicationCluster",
    namespaced,
    status = "ApplicationClusterStatus",
    derive = "PartialEq",
    shortname = "appc",
    category = "shootbackup",
    doc = "A cluster whose applications are backed up.",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Shoot", type_ = "string", json_path = ".spec.shootRef.name"),
    printcolumn(name = "Found by", type_ = "string", json_path = ".status.foundBy"),
    printcolumn(name = "Agent", type_ = "string", json_path = ".status.agentVersion"),
    printcolumn(name = "Heartbeat", type_ = "date", json_path = ".status.agentHeartbeat"),
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
#[x_kube(validation = Rule::new("has(self.shootRef) != has(self.kubeconfigSecretRef)").message("exactly one of shootRef and kubeconfigSecretRef must be set"))]
#[x_kube(validation = Rule::new("has(self.shootRef) == has(oldSelf.shootRef) && (!has(self.shootRef) || self.shootRef == oldSelf.shootRef)").message("shootRef cannot be changed: create another ApplicationCluster"))]
pub struct ApplicationClusterSpec {
    /// The Shoot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shoot_ref: Option<ShootReference>,
    /// Secret in the same namespace with a kubeconfig of a cluster that is no Shoot here. It is used to install and
    /// to repair the agent; for everything else a restricted account is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubeconfig_secret_ref: Option<SecretKeyReference>,
    /// Public issuer of the cluster's service account tokens. Only for a cluster by kubeconfig whose API server names
    /// another issuer than the one that Entra ID can reach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^https://.+"), length(max = 2048))]
    pub issuer: Option<String>,
    /// Identity that the agent uses where a location names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<AzureIdentity>,
}

/// A Shoot of the own or of a foreign garden.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShootReference {
    /// Name of the Shoot.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// For a Shoot of a foreign garden: the `ClusterDiscovery` in this namespace that knows how to reach it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discovery: Option<String>,
    /// For a Shoot of a foreign garden: its namespace there. In the own garden it is this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// Where a cluster stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, schemars::JsonSchema)]
pub enum ApplicationClusterPhase {
    /// Just made.
    #[default]
    Pending,
    /// The Shoot is not ready yet, or hibernated; condition `ShootReady` says why.
    Waiting,
    /// The agent is being delivered.
    Onboarding,
    /// The agent is there and its heartbeat is fresh.
    Ready,
    /// The cluster or its agent does not answer; backups go on there as soon as it does.
    Unreachable,
    /// The Shoot no longer matches any opt-in. The agent is left as it is, backups stay listed.
    Unmanaged,
    /// The Shoot is gone. Backups stay listed.
    Removed,
    /// Onboarding failed; the conditions say why. It is tried again.
    Failed,
}

/// Condition types of an `ApplicationCluster`.
pub mod condition {
    /// Summary of the others, for people.
    pub const READY: &str = "Ready";
    /// Something opts the cluster in. Its reason tells a cluster that came back (`Remanaged`) from one that never left.
    pub const MANAGED: &str = "Managed";
    /// The Shoot is created, awake, has workers and its API server is available.
    pub const SHOOT_READY: &str = "ShootReady";
    /// The cluster's API server answers us.
    pub const REACHABLE: &str = "Reachable";
    /// The agent's manifests are applied and as delivered.
    pub const AGENT_DELIVERED: &str = "AgentDelivered";
    /// The agent's heartbeat is fresh.
    pub const AGENT_HEALTHY: &str = "AgentHealthy";
    /// The issuer is public and a location was reached with a token of it.
    pub const WORKLOAD_IDENTITY: &str = "WorkloadIdentityVerified";
}

/// What is known of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApplicationClusterStatus {
    /// Generation of the spec that this status is about.
    #[serde(default)]
    pub observed_generation: i64,
    /// Where it stands.
    #[serde(default)]
    pub phase: ApplicationClusterPhase,
    /// See [`condition`].
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// How it was found: `Annotation`, `Extension`, `Discovery/<name>`, `AutoEnabled`, `Manual`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found_by: Option<String>,
    /// UID of the Shoot when it was taken in. A Shoot of the same name with another UID is another cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shoot_uid: Option<String>,
    /// UID of the cluster's namespace `kube-system`: names the cluster's folder in every location.
    #[serde(default, rename = "clusterUID", skip_serializing_if = "Option::is_none")]
    pub cluster_uid: Option<String>,
    /// The cluster's Kubernetes version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes_version: Option<String>,
    /// Version of the agent that gave the last heartbeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_version: Option<String>,
    /// The agent's last heartbeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_heartbeat: Option<Time>,
    /// The identity with which the cluster's agent presents itself at Entra ID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload_identity: Option<WorkloadIdentityStatus>,
    /// The locations that this cluster was given, and whether it can use them.
    #[schemars(length(max = 64))]
    #[serde(default)]
    pub locations: Vec<ClusterLocation>,
}

/// The federated credential that Entra ID needs, and whether it was seen to work.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadIdentityStatus {
    /// Issuer of the cluster's service account tokens.
    pub issuer: String,
    /// Subject of the agent's token.
    pub subject: String,
    /// Audience of the agent's token.
    pub audience: String,
    /// When a token exchange last worked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verified_at: Option<Time>,
    /// The client id for which it worked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verified_by: Option<String>,
    /// What is missing and how to add it; empty when nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
}

/// One location as seen from one cluster.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterLocation {
    /// Name of the `BackupLocation`.
    pub name: String,
    /// Whether the cluster can use it.
    pub phase: LocationPhase,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(shoot: Option<&str>, secret: Option<&str>) -> ApplicationCluster {
        ApplicationCluster::new(
            "alpha",
            ApplicationClusterSpec {
                shoot_ref: shoot.map(|name| ShootReference { name: name.to_owned(), discovery: None, namespace: None }),
                kubeconfig_secret_ref: secret
                    .map(|name| SecretKeyReference { name: name.to_owned(), key: "kubeconfig".to_owned() }),
                issuer: None,
                identity: None,
            },
        )
    }

    #[test]
    fn a_cluster_is_either_a_shoot_or_a_kubeconfig() {
        assert!(spec(Some("alpha"), None).validate_cel().is_ok());
        assert!(spec(None, Some("delta")).validate_cel().is_ok());
        assert!(spec(None, None).validate_cel().is_err());
        assert!(spec(Some("alpha"), Some("delta")).validate_cel().is_err());
    }

    #[test]
    fn a_cluster_never_becomes_another_shoot() {
        let old = spec(Some("alpha"), None);
        assert!(spec(Some("alpha"), None).validate_cel_update(&old).is_ok());
        assert!(spec(Some("beta"), None).validate_cel_update(&old).is_err());
    }
}
