//! Starts the garden side, and ends it in good order.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use k8s_controller::LeaderElection;
use kube::Client;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::controllers;
use crate::kubeconfig;
use crate::metrics::Metrics;
use crate::server::{self, Endpoints};
use crate::telemetry;

/// Longest time for what runs to end after the signal; Kubernetes gives 30 s.
const GRACE: Duration = Duration::from_secs(20);
/// How often the kubeconfig of the garden is compared with the one that was read.
const KUBECONFIG_EVERY: Duration = Duration::from_secs(30);

/// Command line.
#[derive(Debug, Parser)]
#[command(version, about = "The Gardener side of shoot-backup")]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Discovers Shoots, brings the agent into them, carries instructions to them.
    Garden {
        /// Configuration file.
        #[arg(long)]
        config: PathBuf,
        /// Kubeconfig of the garden; wins over the configuration.
        #[arg(long, env = "GARDEN_KUBECONFIG")]
        garden_kubeconfig: Option<PathBuf>,
        /// Name of this replica, unique among all.
        #[arg(long, env = "POD_NAME")]
        pod_name: Option<String>,
        /// Additional CA certificates (PEM) for servers whose kubeconfig names none.
        #[arg(long, env = "EXTRA_CA_FILE")]
        extra_ca_file: Option<PathBuf>,
    },
}

/// Runs until a signal comes, or leadership is lost.
pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let Command::Garden { config, garden_kubeconfig, pod_name, extra_ca_file } = arguments.command;
    let config = Config::read(&config)?;
    telemetry::start(&config.log_level);
    let stop = stop_on_signal()?;
    let metrics = Arc::new(Metrics::default());
    let stores = Arc::new(std::sync::OnceLock::<crate::context::Stores>::new());
    let endpoints = Arc::new(endpoints(&metrics, &stores));
    // Its own token: health is served until the work has ended, and its end must not cut the work off.
    let served_enough = CancellationToken::new();
    let serving = tokio::spawn(server::serve(config.listen, Arc::clone(&endpoints), served_enough.clone()));

    let path =
        garden_kubeconfig.or_else(|| config.garden_kubeconfig.clone()).filter(|path| !path.as_os_str().is_empty());
    let roots = extra_roots(extra_ca_file.as_deref())?;
    let garden = kubeconfig::garden(path.as_deref(), &roots).await?;
    if let Some(path) = path {
        tokio::spawn(end_when_changed(path, stop.clone()));
    }
    let runtime =
        Client::try_default().await.context("failed to make a client for the cluster that this process runs in")?;
    let identity = pod_name.filter(|name| !name.is_empty()).unwrap_or_else(|| format!("pid-{}", std::process::id()));
    let election =
        LeaderElection::new(runtime, &config.leader_election.namespace, &config.leader_election.name, &identity);
    endpoints.ready.store(true, Ordering::Relaxed);

    let leads = AtomicBool::new(false);
    let work = async {
        leads.store(true, Ordering::Relaxed);
        tracing::info!(identity, "leads");
        controllers::run(garden, config, roots, identity.clone(), metrics, &stores, stop.clone()).await;
    };
    let overdue = async {
        stop.cancelled().await;
        if leads.load(Ordering::Relaxed) {
            tokio::time::sleep(GRACE).await;
        }
    };
    tokio::select! {
        led = election.with_lease(work) => {
            if led.is_none() {
                // Another replica may lead already: nothing of this one may go on.
                anyhow::bail!("lost leadership: another replica goes on");
            }
        }
        () = overdue => election.release().await,
        served = serving => served.context("the server ended")?.context("failed to serve metrics and health")?,
    }
    served_enough.cancel();
    tracing::info!("ended");
    Ok(())
}

fn endpoints(metrics: &Arc<Metrics>, stores: &Arc<std::sync::OnceLock<crate::context::Stores>>) -> Endpoints {
    let (metrics, stores) = (Arc::clone(metrics), Arc::clone(stores));
    let text = move || {
        if let Some(stores) = stores.get() {
            metrics.show_phases(&stores.phases());
        }
        metrics.text().unwrap_or_default()
    };
    Endpoints { metrics: Box::new(text), ready: AtomicBool::new(false) }
}

fn stop_on_signal() -> anyhow::Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("failed to listen for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("failed to listen for signals")?;
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("ends on a signal");
        stopped.cancel();
    });
    Ok(stop)
}

/// Whoever renews the garden's kubeconfig writes the file anew. The process ends then, and begins again with it.
async fn end_when_changed(path: PathBuf, stop: CancellationToken) {
    let read = || std::fs::read(&path).ok();
    let before = read();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(KUBECONFIG_EVERY) => {}
        }
        let now = read();
        if now.is_some() && now != before {
            tracing::info!("the garden's kubeconfig has changed; begins again");
            stop.cancel();
            return;
        }
    }
}

/// Reads additional CA certificates, and adds the system's, which a client that is given any would no longer use. A file
/// that is missing or empty has none: the chart mounts it in any case.
fn extra_roots(path: Option<&std::path::Path>) -> anyhow::Result<Vec<Vec<u8>>> {
    let Some(path) = path.filter(|path| path.exists()) else { return Ok(Vec::new()) };
    let text = std::fs::read(path).with_context(|| format!("failed to read {}", path.display()))?;
    let extra = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| anyhow::anyhow!("failed to read the certificates in {}: {error}", path.display()))?;
    if extra.is_empty() {
        return Ok(Vec::new());
    }
    let system = rustls_native_certs::load_native_certs();
    for error in &system.errors {
        tracing::warn!(%error, "failed to read some of the system's CA certificates");
    }
    Ok(with_system(extra, system.certs))
}

/// One certificate of the system that cannot be read would make every client fail: it is left out.
fn with_system(extra: Vec<CertificateDer<'static>>, system: Vec<CertificateDer<'static>>) -> Vec<Vec<u8>> {
    let mut readable = rustls::RootCertStore::empty();
    let system = system.into_iter().filter(|certificate| readable.add(certificate.clone()).is_ok());
    extra.into_iter().chain(system).map(|certificate| certificate.to_vec()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_what_the_chart_gives() {
        let arguments =
            Arguments::try_parse_from(["x", "garden", "--config", "/etc/shoot-backup/garden.yaml"]).unwrap();
        let Command::Garden { config, .. } = arguments.command;
        assert_eq!(config, PathBuf::from("/etc/shoot-backup/garden.yaml"));
    }

    #[test]
    fn additional_certificates_are_added_to_the_systems() {
        let system = rustls_native_certs::load_native_certs().certs;
        let known = with_system(Vec::new(), system.clone()).len();
        let broken = CertificateDer::from(vec![1, 2, 3]);
        let extra = CertificateDer::from(vec![9]);
        let all = with_system(vec![extra], system.into_iter().chain([broken]).collect());
        assert_eq!(all.len(), known + 1);
        assert_eq!(all[0], [9]);
    }

    #[test]
    fn a_file_of_additional_certificates_may_be_missing() {
        assert!(extra_roots(None).unwrap().is_empty());
        assert!(extra_roots(Some(std::path::Path::new("/does/not/exist"))).unwrap().is_empty());
    }
}
