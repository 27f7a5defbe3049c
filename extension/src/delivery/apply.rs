//! Brings manifests into a cluster, and finds out what of them was changed or deleted there.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::time::Duration;

use kube::Client;
use kube::api::{DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};
use shoot_backup_api::{conditions, names};

use super::{Error, Manifest, drift};
use crate::request::{self, Kind, timed, timed_opt};

const ESTABLISHED_EVERY: Duration = Duration::from_millis(300);
const ESTABLISHED_TRIES: u32 = 100;

/// Kinds that the restricted account may read. What it may not read is checked when the agent is delivered only.
const READABLE: &[&str] = &[
    "CustomResourceDefinition",
    "Namespace",
    "ClusterRole",
    "ClusterRoleBinding",
    "Deployment",
    "ConfigMap",
    "ServiceAccount",
    "Role",
    "RoleBinding",
    "NetworkPolicy",
];

/// Fields that a cluster's API server writes differently from how they were applied, learnt from its own answers: they
/// are no drift there. By UID of the `ApplicationCluster`: what one cluster does is no excuse for another.
#[derive(Debug, Default)]
pub struct Normalised {
    fields: Mutex<HashMap<String, HashSet<String>>>,
}

/// A bound for one cluster that honest servers never reach.
const MAX_NORMALISED: usize = 256;

impl Normalised {
    fn learn(&self, cluster: &str, field: String) {
        if let Ok(mut fields) = self.fields.lock() {
            let fields = fields.entry(cluster.to_owned()).or_default();
            if fields.len() < MAX_NORMALISED {
                fields.insert(field);
            }
        }
    }

    fn knows(&self, cluster: &str, field: &str) -> bool {
        self.fields.lock().is_ok_and(|fields| fields.get(cluster).is_some_and(|fields| fields.contains(field)))
    }

    fn forget(&self, cluster: &str) {
        self.retain(|known| known != cluster);
    }

    /// Forgets clusters that are gone.
    pub fn retain(&self, exists: impl Fn(&str) -> bool) {
        if let Ok(mut fields) = self.fields.lock() {
            fields.retain(|cluster, _| exists(cluster));
        }
    }
}

/// Applies all manifests by server-side apply, definitions first, and notes digest and owner on the namespace last: a
/// delivery that was cut off has no digest and is made again.
pub async fn deliver(
    client: &Client,
    manifests: &[Manifest],
    digest: &str,
    owner: &str,
    normalised: &Normalised,
) -> Result<(), Error> {
    normalised.forget(owner);
    for manifest in manifests {
        apply(client, manifest, &manifest.document, owner, normalised).await?;
        if manifest.resource.kind == "CustomResourceDefinition" {
            established(client, manifest).await?;
        }
    }
    for namespace in manifests.iter().filter(|manifest| is_agent_namespace(manifest)) {
        let mut document = namespace.document.clone();
        document["metadata"]["annotations"][names::ANNOTATION_DELIVERED] = json!(digest);
        document["metadata"]["annotations"][names::ANNOTATION_ORIGIN_CLUSTER] = json!(owner);
        apply(client, namespace, &document, owner, normalised).await?;
    }
    Ok(())
}

fn is_agent_namespace(manifest: &Manifest) -> bool {
    manifest.resource.kind == "Namespace" && manifest.name() == names::AGENT_NAMESPACE
}

async fn apply(
    client: &Client,
    manifest: &Manifest,
    document: &Value,
    cluster: &str,
    normalised: &Normalised,
) -> Result<(), Error> {
    let api = manifest.api(client);
    let parameters = PatchParams::apply(names::FIELD_MANAGER).force();
    let patch = Patch::Apply(document);
    let applied = timed(format!("apply {}", manifest.title()), api.patch(manifest.name(), &parameters, &patch)).await?;
    for field in differences(document, &applied) {
        tracing::debug!(object = manifest.title(), field, "the API server writes a field in its own way");
        normalised.learn(cluster, format!("{}: {field}", manifest.title()));
    }
    Ok(())
}

/// The fields in which a live object differs from what was applied.
fn differences(document: &Value, live: &DynamicObject) -> Vec<String> {
    serde_json::to_value(live).map(|live| drift::differences(document, &live)).unwrap_or_default()
}

async fn established(client: &Client, manifest: &Manifest) -> Result<(), Error> {
    let api = manifest.api(client);
    for _ in 0..ESTABLISHED_TRIES {
        let object = timed(format!("get {}", manifest.title()), api.get(manifest.name())).await?;
        let conditions = serde_json::from_value(object.data["status"]["conditions"].clone()).unwrap_or_default();
        let conditions: Vec<Condition> = conditions;
        if conditions.iter().any(|condition| condition.type_ == "Established" && condition.status == "True") {
            return Ok(());
        }
        tokio::time::sleep(ESTABLISHED_EVERY).await;
    }
    Err(Error::NotEstablished(manifest.name().to_owned()))
}

/// A condition of a definition: it has no `observedGeneration`, and may lack a message.
#[derive(serde::Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    type_: String,
    status: String,
}

/// What the namespace says of the last delivery.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Digest of what was delivered; `None` if that was cut off.
    pub digest: Option<String>,
    /// UID of the `ApplicationCluster` through which it was.
    pub owner: Option<String>,
}

/// What was delivered last; nothing if the namespace is gone.
pub async fn delivered(client: &Client) -> Result<Delivered, request::Error> {
    let namespaces: kube::Api<k8s_openapi::api::core::v1::Namespace> = kube::Api::all(client.clone());
    let namespace =
        timed_opt(format!("get Namespace {}", names::AGENT_NAMESPACE), namespaces.get(names::AGENT_NAMESPACE)).await?;
    let mut annotations = namespace.and_then(|namespace| namespace.metadata.annotations).unwrap_or_default();
    Ok(Delivered {
        digest: annotations.remove(names::ANNOTATION_DELIVERED),
        owner: annotations.remove(names::ANNOTATION_ORIGIN_CLUSTER),
    })
}

/// What was changed or deleted since it was delivered, for people; empty if nothing was. With `restricted`, only what
/// the restricted account may read is compared, and an answer of "forbidden" there is itself such a change: somebody
/// took its rights away.
pub async fn drifted(
    client: &Client,
    manifests: &[Manifest],
    restricted: bool,
    cluster: &str,
    normalised: &Normalised,
) -> Result<Vec<String>, request::Error> {
    let mut found = Vec::new();
    for manifest in manifests {
        if restricted && !READABLE.contains(&manifest.resource.kind.as_str()) {
            continue;
        }
        let api = manifest.api(client);
        match timed_opt(format!("get {}", manifest.title()), api.get(manifest.name())).await {
            Ok(None) => found.push(format!("{} is missing", manifest.title())),
            Ok(Some(live)) if live.metadata.deletion_timestamp.is_some() => {
                found.push(format!("{} is being deleted", manifest.title()));
            }
            Ok(Some(live)) => {
                let fields = differences(&manifest.document, &live);
                let news = |field: &&String| !normalised.knows(cluster, &format!("{}: {field}", manifest.title()));
                if let Some(field) = fields.iter().find(news) {
                    found.push(format!("{} was changed at {field}", manifest.title()));
                }
            }
            Err(error) if restricted && error.kind() == Kind::Refused => {
                found.push(format!("{} can no longer be read: {error}", manifest.title()));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// The names of what drifted in one text of bounded length.
#[must_use]
pub fn describe(found: &[String]) -> String {
    conditions::truncate(&found.join("; "), 800).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_cluster_writes_in_its_own_way_is_drift_in_another() {
        let normalised = Normalised::default();
        normalised.learn("a", "Deployment x: spec.y".to_owned());
        assert!(normalised.knows("a", "Deployment x: spec.y"));
        assert!(!normalised.knows("a", "Deployment x: spec.z"));
        assert!(!normalised.knows("b", "Deployment x: spec.y"));
        normalised.forget("a");
        assert!(!normalised.knows("a", "Deployment x: spec.y"));
    }
}
