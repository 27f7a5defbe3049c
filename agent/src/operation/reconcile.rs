//! The controller of both kinds of operations.

use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use kube::core::PartialObjectMeta;
use kube::runtime::Controller;
use kube::runtime::controller::Action;
use kube::runtime::watcher;
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use shoot_backup_api::duration;
use shoot_backup_api::{Operation, OperationPhase};
use tokio_util::sync::CancellationToken;

use super::decision::{Decision, Observed, decide};
use super::registry::{MAX_RUNNING, Place};
use super::status::OperationStatus;
use super::writer::{StatusWriter, WriteError};
use super::{Failure, Running, attempt, request};
use crate::context::Context;
use crate::retry;

/// How soon an operation that found no place looks again.
const QUEUE_INTERVAL: Duration = Duration::from_secs(3);
/// How soon a running operation is looked at again without any event: a task that died is noticed by then.
const WATCH_INTERVAL: Duration = Duration::from_mins(1);
/// How soon a failed reconcile is repeated.
const ERROR_INTERVAL: Duration = Duration::from_secs(5);

/// What an operation brings home.
#[derive(Clone, Debug)]
pub struct Outcome<R> {
    /// `Completed` or `PartiallyFailed`.
    pub phase: OperationPhase,
    /// For people.
    pub message: String,
    /// For `status.result`.
    pub result: R,
}

/// A kind of operation that the agent works on.
pub trait AgentOperation:
    Operation
    + Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + DeserializeOwned
    + Serialize
    + Send
    + Sync
    + 'static
{
    /// Name of the kind, for messages, events and metrics.
    const KIND: &'static str;
    /// Type of `status.result`.
    type Result: Serialize + Send;

    /// `spec.timeout`.
    fn timeout(&self) -> &str;

    /// Does the work. It is dropped at any wait when the operation is cancelled or its deadline is over: each step can
    /// be repeated, and what it leaves in the cluster carries the label `operation-uid`.
    fn execute(
        context: &Context,
        object: &Self,
        running: &Running,
    ) -> impl Future<Output = Result<Outcome<Self::Result>, Failure>> + Send;
}

/// Why a reconcile failed; it is repeated.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The API server refused a step.
    #[error("failed to {what}")]
    Api {
        /// The step.
        what: &'static str,
        /// Why.
        source: kube::Error,
    },
    /// The status could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The object has no status of the known shape.
    #[error("failed to understand the status")]
    Status(#[from] serde_json::Error),
}

impl ReconcileError {
    /// A fixed name, for metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Api { .. } => "api",
            Self::Write(_) => "status",
            Self::Status(_) => "decode",
        }
    }
}

/// Runs the controller of one kind until `stop`.
pub async fn run<K: AgentOperation>(context: Arc<Context>, stop: CancellationToken) {
    let metadata: Api<PartialObjectMeta<K>> = context.own();
    Controller::new(metadata, watcher::Config::default().any_semantic())
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(reconcile::<K>, error_policy::<K>, context)
        .for_each(|result| async move {
            if let Err(error) = result {
                tracing::debug!(kind = K::KIND, %error, "reconcile ended with an error");
            }
        })
        .await;
}

// The signature is the controller's.
#[allow(clippy::needless_pass_by_value)]
fn error_policy<K: AgentOperation>(
    object: Arc<PartialObjectMeta<K>>,
    error: &ReconcileError,
    context: Arc<Context>,
) -> Action {
    tracing::warn!(kind = K::KIND, name = object.name_any(), error = %super::failure::with_causes(error), "reconcile failed");
    context.metrics.reconcile_error(K::KIND, error.label());
    Action::requeue(ERROR_INTERVAL)
}

/// Takes an operation one step further:
/// 1. Note whether it runs in this process, *then* read the object: an attempt writes its end before it gives up its
///    place, so an object read afterwards is never older than the end of an attempt that runs no more.
/// 2. Decide ([`decide`]).
/// 3. Begin an attempt if there is a place (else say so and wait), stop the running one, or write the end.
/// 4. Remove the request that was taken up; one that waits for a place stays.
async fn reconcile<K: AgentOperation>(
    object: Arc<PartialObjectMeta<K>>,
    context: Arc<Context>,
) -> Result<Action, ReconcileError> {
    let name = object.name_any();
    let running = context.registry.is_running(&object.uid().unwrap_or_default());
    let api = context.own::<K>();
    let object = match retry::absent(api.get(&name).await) {
        Ok(Some(object)) => object,
        Ok(None) => return Ok(Action::await_change()),
        Err(source) => return Err(ReconcileError::Api { what: "get the object", source }),
    };
    let uid = object.uid().unwrap_or_default();
    let status = status_of(&object)?;
    let request = request::requested(&object);
    let now = Timestamp::now();
    let decision = decide(&Observed {
        phase: status.phase,
        attempts: status.attempts,
        started: status.start_time.as_ref().map(|time| time.0),
        timeout: duration::parse(object.timeout()).unwrap_or(Duration::from_hours(4)),
        running,
        deleting: object.meta().deletion_timestamp.is_some(),
        requested: request.as_ref().and_then(|(requested, _)| *requested),
        may_retry: K::may_retry(status.phase),
        now,
    });
    let generation = object.meta().generation.unwrap_or_default();
    let action = match decision {
        Decision::Nothing if status.phase.is_final() => Action::await_change(),
        Decision::Nothing => Action::requeue(WATCH_INTERVAL),
        Decision::Stop => {
            context.registry.stop(&uid);
            Action::requeue(ERROR_INTERVAL)
        }
        Decision::Begin { attempt, started } => {
            let Some(place) = context.registry.take(K::KIND, &uid) else {
                wait_in_queue(api, &object, status, generation, now).await?;
                return Ok(Action::requeue(QUEUE_INTERVAL));
            };
            begin(&context, &api, &object, status.begun(generation, attempt, started, now), place).await?;
            Action::requeue(WATCH_INTERVAL)
        }
        Decision::EndCancelled => {
            let failure = Failure::Cancelled;
            attempt::end_without_attempt(&context, &api, &object, status, &failure).await?;
            Action::await_change()
        }
        Decision::EndFailed { reason, message } => {
            let failure = Failure::new(reason, message);
            attempt::end_without_attempt(&context, &api, &object, status, &failure).await?;
            Action::await_change()
        }
    };
    if let Some((_, value)) = request {
        request::take_up(&api, &name, &value)
            .await
            .map_err(|source| ReconcileError::Api { what: "take up the request", source })?;
    }
    Ok(action)
}

/// Writes that an attempt begins, then begins it. A crash between the two costs one attempt, never two at once.
async fn begin<K: AgentOperation>(
    context: &Arc<Context>,
    api: &Api<K>,
    object: &K,
    status: OperationStatus,
    place: Place,
) -> Result<(), ReconcileError> {
    let writer = StatusWriter::new(api.clone(), object);
    writer.write(&status).await?;
    tokio::spawn(attempt::run(context.clone(), object.clone(), writer, status, place));
    Ok(())
}

/// Says that all places are taken, once.
async fn wait_in_queue<K: AgentOperation>(
    api: Api<K>,
    object: &K,
    status: OperationStatus,
    generation: i64,
    now: Timestamp,
) -> Result<(), ReconcileError> {
    if status.phase != OperationPhase::Pending {
        return Ok(());
    }
    let message = format!("waiting: {MAX_RUNNING} operations of kind {} run already, this one is next", K::KIND);
    let waiting = OperationStatus { observed_generation: generation, ..status.clone() }.with_phase(
        OperationPhase::Pending,
        "Queued",
        &message,
        now,
    );
    if waiting != status {
        StatusWriter::new(api, object).write(&waiting).await?;
    }
    Ok(())
}

/// The object's status in the shape of both kinds.
pub(super) fn status_of<K: AgentOperation>(object: &K) -> Result<OperationStatus, serde_json::Error> {
    let mut json = serde_json::to_value(object)?;
    match json.get_mut("status").map(serde_json::Value::take) {
        Some(status) if !status.is_null() => serde_json::from_value(status),
        _ => Ok(OperationStatus::default()),
    }
}
