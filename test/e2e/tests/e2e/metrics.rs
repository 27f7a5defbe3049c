//! What operators watch: metrics and health of the garden side and of the agent, as a scraper reads them.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use shoot_backup_api::ClusterDiscovery;
use shoot_backup_e2e::kubectl::Kubectl;
use shoot_backup_e2e::product;
use shoot_backup_e2e::wait::{Seen, until};
use shoot_backup_landscape::{Cluster, PROJECT_NAMESPACE};

use crate::world::test;

async fn get(kubectl: &Kubectl, namespace: &str, app: &str, path: &str) -> Result<String> {
    let selector = format!("app.kubernetes.io/name={app}");
    let pods = ["get", "pods", "-n", namespace, "-l", &selector, "-o", "jsonpath={.items[0].metadata.name}"];
    let pod = kubectl.run(&pods).await?;
    kubectl.run(&["get", "--raw", &format!("/api/v1/namespaces/{namespace}/pods/{pod}:8080/proxy/{path}")]).await
}

/// The value of a metric of one discovery, if there is such a line.
fn value<'a>(text: &'a str, metric: &str, discovery: &str) -> Option<&'a str> {
    let label = format!("config_name=\"{discovery}\"");
    let line = text.lines().find(|line| line.starts_with(&format!("{metric}{{")) && line.contains(&label))?;
    line.rsplit(' ').next()
}

#[test]
fn discoveries_are_seen_under_the_names_that_dashboards_know() {
    test(|world| async {
        let spec = json!({"shootSelector": {"matchLabels": {"no-such": "label"}}});
        world.project.create::<ClusterDiscovery>("watched", spec).await?;
        // A garden that nobody answers for.
        let kubeconfig = std::fs::read_to_string(world.landscape.kubeconfig(Cluster::Garden))?;
        let mut kubeconfig: Value = serde_saphyr::from_str(&kubeconfig)?;
        kubeconfig["clusters"][0]["cluster"]["server"] = json!("https://127.0.0.1:9");
        let secret = json!({"apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "nobody-kubeconfig", "namespace": PROJECT_NAMESPACE},
            "stringData": {"kubeconfig": kubeconfig.to_string()}});
        world.garden().apply(&secret.to_string()).await?;
        let spec = json!({"shootSelector": {}, "interval": "15m",
            "garden": {"kubeconfigSecretRef": {"name": "nobody-kubeconfig"}, "namespaces": [PROJECT_NAMESPACE]}});
        world.project.create::<ClusterDiscovery>("nobody", spec).await?;
        let seed = world.kubectl(Cluster::Seed);
        until("the metrics tell of both discoveries", Duration::from_mins(1), || async {
            let text = get(&seed, product::NAMESPACE, "shoot-backup-garden", "metrics").await?;
            let found = [
                value(&text, "pxbackup_cluster_discovery_config_status", "watched"),
                value(&text, "pxbackup_cluster_discovery_config_status", "nobody"),
                value(&text, "pxbackup_gardener_connectivity_failure", "nobody"),
            ];
            // Success, failed, and the failure itself.
            Ok(if found == [Some("2"), Some("3"), Some("1")] {
                Seen::Done(())
            } else {
                Seen::NotYet(format!("{found:?}"))
            })
        })
        .await
    });
}

#[test]
fn garden_side_and_agent_are_healthy_and_measured() {
    test(|world| async {
        let seed = world.kubectl(Cluster::Seed);
        get(&seed, product::NAMESPACE, "shoot-backup-garden", "healthz")
            .await
            .context("the garden side is not healthy")?;
        let text = get(&seed, product::NAMESPACE, "shoot-backup-garden", "metrics").await?;
        ensure!(text.contains("shoot_backup_reconciles"), "no reconciliation in\n{text}");
        let _alpha = world.calm["alpha"].read().await;
        let alpha = world.kubectl(Cluster::Alpha);
        get(&alpha, "shoot-backup", "shoot-backup-agent", "healthz").await.context("the agent is not healthy")?;
        let text = get(&alpha, "shoot-backup", "shoot-backup-agent", "metrics").await?;
        ensure!(text.contains("location_valid"), "no location in\n{text}");
        Ok(())
    });
}
