//! Reconciles a `Backup` or a `Restore`: the same way for both.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::{Api, Client, Resource, ResourceExt};
use shoot_backup_api::operation::Requested;
use shoot_backup_api::{ApplicationCluster, OperationPhase};

use super::merge::{self, Dispatched, Status as _};
use super::mirror::{self, Ownership};
use super::verdict::{self, Verdict, Why};
use super::{Error, is_left, location};
use crate::connections::Unavailable;
use crate::context::{self, Context};
use crate::request;

/// A running operation is looked at this often.
const ACTIVE_EVERY: Duration = Duration::from_secs(2);
/// One that waits for something else.
const WAITING_EVERY: Duration = Duration::from_secs(5);
/// What is missing may be on its way: people apply several objects at once, in any order.
const GRACE_SECONDS: i64 = 15;
/// A mirror in a cluster that does not answer does not keep its object for longer; it is removed when the cluster is back.
const DELETION_SECONDS: i64 = 120;

/// What the two kinds decide differently.
pub trait Judged: Dispatched {
    /// Whether the operation can go to its cluster.
    fn judge(
        &self,
        cluster: &ApplicationCluster,
        context: &Context,
    ) -> impl Future<Output = Result<Verdict, Error>> + Send;
}

/// Reconciles one operation: (1) let it go if it is deleted, (2) leave a finished one alone, (3) look for the cluster,
/// (4) take requests by annotation, (5) check and hand over once, (6) bring the status up.
pub async fn reconcile<K>(guarded: Arc<DeserializeGuard<K>>, context: Arc<Context>) -> Result<Action, Error>
where
    K: Judged + Send + Sync,
    K::Status: Send + Sync,
{
    let Ok(object) = &guarded.0 else {
        tracing::warn!(kind = %K::kind(&()), name = guarded.name_any(), "an object cannot be read");
        return Ok(Action::await_change());
    };
    let measurement = context.metrics.measure(kind_label::<K>());
    let result = dispatch(object, &context).await;
    measurement.ended(result.as_ref().map_or_else(Error::label, |_| "ok"));
    if result.is_ok() {
        context.failures.worked(&failure_key(&guarded));
    }
    result
}

/// What to do after an error.
#[allow(clippy::needless_pass_by_value, reason = "the signature is that of kube\'s error policy")]
pub fn failed<K>(guarded: Arc<DeserializeGuard<K>>, error: &Error, context: Arc<Context>) -> Action
where
    K: Resource<DynamicType = ()>,
{
    let name = failure_key(&guarded);
    tracing::warn!(name, %error, "failed to dispatch");
    Action::requeue(context.failures.failed(&name).min(Duration::from_secs(30)))
}

fn failure_key<K: Resource<DynamicType = ()>>(guarded: &DeserializeGuard<K>) -> String {
    format!("{} {}/{}", K::kind(&()), guarded.namespace().unwrap_or_default(), guarded.name_any())
}

fn kind_label<K: Resource<DynamicType = ()>>() -> &'static str {
    if K::kind(&()) == "Backup" { "Backup" } else { "Restore" }
}

/// One operation on its way.
struct Dispatch<'a, K: Dispatched> {
    object: &'a K,
    context: &'a Context,
    status: K::Status,
    now: Timestamp,
}

async fn dispatch<K>(object: &K, context: &Context) -> Result<Action, Error>
where
    K: Judged + Send + Sync,
    K::Status: Send + Sync,
{
    context.stores.ready().await?;
    let status = object.status().cloned().unwrap_or_default();
    let dispatch = Dispatch { object, context, status, now: Timestamp::now() };
    if object.meta().deletion_timestamp.is_some() {
        return dispatch.let_go().await;
    }
    let requested = mirror::requested(object);
    if object.phase().is_final() && requested != Some(Requested::Retry) {
        if requested.is_some() {
            mirror::taken_up(&context.garden, object).await.map_err(Error::Garden)?;
        }
        return Ok(Action::await_change());
    }
    let namespace = object.namespace().unwrap_or_default();
    let cluster = context.stores.cluster(&namespace, object.cluster());
    let Some(cluster) = cluster.filter(|cluster| !is_left(cluster)) else {
        // Missing, or not looked after: nobody can follow what runs there.
        let cluster = context.stores.cluster(&namespace, object.cluster());
        return match verdict::cluster(object.cluster(), cluster.as_ref()) {
            Err(verdict) => dispatch.conclude(verdict).await,
            Ok(()) => Ok(Action::requeue(WAITING_EVERY)),
        };
    };
    let client = match context.connections.client(&context::key(&cluster)) {
        Ok(client) => client,
        Err(unavailable) => return dispatch.unavailable(&cluster, &unavailable, requested).await,
    };
    let result = dispatch.through(&cluster, &client, requested).await;
    if let Err(Error::Cluster(error)) = &result
        && error.is_unreachable()
    {
        context.connections.mark_unreachable(&context::key(&cluster), &error.to_string());
    }
    result
}

impl<K> Dispatch<'_, K>
where
    K: Judged + Send + Sync,
    K::Status: Send + Sync,
{
    fn generation(&self) -> Option<i64> {
        self.object.meta().generation
    }

    /// Whether a reader may still be shown something that was applied a moment ago as missing.
    fn is_new(&self) -> bool {
        self.object
            .meta()
            .creation_timestamp
            .as_ref()
            .is_some_and(|created| self.now.as_second() - created.0.as_second() < GRACE_SECONDS)
    }

    async fn write(&self, status: &K::Status) -> Result<(), Error> {
        if Some(status) == self.object.status() {
            return Ok(());
        }
        let api: Api<K> = Api::namespaced(self.context.garden.clone(), &self.object.namespace().unwrap_or_default());
        request::write_status(&api, &self.object.name_any(), status).await.map_err(Error::Garden)?;
        let mut new = status.clone();
        let phase = *new.parts().phase;
        if phase != self.object.phase() {
            self.tell(&mut new).await;
        }
        Ok(())
    }

    async fn tell(&self, status: &mut K::Status) {
        let parts = status.parts();
        let message = shoot_backup_api::conditions::find(parts.conditions, merge::READY)
            .map(|ready| ready.message.clone())
            .unwrap_or_default();
        let phase = parts.phase.as_str();
        match parts.phase {
            OperationPhase::Failed | OperationPhase::PartiallyFailed => {
                self.context.events.warning(self.object, phase, &message).await;
            }
            OperationPhase::Pending => {}
            _ => self.context.events.normal(self.object, phase, &message).await,
        }
    }

    async fn wait(&self, why: &Why) -> Result<Action, Error> {
        let status = merge::waiting(&self.status, why.reason, &why.message, self.generation(), self.now);
        self.write(&status).await?;
        Ok(Action::requeue(WAITING_EVERY))
    }

    async fn conclude(&self, verdict: Verdict) -> Result<Action, Error> {
        match verdict {
            Verdict::Go { .. } => Ok(Action::requeue(ACTIVE_EVERY)),
            Verdict::Wait(why) => self.wait(&why).await,
            Verdict::Fail(why) if self.is_new() => self.wait(&why).await,
            Verdict::Fail(why) => {
                let (reason, message) = (why.reason, &why.message);
                self.end(OperationPhase::Failed, reason, message).await?;
                if mirror::requested(self.object).is_some() {
                    mirror::taken_up(&self.context.garden, self.object).await.map_err(Error::Garden)?;
                }
                Ok(Action::await_change())
            }
        }
    }

    async fn end(&self, phase: OperationPhase, reason: &str, message: &str) -> Result<(), Error> {
        let status = merge::ended(&self.status, phase, reason, message, self.generation(), self.now);
        self.write(&status).await
    }

    /// A cluster that cannot be asked is shown; the operation goes on there as soon as it can.
    async fn unavailable(
        &self,
        cluster: &ApplicationCluster,
        unavailable: &Unavailable,
        requested: Option<Requested>,
    ) -> Result<Action, Error> {
        // Nothing was handed over yet: that needs no cluster.
        let untouched = !self.object.finalizers().iter().any(|held| held == shoot_backup_api::names::FINALIZER);
        if requested == Some(Requested::Cancel) && untouched {
            return self.cancel().await;
        }
        let name = cluster.name_any();
        let verdict = verdict::cluster(&name, Some(cluster));
        // A garden side that has just begun has no connections yet: that is no news about a cluster that is ready.
        let away = matches!(unavailable, Unavailable::Unreachable(_)) || verdict.is_err();
        if away && requested == Some(Requested::Cancel) {
            let message = format!(
                "cancelled while ApplicationCluster {name} cannot be asked ({unavailable}): what runs there is stopped \
                 when it is back"
            );
            return self.end_unseen(OperationPhase::Cancelled, merge::CANCELLED_UNSEEN, &message, requested).await;
        }
        if away && merge::is_past_deadline(self.object, &self.status, self.now) {
            let message = format!(
                "it should have ended within its timeout, and ApplicationCluster {name} cannot be asked: {unavailable}; \
                 what runs there is stopped when it is back"
            );
            return self.end_unseen(OperationPhase::Failed, merge::DEADLINE, &message, requested).await;
        }
        if let Err(verdict) = verdict {
            return self.conclude(verdict).await;
        }
        let message = format!("waiting for ApplicationCluster {name}: {unavailable}");
        self.wait(&Why::new("ClusterUnreachable", message)).await
    }

    /// Ends it without its cluster; [`super::orphans`] removes the mirror there later.
    async fn end_unseen(
        &self,
        phase: OperationPhase,
        reason: &str,
        message: &str,
        requested: Option<Requested>,
    ) -> Result<Action, Error> {
        self.end(phase, reason, message).await?;
        if requested.is_some() {
            mirror::taken_up(&self.context.garden, self.object).await.map_err(Error::Garden)?;
        }
        Ok(Action::await_change())
    }

    async fn cancel(&self) -> Result<Action, Error> {
        self.end(OperationPhase::Cancelled, "Cancelled", "cancelled before it was handed to the cluster").await?;
        mirror::taken_up(&self.context.garden, self.object).await.map_err(Error::Garden)?;
        Ok(Action::await_change())
    }

    async fn through(
        &self,
        cluster: &ApplicationCluster,
        client: &Client,
        requested: Option<Requested>,
    ) -> Result<Action, Error> {
        let name = self.object.name_any();
        let Some(found) = mirror::get::<K>(client, &name).await.map_err(Error::Cluster)? else {
            return self.hand_over(cluster, client, requested).await;
        };
        match mirror::ownership(self.object, &found, cluster) {
            Ownership::Own => {}
            Ownership::Former => {
                mirror::delete(client, &found).await.map_err(Error::Cluster)?;
                let message = format!("waiting until a former {} of this name is gone from the cluster", K::kind(&()));
                return self.wait(&Why::new("FormerMirror", message)).await;
            }
            Ownership::Foreign => {
                let message = format!(
                    "the cluster has a {} {name} in namespace {} that belongs to somebody else: choose another name",
                    K::kind(&()),
                    shoot_backup_api::names::AGENT_NAMESPACE
                );
                return self.conclude(Verdict::Fail(Why::new("NameTaken", message))).await;
            }
        }
        if requested == Some(Requested::Retry) && merge::left_running(self.object, &found) {
            // What was given up still runs there: it is stopped before it begins again.
            mirror::delete(client, &found).await.map_err(Error::Cluster)?;
            return Ok(Action::requeue(WAITING_EVERY));
        }
        if let Some(requested) = requested {
            return self.pass_on(client, &found, requested).await;
        }
        if let Some(status) = merge::merge(self.object, &found, self.now) {
            self.write(&status).await?;
            let mut status = status;
            if status.parts().phase.is_final() {
                return Ok(Action::await_change());
            }
        }
        Ok(Action::requeue(ACTIVE_EVERY))
    }

    /// Puts a request on the mirror, then takes it from the object.
    async fn pass_on(&self, client: &Client, found: &K, requested: Requested) -> Result<Action, Error> {
        let may = match requested {
            Requested::Cancel => !found.phase().is_final(),
            Requested::Retry => K::may_retry(found.phase()),
            Requested::Validate | Requested::Discover => false,
        };
        if may {
            mirror::request::<K>(client, &self.object.name_any(), requested).await.map_err(Error::Cluster)?;
            if requested == Requested::Retry {
                let mut base = found.status().cloned().unwrap_or_default();
                *base.parts().observed_generation = self.generation().unwrap_or_default();
                self.write(&merge::again(&base, self.generation(), self.now)).await?;
            }
        } else {
            let message = format!("{} is not possible: it is {}; create another", requested.as_str(), found.phase());
            self.context.events.warning(self.object, "RequestIgnored", &message).await;
        }
        mirror::taken_up(&self.context.garden, self.object).await.map_err(Error::Garden)?;
        Ok(Action::requeue(ACTIVE_EVERY))
    }

    /// There is no mirror: makes one, if the operation may go to the cluster.
    async fn hand_over(
        &self,
        cluster: &ApplicationCluster,
        client: &Client,
        requested: Option<Requested>,
    ) -> Result<Action, Error> {
        if requested == Some(Requested::Cancel) {
            return self.cancel().await;
        }
        if requested == Some(Requested::Retry) {
            self.write(&merge::again(&self.status, self.generation(), self.now)).await?;
            mirror::taken_up(&self.context.garden, self.object).await.map_err(Error::Garden)?;
            return Ok(Action::requeue(Duration::from_secs(1)));
        }
        if let Err(verdict) = verdict::cluster(&cluster.name_any(), Some(cluster)) {
            return self.conclude(verdict).await;
        }
        let (spec, needed) = match self.object.judge(cluster, self.context).await? {
            Verdict::Go { spec, location } => (spec, location),
            other => return self.conclude(other).await,
        };
        mirror::hold(&self.context.garden, self.object).await.map_err(Error::Garden)?;
        // The agent should never see an operation before the location that it names.
        if let Err(why) = location::ensure_mirror(&needed, cluster, client, self.context).await? {
            return self.conclude(Verdict::Wait(why)).await;
        }
        let document = mirror::document(self.object, &spec, cluster);
        mirror::apply::<K>(client, &self.object.name_any(), &document).await.map_err(Error::Cluster)?;
        let message = format!("handed to the agent in cluster {}", cluster.name_any());
        let status = merge::waiting(&self.status, "HandedOver", &message, self.generation(), self.now);
        self.write(&status).await?;
        Ok(Action::requeue(ACTIVE_EVERY))
    }

    /// Deletes the mirror, then lets the object go. Data in the location is never touched.
    async fn let_go(&self) -> Result<Action, Error> {
        if !self.object.finalizers().iter().any(|held| held == shoot_backup_api::names::FINALIZER) {
            return Ok(Action::await_change());
        }
        let namespace = self.object.namespace().unwrap_or_default();
        let cluster = self.context.stores.cluster(&namespace, self.object.cluster());
        if let Some(cluster) = cluster.filter(|cluster| !is_left(cluster)) {
            let left = match self.context.connections.client(&context::key(&cluster)) {
                Ok(client) => match self.remove_mirror(&cluster, &client).await {
                    Ok(()) => None,
                    Err(error) if !is_overdue(self.object, self.now) => return Err(Error::Cluster(error)),
                    Err(error) => Some(error.to_string()),
                },
                Err(_) if !is_overdue(self.object, self.now) => return Ok(Action::requeue(WAITING_EVERY)),
                Err(unavailable) => Some(unavailable.to_string()),
            };
            if let Some(why) = left {
                let message = format!("{why}; its copy there is removed when the cluster is back");
                self.context.events.warning(self.object, "MirrorLeft", &message).await;
            }
        }
        mirror::release(&self.context.garden, self.object).await.map_err(Error::Garden)?;
        Ok(Action::await_change())
    }

    async fn remove_mirror(&self, cluster: &ApplicationCluster, client: &Client) -> Result<(), request::Error> {
        match mirror::get::<K>(client, &self.object.name_any()).await? {
            Some(found) if mirror::ownership(self.object, &found, cluster) == Ownership::Own => {
                mirror::delete(client, &found).await
            }
            _ => Ok(()),
        }
    }
}

/// Whether an object has waited long enough for a cluster that does not answer to be let go.
pub(super) fn is_overdue<K: Resource>(object: &K, now: Timestamp) -> bool {
    object
        .meta()
        .deletion_timestamp
        .as_ref()
        .is_some_and(|deleted| now.as_second() - deleted.0.as_second() >= DELETION_SECONDS)
}
