//! The landscape's network: one bridge on the host, one network namespace with a veth pair per node.
//!
//! Nothing leaves the machine and nothing is translated: the host routes to each cluster's pods through its node, so
//! that API servers reach webhooks in pods and pods reach the landscape's listeners on the bridge address.

use std::path::{Path, PathBuf};

use crate::cluster::Cluster;
use crate::command::{run, succeeds};
use crate::error::Result;
use crate::slot::Slot;

/// Where `ip netns` keeps namespaces.
const NAMESPACES: &str = "/run/netns";

/// Name of the bridge.
fn bridge(slot: &Slot) -> String {
    slot.prefixed("br")
}

/// A node's network namespace, for `nsenter --net`.
pub(crate) fn namespace(slot: &Slot, cluster: Cluster) -> PathBuf {
    Path::new(NAMESPACES).join(slot.prefixed(cluster.name()))
}

/// The bridge with the host's address.
pub(crate) async fn ensure_bridge(slot: &Slot) -> Result<()> {
    let bridge = bridge(slot);
    if !exists(&bridge) {
        run(&["ip", "link", "add", &bridge, "type", "bridge"]).await?;
    }
    run(&["ip", "addr", "replace", &format!("{}/24", slot.host()), "dev", &bridge]).await?;
    run(&["ip", "link", "set", &bridge, "up"]).await?;
    Ok(())
}

/// A node's namespace, connected to the bridge.
pub(crate) async fn ensure_node(slot: &Slot, cluster: Cluster) -> Result<()> {
    let name = slot.prefixed(cluster.name());
    let address = format!("{}/24", slot.node(cluster));
    let (host, pods) = (slot.host().to_string(), slot.pods(cluster));
    if !namespace(slot, cluster).exists() {
        run(&["ip", "netns", "add", &name]).await?;
    }
    if !exists(&name) {
        run(&["ip", "link", "add", &name, "type", "veth", "peer", "name", "eth0", "netns", &name]).await?;
    }
    run(&["ip", "link", "set", &name, "master", &bridge(slot), "up"]).await?;
    run(&["ip", "-n", &name, "link", "set", "lo", "up"]).await?;
    run(&["ip", "-n", &name, "addr", "replace", &address, "dev", "eth0"]).await?;
    run(&["ip", "-n", &name, "link", "set", "eth0", "up"]).await?;
    run(&["ip", "-n", &name, "route", "replace", "default", "via", &host]).await?;
    let inside = format!("--net={}", namespace(slot, cluster).display());
    run(&["nsenter", &inside, "sysctl", "-q", "-w", "net.ipv4.ip_forward=1"]).await?;
    run(&["ip", "route", "replace", &pods, "via", &slot.node(cluster).to_string(), "dev", &bridge(slot)]).await?;
    Ok(())
}

/// Takes a node's namespace away, and with it all rules and interfaces inside.
pub(crate) async fn remove_node(slot: &Slot, cluster: Cluster) -> Result<()> {
    let name = slot.prefixed(cluster.name());
    if exists(&name) {
        run(&["ip", "link", "delete", &name]).await?;
    }
    // After a reboot the name may be left without a namespace behind it.
    if namespace(slot, cluster).exists() && !succeeds(&["ip", "netns", "delete", &name]).await {
        run(&["rm", "-f", &namespace(slot, cluster).to_string_lossy()]).await?;
    }
    Ok(())
}

/// Takes the bridge away, and with it the routes over it.
pub(crate) async fn remove_bridge(slot: &Slot) -> Result<()> {
    let bridge = bridge(slot);
    if exists(&bridge) {
        run(&["ip", "link", "delete", &bridge]).await?;
    }
    Ok(())
}

fn exists(interface: &str) -> bool {
    Path::new("/sys/class/net").join(interface).exists()
}
