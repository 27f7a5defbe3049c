//! Control planes: one etcd for all, and per cluster a kube-apiserver, controller manager and scheduler.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::Client;

use crate::cluster::Cluster;
use crate::context::Context;
use crate::error::Result;
use crate::kubeconfig;
use crate::pki::{Key, Pair};
use crate::process::Start;
use crate::slot::Port;

/// What a landscape's services get their addresses from, the same in every cluster.
const SERVICES: &str = "10.96.0.0/16";

/// How long a control plane may take on a busy machine.
const PATIENCE: u64 = 120;

/// Name of the component that serves a cluster's API.
pub(crate) fn apiserver(cluster: Cluster) -> String {
    format!("{cluster}-kube-apiserver")
}

fn controller_manager(cluster: Cluster) -> String {
    format!("{cluster}-kube-controller-manager")
}

fn scheduler(cluster: Cluster) -> String {
    format!("{cluster}-kube-scheduler")
}

/// Which token issuers a cluster's API server speaks for.
#[derive(Debug, Clone)]
pub(crate) struct Issuers {
    /// The issuer of new tokens.
    pub(crate) issuer: String,
    /// Whether somebody outside can read its keys: then its documents say where.
    pub(crate) published: bool,
}

/// Certificates and keys of one cluster.
#[derive(Debug, Clone)]
pub(crate) struct Credentials {
    pub(crate) client_authority: Pair,
    server: Pair,
    kubelet_client: Pair,
    front_proxy_authority: Pair,
    front_proxy: Pair,
    service_accounts: PathBuf,
}

impl Credentials {
    /// The cluster's certificates, made if they are not there, and the administrator's kubeconfig.
    pub(crate) fn ensure(context: &Context, cluster: Cluster) -> Result<Self> {
        let pki = &context.pki;
        let servers = pki.authority("ca", Key::Ec)?;
        // RSA: gardener-apiserver signs admin kubeconfigs with it, and takes nothing else.
        let clients = pki.authority(&format!("{cluster}-client-ca"), Key::Rsa)?;
        let proxies = pki.authority(&format!("{cluster}-front-proxy-ca"), Key::Ec)?;
        let names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];
        let addresses = [context.slot.host().into(), [127, 0, 0, 1].into(), [10, 96, 0, 1].into()];
        let server = pki.server(&servers, &format!("{cluster}-kube-apiserver"), &names, &addresses)?;
        let masters = ["system:masters"];
        let kubelet_client =
            pki.client(&clients, &format!("{cluster}-kubelet-client"), "kube-apiserver-kubelet-client", &masters)?;
        let front_proxy = pki.client(&proxies, &format!("{cluster}-front-proxy"), "front-proxy", &[])?;
        let admin = pki.client(&clients, &format!("{cluster}-admin"), "landscape:admin", &masters)?;
        let service_accounts = pki.key(&format!("{cluster}-service-accounts"), Key::Rsa)?;
        let server_url = context.slot.apiserver(cluster);
        kubeconfig::save(
            &context.place.kubeconfig(cluster),
            cluster.name(),
            &server_url,
            &servers.pair.certificate,
            &admin,
        )?;
        Ok(Self {
            client_authority: clients.pair,
            server,
            kubelet_client,
            front_proxy_authority: proxies.pair,
            front_proxy,
            service_accounts,
        })
    }
}

/// Starts etcd and waits for it.
pub(crate) async fn ensure_etcd(context: &Context) -> Result<()> {
    let client = format!("http://127.0.0.1:{}", context.slot.port(Port::Etcd));
    let peer = format!("http://127.0.0.1:{}", context.slot.port(Port::EtcdPeer));
    let start = Start::new(context.programs.kubernetes("etcd"))
        .args(["--name", "landscape", "--log-level", "warn", "--unsafe-no-fsync", "--max-request-bytes", "8388608"])
        .args(["--auto-compaction-retention", "5m", "--quota-backend-bytes", "4294967296"])
        .arg("--data-dir")
        .arg(context.place.state.join("etcd"))
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("landscape={peer}")]);
    context.processes.ensure("etcd", &start).await?;
    let health = format!("{client}/health");
    context.processes.ready("etcd", 60, || crate::http::not_ready(&context.http, &health)).await
}

/// Starts a cluster's kube-apiserver and waits until it serves.
pub(crate) async fn ensure_apiserver(context: &Context, cluster: Cluster, issuers: &Issuers) -> Result<Client> {
    let credentials = Credentials::ensure(context, cluster)?;
    let component = apiserver(cluster);
    context.processes.ensure(&component, &apiserver_start(context, cluster, issuers, &credentials)).await?;
    let client = kubeconfig::client(&context.place.kubeconfig(cluster)).await?;
    context
        .processes
        .ready(&component, PATIENCE, || {
            let client = client.clone();
            async move { not_ready(&client).await }
        })
        .await?;
    Ok(client)
}

/// Why the API server is not ready, if it is not.
pub(crate) async fn not_ready(client: &Client) -> Option<String> {
    let request = ::http::Request::get("/readyz").body(Vec::new()).ok()?;
    match tokio::time::timeout(Duration::from_secs(5), client.request_text(request)).await {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some("no answer within 5 s".to_owned()),
    }
}

fn apiserver_start(context: &Context, cluster: Cluster, issuers: &Issuers, credentials: &Credentials) -> Start {
    let slot = &context.slot;
    let flag = |name: &str, value: &str| format!("--{name}={value}");
    let file = |name: &str, path: &Path| format!("--{name}={}", path.display());
    let own = slot.apiserver(cluster);
    let mut audiences = vec![issuers.issuer.as_str()];
    for audience in [own.as_str(), "https://kubernetes.default.svc", "gardener"] {
        if !audiences.contains(&audience) {
            audiences.push(audience);
        }
    }
    let mut start = Start::new(context.programs.kubernetes("kube-apiserver"))
        .arg(flag("etcd-servers", &format!("http://127.0.0.1:{}", slot.port(Port::Etcd))))
        .arg(flag("etcd-prefix", &format!("/registry-{cluster}")))
        .arg("--bind-address=0.0.0.0")
        .arg(flag("secure-port", &slot.port(Port::Apiserver(cluster)).to_string()))
        .arg(flag("advertise-address", &slot.host().to_string()))
        .arg(file("tls-cert-file", &credentials.server.certificate))
        .arg(file("tls-private-key-file", &credentials.server.key))
        .arg(file("client-ca-file", &credentials.client_authority.certificate))
        .arg(flag("service-cluster-ip-range", SERVICES))
        .arg("--authorization-mode=Node,RBAC")
        .arg("--enable-admission-plugins=NodeRestriction")
        .arg("--allow-privileged=true")
        .arg("--profiling=false")
        .arg(file("service-account-key-file", &credentials.service_accounts))
        .arg(file("service-account-signing-key-file", &credentials.service_accounts))
        .arg(flag("service-account-issuer", &issuers.issuer))
        .arg(flag("api-audiences", &audiences.join(",")))
        .arg(file("kubelet-certificate-authority", &context.authority()))
        .arg(file("kubelet-client-certificate", &credentials.kubelet_client.certificate))
        .arg(file("kubelet-client-key", &credentials.kubelet_client.key))
        .arg("--kubelet-preferred-address-types=InternalIP")
        .arg(file("requestheader-client-ca-file", &credentials.front_proxy_authority.certificate))
        .arg("--requestheader-allowed-names=front-proxy")
        .arg("--requestheader-extra-headers-prefix=X-Remote-Extra-")
        .arg("--requestheader-group-headers=X-Remote-Group")
        .arg("--requestheader-username-headers=X-Remote-User")
        .arg(file("proxy-client-cert-file", &credentials.front_proxy.certificate))
        .arg(file("proxy-client-key-file", &credentials.front_proxy.key));
    if issuers.issuer != own {
        // The issuer of the time before: its tokens stay good, as Gardener keeps them.
        start = start.arg(flag("service-account-issuer", &own));
    }
    if issuers.published {
        start = start.arg(flag("service-account-jwks-uri", &format!("{}/jwks", issuers.issuer)));
    }
    if cluster.has_node() {
        // Service addresses exist inside the nodes only: API servers go straight to the pods behind them.
        start = start.arg("--enable-aggregator-routing=true");
    }
    start.env("GOMAXPROCS", "2")
}

/// Starts what makes the API come alive: controllers, and a scheduler where there is something to schedule.
pub(crate) async fn ensure_controllers(context: &Context, cluster: Cluster) -> Result<()> {
    let kubeconfig = context.place.kubeconfig(cluster);
    let kubeconfig = format!("--kubeconfig={}", kubeconfig.display());
    // A garden has no pods: what namespaces, accounts and references need is enough.
    let controllers = if cluster.has_node() {
        "*,-bootstrap-signer-controller,-token-cleaner-controller,-node-ipam-controller,-cloud-node-lifecycle-controller,\
         -service-lb-controller,-node-route-controller"
    } else {
        "namespace-controller,serviceaccount-controller,serviceaccount-token-controller,garbage-collector-controller,\
         clusterrole-aggregation-controller,resourcequota-controller,root-ca-certificate-publisher-controller"
    };
    let signer = context.pki.pair(&format!("{cluster}-client-ca"));
    let start = Start::new(context.programs.kubernetes("kube-controller-manager"))
        .arg(kubeconfig.as_str())
        .args(["--leader-elect=false", "--secure-port=0", "--profiling=false"])
        .arg(format!("--controllers={controllers}"))
        .arg("--use-service-account-credentials=false")
        .arg(format!(
            "--service-account-private-key-file={}",
            context.pki.pair(&format!("{cluster}-service-accounts")).key.display()
        ))
        .arg(format!("--root-ca-file={}", context.authority().display()))
        .arg(format!("--cluster-signing-cert-file={}", signer.certificate.display()))
        .arg(format!("--cluster-signing-key-file={}", signer.key.display()))
        .arg(format!("--service-cluster-ip-range={SERVICES}"))
        .arg("--allocate-node-cidrs=false")
        // Failed and finished pods go early, so that a landscape stays small.
        .arg("--terminated-pod-gc-threshold=200")
        .env("GOMAXPROCS", "1");
    context.processes.ensure(&controller_manager(cluster), &start).await?;
    if cluster.has_node() {
        let start = Start::new(context.programs.kubernetes("kube-scheduler"))
            .arg(kubeconfig.as_str())
            .args(["--leader-elect=false", "--secure-port=0", "--profiling=false"])
            .env("GOMAXPROCS", "1");
        context.processes.ensure(&scheduler(cluster), &start).await?;
    }
    Ok(())
}

/// Ends a cluster's control plane; its data stays in etcd.
pub(crate) async fn stop(context: &Context, cluster: Cluster) -> Result<()> {
    for component in [scheduler(cluster), controller_manager(cluster), apiserver(cluster)] {
        context.processes.stop(&component, Duration::from_secs(3)).await?;
    }
    Ok(())
}
