//! The part of Gardener's `Shoot` (`core.gardener.cloud/v1beta1`) that matters here, and the decisions about it.
//!
//! There is no definition to generate the type from: the API is aggregated (Gardener, `pkg/apis/core/v1beta1`). The
//! type is only ever read, or written by patch: fields that it does not know are never lost.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::Resource;
use kube::api::ObjectMeta;
use serde::{Deserialize, Serialize};

use crate::names;
use crate::selector::{self, InvalidSelector};

/// A Shoot.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shoot {
    /// Name, labels, annotations.
    pub metadata: ObjectMeta,
    /// The desired state.
    #[serde(default)]
    pub spec: ShootSpec,
    /// The observed state.
    #[serde(default)]
    pub status: ShootStatus,
}

impl Resource for Shoot {
    type DynamicType = ();
    type Scope = k8s_openapi::NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Shoot".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "core.gardener.cloud".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1beta1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "shoots".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// The desired state of a Shoot.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ShootSpec {
    /// Extensions by type.
    pub extensions: Vec<ShootExtension>,
    /// Hibernation.
    pub hibernation: Option<Hibernation>,
    /// Infrastructure and workers.
    pub provider: Provider,
}

/// One entry of `spec.extensions`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ShootExtension {
    /// Type of the extension.
    #[serde(rename = "type")]
    pub type_: String,
    /// Opt-out of an extension that the landscape enables by itself.
    pub disabled: Option<bool>,
}

/// Hibernation of a Shoot.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hibernation {
    /// Whether it should sleep.
    pub enabled: Option<bool>,
}

/// Infrastructure of a Shoot.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Provider {
    /// Worker groups; none: a workerless Shoot.
    pub workers: Vec<serde_json::Value>,
}

/// The observed state of a Shoot.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ShootStatus {
    /// Where the API server and the issuer are.
    pub advertised_addresses: Vec<AdvertisedAddress>,
    /// Health.
    pub conditions: Vec<ShootCondition>,
    /// Whether it sleeps now.
    #[serde(rename = "hibernated")]
    pub is_hibernated: bool,
    /// What Gardener did last.
    pub last_operation: Option<LastOperation>,
    /// Unique over time, also when a Shoot of the same name is made anew.
    pub uid: String,
}

/// One entry of `status.advertisedAddresses`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AdvertisedAddress {
    /// `external`, `internal`, `service-account-issuer`, …
    pub name: String,
    /// URL.
    pub url: String,
}

/// One entry of `status.conditions`: Gardener's own, not `metav1.Condition`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ShootCondition {
    /// `APIServerAvailable`, …
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False`, `Unknown`, `Progressing`.
    pub status: String,
    /// For people.
    pub message: String,
}

/// What Gardener did last with a Shoot.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LastOperation {
    /// `Create`, `Reconcile`, `Delete`, `Migrate`, `Restore`.
    #[serde(rename = "type")]
    pub type_: String,
    /// `Processing`, `Succeeded`, `Error`, `Failed`, `Pending`, `Aborted`.
    pub state: String,
}

/// How a Shoot was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FoundBy {
    /// By the annotation [`names::ANNOTATION_ENABLED`].
    Annotation,
    /// By an entry of `spec.extensions`.
    Extension,
    /// By a `ClusterDiscovery` of this name.
    Discovery(String),
    /// By the landscape, which takes in every Shoot that does not opt out.
    AutoEnabled,
}

impl std::fmt::Display for FoundBy {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Annotation => formatter.write_str("Annotation"),
            Self::Extension => formatter.write_str("Extension"),
            Self::Discovery(name) => write!(formatter, "Discovery/{name}"),
            Self::AutoEnabled => formatter.write_str("AutoEnabled"),
        }
    }
}

impl Shoot {
    fn annotation(&self, key: &str) -> Option<&str> {
        self.metadata.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// Whether the owner said no: by annotation `"false"`, or `disabled: true` in `spec.extensions`. It wins over every
    /// opt-in.
    #[must_use]
    pub fn opted_out(&self) -> bool {
        self.annotation(names::ANNOTATION_ENABLED) == Some("false")
            || self
                .spec
                .extensions
                .iter()
                .any(|extension| extension.type_ == names::EXTENSION_TYPE && extension.disabled == Some(true))
    }

    /// How the Shoot opts in by itself.
    #[must_use]
    pub fn opted_in(&self) -> Option<FoundBy> {
        if self.opted_out() {
            return None;
        }
        if self.annotation(names::ANNOTATION_ENABLED) == Some("true") {
            return Some(FoundBy::Annotation);
        }
        let extension = self.spec.extensions.iter().any(|extension| extension.type_ == names::EXTENSION_TYPE);
        extension.then_some(FoundBy::Extension)
    }

    /// Whether a `ClusterDiscovery` takes this Shoot in. A Shoot that is being deleted is not.
    pub fn matches(&self, selector: &LabelSelector) -> Result<bool, InvalidSelector> {
        let empty = BTreeMap::new();
        let matches = selector::matches(selector, self.metadata.labels.as_ref().unwrap_or(&empty))?;
        Ok(matches && !self.opted_out() && self.metadata.deletion_timestamp.is_none())
    }

    /// Why a cluster cannot be onboarded now; `None` if it can.
    #[must_use]
    pub fn not_ready(&self) -> Option<NotReady> {
        let condition = |type_: &str| self.status.conditions.iter().find(|condition| condition.type_ == type_);
        if self.metadata.deletion_timestamp.is_some() {
            return Some(NotReady::Deleting);
        }
        if self.annotation("shoot.gardener.cloud/ignore") == Some("true") {
            return Some(NotReady::Ignored);
        }
        if self.status.is_hibernated || self.spec.hibernation.as_ref().and_then(|sleep| sleep.enabled) == Some(true) {
            return Some(NotReady::Hibernated);
        }
        if self.spec.provider.workers.is_empty() {
            return Some(NotReady::Workerless);
        }
        match &self.status.last_operation {
            None => return Some(NotReady::NotCreated),
            // Only while it is created, restored, migrated or deleted there may be no API server to talk to. A failing
            // or running reconciliation of a cluster that works is no reason to leave it without backup.
            Some(last) if last.type_ != "Reconcile" && last.state != "Succeeded" => {
                return Some(NotReady::Operation(last.type_.clone(), last.state.clone()));
            }
            Some(_) => {}
        }
        match condition("APIServerAvailable") {
            Some(condition) if condition.status == "False" => Some(NotReady::ApiServer(condition.message.clone())),
            // `Unknown` and `Progressing` say that Gardener does not know (its gardenlet may be away): the connection
            // itself finds out.
            Some(_) => None,
            None => Some(NotReady::ApiServer("not reported yet".to_owned())),
        }
    }

    /// The public issuer of the Shoot's service account tokens, once Gardener has published it. The entry
    /// `service-account-issuer` exists for every Shoot; only a managed issuer has the path that the discovery server
    /// serves (Gardener, `pkg/gardenlet/operation/botanist/advertisedaddresses.go`).
    #[must_use]
    pub fn managed_issuer(&self) -> Option<&str> {
        if !self.wants_managed_issuer() {
            return None;
        }
        let entry = self.status.advertised_addresses.iter().find(|entry| entry.name == names::SHOOT_ISSUER_ADDRESS)?;
        let managed =
            entry.url.starts_with("https://") && entry.url.contains("/projects/") && entry.url.ends_with("/issuer");
        managed.then_some(entry.url.as_str())
    }

    /// Whether the managed issuer was asked for.
    #[must_use]
    pub fn wants_managed_issuer(&self) -> bool {
        self.annotation(names::ANNOTATION_SHOOT_ISSUER) == Some(names::SHOOT_ISSUER_MANAGED)
    }
}

/// Why a Shoot cannot be onboarded now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotReady {
    /// It is being deleted.
    Deleting,
    /// Gardener was told to leave it alone.
    Ignored,
    /// It sleeps.
    Hibernated,
    /// It has no workers, so no applications.
    Workerless,
    /// Gardener has not begun to create it.
    NotCreated,
    /// An operation (type, state) that creates, moves or deletes it is not through.
    Operation(String, String),
    /// Its API server is not available; Gardener's message.
    ApiServer(String),
}

impl NotReady {
    /// One word for programs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Deleting => "ShootDeleting",
            Self::Ignored => "ShootIgnored",
            Self::Hibernated => "ShootHibernated",
            Self::Workerless => "ShootWorkerless",
            Self::NotCreated => "ShootNotCreated",
            Self::Operation(..) => "ShootOperationRunning",
            Self::ApiServer(_) => "ShootAPIServerUnavailable",
        }
    }

    /// For people.
    #[must_use]
    pub fn message(&self) -> String {
        match self {
            Self::Deleting => "the Shoot is being deleted".to_owned(),
            Self::Ignored => "the Shoot has annotation shoot.gardener.cloud/ignore=true".to_owned(),
            Self::Hibernated => "the Shoot is hibernated; it is taken in when it wakes up".to_owned(),
            Self::Workerless => "the Shoot has no workers, so no applications to back up".to_owned(),
            Self::NotCreated => "Gardener has not created the Shoot yet".to_owned(),
            Self::Operation(type_, state) => {
                format!("the Shoot's operation {type_} is {state}; waiting until it has succeeded")
            }
            Self::ApiServer(message) => format!("the Shoot's API server is not available: {message}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shoot(change: impl FnOnce(&mut serde_json::Value)) -> Shoot {
        let mut shoot = serde_json::json!({
            "metadata": {"name": "alpha", "namespace": "garden-demo", "labels": {"env": "prod"}, "annotations": {}},
            "spec": {"provider": {"workers": [{"name": "w"}]}},
            "status": {
                "hibernated": false,
                "lastOperation": {"type": "Create", "state": "Succeeded"},
                "conditions": [{"type": "APIServerAvailable", "status": "True"}],
            },
        });
        change(&mut shoot);
        serde_json::from_value(shoot).unwrap()
    }

    #[test]
    fn a_shoot_opts_in_by_annotation_or_by_extension() {
        let annotated = shoot(|shoot| shoot["metadata"]["annotations"][names::ANNOTATION_ENABLED] = "true".into());
        assert_eq!(annotated.opted_in(), Some(FoundBy::Annotation));
        let extended = shoot(|shoot| shoot["spec"]["extensions"] = serde_json::json!([{"type": "shoot-backup"}]));
        assert_eq!(extended.opted_in(), Some(FoundBy::Extension));
        assert_eq!(shoot(|_| ()).opted_in(), None);
    }

    #[test]
    fn opting_out_wins_over_every_opt_in() {
        let shoot = shoot(|shoot| {
            shoot["metadata"]["annotations"][names::ANNOTATION_ENABLED] = "false".into();
            shoot["spec"]["extensions"] = serde_json::json!([{"type": "shoot-backup"}]);
        });
        assert_eq!(shoot.opted_in(), None);
        assert_eq!(shoot.matches(&LabelSelector::default()), Ok(false));
    }

    #[test]
    fn a_hibernated_shoot_waits() {
        let asleep = shoot(|shoot| shoot["spec"]["hibernation"] = serde_json::json!({"enabled": true}));
        assert_eq!(asleep.not_ready(), Some(NotReady::Hibernated));
        let waking = shoot(|shoot| shoot["status"]["hibernated"] = true.into());
        assert_eq!(waking.not_ready(), Some(NotReady::Hibernated));
    }

    #[test]
    fn a_shoot_is_ready_once_created_and_also_while_a_reconciliation_fails() {
        assert_eq!(shoot(|_| ()).not_ready(), None);
        let failing = shoot(|shoot| {
            shoot["status"]["lastOperation"] = serde_json::json!({"type": "Reconcile", "state": "Error"});
        });
        assert_eq!(failing.not_ready(), None);
        let creating = shoot(|shoot| {
            shoot["status"]["lastOperation"] = serde_json::json!({"type": "Create", "state": "Processing"});
        });
        assert!(matches!(creating.not_ready(), Some(NotReady::Operation(..))));
        let workerless = shoot(|shoot| shoot["spec"]["provider"]["workers"] = serde_json::json!([]));
        assert_eq!(workerless.not_ready(), Some(NotReady::Workerless));
    }

    #[test]
    fn only_an_api_server_that_is_known_to_be_gone_is_not_tried() {
        let with = |status: &str| shoot(|shoot| shoot["status"]["conditions"][0]["status"] = status.into());
        assert!(matches!(with("False").not_ready(), Some(NotReady::ApiServer(_))));
        for unsure in ["Unknown", "Progressing", "True"] {
            assert_eq!(with(unsure).not_ready(), None, "{unsure}");
        }
        let unreported = shoot(|shoot| shoot["status"]["conditions"] = serde_json::json!([]));
        assert!(matches!(unreported.not_ready(), Some(NotReady::ApiServer(_))));
    }

    #[test]
    fn only_a_published_managed_issuer_counts() {
        let default = shoot(|shoot| {
            shoot["status"]["advertisedAddresses"] =
                serde_json::json!([{"name": "service-account-issuer", "url": "https://api.alpha.internal"}]);
            shoot["metadata"]["annotations"][names::ANNOTATION_SHOOT_ISSUER] = "managed".into();
        });
        assert_eq!(default.managed_issuer(), None);
        let url = "https://discovery.example.org/projects/demo/shoots/uid/issuer";
        let managed = shoot(|shoot| {
            shoot["status"]["advertisedAddresses"] =
                serde_json::json!([{"name": "service-account-issuer", "url": url}]);
            shoot["metadata"]["annotations"][names::ANNOTATION_SHOOT_ISSUER] = "managed".into();
        });
        assert_eq!(managed.managed_issuer(), Some(url));
    }
}
