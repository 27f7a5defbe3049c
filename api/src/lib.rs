//! Custom resources, names and pure decisions of shoot-backup: no client, no clock, no input or output.
//!
//! Every kind is of group `shootbackup.extensions.gardener.cloud/v1alpha1`. In the garden all kinds live in the
//! project's namespace; `BackupLocation`, `Backup` and `Restore` are mirrored into the application cluster's
//! namespace [`names::AGENT_NAMESPACE`], where the agent works on them.

pub mod application_cluster;
pub mod backup;
pub mod backup_location;
pub mod cluster_discovery;
pub mod conditions;
pub mod duration;
pub mod manifest;
pub mod names;
pub mod operation;
pub mod references;
pub mod resource_filter;
pub mod restore;
pub mod selector;
pub mod shoot;

pub use application_cluster::{
    ApplicationCluster, ApplicationClusterPhase, ApplicationClusterSpec, ApplicationClusterStatus,
};
pub use backup::{Backup, BackupSpec, BackupStatus};
pub use backup_location::{BackupLocation, BackupLocationSpec, BackupLocationStatus};
pub use cluster_discovery::{ClusterDiscovery, ClusterDiscoverySpec, ClusterDiscoveryStatus};
pub use operation::{Operation, OperationPhase};
pub use restore::{Restore, RestoreSpec, RestoreStatus};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

/// The definitions of all kinds, in the order in which people meet them.
#[must_use]
pub fn custom_resource_definitions() -> Vec<CustomResourceDefinition> {
    vec![ClusterDiscovery::crd(), ApplicationCluster::crd(), BackupLocation::crd(), Backup::crd(), Restore::crd()]
}

/// The kinds that the agent works on in an application cluster.
#[must_use]
pub fn agent_custom_resource_definitions() -> Vec<CustomResourceDefinition> {
    vec![BackupLocation::crd(), Backup::crd(), Restore::crd()]
}
