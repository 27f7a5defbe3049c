//! Does for Shoots what gardenlet does, as far as it can be seen in the garden: status, CA objects, issuer, deletion.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::discovery::Documents;
use super::status::{self, Facts, Runs};
use crate::cluster::Cluster;
use crate::context::Context;
use crate::error::{Doing, Result};
use crate::garden_content::{PROJECT_NAMESPACE, SEED};
use crate::place::read;
use crate::{garden, objects, pki};

/// Annotation of a Shoot that names the cluster behind it, for Shoots that tests make up.
pub const BACKED_BY: &str = "landscape.shoot-backup/backed-by";

/// Shoot annotation by which its owner asks for a public issuer; it cannot be taken back.
const ISSUER: &str = "authentication.gardener.cloud/issuer";
const FINALIZER: &str = "gardener";
const STATUS: &str = "shoot.gardener.cloud/status";
/// Shoots looked at in one round; a landscape has a handful.
const MOST: u32 = 200;

/// Keeps the Shoots of a garden true for as long as the process lives.
pub(super) async fn keep(context: &Context, garden: Cluster, documents: &Documents) {
    loop {
        if let Some(client) = super::reachable(context, garden).await
            && let Err(error) = round(context, garden, &client, documents).await
        {
            tracing::warn!(%garden, error = %status::chain(&error), "failed to keep Shoots");
        }
        tokio::time::sleep(super::PACE).await;
    }
}

/// One look at all Shoots of the seed.
async fn round(context: &Context, garden: Cluster, client: &Client, documents: &Documents) -> Result<()> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("core.gardener.cloud", "v1beta1", "Shoot"));
    let all: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let seed = format!("spec.seedName={SEED}");
    let shoots = all
        .list(&ListParams::default().fields(&seed).limit(MOST))
        .await
        .doing(|| format!("list Shoots of {garden}"))?;
    for shoot in shoots {
        let namespace = shoot.metadata.namespace.clone().unwrap_or_default();
        let name = shoot.metadata.name.clone().unwrap_or_default();
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &namespace, &resource);
        let one = Shoot { context, garden, client, api, namespace, name, object: shoot };
        // One Shoot that cannot be kept must not stop the others.
        if let Err(error) = one.keep(documents).await {
            tracing::warn!(%garden, shoot = one.name, error = %status::chain(&error), "failed to keep Shoot");
        }
    }
    Ok(())
}

struct Shoot<'a> {
    context: &'a Context,
    garden: Cluster,
    client: &'a Client,
    api: Api<DynamicObject>,
    namespace: String,
    name: String,
    object: DynamicObject,
}

impl Shoot<'_> {
    async fn keep(&self, documents: &Documents) -> Result<()> {
        if self.object.metadata.deletion_timestamp.is_some() {
            return self.release(documents).await;
        }
        self.hold().await?;
        let Some(cluster) = self.cluster() else {
            return self.write_status(&status::without_cluster(&self.facts(None, &Health::default()))).await;
        };
        let health = Health::of(self.context, cluster).await;
        self.authorities(cluster).await?;
        let facts = self.facts(Some(cluster), &health);
        if facts.managed
            && let Some(client) = &health.client
        {
            documents.publish(&facts.issuer, client).await?;
        }
        let desired = status::desired(&facts);
        self.write_status(&desired).await?;
        self.label(status::label(&desired)).await
    }

    /// The cluster behind the Shoot.
    fn cluster(&self) -> Option<Cluster> {
        if let Some(name) = self.annotation(BACKED_BY) {
            return name.parse().ok();
        }
        let own = self.garden == Cluster::Garden && self.namespace == PROJECT_NAMESPACE;
        self.name.parse().ok().filter(|cluster: &Cluster| own && cluster.is_shoot())
    }

    fn annotation(&self, name: &str) -> Option<&str> {
        self.object.metadata.annotations.as_ref()?.get(name).map(String::as_str)
    }

    fn facts(&self, cluster: Option<Cluster>, health: &Health) -> Facts {
        let uid = self.object.metadata.uid.clone().unwrap_or_default();
        let project = self.namespace.strip_prefix("garden-").unwrap_or(&self.namespace).to_owned();
        let managed = self.annotation(ISSUER) == Some("managed");
        let address = cluster.map(|cluster| self.context.slot.apiserver(cluster)).unwrap_or_default();
        let issuer = match cluster {
            // A cluster that backs a Shoot of a test has one issuer only: its own, which is public.
            Some(cluster) if !cluster.is_shoot() => self.context.standalone_issuer(cluster),
            Some(_) if managed => self.context.managed_issuer(&project, &uid),
            _ => address.clone(),
        };
        Facts {
            technical_id: format!("shoot--{project}--{}", self.name),
            garden_identity: garden::identity(self.context, self.garden),
            generation: self.object.metadata.generation.unwrap_or_default(),
            asked_to_hibernate: flag(&self.object.data, "/spec/hibernation/enabled"),
            before: self.object.data.get("status").cloned().unwrap_or(Value::Null),
            runs: health.runs,
            now: Timestamp::now(),
            uid,
            managed,
            address,
            issuer,
        }
    }

    async fn write_status(&self, desired: &Value) -> Result<()> {
        let before = self.object.data.get("status").unwrap_or(&Value::Null);
        if status::same(before, desired) && !status::stale(before, Timestamp::now()) {
            return Ok(());
        }
        self.api
            .patch_status(&self.name, &PatchParams::default(), &Patch::Merge(&json!({"status": desired})))
            .await
            .doing(|| format!("write the status of Shoot {}/{}", self.namespace, self.name))?;
        Ok(())
    }

    /// Gardenlet's finalizer: a deleted Shoot stays until what belongs to it is gone.
    async fn hold(&self) -> Result<()> {
        let mut finalizers = self.object.metadata.finalizers.clone().unwrap_or_default();
        if finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
            return Ok(());
        }
        finalizers.push(FINALIZER.to_owned());
        self.set_finalizers(&finalizers).await
    }

    async fn set_finalizers(&self, finalizers: &[String]) -> Result<()> {
        // With the version that was read: nobody else's finalizer gets lost.
        let version = &self.object.metadata.resource_version;
        let patch = json!({"metadata": {"finalizers": finalizers, "resourceVersion": version}});
        match self.api.patch(&self.name, &PatchParams::default(), &Patch::Merge(&patch)).await {
            // Changed since, or gone: the next round sees how.
            Err(kube::Error::Api(answer)) if answer.is_conflict() || answer.is_not_found() => Ok(()),
            other => {
                other.map(|_| ()).doing(|| format!("set the finalizers of Shoot {}/{}", self.namespace, self.name))
            }
        }
    }

    /// The label by which people select healthy Shoots.
    async fn label(&self, value: &str) -> Result<()> {
        if self
            .object
            .metadata
            .labels
            .as_ref()
            .and_then(|labels| labels.get(STATUS))
            .is_some_and(|label| label == value)
        {
            return Ok(());
        }
        let patch = json!({"metadata": {"labels": {STATUS: value}}});
        self.api
            .patch(&self.name, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .doing(|| format!("label Shoot {}/{}", self.namespace, self.name))?;
        Ok(())
    }

    /// The objects that `shoots/adminkubeconfig` signs with.
    async fn authorities(&self, cluster: Cluster) -> Result<()> {
        let clients = self.context.pki.pair(&format!("{cluster}-client-ca"));
        let metadata = |name: &str| json!({"name": format!("{}.{name}", self.name), "namespace": self.namespace});
        objects::create(
            self.client,
            &json!({
                "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata("ca-cluster"),
                "data": {"ca.crt": read(&self.context.authority())?},
            }),
        )
        .await?;
        objects::create(
            self.client,
            &json!({
                "apiVersion": "core.gardener.cloud/v1beta1", "kind": "InternalSecret", "metadata": metadata("ca-client"),
                "stringData": {"ca.crt": read(&clients.certificate)?, "ca.key": pki::pkcs1(&read(&clients.key)?)?},
            }),
        )
        .await
    }

    /// Lets a deleted Shoot go, as gardenlet does when nothing of it is left.
    async fn release(&self, documents: &Documents) -> Result<()> {
        let facts = self.facts(self.cluster(), &Health::default());
        if facts.managed && self.cluster().is_some_and(Cluster::is_shoot) {
            documents.retract(&facts.issuer).await;
        }
        for (kind, version, suffix) in
            [("ConfigMap", "v1", "ca-cluster"), ("InternalSecret", "core.gardener.cloud/v1beta1", "ca-client")]
        {
            let name = format!("{}.{suffix}", self.name);
            let object =
                json!({"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": self.namespace}});
            match objects::api(self.client, &object)?.delete(&name, &DeleteParams::default()).await {
                Err(kube::Error::Api(answer)) if answer.is_not_found() => {}
                other => other.map(|_| ()).doing(|| format!("delete {kind} {name}"))?,
            }
        }
        let deleted = status::deleted(&facts);
        if !status::same(&facts.before, &deleted) {
            // gardener-apiserver lets the finalizer go only after this; the next round sees it written.
            return self.write_status(&deleted).await;
        }
        let finalizers = self.object.metadata.finalizers.iter().flatten();
        let others: Vec<_> = finalizers.filter(|finalizer| *finalizer != FINALIZER).cloned().collect();
        self.set_finalizers(&others).await
    }
}

/// How a cluster is.
#[derive(Default)]
struct Health {
    /// Set when the API server is ready.
    client: Option<Client>,
    runs: Runs,
}

impl Health {
    async fn of(context: &Context, cluster: Cluster) -> Self {
        let Some(client) = super::reachable(context, cluster).await else { return Self::default() };
        let nodes: Api<Node> = Api::all(client.clone());
        // From the API server's cache: this is asked often.
        let cached = ListParams::default().match_any();
        let nodes = tokio::time::timeout(Duration::from_secs(5), nodes.list(&cached)).await;
        let nodes_ready = matches!(nodes, Ok(Ok(list)) if !list.items.is_empty() && list.items.iter().all(node_ready));
        Self { client: Some(client), runs: if nodes_ready { Runs::All } else { Runs::ApiServer } }
    }
}

fn node_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|list| list.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"))
}

fn flag(data: &Value, pointer: &str) -> bool {
    data.pointer(pointer).and_then(Value::as_bool).unwrap_or_default()
}
