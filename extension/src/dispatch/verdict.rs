//! Whether an operation can be handed to its cluster: checks in the garden, before anything reaches the cluster. Pure.

use serde_json::Value;
use shoot_backup_api::application_cluster::{ApplicationClusterPhase as Phase, condition};
use shoot_backup_api::restore::RestoreSource;
use shoot_backup_api::{
    ApplicationCluster, Backup, BackupLocation, Operation as _, OperationPhase, Restore, conditions,
};

use super::{is_left, selects};

/// What becomes of an operation.
#[derive(Debug)]
pub enum Verdict {
    /// It goes to the cluster, after the location.
    Go {
        /// Spec of the mirror.
        spec: Value,
        /// The location that it needs there.
        location: Box<BackupLocation>,
    },
    /// It cannot go now, and may later.
    Wait(Why),
    /// It never can as it is.
    Fail(Why),
}

/// A reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    /// One word for programs.
    pub reason: &'static str,
    /// For people: which object, and what to do.
    pub message: String,
}

impl Why {
    /// A reason.
    #[must_use]
    pub fn new(reason: &'static str, message: String) -> Self {
        Self { reason, message }
    }
}

/// Whether a cluster takes new work.
pub fn cluster(name: &str, cluster: Option<&ApplicationCluster>) -> Result<(), Verdict> {
    let Some(cluster) = cluster else {
        let message = format!(
            "ApplicationCluster {name} does not exist in this namespace: opt the Shoot in, or correct the name"
        );
        return Err(Verdict::Fail(Why::new("ClusterNotFound", message)));
    };
    let status = cluster.status.clone().unwrap_or_default();
    let ready = conditions::find(&status.conditions, condition::READY)
        .map_or_else(|| "it was not looked at yet".to_owned(), |ready| ready.message.clone());
    if is_left(cluster) {
        let message = format!("ApplicationCluster {name} is {:?}: {ready}; opt the Shoot in again", status.phase);
        return Err(Verdict::Fail(Why::new("ClusterNotManaged", message)));
    }
    if status.phase != Phase::Ready {
        let message = format!("waiting for ApplicationCluster {name}, which is {:?}: {ready}", status.phase);
        return Err(Verdict::Wait(Why::new("ClusterNotReady", message)));
    }
    Ok(())
}

/// Whether the cluster may use the location.
fn location(
    name: &str,
    location: Option<&BackupLocation>,
    cluster: &ApplicationCluster,
) -> Result<Box<BackupLocation>, Verdict> {
    let Some(location) = location.filter(|location| location.metadata.deletion_timestamp.is_none()) else {
        let message = format!("BackupLocation {name} does not exist in this namespace: create it, or correct the name");
        return Err(Verdict::Fail(Why::new("LocationNotFound", message)));
    };
    let cluster_name = cluster.metadata.name.clone().unwrap_or_default();
    if !selects(location, cluster) {
        let message = format!(
            "BackupLocation {name} does not select ApplicationCluster {cluster_name}: add it to spec.clusters of the \
             location"
        );
        return Err(Verdict::Fail(Why::new("LocationNotForCluster", message)));
    }
    if super::location_status::identity(location, cluster).is_none() {
        let message = format!(
            "neither BackupLocation {name} nor ApplicationCluster {cluster_name} names an identity: set spec.identity"
        );
        return Err(Verdict::Fail(Why::new("NoIdentity", message)));
    }
    Ok(Box::new(location.clone()))
}

fn go(spec: &impl serde::Serialize, location: Box<BackupLocation>) -> Verdict {
    match serde_json::to_value(spec) {
        Ok(spec) => Verdict::Go { spec, location },
        Err(error) => Verdict::Fail(Why::new("SpecUnusable", format!("the spec cannot be written: {error}"))),
    }
}

/// Decides about a backup.
#[must_use]
pub fn backup(backup: &Backup, found: Option<&BackupLocation>, cluster: &ApplicationCluster) -> Verdict {
    match location(&backup.spec.location, found, cluster) {
        Ok(location) => go(&backup.spec, location),
        Err(verdict) => verdict,
    }
}

/// Where the backup of a restore is.
pub fn source(restore: &Restore, backup: Option<&Backup>) -> Result<RestoreSource, Verdict> {
    if let Some(source) = &restore.spec.source {
        return Ok(source.clone());
    }
    let name = restore.spec.backup.clone().unwrap_or_default();
    let Some(backup) = backup else {
        let message = format!(
            "Backup {name} does not exist in this namespace: correct the name, or set spec.source for a backup whose \
             object is gone"
        );
        return Err(Verdict::Fail(Why::new("BackupNotFound", message)));
    };
    let phase = backup.phase();
    let result = backup.status.as_ref().and_then(|status| status.result.as_ref());
    match (phase, result) {
        (OperationPhase::Completed | OperationPhase::PartiallyFailed, Some(result)) => Ok(RestoreSource {
            location: backup.spec.location.clone(),
            cluster_uid: result.cluster_uid.clone(),
            backup: format!("{name}.{}", backup.metadata.uid.clone().unwrap_or_default()),
        }),
        (OperationPhase::Pending | OperationPhase::InProgress, _) => {
            let message = format!("waiting for Backup {name}, which is {phase}");
            Err(Verdict::Wait(Why::new("BackupNotFinished", message)))
        }
        _ => {
            let message = format!("Backup {name} is {phase} and has nothing to restore: restore another one");
            Err(Verdict::Fail(Why::new("BackupUnusable", message)))
        }
    }
}

/// Decides about a restore.
#[must_use]
pub fn restore(
    restore: &Restore,
    source: RestoreSource,
    found: Option<&BackupLocation>,
    cluster: &ApplicationCluster,
) -> Verdict {
    match location(&source.location, found, cluster) {
        Ok(location) => {
            let mut spec = restore.spec.clone();
            spec.source = Some(source);
            go(&spec, location)
        }
        Err(verdict) => verdict,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::tests_support;
    use serde_json::json;
    use shoot_backup_api::ApplicationClusterStatus;

    const ID: Option<&str> = Some("id");

    fn with_phase(phase: Phase) -> ApplicationCluster {
        let mut cluster = tests_support::cluster("alpha");
        cluster.status = Some(ApplicationClusterStatus { phase, ..Default::default() });
        cluster
    }

    fn a_backup(phase: &str) -> Backup {
        serde_json::from_value(json!({
            "apiVersion": "x", "kind": "Backup",
            "metadata": {"name": "nightly", "namespace": "garden-demo", "uid": "b-uid"},
            "spec": {"cluster": "alpha", "location": "main", "namespaces": ["shop"]},
            "status": {"phase": phase, "result": {"clusterUID": "c-uid"}},
        }))
        .unwrap()
    }

    fn a_restore() -> Restore {
        serde_json::from_value(json!({
            "apiVersion": "x", "kind": "Restore", "metadata": {"name": "r", "namespace": "garden-demo"},
            "spec": {"backup": "nightly", "cluster": "beta"},
        }))
        .unwrap()
    }

    fn failed(verdict: &Verdict) -> &Why {
        match verdict {
            Verdict::Fail(why) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_operation_waits_for_a_cluster_and_fails_without_one() {
        assert!(matches!(cluster("alpha", Some(&with_phase(Phase::Waiting))), Err(Verdict::Wait(_))));
        assert!(matches!(cluster("alpha", Some(&with_phase(Phase::Unreachable))), Err(Verdict::Wait(_))));
        assert!(cluster("alpha", Some(&with_phase(Phase::Ready))).is_ok());
        let missing = cluster("alpha", None).unwrap_err();
        assert!(failed(&missing).message.contains("ApplicationCluster alpha"));
        for phase in [Phase::Unmanaged, Phase::Removed] {
            let left = cluster("alpha", Some(&with_phase(phase))).unwrap_err();
            assert_eq!(failed(&left).reason, "ClusterNotManaged");
        }
    }

    #[test]
    fn a_backup_needs_a_location_that_selects_its_cluster_and_an_identity() {
        let alpha = with_phase(Phase::Ready);
        let missing = backup(&a_backup("Pending"), None, &alpha);
        assert!(failed(&missing).message.contains("BackupLocation main"));
        let mut other = tests_support::location("main", ID);
        other.spec.clusters.names = vec!["beta".to_owned()];
        assert_eq!(failed(&backup(&a_backup("Pending"), Some(&other), &alpha)).reason, "LocationNotForCluster");
        let without = tests_support::location("main", None);
        assert_eq!(failed(&backup(&a_backup("Pending"), Some(&without), &alpha)).reason, "NoIdentity");
        let good = tests_support::location("main", ID);
        assert!(matches!(backup(&a_backup("Pending"), Some(&good), &alpha), Verdict::Go { .. }));
    }

    #[test]
    fn a_restore_knows_where_its_backup_is() {
        let source = source(&a_restore(), Some(&a_backup("PartiallyFailed"))).unwrap();
        assert_eq!(source.backup, "nightly.b-uid");
        assert_eq!(source.cluster_uid, "c-uid");
        let location = tests_support::location("main", ID);
        match restore(&a_restore(), source, Some(&location), &with_phase(Phase::Ready)) {
            Verdict::Go { spec, .. } => assert_eq!(spec["source"]["location"], "main"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_restore_waits_for_a_backup_that_runs_and_fails_with_one_that_failed() {
        let running = source(&a_restore(), Some(&a_backup("InProgress"))).unwrap_err();
        assert!(matches!(running, Verdict::Wait(_)));
        let broken = source(&a_restore(), Some(&a_backup("Failed"))).unwrap_err();
        assert_eq!(failed(&broken).reason, "BackupUnusable");
        let missing = source(&a_restore(), None).unwrap_err();
        assert!(failed(&missing).message.contains("Backup nightly"));
    }
}
