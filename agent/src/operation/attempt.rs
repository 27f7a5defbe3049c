//! One attempt at an operation, from its first to its last status.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::runtime::events::EventType;
use kube::{Api, ResourceExt};
use shoot_backup_api::OperationPhase;
use shoot_backup_api::names::ANNOTATION_ORIGIN_UID;
use tokio::time::Instant;

use super::reconcile::{Outcome, ReconcileError};
use super::registry::Place;
use super::running::Start;
use super::status::OperationStatus;
use super::writer::{StatusWriter, WriteError};
use super::{AgentOperation, Failure, Running, failure, leftovers};
use crate::context::Context;

/// How often progress is written at most.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);
/// How often the heartbeat is written at least.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(10);

/// Does the work of one attempt:
/// 1. Remove what an attempt before has left.
/// 2. Work, and write progress beside it, until the work ends, somebody cancels or deletes the object, or the deadline
///    is over.
/// 3. Remove what this attempt has left.
/// 4. Write the end. If that fails for longer than a call is repeated, the attempt counts as cut off and the next
///    begins; a backup that has its manifest is completed from it.
pub(super) async fn run<K: AgentOperation>(
    context: Arc<Context>,
    object: K,
    writer: StatusWriter<K>,
    begun: OperationStatus,
    place: Place,
) {
    let timer = Instant::now();
    let running = running(&object, &begun, &place);
    context.event(&object, EventType::Normal, "Started", K::KIND, &format!("attempt {}", begun.attempts)).await;
    let result = tokio::select! {
        biased;
        failure = running.ended() => Err(failure),
        () = report(&writer, &running, &begun) => Err(Failure::Cancelled),
        result = work(&context, &object, &running) => result,
    };
    if let Err(error) = leftovers::remove(&context, running.uid()).await {
        tracing::warn!(%error, name = running.name(), "failed to remove what the operation left; the next sweep tries again");
    }
    let status = end(&running, begun, &result, Timestamp::now());
    finish(&context, &object, &writer, &status, timer.elapsed()).await;
    drop(place);
}

async fn work<K: AgentOperation>(
    context: &Context,
    object: &K,
    running: &Running,
) -> Result<Outcome<K::Result>, Failure> {
    leftovers::remove(context, running.uid())
        .await
        .map_err(|error| Failure::new("Leftovers", failure::with_causes(&error)))?;
    K::execute(context, object, running).await
}

fn running<K: AgentOperation>(object: &K, begun: &OperationStatus, place: &Place) -> Running {
    let started = begun.start_time.as_ref().map_or_else(Timestamp::now, |time| time.0);
    let timeout = shoot_backup_api::duration::parse(object.timeout()).unwrap_or(Duration::from_hours(4));
    let elapsed = Timestamp::now().duration_since(started).unsigned_abs();
    let uid = object.uid().unwrap_or_default();
    Running::new(Start {
        kind: K::KIND,
        name: object.name_any(),
        origin_uid: object.annotations().get(ANNOTATION_ORIGIN_UID).cloned().unwrap_or_else(|| uid.clone()),
        uid,
        attempt: begun.attempts,
        started,
        deadline: Instant::now() + timeout.saturating_sub(elapsed),
        timeout: object.timeout().to_owned(),
        cancel: place.cancel().clone(),
    })
}

/// Writes progress and heartbeat. Ends only when the object is gone.
async fn report<K: AgentOperation>(writer: &StatusWriter<K>, running: &Running, begun: &OperationStatus) {
    let mut ticks = tokio::time::interval(PROGRESS_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks.tick().await;
    let (mut revision, mut written) = (0, Instant::now());
    loop {
        ticks.tick().await;
        let reported = running.snapshot();
        if reported.revision == revision && written.elapsed() < HEARTBEAT_INTERVAL {
            continue;
        }
        let mut status = begun.clone();
        status.progress = reported.progress;
        status.progress.heartbeat = Some(Time(Timestamp::now()));
        status.errors = reported.errors;
        match writer.write(&status).await {
            Ok(()) => (revision, written) = (reported.revision, Instant::now()),
            Err(WriteError::Gone) => return,
            Err(error) => tracing::warn!(%error, name = running.name(), "failed to write progress; trying again"),
        }
    }
}

/// The status of an operation that ended.
fn end<R: serde::Serialize>(
    running: &Running,
    begun: OperationStatus,
    result: &Result<Outcome<R>, Failure>,
    now: Timestamp,
) -> OperationStatus {
    let reported = running.snapshot();
    let mut status = OperationStatus {
        completion_time: Some(Time(now)),
        progress: reported.progress,
        errors: reported.errors,
        ..begun
    };
    status.progress.heartbeat = Some(Time(now));
    match result {
        Ok(outcome) => {
            status.result = serde_json::to_value(&outcome.result).ok();
            "Done".clone_into(&mut status.progress.step);
            status.with_phase(outcome.phase, outcome.phase.as_str(), &outcome.message, now)
        }
        Err(failure) => status.with_phase(phase_of(failure), failure.reason(), &failure.to_string(), now),
    }
}

fn phase_of(failure: &Failure) -> OperationPhase {
    match failure {
        Failure::Cancelled => OperationPhase::Cancelled,
        Failure::DeadlineExceeded { .. } | Failure::Failed { .. } => OperationPhase::Failed,
    }
}

/// Writes the end of an operation of which no attempt runs.
pub(super) async fn end_without_attempt<K: AgentOperation>(
    context: &Context,
    api: &Api<K>,
    object: &K,
    status: OperationStatus,
    failure: &Failure,
) -> Result<(), ReconcileError> {
    if let Err(error) = leftovers::remove(context, &object.uid().unwrap_or_default()).await {
        tracing::warn!(%error, name = object.name_any(), "failed to remove what the operation left; the next sweep tries again");
    }
    let now = Timestamp::now();
    let status = OperationStatus {
        observed_generation: object.meta().generation.unwrap_or_default(),
        completion_time: Some(Time(now)),
        ..status
    }
    .with_phase(phase_of(failure), failure.reason(), &failure.to_string(), now);
    let writer = StatusWriter::new(api.clone(), object);
    finish(context, object, &writer, &status, Duration::ZERO).await;
    Ok(())
}

async fn finish<K: AgentOperation>(
    context: &Context,
    object: &K,
    writer: &StatusWriter<K>,
    status: &OperationStatus,
    elapsed: Duration,
) {
    let condition = shoot_backup_api::conditions::find(&status.conditions, super::status::READY);
    let (reason, message) =
        condition.map_or(("", ""), |condition| (condition.reason.as_str(), condition.message.as_str()));
    match writer.write_surely(status).await {
        Ok(()) => {}
        Err(WriteError::Gone) => {
            tracing::info!(kind = K::KIND, name = object.name_any(), "ended; the object was deleted meanwhile");
            return;
        }
        Err(error) => {
            tracing::error!(kind = K::KIND, name = object.name_any(), error = %failure::with_causes(&error), "failed to write the end");
            return;
        }
    }
    tracing::info!(kind = K::KIND, name = object.name_any(), phase = %status.phase, reason, message, "ended");
    context.metrics.operation_ended(K::KIND, status.phase, elapsed);
    let type_ = if status.phase == OperationPhase::Completed { EventType::Normal } else { EventType::Warning };
    context.event(object, type_, status.phase.as_str(), K::KIND, message).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_tells_result_and_errors() {
        let running = Running::test();
        running.add_objects(7);
        running.error("volume shop/data", "denied");
        let outcome =
            Outcome { phase: OperationPhase::PartiallyFailed, message: "1 item was skipped".to_owned(), result: 7 };
        let status = end(&running, OperationStatus::default(), &Ok(outcome), Timestamp::UNIX_EPOCH);
        assert_eq!(status.phase, OperationPhase::PartiallyFailed);
        assert_eq!(status.result, Some(serde_json::json!(7)));
        assert_eq!(status.progress.objects, 7);
        assert_eq!(status.errors.len(), 1);
        assert!(status.completion_time.is_some());
    }

    #[test]
    fn a_cancelled_operation_is_not_a_failed_one() {
        let running = Running::test();
        let status = end::<i32>(&running, OperationStatus::default(), &Err(Failure::Cancelled), Timestamp::UNIX_EPOCH);
        assert_eq!(status.phase, OperationPhase::Cancelled);
        let late = Failure::DeadlineExceeded { timeout: "1h".to_owned() };
        let status = end::<i32>(&running, OperationStatus::default(), &Err(late), Timestamp::UNIX_EPOCH);
        assert_eq!(status.phase, OperationPhase::Failed);
        assert_eq!(status.conditions[0].reason, "DeadlineExceeded");
    }
}
