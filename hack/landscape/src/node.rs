//! A node: containerd, kubelet and kube-proxy in a network and a mount namespace of their own.
//!
//! The mount namespace is held by a process that does nothing (the anchor). It gives each kubelet its own
//! `/var/lib/kubelet` and logs, and every mount of a node ends with the node's last process: nothing is left to unmount.
//! `/sys` stays the machine's, because the control groups are in it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client};

use crate::cgroup;
use crate::cluster::Cluster;
use crate::command;
use crate::containerd;
use crate::context::Context;
use crate::error::{Doing, Result};
use crate::image::Archive;
use crate::kubeconfig;
use crate::network;
use crate::node_config;
use crate::pki::{Key, Pair};
use crate::place::write;
use crate::process::Start;
use crate::wait::{self, Seen};

/// Where the parts of a node lie.
#[derive(Debug, Clone)]
pub(crate) struct NodePlace {
    /// Configuration and data, in the state folder.
    pub(crate) data: PathBuf,
    /// Sockets and containerd's run state, in the slot.
    pub(crate) run: PathBuf,
}

impl NodePlace {
    pub(crate) fn of(context: &Context, cluster: Cluster) -> Self {
        Self { data: context.place.cluster(cluster), run: context.slot.folder().join(cluster.name()) }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.run.join("containerd.sock")
    }
}

pub(crate) fn anchor(cluster: Cluster) -> String {
    format!("{cluster}-node")
}

pub(crate) fn containerd(cluster: Cluster) -> String {
    format!("{cluster}-containerd")
}

pub(crate) fn kubelet(cluster: Cluster) -> String {
    format!("{cluster}-kubelet")
}

pub(crate) fn kube_proxy(cluster: Cluster) -> String {
    format!("{cluster}-kube-proxy")
}

/// The control group of a node's pods.
pub(crate) fn control_group(context: &Context, cluster: Cluster) -> String {
    context.slot.prefixed(cluster.name())
}

/// Starts the node's container runtime with its images; needs no control plane.
pub(crate) async fn ensure_runtime(context: &Context, cluster: Cluster, images: &[Archive]) -> Result<()> {
    if context.processes.running(&anchor(cluster)).is_none()
        || context.processes.running(&containerd(cluster)).is_none()
    {
        // Shims and pods that outlived their anchor sit in a mount namespace that nobody can enter again.
        stop(context, cluster).await?;
    }
    let place = NodePlace::of(context, cluster);
    network::ensure_node(&context.slot, cluster).await?;
    cgroup::ensure(&control_group(context, cluster))?;
    let data = ["kubelet", "logs/containers", "logs/pods"].map(|name| place.data.join(name));
    let run = ["run-containerd", "run-netns", "run-cni"].map(|name| place.run.join(name));
    for folder in data.into_iter().chain(run) {
        std::fs::create_dir_all(&folder).doing(|| format!("create {}", folder.display()))?;
    }
    start_anchor(context, cluster, &place).await?;

    let config = place.data.join("containerd.toml");
    write(&place.data.join("cni/10-bridge.conflist"), node_config::cni(&context.slot.pods(cluster)))?;
    let start = Start::new("/usr/bin/containerd")
        .arg("--config")
        .arg(&config)
        .configured(&config, node_config::containerd(&place))?;
    context.processes.ensure(&containerd(cluster), &inside(context, cluster, start)?).await?;
    let socket = place.socket().to_string_lossy().into_owned();
    context
        .processes
        .ready(&containerd(cluster), 60, || {
            let socket = socket.clone();
            async move {
                let ready = command::succeeds(&["ctr", "--address", &socket, "version"]).await;
                (!ready).then(|| "its socket does not answer".to_owned())
            }
        })
        .await?;
    for image in images {
        containerd::import(context, cluster, image).await?;
    }
    Ok(())
}

/// Starts kubelet and kube-proxy.
pub(crate) async fn ensure_agents(context: &Context, cluster: Cluster) -> Result<()> {
    let place = NodePlace::of(context, cluster);
    let (kubelet_config, proxy_config) = (place.data.join("kubelet.json"), place.data.join("kube-proxy.json"));
    let kubelet_kubeconfig = place.data.join("kubelet.kubeconfig");
    let proxy_kubeconfig = place.data.join("kube-proxy.kubeconfig");
    let serving = credentials(context, cluster, &kubelet_kubeconfig, &proxy_kubeconfig)?;

    let group = control_group(context, cluster);
    write(&place.data.join("resolv.conf"), "")?;
    let clients = context.pki.pair(&format!("{cluster}-client-ca")).certificate;

    let start = Start::new(context.programs.kubernetes("kubelet"))
        .arg(format!("--config={}", kubelet_config.display()))
        .arg(format!("--kubeconfig={}", kubelet_kubeconfig.display()))
        .arg(format!("--root-dir={}", place.data.join("kubelet").display()))
        .arg(format!("--cert-dir={}", place.data.join("kubelet/pki").display()))
        .arg(format!("--hostname-override={}", cluster.node()))
        .arg(format!("--node-ip={}", context.slot.node(cluster)))
        .arg("--node-labels=worker.gardener.cloud/pool=worker,topology.kubernetes.io/region=local,topology.kubernetes.io/zone=local-1")
        .arg("--runtime-cgroups=/")
        .configured(&kubelet_config, node_config::kubelet(&place, &group, &clients, &serving))?
        .env("GOMAXPROCS", "2");
    context.processes.ensure(&kubelet(cluster), &inside(context, cluster, start)?).await?;
    let start = Start::new(context.programs.kubernetes("kube-proxy"))
        .arg(format!("--config={}", proxy_config.display()))
        .configured(&proxy_config, node_config::kube_proxy(cluster, &proxy_kubeconfig))?
        .env("GOMAXPROCS", "1");
    context.processes.ensure(&kube_proxy(cluster), &inside(context, cluster, start)?).await?;
    Ok(())
}

/// Waits until the node takes pods.
pub(crate) async fn ready(context: &Context, cluster: Cluster, client: &Client) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let component = kubelet(cluster);
    // A node's conditions outlive its kubelet for a while: ask the kubelet first.
    let health = format!("http://{}:10248/healthz", context.slot.node(cluster));
    context.processes.ready(&component, 60, || crate::http::not_ready(&context.http, &health)).await?;
    let outcome = wait::until(&format!("readiness of node {}", cluster.node()), 120, || async {
        if context.processes.running(&component).is_none() {
            return Err(context.processes.failure(&component, "ended"));
        }
        let node = match nodes.get_opt(&cluster.node()).await {
            Ok(Some(node)) => node,
            Ok(None) => return Ok(Seen::NotYet("the node is not registered".to_owned())),
            Err(error) => return Ok(Seen::NotYet(error.to_string())),
        };
        let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
        let ready = conditions.into_iter().find(|condition| condition.type_ == "Ready");
        Ok(match ready {
            Some(ready) if ready.status == "True" => Seen::Yes(()),
            Some(ready) => Seen::NotYet(ready.message.unwrap_or_default()),
            None => Seen::NotYet("the node has no condition Ready".to_owned()),
        })
    })
    .await;
    outcome.map_err(|error| match error {
        timeout @ crate::Error::Timeout { .. } => context.processes.failure(&component, &timeout.to_string()),
        other => other,
    })
}

/// Ends the node: first what starts pods, then the pods, then what holds their mounts.
pub(crate) async fn stop(context: &Context, cluster: Cluster) -> Result<()> {
    let grace = Duration::from_secs(3);
    for component in [kubelet(cluster), kube_proxy(cluster), containerd(cluster)] {
        context.processes.stop(&component, grace).await?;
    }
    containerd::sweep(&context.slot.folder().join(cluster.name()), &control_group(context, cluster)).await?;
    context.processes.stop(&anchor(cluster), grace).await
}

/// Puts `start` into the node's namespaces.
fn inside(context: &Context, cluster: Cluster, start: Start) -> Result<Start> {
    Ok(start.through(&enter(context, cluster)?))
}

/// The command that enters a node's namespaces.
pub(crate) fn enter(context: &Context, cluster: Cluster) -> Result<Vec<String>> {
    let component = anchor(cluster);
    let anchor =
        context.processes.running(&component).ok_or_else(|| context.processes.failure(&component, "is not running"))?;
    Ok(vec![
        "nsenter".to_owned(),
        format!("--net={}", network::namespace(&context.slot, cluster).display()),
        format!("--mount=/proc/{}/ns/mnt", anchor.pid),
        "--".to_owned(),
    ])
}

async fn start_anchor(context: &Context, cluster: Cluster, place: &NodePlace) -> Result<()> {
    let ready = place.run.join("anchor-ready");
    if context.processes.running(&anchor(cluster)).is_some() {
        return Ok(());
    }
    let _ = std::fs::remove_file(&ready);
    // Shared again below the private root: a pod's bidirectional mounts reach the kubelet, and nothing beyond the node.
    let script = r#"
        set -e
        mount --make-rshared /
        own() { mkdir -p "$2"; mount --bind "$1" "$2"; }
        own "$1/kubelet" /var/lib/kubelet
        own "$1/logs/containers" /var/log/containers
        own "$1/logs/pods" /var/log/pods
        own "$2/run-containerd" /run/containerd
        own "$2/run-netns" /run/netns
        own "$2/run-cni" /var/lib/cni
        touch "$2/anchor-ready"
        exec sleep infinity
    "#;
    let start = Start::new("unshare")
        .args(["--mount", "--propagation", "private", "--", "sh", "-c", script, "anchor"])
        .arg(&place.data)
        .arg(&place.run);
    context.processes.ensure(&anchor(cluster), &start).await?;
    context
        .processes
        .ready(&anchor(cluster), 20, || {
            let there = ready.exists();
            async move { (!there).then(|| "its mounts are not made".to_owned()) }
        })
        .await
}

fn credentials(context: &Context, cluster: Cluster, kubelet: &Path, proxy: &Path) -> Result<Pair> {
    let pki = &context.pki;
    let clients = pki.authority(&format!("{cluster}-client-ca"), Key::Rsa)?;
    let node = cluster.node();
    let user = format!("system:node:{node}");
    let identity = pki.client(&clients, &format!("{cluster}-kubelet"), &user, &["system:nodes"])?;
    let server = context.slot.apiserver(cluster);
    kubeconfig::save(kubelet, cluster.name(), &server, &context.authority(), &identity)?;
    let identity = pki.client(&clients, &format!("{cluster}-kube-proxy"), "system:kube-proxy", &[])?;
    kubeconfig::save(proxy, cluster.name(), &server, &context.authority(), &identity)?;
    let servers = pki.authority("ca", Key::Ec)?;
    let addresses = [context.slot.node(cluster).into(), [127, 0, 0, 1].into()];
    pki.server(&servers, &format!("{cluster}-kubelet-serving"), &[&node], &addresses)
}
