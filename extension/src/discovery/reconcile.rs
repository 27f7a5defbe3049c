//! Reconciles a `ClusterDiscovery`.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams};
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};
use serde_json::json;
use shoot_backup_api::application_cluster::ShootReference;
use shoot_backup_api::cluster_discovery::{ClusterDiscoveryPhase, ClusterDiscoveryStatus, DiscoveryRun};
use shoot_backup_api::conditions::{self, Truth};
use shoot_backup_api::operation::Requested;
use shoot_backup_api::shoot::{FoundBy, Shoot};
use shoot_backup_api::{ClusterDiscovery, duration, names, selector};

use super::plan::{Candidate, Plan, plan};
use super::{Error, create, foreign, naming, selection};
use crate::context::Context;
use crate::metrics::{DiscoveryLabels, DiscoveryState};
use crate::request::timed;

/// The own garden is watched; this is only for what a watch may have missed.
const OWN_EVERY: Duration = Duration::from_mins(1);
/// A run that failed is made again after this time, or the interval if that is shorter.
const FAILED_EVERY: Duration = Duration::from_mins(5);
/// The time of the last run by itself is renewed at least this often where runs follow events.
const SHOW_EVERY: i64 = 900;
/// Longest time of one run: a slow garden must not keep its place for ever.
const DEADLINE: Duration = Duration::from_secs(150);
/// Shortest interval; the rules of the kind say so too.
const SHORTEST_INTERVAL: Duration = Duration::from_mins(15);

const READY: &str = "Ready";

/// Reconciles one discovery: (1) take the request by annotation up, (2) find out whether a run is due, (3) say that it
/// runs, (4) list Shoots, (5) plan, (6) make what is missing, (7) write status and metrics, (8) remove the annotation.
pub async fn reconcile(
    guarded: Arc<DeserializeGuard<ClusterDiscovery>>,
    context: Arc<Context>,
) -> Result<Action, Error> {
    let Ok(discovery) = &guarded.0 else {
        tracing::warn!(name = guarded.name_any(), "a ClusterDiscovery cannot be read");
        return Ok(Action::await_change());
    };
    let measurement = context.metrics.measure("ClusterDiscovery");
    let result = run(discovery, &context).await;
    measurement.ended(if result.is_ok() { "ok" } else { "error" });
    if result.is_ok() {
        context.failures.worked(&failure_key(discovery));
    }
    result
}

/// What to do after an error.
#[allow(clippy::needless_pass_by_value, reason = "the signature is that of kube\'s error policy")]
pub fn failed(guarded: Arc<DeserializeGuard<ClusterDiscovery>>, error: &Error, context: Arc<Context>) -> Action {
    let name = format!("ClusterDiscovery {}/{}", guarded.namespace().unwrap_or_default(), guarded.name_any());
    tracing::warn!(name, %error, "failed to run a discovery");
    Action::requeue(context.failures.failed(&name))
}

fn failure_key(discovery: &ClusterDiscovery) -> String {
    format!("ClusterDiscovery {}/{}", discovery.namespace().unwrap_or_default(), discovery.name_any())
}

async fn run(discovery: &ClusterDiscovery, context: &Context) -> Result<Action, Error> {
    context.stores.ready().await?;
    if discovery.metadata.deletion_timestamp.is_some() {
        context.metrics.discovery(labels(discovery, "", ""), DiscoveryState::Deleting, false);
        return Ok(Action::await_change());
    }
    let now = Timestamp::now();
    let manual = requested(discovery);
    let wait = due_in(discovery, now);
    if !manual && wait != Some(Duration::ZERO) {
        show(discovery, context);
        return Ok(wait.map_or_else(Action::await_change, Action::requeue));
    }
    let old = discovery.status.clone().unwrap_or_default();
    if discovery.spec.garden.is_some() {
        context.metrics.discovery(labels(discovery, "", ""), DiscoveryState::InProgress, false);
        let running = ClusterDiscoveryStatus { phase: ClusterDiscoveryPhase::InProgress, ..old.clone() };
        write(discovery, &old, &running, context).await?;
    }
    let outcome = tokio::time::timeout(DEADLINE, discover(discovery, context)).await;
    let outcome = outcome.unwrap_or(Err(Error::Timeout(DEADLINE.as_secs())));
    let status = finish(discovery, &outcome, manual, now, Timestamp::now());
    report(discovery, &old, &status, &outcome, context).await;
    write(discovery, &old, &status, context).await?;
    if manual {
        remove_request(discovery, context).await?;
    }
    if outcome.is_err() {
        let namespace = discovery.namespace().unwrap_or_default();
        context.foreign.forget(&namespace, &discovery.name_any());
    }
    let mut updated = discovery.clone();
    updated.status = Some(status);
    let wait = due_in(&updated, Timestamp::now());
    Ok(match wait {
        _ if discovery.spec.garden.is_none() && discovery.spec.auto_discover => Action::requeue(OWN_EVERY),
        Some(wait) => Action::requeue(wait.max(Duration::from_secs(1))),
        None => Action::await_change(),
    })
}

fn requested(discovery: &ClusterDiscovery) -> bool {
    let annotation = discovery.annotations().get(names::ANNOTATION_OPERATION);
    annotation.and_then(|value| Requested::parse(value)) == Some(Requested::Discover)
}

/// When the next automatic run is due; `None` if there is none.
fn due_in(discovery: &ClusterDiscovery, now: Timestamp) -> Option<Duration> {
    if !discovery.spec.auto_discover {
        return None;
    }
    // The own garden: every event leads here, and a run costs no request.
    if discovery.spec.garden.is_none() {
        return Some(Duration::ZERO);
    }
    let Some(status) = discovery.status.as_ref() else { return Some(Duration::ZERO) };
    if Some(status.observed_generation) != discovery.metadata.generation {
        return Some(Duration::ZERO);
    }
    let Some(last) = &status.last_automatic_discovery else { return Some(Duration::ZERO) };
    let interval = duration::parse(&discovery.spec.interval).unwrap_or(SHORTEST_INTERVAL).max(SHORTEST_INTERVAL);
    let interval = if last.succeeded { interval } else { interval.min(FAILED_EVERY) };
    let elapsed = Duration::from_secs((now.as_second() - last.completion_time.0.as_second()).max(0) as u64);
    Some(interval.saturating_sub(elapsed))
}

/// Shows in the metrics how the last run of a discovery ended that does not run now.
fn show(discovery: &ClusterDiscovery, context: &Context) {
    let conditions = discovery.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let failed = conditions::find(conditions, READY).filter(|ready| ready.status == Truth::False.as_str());
    let reason = failed.map(|ready| ready.reason.clone()).unwrap_or_default();
    let state = shown(discovery);
    let type_ = match (reason.as_str(), state) {
        ("", _) => "",
        ("ClustersFailed", _) => "cluster",
        (_, DiscoveryState::Invalid) => "configuration",
        _ => "connectivity",
    };
    context.metrics.discovery(labels(discovery, &reason, type_), state, type_ == "connectivity");
}

/// The state of a discovery that does not run now.
fn shown(discovery: &ClusterDiscovery) -> DiscoveryState {
    match discovery.status.as_ref().map(|status| status.phase).unwrap_or_default() {
        ClusterDiscoveryPhase::Invalid => DiscoveryState::Invalid,
        ClusterDiscoveryPhase::Failed => DiscoveryState::Failed,
        ClusterDiscoveryPhase::Success => DiscoveryState::Success,
        ClusterDiscoveryPhase::Pending | ClusterDiscoveryPhase::InProgress => DiscoveryState::InProgress,
    }
}

async fn discover(discovery: &ClusterDiscovery, context: &Context) -> Result<Plan, Error> {
    let namespace = discovery.namespace().unwrap_or_default();
    let clusters = context.stores.clusters_in(&namespace);
    let mut plan;
    if let Some(garden) = &discovery.spec.garden {
        let client = foreign::client(context, discovery, &namespace).await?;
        let shoots = foreign::list(&client, &garden.namespaces).await?;
        let candidates: Vec<_> = shoots.iter().map(|shoot| foreign_candidate(discovery, shoot)).collect();
        plan = self::plan(discovery, &candidates, &clusters)?;
        make(discovery, &candidates, &mut plan, context).await;
    } else {
        let discoveries = context.stores.discoveries_in(&namespace);
        let shoots = context.stores.shoots_in(&namespace);
        let candidates: Vec<_> = shoots
            .iter()
            .map(|shoot| Candidate {
                shoot,
                cluster_name: shoot.name_any(),
                reference: create::own_reference(&shoot.name_any()),
                found_by: selection::found_by(shoot, &discoveries, context.config.auto_enable, false),
            })
            .collect();
        plan = self::plan(discovery, &candidates, &clusters)?;
        make(discovery, &candidates, &mut plan, context).await;
    }
    Ok(plan)
}

fn foreign_candidate<'a>(discovery: &ClusterDiscovery, shoot: &'a Shoot) -> Candidate<'a> {
    let namespace = shoot.metadata.namespace.clone().unwrap_or_default();
    let name = shoot.name_any();
    let matches = shoot.matches(&discovery.spec.shoot_selector) == Ok(true);
    Candidate {
        shoot,
        cluster_name: naming::foreign(&namespace, &name),
        reference: ShootReference { name, discovery: Some(discovery.name_any()), namespace: Some(namespace) },
        found_by: matches.then(|| FoundBy::Discovery(discovery.name_any())),
    }
}

/// Makes the clusters that the plan names. One that cannot be made is counted, and does not stop the others.
async fn make(discovery: &ClusterDiscovery, candidates: &[Candidate<'_>], plan: &mut Plan, context: &Context) {
    let namespace = discovery.namespace().unwrap_or_default();
    for position in std::mem::take(&mut plan.create) {
        let Some(candidate) = candidates.get(position) else { continue };
        let cluster = create::cluster(
            &namespace,
            &candidate.cluster_name,
            candidate.reference.clone(),
            Some(candidate.shoot),
            Some(discovery),
        );
        if let Err(error) = create::create(context, &cluster).await {
            plan.counts.associated -= 1;
            plan.failed(format!("shoot {}", candidate.shoot.name_any()), error.to_string());
        }
    }
}

/// The status after a run.
fn finish(
    discovery: &ClusterDiscovery,
    outcome: &Result<Plan, Error>,
    manual: bool,
    begun: Timestamp,
    now: Timestamp,
) -> ClusterDiscoveryStatus {
    let mut status = discovery.status.clone().unwrap_or_default();
    let generation = discovery.metadata.generation;
    let (truth, reason, message) = match outcome {
        Ok(plan) => {
            status.counts = plan.counts;
            status.errors.clone_from(&plan.errors);
            status.phase =
                if plan.counts.failed == 0 { ClusterDiscoveryPhase::Success } else { ClusterDiscoveryPhase::Failed };
            let counts = plan.counts;
            let message = format!(
                "{} Shoots match, {} are associated, {} were left out, {} failed",
                counts.discovered, counts.associated, counts.skipped, counts.failed
            );
            let reason = if counts.failed == 0 { "Discovered" } else { "ClustersFailed" };
            (Truth::from(counts.failed == 0), reason, message)
        }
        Err(error) => {
            let invalid = error.type_label() == "configuration";
            status.phase = if invalid { ClusterDiscoveryPhase::Invalid } else { ClusterDiscoveryPhase::Failed };
            (Truth::False, error.reason(), error.to_string())
        }
    };
    let changed = conditions::set(&mut status.conditions, READY, truth, reason, &message, generation, now);
    status.observed_generation = generation.unwrap_or_default();
    let run = DiscoveryRun { start_time: Time(begun), completion_time: Time(now), succeeded: outcome.is_ok() };
    if manual {
        status.last_manual_discovery = Some(run);
    } else {
        let stale = status
            .last_automatic_discovery
            .as_ref()
            .is_none_or(|last| now.as_second() - last.completion_time.0.as_second() >= SHOW_EVERY);
        if changed || stale || discovery.spec.garden.is_some() {
            status.last_automatic_discovery = Some(run);
        }
    }
    status
}

async fn report(
    discovery: &ClusterDiscovery,
    old: &ClusterDiscoveryStatus,
    status: &ClusterDiscoveryStatus,
    outcome: &Result<Plan, Error>,
    context: &Context,
) {
    let (reason, type_) = match outcome {
        Ok(plan) if plan.counts.failed > 0 => ("ClustersFailed", "cluster"),
        Ok(_) => ("", ""),
        Err(error) => (error.reason(), error.type_label()),
    };
    let state = match status.phase {
        ClusterDiscoveryPhase::Invalid => DiscoveryState::Invalid,
        ClusterDiscoveryPhase::Failed => DiscoveryState::Failed,
        _ => DiscoveryState::Success,
    };
    context.metrics.discovery(labels(discovery, reason, type_), state, type_ == "connectivity");
    let message = conditions::find(&status.conditions, READY).map(|ready| ready.message.clone()).unwrap_or_default();
    let before = conditions::find(&old.conditions, READY).map(|ready| ready.message.clone()).unwrap_or_default();
    if message == before {
        return;
    }
    match status.phase {
        ClusterDiscoveryPhase::Success => context.events.normal(discovery, "Discovered", &message).await,
        _ => context.events.warning(discovery, "DiscoveryFailed", &message).await,
    }
}

fn labels(discovery: &ClusterDiscovery, reason: &str, type_: &str) -> DiscoveryLabels {
    DiscoveryLabels {
        config_name: discovery.name_any(),
        project_name: discovery.namespace().unwrap_or_default(),
        label_selector: selector::format(&discovery.spec.shoot_selector),
        error_reason: reason.to_owned(),
        error_type: type_.to_owned(),
    }
}

async fn write(
    discovery: &ClusterDiscovery,
    old: &ClusterDiscoveryStatus,
    status: &ClusterDiscoveryStatus,
    context: &Context,
) -> Result<(), Error> {
    if old == status {
        return Ok(());
    }
    let name = discovery.name_any();
    let api: Api<ClusterDiscovery> =
        Api::namespaced(context.garden.clone(), &discovery.namespace().unwrap_or_default());
    crate::request::write_status(&api, &name, status).await?;
    Ok(())
}

async fn remove_request(discovery: &ClusterDiscovery, context: &Context) -> Result<(), Error> {
    let name = discovery.name_any();
    let api: Api<ClusterDiscovery> =
        Api::namespaced(context.garden.clone(), &discovery.namespace().unwrap_or_default());
    let patch = json!({"metadata": {"annotations": {names::ANNOTATION_OPERATION: null}}});
    timed(
        format!("remove the annotation from ClusterDiscovery {name}"),
        api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)),
    )
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::selection::tests;
    use shoot_backup_api::cluster_discovery::ForeignGarden;
    use shoot_backup_api::references::SecretKeyReference;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn foreign(last: Option<(i64, bool)>) -> ClusterDiscovery {
        let mut discovery = tests::discovery("a", "prod");
        discovery.metadata.generation = Some(1);
        discovery.spec.garden = Some(ForeignGarden {
            kubeconfig_secret_ref: SecretKeyReference { name: "g".to_owned(), key: "kubeconfig".to_owned() },
            namespaces: vec!["garden-x".to_owned()],
        });
        discovery.status = Some(ClusterDiscoveryStatus {
            observed_generation: 1,
            last_automatic_discovery: last.map(|(second, succeeded)| DiscoveryRun {
                start_time: Time(at(second)),
                completion_time: Time(at(second)),
                succeeded,
            }),
            ..Default::default()
        });
        discovery
    }

    #[test]
    fn a_foreign_garden_is_asked_at_its_interval_and_sooner_after_a_failure() {
        assert_eq!(due_in(&foreign(None), at(0)), Some(Duration::ZERO));
        assert_eq!(due_in(&foreign(Some((0, true))), at(600)), Some(Duration::from_mins(50)));
        assert_eq!(due_in(&foreign(Some((0, false))), at(200)), Some(Duration::from_secs(100)));
        assert_eq!(due_in(&foreign(Some((0, true))), at(4000)), Some(Duration::ZERO));
    }

    #[test]
    fn a_changed_spec_is_run_at_once_and_one_on_demand_never_by_itself() {
        let mut discovery = foreign(Some((0, true)));
        discovery.metadata.generation = Some(2);
        assert_eq!(due_in(&discovery, at(1)), Some(Duration::ZERO));
        discovery.spec.auto_discover = false;
        assert_eq!(due_in(&discovery, at(1)), None);
    }

    #[test]
    fn an_interval_that_is_too_short_is_stretched() {
        let mut discovery = foreign(Some((0, true)));
        discovery.spec.interval = "1s".to_owned();
        assert_eq!(due_in(&discovery, at(1)), Some(Duration::from_secs(899)));
    }

    #[test]
    fn a_run_on_demand_is_noted_as_such() {
        let status = finish(&foreign(None), &Ok(Plan::default()), true, at(1), at(2));
        assert!(status.last_manual_discovery.is_some_and(|run| run.succeeded));
        assert!(status.last_automatic_discovery.is_none());
        assert_eq!(status.phase, ClusterDiscoveryPhase::Success);
    }

    #[test]
    fn a_selector_that_cannot_be_read_makes_the_discovery_invalid_even_without_shoots() {
        let mut discovery = tests::discovery("a", "prod");
        discovery.spec.shoot_selector = serde_json::from_value(json!({
            "matchExpressions": [{"key": "group", "operator": "Like", "values": ["x"]}],
        }))
        .unwrap();
        let outcome = plan(&discovery, &[], &[]).map_err(Error::from);
        let status = finish(&discovery, &outcome, false, at(1), at(2));
        assert_eq!(status.phase, ClusterDiscoveryPhase::Invalid);
        assert!(status.conditions[0].message.contains("Like"), "{}", status.conditions[0].message);
    }

    #[test]
    fn a_secret_that_is_missing_makes_the_discovery_invalid_and_says_so() {
        let error = Error::Secret { secret: "g".to_owned(), message: "it does not exist".to_owned() };
        let status = finish(&foreign(None), &Err(error), false, at(1), at(2));
        assert_eq!(status.phase, ClusterDiscoveryPhase::Invalid);
        assert!(status.conditions[0].message.contains("Secret g"));
    }
}
