//! What all reconciliations share: the garden's client, what is known of its objects, and the connections to clusters.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use k8s_openapi::api::core::v1::Namespace;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Client, Resource, ResourceExt};
use shoot_backup_api::operation::Operation as _;
use shoot_backup_api::shoot::Shoot;
use shoot_backup_api::{ApplicationCluster, Backup, BackupLocation, ClusterDiscovery, Restore};

use crate::config::Config;
use crate::connections::{ClusterKey, SharedConnections};
use crate::delivery::apply::Normalised;
use crate::discovery::foreign::ForeignGardens;
use crate::events::Events;
use crate::failures::Failures;
use crate::metrics::Metrics;
use crate::request::{self, timed_opt};

/// A store of one of our kinds. An object that cannot be read is kept as such, and never stops the others.
pub type Guarded<K> = Store<DeserializeGuard<K>>;

/// What is known of the garden's objects, kept current by watches.
#[derive(Clone)]
pub struct Stores {
    /// All Shoots of the own garden.
    pub shoots: Store<Shoot>,
    /// All clusters.
    pub clusters: Guarded<ApplicationCluster>,
    /// All discoveries.
    pub discoveries: Guarded<ClusterDiscovery>,
    /// All locations.
    pub locations: Guarded<BackupLocation>,
    /// All backups.
    pub backups: Guarded<Backup>,
    /// All restores.
    pub restores: Guarded<Restore>,
}

/// What all reconciliations share.
pub struct Context {
    /// The garden.
    pub garden: Client,
    /// The configuration.
    pub config: Config,
    /// CA certificates (DER) for servers whose kubeconfig names none: additional ones and the system's; empty: only those.
    pub roots: Vec<Vec<u8>>,
    /// What is known of the garden's objects.
    pub stores: Stores,
    /// Connections to application clusters.
    pub connections: SharedConnections,
    /// Connections to foreign gardens.
    pub foreign: ForeignGardens,
    /// Events.
    pub events: Events,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Backoff per object.
    pub failures: Failures,
    /// What servers write in their own way.
    pub normalised: Normalised,
    /// Federated credentials that each identity needs, counted from time to time.
    pub credentials: Mutex<HashMap<String, usize>>,
    /// Names of projects by namespace. They never change; as many as the garden has projects.
    pub projects: Mutex<HashMap<String, String>>,
}

/// The stores have ended: their watches were stopped, so the process is about to end.
#[derive(Debug, thiserror::Error)]
#[error("failed to read the garden's objects: the watches have ended")]
pub struct Ended;

impl Stores {
    /// Waits until every store has been filled once: before that, what is missing in a store may well exist.
    pub async fn ready(&self) -> Result<(), Ended> {
        self.shoots.wait_until_ready().await.map_err(|_| Ended)?;
        self.clusters.wait_until_ready().await.map_err(|_| Ended)?;
        self.discoveries.wait_until_ready().await.map_err(|_| Ended)?;
        self.locations.wait_until_ready().await.map_err(|_| Ended)?;
        self.backups.wait_until_ready().await.map_err(|_| Ended)?;
        self.restores.wait_until_ready().await.map_err(|_| Ended)
    }

    /// One Shoot of the own garden.
    #[must_use]
    pub fn shoot(&self, namespace: &str, name: &str) -> Option<Arc<Shoot>> {
        self.shoots.get(&ObjectRef::new(name).within(namespace))
    }

    /// One cluster.
    #[must_use]
    pub fn cluster(&self, namespace: &str, name: &str) -> Option<ApplicationCluster> {
        get(&self.clusters, namespace, name)
    }

    /// All clusters of a project.
    #[must_use]
    pub fn clusters_in(&self, namespace: &str) -> Vec<ApplicationCluster> {
        within(&self.clusters, namespace)
    }

    /// All discoveries of a project, by name.
    #[must_use]
    pub fn discoveries_in(&self, namespace: &str) -> Vec<ClusterDiscovery> {
        let mut discoveries = within(&self.discoveries, namespace);
        discoveries.sort_by_key(ResourceExt::name_any);
        discoveries
    }

    /// All locations of a project.
    #[must_use]
    pub fn locations_in(&self, namespace: &str) -> Vec<BackupLocation> {
        within(&self.locations, namespace)
    }

    /// All Shoots of a project.
    #[must_use]
    pub fn shoots_in(&self, namespace: &str) -> Vec<Arc<Shoot>> {
        self.shoots.state_filter(|shoot| shoot.metadata.namespace.as_deref() == Some(namespace))
    }

    /// Objects by kind and phase.
    #[must_use]
    pub fn phases(&self) -> HashMap<(&'static str, String), i64> {
        let mut counts = HashMap::new();
        let mut count = |kind: &'static str, phase: String| *counts.entry((kind, phase)).or_insert(0) += 1;
        for cluster in self.clusters.state().iter().filter_map(|guarded| guarded.0.as_ref().ok()) {
            let phase = cluster.status.as_ref().map(|status| status.phase).unwrap_or_default();
            count("ApplicationCluster", format!("{phase:?}"));
        }
        for location in self.locations.state().iter().filter_map(|guarded| guarded.0.as_ref().ok()) {
            let phase = location.status.as_ref().map(|status| status.phase).unwrap_or_default();
            count("BackupLocation", format!("{phase:?}"));
        }
        for backup in self.backups.state().iter().filter_map(|guarded| guarded.0.as_ref().ok()) {
            count("Backup", backup.phase().to_string());
        }
        for restore in self.restores.state().iter().filter_map(|guarded| guarded.0.as_ref().ok()) {
            count("Restore", restore.phase().to_string());
        }
        counts
    }
}

/// One object of a store that can be read.
#[must_use]
pub fn get<K>(store: &Guarded<K>, namespace: &str, name: &str) -> Option<K>
where
    K: Resource<DynamicType = ()> + Clone,
{
    store.get(&ObjectRef::new(name).within(namespace)).and_then(|guarded| guarded.0.as_ref().ok().cloned())
}

fn within<K>(store: &Guarded<K>, namespace: &str) -> Vec<K>
where
    K: Resource<DynamicType = ()> + Clone,
{
    let mut objects = Vec::new();
    for guarded in store.state() {
        if let Ok(object) = &guarded.0
            && object.meta().namespace.as_deref() == Some(namespace)
        {
            objects.push(object.clone());
        }
    }
    objects
}

impl Context {
    /// The project's name of a namespace in the garden.
    pub async fn project(&self, namespace: &str) -> Result<String, request::Error> {
        if let Some(known) = self.projects.lock().ok().and_then(|projects| projects.get(namespace).cloned()) {
            return Ok(known);
        }
        let api: Api<Namespace> = Api::all(self.garden.clone());
        let found = timed_opt(format!("get Namespace {namespace}"), api.get(namespace)).await?;
        let label = found.and_then(|found| found.metadata.labels).and_then(|mut labels| labels.remove(PROJECT_LABEL));
        let project = label.unwrap_or_else(|| namespace.strip_prefix("garden-").unwrap_or(namespace).to_owned());
        if let Ok(mut projects) = self.projects.lock() {
            projects.insert(namespace.to_owned(), project.clone());
        }
        Ok(project)
    }

    /// Federated credentials that an identity needs.
    #[must_use]
    pub fn credentials_of(&self, client_id: &str) -> usize {
        self.credentials.lock().ok().and_then(|counts| counts.get(client_id).copied()).unwrap_or_default()
    }

    /// Counts the federated credentials that each identity needs.
    fn count_credentials(&self) {
        let mut projects: HashMap<String, (Vec<ApplicationCluster>, Vec<BackupLocation>)> = HashMap::new();
        for guarded in self.stores.clusters.state() {
            if let Ok(cluster) = &guarded.0 {
                projects.entry(cluster.namespace().unwrap_or_default()).or_default().0.push(cluster.clone());
            }
        }
        for guarded in self.stores.locations.state() {
            if let Ok(location) = &guarded.0
                && let Some(project) = projects.get_mut(&location.namespace().unwrap_or_default())
            {
                project.1.push(location.clone());
            }
        }
        let counts = crate::onboarding::credentials::count(
            projects.values().map(|(clusters, locations)| (clusters.as_slice(), locations.as_slice())),
        );
        if let Ok(mut credentials) = self.credentials.lock() {
            *credentials = counts;
        }
    }

    /// Forgets connections and metrics of what is gone, and counts what is there.
    pub fn tidy(&self) {
        self.count_credentials();
        let clusters: HashSet<String> =
            self.stores.clusters.state().iter().filter_map(|guarded| guarded.uid()).collect();
        self.normalised.retain(|uid| clusters.contains(uid));
        self.connections.retain(|key| self.stores.cluster(&key.namespace, &key.name).is_some());
        self.foreign.retain(|namespace, name| get(&self.stores.discoveries, namespace, name).is_some());
        self.metrics.retain(
            |namespace, name| get(&self.stores.discoveries, namespace, name).is_some(),
            |namespace, name| self.stores.cluster(namespace, name).is_some(),
        );
    }
}

/// Label of a project's namespace. Source: Gardener, `docs/concepts/controller-manager.md`, project controller.
const PROJECT_LABEL: &str = "project.gardener.cloud/name";

/// The key of a cluster.
#[must_use]
pub fn key(cluster: &ApplicationCluster) -> ClusterKey {
    ClusterKey::new(&cluster.namespace().unwrap_or_default(), &cluster.name_any())
}
