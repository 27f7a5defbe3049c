//! What a landscape needs of the machine as a whole.

use std::fs;
use std::path::Path;

use crate::error::{Doing, Error, Result};

/// Each kubelet, containerd and API server watches a dozen folders; a Linux user may watch 128 by default, which is
/// enough for one landscape and not for two.
const INSTANCES: u32 = 1024;

/// Namespaces, mounts and control groups are the superuser's.
pub(crate) fn ensure_root() -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(Error::Precondition(
        "a landscape makes network namespaces, mounts and control groups: run it as root".to_owned(),
    ))
}

/// Lets the machine's users watch as many files as several landscapes do. The limit is raised only, and stays raised:
/// others may have come to need it.
pub(crate) fn ensure_watches() -> Result<()> {
    let limit = Path::new("/proc/sys/fs/inotify/max_user_instances");
    let text = fs::read_to_string(limit).doing(|| format!("read {}", limit.display()))?;
    if text.trim().parse::<u32>().is_ok_and(|limit| limit >= INSTANCES) {
        return Ok(());
    }
    fs::write(limit, INSTANCES.to_string()).map_err(|error| {
        Error::Precondition(format!(
            "failed to raise the machine's limit of inotify instances ({error}): run the landscape as root, or have \
             fs.inotify.max_user_instances set to {INSTANCES}"
        ))
    })
}
