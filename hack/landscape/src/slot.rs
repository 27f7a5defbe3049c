//! Slots: several landscapes beside each other on one machine, each with ports, addresses and names of its own.
//!
//! A slot is a folder below `/run`, claimed under a lock and owned by one state folder. What must survive the loss of
//! that state folder (process records, sockets) lies in the slot, so that `down` finds everything in any case.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use crate::cluster::Cluster;
use crate::error::{Doing, Error, Result};

/// Where slots lie; short, because socket paths end at 107 bytes.
pub(crate) const REGISTRY: &str = "/run/shoot-backup";

/// As many landscapes as one machine may hold.
const SLOTS: u8 = 8;
const FIRST_PORT: u16 = 20_000;
const PORTS_PER_SLOT: u16 = 100;
const FIRST_SUBNET: u8 = 77;

/// A listener of the landscape on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Port {
    /// etcd for its clients.
    Etcd,
    /// etcd for its peers: there are none, but it wants one.
    EtcdPeer,
    /// Azurite, behind the emulator.
    Azurite,
    /// The Azure emulator as pods see it.
    Azure,
    /// The Azure emulator's admin API, on loopback.
    AzureAdmin,
    /// Published issuers.
    Discovery,
    /// gardener-apiserver, behind a garden's kube-apiserver.
    GardenerApiserver(Cluster),
    /// A cluster's kube-apiserver.
    Apiserver(Cluster),
}

/// One landscape's share of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Slot {
    number: u8,
    folder: PathBuf,
}

impl Slot {
    /// The slot that `owner` holds, or a free one that it holds from now on.
    ///
    /// A slot whose owner's folder is gone is not free: something may still run there. Sweep it first
    /// ([`Slot::abandoned`]).
    pub(crate) fn claim(registry: &Path, owner: &Path) -> Result<Self> {
        let _lock = lock(registry)?;
        if let Some(slot) = Self::held(registry, owner)? {
            return Ok(slot);
        }
        for number in 0..SLOTS {
            let slot = Self::at(registry, number);
            if slot.owner()?.is_none() {
                fs::create_dir_all(&slot.folder).doing(|| format!("create {}", slot.folder.display()))?;
                let file = slot.folder.join("owner");
                fs::write(&file, owner.to_string_lossy().as_bytes()).doing(|| format!("write {}", file.display()))?;
                return Ok(slot);
            }
        }
        Err(Error::Precondition(format!(
            "all {SLOTS} landscape slots below {} are taken: take one down with `landscape --name NAME down`",
            registry.display()
        )))
    }

    /// The slot that `owner` holds, if any.
    pub(crate) fn held(registry: &Path, owner: &Path) -> Result<Option<Self>> {
        for number in 0..SLOTS {
            let slot = Self::at(registry, number);
            if slot.owner()?.as_deref() == Some(owner) {
                return Ok(Some(slot));
            }
        }
        Ok(None)
    }

    /// Slots whose owner's folder no longer exists.
    pub(crate) fn abandoned(registry: &Path) -> Result<Vec<Self>> {
        let mut found = Vec::new();
        for number in 0..SLOTS {
            let slot = Self::at(registry, number);
            if slot.owner()?.is_some_and(|owner| !owner.exists()) {
                found.push(slot);
            }
        }
        Ok(found)
    }

    /// Gives the slot back. Everything in it must have ended.
    pub(crate) fn release(&self) -> Result<()> {
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).doing(|| format!("remove {}", self.folder.display()))
            }
            _ => Ok(()),
        }
    }

    fn at(registry: &Path, number: u8) -> Self {
        Self { number, folder: registry.join(number.to_string()) }
    }

    /// The state folder that holds this slot.
    pub(crate) fn owner(&self) -> Result<Option<PathBuf>> {
        let file = self.folder.join("owner");
        match fs::read_to_string(&file) {
            Ok(text) => Ok(Some(PathBuf::from(text))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).doing(|| format!("read {}", file.display())),
        }
    }

    /// Sockets, process records and containerd's run state.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// A name that no other landscape uses; `suffix` of up to 11 bytes keeps it a valid interface name.
    pub(crate) fn prefixed(&self, suffix: &str) -> String {
        format!("sb{}-{suffix}", self.number)
    }

    const fn subnet(&self) -> u8 {
        FIRST_SUBNET + self.number
    }

    /// The host's address on the bridge: pods reach every listener of the landscape there.
    pub(crate) const fn host(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.subnet(), 0, 1)
    }

    /// A node's address on the bridge.
    pub(crate) const fn node(&self, cluster: Cluster) -> Ipv4Addr {
        Ipv4Addr::new(10, self.subnet(), 0, 10 + cluster.number())
    }

    /// Addresses of a cluster's pods, a /24; distinct per cluster, so that the host can route to them.
    pub(crate) fn pods(&self, cluster: Cluster) -> String {
        format!("10.{}.{}.0/24", self.subnet(), 10 + cluster.number())
    }

    /// A listener's port.
    pub(crate) const fn port(&self, port: Port) -> u16 {
        let offset = match port {
            Port::Etcd => 0,
            Port::EtcdPeer => 1,
            Port::Azurite => 2,
            Port::Azure => 3,
            Port::AzureAdmin => 4,
            Port::Discovery => 5,
            Port::GardenerApiserver(cluster) => 10 + cluster.number() as u16,
            Port::Apiserver(cluster) => 20 + cluster.number() as u16,
        };
        FIRST_PORT + PORTS_PER_SLOT * self.number as u16 + offset
    }

    /// Where a cluster's kube-apiserver is reached, from the host and from pods alike.
    pub(crate) fn apiserver(&self, cluster: Cluster) -> String {
        format!("https://{}:{}", self.host(), self.port(Port::Apiserver(cluster)))
    }

    /// Host and port of the published issuers.
    pub(crate) fn discovery_host(&self) -> String {
        format!("{}:{}", self.host(), self.port(Port::Discovery))
    }

    /// Where the published issuers are read.
    pub(crate) fn discovery(&self) -> String {
        format!("https://{}", self.discovery_host())
    }
}

fn lock(registry: &Path) -> Result<File> {
    fs::create_dir_all(registry).doing(|| format!("create {}", registry.display()))?;
    let file = registry.join("lock");
    let lock = File::create(&file).doing(|| format!("open {}", file.display()))?;
    lock.lock().doing(|| format!("lock {}", file.display()))?;
    Ok(lock)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn two_landscapes_share_neither_ports_nor_addresses_nor_names() {
        let registry = tempfile::tempdir().unwrap();
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let one = Slot::claim(registry.path(), one.path()).unwrap();
        let two = Slot::claim(registry.path(), two.path()).unwrap();
        assert_ne!(one.host(), two.host());
        assert_ne!(one.prefixed("br"), two.prefixed("br"));
        assert_ne!(one.pods(Cluster::Alpha), two.pods(Cluster::Alpha));
        assert_ne!(one.port(Port::Etcd), two.port(Port::Etcd));
    }

    #[test]
    fn a_landscape_keeps_its_slot() {
        let registry = tempfile::tempdir().unwrap();
        let owner = tempfile::tempdir().unwrap();
        let first = Slot::claim(registry.path(), owner.path()).unwrap();
        assert_eq!(first, Slot::claim(registry.path(), owner.path()).unwrap());
        assert_eq!(Some(first), Slot::held(registry.path(), owner.path()).unwrap());
    }

    #[test]
    fn a_released_slot_is_free_and_an_abandoned_one_is_not() {
        let registry = tempfile::tempdir().unwrap();
        let (gone, next) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let slot = Slot::claim(registry.path(), gone.path()).unwrap();
        drop(gone);
        assert_eq!(vec![slot.clone()], Slot::abandoned(registry.path()).unwrap());
        assert_ne!(slot, Slot::claim(registry.path(), next.path()).unwrap());
        slot.release().unwrap();
        let other = tempfile::tempdir().unwrap();
        assert_eq!(slot, Slot::claim(registry.path(), other.path()).unwrap());
    }

    #[test]
    fn no_two_listeners_of_a_landscape_share_a_port() {
        let registry = tempfile::tempdir().unwrap();
        let owner = tempfile::tempdir().unwrap();
        let slot = Slot::claim(registry.path(), owner.path()).unwrap();
        let mut ports = vec![Port::Etcd, Port::EtcdPeer, Port::Azurite, Port::Azure, Port::AzureAdmin, Port::Discovery];
        ports.extend(Cluster::ALL.map(Port::Apiserver));
        ports.extend(Cluster::ALL.map(Port::GardenerApiserver));
        let numbers: BTreeSet<_> = ports.iter().map(|port| slot.port(*port)).collect();
        assert_eq!(ports.len(), numbers.len());
    }

    #[test]
    fn interface_names_fit_into_the_kernels_fifteen_bytes() {
        let registry = tempfile::tempdir().unwrap();
        let owner = tempfile::tempdir().unwrap();
        let slot = Slot::claim(registry.path(), owner.path()).unwrap();
        for cluster in Cluster::ALL {
            assert!(slot.prefixed(cluster.name()).len() <= 15, "{cluster}");
        }
    }
}
