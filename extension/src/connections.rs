//! Connections to application clusters: one client for each, with a token of the restricted account in memory only.
//!
//! A cluster that does not answer is marked, so that nobody else waits for it: only its own onboarding asks again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::Client;

use crate::kubeconfig::Endpoint;

/// Clusters that one garden side looks after. Each connection is a client with a few buffers.
pub const MAX_CONNECTIONS: usize = 5_000;

/// An `ApplicationCluster` by namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterKey {
    /// Namespace of the project.
    pub namespace: String,
    /// Name of the `ApplicationCluster`.
    pub name: String,
}

impl ClusterKey {
    /// A key.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

/// A connection with the restricted account.
#[derive(Clone)]
pub struct Connection {
    /// The client.
    pub client: Client,
    /// Where the API server is.
    pub endpoint: Endpoint,
    /// UID of the `ApplicationCluster` and of the Shoot that this is for: a namesake is another cluster.
    pub owner: String,
    /// UID of the cluster's namespace `kube-system`.
    pub cluster_uid: String,
    /// Kubernetes version.
    pub version: String,
    /// Issuer of its tokens as far as it is known.
    pub issuer: Option<String>,
    /// When the token has to be renewed.
    pub renew_at: Timestamp,
    /// When what was delivered was last compared with what is there.
    pub checked: Option<Instant>,
    /// Digest of what was there then.
    pub delivered: Option<String>,
}

/// Why a cluster cannot be asked now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// It has never been connected, or is being connected again.
    #[error("the cluster is not connected yet")]
    NotConnected,
    /// It did not answer.
    #[error("the cluster does not answer: {0}")]
    Unreachable(String),
}

struct Entry {
    connection: Connection,
    unreachable: Option<String>,
}

/// All connections.
#[derive(Default)]
pub struct Connections {
    entries: Mutex<HashMap<ClusterKey, Entry>>,
}

/// A shared reference to them.
pub type SharedConnections = Arc<Connections>;

impl Connections {
    /// A client for work in a cluster that answered when it was last asked.
    pub fn client(&self, key: &ClusterKey) -> Result<Client, Unavailable> {
        self.usable(key).map(|connection| connection.client)
    }

    /// The connection for such work.
    pub fn usable(&self, key: &ClusterKey) -> Result<Connection, Unavailable> {
        let entries = self.entries.lock().map_err(|_| Unavailable::NotConnected)?;
        let entry = entries.get(key).ok_or(Unavailable::NotConnected)?;
        match &entry.unreachable {
            Some(reason) => Err(Unavailable::Unreachable(reason.clone())),
            None => Ok(entry.connection.clone()),
        }
    }

    /// The connection whether it answers or not: for onboarding, which finds out.
    #[must_use]
    pub fn get(&self, key: &ClusterKey) -> Option<Connection> {
        self.entries.lock().ok()?.get(key).map(|entry| entry.connection.clone())
    }

    /// Keeps a connection that works. Returns whether there was room.
    pub fn put(&self, key: ClusterKey, connection: Connection) -> bool {
        let Ok(mut entries) = self.entries.lock() else { return false };
        if entries.len() >= MAX_CONNECTIONS && !entries.contains_key(&key) {
            return false;
        }
        entries.insert(key, Entry { connection, unreachable: None });
        true
    }

    /// Forgets a connection, and its token with it.
    pub fn drop_connection(&self, key: &ClusterKey) {
        if let Ok(mut entries) = self.entries.lock() {
            entries.remove(key);
        }
    }

    /// Notes that a cluster does not answer.
    pub fn mark_unreachable(&self, key: &ClusterKey, reason: &str) {
        if let Ok(mut entries) = self.entries.lock()
            && let Some(entry) = entries.get_mut(key)
        {
            entry.unreachable = Some(reason.to_owned());
        }
    }

    /// Forgets all connections whose `ApplicationCluster` is gone.
    pub fn retain(&self, exists: impl Fn(&ClusterKey) -> bool) {
        if let Ok(mut entries) = self.entries.lock() {
            entries.retain(|key, _| exists(key));
        }
    }
}

/// When a token has to be renewed: at 80 % of its life.
#[must_use]
pub fn renew_at(issued: Timestamp, expires: Timestamp) -> Timestamp {
    let life = (expires.as_second() - issued.as_second()).max(0);
    let renew = Duration::from_secs(life as u64 * 4 / 5);
    issued.checked_add(renew).unwrap_or(expires)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection() -> Connection {
        let checked = crate::kubeconfig::tests_support::endpoint();
        Connection {
            client: crate::kubeconfig::tests_support::client(),
            endpoint: checked,
            owner: "uid".to_owned(),
            cluster_uid: "uid".to_owned(),
            version: "1.34.1".to_owned(),
            issuer: None,
            renew_at: Timestamp::UNIX_EPOCH,
            checked: None,
            delivered: None,
        }
    }

    #[test]
    fn a_token_is_renewed_at_four_fifths_of_its_life() {
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(renew_at(at(1000), at(4600)), at(3880));
        assert_eq!(renew_at(at(1000), at(900)), at(1000));
    }

    #[tokio::test]
    async fn a_cluster_that_does_not_answer_is_not_asked_until_it_is_connected_again() {
        let connections = Connections::default();
        let key = ClusterKey::new("garden-demo", "alpha");
        assert_eq!(connections.client(&key).err(), Some(Unavailable::NotConnected));
        assert!(connections.put(key.clone(), connection()));
        assert!(connections.client(&key).is_ok());
        connections.mark_unreachable(&key, "timeout");
        assert_eq!(connections.client(&key).err(), Some(Unavailable::Unreachable("timeout".to_owned())));
        assert!(connections.put(key.clone(), connection()));
        assert!(connections.client(&key).is_ok());
    }

    #[tokio::test]
    async fn a_token_is_forgotten_with_its_cluster() {
        let connections = Connections::default();
        let key = ClusterKey::new("garden-demo", "alpha");
        connections.put(key.clone(), connection());
        connections.retain(|_| false);
        assert!(connections.get(&key).is_none());
    }
}
