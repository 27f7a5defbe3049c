//! What Gardener puts into every Shoot's cluster, as far as others build upon it.

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::garden_content::{KUBERNETES, PROJECT, REGION};

/// Rights of those who come with `shoots/adminkubeconfig` and `shoots/viewerkubeconfig`.
pub(crate) fn access() -> Vec<Value> {
    let binding = |group: &str, role: &str| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": group},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": group}],
        })
    };
    vec![
        binding("gardener.cloud:system:admins", "cluster-admin"),
        binding("gardener.cloud:project:admins", "cluster-admin"),
        binding("gardener.cloud:system:viewers", "view"),
        binding("gardener.cloud:project:viewers", "view"),
    ]
}

/// How a Shoot's cluster knows which one it is.
pub(crate) fn marks(cluster: Cluster, identity: &str) -> Vec<Value> {
    let map = |name: &str, data: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "kube-system"}, "data": data});
    vec![
        map("cluster-identity", json!({"cluster-identity": identity, "origin": "shoot"})),
        map(
            "shoot-info",
            json!({
                "projectName": PROJECT, "shootName": cluster.name(), "provider": "azure", "region": REGION,
                "kubernetesVersion": KUBERNETES,
            }),
        ),
    ]
}
