//! The agent's configuration: a mounted ConfigMap that may change at any time and is read anew for each operation.

use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Where the chart mounts the ConfigMap, in the agent and in movers.
pub const CONFIG_DIRECTORY: &str = "/etc/shoot-backup";

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file of the ConfigMap cannot be read.
    #[error("failed to read {path}: check the ConfigMap shoot-backup-agent and its mount")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no YAML of this shape.
    #[error("failed to understand {path}: {reason}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong, with its line.
        reason: String,
    },
}

/// `config.yaml`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Config {
    /// Who this cluster is.
    pub cluster: Cluster,
    /// The identity that is used where a location names none.
    pub identity: Identity,
    /// Filter of the logs, such as `info` or `shoot_backup_agent=debug`.
    pub log_level: String,
}

/// Who a cluster is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Cluster {
    /// Name for people.
    pub name: String,
    /// The project it belongs to.
    pub project: String,
    /// Issuer of its tokens, as the garden side found it.
    pub issuer: String,
}

/// A managed identity or application at Entra ID; empty strings where none is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Identity {
    /// Client (application) id.
    #[serde(rename = "clientID")]
    pub client_id: String,
    /// Tenant (directory) id.
    #[serde(rename = "tenantID")]
    pub tenant_id: String,
}

impl Config {
    /// Reads `config.yaml`.
    pub async fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = tokio::fs::read_to_string(path)
            .await
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        serde_saphyr::from_str(&text)
            .map_err(|error| ConfigError::Parse { path: path.to_owned(), reason: error.to_string() })
    }
}

/// The additional CA certificates beside a `config.yaml`; `None` where there are none.
pub async fn extra_ca(config: &Path) -> Result<Option<Vec<u8>>, ConfigError> {
    let path = config.with_file_name("ca.crt");
    match tokio::fs::read(&path).await {
        Ok(pem) if pem.iter().all(u8::is_ascii_whitespace) => Ok(None),
        Ok(pem) => Ok(Some(pem)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ConfigError::Read { path, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_the_chart_renders_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.yaml");
        let text = "cluster: {name: alpha, project: garden-shop, issuer: 'https://issuer'}\n\
                    identity: {clientID: c, tenantID: ''}\nlogLevel: info\n";
        std::fs::write(&path, text).unwrap();
        let config = Config::load(&path).await.unwrap();
        assert_eq!(config.cluster.name, "alpha");
        assert_eq!(config.identity.client_id, "c");
        assert_eq!(extra_ca(&path).await.unwrap(), None);
        std::fs::write(directory.path().join("ca.crt"), "\n").unwrap();
        assert_eq!(extra_ca(&path).await.unwrap(), None);
        std::fs::write(directory.path().join("ca.crt"), "-----BEGIN").unwrap();
        assert_eq!(extra_ca(&path).await.unwrap(), Some(b"-----BEGIN".to_vec()));
    }

    #[tokio::test]
    async fn an_unreadable_configuration_names_its_file() {
        let error = Config::load(Path::new("/nonexistent/config.yaml")).await.unwrap_err();
        assert!(error.to_string().contains("/nonexistent/config.yaml"), "{error}");
    }
}
