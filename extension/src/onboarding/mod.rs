//! Brings the agent into each cluster, keeps it there as it was delivered, and says how the cluster is.
//!
//! No kubeconfig and no credential is ever stored: administrative access lives as long as one reconciliation, the
//! restricted account's token in memory until it is renewed.

pub mod access;
pub mod account;
pub mod connect;
pub mod credentials;
pub mod heartbeat;
pub mod identity;
pub mod reconcile;
pub mod status;
pub mod target;

use crate::{delivery, discovery, kubeconfig, request};

/// Why a cluster could not be brought to where it should be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A request to the garden failed.
    #[error("{0}")]
    Garden(#[source] request::Error),
    /// A request to the cluster failed.
    #[error("{0}")]
    Cluster(#[source] request::Error),
    /// The kubeconfig that was given cannot be used.
    #[error("failed to use the kubeconfig of {of}: {source}")]
    Kubeconfig {
        /// Where it came from.
        of: String,
        /// Why.
        source: kubeconfig::Error,
    },
    /// The garden did not give administrative access.
    #[error("{0}")]
    Access(#[source] request::Error),
    /// The garden answered without a kubeconfig.
    #[error("failed to get administrative access to Shoot {0}: the garden's answer has no kubeconfig")]
    NoKubeconfig(String),
    /// The agent could not be delivered.
    #[error("failed to deliver the agent: {0}")]
    Delivery(#[source] delivery::Error),
    /// What the cluster refers to cannot be used.
    #[error(transparent)]
    Discovery(#[from] discovery::Error),
    /// There is no token in the cluster's answer.
    #[error("failed to get a token for ServiceAccount {0}: the cluster's answer has none")]
    NoToken(&'static str),
    /// The client could not be made.
    #[error("failed to make a client for the cluster: {0}")]
    Client(#[source] kube::Error),
    /// It took too long.
    #[error("failed to finish within {0}s: the cluster or the garden answers slowly")]
    Timeout(u64),
    /// More clusters than one garden side looks after.
    #[error("failed to connect: {} clusters are connected already", crate::connections::MAX_CONNECTIONS)]
    TooMany,
    /// The process is about to end.
    #[error(transparent)]
    Ended(#[from] crate::context::Ended),
}

impl Error {
    /// One word for programs, for conditions and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Garden(error) | Self::Access(error) if error.kind() == request::Kind::Refused => "GardenRefused",
            Self::Garden(_) | Self::Access(_) => "GardenRequestFailed",
            Self::Cluster(error) | Self::Delivery(delivery::Error::Request(error)) if error.is_unreachable() => {
                "Unreachable"
            }
            Self::Cluster(_) => "ClusterRequestFailed",
            Self::Kubeconfig { source: kubeconfig::Error::Unreachable(error), .. } if error.is_unreachable() => {
                "Unreachable"
            }
            Self::Kubeconfig { .. } | Self::NoKubeconfig(_) => "KubeconfigInvalid",
            Self::Delivery(_) => "DeliveryFailed",
            Self::Discovery(error) => error.reason(),
            Self::NoToken(_) | Self::Client(_) => "TokenFailed",
            Self::Timeout(_) => "Timeout",
            Self::TooMany => "TooManyClusters",
            Self::Ended(_) => "Ended",
        }
    }

    /// Whether the cluster did not answer, as opposed to something being wrong.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(self.reason(), "Unreachable" | "Timeout")
    }

    /// Whether it is the kubeconfig itself that does not work or cannot be had, as opposed to a server that is down.
    #[must_use]
    pub fn is_kubeconfig(&self) -> bool {
        match self {
            Self::Kubeconfig { source: kubeconfig::Error::Unreachable(error), .. } => {
                !matches!(error.kind(), request::Kind::Unreachable | request::Kind::Busy)
            }
            Self::Kubeconfig { .. } | Self::NoKubeconfig(_) | Self::Access(_) => true,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_down_says_nothing_of_its_kubeconfig() {
        let answer = |code| {
            let status = kube::core::Status::failure("no", "Reason").with_code(code).boxed();
            request::Error::new("get x", kube::Error::Api(status))
        };
        let reached =
            |code| Error::Kubeconfig { of: "Shoot x".to_owned(), source: kubeconfig::Error::Unreachable(answer(code)) };
        let refused = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "connection refused");
        let down = request::Error::new("get x", kube::Error::ReadEvents(refused));
        let down = Error::Kubeconfig { of: "Shoot x".to_owned(), source: kubeconfig::Error::Unreachable(down) };
        assert!(!down.is_kubeconfig());
        assert!(!reached(503).is_kubeconfig());
        assert!(reached(401).is_kubeconfig());
        assert!(Error::Access(answer(403)).is_kubeconfig());
        assert!(!Error::Garden(answer(403)).is_kubeconfig());
    }
}
