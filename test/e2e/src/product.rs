//! Installs the product on a landscape as a landscape operator does: by its charts.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::json;
use shoot_backup_landscape::{Cluster, Landscape};

use crate::kubectl::{Kubectl, run};

/// Namespace of the garden side in the seed.
pub const NAMESPACE: &str = "shoot-backup-system";
/// The garden side's ServiceAccount in the garden (namespace `garden`).
pub const GARDEN_USER: &str = "shoot-backup";

/// The checkout's root.
#[must_use]
pub fn checkout() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

/// Installs the kinds and roles in the garden, and the garden side in the seed. Repeating it changes nothing.
pub async fn install(landscape: &Landscape) -> Result<()> {
    let garden = Kubectl::new(landscape.kubectl_path(), &landscape.kubeconfig(Cluster::Garden));
    let seed = Kubectl::new(landscape.kubectl_path(), &landscape.kubeconfig(Cluster::Seed));
    let user =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": GARDEN_USER, "namespace": "garden"}});
    garden.apply(&user.to_string()).await?;
    let values = json!({"user": {"kind": "ServiceAccount", "name": GARDEN_USER, "namespace": "garden"}});
    helm(landscape, Cluster::Garden, "garden", "shoot-backup-garden-resources", "garden-resources", &values).await?;

    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    seed.apply(&namespace.to_string()).await?;
    let kubeconfig = garden_kubeconfig(landscape, &garden).await?;
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "garden-kubeconfig", "namespace": NAMESPACE},
        "stringData": {"kubeconfig": kubeconfig},
    });
    seed.apply(&secret.to_string()).await?;
    helm(landscape, Cluster::Seed, NAMESPACE, "shoot-backup-garden", "garden", &garden_values(landscape)?).await?;
    let rollout = ["rollout", "status", "-n", NAMESPACE, "deployment/shoot-backup-garden", "--timeout=120s"];
    seed.run(&rollout).await.map(drop)
}

/// Values of chart `garden` for a landscape.
pub fn garden_values(landscape: &Landscape) -> Result<serde_json::Value> {
    let authority = landscape.ca_pem()?;
    Ok(json!({
        "image": "shoot-backup/extension:dev",
        "imagePullPolicy": "Never",
        "garden": {"kubeconfigSecret": "garden-kubeconfig"},
        "extraCA": authority,
        "agent": {"image": "shoot-backup/agent:dev", "extraCA": authority},
    }))
}

/// Installs or upgrades one of the checkout's charts.
pub async fn helm(
    landscape: &Landscape,
    cluster: Cluster,
    namespace: &str,
    release: &str,
    chart: &str,
    values: &serde_json::Value,
) -> Result<()> {
    let chart = checkout().join("charts").join(chart).display().to_string();
    let kubeconfig = landscape.kubeconfig(cluster).display().to_string();
    let arguments = [
        "upgrade",
        "--install",
        release,
        &chart,
        "--kubeconfig",
        &kubeconfig,
        "--namespace",
        namespace,
        "--create-namespace",
        "--values",
        "-",
    ];
    run(&landscape.helm_path(), &arguments, Some(&values.to_string())).await.map(drop)
}

/// A kubeconfig of the garden side's own account: it holds no right that its `ClusterRole` does not give.
async fn garden_kubeconfig(landscape: &Landscape, garden: &Kubectl) -> Result<String> {
    let token = garden.run(&["create", "token", GARDEN_USER, "-n", "garden", "--duration=24h"]).await?;
    kubeconfig_with_token(&landscape.kubeconfig(Cluster::Garden), token.trim())
}

/// The kubeconfig of a file with another user: one that has this token.
pub fn kubeconfig_with_token(file: &Path, token: &str) -> Result<String> {
    let text = std::fs::read_to_string(file).with_context(|| format!("failed to read {}", file.display()))?;
    let config: serde_json::Value = serde_saphyr::from_str(&text).context("failed to read the kubeconfig")?;
    Ok(json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "default",
        "clusters": [{"name": "default", "cluster": config["clusters"][0]["cluster"]}],
        "users": [{"name": "default", "user": {"token": token}}],
        "contexts": [{"name": "default", "context": {"cluster": "default", "user": "default"}}],
    })
    .to_string())
}
