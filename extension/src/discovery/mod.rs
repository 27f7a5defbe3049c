//! Finds Shoots and makes an `ApplicationCluster` of each that is opted in.
//!
//! A cluster's own reconciliation ([`crate::onboarding`]) says what becomes of one that is no longer opted in: there is
//! one writer of its status. Discovery creates, counts, and never deletes.

pub mod create;
pub mod foreign;
pub mod naming;
pub mod plan;
pub mod reconcile;
pub mod selection;
pub mod shoots;

use shoot_backup_api::selector::InvalidSelector;

use crate::kubeconfig;
use crate::request;

/// Why discovery did not work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A request failed.
    #[error(transparent)]
    Request(#[from] request::Error),
    /// The Secret of a foreign garden cannot be used.
    #[error("failed to use Secret {secret}: {message}")]
    Secret {
        /// Its name.
        secret: String,
        /// What is wrong and what to do.
        message: String,
    },
    /// The kubeconfig of a foreign garden cannot be used.
    #[error("failed to use the kubeconfig in Secret {secret}: {source}")]
    Kubeconfig {
        /// Name of the Secret.
        secret: String,
        /// Why.
        source: kubeconfig::Error,
    },
    /// The selector cannot be read.
    #[error("failed to use spec.shootSelector: {0}")]
    Selector(#[from] InvalidSelector),
    /// More Shoots than one discovery looks at.
    #[error(
        "failed to look at more than {} Shoots: divide the namespaces among several ClusterDiscoveries",
        foreign::MAX_SHOOTS
    )]
    TooMany,
    /// It took too long.
    #[error("failed to finish within {0}s: the foreign garden answers slowly; name fewer namespaces")]
    Timeout(u64),
    /// The process is about to end.
    #[error(transparent)]
    Ended(#[from] crate::context::Ended),
}

impl Error {
    /// One word for programs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Request(error) if error.is_unreachable() => "GardenUnreachable",
            Self::Request(error) if error.kind() == request::Kind::Refused => "GardenRefused",
            Self::Request(_) => "RequestFailed",
            Self::Secret { .. } => "SecretUnusable",
            Self::Kubeconfig { source: kubeconfig::Error::Unreachable(error), .. } if error.is_unreachable() => {
                "GardenUnreachable"
            }
            Self::Kubeconfig { source: kubeconfig::Error::Unreachable(_), .. } => "GardenRefused",
            Self::Kubeconfig { .. } => "KubeconfigUnusable",
            Self::Selector(_) => "SelectorInvalid",
            Self::TooMany => "TooManyShoots",
            Self::Timeout(_) => "Timeout",
            Self::Ended(_) => "Ended",
        }
    }

    /// A bounded label for metrics: who has to look.
    #[must_use]
    pub fn type_label(&self) -> &'static str {
        match self.reason() {
            "GardenUnreachable" | "GardenRefused" | "RequestFailed" | "Timeout" => "connectivity",
            _ => "configuration",
        }
    }
}
