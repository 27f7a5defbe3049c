//! Taking a landscape down: what was recorded is ended, what was made is removed, in any state that it may be in.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::cluster::Cluster;
use crate::command;
use crate::containerd;
use crate::error::{Doing, Result};
use crate::machine;
use crate::network;
use crate::node;
use crate::place::Place;
use crate::process::Processes;
use crate::progress::{Progress, step};
use crate::slot::{REGISTRY, Slot};
use crate::up;

/// How long components may take to end by themselves: their data is going away.
const GRACE: Duration = Duration::from_secs(4);

/// Ends everything of this place's landscape and removes its folders.
pub(crate) async fn down(place: &Place, keep_logs: bool, progress: &dyn Progress) -> Result<()> {
    machine::ensure_root()?;
    let folder = place.state.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder).doing(|| format!("create {}", folder.display()))?;
    let lock = up::lock(place).await?;
    if let Some(slot) = Slot::held(Path::new(REGISTRY), &place.state)? {
        step(progress, "all components ended", sweep(&slot)).await?;
    }
    unmount_below(&place.state).await?;
    remove_state(place, keep_logs)?;
    drop(lock);
    let _ = fs::remove_file(place.state.with_extension("lock"));
    // Goes only when no other landscape is left in it.
    let _ = fs::remove_dir(folder);
    Ok(())
}

/// Ends all that runs in a slot and gives the slot back.
pub(crate) async fn sweep(slot: &Slot) -> Result<()> {
    let processes = Processes::new(slot.folder().join("processes"), slot.folder().join("logs"));
    // Anchors last: they hold the mounts that the others use.
    let anchors: Vec<_> = Cluster::ALL.map(node::anchor).into();
    let (anchors, others): (Vec<_>, Vec<_>) =
        processes.recorded().into_iter().partition(|component| anchors.contains(component));
    let strays = processes.strays();
    futures::future::try_join_all(strays.iter().map(|stray| stray.end(Duration::ZERO))).await?;
    for batch in [others, anchors] {
        let ends = batch.iter().map(|component| processes.stop(component, GRACE));
        futures::future::try_join_all(ends).await?;
        let nodes = Cluster::ALL.into_iter().filter(|cluster| cluster.has_node());
        let sweeps = nodes.map(|cluster| {
            let run = slot.folder().join(cluster.name());
            let group = slot.prefixed(cluster.name());
            async move { containerd::sweep(&run, &group).await }
        });
        futures::future::try_join_all(sweeps).await?;
    }
    for cluster in Cluster::ALL.into_iter().filter(|cluster| cluster.has_node()) {
        network::remove_node(slot, cluster).await?;
    }
    network::remove_bridge(slot).await?;
    slot.release()
}

/// Ends landscapes whose state folder someone has removed.
pub(crate) async fn sweep_abandoned(progress: &dyn Progress) -> Result<()> {
    for slot in Slot::abandoned(Path::new(REGISTRY))? {
        let owner = slot.owner()?.unwrap_or_default();
        let what = format!("abandoned landscape {} ended", owner.display());
        step(progress, &what, sweep(&slot)).await?;
    }
    Ok(())
}

/// Removes what an earlier boot of the machine left: etcd writes without fsync, so its data may be torn.
pub(crate) async fn forget_earlier_boot(place: &Place, progress: &dyn Progress) -> Result<()> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").doing(|| "read the boot's id")?;
    let mark = place.state.join("boot");
    let earlier = fs::read_to_string(&mark).ok();
    if earlier.as_deref().is_some_and(|earlier| earlier != boot) {
        progress.note("the machine was started anew: so is the landscape");
        if let Some(slot) = Slot::held(Path::new(REGISTRY), &place.state)? {
            sweep(&slot).await?;
        }
        remove_state(place, true)?;
    }
    crate::place::write(&mark, boot)
}

fn remove_state(place: &Place, keep_logs: bool) -> Result<()> {
    if !place.state.exists() {
        return Ok(());
    }
    if !keep_logs {
        return fs::remove_dir_all(&place.state).doing(|| format!("remove {}", place.state.display()));
    }
    let logs = place.logs();
    let entries = fs::read_dir(&place.state).doing(|| format!("list {}", place.state.display()))?;
    for entry in entries.flatten().map(|entry| entry.path()).filter(|path| *path != logs) {
        let removed = if entry.is_dir() { fs::remove_dir_all(&entry) } else { fs::remove_file(&entry) };
        removed.doing(|| format!("remove {}", entry.display()))?;
    }
    Ok(())
}

/// Nodes mount in namespaces of their own; what someone mounted below the state folder by hand goes here.
async fn unmount_below(state: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").doing(|| "list mounts")?;
    let prefix = format!("{}/", state.display());
    // The last mounted first.
    for target in mounts.lines().rev().filter_map(|line| line.split_whitespace().nth(1)) {
        if target.starts_with(&prefix) {
            command::run(&["umount", target]).await?;
        }
    }
    Ok(())
}
