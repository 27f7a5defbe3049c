//! Reconciles an `ApplicationCluster`.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};
use serde_json::json;
use shoot_backup_api::application_cluster::{ApplicationClusterPhase as Phase, condition};
use shoot_backup_api::conditions::Truth;
use shoot_backup_api::shoot::{FoundBy, NotReady, Shoot};
use shoot_backup_api::{ApplicationCluster, names, selector};

use super::connect::{self, Connected, Delivery, Wanted};
use super::identity::{self, Issuer};
use super::status::Draft;
use super::target::{self, Found, Target};
use super::{Error, credentials, heartbeat};
use crate::context::{self, Context};
use crate::delivery::Values;
use crate::discovery::plan::REMANAGED;
use crate::discovery::selection::Decision;
use crate::metrics::DiscoveredClusterLabels;
use crate::request::{self, timed};

/// A cluster that works is looked at this often; the agent's heartbeat comes every 10 s.
const EVERY: Duration = Duration::from_secs(10);
/// One that waits for its Shoot; changes of a Shoot of the own garden come at once.
const WAITING_EVERY: Duration = Duration::from_mins(1);
/// One that is not looked after, in case it comes back.
const LEFT_EVERY: Duration = Duration::from_mins(10);
/// Longest time of one reconciliation: one slow cluster must not keep its place for ever.
const DEADLINE: Duration = Duration::from_secs(150);
/// Longest wait after an error: a cluster that comes back should not have to wait.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// Reconciles one cluster: (1) find what it refers to, (2) decide whether it is looked after, (3) wait until its Shoot is
/// ready, (4) ask for the managed issuer, (5) connect, deliver, repair, (6) read the heartbeat, (7) put the identity and
/// the locations together, (8) write the status, always, and only if there is news.
pub async fn reconcile(
    guarded: Arc<DeserializeGuard<ApplicationCluster>>,
    context: Arc<Context>,
) -> Result<Action, Error> {
    let Ok(cluster) = &guarded.0 else {
        tracing::warn!(name = guarded.name_any(), "an ApplicationCluster cannot be read");
        return Ok(Action::await_change());
    };
    let measurement = context.metrics.measure("ApplicationCluster");
    let result = look_after(cluster, &context).await;
    measurement.ended(result.as_ref().map_or_else(Error::reason, |_| "ok"));
    if result.is_ok() {
        context.failures.worked(&failure_key(&guarded));
    }
    result
}

/// What to do after an error.
#[allow(clippy::needless_pass_by_value, reason = "the signature is that of kube\'s error policy")]
pub fn failed(guarded: Arc<DeserializeGuard<ApplicationCluster>>, error: &Error, context: Arc<Context>) -> Action {
    let name = failure_key(&guarded);
    tracing::warn!(name, reason = error.reason(), %error, "failed to look after a cluster");
    Action::requeue(context.failures.failed(&name).min(LONGEST_WAIT))
}

fn failure_key(guarded: &DeserializeGuard<ApplicationCluster>) -> String {
    format!("ApplicationCluster {}/{}", guarded.namespace().unwrap_or_default(), guarded.name_any())
}

async fn look_after(cluster: &ApplicationCluster, context: &Context) -> Result<Action, Error> {
    context.stores.ready().await?;
    if cluster.metadata.deletion_timestamp.is_some() {
        context.connections.drop_connection(&context::key(cluster));
        return Ok(Action::await_change());
    }
    let mut draft = Draft::new(cluster, Timestamp::now());
    let deadline = tokio::time::timeout(DEADLINE, work(cluster, &mut draft, context)).await;
    let result = deadline.unwrap_or(Err(Error::Timeout(DEADLINE.as_secs())));
    if let Err(error) = &result {
        draft.failed(error);
        if draft.old().phase != draft.status.phase {
            context.events.warning(cluster, error.reason(), &error.to_string()).await;
        }
    }
    show_kubeconfig(cluster, &draft, result.as_ref().err(), context);
    write(cluster, &draft, context).await?;
    result
}

async fn write(cluster: &ApplicationCluster, draft: &Draft, context: &Context) -> Result<(), Error> {
    if !draft.changed() {
        return Ok(());
    }
    let api: Api<ApplicationCluster> =
        Api::namespaced(context.garden.clone(), &cluster.namespace().unwrap_or_default());
    request::write_status(&api, &cluster.name_any(), &draft.status).await.map_err(Error::Garden)
}

async fn work(cluster: &ApplicationCluster, draft: &mut Draft, context: &Context) -> Result<Action, Error> {
    let Found { decision, target } = target::dereference(cluster, context).await?;
    let target = match decide(cluster, draft, &decision, target, context).await {
        Ok(target) => target,
        Err(action) => return Ok(action),
    };
    let mut shoot_issuer = None;
    if let Some(shoot) = target.shoot() {
        if let Some(why) = shoot.not_ready() {
            draft.set(condition::SHOOT_READY, Truth::False, why.reason(), &why.message());
            draft.sleeps(why.reason(), &why.message());
            draft.conclude(not_ready_phase(&why, draft.status.cluster_uid.is_some()), why.reason(), &why.message());
            context.connections.mark_unreachable(&context::key(cluster), &why.message());
            return Ok(Action::requeue(WAITING_EVERY));
        }
        draft.set(condition::SHOOT_READY, Truth::True, "ShootReady", "the Shoot is created and awake");
        let ours = context.config.manage_issuer && asks_for_issuer(shoot, draft.status.found_by.as_deref());
        shoot_issuer = Some(ask_for_issuer(cluster, &target, shoot, ours, context).await);
    }
    let known_issuer = match &shoot_issuer {
        Some(Issuer::Known(issuer)) => issuer.clone(),
        _ => cluster.spec.issuer.clone().unwrap_or_default(),
    };
    let values = values(cluster, known_issuer, context).await?;
    begin(cluster, draft, context).await?;
    let wanted = Wanted { cluster, target: &target, values };
    let Connected { connection, delivery } = connect::ensure(&wanted, context).await?;
    draft.set(condition::REACHABLE, Truth::True, "Answers", "the cluster's API server answers");
    if draft.status.cluster_uid.as_ref().is_some_and(|known| *known != connection.cluster_uid) {
        let message = "another cluster answers where this one was; it is taken in as a new one";
        context.events.warning(cluster, "ClusterReplaced", message).await;
        draft.forget_cluster();
        draft.set(condition::REACHABLE, Truth::True, "Answers", message);
    }
    draft.status.cluster_uid = Some(connection.cluster_uid.clone());
    draft.status.kubernetes_version = Some(connection.version.clone());
    delivered(cluster, draft, delivery.as_ref(), context).await;

    let issuer = shoot_issuer.unwrap_or_else(|| match &connection.issuer {
        Some(issuer) => Issuer::Known(issuer.clone()),
        None => Issuer::Missing("the cluster does not name its issuer: set spec.issuer to its public URL".to_owned()),
    });
    prove(cluster, draft, &issuer, context).await?;

    let beat = heartbeat::read(&connection.client).await.map_err(|error| {
        // Refused here as well means that the account is gone: the next round connects anew.
        if error.kind() == request::Kind::Refused {
            context.connections.drop_connection(&context::key(cluster));
        } else {
            context.connections.mark_unreachable(&context::key(cluster), &error.to_string());
        }
        Error::Cluster(error)
    })?;
    let why = if beat.is_fresh(Timestamp::now()) { None } else { heartbeat::explain(&connection.client).await };
    draft.heartbeat(&beat, why.as_deref());
    if draft.status.phase == Phase::Ready && draft.old().phase != Phase::Ready {
        context.events.normal(cluster, "Ready", "the agent works").await;
    }
    Ok(Action::requeue(EVERY))
}

/// A cluster that is expected to answer and does not is unreachable; one that is not taken in yet, or sleeps, is waited
/// for.
fn not_ready_phase(why: &NotReady, taken_in: bool) -> Phase {
    match why {
        NotReady::ApiServer(_) if taken_in => Phase::Unreachable,
        _ => Phase::Waiting,
    }
}

/// Notes whether the cluster is looked after. Returns what it refers to if it is, and when to look again if not.
async fn decide(
    cluster: &ApplicationCluster,
    draft: &mut Draft,
    decision: &Decision,
    target: Option<Target>,
    context: &Context,
) -> Result<Target, Action> {
    let (phase, reason, message) = match (decision, target) {
        (Decision::Managed(found_by), Some(target)) => {
            take_in(cluster, draft, found_by, target.shoot(), context).await;
            return Ok(target);
        }
        (Decision::Unmanaged(why), _) => {
            (Phase::Unmanaged, "NotSelected", format!("{why}; the agent is left as it is, backups stay listed"))
        }
        _ => (Phase::Removed, "ShootGone", "the Shoot is gone; its backups stay listed".to_owned()),
    };
    draft.set(condition::MANAGED, Truth::False, reason, &message);
    draft.conclude(phase, reason, &message);
    context.connections.drop_connection(&context::key(cluster));
    if draft.old().phase != phase {
        context.events.normal(cluster, reason, &message).await;
    }
    Err(Action::requeue(LEFT_EVERY))
}

async fn take_in(
    cluster: &ApplicationCluster,
    draft: &mut Draft,
    found_by: &str,
    shoot: Option<&Shoot>,
    context: &Context,
) {
    let old = draft.old();
    let was_left = matches!(old.phase, Phase::Unmanaged | Phase::Removed);
    let managed = shoot_backup_api::conditions::find(&old.conditions, condition::MANAGED);
    let again = was_left || managed.is_some_and(|managed| managed.reason == REMANAGED);
    let reason = if again { REMANAGED } else { "Selected" };
    let message = format!("taken in by {found_by}");
    draft.set(condition::MANAGED, Truth::True, reason, &message);
    draft.status.found_by = Some(found_by.to_owned());
    let Some(uid) = shoot.and_then(|shoot| shoot.metadata.uid.clone()) else { return };
    if draft.status.shoot_uid.as_ref().is_some_and(|known| *known != uid) {
        let message = "the Shoot was made anew under the same name: it is another cluster and is taken in as such; \
                       backups of the old one stay listed";
        context.events.warning(cluster, "ShootReplaced", message).await;
        draft.forget_cluster();
        context.connections.drop_connection(&context::key(cluster));
    }
    draft.status.shoot_uid = Some(uid);
}

/// Whether a Shoot may be changed for its issuer, which cannot be undone: only where somebody of its project wished for
/// backups, not because the landscape takes everything in.
fn asks_for_issuer(shoot: &Shoot, found_by: Option<&str>) -> bool {
    !shoot.opted_out() && found_by.is_some_and(|found_by| found_by != FoundBy::AutoEnabled.to_string())
}

/// Asks for the managed issuer where that is ours to do, and says where it stands.
async fn ask_for_issuer(
    cluster: &ApplicationCluster,
    target: &Target,
    shoot: &Shoot,
    ours: bool,
    context: &Context,
) -> Issuer {
    if let Some(issuer) = shoot.managed_issuer() {
        return Issuer::Known(issuer.to_owned());
    }
    let annotation = format!("{}={}", names::ANNOTATION_SHOOT_ISSUER, names::SHOOT_ISSUER_MANAGED);
    if shoot.wants_managed_issuer() {
        return Issuer::Missing(format!(
            "the Shoot has annotation {annotation}; waiting until Gardener has published the issuer, which the next \
             reconciliation of the Shoot does"
        ));
    }
    let Target::Shoot { own: true, garden, .. } = target else {
        return Issuer::Missing(format!("the Shoot has no public issuer: set annotation {annotation} on it"));
    };
    if !ours {
        return Issuer::Missing(format!(
            "the Shoot has no public issuer: set annotation {annotation} on it (it cannot be undone)"
        ));
    }
    let namespace = shoot.namespace().unwrap_or_default();
    let key = format!("issuer of Shoot {namespace}/{}", shoot.name_any());
    if context.failures.is_held(&key) {
        return Issuer::Missing(refused_issuer(&annotation));
    }
    let api: Api<Shoot> = Api::namespaced(garden.clone(), &namespace);
    let patch = json!({"metadata": {"annotations": {names::ANNOTATION_SHOOT_ISSUER: names::SHOOT_ISSUER_MANAGED}}});
    let what = format!("annotate Shoot {} with {annotation}", shoot.name_any());
    let patched = timed(what, api.patch(&shoot.name_any(), &PatchParams::default(), &Patch::Merge(patch))).await;
    match patched {
        Ok(_) => {
            let message = format!("asked Gardener for a managed issuer by annotation {annotation} on the Shoot");
            context.events.normal(cluster, "ManagedIssuerRequested", &message).await;
            Issuer::Missing(message)
        }
        Err(error) => {
            // Above all a webhook that forbids it: it will go on to do so.
            tracing::warn!(cluster = cluster.name_any(), %error, "failed to ask for a managed issuer");
            context.failures.hold(&key);
            let message = refused_issuer(&annotation);
            context.events.warning(cluster, "ManagedIssuerRefused", &format!("{message}: {error}")).await;
            Issuer::Missing(message)
        }
    }
}

fn refused_issuer(annotation: &str) -> String {
    format!(
        "the garden refused annotation {annotation} on the Shoot: see the events; it is tried again from time to time"
    )
}

async fn values(cluster: &ApplicationCluster, issuer: String, context: &Context) -> Result<Values, Error> {
    let namespace = cluster.namespace().unwrap_or_default();
    let identity = cluster.spec.identity.clone();
    let agent = &context.config.agent;
    Ok(Values {
        image: agent.image.clone(),
        cluster_name: cluster.name_any(),
        project: context.project(&namespace).await.map_err(Error::Garden)?,
        issuer,
        client_id: identity.as_ref().map(|identity| identity.client_id.clone()).unwrap_or_default(),
        tenant_id: identity.map(|identity| identity.tenant_id).unwrap_or_default(),
        extra_ca: agent.extra_ca.clone(),
        log_level: agent.log_level.clone(),
    })
}

/// Says that onboarding begins, before it does: people should not wait in the dark.
async fn begin(cluster: &ApplicationCluster, draft: &mut Draft, context: &Context) -> Result<(), Error> {
    let known = context.connections.get(&context::key(cluster)).is_some();
    if known || !matches!(draft.status.phase, Phase::Pending | Phase::Waiting | Phase::Unmanaged | Phase::Removed) {
        return Ok(());
    }
    draft.conclude(Phase::Onboarding, "Connecting", "connecting to the cluster and delivering the agent");
    write(cluster, draft, context).await
}

/// Notes what was delivered.
async fn delivered(cluster: &ApplicationCluster, draft: &mut Draft, delivery: Option<&Delivery>, context: &Context) {
    draft.set(condition::AGENT_DELIVERED, Truth::True, "Delivered", "the agent is there as it was delivered");
    match delivery {
        None => {}
        Some(Delivery::First) => context.events.normal(cluster, "AgentDelivered", "the agent was delivered").await,
        Some(Delivery::Upgrade) => {
            let message = "the agent was delivered again: its version, image or configuration changed";
            context.events.normal(cluster, "AgentUpgraded", message).await;
        }
        Some(Delivery::Repair(what)) => {
            let message = format!("the agent was delivered again: {what}");
            context.events.warning(cluster, "AgentRepaired", &message).await;
        }
    }
}

/// Puts identity and locations together, and tells once which credential has to be created.
async fn prove(
    cluster: &ApplicationCluster,
    draft: &mut Draft,
    issuer: &Issuer,
    context: &Context,
) -> Result<(), Error> {
    let namespace = cluster.namespace().unwrap_or_default();
    let locations = context.stores.locations_in(&namespace);
    let ids = credentials::client_ids(cluster, &locations);
    let identity = identity::status(cluster, issuer, &ids, &locations);
    draft.status.locations = identity::locations(cluster, &locations);
    let old = draft.old().workload_identity.clone().unwrap_or_default();
    let warnings: Vec<String> =
        ids.iter().filter_map(|id| credentials::warning(id, context.credentials_of(id))).collect();
    let truth = match (&identity.missing, &identity.verified_at) {
        (None, Some(_)) => Truth::True,
        (Some(_), Some(_)) => Truth::False,
        _ => Truth::Unknown,
    };
    let mut message = identity.missing.clone().unwrap_or_else(|| "a token exchange worked".to_owned());
    for warning in &warnings {
        message.push_str("; ");
        message.push_str(warning);
    }
    let reason = match truth {
        Truth::True => "TokenExchanged",
        Truth::False => "TokenExchangeFailed",
        Truth::Unknown => "NotVerified",
    };
    let before = shoot_backup_api::conditions::find(&draft.old().conditions, condition::WORKLOAD_IDENTITY)
        .map(|condition| condition.message.clone())
        .unwrap_or_default();
    draft.set(condition::WORKLOAD_IDENTITY, truth, reason, &message);
    let news = identity.issuer != old.issuer || identity.missing != old.missing;
    if news && identity.missing.is_some() && !identity.issuer.is_empty() {
        let project = context.project(&namespace).await.map_err(Error::Garden)?;
        let command = identity::command(&project, &cluster.name_any(), &identity);
        let client = if ids.is_empty() { String::new() } else { format!(" (client id {})", join(&ids)) };
        let note = format!(
            "issuer: {}, subject: {}, audience: {}{client}; {command}",
            identity.issuer, identity.subject, identity.audience
        );
        context.events.normal(cluster, "FederatedCredentialNeeded", &note).await;
    }
    for warning in warnings.iter().filter(|warning| !before.contains(warning.as_str())) {
        context.events.warning(cluster, "FederatedCredentialLimit", warning).await;
    }
    draft.status.workload_identity = Some(identity);
    Ok(())
}

fn join(ids: &std::collections::BTreeSet<String>) -> String {
    ids.iter().cloned().collect::<Vec<_>>().join(", ")
}

/// Shows in the metrics whether the kubeconfig of a cluster that a discovery found works.
fn show_kubeconfig(cluster: &ApplicationCluster, draft: &Draft, error: Option<&Error>, context: &Context) {
    let namespace = cluster.namespace().unwrap_or_default();
    let found_by = draft.status.found_by.as_deref().unwrap_or_default();
    let Some(name) = found_by.strip_prefix("Discovery/") else { return };
    let discovery = context::get(&context.stores.discoveries, &namespace, name);
    let labels = DiscoveredClusterLabels {
        config_name: name.to_owned(),
        project_name: namespace,
        label_selector: discovery.map(|discovery| selector::format(&discovery.spec.shoot_selector)).unwrap_or_default(),
        error_reason: error.map(Error::reason).unwrap_or_default().to_owned(),
        error_type: "cluster".to_owned(),
        cluster_name: cluster.name_any(),
    };
    context.metrics.shoot_kubeconfig(labels, error.is_some_and(Error::is_kubeconfig));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_wish_of_the_project_changes_a_shoot() {
        let shoot: Shoot = serde_json::from_value(json!({"metadata": {"name": "s"}})).unwrap();
        assert!(asks_for_issuer(&shoot, Some("Annotation")));
        assert!(asks_for_issuer(&shoot, Some("Discovery/a")));
        assert!(!asks_for_issuer(&shoot, Some("AutoEnabled")));
        let out = json!({"metadata": {"name": "s", "annotations": {names::ANNOTATION_ENABLED: "false"}}});
        assert!(!asks_for_issuer(&serde_json::from_value(out).unwrap(), Some("Manual")));
    }

    #[test]
    fn a_cluster_that_was_taken_in_is_unreachable_when_its_api_server_is_gone_and_waited_for_when_it_sleeps() {
        let gone = NotReady::ApiServer("does not answer".to_owned());
        assert_eq!(not_ready_phase(&gone, true), Phase::Unreachable);
        assert_eq!(not_ready_phase(&gone, false), Phase::Waiting);
        assert_eq!(not_ready_phase(&NotReady::Hibernated, true), Phase::Waiting);
    }
}
