//! The status of `Backup` and `Restore` as one type: they differ in the result only.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shoot_backup_api::OperationPhase;
use shoot_backup_api::conditions::{self, Truth};
use shoot_backup_api::operation::{ItemError, Progress};

/// Type of the one condition.
pub const READY: &str = "Ready";

/// Same shape as `BackupStatus` and `RestoreStatus`, with the result as it is.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OperationStatus {
    /// Generation of the spec that this status is about.
    pub observed_generation: i64,
    /// Where it stands.
    pub phase: OperationPhase,
    /// `Ready`.
    pub conditions: Vec<Condition>,
    /// When the agent began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// How often an agent began it.
    pub attempts: i64,
    /// How far it is.
    pub progress: Progress,
    /// What came out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// The first errors.
    pub errors: Vec<ItemError>,
}

impl OperationStatus {
    /// Sets phase and condition together, so that they never tell different stories.
    #[must_use]
    pub fn with_phase(mut self, phase: OperationPhase, reason: &str, message: &str, now: Timestamp) -> Self {
        let truth = match phase {
            OperationPhase::Pending | OperationPhase::InProgress => Truth::Unknown,
            OperationPhase::Completed => Truth::True,
            OperationPhase::PartiallyFailed | OperationPhase::Failed | OperationPhase::Cancelled => Truth::False,
        };
        self.phase = phase;
        conditions::set(&mut self.conditions, READY, truth, reason, message, Some(self.observed_generation), now);
        self
    }

    /// The status at the begin of an attempt.
    #[must_use]
    pub fn begun(self, generation: i64, attempt: i64, started: Timestamp, now: Timestamp) -> Self {
        let message = if attempt > 1 {
            format!("attempt {attempt}: the agent was restarted while it worked on this")
        } else {
            "the agent works on it".to_owned()
        };
        Self {
            observed_generation: generation,
            start_time: Some(Time(started)),
            completion_time: None,
            attempts: attempt,
            progress: Progress { heartbeat: Some(Time(now)), ..Progress::default() },
            result: None,
            errors: Vec::new(),
            ..self
        }
        .with_phase(OperationPhase::InProgress, "InProgress", &message, now)
    }
}

#[cfg(test)]
mod tests {
    use shoot_backup_api::{BackupStatus, RestoreStatus};

    use super::*;

    #[test]
    fn the_shape_is_that_of_both_kinds() {
        let now = Timestamp::UNIX_EPOCH;
        let mut status = OperationStatus::default().begun(3, 1, now, now);
        status.completion_time = Some(Time(now));
        status.errors.push(ItemError { item: "i".to_owned(), message: "m".to_owned() });
        let json = serde_json::to_value(&status).unwrap();
        let backup: BackupStatus = serde_json::from_value(json.clone()).unwrap();
        let restore: RestoreStatus = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(serde_json::to_value(backup).unwrap(), json);
        assert_eq!(serde_json::to_value(restore).unwrap(), json);
    }

    #[test]
    fn a_new_attempt_forgets_the_last_ones_outcome() {
        let now = Timestamp::UNIX_EPOCH;
        let old = OperationStatus {
            result: Some(Value::Null),
            errors: vec![ItemError { item: "i".to_owned(), message: "m".to_owned() }],
            ..OperationStatus::default()
        };
        let status = old.begun(1, 2, now, now);
        assert!(status.errors.is_empty() && status.result.is_none());
        assert_eq!(status.phase, OperationPhase::InProgress);
        assert_eq!(conditions::find(&status.conditions, READY).unwrap().status, "Unknown");
    }
}
