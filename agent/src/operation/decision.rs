//! What happens next with one operation: a pure decision with the time given.

use std::time::Duration;

use jiff::Timestamp;
use shoot_backup_api::OperationPhase;
use shoot_backup_api::operation::{MAX_ATTEMPTS, Requested};

/// What is known of an operation.
#[derive(Clone, Copy, Debug)]
pub struct Observed {
    /// Where it stands.
    pub phase: OperationPhase,
    /// How often an agent began it.
    pub attempts: i64,
    /// When the first attempt began.
    pub started: Option<Timestamp>,
    /// Longest time that it may take.
    pub timeout: Duration,
    /// Whether it runs in this process.
    pub running: bool,
    /// Whether the object is being deleted.
    pub deleting: bool,
    /// What somebody asks for.
    pub requested: Option<Requested>,
    /// Whether an operation that ended like this may be tried again.
    pub may_retry: bool,
    /// Now.
    pub now: Timestamp,
}

/// What happens next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing.
    Nothing,
    /// Begin an attempt, as soon as there is room.
    Begin {
        /// Its number.
        attempt: i64,
        /// When the first attempt began: now, unless this is a later one.
        started: Timestamp,
    },
    /// Tell the running attempt to stop; it writes the end itself.
    Stop,
    /// Write that it was cancelled before it began, or while no agent ran.
    EndCancelled,
    /// Write that it failed.
    EndFailed {
        /// One word for programs.
        reason: &'static str,
        /// For people.
        message: String,
    },
}

/// Decides, in this order: deletion, cancel, running, retry, first attempt, an attempt that a restart cut off, end.
#[must_use]
pub fn decide(observed: &Observed) -> Decision {
    if observed.deleting || observed.requested == Some(Requested::Cancel) {
        return match (observed.running, observed.phase.is_final() || observed.deleting) {
            (true, _) => Decision::Stop,
            (false, true) => Decision::Nothing,
            (false, false) => Decision::EndCancelled,
        };
    }
    if observed.running {
        return Decision::Nothing;
    }
    match observed.phase {
        phase if phase.is_final() => {
            if observed.requested == Some(Requested::Retry) && observed.may_retry {
                Decision::Begin { attempt: 1, started: observed.now }
            } else {
                Decision::Nothing
            }
        }
        OperationPhase::InProgress => carry_on(observed),
        _ => Decision::Begin { attempt: 1, started: observed.now },
    }
}

/// An attempt was cut off: the next one, unless there were too many or the time is over.
fn carry_on(observed: &Observed) -> Decision {
    let started = observed.started.unwrap_or(observed.now);
    let elapsed = observed.now.duration_since(started).unsigned_abs();
    if elapsed >= observed.timeout {
        return Decision::EndFailed {
            reason: "DeadlineExceeded",
            message: "stopped after its timeout; the agent was restarted while it worked on this".to_owned(),
        };
    }
    if observed.attempts >= MAX_ATTEMPTS {
        return Decision::EndFailed {
            reason: "TooManyAttempts",
            message: format!(
                "the agent was restarted during each of {MAX_ATTEMPTS} attempts: look for its restarts (kubectl -n \
                 shoot-backup describe pod), then ask again with the annotation operation: retry"
            ),
        };
    }
    Decision::Begin { attempt: observed.attempts + 1, started }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn observed(phase: OperationPhase) -> Observed {
        Observed {
            phase,
            attempts: 1,
            started: Some(at(100)),
            timeout: Duration::from_mins(1),
            running: false,
            deleting: false,
            requested: None,
            may_retry: true,
            now: at(130),
        }
    }

    #[test]
    fn a_new_operation_begins() {
        let decision = decide(&observed(OperationPhase::Pending));
        assert_eq!(decision, Decision::Begin { attempt: 1, started: at(130) });
    }

    #[test]
    fn an_operation_that_a_restart_cut_off_goes_on_with_the_next_attempt_and_the_same_deadline() {
        let decision = decide(&observed(OperationPhase::InProgress));
        assert_eq!(decision, Decision::Begin { attempt: 2, started: at(100) });
    }

    #[test]
    fn restarts_are_not_endured_for_ever() {
        let worn = Observed { attempts: MAX_ATTEMPTS, ..observed(OperationPhase::InProgress) };
        assert!(matches!(decide(&worn), Decision::EndFailed { reason: "TooManyAttempts", .. }));
        let late = Observed { now: at(160), ..observed(OperationPhase::InProgress) };
        assert!(matches!(decide(&late), Decision::EndFailed { reason: "DeadlineExceeded", .. }));
    }

    #[test]
    fn a_running_operation_is_left_alone_until_somebody_cancels_or_deletes_it() {
        let running = Observed { running: true, now: at(1000), ..observed(OperationPhase::InProgress) };
        assert_eq!(decide(&running), Decision::Nothing);
        assert_eq!(decide(&Observed { requested: Some(Requested::Cancel), ..running }), Decision::Stop);
        assert_eq!(decide(&Observed { deleting: true, ..running }), Decision::Stop);
    }

    #[test]
    fn what_has_not_begun_is_cancelled_at_once() {
        let pending = Observed { requested: Some(Requested::Cancel), ..observed(OperationPhase::Pending) };
        assert_eq!(decide(&pending), Decision::EndCancelled);
        assert_eq!(decide(&Observed { phase: OperationPhase::Completed, ..pending }), Decision::Nothing);
        assert_eq!(decide(&Observed { requested: None, deleting: true, ..pending }), Decision::Nothing);
    }

    #[test]
    fn only_what_may_be_retried_begins_again() {
        let failed = Observed { requested: Some(Requested::Retry), ..observed(OperationPhase::Failed) };
        assert_eq!(decide(&failed), Decision::Begin { attempt: 1, started: at(130) });
        assert_eq!(decide(&Observed { may_retry: false, ..failed }), Decision::Nothing);
        assert_eq!(decide(&Observed { requested: None, ..failed }), Decision::Nothing);
    }
}
