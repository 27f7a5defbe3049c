//! `BackupLocation`: a container of Azure Blob Storage, and who may use it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::references::AzureIdentity;

/// Where backups go. The data is reached by every cluster with its own workload identity; no credential is stored.
#[derive(CustomResource, Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[kube(
    group = "shootbackup.extensions.gardener.cloud",
    version = "v1alpha1",
    kind = "BackupLocation",
    namespaced,
    status = "BackupLocationStatus",
    derive = "PartialEq",
    shortname = "bloc",
    category = "shootbackup",
    doc = "A container of Azure Blob Storage that backups go to.",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Account", type_ = "string", json_path = ".spec.account"),
    printcolumn(name = "Container", type_ = "string", json_path = ".spec.container"),
    printcolumn(name = "Valid", type_ = "integer", json_path = ".status.clustersValid"),
    printcolumn(name = "Clusters", type_ = "integer", json_path = ".status.clustersTotal"),
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
#[x_kube(validation = Rule::new("(self.cloud == 'Custom') == has(self.endpoints)").message("endpoints must be set for cloud Custom, and only there"))]
#[x_kube(validation = Rule::new("self.account == oldSelf.account && self.container == oldSelf.container && self.prefix == oldSelf.prefix").message("account, container and prefix cannot be changed: backups would be lost from sight; create another BackupLocation"))]
pub struct BackupLocationSpec {
    /// Storage account.
    #[schemars(regex(pattern = r"^[a-z0-9]{3,24}$"))]
    pub account: String,
    /// Blob container. It must exist.
    #[schemars(regex(pattern = r"^[a-z0-9](-?[a-z0-9]){2,62}$"))]
    pub container: String,
    /// Folder in the container below which everything is kept; empty for the container's root. No leading or trailing
    /// slash.
    #[serde(default)]
    #[schemars(
        regex(pattern = r"^([A-Za-z0-9_.-]*[A-Za-z0-9_-](/[A-Za-z0-9_.-]*[A-Za-z0-9_-])*)?$"),
        length(max = 256)
    )]
    pub prefix: String,
    /// Cloud in which the account is.
    #[serde(default)]
    pub cloud: Cloud,
    /// Endpoints of cloud `Custom`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Endpoints>,
    /// Identity that the clusters use here. Without it each uses the identity of its `ApplicationCluster`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<AzureIdentity>,
    /// Clusters that may use this location.
    #[serde(default)]
    pub clusters: ClusterSelection,
    /// Where the repositories' passwords are.
    #[serde(default)]
    pub encryption: Encryption,
}

/// Clouds of Azure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema)]
pub enum Cloud {
    /// Azure, global.
    #[default]
    AzurePublicCloud,
    /// Azure operated by 21Vianet.
    AzureChinaCloud,
    /// Azure Government.
    AzureUSGovernment,
    /// Any other: `endpoints` names it.
    Custom,
}

/// Endpoints of a cloud that is none of Azure's own.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Endpoints {
    /// URL of the account's blob service, `https` only, with the account where it belongs:
    /// `https://<account>.blob.example.org` or `https://host:port/<account>`.
    #[schemars(regex(pattern = r"^https://.+"), length(max = 2048))]
    pub blob: String,
    /// URL of the token authority, `https` only.
    #[schemars(regex(pattern = r"^https://.+"), length(max = 2048))]
    pub authority: String,
}

impl BackupLocationSpec {
    /// URL of the account's blob service.
    #[must_use]
    pub fn blob_endpoint(&self) -> String {
        let suffix = match (self.cloud, &self.endpoints) {
            (Cloud::Custom, Some(endpoints)) => return endpoints.blob.clone(),
            (Cloud::AzureChinaCloud, _) => "blob.core.chinacloudapi.cn",
            (Cloud::AzureUSGovernment, _) => "blob.core.usgovcloudapi.net",
            // A custom cloud without endpoints is refused by the rules above.
            (Cloud::AzurePublicCloud | Cloud::Custom, _) => "blob.core.windows.net",
        };
        format!("https://{}.{suffix}", self.account)
    }

    /// URL of the token authority.
    #[must_use]
    pub fn authority_host(&self) -> String {
        match (self.cloud, &self.endpoints) {
            (Cloud::Custom, Some(endpoints)) => endpoints.authority.clone(),
            (Cloud::AzureChinaCloud, _) => "https://login.chinacloudapi.cn/".to_owned(),
            (Cloud::AzureUSGovernment, _) => "https://login.microsoftonline.us/".to_owned(),
            (Cloud::AzurePublicCloud | Cloud::Custom, _) => "https://login.microsoftonline.com/".to_owned(),
        }
    }
}

/// Clusters by name or by label. Both empty: every cluster of the project.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterSelection {
    /// Names of `ApplicationCluster` objects.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub names: Vec<String>,
    /// Labels of `ApplicationCluster` objects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

/// How the password of each cluster's repository is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Encryption {
    /// Where the password is.
    pub password: PasswordSource,
}

/// Where the password of a repository is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema)]
pub enum PasswordSource {
    /// Random, in the location itself: protected by the account's own encryption and access control. Whoever may read
    /// the location may restore from it.
    #[default]
    Location,
}

/// Whether a cluster can use a location; of a location: the least good of its clusters.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize, schemars::JsonSchema,
)]
pub enum LocationPhase {
    /// Not tried yet.
    #[default]
    Pending,
    /// Being tried.
    InProgress,
    /// Every verb works.
    Valid,
    /// Something does not work; the verbs say what.
    Failed,
}

/// What is known of a location. In an application cluster `clusters` has one entry: the cluster itself.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupLocationStatus {
    /// Generation of the spec that this status is about.
    #[serde(default)]
    pub observed_generation: i64,
    /// The least good phase of the clusters.
    #[serde(default)]
    pub phase: LocationPhase,
    /// `Ready`.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// Clusters that may use it.
    #[serde(default)]
    pub clusters_total: i64,
    /// Clusters that can use it.
    #[serde(default)]
    pub clusters_valid: i64,
    /// Per cluster what was tried.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[schemars(length(max = 256))]
    #[serde(default)]
    pub clusters: Vec<LocationCluster>,
}

/// One cluster's view of a location.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LocationCluster {
    /// Name of the `ApplicationCluster`; in the application cluster itself the name `self`.
    pub name: String,
    /// Whether it can use the location.
    pub phase: LocationPhase,
    /// When this was found out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
    /// One word for programs: `Valid`, `TokenExchangeFailed`, `Unreachable`, `AuthorizationPermissionMismatch`, …
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// For people: what failed and what to do.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Client id that was used.
    #[serde(rename = "clientID", skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Each verb that was tried, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub verbs: Vec<VerbResult>,
}

/// Outcome of one verb.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct VerbResult {
    /// `TokenExchange`, `List`, `Put`, `ConditionalPut`, `Get`, `Lease`, `Delete`.
    pub verb: String,
    /// What happened.
    pub outcome: VerbOutcome,
    /// The service's own code, such as `AADSTS700213` or `AuthorizationPermissionMismatch`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// What happened to one verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema)]
pub enum VerbOutcome {
    /// It worked.
    Succeeded,
    /// It failed.
    Failed,
    /// It was not tried because one before it failed.
    Skipped,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(cloud: Cloud, endpoints: bool) -> BackupLocation {
        let endpoints = endpoints.then(|| Endpoints {
            blob: "https://127.0.0.1:10000/account".to_owned(),
            authority: "https://127.0.0.1:10001/".to_owned(),
        });
        BackupLocation::new(
            "main",
            BackupLocationSpec {
                account: "account".to_owned(),
                container: "backups".to_owned(),
                prefix: "a/b".to_owned(),
                cloud,
                endpoints,
                identity: None,
                clusters: ClusterSelection::default(),
                encryption: Encryption::default(),
            },
        )
    }

    #[test]
    fn a_custom_cloud_needs_endpoints_and_no_other_may_have_them() {
        assert!(location(Cloud::Custom, true).validate_cel().is_ok());
        assert!(location(Cloud::AzurePublicCloud, false).validate_cel().is_ok());
        assert!(location(Cloud::Custom, false).validate_cel().is_err());
        assert!(location(Cloud::AzurePublicCloud, true).validate_cel().is_err());
    }

    #[test]
    fn a_location_never_moves() {
        let old = location(Cloud::Custom, true);
        let mut moved = old.clone();
        assert!(moved.validate_cel_update(&old).is_ok());
        moved.spec.prefix = "c".to_owned();
        assert!(moved.validate_cel_update(&old).is_err());
    }

    #[test]
    fn each_cloud_has_its_own_endpoints() {
        let spec = location(Cloud::AzureChinaCloud, false).spec;
        assert_eq!(spec.blob_endpoint(), "https://account.blob.core.chinacloudapi.cn");
        assert_eq!(spec.authority_host(), "https://login.chinacloudapi.cn/");
        assert_eq!(location(Cloud::Custom, true).spec.blob_endpoint(), "https://127.0.0.1:10000/account");
    }
}
