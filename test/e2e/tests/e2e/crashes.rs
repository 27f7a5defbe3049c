//! Killed in the middle, an agent and the garden side carry on or fail visibly, and leave nothing behind.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use shoot_backup_api::{Backup, OperationPhase, Restore};
use shoot_backup_azure_emulator::{Fault, FaultKind, Operation};
use shoot_backup_e2e::product;
use shoot_backup_e2e::wait::{Seen, until};
use shoot_backup_landscape::Cluster;

use crate::world::{World, test};

/// Makes each upload (download) below a location's folder slow, so that there is a middle to be killed in.
async fn slow(world: &World, operation: Operation, location: &str) -> Result<()> {
    let fault =
        Fault::new(FaultKind::Delay { milliseconds: 700 }).on(operation).path_contains(&format!("/{location}/"));
    world.azure.add_fault(&fault.always()).await?;
    Ok(())
}

async fn backup_runs(world: &World, name: &str) -> Result<()> {
    world
        .project
        .wait_for(name, "has begun its volumes", Duration::from_mins(1), |backup: &Backup| {
            let status = backup.status.as_ref()?;
            (status.phase == OperationPhase::InProgress && status.progress.volumes_total > 0).then_some(())
        })
        .await
}

async fn restore_runs(world: &World, name: &str) -> Result<()> {
    world
        .project
        .wait_for(name, "is in progress", Duration::from_mins(1), |restore: &Restore| {
            let status = restore.status.as_ref()?;
            (status.phase == OperationPhase::InProgress && status.progress.volumes_total > 0).then_some(())
        })
        .await
}

/// Neither a Job nor a claim nor a volume of ours is left.
async fn nothing_is_left(world: &World, cluster: Cluster) -> Result<()> {
    let kubectl = world.kubectl(cluster);
    until("no mover Job, claim or twin volume is left", Duration::from_mins(1), || async {
        let namespaced = kubectl.run(&["get", "jobs,pvc", "-n", "shoot-backup", "-o", "name"]).await?;
        let volumes = kubectl.run(&["get", "pv", "-o", "name"]).await?;
        let twins = volumes.lines().filter(|name| name.contains("/shoot-backup-")).collect::<Vec<_>>();
        let clean = namespaced.trim().is_empty() && twins.is_empty();
        Ok(if clean { Seen::Done(()) } else { Seen::NotYet(format!("{namespaced} {twins:?}")) })
    })
    .await
}

/// Whose container is killed: cluster, namespace and application.
type Victim<'a> = (Cluster, &'a str, &'a str);

/// Backs a small application of alpha up and restores it, and kills a container in the middle of both. Returns how
/// often the backup was begun.
async fn survives(world: &World, name: &str, (cluster, namespace, app): Victim<'_>) -> Result<i64> {
    let selector = format!("app.kubernetes.io/name={app}");
    world.location(name, &["alpha"]).await?;
    world.small_application(Cluster::Alpha, name).await?;
    let before = world.files(name).await?;
    slow(world, Operation::PutBlob, name).await?;
    world.project.back_up(name, "alpha", name, &[name]).await?;
    backup_runs(world, name).await?;
    world.landscape.kill_container(cluster, namespace, &selector).await?;
    let backup = world.project.backup_completed(name).await?;

    world.delete_namespace(Cluster::Alpha, name).await?;
    slow(world, Operation::GetBlob, name).await?;
    world.project.create::<Restore>(name, json!({"backup": name, "cluster": "alpha"})).await?;
    restore_runs(world, name).await?;
    world.landscape.kill_container(cluster, namespace, &selector).await?;
    world.project.restore_completed(name).await?;
    ensure!(world.files(name).await? == before, "restored files differ");
    world.delete_namespace(Cluster::Alpha, name).await?;
    Ok(backup.status.context("no status")?.attempts)
}

#[test]
fn an_agent_that_is_killed_in_a_backup_and_in_a_restore_carries_on() {
    test(|world| async {
        let _alpha = world.calm["alpha"].write().await;
        let agent = (Cluster::Alpha, "shoot-backup", "shoot-backup-agent");
        let attempts = survives(world, "agent-killed", agent).await?;
        ensure!(attempts >= 2, "the backup was not begun again: {attempts} attempts");
        nothing_is_left(world, Cluster::Alpha).await
    });
}

#[test]
fn a_garden_side_that_is_killed_in_a_backup_and_in_a_restore_is_not_missed() {
    test(|world| async {
        let (_alpha, _garden) = (world.calm["alpha"].read().await, world.garden_calm.write().await);
        let garden_side = (Cluster::Seed, product::NAMESPACE, "shoot-backup-garden");
        survives(world, "garden-killed", garden_side).await.map(drop)
    });
}

#[test]
fn a_backup_goes_on_while_the_api_servers_of_garden_and_shoot_restart() {
    test(|world| async {
        let (_alpha, _garden) = (world.calm["alpha"].write().await, world.garden_calm.write().await);
        let name = "restarted";
        world.location(name, &["alpha"]).await?;
        world.small_application(Cluster::Alpha, name).await?;
        slow(world, Operation::PutBlob, name).await?;
        world.project.back_up(name, "alpha", name, &[name]).await?;
        backup_runs(world, name).await?;
        for cluster in [Cluster::Alpha, Cluster::Garden] {
            world.landscape.stop_apiserver(cluster).await?;
            world.landscape.start_apiserver(cluster).await?;
        }
        world.project.backup_completed(name).await?;
        world.delete_namespace(Cluster::Alpha, name).await
    });
}

#[test]
fn a_backup_that_is_cancelled_ends_soon_and_leaves_nothing() {
    test(|world| async {
        let _alpha = world.calm["alpha"].write().await;
        let name = "cancelled";
        world.location(name, &["alpha"]).await?;
        world.small_application(Cluster::Alpha, name).await?;
        slow(world, Operation::PutBlob, name).await?;
        world.project.back_up(name, "alpha", name, &[name]).await?;
        backup_runs(world, name).await?;
        world.project.request::<Backup>(name, "cancel").await?;
        let backup = world.project.backup_ended(name).await?;
        let status = backup.status.context("no status")?;
        ensure!(status.phase == OperationPhase::Cancelled, "the backup is {}", status.phase);
        nothing_is_left(world, Cluster::Alpha).await?;
        // A backup without its manifest does not exist.
        let azure = world.landscape.azure();
        let blobs = world.azure.blobs(&azure.container, &format!("{name}/")).await?;
        ensure!(!blobs.iter().any(|blob| blob.name.contains("/backups/")), "a cancelled backup has a manifest");
        world.delete_namespace(Cluster::Alpha, name).await
    });
}
