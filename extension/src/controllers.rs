//! Watches and controllers: who is told of what, and how much runs at once.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use futures::{Stream, StreamExt as _, stream};
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{Config as Limits, Controller, WatchStreamExt as _, watcher as watch};
use kube::{Api, Client, ResourceExt};
use shoot_backup_api::shoot::Shoot;
use shoot_backup_api::{ApplicationCluster, Backup, BackupLocation, ClusterDiscovery, Restore};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::context::{Context, Stores};
use crate::delivery::apply::Normalised;
use crate::discovery::{self, foreign::ForeignGardens, shoots};
use crate::dispatch::{self, operation, orphans};
use crate::events::Events;
use crate::failures::Failures;
use crate::metrics::Metrics;
use crate::onboarding;

/// Changes that wait for their readers. A reader that falls behind looks at everything.
const MAX_CHANGES: usize = 1024;
/// Clusters that are looked after at once. One that does not answer holds its place for seconds only.
const CLUSTERS_AT_ONCE: u16 = 64;
/// Objects of each other kind that are worked on at once.
const OBJECTS_AT_ONCE: u16 = 32;
/// Several changes within this time are one.
const DEBOUNCE: Duration = Duration::from_millis(300);
/// How often what is gone is forgotten.
const TIDY_EVERY: Duration = Duration::from_secs(30);
/// How often clusters are looked through for mirrors whose object is gone; a multiple of the above.
const ORPHANS_EVERY: u32 = 20;

/// Something that a cluster or a discovery depends on has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    /// The Shoot of this namespace and name.
    Shoot(String, String),
    /// Something in this namespace.
    Namespace(String),
    /// Anything: a watch began anew, and what was deleted meanwhile is not told.
    Everything,
}

/// Runs all controllers until `stop`, then lets what runs end.
pub async fn run(
    garden: Client,
    config: Config,
    roots: Vec<Vec<u8>>,
    instance: String,
    metrics: Arc<Metrics>,
    shared: &OnceLock<Stores>,
    stop: CancellationToken,
) {
    let (changes, _) = broadcast::channel(MAX_CHANGES);
    let (shoot_stream, shoot_store) =
        watched(&Api::<Shoot>::all(garden.clone()), shoots::slim, changes.clone(), |shoot| {
            Change::Shoot(shoot.namespace().unwrap_or_default(), shoot.name_any())
        });
    let slim = |_: &mut DeserializeGuard<ClusterDiscovery>| ();
    let discoveries: Api<DeserializeGuard<ClusterDiscovery>> = Api::all(garden.clone());
    let (discovery_stream, discovery_store) = watched(&discoveries, slim, changes.clone(), |discovery| {
        Change::Namespace(discovery.namespace().unwrap_or_default())
    });

    let everything = || watcher::Config::default().any_semantic();
    let clusters = Controller::new(Api::<DeserializeGuard<ApplicationCluster>>::all(garden.clone()), everything());
    let locations = Controller::new(Api::<DeserializeGuard<BackupLocation>>::all(garden.clone()), everything());
    let backups = Controller::new(Api::<DeserializeGuard<Backup>>::all(garden.clone()), everything());
    let restores = Controller::new(Api::<DeserializeGuard<Restore>>::all(garden.clone()), everything());
    let shoots = Controller::for_stream(shoot_stream, shoot_store.clone());
    let discoveries = Controller::for_stream(discovery_stream, discovery_store.clone());

    let stores = Stores {
        shoots: shoot_store,
        clusters: clusters.store(),
        discoveries: discovery_store,
        locations: locations.store(),
        backups: backups.store(),
        restores: restores.store(),
    };
    // Set once: a process leads once, and ends when it no longer does.
    let _ = shared.set(stores.clone());
    let context = Arc::new(Context {
        events: Events::new(garden.clone(), instance),
        garden,
        config,
        roots,
        stores: stores.clone(),
        connections: Arc::default(),
        foreign: ForeignGardens::default(),
        metrics,
        failures: Failures::default(),
        normalised: Normalised::default(),
        credentials: Mutex::default(),
        projects: Mutex::default(),
    });

    let cluster_changes = affected(changes.subscribe(), stores.clone(), clusters_of);
    let discovery_changes = affected(changes.subscribe(), stores, discoveries_of);
    let limits = |at_once| Limits::default().debounce(DEBOUNCE).concurrency(at_once);
    let ended = || stop.clone().cancelled_owned();
    tokio::join!(
        shoots
            .with_config(limits(OBJECTS_AT_ONCE))
            .graceful_shutdown_on(ended())
            .run(shoots::reconcile, shoots::failed, Arc::clone(&context))
            .for_each(|result| log("Shoot", result)),
        discoveries
            .with_config(limits(OBJECTS_AT_ONCE))
            .reconcile_on(discovery_changes)
            .graceful_shutdown_on(ended())
            .run(discovery::reconcile::reconcile, discovery::reconcile::failed, Arc::clone(&context))
            .for_each(|result| log("ClusterDiscovery", result)),
        clusters
            .with_config(limits(CLUSTERS_AT_ONCE))
            .reconcile_on(cluster_changes)
            .graceful_shutdown_on(ended())
            .run(onboarding::reconcile::reconcile, onboarding::reconcile::failed, Arc::clone(&context))
            .for_each(|result| log("ApplicationCluster", result)),
        locations
            .with_config(limits(OBJECTS_AT_ONCE))
            .graceful_shutdown_on(ended())
            .run(dispatch::location::reconcile, operation::failed, Arc::clone(&context))
            .for_each(|result| log("BackupLocation", result)),
        backups
            .with_config(limits(OBJECTS_AT_ONCE))
            .graceful_shutdown_on(ended())
            .run(operation::reconcile::<Backup>, operation::failed, Arc::clone(&context))
            .for_each(|result| log("Backup", result)),
        restores
            .with_config(limits(OBJECTS_AT_ONCE))
            .graceful_shutdown_on(ended())
            .run(operation::reconcile::<Restore>, operation::failed, Arc::clone(&context))
            .for_each(|result| log("Restore", result)),
        tidy(&context, &stop),
    );
}

/// A watch on all objects of a kind: the stream for the controller, the store, and a change for everyone else. A change is
/// told after the store knows of it.
fn watched<K>(
    api: &Api<K>,
    slim: impl Fn(&mut K) + Send + Sync + 'static,
    changes: broadcast::Sender<Change>,
    change: impl Fn(&K) -> Change + Send + 'static,
) -> (impl Stream<Item = Result<K, watcher::Error>> + Send + 'static, reflector::Store<K>)
where
    K: kube::Resource<DynamicType = ()> + Clone + Debug + serde::de::DeserializeOwned + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    let stream = watch(api.clone(), watcher::Config::default().any_semantic())
        .default_backoff()
        .modify(slim)
        .reflect(writer)
        .inspect(move |event| {
            let change = match event {
                Ok(Event::Apply(object) | Event::Delete(object)) => change(object),
                Ok(Event::InitDone) => Change::Everything,
                _ => return,
            };
            // Nobody listens any more when the process ends.
            let _ = changes.send(change);
        })
        .applied_objects();
    (stream, store)
}

/// The objects that changes affect.
fn affected<K, F>(
    changes: broadcast::Receiver<Change>,
    stores: Stores,
    select: F,
) -> impl Stream<Item = ObjectRef<K>> + Send + 'static
where
    K: kube::Resource<DynamicType = ()> + Send + 'static,
    F: Fn(&Change, &Stores) -> Vec<ObjectRef<K>> + Send + Sync + Copy + 'static,
{
    stream::unfold((changes, stores), move |(mut changes, stores)| async move {
        let change = match changes.recv().await {
            Ok(change) => change,
            Err(broadcast::error::RecvError::Lagged(_)) => Change::Everything,
            Err(broadcast::error::RecvError::Closed) => return None,
        };
        let objects = select(&change, &stores);
        Some((stream::iter(objects), (changes, stores)))
    })
    .flatten()
}

fn clusters_of(change: &Change, stores: &Stores) -> Vec<ObjectRef<DeserializeGuard<ApplicationCluster>>> {
    let concerned = |cluster: &ApplicationCluster| match change {
        Change::Everything => true,
        Change::Namespace(namespace) => cluster.namespace().as_ref() == Some(namespace),
        Change::Shoot(namespace, name) => {
            cluster.namespace().as_ref() == Some(namespace)
                && cluster
                    .spec
                    .shoot_ref
                    .as_ref()
                    .is_some_and(|reference| reference.discovery.is_none() && reference.name == *name)
        }
    };
    let clusters = stores.clusters.state();
    let concerned = clusters.iter().filter(|guarded| guarded.0.as_ref().is_ok_and(concerned));
    concerned.map(|guarded| ObjectRef::from_obj(guarded.as_ref())).collect()
}

fn discoveries_of(change: &Change, stores: &Stores) -> Vec<ObjectRef<DeserializeGuard<ClusterDiscovery>>> {
    let concerned = |discovery: &ClusterDiscovery| {
        discovery.spec.garden.is_none()
            && match change {
                Change::Everything => true,
                Change::Namespace(namespace) | Change::Shoot(namespace, _) => {
                    discovery.namespace().as_ref() == Some(namespace)
                }
            }
    };
    let discoveries = stores.discoveries.state();
    let concerned = discoveries.iter().filter(|guarded| guarded.0.as_ref().is_ok_and(concerned));
    concerned.map(|guarded| ObjectRef::from_obj(guarded.as_ref())).collect()
}

async fn tidy(context: &Context, stop: &CancellationToken) {
    let mut rounds: u32 = 0;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(TIDY_EVERY) => {}
        }
        if context.stores.ready().await.is_err() {
            return;
        }
        context.tidy();
        rounds = rounds.wrapping_add(1);
        if rounds.is_multiple_of(ORPHANS_EVERY) {
            tokio::select! {
                () = stop.cancelled() => return,
                () = orphans::remove(context) => {}
            }
        }
    }
}

/// Errors of reconciliations are logged where they are known best; here remain those of watches.
fn log<T, E>(
    kind: &'static str,
    result: Result<T, kube::runtime::controller::Error<E, watcher::Error>>,
) -> std::future::Ready<()>
where
    E: std::error::Error + 'static,
{
    if let Err(kube::runtime::controller::Error::QueueError(error)) = result {
        tracing::warn!(kind, %error, "a watch in the garden broke; it begins again");
    }
    std::future::ready(())
}
