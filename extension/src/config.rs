//! The configuration file of the garden side.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("failed to read configuration {path}")]
    Read {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("failed to understand configuration {path}: {message}")]
    Parse {
        /// Its path.
        path: PathBuf,
        /// What is wrong, and where.
        message: String,
    },
}

/// `garden.yaml`. Unknown fields are refused: a misspelt option must not be lost in silence.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// Path of a kubeconfig of the garden; environment variable `GARDEN_KUBECONFIG` wins. Without both the garden is
    /// the cluster in which the process runs.
    #[serde(default)]
    pub garden_kubeconfig: Option<PathBuf>,
    /// What is delivered.
    pub agent: Agent,
    /// Whether the managed issuer is asked for on Shoots that are taken in. It cannot be undone.
    #[serde(default = "default_true")]
    pub manage_issuer: bool,
    /// Whether every Shoot is taken in that does not opt out.
    #[serde(default)]
    pub auto_enable: bool,
    /// Address of `/metrics`, `/healthz` and `/readyz`.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// The lease that decides which replica works.
    pub leader_election: LeaderElection,
    /// Level of the log.
    #[serde(default)]
    pub log_level: String,
}

/// What is delivered into each cluster.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Agent {
    /// Image of the agent.
    pub image: String,
    /// Additional CA certificates for the agent, PEM.
    #[serde(default, rename = "extraCA")]
    pub extra_ca: String,
    /// Level of its log.
    #[serde(default = "default_log_level")]
    pub log_level: String,
}

/// The lease that decides which replica works.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LeaderElection {
    /// Name of the lease.
    pub name: String,
    /// Its namespace in the cluster where the process runs.
    pub namespace: String,
}

fn default_true() -> bool {
    true
}

fn default_listen() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], 8080))
}

fn default_log_level() -> String {
    "info".to_owned()
}

impl Config {
    /// Reads the file.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|message| Error::Parse { path: path.to_owned(), message })
    }

    /// Reads the text of the file.
    fn parse(text: &str) -> Result<Self, String> {
        serde_saphyr::from_str(text).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = "agent: {image: registry.example.org/agent:1}\nleaderElection: {name: l, namespace: n}\n";

    #[test]
    fn what_is_left_out_has_its_documented_default() {
        let config = Config::parse(MINIMAL).unwrap();
        assert!(config.manage_issuer);
        assert!(!config.auto_enable);
        assert_eq!(config.listen.port(), 8080);
        assert_eq!(config.agent.log_level, "info");
    }

    #[test]
    fn a_misspelt_option_is_refused() {
        let error = Config::parse(&format!("{MINIMAL}manageIsuer: false\n")).unwrap_err();
        assert!(error.contains("manageIsuer"), "{error}");
    }
}
