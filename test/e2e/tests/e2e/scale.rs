//! Memory does not grow with the work.

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use shoot_backup_api::Restore;
use shoot_backup_landscape::Cluster;

use crate::world::{World, test};

const OBJECTS: usize = 5_000;
const LIMIT_MIB: u64 = 256;

/// Largest resident memory of the agent's process in a cluster so far, in MiB.
fn agent_peak_memory(uid: &str) -> Result<u64> {
    // The cgroup of a pod's processes is named after its UID, with dashes or underscores.
    let names = [uid.to_owned(), uid.replace('-', "_")];
    for entry in std::fs::read_dir("/proc")? {
        let path = entry?.path();
        let Ok(cgroup) = std::fs::read_to_string(path.join("cgroup")) else { continue };
        let Ok(command) = std::fs::read_to_string(path.join("comm")) else { continue };
        if !command.starts_with("shoot-backup-ag") || !names.iter().any(|name| cgroup.contains(name)) {
            continue;
        }
        let status = std::fs::read_to_string(path.join("status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        return Ok(kib / 1024);
    }
    anyhow::bail!("failed to find the agent's process of pod {uid}")
}

async fn agent_uid(world: &World) -> Result<String> {
    let arguments = [
        "get",
        "pods",
        "-n",
        "shoot-backup",
        "-l",
        "app.kubernetes.io/name=shoot-backup-agent",
        "-o",
        "jsonpath={.items[0].metadata.uid}",
    ];
    world.kubectl(Cluster::Alpha).run(&arguments).await
}

#[test]
fn five_thousand_objects_are_backed_up_and_restored_in_256_mib() {
    test(|world| async {
        let _alpha = world.calm["alpha"].read().await;
        let name = "many";
        world.location(name, &["alpha"]).await?;
        let kubectl = world.kubectl(Cluster::Alpha);
        kubectl
            .apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}).to_string())
            .await?;
        let items = (0..OBJECTS)
            .map(|index| {
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("item-{index}"), "namespace": name},
                    "data": {"text": format!("{index} ").repeat(400)}})
            })
            .collect::<Vec<_>>();
        // In lists of 500: one list of all is more than kubectl likes.
        for chunk in items.chunks(500) {
            let list = json!({"apiVersion": "v1", "kind": "List", "items": chunk});
            kubectl.run_with_input(&["create", "-f", "-"], Some(&list.to_string())).await?;
        }
        world.project.back_up(name, "alpha", name, &[name]).await?;
        let backup = world.project.backup_completed(name).await?;
        let result = backup.status.and_then(|status| status.result).context("no result")?;
        ensure!(result.objects > i64::try_from(OBJECTS)?, "{result:?}");
        world.delete_namespace(Cluster::Alpha, name).await?;
        world.project.create::<Restore>(name, json!({"backup": name, "cluster": "alpha"})).await?;
        let restore = world.project.restore_completed(name).await?;
        let result = restore.status.and_then(|status| status.result).context("no result")?;
        ensure!(result.created >= i64::try_from(OBJECTS)?, "{result:?}");
        let peak = agent_peak_memory(&agent_uid(world).await?)?;
        println!("agent's peak memory: {peak} MiB");
        ensure!(peak < LIMIT_MIB, "the agent needed {peak} MiB");
        world.delete_namespace(Cluster::Alpha, name).await
    });
}
