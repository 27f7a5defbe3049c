//! What agent and mover tell each other: a task in the environment, progress on stdout, a report in the termination
//! message. No secret is among them: the mover reads the repository's password from the location, with its own identity.

use std::error::Error;

use serde::{Deserialize, Serialize};
use shoot_backup_api::conditions::truncate;

/// Environment variable with the [`Task`] as JSON.
pub const TASK_VARIABLE: &str = "MOVER_TASK";
/// Where the volume is mounted.
pub const VOLUME_PATH: &str = "/volume";
/// Where the [`Report`] goes; Kubernetes shows it in the pod's status.
pub const REPORT_PATH: &str = "/dev/termination-log";
/// Longest report in bytes. Source: Kubernetes, "Determine the reason for pod failure": 4096 bytes in all.
pub const MAX_REPORT: usize = 4000;
/// Exit code of a mover for which another try is of no use. The Job fails at once.
pub const EXIT_PERMANENT: i32 = 2;
/// Exit code of a mover for which another try may help.
pub const EXIT_RETRYABLE: i32 = 1;

/// Where and as whom to reach a location.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// Name of the `BackupLocation`, for messages.
    pub location: String,
    /// URL of the account's blob service.
    pub endpoint: String,
    /// Container.
    pub container: String,
    /// Folder in the container.
    pub prefix: String,
    /// Client id of the identity.
    pub client_id: String,
    /// Tenant id of the identity.
    pub tenant_id: String,
    /// URL of the token authority.
    pub authority_host: String,
}

/// What a mover has to do.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Task {
    /// Where the repository is.
    pub target: Target,
    /// Whose repository: UID of a cluster's namespace `kube-system`.
    #[serde(rename = "clusterUID")]
    pub cluster_uid: String,
    /// What to do with it.
    pub work: Work,
}

/// What a mover does.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Work {
    /// Volume to repository.
    #[serde(rename_all = "camelCase")]
    Backup {
        /// Name of the cluster, for the snapshot.
        hostname: String,
        /// Path that the snapshot has: `/volumes/<namespace>/<claim>`.
        path: String,
        /// Tags of the snapshot.
        tags: Vec<String>,
        /// Snapshot of the same volume whose unchanged files are not read again.
        parent: Option<String>,
    },
    /// Repository to an empty volume, then every file is read back and compared.
    #[serde(rename_all = "camelCase")]
    Restore {
        /// The snapshot.
        snapshot: String,
        /// UID of the operation: what an earlier pod of it began may be continued, nothing else.
        operation: String,
    },
}

impl Work {
    /// `backup` or `restore`: the mover's subcommand, and the last part of a Job's name.
    #[must_use]
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Backup { .. } => "backup",
            Self::Restore { .. } => "restore",
        }
    }
}

/// How far a mover is: one line of its stdout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct MoverProgress {
    /// Files done.
    pub files: u64,
    /// Bytes done.
    pub bytes: u64,
}

/// How a mover ended.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Report {
    /// A backup has its snapshot.
    Backup(BackupReport),
    /// A restore wrote its files.
    Restore(RestoreReport),
    /// Neither.
    Failed(FailedReport),
}

/// What a backup of a volume holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupReport {
    /// Id of the snapshot.
    pub snapshot: String,
    /// Entries that are no directories.
    pub files: u64,
    /// Bytes of files.
    pub bytes: u64,
    /// Bytes that were stored for them.
    pub bytes_stored: u64,
    /// Entries that could not be read.
    pub skipped: u64,
    /// The first of them.
    pub first_skipped: Vec<Skipped>,
}

/// What a restore of a volume wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreReport {
    /// Entries that are no directories.
    pub files: u64,
    /// Bytes of files.
    pub bytes: u64,
    /// Files that were read back and are as they should be.
    pub verified_files: u64,
    /// Their bytes.
    pub verified_bytes: u64,
    /// Entries that could not be written, or are not as they should be.
    pub failed: u64,
    /// The first of them.
    pub first_failed: Vec<Skipped>,
}

/// Why a mover has no result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FailedReport {
    /// What happened, causes included.
    pub message: String,
    /// The service's own code, such as `AADSTS700213`.
    pub code: Option<String>,
    /// Whether another try may help.
    pub retryable: bool,
}

/// One entry of a volume that did not work.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Skipped {
    /// Path below the volume's root.
    pub path: String,
    /// Why.
    pub reason: String,
}

impl Report {
    /// The report as JSON of at most [`MAX_REPORT`] bytes: lists and texts give way, counts never do.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        let mut report = self.clone();
        loop {
            let json = serde_json::to_string(&report)?;
            if json.len() <= MAX_REPORT || !report.shrink() {
                return Ok(json);
            }
        }
    }

    /// Gives up the last list entry, or half of the text. Whether there was anything to give up.
    fn shrink(&mut self) -> bool {
        match self {
            Self::Backup(BackupReport { first_skipped: list, .. })
            | Self::Restore(RestoreReport { first_failed: list, .. }) => {
                // A path can be longer than a whole report: the only entry that is left is cut instead.
                if let [only] = list.as_mut_slice()
                    && only.path.len() + only.reason.len() > 400
                {
                    only.path = truncate(&only.path, 200).to_owned();
                    only.reason = truncate(&only.reason, 200).to_owned();
                    return true;
                }
                list.pop().is_some()
            }
            Self::Failed(failed) if failed.message.is_empty() => false,
            Self::Failed(failed) => {
                failed.message = truncate(&failed.message, failed.message.len() / 2).to_owned();
                true
            }
        }
    }
}

/// The last line of a mover's log that is progress.
#[must_use]
pub fn last_progress(log: &str) -> Option<MoverProgress> {
    log.lines().rev().find_map(|line| serde_json::from_str(line.strip_prefix("progress ")?).ok())
}

/// The line of a mover's log that [`last_progress`] reads.
#[must_use]
pub fn progress_line(progress: MoverProgress) -> String {
    format!("progress {{\"files\":{},\"bytes\":{}}}", progress.files, progress.bytes)
}

/// The report of an error.
#[must_use]
pub fn failed(error: &(dyn Error + 'static), code: Option<&str>, retryable: bool) -> Report {
    Report::Failed(FailedReport {
        message: crate::operation::failure::with_causes(error),
        code: code.map(str::to_owned),
        retryable,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_reads_back() {
        let task = Task {
            target: Target { location: "main".to_owned(), ..Target::default() },
            cluster_uid: "uid".to_owned(),
            work: Work::Backup {
                hostname: "alpha".to_owned(),
                path: "/volumes/shop/data".to_owned(),
                tags: vec!["backup=nightly".to_owned()],
                parent: None,
            },
        };
        let json = serde_json::to_string(&task).unwrap();
        assert_eq!(serde_json::from_str::<Task>(&json).unwrap(), task);
    }

    #[test]
    fn a_report_fits_into_a_termination_message_and_keeps_its_counts() {
        let entry = Skipped { path: "ä".repeat(3000), reason: "\"denied\"".repeat(300) };
        let report = Report::Backup(BackupReport {
            snapshot: "a".repeat(64),
            skipped: 1234,
            first_skipped: vec![entry; 10],
            ..BackupReport::default()
        });
        let json = report.to_json().unwrap();
        assert!(json.len() <= MAX_REPORT);
        let Report::Backup(read) = serde_json::from_str(&json).unwrap() else { panic!("{json}") };
        assert_eq!(read.skipped, 1234);
        assert_eq!(read.first_skipped.len(), 1);
    }

    #[test]
    fn a_long_error_is_cut_and_keeps_its_code() {
        let report = Report::Failed(FailedReport {
            message: "AADSTS700213: no match ".repeat(1000),
            code: Some("AADSTS700213".to_owned()),
            retryable: false,
        });
        let Report::Failed(read) = serde_json::from_str(&report.to_json().unwrap()).unwrap() else { panic!() };
        assert_eq!(read.code.as_deref(), Some("AADSTS700213"));
        assert!(read.message.starts_with("AADSTS700213"));
    }

    #[test]
    fn progress_is_found_among_other_lines() {
        let progress = MoverProgress { files: 3, bytes: 4096 };
        let log = format!("{{\"level\":\"INFO\"}}\n{}\n{{\"level\":\"WARN\"}}\n", progress_line(progress));
        assert_eq!(last_progress(&log), Some(progress));
        assert_eq!(last_progress("{}\n"), None);
    }
}
