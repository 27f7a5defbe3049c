//! Clusters that are not of the own garden: Shoots of a foreign garden, and any cluster by kubeconfig.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use shoot_backup_api::{ApplicationCluster, ApplicationClusterPhase, ClusterDiscovery};
use shoot_backup_landscape::{Cluster, FOREIGN_SHOOT, PROJECT_NAMESPACE};

use crate::world::{World, test};

async fn kubeconfig_secret(world: &World, name: &str, cluster: Cluster) -> Result<()> {
    let kubeconfig = std::fs::read_to_string(world.landscape.kubeconfig(cluster))?;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": PROJECT_NAMESPACE},
        "stringData": {"kubeconfig": kubeconfig}});
    world.garden().apply(&secret.to_string()).await
}

/// Cluster delta is added by kubeconfig first, then found as a Shoot of a foreign garden: two ways to the same machine,
/// one after the other.
#[test]
fn a_standalone_cluster_is_added_by_kubeconfig_and_a_foreign_garden_is_searched() {
    test(|world| async {
        let _delta = world.calm["delta"].write().await;
        kubeconfig_secret(world, "delta-kubeconfig", Cluster::Delta).await?;
        let spec = json!({"kubeconfigSecretRef": {"name": "delta-kubeconfig"}});
        world.project.create::<ApplicationCluster>("delta", spec).await?;
        let cluster = world.project.cluster_in("delta", ApplicationClusterPhase::Ready).await?;
        ensure!(cluster.status.and_then(|status| status.found_by).as_deref() == Some("Manual"));
        world.trust("delta").await?;
        world.location("standalone", &["delta"]).await?;
        world.small_application(Cluster::Delta, "standalone").await?;
        world.project.back_up("standalone", "delta", "standalone", &["standalone"]).await?;
        let backup = world.project.backup_completed("standalone").await?;
        let result = backup.status.and_then(|status| status.result).context("no result")?;
        ensure!(result.volumes == 1 && result.bytes > 40 << 20, "{result:?}");
        world.delete_namespace(Cluster::Delta, "standalone").await?;

        world.landscape.start_foreign_garden().await?;
        kubeconfig_secret(world, "foreign-garden", Cluster::ForeignGarden).await?;
        let spec = json!({"shootSelector": {}, "interval": "15m",
            "garden": {"kubeconfigSecretRef": {"name": "foreign-garden"}, "namespaces": [PROJECT_NAMESPACE]}});
        world.project.create::<ClusterDiscovery>("foreign", spec).await?;
        let counts = world
            .project
            .wait_for("foreign", "has found the Shoot", Duration::from_mins(1), |discovery: &ClusterDiscovery| {
                let status = discovery.status.as_ref()?;
                (status.counts.associated >= 1).then_some(status.counts)
            })
            .await?;
        ensure!(counts.failed == 0, "{counts:?}");
        let name = format!("{PROJECT_NAMESPACE}--{FOREIGN_SHOOT}");
        let cluster = world.project.cluster_in(&name, ApplicationClusterPhase::Ready).await?;
        ensure!(cluster.status.and_then(|status| status.found_by).as_deref() == Some("Discovery/foreign"));
        Ok(())
    });
}

#[test]
fn a_cluster_with_a_secret_that_does_not_exist_says_which() {
    test(|world| async {
        let spec = json!({"kubeconfigSecretRef": {"name": "no-such-secret"}});
        world.project.create::<ApplicationCluster>("no-secret", spec).await?;
        let what = "names the Secret";
        world
            .project
            .wait_for("no-secret", what, Duration::from_secs(30), |cluster: &ApplicationCluster| {
                let status = cluster.status.as_ref()?;
                let failed = status.phase == ApplicationClusterPhase::Failed;
                let named = status.conditions.iter().any(|condition| condition.message.contains("no-such-secret"));
                (failed && named).then_some(())
            })
            .await
    });
}
