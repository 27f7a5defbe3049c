//! What happens inside a mover's pod.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use shoot_backup_repository::{Progress, RepositoryError};

use super::protocol::{
    self, EXIT_PERMANENT, EXIT_RETRYABLE, MoverProgress, REPORT_PATH, Report, TASK_VARIABLE, Task, Work,
};
use super::{backup, restore};
use crate::config::{CONFIG_DIRECTORY, ConfigError};
use crate::location::{Location, LocationError};

/// How often progress is printed at most.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// Why a mover has no result.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// The task is not in the environment.
    #[error("failed to read the task from the environment variable {TASK_VARIABLE}: the agent sets it")]
    NoTask,
    /// It is no task.
    #[error("failed to understand the task in {TASK_VARIABLE}: agent and mover must be of the same version")]
    Task(#[source] serde_json::Error),
    /// The subcommand is not that of the task.
    #[error("failed to start: the task is a {task}, not a {command}")]
    Command {
        /// The task's verb.
        task: &'static str,
        /// The subcommand.
        command: String,
    },
    /// The configuration cannot be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The location cannot be used.
    #[error(transparent)]
    Location(#[from] LocationError),
    /// A snapshot's id is none.
    #[error("failed to understand the snapshot id {0:?}")]
    Snapshot(String),
    /// The volume cannot be written.
    #[error("failed to prepare the volume")]
    Volume(#[source] std::io::Error),
    /// The volume has files that this operation did not write.
    #[error("the volume is not empty: it has {entry:?}, which this restore did not write; nothing was changed there")]
    NotEmpty {
        /// The first of them.
        entry: String,
    },
    /// The repository failed.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

impl MoveError {
    fn code(&self) -> Option<&str> {
        match self {
            Self::Location(error) => error.store_error()?.code(),
            Self::Repository(error) => error.store_error()?.code(),
            _ => None,
        }
    }

    fn is_retryable(&self) -> bool {
        match self {
            Self::Location(error) => error.store_error().is_some_and(shoot_backup_repository::StoreError::is_retryable),
            Self::Repository(error) => error.is_retryable(),
            _ => false,
        }
    }
}

/// Does the task in the environment, reports, and says how it ended.
pub async fn run(command: &str) -> ExitCode {
    let (report, code) = match execute(command).await {
        Ok(report) => (report, ExitCode::SUCCESS),
        Err(error) => {
            let retryable = error.is_retryable();
            let code = if retryable { EXIT_RETRYABLE } else { EXIT_PERMANENT };
            (protocol::failed(&error, error.code(), retryable), ExitCode::from(code as u8))
        }
    };
    tracing::info!(?report, "the mover ends");
    let written = report.to_json().map(|json| std::fs::write(REPORT_PATH, json));
    if !matches!(written, Ok(Ok(()))) {
        tracing::error!(path = REPORT_PATH, "failed to write the report; the agent takes this run for lost");
        return ExitCode::from(EXIT_RETRYABLE as u8);
    }
    code
}

async fn execute(command: &str) -> Result<Report, MoveError> {
    let text = std::env::var(TASK_VARIABLE).map_err(|_| MoveError::NoTask)?;
    let task: Task = serde_json::from_str(&text).map_err(MoveError::Task)?;
    if task.work.verb() != command {
        return Err(MoveError::Command { task: task.work.verb(), command: command.to_owned() });
    }
    let config = Path::new(CONFIG_DIRECTORY).join("config.yaml");
    let extra_ca = crate::config::extra_ca(&config).await?;
    let name = task.target.location.clone();
    let location = Location::connect(&name, task.target, extra_ca)?;
    let volume = Path::new(protocol::VOLUME_PATH);
    match &task.work {
        Work::Backup { .. } => {
            let repository = location.own_repository(&task.cluster_uid).await?;
            backup::run(&repository, &task.work, volume).await.map(Report::Backup)
        }
        Work::Restore { snapshot, operation } => {
            let repository = location.repository(&task.cluster_uid).await?;
            restore::run(&repository, snapshot, operation, volume).await.map(Report::Restore)
        }
    }
}

/// Prints progress, at most once a second.
#[derive(Debug)]
pub struct Printer {
    last: Mutex<Option<Instant>>,
}

impl Printer {
    /// A printer that has printed nothing.
    #[must_use]
    pub fn new() -> Self {
        Self { last: Mutex::new(None) }
    }

    /// Prints, unless it did less than a second ago.
    pub fn print(&self, progress: Progress) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() >= PROGRESS_INTERVAL) {
            *last = Some(Instant::now());
            println!("{}", protocol::progress_line(MoverProgress { files: progress.files, bytes: progress.bytes }));
        }
    }
}

impl Default for Printer {
    fn default() -> Self {
        Self::new()
    }
}
