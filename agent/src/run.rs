//! The program: arguments, logs, and what runs together.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::{Parser, Subcommand};
use kube::{Client, Config as KubeConfig};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::backup;
use crate::config::{CONFIG_DIRECTORY, Config, ConfigError};
use crate::context::{Context, Pod};
use crate::metrics::Metrics;
use crate::mover::protocol::{REPORT_PATH, TASK_VARIABLE};
use crate::operation::leftovers;
use crate::server::State;
use crate::{heartbeat, location, mover, restore_controller, server};

/// Port of health checks and metrics.
const PORT: u16 = 8080;
/// Longest silence of the API server on a connection. Source: watches end after at most five minutes.
const READ_TIMEOUT: Duration = Duration::from_secs(330);
/// How long what runs may take to stop.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// The agent of shoot-backup.
#[derive(Debug, Parser)]
#[command(name = "shoot-backup-agent", version)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent.
    Run {
        /// Its configuration.
        #[arg(long, default_value = "/etc/shoot-backup/config.yaml")]
        config: PathBuf,
    },
    /// Move the files of one volume; the agent starts this in a Job.
    Mover {
        /// `backup` or `restore`.
        #[command(subcommand)]
        verb: MoverVerb,
    },
}

#[derive(Debug, Subcommand)]
enum MoverVerb {
    /// Volume to repository.
    Backup,
    /// Repository to volume.
    Restore,
}

/// Why the agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration cannot be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No way to the API server is configured.
    #[error("failed to find the API server: run in a pod with a ServiceAccount, or set KUBECONFIG")]
    NoCluster(#[source] kube::config::InferConfigError),
    /// The client cannot be made.
    #[error("failed to set up the API client")]
    Client(#[source] kube::Error),
    /// The port is taken, or signals cannot be received.
    #[error("failed to {what}")]
    System {
        /// What.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// Something that runs for ever has ended.
    #[error("{0} ended although nothing asked it to")]
    Ended(&'static str),
}

/// Runs what the arguments say.
pub async fn run(arguments: Arguments) -> ExitCode {
    match arguments.command {
        Command::Run { config } => match run_agent(config).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let text = crate::operation::failure::with_causes(&error);
                tracing::error!(error = text, "the agent ends");
                // Shown by `kubectl describe pod`; outside a pod there is no such file.
                drop(std::fs::write(REPORT_PATH, &text));
                ExitCode::FAILURE
            }
        },
        Command::Mover { verb } => {
            let config = Config::load(&Path::new(CONFIG_DIRECTORY).join("config.yaml")).await.unwrap_or_default();
            start_logs(&config.log_level);
            tracing::debug!(variable = TASK_VARIABLE, "the mover reads its task");
            mover::run::run(match verb {
                MoverVerb::Backup => "backup",
                MoverVerb::Restore => "restore",
            })
            .await
        }
    }
}

/// Logs as JSON on stderr; stdout belongs to the movers' progress.
fn start_logs(level: &str) {
    let level = if level.is_empty() { "info" } else { level };
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    let subscriber = tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(std::io::stderr);
    // Set before only in tests.
    drop(subscriber.try_init());
}

/// Runs the agent until SIGTERM or SIGINT. Operations in progress are cut off: the next agent carries on with them.
async fn run_agent(config: PathBuf) -> Result<(), RunError> {
    let loaded = Config::load(&config).await;
    start_logs(loaded.as_ref().map_or("info", |config| &config.log_level));
    loaded?;
    let mut kube_config = KubeConfig::infer().await.map_err(RunError::NoCluster)?;
    kube_config.read_timeout = Some(READ_TIMEOUT);
    let client = Client::try_from(kube_config).map_err(RunError::Client)?;
    let metrics = Arc::new(Metrics::new());
    let context = Arc::new(Context::new(client, config, pod(), metrics.clone()));
    let state = Arc::new(State { metrics, ready: AtomicBool::new(false) });
    tracing::info!(version = env!("CARGO_PKG_VERSION"), pod = ?context.pod, "the agent starts");
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn({
        let (state, stop) = (state.clone(), stop.clone());
        async move {
            let served = server::serve(([0, 0, 0, 0], PORT).into(), state, stop).await;
            served.map_err(|source| RunError::System { what: "serve health and metrics on port 8080", source })?;
            Ok("the server")
        }
    });
    spawn(&mut tasks, "the heartbeat", heartbeat::run(context.clone(), state, stop.clone()));
    spawn(&mut tasks, "the sweep", leftovers::sweep(context.clone(), stop.clone()));
    spawn(&mut tasks, "the controller of locations", location::controller::run(context.clone(), stop.clone()));
    spawn(&mut tasks, "the controller of backups", backup::controller::run(context.clone(), stop.clone()));
    spawn(&mut tasks, "the controller of restores", restore_controller::run(context, stop.clone()));
    let result = tokio::select! {
        signalled = terminated() => signalled,
        ended = tasks.join_next() => Err(match ended {
            Some(Ok(Err(error))) => error,
            Some(Ok(Ok(name))) => RunError::Ended(name),
            Some(Err(_)) | None => RunError::Ended("a task"),
        }),
    };
    stop.cancel();
    let finish = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP_PATIENCE, finish).await.is_err() {
        tracing::warn!("some tasks did not stop in time");
    }
    result
}

fn spawn(
    tasks: &mut JoinSet<Result<&'static str, RunError>>,
    name: &'static str,
    task: impl Future<Output = ()> + Send + 'static,
) {
    tasks.spawn(async move {
        task.await;
        Ok(name)
    });
}

async fn terminated() -> Result<(), RunError> {
    let failed = |source| RunError::System { what: "receive signals", source };
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    tokio::select! {
        _ = terminate.recv() => tracing::info!("stopping: SIGTERM"),
        _ = interrupt.recv() => tracing::info!("stopping: SIGINT"),
    }
    Ok(())
}

/// What the chart says about this pod.
fn pod() -> Pod {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let namespace = variable("POD_NAMESPACE");
    Pod {
        name: variable("POD_NAME"),
        namespace: if namespace.is_empty() { shoot_backup_api::names::AGENT_NAMESPACE.to_owned() } else { namespace },
        node: variable("NODE_NAME"),
        image: variable("AGENT_IMAGE"),
    }
}
