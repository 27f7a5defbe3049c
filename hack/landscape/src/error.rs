//! What can go wrong with a landscape, said so that the reader knows which component, where its log is, what to do next.

use std::fmt::Display;
use std::io;
use std::path::PathBuf;

/// The result of this crate's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the landscape could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file, folder or socket.
    #[error("failed to {action}")]
    Io {
        /// What was tried, as an infinitive with the object's name.
        action: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A program that ran to its end, badly.
    #[error("failed to {action}: {output}")]
    Command {
        /// What the program was for, and its command line.
        action: String,
        /// The end of what it printed.
        output: String,
    },
    /// A long-running component.
    #[error("component {component} {reason}; its log {} ends:\n{tail}", log.display())]
    Component {
        /// Name as in `landscape status`.
        component: String,
        /// What is wrong with it.
        reason: String,
        /// Where to read on.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },
    /// A request to one of the API servers.
    #[error("failed to {action}")]
    Kubernetes {
        /// What was asked of which cluster.
        action: String,
        /// The client's error.
        #[source]
        source: Box<kube::Error>,
    },
    /// A kubeconfig of the landscape that does not load.
    #[error("failed to read kubeconfig {}", path.display())]
    Kubeconfig {
        /// Which one.
        path: PathBuf,
        /// What the client says.
        #[source]
        source: Box<kube::config::KubeconfigError>,
    },
    /// A certificate or key.
    #[error("failed to make {what}")]
    Certificate {
        /// Which certificate or key.
        what: String,
        /// What the library says.
        #[source]
        source: rcgen::Error,
    },
    /// A request over plain HTTP or HTTPS to a component.
    #[error("failed to {action}")]
    Http {
        /// What was asked.
        action: String,
        /// The client's error.
        #[source]
        source: reqwest::Error,
    },
    /// Something did not happen in time.
    #[error("{what} did not happen within {seconds} s{}", last.as_ref().map(|l| format!("; last seen: {l}")).unwrap_or_default())]
    Timeout {
        /// What was waited for.
        what: String,
        /// For how long.
        seconds: u64,
        /// What was seen instead.
        last: Option<String>,
    },
    /// A precondition that a person can meet.
    #[error("{0}")]
    Precondition(String),
}

/// Names the action that an error interrupted.
pub(crate) trait Doing<T> {
    /// Turns the error into ours, with `action` as an infinitive ("read file x").
    fn doing<A: Display>(self, action: impl FnOnce() -> A) -> Result<T>;
}

impl<T> Doing<T> for Result<T, io::Error> {
    fn doing<A: Display>(self, action: impl FnOnce() -> A) -> Result<T> {
        self.map_err(|source| Error::Io { action: action().to_string(), source })
    }
}

impl<T> Doing<T> for Result<T, kube::Error> {
    fn doing<A: Display>(self, action: impl FnOnce() -> A) -> Result<T> {
        self.map_err(|source| Error::Kubernetes { action: action().to_string(), source: Box::new(source) })
    }
}

impl<T> Doing<T> for Result<T, rcgen::Error> {
    fn doing<A: Display>(self, action: impl FnOnce() -> A) -> Result<T> {
        self.map_err(|source| Error::Certificate { what: action().to_string(), source })
    }
}

impl<T> Doing<T> for Result<T, reqwest::Error> {
    fn doing<A: Display>(self, action: impl FnOnce() -> A) -> Result<T> {
        self.map_err(|source| Error::Http { action: action().to_string(), source })
    }
}
