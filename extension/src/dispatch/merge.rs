//! What of a mirror's status becomes the status of the object in the garden. Pure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt;
use shoot_backup_api::conditions::{self, Truth};
use shoot_backup_api::{Backup, BackupStatus, Operation, OperationPhase, Restore, RestoreStatus, duration, names};

use super::mirror;

/// A running operation whose agent has been silent for longer is said to be.
const SILENT_SECONDS: i64 = 900;
/// An operation that nobody can follow any more ends in the garden this long after its agent should have ended it.
const OVERDUE_SECONDS: i64 = 900;
/// How long the result of the run before is not taken for the result of a retry.
const RETRY_SECONDS: i64 = 120;
/// The condition that sums up.
pub const READY: &str = "Ready";
/// Its reason while a retry was asked for and has not begun.
pub const RETRYING: &str = "Retrying";
/// Its reason when the time was up.
pub const DEADLINE: &str = "DeadlineExceeded";
/// Its reason when it was cancelled while its cluster could not be told.
pub const CANCELLED_UNSEEN: &str = "CancelledUnseen";

/// The parts of a status that both kinds of operation have.
pub struct Parts<'a> {
    /// Where it stands.
    pub phase: &'a mut OperationPhase,
    /// `Ready`.
    pub conditions: &'a mut Vec<Condition>,
    /// Generation that it is about.
    pub observed_generation: &'a mut i64,
    /// When it began.
    pub start: Option<Timestamp>,
    /// When it ended.
    pub completion_time: &'a mut Option<Time>,
    /// When the agent last said how far it is.
    pub heartbeat: Option<Timestamp>,
}

/// A status of an operation.
pub trait Status: Clone + Default + PartialEq + serde::Serialize {
    /// Its parts.
    fn parts(&mut self) -> Parts<'_>;
}

/// An operation and its status.
pub trait Dispatched: Operation + mirror::Kind {
    /// Its status.
    type Status: Status;
    /// The status, if there is one.
    fn status(&self) -> Option<&Self::Status>;
    /// The longest time that it may take; `None` if that cannot be read.
    fn timeout(&self) -> Option<Duration>;
}

macro_rules! dispatched {
    ($kind:ty, $status:ty) => {
        impl Status for $status {
            fn parts(&mut self) -> Parts<'_> {
                Parts {
                    phase: &mut self.phase,
                    conditions: &mut self.conditions,
                    observed_generation: &mut self.observed_generation,
                    start: self.start_time.as_ref().map(|time| time.0),
                    completion_time: &mut self.completion_time,
                    heartbeat: self.progress.heartbeat.as_ref().map(|time| time.0),
                }
            }
        }

        impl Dispatched for $kind {
            type Status = $status;

            fn status(&self) -> Option<&$status> {
                self.status.as_ref()
            }

            fn timeout(&self) -> Option<Duration> {
                duration::parse(&self.spec.timeout).ok()
            }
        }
    };
}

dispatched!(Backup, BackupStatus);
dispatched!(Restore, RestoreStatus);

/// The status of `object`, given its mirror; `None` while the mirror says nothing that is news: the agent has not seen
/// it yet, or it still shows how the run before a retry ended.
#[must_use]
pub fn merge<K: Dispatched>(object: &K, mirror: &K, now: Timestamp) -> Option<K::Status> {
    let mut status = mirror.status()?.clone();
    let mut own = object.status().cloned().unwrap_or_default();
    let (own, parts) = (own.parts(), status.parts());
    if !mirror::is_current(object, mirror, *parts.observed_generation) {
        return None;
    }
    if parts.phase.is_final() {
        let asked = mirror.annotations().get(names::ANNOTATION_OPERATION).is_some_and(|asked| asked == "retry");
        let waits =
            retry_since(own.conditions).is_some_and(|since| now.as_second() - since.as_second() < RETRY_SECONDS);
        let before = own.completion_time.is_some() && own.completion_time == parts.completion_time;
        if asked || (waits && before && !own.phase.is_final()) {
            return None;
        }
    }
    *parts.observed_generation = object.meta().generation.unwrap_or_default();
    let silent = parts.heartbeat.or(parts.start).filter(|heartbeat| {
        *parts.phase == OperationPhase::InProgress && now.as_second() - heartbeat.as_second() > SILENT_SECONDS
    });
    if let Some(since) = silent {
        let message = format!(
            "the agent has said nothing of this since {since}: look at its pod in namespace {} of the cluster",
            names::AGENT_NAMESPACE
        );
        conditions::set(parts.conditions, READY, Truth::Unknown, "HeartbeatStale", &message, None, now);
        if is_past_deadline(object, &status, now) {
            let message = format!("it should have ended within its timeout, and {message}");
            let phase = OperationPhase::Failed;
            status = ended(&status, phase, DEADLINE, &message, object.meta().generation, now);
        }
    }
    Some(status)
}

/// Whether an operation runs that its agent should have ended long ago: the agent keeps the timeout itself, so only one
/// that is gone lets this happen.
#[must_use]
pub fn is_past_deadline<K: Dispatched>(object: &K, status: &K::Status, now: Timestamp) -> bool {
    let mut status = status.clone();
    let parts = status.parts();
    let (Some(start), Some(timeout)) = (parts.start, object.timeout()) else { return false };
    let longest = i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX).saturating_add(OVERDUE_SECONDS);
    *parts.phase == OperationPhase::InProgress && now.as_second() - start.as_second() > longest
}

/// Whether an operation ended in the garden while its mirror goes on: the mirror is then to be removed, which stops the
/// work. One that is asked to begin again is not.
#[must_use]
pub fn left_running<K: Dispatched>(object: &K, mirror: &K) -> bool {
    let mut status = object.status().cloned().unwrap_or_default();
    let ready = conditions::find(status.parts().conditions, READY);
    let unseen = ready.is_some_and(|ready| [DEADLINE, CANCELLED_UNSEEN].contains(&ready.reason.as_str()));
    object.phase().is_final() && unseen && !mirror.phase().is_final()
}

fn retry_since(conditions: &[Condition]) -> Option<Timestamp> {
    let ready = conditions::find(conditions, READY)?;
    (ready.reason == RETRYING).then_some(ready.last_transition_time.0)
}

/// The status while something keeps the operation from going on. The phase of one that runs stays.
#[must_use]
pub fn waiting<S: Status>(status: &S, reason: &str, message: &str, generation: Option<i64>, now: Timestamp) -> S {
    let mut status = status.clone();
    let parts = status.parts();
    conditions::set(parts.conditions, READY, Truth::Unknown, reason, message, generation, now);
    *parts.observed_generation = generation.unwrap_or_default();
    status
}

/// The status of an operation that ended in the garden.
#[must_use]
pub fn ended<S: Status>(
    status: &S,
    phase: OperationPhase,
    reason: &str,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) -> S {
    let mut status = waiting(status, reason, message, generation, now);
    let parts = status.parts();
    conditions::set(parts.conditions, READY, Truth::False, reason, message, generation, now);
    *parts.phase = phase;
    *parts.completion_time = Some(Time(now));
    status
}

/// The status of an operation that is to begin again. The time when it ended stays until the agent begins: by it the old
/// result is told from the new one.
#[must_use]
pub fn again<S: Status>(status: &S, generation: Option<i64>, now: Timestamp) -> S {
    let mut status = waiting(status, RETRYING, "a retry was asked for", generation, now);
    let parts = status.parts();
    *parts.phase = OperationPhase::Pending;
    for condition in parts.conditions.iter_mut().filter(|condition| condition.type_ == READY) {
        condition.last_transition_time = Time(now);
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::tests_support::cluster;
    use serde_json::{Value, json};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn backup(status: &Value) -> Backup {
        serde_json::from_value(json!({
            "apiVersion": "x", "kind": "Backup",
            "metadata": {"name": "b", "namespace": "garden-demo", "uid": "u", "generation": 3},
            "spec": {"cluster": "alpha", "location": "main", "namespaces": ["shop"]},
            "status": status,
        }))
        .unwrap()
    }

    fn mirror_of(object: &Backup, status: &Value) -> Backup {
        let spec = serde_json::to_value(&object.spec).unwrap();
        let mut mirror: Backup = serde_json::from_value(mirror::document(object, &spec, &cluster("alpha"))).unwrap();
        mirror.metadata.generation = Some(1);
        mirror.status = serde_json::from_value(status.clone()).unwrap();
        mirror
    }

    #[test]
    fn a_status_goes_up_with_the_generation_of_the_garden() {
        let object = backup(&json!(null));
        let mirror = mirror_of(&object, &json!({"observedGeneration": 1, "phase": "InProgress"}));
        let status = merge(&object, &mirror, at(0)).unwrap();
        assert_eq!(status.phase, OperationPhase::InProgress);
        assert_eq!(status.observed_generation, 3);
    }

    #[test]
    fn a_status_of_an_older_generation_stays_where_it_is() {
        let object = backup(&json!(null));
        assert!(merge(&object, &mirror_of(&object, &json!(null)), at(0)).is_none());
        let unseen = mirror_of(&object, &json!({"observedGeneration": 0, "phase": "Completed"}));
        assert!(merge(&object, &unseen, at(0)).is_none());
    }

    #[test]
    fn the_result_before_a_retry_is_not_taken_for_the_result_of_the_retry() {
        let old = json!({"observedGeneration": 1, "phase": "Failed", "completionTime": "1970-01-01T00:00:10Z"});
        let object = backup(&json!({"phase": "Failed", "completionTime": "1970-01-01T00:00:10Z"}));
        let retried = again(object.status.as_ref().unwrap(), Some(3), at(20));
        assert_eq!(retried.phase, OperationPhase::Pending);
        let retried = backup(&serde_json::to_value(&retried).unwrap());
        let mirror = mirror_of(&retried, &old);
        assert!(merge(&retried, &mirror, at(21)).is_none());
        let new = json!({"observedGeneration": 1, "phase": "Failed", "completionTime": "1970-01-01T00:00:25Z"});
        assert!(merge(&retried, &mirror_of(&retried, &new), at(26)).is_some());
        // An agent that never takes it up must not leave the object in the dark for ever.
        assert!(merge(&retried, &mirror, at(20 + RETRY_SECONDS)).is_some());
    }

    #[test]
    fn an_agent_that_has_been_silent_is_said_to_be() {
        let object = backup(&json!(null));
        let mirror = mirror_of(
            &object,
            &json!({"observedGeneration": 1, "phase": "InProgress", "progress": {"heartbeat": "1970-01-01T00:00:00Z"}}),
        );
        let status = merge(&object, &mirror, at(901)).unwrap();
        assert_eq!(status.conditions[0].reason, "HeartbeatStale");
        assert_eq!(status.phase, OperationPhase::InProgress);
        assert!(merge(&object, &mirror, at(900)).unwrap().conditions.is_empty());
    }

    #[test]
    fn an_operation_whose_agent_is_gone_ends_a_while_after_its_timeout() {
        let running = json!({
            "observedGeneration": 1, "phase": "InProgress", "startTime": "1970-01-01T00:00:00Z",
            "progress": {"heartbeat": "1970-01-01T00:00:10Z"},
        });
        let mut object = backup(&running);
        object.spec.timeout = "1h".to_owned();
        let mirror = mirror_of(&object, &running);
        let late = 3600 + OVERDUE_SECONDS + 1;
        assert_eq!(merge(&object, &mirror, at(late - 1)).unwrap().phase, OperationPhase::InProgress);
        let ended = merge(&object, &mirror, at(late)).unwrap();
        assert_eq!((ended.phase, ended.conditions[0].reason.as_str()), (OperationPhase::Failed, DEADLINE));
        // An agent that is alive ends it itself.
        let beating = json!({
            "observedGeneration": 1, "phase": "InProgress", "startTime": "1970-01-01T00:00:00Z",
            "progress": {"heartbeat": at(late - 5).to_string()},
        });
        assert_eq!(merge(&object, &mirror_of(&object, &beating), at(late)).unwrap().phase, OperationPhase::InProgress);
        object.status = Some(ended);
        assert!(left_running(&object, &mirror));
        let over = mirror_of(&object, &json!({"observedGeneration": 1, "phase": "Failed"}));
        assert!(!left_running(&object, &over));
    }

    #[test]
    fn waiting_keeps_the_phase_and_failing_ends_it() {
        let running = BackupStatus { phase: OperationPhase::InProgress, ..BackupStatus::default() };
        let status = waiting(&running, "ClusterUnreachable", "it does not answer", Some(1), at(1));
        assert_eq!(status.phase, OperationPhase::InProgress);
        let status = ended(&status, OperationPhase::Failed, "ClusterNotFound", "gone", Some(1), at(2));
        assert_eq!(status.phase, OperationPhase::Failed);
        assert_eq!(status.completion_time, Some(Time(at(2))));
        assert_eq!(status.conditions[0].message, "gone");
    }
}
