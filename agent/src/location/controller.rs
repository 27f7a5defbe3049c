//! The controller of locations: tries them and reports.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::events::EventType;
use kube::runtime::watcher;
use kube::{Api, Resource, ResourceExt};
use serde_json::json;
use shoot_backup_api::backup_location::{BackupLocationStatus, LocationCluster, LocationPhase};
use shoot_backup_api::conditions::{self, Truth};
use shoot_backup_api::operation::Requested;
use shoot_backup_api::{BackupLocation, names};
use tokio_util::sync::CancellationToken;

use super::schedule::{Tried, wait};
use super::validate::{OWN_ENTRY, validate};
use crate::context::Context;
use crate::operation::request;
use crate::operation::status::READY;
use crate::retry;

/// Locations that are tried at once.
const CONCURRENCY: u16 = 4;
/// How soon a failed reconcile is repeated.
const ERROR_INTERVAL: Duration = Duration::from_secs(5);
/// How old the time of an unchanged outcome may get before it is written anew.
const STALE: Duration = Duration::from_mins(9);

/// What the reconciles share: the context, and when each location was tried.
struct State {
    context: Arc<Context>,
    tried: Mutex<HashMap<String, Tried>>,
}

/// A call of the API server that failed; the reconcile is repeated.
#[derive(Debug, thiserror::Error)]
#[error("failed to {what}")]
pub struct ReconcileError {
    what: &'static str,
    source: kube::Error,
}

/// Runs the controller of locations until `stop`.
pub async fn run(context: Arc<Context>, stop: CancellationToken) {
    let metadata: Api<PartialObjectMeta<BackupLocation>> = context.own();
    let state = Arc::new(State { context, tried: Mutex::default() });
    Controller::new(metadata, watcher::Config::default().any_semantic())
        .with_config(Config::default().concurrency(CONCURRENCY))
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(reconcile, error_policy, state)
        .for_each(|result| async move {
            if let Err(error) = result {
                tracing::debug!(%error, "reconcile of a location ended with an error");
            }
        })
        .await;
}

// The signature is the controller's.
#[allow(clippy::needless_pass_by_value)]
fn error_policy(object: Arc<PartialObjectMeta<BackupLocation>>, error: &ReconcileError, state: Arc<State>) -> Action {
    let causes = crate::operation::failure::with_causes(error);
    tracing::warn!(location = object.name_any(), error = %causes, "reconcile failed");
    state.context.metrics.reconcile_error("BackupLocation", "api");
    Action::requeue(ERROR_INTERVAL)
}

/// Tries a location if it is time:
/// 1. Read it; one that is gone is forgotten.
/// 2. Decide whether it is time ([`wait`]).
/// 3. Show `InProgress`, unless it is one of the regular tries: those must not make a location flicker.
/// 4. Try every verb; make sure of the location's marker.
/// 5. Write the outcome if it is news, and tell what changed by an event.
/// 6. Remove the request that was taken up.
async fn reconcile(
    object: Arc<PartialObjectMeta<BackupLocation>>,
    state: Arc<State>,
) -> Result<Action, ReconcileError> {
    let name = object.name_any();
    let uid = object.uid().unwrap_or_default();
    let api = state.context.own::<BackupLocation>();
    let object = retry::absent(api.get(&name).await)
        .map_err(|source| ReconcileError { what: "get the BackupLocation", source })?
        .filter(|object| object.metadata.deletion_timestamp.is_none());
    let Some(object) = object else {
        state.lock().remove(&uid);
        state.context.metrics.location_gone(&name);
        return Ok(Action::await_change());
    };
    let uid = object.uid().unwrap_or_default();
    let generation = object.metadata.generation.unwrap_or_default();
    let request = request::requested(&object);
    let requested = matches!(request, Some((Some(Requested::Validate), _)));
    let tried = state.lock().get(&uid).copied();
    let left = wait(tried.as_ref(), generation, requested, Timestamp::now());
    let interval = match left {
        Some(left) => left,
        None => state.attempt(&api, &object, tried, requested).await?,
    };
    if let Some((_, value)) = request {
        request::take_up(&api, &name, &value)
            .await
            .map_err(|source| ReconcileError { what: "take up the request", source })?;
    }
    Ok(Action::requeue(interval))
}

impl State {
    /// Tries a location and writes the outcome. Gives back when to try it again.
    async fn attempt(
        &self,
        api: &Api<BackupLocation>,
        object: &BackupLocation,
        tried: Option<Tried>,
        requested: bool,
    ) -> Result<Duration, ReconcileError> {
        let name = object.name_any();
        let generation = object.metadata.generation.unwrap_or_default();
        let old = object.status.clone().unwrap_or_default();
        if requested || old.observed_generation != generation || old.clusters.is_empty() {
            let begun = LocationCluster {
                name: OWN_ENTRY.to_owned(),
                phase: LocationPhase::InProgress,
                reason: "InProgress".to_owned(),
                message: "every verb is being tried".to_owned(),
                ..LocationCluster::default()
            };
            let status = status(&old, begun, generation, Timestamp::now());
            write(api, object, &status).await?;
        }
        let entry = validate(&self.context, &name, object).await;
        let now = Timestamp::now();
        let outcome = if entry.phase == LocationPhase::Valid { "valid" } else { "failed" };
        self.context.metrics.location_validated(&name, outcome);
        tracing::info!(location = name, reason = entry.reason, message = entry.message, "location tried");
        let status = status(&old, entry, generation, now);
        if requested || is_news(&old, &status, now) {
            write(api, object, &status).await?;
        }
        self.tell(object, &old, &status).await;
        let tried = remember(tried, generation, &status, now);
        self.lock().insert(object.uid().unwrap_or_default(), tried);
        Ok(tried.interval())
    }

    /// An event when the outcome is another than before.
    async fn tell(&self, object: &BackupLocation, old: &BackupLocationStatus, new: &BackupLocationStatus) {
        let Some(entry) = new.clusters.first() else { return };
        let before = old.clusters.first().map(|entry| (entry.phase, entry.reason.as_str()));
        if before == Some((entry.phase, entry.reason.as_str())) {
            return;
        }
        let type_ = if entry.phase == LocationPhase::Valid { EventType::Normal } else { EventType::Warning };
        self.context.event(object, type_, &entry.reason, "Validate", &entry.message).await;
    }

    /// A panic elsewhere cannot leave it half changed, so a poisoned lock is still good.
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Tried>> {
        self.tried.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn remember(tried: Option<Tried>, generation: i64, status: &BackupLocationStatus, now: Timestamp) -> Tried {
    let before = tried.filter(|tried| tried.generation == generation).map_or(0, |tried| tried.failures);
    let failures = if status.phase == LocationPhase::Valid { 0 } else { before.saturating_add(1) };
    Tried { generation, at: now, failures }
}

/// The status with this outcome.
fn status(old: &BackupLocationStatus, entry: LocationCluster, generation: i64, now: Timestamp) -> BackupLocationStatus {
    let mut conditions = old.conditions.clone();
    let truth = match entry.phase {
        LocationPhase::Valid => Truth::True,
        LocationPhase::Failed => Truth::False,
        LocationPhase::Pending | LocationPhase::InProgress => Truth::Unknown,
    };
    conditions::set(&mut conditions, READY, truth, &entry.reason, &entry.message, Some(generation), now);
    BackupLocationStatus {
        observed_generation: generation,
        phase: entry.phase,
        conditions,
        clusters_total: 1,
        clusters_valid: i64::from(entry.phase == LocationPhase::Valid),
        clusters: vec![LocationCluster { time: Some(Time(now)), ..entry }],
    }
}

/// Whether a status says something new. The time alone is news only once it has become old, else each try would write,
/// and each write be seen as a change.
fn is_news(old: &BackupLocationStatus, new: &BackupLocationStatus, now: Timestamp) -> bool {
    let written = old.clusters.first().and_then(|entry| entry.time.as_ref()).map(|time| time.0);
    let fresh = written.is_some_and(|written| now.duration_since(written).unsigned_abs() < STALE);
    let mut timeless = (old.clone(), new.clone());
    timeless.0.clusters.iter_mut().chain(&mut timeless.1.clusters).for_each(|entry| entry.time = None);
    !fresh || timeless.0 != timeless.1
}

async fn write(
    api: &Api<BackupLocation>,
    object: &BackupLocation,
    status: &BackupLocationStatus,
) -> Result<(), ReconcileError> {
    let name = object.name_any();
    let patch = json!({
        "apiVersion": BackupLocation::api_version(&()),
        "kind": BackupLocation::kind(&()),
        // The UID keeps a verdict from being written to another location of the same name.
        "metadata": {"name": name, "uid": object.uid()},
        "status": status,
    });
    let parameters = PatchParams::apply(names::AGENT_NAME).force();
    let patch = Patch::Apply(patch);
    retry::absent(retry::call(|| api.patch_status(&name, &parameters, &patch)).await)
        .map(drop)
        .map_err(|source| ReconcileError { what: "write the status", source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(phase: LocationPhase, reason: &str) -> LocationCluster {
        LocationCluster {
            name: OWN_ENTRY.to_owned(),
            phase,
            reason: reason.to_owned(),
            message: "m".to_owned(),
            ..LocationCluster::default()
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_changed_time_alone_is_no_news() {
        let old = status(&BackupLocationStatus::default(), entry(LocationPhase::Valid, "Valid"), 1, at(0));
        let same = status(&old, entry(LocationPhase::Valid, "Valid"), 1, at(60));
        assert!(!is_news(&old, &same, at(60)));
        let later = status(&old, entry(LocationPhase::Valid, "Valid"), 1, at(600));
        assert!(is_news(&old, &later, at(600)));
        let failed = status(&old, entry(LocationPhase::Failed, "Unreachable"), 1, at(60));
        assert!(is_news(&old, &failed, at(60)));
    }

    #[test]
    fn failures_in_a_row_are_counted_until_it_works() {
        let failed = status(&BackupLocationStatus::default(), entry(LocationPhase::Failed, "x"), 1, at(0));
        let first = remember(None, 1, &failed, at(0));
        let second = remember(Some(first), 1, &failed, at(10));
        assert_eq!((first.failures, second.failures), (1, 2));
        assert_eq!(remember(Some(second), 2, &failed, at(20)).failures, 1);
        let valid = status(&failed, entry(LocationPhase::Valid, "Valid"), 1, at(30));
        assert_eq!(remember(Some(second), 1, &valid, at(30)).failures, 0);
        assert_eq!(valid.clusters_valid, 1);
    }
}
