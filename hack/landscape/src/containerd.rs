//! What the landscape asks of a node's containerd, and what it takes away when containerd is gone.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cgroup;
use crate::cluster::Cluster;
use crate::command;
use crate::context::Context;
use crate::error::{Doing, Result};
use crate::identity::Identity;
use crate::image::Archive;
use crate::node::NodePlace;
use crate::place::write;

/// containerd's namespace for Kubernetes.
const NAMESPACE: &str = "k8s.io";

/// Imports an image unless the node has exactly this one.
pub(crate) async fn import(context: &Context, cluster: Cluster, archive: &Archive) -> Result<()> {
    let place = NodePlace::of(context, cluster);
    // Beside containerd's data, so that both go together.
    let mark = place.data.join("containerd").join(format!("imported-{}", archive.image.name()));
    if fs::read_to_string(&mark).is_ok_and(|digest| digest == archive.digest) {
        return Ok(());
    }
    let (socket, file) = (place.socket(), archive.path.to_string_lossy());
    let socket = socket.to_string_lossy();
    let ctr = ["ctr", "--address", &*socket, "--namespace", NAMESPACE, "images"];
    command::run(&[&ctr[..], &["import", "--no-unpack", &*file]].concat()).await?;
    let reference = archive.image.reference();
    command::run(&[&ctr[..], &["label", reference, "io.cri-containerd.pinned=pinned"]].concat()).await?;
    write(&mark, &archive.digest)
}

/// The first process of a container, as containerd recorded it.
pub(crate) fn first_process(context: &Context, cluster: Cluster, container: &str) -> Result<Option<Identity>> {
    let file = tasks(&NodePlace::of(context, cluster).run).join(container).join("init.pid");
    match fs::read_to_string(&file) {
        Ok(text) => Ok(text.trim().parse().ok().and_then(Identity::of)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).doing(|| format!("read {}", file.display())),
    }
}

/// Ends all containers of a node whose containerd has ended: their processes by control group, their shims by the
/// socket that they serve; then forgets containerd's run state.
pub(crate) async fn sweep(run: &Path, group: &str) -> Result<()> {
    cgroup::kill(group).await?;
    let socket = run.join("containerd.sock");
    for shim in shims(&socket) {
        shim.end(Duration::ZERO).await?;
    }
    // Processes that shims started outside of the group cannot exist; those of `exec` are in it, perhaps new ones.
    cgroup::remove(group).await?;
    if run.exists() {
        fs::remove_dir_all(run).doing(|| format!("remove {}", run.display()))?;
    }
    Ok(())
}

fn tasks(run: &Path) -> PathBuf {
    run.join("containerd/io.containerd.runtime.v2.task").join(NAMESPACE)
}

/// Shims that report to this containerd: its socket is on their command line.
fn shims(socket: &Path) -> Vec<Identity> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0);
        words.next().is_some_and(|program| program.ends_with(b"containerd-shim-runc-v2"))
            && words.any(|word| word == socket.as_os_str().as_encoded_bytes())
    })
    .filter_map(Identity::of)
    .collect()
}
