//! The control group that holds all pods of a node, in every mounted hierarchy.
//!
//! Each kubelet gets a root of its own: without it, two kubelets on one machine take each other's pods for orphans. It
//! also names every process of a node's pods, so that they can be ended without asking anyone.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::error::{Doing, Result};
use crate::identity::Identity;
use crate::wait::{self, Seen};

const MOUNTED: &str = "/sys/fs/cgroup";

/// Mount points of hierarchies: one with cgroup v2, one per controller with v1.
fn hierarchies() -> Vec<PathBuf> {
    let root = Path::new(MOUNTED);
    if root.join("cgroup.procs").exists() {
        return vec![root.to_owned()];
    }
    let Ok(entries) = fs::read_dir(root) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).filter(|path| path.join("cgroup.procs").exists()).collect()
}

/// Makes the group everywhere.
pub(crate) fn ensure(name: &str) -> Result<()> {
    for hierarchy in hierarchies() {
        let group = hierarchy.join(name);
        fs::create_dir_all(&group).doing(|| format!("create control group {}", group.display()))?;
        // A v1 cpuset without CPUs and memory takes no process.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let (from, to) = (hierarchy.join(file), group.join(file));
            if from.exists() && to.exists() {
                let value = fs::read_to_string(&from).doing(|| format!("read {}", from.display()))?;
                fs::write(&to, value.trim()).doing(|| format!("write {}", to.display()))?;
            }
        }
    }
    Ok(())
}

/// Ends every process in the group and below it.
pub(crate) async fn kill(name: &str) -> Result<()> {
    wait::until(&format!("the end of all processes in control group {name}"), 30, || async {
        let processes = processes(name);
        for identity in &processes {
            identity.signal(Signal::KILL)?;
        }
        Ok(if processes.is_empty() { Seen::Yes(()) } else { Seen::NotYet(format!("{} left", processes.len())) })
    })
    .await
}

/// Ends what is in the group, then takes it away.
pub(crate) async fn remove(name: &str) -> Result<()> {
    kill(name).await?;
    for hierarchy in hierarchies() {
        let group = hierarchy.join(name);
        // The kernel lets go of a group a moment after its last process.
        wait::until(&format!("the removal of control group {}", group.display()), 10, || async {
            Ok(match remove_tree(&group) {
                Ok(()) => Seen::Yes(()),
                Err(error) => Seen::NotYet(error.to_string()),
            })
        })
        .await?;
    }
    Ok(())
}

/// Processes in the group and below, of all hierarchies.
fn processes(name: &str) -> Vec<Identity> {
    let mut pids = BTreeSet::new();
    for hierarchy in hierarchies() {
        collect(&hierarchy.join(name), &mut pids);
    }
    pids.into_iter().filter_map(Identity::of).collect()
}

fn collect(group: &Path, pids: &mut BTreeSet<i32>) {
    let listed = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    pids.extend(listed.lines().filter_map(|line| line.parse::<i32>().ok()));
    for child in children(group) {
        collect(&child, pids);
    }
}

fn children(group: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(group) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

fn remove_tree(group: &Path) -> std::io::Result<()> {
    for child in children(group) {
        remove_tree(&child)?;
    }
    match fs::remove_dir(group) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
