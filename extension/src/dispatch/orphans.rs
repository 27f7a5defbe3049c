//! Removes mirrors whose object in the garden is gone: those of clusters that did not answer when it was deleted.

use std::time::Duration;

use futures::{StreamExt as _, stream};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use shoot_backup_api::{ApplicationCluster, Backup, BackupLocation, Restore, names};

use super::merge::{self, Dispatched};
use super::mirror::{self, Kind};
use super::{is_left, selects};
use crate::context::{self, Context};
use crate::request::{self, timed, timed_opt};

/// Clusters that are looked through at once.
const AT_ONCE: usize = 4;
/// Longest time for one cluster: a slow one must not hold up the others.
const DEADLINE: Duration = Duration::from_mins(2);
/// Mirrors in one page of a list.
const PAGE: u32 = 200;

/// Looks through all clusters that answer.
pub async fn remove(context: &Context) {
    let clusters: Vec<ApplicationCluster> = context
        .stores
        .clusters
        .state()
        .iter()
        .filter_map(|guarded| guarded.0.as_ref().ok().cloned())
        .filter(|cluster| !is_left(cluster))
        .collect();
    stream::iter(clusters)
        .for_each_concurrent(AT_ONCE, |cluster| async move {
            let Ok(client) = context.connections.client(&context::key(&cluster)) else { return };
            match tokio::time::timeout(DEADLINE, remove_from(&cluster, &client, context)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(cluster = cluster.name_any(), %error, "failed to look for orphans"),
                Err(_) => {
                    tracing::warn!(cluster = cluster.name_any(), "looking for orphans took too long; goes on later");
                }
            }
        })
        .await;
}

async fn remove_from(cluster: &ApplicationCluster, client: &Client, context: &Context) -> Result<(), request::Error> {
    remove_kind(cluster, client, context, goes_on::<Backup>).await?;
    remove_kind(cluster, client, context, goes_on::<Restore>).await?;
    remove_kind(cluster, client, context, |location: &BackupLocation, _| selects(location, cluster)).await
}

/// Whether an operation is not one that ended in the garden while its cluster could not be told.
fn goes_on<K: Dispatched>(object: &K, found: &K) -> bool {
    mirror::requested(object).is_some() || !merge::left_running(object, found)
}

/// Removes mirrors that came through this cluster object and whose object is gone, is another one of the same name, or is
/// not `wanted` here. That it is gone is asked of the garden itself: a store may lag behind.
async fn remove_kind<K: Kind>(
    cluster: &ApplicationCluster,
    client: &Client,
    context: &Context,
    wanted: impl Fn(&K, &K) -> bool,
) -> Result<(), request::Error> {
    let garden: Api<K> = Api::namespaced(context.garden.clone(), &cluster.namespace().unwrap_or_default());
    let mut parameters = ListParams::default().limit(PAGE);
    loop {
        let page = timed(format!("list {}", K::plural(&())), mirror::api::<K>(client).list(&parameters)).await?;
        let empty = page.items.is_empty();
        for found in page.items {
            if !is_ours(&found, cluster) {
                continue;
            }
            let name = found.name_any();
            let what = format!("get {} {name}", K::kind(&()));
            let object = timed_opt(what, garden.get(&name)).await?;
            let origin = found.annotations().get(names::ANNOTATION_ORIGIN_UID);
            let kept = object.is_some_and(|object| object.meta().uid.as_ref() == origin && wanted(&object, &found));
            if !kept {
                tracing::info!(cluster = cluster.name_any(), kind = %K::kind(&()), name, "removes an orphan");
                mirror::delete(client, &found).await?;
            }
        }
        // A server that goes on with empty pages would never end.
        match page.metadata.continue_.filter(|token| !token.is_empty() && !empty) {
            Some(token) => parameters = parameters.continue_token(&token),
            None => return Ok(()),
        }
    }
}

fn is_ours<K: Kind>(found: &K, cluster: &ApplicationCluster) -> bool {
    found.meta().deletion_timestamp.is_none()
        && cluster.metadata.uid.is_some()
        && found.annotations().get(names::ANNOTATION_ORIGIN_CLUSTER) == cluster.metadata.uid.as_ref()
}
