//! What every controller of the agent shares.

use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Namespace;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Client, Resource, ResourceExt};
use shoot_backup_api::conditions::truncate;
use shoot_backup_api::names;
use tokio::sync::OnceCell;

use crate::config::{Config, ConfigError};
use crate::metrics::Metrics;
use crate::operation::Registry;
use crate::retry;

/// Longest note of an event, in bytes. Source: Kubernetes, `events.k8s.io/v1`: note is at most 1 kB.
const MAX_NOTE: usize = 1000;

/// The pod that this process runs in.
#[derive(Clone, Debug, Default)]
pub struct Pod {
    /// Name of the pod.
    pub name: String,
    /// Namespace of the agent.
    pub namespace: String,
    /// Node it runs on; empty if unknown.
    pub node: String,
    /// Image of the agent, which is the image of the movers.
    pub image: String,
}

/// What the agent knows of its own cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterFacts {
    /// UID of namespace `kube-system`: the cluster's folder in a location.
    pub uid: String,
    /// Version of the API server, such as `v1.34.2`.
    pub version: String,
}

/// What every controller of the agent shares.
pub struct Context {
    /// Client of the agent's own cluster.
    pub client: Client,
    /// Path of `config.yaml`.
    pub config: PathBuf,
    /// The pod that this process runs in.
    pub pod: Pod,
    /// Counters and timers.
    pub metrics: Arc<Metrics>,
    /// Operations that run in this process.
    pub registry: Registry,
    recorder: Recorder,
    facts: OnceCell<ClusterFacts>,
}

impl Context {
    /// A context for this pod.
    #[must_use]
    pub fn new(client: Client, config: PathBuf, pod: Pod, metrics: Arc<Metrics>) -> Self {
        let reporter = Reporter {
            controller: names::AGENT_NAME.to_owned(),
            instance: (!pod.name.is_empty()).then(|| pod.name.clone()),
        };
        let recorder = Recorder::new(client.clone(), reporter);
        Self { client, config, pod, metrics, registry: Registry::default(), recorder, facts: OnceCell::new() }
    }

    /// The configuration as it is now.
    pub async fn config(&self) -> Result<Config, ConfigError> {
        Config::load(&self.config).await
    }

    /// The additional CA certificates as they are now.
    pub async fn extra_ca(&self) -> Result<Option<Vec<u8>>, ConfigError> {
        crate::config::extra_ca(&self.config).await
    }

    /// An API of the agent's own namespace.
    #[must_use]
    pub fn own<K>(&self) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.pod.namespace)
    }

    /// What the agent knows of its own cluster; asked once.
    pub async fn facts(&self) -> Result<&ClusterFacts, kube::Error> {
        self.facts
            .get_or_try_init(|| async {
                let namespaces: Api<Namespace> = Api::all(self.client.clone());
                let system = retry::call(|| namespaces.get("kube-system")).await?;
                let version = retry::call(|| self.client.apiserver_version()).await?;
                Ok(ClusterFacts { uid: system.uid().unwrap_or_default(), version: version.git_version })
            })
            .await
    }

    /// Publishes an event about an object. Events are a courtesy: one that cannot be written is logged, no more.
    pub async fn event<K>(&self, object: &K, type_: EventType, reason: &str, action: &str, note: &str)
    where
        K: Resource<DynamicType = ()>,
    {
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(truncate(note, MAX_NOTE).to_owned()),
            action: action.to_owned(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, &object.object_ref(&())).await {
            tracing::warn!(%error, reason, "failed to publish an event");
        }
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Context").field("pod", &self.pod).finish_non_exhaustive()
    }
}
