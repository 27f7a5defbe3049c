//! The handle of a running operation: the work reports to it and asks it whether to go on.

use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use shoot_backup_api::conditions::truncate;
use shoot_backup_api::operation::{ItemError, MAX_ERRORS, Progress};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Failure;

/// Longest text of one error that a status keeps, in bytes: ten of them and the rest stay far below the size that an
/// object may have.
const MAX_ERROR_MESSAGE: usize = 1024;

/// What a running operation is: identity, time, and what it reported so far. Shared by all tasks of the operation.
#[derive(Debug)]
pub struct Running {
    kind: &'static str,
    name: String,
    uid: String,
    origin_uid: String,
    attempt: i64,
    started: Timestamp,
    deadline: Instant,
    timeout: String,
    cancel: CancellationToken,
    reported: Mutex<Reported>,
}

/// What the work reported.
#[derive(Clone, Debug, Default)]
pub struct Reported {
    /// How far it is; the heartbeat is set by whoever writes it.
    pub progress: Progress,
    /// The first errors.
    pub errors: Vec<ItemError>,
    /// Raised by each report, so that a status is written only when there is news.
    pub revision: u64,
}

/// What a [`Running`] is made of.
#[derive(Debug)]
pub struct Start {
    /// `Backup` or `Restore`.
    pub kind: &'static str,
    /// Name of the object.
    pub name: String,
    /// UID of the object in this cluster.
    pub uid: String,
    /// UID of the object in the garden that it mirrors; its own if it mirrors none.
    pub origin_uid: String,
    /// 1 for the first attempt.
    pub attempt: i64,
    /// When the first attempt began.
    pub started: Timestamp,
    /// When the operation has to end.
    pub deadline: Instant,
    /// `spec.timeout`, for messages.
    pub timeout: String,
    /// Ends the operation.
    pub cancel: CancellationToken,
}

impl Running {
    /// A running operation that has reported nothing yet.
    #[must_use]
    pub fn new(start: Start) -> Self {
        Self {
            kind: start.kind,
            name: start.name,
            uid: start.uid,
            origin_uid: start.origin_uid,
            attempt: start.attempt,
            started: start.started,
            deadline: start.deadline,
            timeout: start.timeout,
            cancel: start.cancel,
            reported: Mutex::default(),
        }
    }

    /// `Backup` or `Restore`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// Name of the object.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// UID of the object in this cluster: value of the label `operation-uid` on everything that the operation makes.
    #[must_use]
    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// UID by which the location knows the operation.
    #[must_use]
    pub fn origin_uid(&self) -> &str {
        &self.origin_uid
    }

    /// `<name>.<uid>`: the operation's file name in the location, without `.json`.
    #[must_use]
    pub fn file_name(&self) -> String {
        format!("{}.{}", self.name, self.origin_uid)
    }

    /// 1 for the first attempt.
    #[must_use]
    pub fn attempt(&self) -> i64 {
        self.attempt
    }

    /// When the first attempt began.
    #[must_use]
    pub fn started(&self) -> Timestamp {
        self.started
    }

    /// When the operation has to end.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether to go on: an error once the operation is cancelled or its deadline is over. The work is dropped at its
    /// next wait anyway; this is for loops that should not begin another round.
    pub fn check(&self) -> Result<(), Failure> {
        if self.cancel.is_cancelled() {
            return Err(Failure::Cancelled);
        }
        if Instant::now() >= self.deadline {
            return Err(self.deadline_exceeded());
        }
        Ok(())
    }

    /// Waits until the operation has to end, and says why.
    pub async fn ended(&self) -> Failure {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Failure::Cancelled,
            () = tokio::time::sleep_until(self.deadline) => self.deadline_exceeded(),
        }
    }

    /// Ends the operation as cancelled.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }

    fn deadline_exceeded(&self) -> Failure {
        Failure::DeadlineExceeded { timeout: self.timeout.clone() }
    }

    /// Says what is being done now: `Objects`, `Volumes`, …
    pub fn step(&self, step: &str) {
        tracing::info!(kind = self.kind, name = %self.name, step, "next step");
        self.report(|progress| step.clone_into(&mut progress.step));
    }

    /// Counts Kubernetes objects that are done.
    pub fn add_objects(&self, count: u64) {
        self.report(|progress| progress.objects += count as i64);
    }

    /// Says how many volumes there are in all.
    pub fn set_volumes_total(&self, count: u64) {
        self.report(|progress| progress.volumes_total = count as i64);
    }

    /// Counts a volume that is done, whether it worked or not.
    pub fn volume_done(&self) {
        self.report(|progress| progress.volumes_done += 1);
    }

    /// Adds bytes of volume data. Negative when a mover that had got further begins again.
    pub fn add_bytes(&self, bytes: i64) {
        self.report(|progress| progress.bytes += bytes);
    }

    /// Keeps an error, if it is among the first.
    pub fn error(&self, item: impl Into<String>, message: impl AsRef<str>) {
        let item = item.into();
        let message = truncate(message.as_ref(), MAX_ERROR_MESSAGE).to_owned();
        tracing::warn!(kind = self.kind, name = %self.name, item, message, "an item did not work");
        let mut reported = self.reported();
        if reported.errors.len() < MAX_ERRORS {
            reported.errors.push(ItemError { item, message });
            reported.revision += 1;
        }
    }

    /// What was reported so far.
    #[must_use]
    pub fn snapshot(&self) -> Reported {
        self.reported().clone()
    }

    fn report(&self, change: impl FnOnce(&mut Progress)) {
        let mut reported = self.reported();
        change(&mut reported.progress);
        reported.revision += 1;
    }

    /// A panic elsewhere cannot leave it half changed, so a poisoned lock is still good.
    fn reported(&self) -> MutexGuard<'_, Reported> {
        self.reported.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A running operation for tests: first attempt, an hour of time.
    #[cfg(test)]
    #[must_use]
    pub fn test() -> Self {
        Self::new(Start {
            kind: "Backup",
            name: "nightly".to_owned(),
            uid: "uid".to_owned(),
            origin_uid: "origin".to_owned(),
            attempt: 1,
            started: Timestamp::UNIX_EPOCH,
            deadline: Instant::now() + std::time::Duration::from_hours(1),
            timeout: "1h".to_owned(),
            cancel: CancellationToken::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_the_first_errors_are_kept() {
        let running = runtime_free();
        for number in 0..50 {
            running.error(format!("item {number}"), "x".repeat(5000));
        }
        let errors = running.snapshot().errors;
        assert_eq!(errors.len(), MAX_ERRORS);
        assert_eq!(errors[0].item, "item 0");
        assert_eq!(errors[0].message.len(), MAX_ERROR_MESSAGE);
    }

    fn runtime_free() -> Running {
        Running::test()
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_operation_stops_at_the_next_step() {
        let running = Running::test();
        assert!(running.check().is_ok());
        running.cancel();
        assert!(matches!(running.check(), Err(Failure::Cancelled)));
        assert!(matches!(running.ended().await, Failure::Cancelled));
    }

    #[tokio::test(start_paused = true)]
    async fn an_operation_ends_at_its_deadline() {
        let running = Running::test();
        assert!(matches!(running.ended().await, Failure::DeadlineExceeded { .. }));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(matches!(running.check(), Err(Failure::DeadlineExceeded { .. })));
    }
}
