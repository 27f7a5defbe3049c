//! What `Backup` and `Restore` have in common: phases, progress, and requests by annotation.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Where an operation stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, schemars::JsonSchema)]
pub enum OperationPhase {
    /// Taken in, nothing started yet.
    #[default]
    Pending,
    /// The agent works on it.
    InProgress,
    /// Everything is done, nothing was skipped.
    Completed,
    /// Done, but something was skipped or failed: the counts and errors say what.
    PartiallyFailed,
    /// Ended without a result.
    Failed,
    /// Ended because somebody asked for it.
    Cancelled,
}

impl OperationPhase {
    /// Whether nothing happens any more unless somebody asks for a retry.
    #[must_use]
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Pending | Self::InProgress)
    }

    /// The name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::InProgress => "InProgress",
            Self::Completed => "Completed",
            Self::PartiallyFailed => "PartiallyFailed",
            Self::Failed => "Failed",
            Self::Cancelled => "Cancelled",
        }
    }
}

impl fmt::Display for OperationPhase {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// What somebody asks for with the annotation [`crate::names::ANNOTATION_OPERATION`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requested {
    /// Prove the identity and the location again.
    Validate,
    /// Look for Shoots now.
    Discover,
    /// Stop a running backup or restore.
    Cancel,
    /// Start a backup or restore again that failed or was cancelled.
    Retry,
}

impl Requested {
    /// Reads the annotation's value; `None` for a value that no operation has.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        match value {
            "validate" => Some(Self::Validate),
            "discover" => Some(Self::Discover),
            "cancel" => Some(Self::Cancel),
            "retry" => Some(Self::Retry),
            _ => None,
        }
    }

    /// The annotation's value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Validate => "validate",
            Self::Discover => "discover",
            Self::Cancel => "cancel",
            Self::Retry => "retry",
        }
    }
}

/// How far a running operation is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Progress {
    /// What is being done now, for people: `Objects`, `Volumes`, `Manifest`, …
    #[serde(skip_serializing_if = "String::is_empty")]
    pub step: String,
    /// Kubernetes objects done.
    pub objects: i64,
    /// Volumes done.
    pub volumes_done: i64,
    /// Volumes in all.
    pub volumes_total: i64,
    /// Bytes of volume data read (backup) or written (restore).
    pub bytes: i64,
    /// When this was last true. An operation whose heartbeat is old is given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<Time>,
}

/// One thing that did not work, kept in a status. A status keeps the first [`MAX_ERRORS`]; the report in the location
/// has all.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ItemError {
    /// What it is about: `deployments.apps/shop/web`, `volume shop/data: var/lib/file`.
    pub item: String,
    /// What happened and what to do.
    pub message: String,
}

/// Errors that a status keeps.
pub const MAX_ERRORS: usize = 10;

/// Attempts that an agent makes at one operation (it was restarted in between) before it fails visibly.
pub const MAX_ATTEMPTS: i64 = 5;

/// The shared view of `Backup` and `Restore` that dispatch needs.
pub trait Operation {
    /// Name of the `ApplicationCluster` that does the work.
    fn cluster(&self) -> &str;
    /// Where it stands.
    fn phase(&self) -> OperationPhase;
    /// Whether one that ended like this can be begun again.
    fn may_retry(phase: OperationPhase) -> bool;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_reads_back() {
        for requested in [Requested::Validate, Requested::Discover, Requested::Cancel, Requested::Retry] {
            assert_eq!(Requested::parse(requested.as_str()), Some(requested));
        }
        assert_eq!(Requested::parse("explode"), None);
    }

    #[test]
    fn only_pending_and_running_operations_are_not_final() {
        assert!(!OperationPhase::Pending.is_final());
        assert!(!OperationPhase::InProgress.is_final());
        assert!(OperationPhase::PartiallyFailed.is_final());
        assert!(OperationPhase::Cancelled.is_final());
    }
}
