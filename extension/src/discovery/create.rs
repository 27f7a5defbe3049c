//! Makes an `ApplicationCluster` of a Shoot.

use std::collections::BTreeMap;

use kube::Api;
use kube::api::PostParams;
use shoot_backup_api::application_cluster::{ApplicationClusterSpec, ShootReference};
use shoot_backup_api::shoot::Shoot;
use shoot_backup_api::{ApplicationCluster, ClusterDiscovery, names};

use crate::context::Context;
use crate::request::{self, Kind, timed};

const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// Whether discovery made the cluster, and not a person.
#[must_use]
pub fn is_ours(cluster: &ApplicationCluster) -> bool {
    cluster.metadata.labels.as_ref().and_then(|labels| labels.get(LABEL_MANAGED_BY)).map(String::as_str)
        == Some(names::MANAGED_BY)
}

/// The reference to a Shoot of the own garden.
#[must_use]
pub fn own_reference(shoot: &str) -> ShootReference {
    ShootReference { name: shoot.to_owned(), discovery: None, namespace: None }
}

/// The cluster of a Shoot. It has the labels that the Shoot has now, so that a location can select it by them; not
/// those that Gardener writes for itself.
#[must_use]
pub fn cluster(
    namespace: &str,
    name: &str,
    reference: ShootReference,
    shoot: Option<&Shoot>,
    discovery: Option<&ClusterDiscovery>,
) -> ApplicationCluster {
    let spec = ApplicationClusterSpec {
        shoot_ref: Some(reference),
        kubeconfig_secret_ref: None,
        issuer: None,
        identity: discovery.and_then(|discovery| discovery.spec.identity.clone()),
    };
    let mut cluster = ApplicationCluster::new(name, spec);
    cluster.metadata.namespace = Some(namespace.to_owned());
    let mut labels: BTreeMap<String, String> =
        shoot.and_then(|shoot| shoot.metadata.labels.clone()).unwrap_or_default();
    labels.retain(|key, _| !key.split('/').next().unwrap_or_default().ends_with("gardener.cloud"));
    labels.insert(LABEL_MANAGED_BY.to_owned(), names::MANAGED_BY.to_owned());
    cluster.metadata.labels = Some(labels);
    if let Some(location) = discovery.and_then(|discovery| discovery.spec.location.clone()) {
        cluster.metadata.annotations = Some(BTreeMap::from([(names::ANNOTATION_LOCATION.to_owned(), location)]));
    }
    cluster
}

/// Creates it in the garden. One that is there already is left as it is.
pub async fn create(context: &Context, cluster: &ApplicationCluster) -> Result<(), request::Error> {
    let namespace = cluster.metadata.namespace.clone().unwrap_or_default();
    let name = cluster.metadata.name.clone().unwrap_or_default();
    let api: Api<ApplicationCluster> = Api::namespaced(context.garden.clone(), &namespace);
    let parameters = PostParams { field_manager: Some(names::FIELD_MANAGER.to_owned()), ..PostParams::default() };
    match timed(format!("create ApplicationCluster {name}"), api.create(&parameters, cluster)).await {
        Ok(created) => {
            tracing::info!(namespace, cluster = name, "took a Shoot in");
            context.events.normal(&created, "Discovered", "the Shoot was taken in").await;
            Ok(())
        }
        Err(error) if error.kind() == Kind::Conflict => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::selection::tests::{discovery, shoot};
    use serde_json::json;

    #[test]
    fn a_cluster_has_the_labels_of_its_shoot_and_the_defaults_of_its_discovery() {
        let shoot = shoot("s", &json!({"env": "prod", "shoot.gardener.cloud/status": "healthy"}), &json!({}));
        let mut discovery = discovery("a", "prod");
        discovery.spec.location = Some("main".to_owned());
        let cluster = cluster("garden-demo", "s", own_reference("s"), Some(&shoot), Some(&discovery));
        let labels = cluster.metadata.labels.clone().unwrap();
        assert_eq!(labels.get("env").map(String::as_str), Some("prod"));
        assert!(!labels.contains_key("shoot.gardener.cloud/status"));
        assert!(is_ours(&cluster));
        assert_eq!(cluster.metadata.annotations.unwrap().get(names::ANNOTATION_LOCATION).unwrap(), "main");
    }
}
