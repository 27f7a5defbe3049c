//! Reconciles a `BackupLocation`.

use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _, stream};
use jiff::Timestamp;
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::{Api, Client, ResourceExt};
use shoot_backup_api::application_cluster::ApplicationClusterPhase;
use shoot_backup_api::backup_location::LocationPhase;
use shoot_backup_api::operation::Requested;
use shoot_backup_api::{ApplicationCluster, BackupLocation, names};

use super::location_status::{self, Seen};
use super::mirror::{self, Ownership};
use super::operation::is_overdue;
use super::verdict::Why;
use super::{Error, is_left, selects};
use crate::connections::Unavailable;
use crate::context::{self, Context};
use crate::request::{self, timed_opt};

/// Clusters of one location that are asked at once.
const AT_ONCE: usize = 8;
/// While an agent works on it.
const ACTIVE_EVERY: Duration = Duration::from_secs(2);
/// When all have ended.
const SETTLED_EVERY: Duration = Duration::from_secs(15);

/// Reconciles one location: (1) let it go if it is deleted, (2) hold it, (3) mirror it into every cluster that may use it
/// and answers, (4) remove it where it may no longer be used, (5) put the status together, (6) take the request away.
pub async fn reconcile(guarded: Arc<DeserializeGuard<BackupLocation>>, context: Arc<Context>) -> Result<Action, Error> {
    let Ok(location) = &guarded.0 else {
        tracing::warn!(name = guarded.name_any(), "a BackupLocation cannot be read");
        return Ok(Action::await_change());
    };
    let measurement = context.metrics.measure("BackupLocation");
    let result = dispatch(location, &context).await;
    measurement.ended(result.as_ref().map_or_else(Error::label, |_| "ok"));
    if result.is_ok() {
        let name = format!("BackupLocation {}/{}", location.namespace().unwrap_or_default(), location.name_any());
        context.failures.worked(&name);
    }
    result
}

async fn dispatch(location: &BackupLocation, context: &Context) -> Result<Action, Error> {
    context.stores.ready().await?;
    let namespace = location.namespace().unwrap_or_default();
    let clusters = context.stores.clusters_in(&namespace);
    if location.metadata.deletion_timestamp.is_some() {
        return let_go(location, &clusters, context).await;
    }
    mirror::hold(&context.garden, location).await.map_err(Error::Garden)?;
    let requested = mirror::requested(location);
    let validate = requested == Some(Requested::Validate);
    let (selected, others): (Vec<_>, Vec<_>) =
        clusters.iter().filter(|cluster| !is_left(cluster)).partition(|cluster| selects(location, cluster));
    let looks: Vec<_> = selected.into_iter().map(|cluster| one(location, cluster, validate, context).boxed()).collect();
    let seen: Vec<Seen> = stream::iter(looks).buffer_unordered(AT_ONCE).collect().await;
    let withdrawals: Vec<_> = others
        .into_iter()
        .filter(|cluster| is_listed(location, &cluster.name_any()))
        .map(|cluster| withdraw(location, cluster, context).boxed())
        .collect();
    stream::iter(withdrawals).for_each_concurrent(AT_ONCE, |withdrawal| withdrawal).await;
    let settled = seen
        .iter()
        .all(|one| !one.reachable || matches!(one.entry.phase, LocationPhase::Valid | LocationPhase::Failed));
    let status = location_status::status(location, seen, Timestamp::now());
    if location.status.as_ref() != Some(&status) {
        let before = location.status.as_ref().map(|status| status.phase).unwrap_or_default();
        let api: Api<BackupLocation> = Api::namespaced(context.garden.clone(), &namespace);
        request::write_status(&api, &location.name_any(), &status).await.map_err(Error::Garden)?;
        tell(location, before, &status, context).await;
    }
    if requested.is_some() {
        mirror::taken_up(&context.garden, location).await.map_err(Error::Garden)?;
    }
    Ok(Action::requeue(if settled { SETTLED_EVERY } else { ACTIVE_EVERY }))
}

fn is_listed(location: &BackupLocation, cluster: &str) -> bool {
    location.status.as_ref().is_some_and(|status| status.clusters.iter().any(|entry| entry.name == cluster))
}

async fn tell(
    location: &BackupLocation,
    before: LocationPhase,
    status: &shoot_backup_api::BackupLocationStatus,
    context: &Context,
) {
    let message = status.conditions.first().map(|ready| ready.message.clone()).unwrap_or_default();
    match status.phase {
        LocationPhase::Failed if before != LocationPhase::Failed => {
            context.events.warning(location, "ValidationFailed", &message).await;
        }
        LocationPhase::Valid if before != LocationPhase::Valid => {
            context.events.normal(location, "Valid", &message).await;
        }
        _ => {}
    }
}

/// One cluster. It never fails: what goes wrong is what is seen of it.
async fn one(location: &BackupLocation, cluster: &ApplicationCluster, validate: bool, context: &Context) -> Seen {
    let name = cluster.name_any();
    let known = location.status.as_ref().and_then(|status| status.clusters.iter().find(|entry| entry.name == name));
    let client = match context.connections.client(&context::key(cluster)) {
        Ok(client) => client,
        Err(unavailable) => {
            let reason = match unavailable {
                // A garden side that has just begun has no connections yet: that is no news about the cluster.
                Unavailable::NotConnected if is_ready(cluster) => {
                    if let Some(known) = known {
                        return Seen { entry: known.clone(), reachable: true };
                    }
                    "NotConnected"
                }
                Unavailable::NotConnected => "NotConnected",
                Unavailable::Unreachable(_) => "Unreachable",
            };
            return location_status::unreachable(known, &name, reason, &unavailable.to_string());
        }
    };
    if location_status::identity(location, cluster).is_none() {
        let message = "neither the location nor the ApplicationCluster names an identity: set spec.identity";
        return location_status::failed(&name, "NoIdentity", message);
    }
    match look(location, cluster, &client, validate, context).await {
        Ok(Ok(found)) => match location_status::silent(cluster) {
            Some(message) => location_status::unreachable(known, &name, "AgentSilent", &message),
            None => location_status::from_mirror(location, &found, &name),
        },
        Ok(Err(why)) => location_status::failed(&name, why.reason, &why.message),
        Err(error) => {
            if let Error::Cluster(error) = &error
                && error.is_unreachable()
            {
                context.connections.mark_unreachable(&context::key(cluster), &error.to_string());
            }
            tracing::warn!(cluster = name, location = location.name_any(), %error, "failed to mirror a location");
            location_status::unreachable(known, &name, "RequestFailed", &error.to_string())
        }
    }
}

fn is_ready(cluster: &ApplicationCluster) -> bool {
    cluster.status.as_ref().is_some_and(|status| status.phase == ApplicationClusterPhase::Ready)
}

async fn look(
    location: &BackupLocation,
    cluster: &ApplicationCluster,
    client: &Client,
    validate: bool,
    context: &Context,
) -> Result<Result<BackupLocation, Why>, Error> {
    let mut found = match ensure_mirror(location, cluster, client, context).await? {
        Ok(found) => found,
        Err(why) => return Ok(Err(why)),
    };
    if validate {
        mirror::request::<BackupLocation>(client, &location.name_any(), Requested::Validate)
            .await
            .map_err(Error::Cluster)?;
        found.annotations_mut().insert(names::ANNOTATION_OPERATION.to_owned(), "validate".to_owned());
    }
    Ok(Ok(found))
}

/// Makes sure that a cluster has the location as it is now. `Err(Why)` says why it cannot have it.
pub async fn ensure_mirror(
    location: &BackupLocation,
    cluster: &ApplicationCluster,
    client: &Client,
    context: &Context,
) -> Result<Result<BackupLocation, Why>, Error> {
    let name = location.name_any();
    let spec = match location_status::mirrored_spec(location, cluster) {
        Ok(spec) => spec,
        Err(error) => return Ok(Err(Why::new("SpecUnusable", error.to_string()))),
    };
    let document = mirror::document(location, &spec, cluster);
    if let Some(found) = mirror::get::<BackupLocation>(client, &name).await.map_err(Error::Cluster)? {
        match mirror::ownership(location, &found, cluster) {
            Ownership::Own => {
                let same = serde_json::to_value(&found.spec).is_ok_and(|live| live == spec);
                let origin = found.annotations().get(names::ANNOTATION_ORIGIN_GENERATION);
                let generation = location.metadata.generation.unwrap_or_default().to_string();
                if same && origin == Some(&generation) {
                    return Ok(Ok(found));
                }
            }
            Ownership::Former => mirror::delete(client, &found).await.map_err(Error::Cluster)?,
            Ownership::Foreign => {
                let message = format!(
                    "the cluster has a BackupLocation {name} in namespace {} that belongs to somebody else: choose \
                     another name",
                    names::AGENT_NAMESPACE
                );
                return Ok(Err(Why::new("NameTaken", message)));
            }
        }
    }
    // An object that the agent knows of must be held in the garden before.
    mirror::hold(&context.garden, location).await.map_err(Error::Garden)?;
    mirror::apply(client, &name, &document).await.map_err(Error::Cluster).map(Ok)
}

/// Removes the mirror from a cluster that may no longer use the location. What fails here is done by
/// [`super::orphans`] later.
async fn withdraw(location: &BackupLocation, cluster: &ApplicationCluster, context: &Context) {
    let Ok(client) = context.connections.client(&context::key(cluster)) else { return };
    if let Err(error) = remove(location, cluster, &client).await {
        tracing::warn!(cluster = cluster.name_any(), location = location.name_any(), %error, "failed to withdraw a location");
    }
}

async fn remove(
    location: &BackupLocation,
    cluster: &ApplicationCluster,
    client: &Client,
) -> Result<(), request::Error> {
    let found = mirror::get::<BackupLocation>(client, &location.name_any()).await?;
    match found {
        Some(found) if mirror::ownership(location, &found, cluster) == Ownership::Own => {
            mirror::delete(client, &found).await
        }
        _ => Ok(()),
    }
}

async fn is_removed(location: &BackupLocation, cluster: &ApplicationCluster, context: &Context) -> bool {
    match context.connections.client(&context::key(cluster)) {
        Ok(client) => remove(location, cluster, &client).await.is_ok(),
        Err(_) => false,
    }
}

/// Removes the mirrors, then lets the object go. Data in the location is never touched.
async fn let_go(
    location: &BackupLocation,
    clusters: &[ApplicationCluster],
    context: &Context,
) -> Result<Action, Error> {
    if !location.finalizers().iter().any(|held| held == names::FINALIZER) {
        return Ok(Action::await_change());
    }
    let removals: Vec<_> = clusters
        .iter()
        .filter(|cluster| !is_left(cluster))
        .map(|cluster| is_removed(location, cluster, context).boxed())
        .collect();
    let removed: Vec<bool> = stream::iter(removals).buffer_unordered(AT_ONCE).collect().await;
    if removed.contains(&false) && !is_overdue(location, Timestamp::now()) {
        return Ok(Action::requeue(ACTIVE_EVERY));
    }
    mirror::release(&context.garden, location).await.map_err(Error::Garden)?;
    Ok(Action::await_change())
}

/// Finds a location: in the store, or, since that may lag behind, in the garden itself.
pub async fn find(context: &Context, namespace: &str, name: &str) -> Result<Option<BackupLocation>, Error> {
    if let Some(found) = context::get(&context.stores.locations, namespace, name) {
        return Ok(Some(found));
    }
    let api: Api<BackupLocation> = Api::namespaced(context.garden.clone(), namespace);
    timed_opt(format!("get BackupLocation {name}"), api.get(name)).await.map_err(Error::Garden)
}
