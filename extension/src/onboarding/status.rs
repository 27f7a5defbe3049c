//! The status of an `ApplicationCluster` while it is put together: conditions, phase, and the summary for people.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use shoot_backup_api::application_cluster::{ApplicationClusterPhase as Phase, ApplicationClusterStatus, condition};
use shoot_backup_api::backup_location::LocationPhase;
use shoot_backup_api::conditions::{self, Truth};
use shoot_backup_api::{ApplicationCluster, names};

use super::Error;
use super::heartbeat::{Heartbeat, START_SECONDS};

/// A heartbeat's time is written at most this often: every write is news for everybody who watches.
const HEARTBEAT_EVERY: i64 = 60;
/// Reason of the condition `AgentHealthy` while a new agent has not begun yet.
pub const AGENT_STARTING: &str = "AgentStarting";

/// A status that is being put together.
pub struct Draft {
    /// As it is so far.
    pub status: ApplicationClusterStatus,
    old: ApplicationClusterStatus,
    generation: Option<i64>,
    now: Timestamp,
}

impl Draft {
    /// Begins with what is known.
    #[must_use]
    pub fn new(cluster: &ApplicationCluster, now: Timestamp) -> Self {
        let old = cluster.status.clone().unwrap_or_default();
        Self { status: old.clone(), old, generation: cluster.metadata.generation, now }
    }

    /// As it was before.
    #[must_use]
    pub fn old(&self) -> &ApplicationClusterStatus {
        &self.old
    }

    /// Sets a condition.
    pub fn set(&mut self, type_: &str, truth: Truth, reason: &str, message: &str) {
        conditions::set(&mut self.status.conditions, type_, truth, reason, message, self.generation, self.now);
    }

    /// Sets the phase and the summary.
    pub fn conclude(&mut self, phase: Phase, reason: &str, message: &str) {
        self.status.phase = phase;
        self.set(condition::READY, Truth::from(phase == Phase::Ready), reason, message);
        self.status.observed_generation = self.generation.unwrap_or_default();
    }

    /// Another cluster has come to this name: what was known of the old one does not count.
    pub fn forget_cluster(&mut self) {
        self.status = ApplicationClusterStatus {
            found_by: self.status.found_by.take(),
            conditions: std::mem::take(&mut self.status.conditions),
            observed_generation: self.status.observed_generation,
            ..ApplicationClusterStatus::default()
        };
        let kept = [condition::MANAGED, condition::SHOOT_READY];
        self.status.conditions.retain(|condition| kept.contains(&condition.type_.as_str()));
    }

    /// Notes the agent's heartbeat; `why` explains one that is missing. Concludes the phase.
    pub fn heartbeat(&mut self, heartbeat: &Heartbeat, why: Option<&str>) {
        if let Some(time) = heartbeat.time {
            let newer = self
                .status
                .agent_heartbeat
                .as_ref()
                .is_none_or(|known| time.as_second() - known.0.as_second() >= HEARTBEAT_EVERY || time < known.0);
            if newer {
                self.status.agent_heartbeat = Some(Time(time));
            }
            self.status.agent_version.clone_from(&heartbeat.version);
        }
        if heartbeat.is_fresh(self.now) {
            let version = heartbeat.version.clone().unwrap_or_default();
            self.set(condition::AGENT_HEALTHY, Truth::True, "HeartbeatFresh", "the agent gives its heartbeat");
            let valid = self.status.locations.iter().filter(|location| location.phase == LocationPhase::Valid).count();
            let all = self.status.locations.len();
            let message = format!("agent {version} works; {valid} of {all} locations can be used");
            self.conclude(Phase::Ready, "AgentWorks", &message);
            return;
        }
        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
        let delivered = conditions::find(&self.status.conditions, condition::AGENT_DELIVERED)
            .map_or(self.now, |delivered| delivered.last_transition_time.0);
        let starting = heartbeat.time.is_none() && self.now.as_second() - delivered.as_second() < START_SECONDS;
        let (phase, reason, message) = if starting {
            (Phase::Onboarding, AGENT_STARTING, format!("waiting for the agent's first heartbeat{why}"))
        } else {
            let message =
                format!("the agent gives no heartbeat{why}; look at its pod in namespace {}", names::AGENT_NAMESPACE);
            (Phase::Unreachable, "HeartbeatStale", message)
        };
        self.set(condition::AGENT_HEALTHY, Truth::False, reason, &message);
        self.conclude(phase, reason, &message);
    }

    /// A cluster that was taken in before and whose Shoot is not ready now: nothing is known of its agent.
    pub fn sleeps(&mut self, reason: &str, message: &str) {
        for type_ in [condition::REACHABLE, condition::AGENT_HEALTHY] {
            if conditions::find(&self.status.conditions, type_).is_some() {
                self.set(type_, Truth::Unknown, reason, message);
            }
        }
    }

    /// Notes an error. A cluster that was taken in before keeps what is known of it.
    pub fn failed(&mut self, error: &Error) {
        let message = error.to_string();
        if error.is_unreachable() {
            self.set(condition::REACHABLE, Truth::False, error.reason(), &message);
        }
        if matches!(error, Error::Delivery(_)) {
            self.set(condition::AGENT_DELIVERED, Truth::False, error.reason(), &message);
        }
        let known = self.status.cluster_uid.is_some();
        if known && conditions::find(&self.status.conditions, condition::AGENT_HEALTHY).is_some() {
            self.set(condition::AGENT_HEALTHY, Truth::Unknown, error.reason(), "the cluster could not be asked");
        }
        let phase = if known { Phase::Unreachable } else { Phase::Failed };
        self.conclude(phase, error.reason(), &message);
    }

    /// Whether there is news.
    #[must_use]
    pub fn changed(&self) -> bool {
        self.status != self.old
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::tests_support::cluster;
    use crate::request;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn beat(second: i64) -> Heartbeat {
        Heartbeat { time: Some(at(second)), version: Some("0.1.0".to_owned()) }
    }

    fn drafted(status: Option<ApplicationClusterStatus>, now: i64) -> Draft {
        let mut cluster = cluster("alpha");
        cluster.status = status;
        Draft::new(&cluster, at(now))
    }

    fn unreachable() -> Error {
        let refused = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "connection refused");
        Error::Cluster(request::Error::new("get x", kube::Error::ReadEvents(refused)))
    }

    #[test]
    fn a_fresh_heartbeat_makes_a_cluster_ready_and_is_written_once_a_minute() {
        let mut draft = drafted(None, 100);
        draft.heartbeat(&beat(100), None);
        assert_eq!(draft.status.phase, Phase::Ready);
        let mut later = drafted(Some(draft.status.clone()), 130);
        later.heartbeat(&beat(130), None);
        assert!(!later.changed());
        let mut minute = drafted(Some(draft.status), 160);
        minute.heartbeat(&beat(160), None);
        assert!(minute.changed());
    }

    #[test]
    fn a_stale_heartbeat_makes_a_cluster_unreachable_and_says_why() {
        let mut draft = drafted(None, 500);
        draft.heartbeat(&beat(400), Some("its container waits: CrashLoopBackOff"));
        assert_eq!(draft.status.phase, Phase::Unreachable);
        let ready = conditions::find(&draft.status.conditions, condition::READY).unwrap();
        assert!(ready.message.contains("CrashLoopBackOff"));
    }

    #[test]
    fn a_new_agent_has_time_to_start() {
        let mut draft = drafted(None, 0);
        draft.set(condition::AGENT_DELIVERED, Truth::True, "Delivered", "");
        draft.heartbeat(&Heartbeat::default(), None);
        assert_eq!(draft.status.phase, Phase::Onboarding);
        let mut late = drafted(Some(draft.status), START_SECONDS);
        late.heartbeat(&Heartbeat::default(), None);
        assert_eq!(late.status.phase, Phase::Unreachable);
    }

    #[test]
    fn a_cluster_that_does_not_answer_is_unreachable_if_it_was_known_and_failed_if_not() {
        let mut new = drafted(None, 1);
        new.failed(&unreachable());
        assert_eq!(new.status.phase, Phase::Failed);
        let known = ApplicationClusterStatus { cluster_uid: Some("u".to_owned()), ..Default::default() };
        let mut known = drafted(Some(known), 1);
        known.failed(&unreachable());
        assert_eq!(known.status.phase, Phase::Unreachable);
        assert_eq!(known.status.cluster_uid.as_deref(), Some("u"));
    }

    #[test]
    fn nothing_is_said_of_the_agent_of_a_cluster_that_sleeps() {
        let mut awake = drafted(None, 100);
        awake.heartbeat(&beat(100), None);
        let mut asleep = drafted(Some(awake.status), 200);
        asleep.sleeps("ShootHibernated", "asleep");
        let healthy = conditions::find(&asleep.status.conditions, condition::AGENT_HEALTHY).unwrap();
        assert_eq!(healthy.status, "Unknown");
    }

    #[test]
    fn another_cluster_of_the_same_name_begins_anew() {
        let old = ApplicationClusterStatus {
            cluster_uid: Some("u".to_owned()),
            found_by: Some("Annotation".to_owned()),
            agent_version: Some("0.1.0".to_owned()),
            ..Default::default()
        };
        let mut draft = drafted(Some(old), 1);
        draft.forget_cluster();
        assert_eq!(draft.status.cluster_uid, None);
        assert_eq!(draft.status.agent_version, None);
        assert_eq!(draft.status.found_by.as_deref(), Some("Annotation"));
    }
}
