//! The status of a `BackupLocation`, put together from its clusters. Pure.

use jiff::Timestamp;
use serde_json::Value;
use shoot_backup_api::application_cluster::condition;
use shoot_backup_api::backup_location::{ClusterSelection, LocationCluster, LocationPhase};
use shoot_backup_api::conditions::{self, Truth};
use shoot_backup_api::references::AzureIdentity;
use shoot_backup_api::{ApplicationCluster, BackupLocation, BackupLocationStatus, names};

use super::mirror;
use crate::onboarding::status::AGENT_STARTING;

/// Clusters that a status keeps: what the kind allows.
const MAX_CLUSTERS: usize = 256;
const READY: &str = "Ready";

/// The identity that a cluster uses at a location: the location's, else the cluster's own.
#[must_use]
pub fn identity(location: &BackupLocation, cluster: &ApplicationCluster) -> Option<AzureIdentity> {
    location.spec.identity.clone().or_else(|| cluster.spec.identity.clone())
}

/// Spec of the mirror: the identity resolved, and nothing about other clusters.
pub fn mirrored_spec(location: &BackupLocation, cluster: &ApplicationCluster) -> Result<Value, serde_json::Error> {
    let mut spec = location.spec.clone();
    spec.identity = identity(location, cluster);
    spec.clusters = ClusterSelection::default();
    serde_json::to_value(spec)
}

/// One cluster, seen now.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// What goes into the status.
    pub entry: LocationCluster,
    /// Whether the cluster answered.
    pub reachable: bool,
}

/// A cluster that could not be asked: what was known of it stays, but it cannot be counted on.
#[must_use]
pub fn unreachable(known: Option<&LocationCluster>, name: &str, reason: &str, message: &str) -> Seen {
    let mut entry = known.cloned().unwrap_or_default();
    name.clone_into(&mut entry.name);
    entry.phase = LocationPhase::Pending;
    reason.clone_into(&mut entry.reason);
    message.clone_into(&mut entry.message);
    Seen { entry, reachable: false }
}

/// A cluster whose agent has not looked yet.
#[must_use]
pub fn pending(name: &str, reason: &str, message: &str) -> Seen {
    let entry = LocationCluster {
        name: name.to_owned(),
        phase: LocationPhase::Pending,
        reason: reason.to_owned(),
        message: message.to_owned(),
        ..LocationCluster::default()
    };
    Seen { entry, reachable: true }
}

/// A cluster where it cannot work as it is.
#[must_use]
pub fn failed(name: &str, reason: &str, message: &str) -> Seen {
    let mut seen = pending(name, reason, message);
    seen.entry.phase = LocationPhase::Failed;
    seen
}

/// What a mirror says. Its agent knows the cluster as `self` only.
#[must_use]
pub fn from_mirror(location: &BackupLocation, found: &BackupLocation, name: &str) -> Seen {
    let status = found.status.clone().unwrap_or_default();
    let entry = status.clusters.into_iter().next();
    match entry {
        Some(mut entry) if mirror::is_current(location, found, status.observed_generation) => {
            name.clone_into(&mut entry.name);
            if asked(found) {
                entry.phase = LocationPhase::InProgress;
            }
            Seen { entry, reachable: true }
        }
        _ => pending(name, "Sent", "waiting until the agent has looked at it"),
    }
}

/// Why the cluster's agent cannot be counted on. One that has not begun yet, or was never looked at, is waited for.
#[must_use]
pub fn silent(cluster: &ApplicationCluster) -> Option<String> {
    let healthy = conditions::find(&cluster.status.as_ref()?.conditions, condition::AGENT_HEALTHY)?;
    let silent = healthy.status != Truth::True.as_str() && healthy.reason != AGENT_STARTING;
    silent.then(|| healthy.message.clone())
}

/// Whether the agent has still to take a request up.
fn asked(found: &BackupLocation) -> bool {
    found.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(names::ANNOTATION_OPERATION))
}

/// From the least good to the best.
fn rank(phase: LocationPhase) -> u8 {
    match phase {
        LocationPhase::Failed => 0,
        LocationPhase::Pending => 1,
        LocationPhase::InProgress => 2,
        LocationPhase::Valid => 3,
    }
}

/// The status of the location.
#[must_use]
pub fn status(location: &BackupLocation, mut seen: Vec<Seen>, now: Timestamp) -> BackupLocationStatus {
    let mut status = location.status.clone().unwrap_or_default();
    let generation = location.metadata.generation;
    seen.sort_by(|left, right| left.entry.name.cmp(&right.entry.name));
    let total = seen.len();
    let reachable: Vec<LocationPhase> = seen.iter().filter(|one| one.reachable).map(|one| one.entry.phase).collect();
    let valid = reachable.iter().filter(|phase| **phase == LocationPhase::Valid).count();
    status.phase = reachable.iter().copied().min_by_key(|phase| rank(*phase)).unwrap_or_default();
    status.clusters_total = total as i64;
    status.clusters_valid = valid as i64;
    let (reason, message) = summary(&seen, total, valid, reachable.len());
    let truth = match status.phase {
        LocationPhase::Valid => Truth::True,
        LocationPhase::Failed => Truth::False,
        LocationPhase::Pending | LocationPhase::InProgress => Truth::Unknown,
    };
    conditions::set(&mut status.conditions, READY, truth, reason, &message, generation, now);
    status.clusters = seen.into_iter().map(|one| one.entry).take(MAX_CLUSTERS).collect();
    status.observed_generation = generation.unwrap_or_default();
    status
}

fn summary(seen: &[Seen], total: usize, valid: usize, reachable: usize) -> (&'static str, String) {
    if total == 0 {
        return (
            "NoCluster",
            "no cluster of this project may use it: opt a Shoot in, or correct spec.clusters".to_owned(),
        );
    }
    let away = total - reachable;
    let mut message = format!("{valid} of {total} clusters can use it");
    if away > 0 {
        message = format!("{message}, {away} cannot be asked now");
    }
    if total > MAX_CLUSTERS {
        message = format!("{message}, the first {MAX_CLUSTERS} are listed");
    }
    let failed = seen.iter().find(|one| one.reachable && one.entry.phase == LocationPhase::Failed);
    if let Some(one) = failed {
        return ("ClustersFailed", format!("{message}; {}: {}", one.entry.name, one.entry.message));
    }
    if reachable == 0 {
        return ("NoClusterReachable", message);
    }
    if valid == reachable { ("Valid", message) } else { ("Validating", message) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::tests_support::{cluster, location};
    use serde_json::json;

    fn seen(name: &str, phase: LocationPhase) -> Seen {
        let mut seen = pending(name, "", "broken");
        seen.entry.phase = phase;
        seen
    }

    fn now() -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    #[test]
    fn the_mirror_has_the_identity_and_knows_of_no_other_cluster() {
        let mut location = location("main", None);
        location.spec.clusters.names = vec!["alpha".to_owned(), "beta".to_owned()];
        let mut alpha = cluster("alpha");
        assert_eq!(identity(&location, &alpha), None);
        alpha.spec.identity = serde_json::from_value(json!({"clientID": "own", "tenantID": "t"})).unwrap();
        let spec = mirrored_spec(&location, &alpha).unwrap();
        assert_eq!(spec["identity"]["clientID"], "own");
        assert_eq!(spec["clusters"], json!({}));
        location.spec.identity = serde_json::from_value(json!({"clientID": "locations", "tenantID": "t"})).unwrap();
        assert_eq!(mirrored_spec(&location, &alpha).unwrap()["identity"]["clientID"], "locations");
    }

    #[test]
    fn a_location_is_as_good_as_its_least_good_cluster_that_answers() {
        let valid = seen("a", LocationPhase::Valid);
        let running = seen("b", LocationPhase::InProgress);
        let failed = seen("c", LocationPhase::Failed);
        let away = unreachable(Some(&seen("d", LocationPhase::Failed).entry), "d", "Unreachable", "timeout");
        let phase = |seen: &[&Seen]| status(&location("main", None), seen.iter().copied().cloned().collect(), now());
        assert_eq!(phase(&[&valid, &away]).phase, LocationPhase::Valid);
        assert_eq!(phase(&[&valid, &running]).phase, LocationPhase::InProgress);
        let all = phase(&[&failed, &running, &valid, &away]);
        assert_eq!((all.phase, all.clusters_total, all.clusters_valid), (LocationPhase::Failed, 4, 1));
        assert!(all.conditions[0].message.contains("c: broken"), "{}", all.conditions[0].message);
        assert_eq!(phase(&[&away]).phase, LocationPhase::Pending);
        assert_eq!(phase(&[]).conditions[0].reason, "NoCluster");
    }

    #[test]
    fn a_cluster_that_cannot_be_asked_keeps_what_was_known() {
        let mut known = seen("d", LocationPhase::Valid).entry;
        known.client_id = Some("id".to_owned());
        let away = unreachable(Some(&known), "d", "Unreachable", "timeout");
        assert_eq!(away.entry.client_id.as_deref(), Some("id"));
        assert_eq!(away.entry.phase, LocationPhase::Pending);
    }

    #[test]
    fn an_agent_that_is_silent_is_not_counted_on_and_a_new_one_is_waited_for() {
        let with = |status: &str, reason: &str| {
            let mut cluster = cluster("alpha");
            let conditions = json!([{"type": "AgentHealthy", "status": status, "reason": reason, "message": "silent",
                                     "lastTransitionTime": "1970-01-01T00:00:00Z"}]);
            cluster.status = Some(shoot_backup_api::ApplicationClusterStatus {
                conditions: serde_json::from_value(conditions).unwrap(),
                ..Default::default()
            });
            silent(&cluster)
        };
        assert_eq!(with("False", "HeartbeatStale").as_deref(), Some("silent"));
        assert_eq!(with("False", AGENT_STARTING), None);
        assert_eq!(with("True", "HeartbeatFresh"), None);
        assert_eq!(silent(&cluster("alpha")), None);
    }

    #[test]
    fn what_the_agent_found_goes_up_under_the_clusters_name() {
        let location = location("main", Some("id"));
        let spec = mirrored_spec(&location, &cluster("alpha")).unwrap();
        let mut found: BackupLocation =
            serde_json::from_value(mirror::document(&location, &spec, &cluster("alpha"))).unwrap();
        found.metadata.generation = Some(4);
        assert_eq!(from_mirror(&location, &found, "alpha").entry.reason, "Sent");
        found.status = serde_json::from_value(
            json!({"observedGeneration": 4, "clusters": [{"name": "self", "phase": "Valid", "reason": "Valid"}]}),
        )
        .unwrap();
        let seen = from_mirror(&location, &found, "alpha");
        assert_eq!((seen.entry.name.as_str(), seen.entry.phase), ("alpha", LocationPhase::Valid));
        found
            .metadata
            .annotations
            .get_or_insert_default()
            .insert(names::ANNOTATION_OPERATION.to_owned(), "validate".to_owned());
        assert_eq!(from_mirror(&location, &found, "alpha").entry.phase, LocationPhase::InProgress);
    }
}
