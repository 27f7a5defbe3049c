//! Carries instructions into the clusters and their status back.
//!
//! Everything stays within one project's namespace: an object can only ever name clusters, locations and backups next to
//! it. A cluster that does not answer is shown, and not waited for.

pub mod backup;
pub mod location;
pub mod location_status;
pub mod merge;
pub mod mirror;
pub mod operation;
pub mod orphans;
pub mod restore;
pub mod verdict;

use kube::ResourceExt;
use shoot_backup_api::application_cluster::ApplicationClusterPhase as Phase;
use shoot_backup_api::{ApplicationCluster, BackupLocation, names, selector};

use crate::request;

/// Why an instruction could not be carried.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A request to the garden failed.
    #[error("{0}")]
    Garden(#[source] request::Error),
    /// A request to the cluster failed.
    #[error("{0}")]
    Cluster(#[source] request::Error),
    /// The process is about to end.
    #[error(transparent)]
    Ended(#[from] crate::context::Ended),
}

impl Error {
    /// A bounded label for metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Garden(error) | Self::Cluster(error) => error.kind().label(),
            Self::Ended(_) => "ended",
        }
    }
}

/// Whether a location may be used by a cluster of its project: by name, by label, because neither is said, or because the
/// discovery that found the cluster says so. A selector that cannot be read selects nothing.
#[must_use]
pub fn selects(location: &BackupLocation, cluster: &ApplicationCluster) -> bool {
    let selection = &location.spec.clusters;
    let associated = cluster.annotations().get(names::ANNOTATION_LOCATION) == location.metadata.name.as_ref();
    let everyone = selection.names.is_empty() && selection.selector.is_none();
    everyone
        || associated
        || selection.names.contains(&cluster.name_any())
        || selection.selector.as_ref().is_some_and(|wanted| selector::matches(wanted, cluster.labels()) == Ok(true))
}

/// Whether nobody looks after the cluster (any more).
#[must_use]
pub fn is_left(cluster: &ApplicationCluster) -> bool {
    let phase = cluster.status.as_ref().map(|status| status.phase).unwrap_or_default();
    matches!(phase, Phase::Unmanaged | Phase::Removed)
}

/// Objects for tests.
#[cfg(test)]
pub(crate) mod tests_support {
    use super::*;
    use serde_json::json;

    /// A cluster of the project `garden-demo`.
    pub(crate) fn cluster(name: &str) -> ApplicationCluster {
        serde_json::from_value(json!({
            "apiVersion": "shootbackup.extensions.gardener.cloud/v1alpha1", "kind": "ApplicationCluster",
            "metadata": {"name": name, "namespace": "garden-demo", "uid": format!("uid-{name}"), "generation": 1,
                         "labels": {"env": "prod"}},
            "spec": {"shootRef": {"name": name}},
        }))
        .unwrap()
    }

    /// A location for all clusters, with an identity or without.
    pub(crate) fn location(name: &str, client_id: Option<&str>) -> BackupLocation {
        let identity = client_id.map(|id| json!({"clientID": id, "tenantID": "tenant"}));
        serde_json::from_value(json!({
            "apiVersion": "shootbackup.extensions.gardener.cloud/v1alpha1", "kind": "BackupLocation",
            "metadata": {"name": name, "namespace": "garden-demo", "uid": format!("uid-{name}"), "generation": 1},
            "spec": {"account": "account", "container": "backups", "identity": identity},
        }))
        .unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::tests_support::{cluster, location};
    use super::*;
    use serde_json::json;

    #[test]
    fn a_location_that_names_no_cluster_is_for_all_of_the_project() {
        assert!(selects(&location("main", None), &cluster("alpha")));
    }

    #[test]
    fn a_location_selects_by_name_or_by_label() {
        let mut location = location("main", None);
        location.spec.clusters.names = vec!["alpha".to_owned()];
        assert!(selects(&location, &cluster("alpha")));
        assert!(!selects(&location, &cluster("beta")));
        location.spec.clusters.selector = serde_json::from_value(json!({"matchLabels": {"env": "prod"}})).unwrap();
        assert!(selects(&location, &cluster("beta")));
    }

    #[test]
    fn a_cluster_is_associated_with_the_location_of_its_discovery() {
        let mut location = location("main", None);
        location.spec.clusters.names = vec!["alpha".to_owned()];
        let mut beta = cluster("beta");
        beta.annotations_mut().insert(names::ANNOTATION_LOCATION.to_owned(), "main".to_owned());
        assert!(selects(&location, &beta));
    }
}
