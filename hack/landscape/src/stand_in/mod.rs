//! Stands in for gardenlet and Gardener's discovery server: keeps the status of Shoots true and publishes their issuers.
//! It also provisions volumes in every cluster with a node. One background process per landscape.

mod discovery;
mod shoots;
mod status;

use std::time::Duration;

use kube::Client;
use serde_json::Value;

use crate::cluster::Cluster;
use crate::context::Context;
use crate::control_plane;
use crate::error::Result;
use crate::kubeconfig;
use crate::landscape::Landscape;
use crate::provisioner;

pub use shoots::BACKED_BY;

/// Name of the component.
pub(crate) const COMPONENT: &str = "stand-in";

/// How often the world is looked at.
const PACE: Duration = Duration::from_secs(1);

/// Runs until the process is told to end.
pub(crate) async fn run(name: &str) -> Result<()> {
    let context = Landscape::attach(name)?.context;
    let documents = discovery::Documents::default();
    let server = discovery::serve(&context, documents.clone());
    let garden = shoots::keep(&context, Cluster::Garden, &documents);
    let foreign_garden = shoots::keep(&context, Cluster::ForeignGarden, &documents);
    let delta = publish_delta(&context, &documents);
    let nodes = Cluster::ALL.into_iter().filter(|cluster| cluster.has_node());
    let volumes = futures::future::join_all(nodes.map(|cluster| provision(&context, cluster)));
    tokio::select! {
        outcome = server => outcome,
        () = garden => Ok(()),
        () = foreign_garden => Ok(()),
        () = delta => Ok(()),
        _ = volumes => Ok(()),
        () = terminated() => Ok(()),
    }
}

async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut signal) => {
            signal.recv().await;
        }
        Err(error) => tracing::error!(%error, "failed to listen for SIGTERM"),
    }
}

/// Keeps a standalone cluster's issuer published, as a cloud does for the clusters that it sells.
async fn publish_delta(context: &Context, documents: &discovery::Documents) {
    let cluster = Cluster::Delta;
    let issuer = context.standalone_issuer(cluster);
    loop {
        if let Some(client) = reachable(context, cluster).await
            && let Err(error) = documents.publish(&issuer, &client).await
        {
            tracing::warn!(%cluster, %error, "failed to publish the issuer");
        }
        tokio::time::sleep(PACE * 5).await;
    }
}

/// Provisions volumes of a cluster whenever it is up.
async fn provision(context: &Context, cluster: Cluster) {
    loop {
        if let Some(client) = reachable(context, cluster).await {
            tracing::info!(%cluster, "provisioning volumes");
            tokio::select! {
                () = provisioner::run(client.clone(), context.place.volumes(cluster)) => {}
                () = lost(&client) => tracing::info!(%cluster, "lost the API server"),
            }
        }
        tokio::time::sleep(PACE).await;
    }
}

/// A client, when the cluster's API server is ready.
async fn reachable(context: &Context, cluster: Cluster) -> Option<Client> {
    context.processes.running(&control_plane::apiserver(cluster))?;
    let client = kubeconfig::client(&context.place.kubeconfig(cluster)).await.ok()?;
    control_plane::not_ready(&client).await.is_none().then_some(client)
}

/// Returns when the API server has not answered for some seconds.
async fn lost(client: &Client) {
    let mut missed = 0;
    while missed < 3 {
        tokio::time::sleep(PACE * 2).await;
        missed = if control_plane::not_ready(client).await.is_some() { missed + 1 } else { 0 };
    }
}

/// Whether the stand-in has seen this Shoot as it is now.
pub(crate) fn settled(shoot: &Value) -> bool {
    let status = &shoot["status"];
    status["observedGeneration"] == shoot["generation"]
        && status["lastOperation"]["state"] == "Succeeded"
        && status["hibernated"].as_bool().unwrap_or_default()
            == shoot.pointer("/spec/hibernation/enabled").and_then(Value::as_bool).unwrap_or_default()
        && status["conditions"]
            .as_array()
            .is_some_and(|list| !list.is_empty() && list.iter().all(|condition| condition["status"] == "True"))
}
