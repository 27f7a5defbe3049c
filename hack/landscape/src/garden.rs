//! A garden: gardener-apiserver behind a kube-apiserver by API aggregation.

use kube::Client;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::context::Context;
use crate::error::Result;
use crate::kubeconfig;
use crate::objects;
use crate::pki::Key;
use crate::place::read;
use crate::process::Start;
use crate::slot::Port;
use crate::wait::{self, Seen};

/// Group versions that gardener-apiserver serves.
const SERVED: [(&str, &str); 5] = [
    ("core.gardener.cloud", "v1"),
    ("core.gardener.cloud", "v1beta1"),
    ("seedmanagement.gardener.cloud", "v1alpha1"),
    ("operations.gardener.cloud", "v1alpha1"),
    ("security.gardener.cloud", "v1alpha1"),
];

/// Name of the component.
pub(crate) fn gardener_apiserver(cluster: Cluster) -> String {
    format!("{cluster}-gardener-apiserver")
}

/// Starts gardener-apiserver for this garden and waits until its APIs are served.
///
/// All of Gardener's admission plugins that are on by default are on: none had to be switched off.
pub(crate) async fn ensure(context: &Context, cluster: Cluster, client: &Client) -> Result<()> {
    let component = gardener_apiserver(cluster);
    let port = context.slot.port(Port::GardenerApiserver(cluster));
    let servers = context.pki.authority("ca", Key::Ec)?;
    let names = ["localhost", "gardener-apiserver.kube-system.svc"];
    let server = context.pki.server(&servers, &component, &names, &[[127, 0, 0, 1].into()])?;
    let token_key = context.pki.key(&format!("{cluster}-workload-identity"), Key::Rsa)?;
    // The admin's kubeconfig: the identity counts for nothing here but access.
    let own = context.place.kubeconfig(cluster);
    let start = Start::new(context.programs.gardener("gardener-apiserver"))
        .args(["--bind-address=127.0.0.1", &format!("--secure-port={port}"), "--profiling=false"])
        .arg(format!("--etcd-servers=http://127.0.0.1:{}", context.slot.port(Port::Etcd)))
        .arg(format!("--etcd-prefix=/registry-{cluster}-gardener"))
        .arg(format!("--tls-cert-file={}", server.certificate.display()))
        .arg(format!("--tls-private-key-file={}", server.key.display()))
        .arg(format!("--cluster-identity={}", identity(context, cluster)))
        .arg("--authorization-always-allow-paths=/healthz")
        .args(
            ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"]
                .map(|flag| format!("--{flag}={}", own.display())),
        )
        .arg(format!("--workload-identity-token-issuer={}/garden/workload-identity/issuer", context.slot.discovery()))
        .arg(format!("--workload-identity-signing-key-file={}", token_key.display()))
        .env("GOMAXPROCS", "2");
    context.processes.ensure(&component, &start).await?;
    let health = format!("https://localhost:{port}/healthz");
    context.processes.ready(&component, 120, || crate::http::not_ready(&context.http, &health)).await?;
    objects::create_all(client, &aggregation(&read(&context.authority())?, port)).await?;
    served(context, &component, client).await
}

/// The garden's identity, part of every Shoot's.
pub(crate) fn identity(context: &Context, cluster: Cluster) -> String {
    format!("landscape-{}-{cluster}", context.name)
}

/// A Shoot's identity, unique among all landscapes of a Gardener operator.
pub(crate) fn cluster_identity(garden: &str, technical_id: &str, uid: &str) -> String {
    format!("{technical_id}-{uid}-{garden}")
}

/// What makes kube-apiserver pass requests on.
fn aggregation(authority: &str, port: u16) -> Vec<Value> {
    use base64::Engine as _;
    let bundle = base64::prelude::BASE64_STANDARD.encode(authority);
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "gardener-apiserver", "namespace": "kube-system"},
        "spec": {"type": "ExternalName", "externalName": "localhost"},
    });
    let registrations = SERVED.map(|(group, version)| {
        json!({
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": {"name": format!("{version}.{group}")},
            "spec": {
                "group": group, "version": version, "groupPriorityMinimum": 10000, "versionPriority": 20,
                "service": {"name": "gardener-apiserver", "namespace": "kube-system", "port": port},
                "caBundle": bundle,
            },
        })
    });
    std::iter::once(service).chain(registrations).collect()
}

/// Waits until every group version answers through kube-apiserver.
async fn served(context: &Context, component: &str, client: &Client) -> Result<()> {
    for (group, version) in SERVED {
        wait::until(&format!("service of {group}/{version}"), 60, || async {
            if context.processes.running(component).is_none() {
                return Err(context.processes.failure(component, "ended"));
            }
            Ok(match client.list_api_group_resources(&format!("{group}/{version}")).await {
                Ok(list) if !list.resources.is_empty() => Seen::Yes(()),
                Ok(_) => Seen::NotYet("no resources".to_owned()),
                Err(error) => Seen::NotYet(error.to_string()),
            })
        })
        .await?;
    }
    Ok(())
}

/// Starts whatever a garden's kubeconfig is for.
pub(crate) async fn client(context: &Context, cluster: Cluster) -> Result<Client> {
    kubeconfig::client(&context.place.kubeconfig(cluster)).await
}
