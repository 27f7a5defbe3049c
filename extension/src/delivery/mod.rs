//! The agent's manifests: rendered from the chart `charts/agent` with sentinels at build time, completed here with the
//! values of one cluster, applied, and compared with what is there.

pub mod apply;
pub mod drift;
pub mod quantity;

use std::sync::LazyLock;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The rendered chart; `make gen` writes it.
const TEMPLATE: &str = include_str!("agent.yaml");

/// Why manifests cannot be made or brought into a cluster.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The built-in template is broken: a defect of the build.
    #[error("failed to read the built-in manifests of the agent: {0}")]
    Template(String),
    /// A value would change the structure of the manifests.
    #[error(
        "failed to use {name} {value:?} in the agent's configuration: it has characters that are not allowed there"
    )]
    Value {
        /// Which value.
        name: &'static str,
        /// The value.
        value: String,
    },
    /// A request to the cluster.
    #[error(transparent)]
    Request(#[from] crate::request::Error),
    /// A definition was accepted and never served.
    #[error("failed to wait until CustomResourceDefinition {0} is established")]
    NotEstablished(String),
}

/// What differs from cluster to cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Values {
    /// Image of the agent.
    pub image: String,
    /// Name of the `ApplicationCluster`.
    pub cluster_name: String,
    /// Name of the project.
    pub project: String,
    /// Issuer of the cluster's tokens, empty while it is unknown.
    pub issuer: String,
    /// Client id of the default identity, or empty.
    pub client_id: String,
    /// Tenant id of the default identity, or empty.
    pub tenant_id: String,
    /// Additional CA certificates, PEM.
    pub extra_ca: String,
    /// Level of the agent's log.
    pub log_level: String,
}

impl Values {
    /// Each sentinel with its value.
    fn sentinels(&self) -> [(&'static str, &str); 8] {
        [
            ("@@image@@", &self.image),
            ("@@clusterName@@", &self.cluster_name),
            ("@@project@@", &self.project),
            ("@@issuer@@", &self.issuer),
            ("@@clientID@@", &self.client_id),
            ("@@tenantID@@", &self.tenant_id),
            ("@@extraCA@@", &self.extra_ca),
            ("@@logLevel@@", &self.log_level),
        ]
    }

    /// Refuses what would break out of a quoted text in the agent's configuration file. The issuer of a cluster that is
    /// no Shoot is given by people, or by that cluster.
    fn check(&self) -> Result<(), Error> {
        let checked = [
            ("image", &self.image),
            ("cluster name", &self.cluster_name),
            ("project", &self.project),
            ("issuer", &self.issuer),
            ("client id", &self.client_id),
            ("tenant id", &self.tenant_id),
            ("log level", &self.log_level),
        ];
        for (name, value) in checked {
            let safe = |character: char| character.is_ascii_alphanumeric() || "-._~:/?&=%@+,[]".contains(character);
            // A sentinel in a value would be replaced by the next value.
            if !value.chars().all(safe) || value.contains("@@") {
                return Err(Error::Value { name, value: value.clone() });
            }
        }
        Ok(())
    }

    /// Digest of the configuration: changes roll the agent's pod.
    fn config_digest(&self) -> String {
        let mut hasher = Sha256::new();
        for (name, value) in self.sentinels().iter().filter(|(name, _)| *name != "@@image@@") {
            hasher.update(name.as_bytes());
            hasher.update((value.len() as u64).to_be_bytes());
            hasher.update(value.as_bytes());
        }
        hex::encode(hasher.finalize())
    }

    /// Digest of all that is delivered: another version, image or configuration is another digest.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut hasher = Sha256::new();
        hasher.update(TEMPLATE.as_bytes());
        hasher.update((self.image.len() as u64).to_be_bytes());
        hasher.update(self.image.as_bytes());
        hasher.update(self.config_digest().as_bytes());
        hex::encode(hasher.finalize())
    }

    /// The manifests of one cluster, in the order in which they have to be applied.
    pub fn render(&self) -> Result<Vec<Manifest>, Error> {
        self.check()?;
        let documents = DOCUMENTS.as_ref().map_err(|message| Error::Template(message.clone()))?;
        let digest = self.config_digest();
        let mut replacements = self.sentinels().to_vec();
        replacements.push(("@@configChecksum@@", &digest));
        let mut manifests = Vec::with_capacity(documents.len());
        for document in documents {
            let mut document = document.clone();
            replace(&mut document, &replacements);
            manifests.push(Manifest::new(document)?);
        }
        manifests.sort_by_key(|manifest| rank(&manifest.resource.kind));
        Ok(manifests)
    }
}

static DOCUMENTS: LazyLock<Result<Vec<Value>, String>> = LazyLock::new(|| {
    let documents: Vec<Value> = serde_saphyr::from_multiple(TEMPLATE).map_err(|error| error.to_string())?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
});

fn replace(value: &mut Value, replacements: &[(&str, &str)]) {
    match value {
        Value::String(text) if text.contains("@@") => {
            for (sentinel, replacement) in replacements {
                if text.contains(sentinel) {
                    *text = text.replace(sentinel, replacement);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| replace(item, replacements)),
        Value::Object(fields) => fields.values_mut().for_each(|field| replace(field, replacements)),
        _ => {}
    }
}

/// Definitions first, then the namespace and what pods need, pods last.
fn rank(kind: &str) -> u8 {
    match kind {
        "CustomResourceDefinition" => 0,
        "Namespace" => 1,
        "ServiceAccount" | "ConfigMap" => 2,
        "ClusterRole" | "Role" => 3,
        "ClusterRoleBinding" | "RoleBinding" => 4,
        "Deployment" => 6,
        _ => 5,
    }
}

/// One object to deliver.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// Its kind.
    pub resource: ApiResource,
    /// Its name and namespace.
    pub metadata: ObjectMeta,
    /// All of it.
    pub document: Value,
}

impl Manifest {
    fn new(document: Value) -> Result<Self, Error> {
        let object = DynamicObject::deserialize(&document).map_err(|error| Error::Template(error.to_string()))?;
        let types = object.types.ok_or_else(|| Error::Template("a document has no kind".to_owned()))?;
        let kind = GroupVersionKind::try_from(&types).map_err(|error| Error::Template(error.to_string()))?;
        if object.metadata.name.is_none() {
            return Err(Error::Template(format!("a {} has no name", types.kind)));
        }
        Ok(Self { resource: ApiResource::from_gvk(&kind), metadata: object.metadata, document })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// For people: `Deployment shoot-backup/shoot-backup-agent`.
    #[must_use]
    pub fn title(&self) -> String {
        match &self.metadata.namespace {
            Some(namespace) => format!("{} {namespace}/{}", self.resource.kind, self.name()),
            None => format!("{} {}", self.resource.kind, self.name()),
        }
    }

    /// Access to its kind.
    #[must_use]
    pub fn api(&self, client: &kube::Client) -> kube::Api<DynamicObject> {
        match &self.metadata.namespace {
            Some(namespace) => kube::Api::namespaced_with(client.clone(), namespace, &self.resource),
            None => kube::Api::all_with(client.clone(), &self.resource),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoot_backup_api::names;

    fn values() -> Values {
        Values {
            image: "registry.example.org/agent:1".to_owned(),
            cluster_name: "alpha".to_owned(),
            project: "demo".to_owned(),
            issuer: "https://discovery.example.org/projects/demo/shoots/1/issuer".to_owned(),
            client_id: String::new(),
            tenant_id: String::new(),
            extra_ca: "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n".to_owned(),
            log_level: "info".to_owned(),
        }
    }

    #[test]
    fn every_sentinel_is_replaced() {
        let manifests = values().render().unwrap();
        for manifest in &manifests {
            let text = manifest.document.to_string();
            assert!(!text.contains("@@"), "{}: {text}", manifest.title());
        }
    }

    #[test]
    fn definitions_come_first_and_pods_last() {
        let manifests = values().render().unwrap();
        let kinds: Vec<&str> = manifests.iter().map(|manifest| manifest.resource.kind.as_str()).collect();
        assert_eq!(kinds.first(), Some(&"CustomResourceDefinition"));
        assert_eq!(kinds.last(), Some(&"Deployment"));
    }

    #[test]
    fn nothing_that_is_delivered_is_a_secret() {
        assert!(values().render().unwrap().iter().all(|manifest| manifest.resource.kind != "Secret"));
    }

    #[test]
    fn the_garden_account_and_the_agent_are_delivered() {
        let titles: Vec<String> = values().render().unwrap().iter().map(Manifest::title).collect();
        for name in [names::AGENT_NAME, names::GARDEN_ACCOUNT] {
            assert!(titles.contains(&format!("ServiceAccount {}/{name}", names::AGENT_NAMESPACE)), "{titles:?}");
        }
        assert!(titles.contains(&format!("Namespace {}", names::AGENT_NAMESPACE)));
    }

    #[test]
    fn another_image_or_configuration_is_another_digest() {
        let digest = values().digest();
        assert_eq!(digest, values().digest());
        assert_ne!(digest, Values { image: "registry.example.org/agent:2".to_owned(), ..values() }.digest());
        assert_ne!(digest, Values { issuer: String::new(), ..values() }.digest());
        assert_ne!(digest, Values { log_level: "debug".to_owned(), ..values() }.digest());
    }

    #[test]
    fn a_value_cannot_break_out_of_its_place() {
        for issuer in ["https://x\nlogLevel: trace", "https://x'", "https://@@extraCA@@", "https://x #"] {
            let values = Values { issuer: issuer.to_owned(), ..values() };
            assert!(matches!(values.render(), Err(Error::Value { name: "issuer", .. })), "{issuer}");
        }
    }
}
