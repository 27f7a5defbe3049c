//! A service that stumbles: backups and restores end correctly whatever the gateway does, and say so when they cannot.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use shoot_backup_api::backup_location::LocationPhase;
use shoot_backup_api::{Backup, BackupLocation, OperationPhase, Restore};
use shoot_backup_azure_emulator::{Fault, FaultKind, Operation, Settings};
use shoot_backup_landscape::Cluster;

use crate::world::{World, test};

const KINDS: [FaultKind; 7] = [
    FaultKind::ServerBusy { retry_after_seconds: 1 },
    FaultKind::InternalError,
    FaultKind::TooManyRequests { retry_after_seconds: 1 },
    FaultKind::Reset,
    FaultKind::ResetAfter,
    FaultKind::Delay { milliseconds: 300 },
    FaultKind::Truncate,
];

/// Every kind of fault once at the n-th of an operation, below one location's folder.
async fn stumble(world: &World, operation: Operation, location: &str) -> Result<()> {
    // A listing names the folder in its query, encoded.
    let path = format!("[/=]{location}(/|%2F)");
    for (index, kind) in KINDS.into_iter().enumerate() {
        let fault = Fault::new(kind).on(operation).path_regex(&path).after(u32::try_from(index)?);
        world.azure.add_fault(&fault).await?;
    }
    Ok(())
}

async fn hits(world: &World, location: &str) -> Result<BTreeMap<String, u64>> {
    let faults = world.azure.faults().await?;
    let ours = faults
        .into_iter()
        .filter(|status| status.fault.path_regex.as_deref().is_some_and(|path| path.contains(location)));
    let mut hits = BTreeMap::new();
    for status in ours {
        let operation = status.fault.operation.map(|operation| format!("{operation:?}")).unwrap_or_default();
        *hits.entry(operation).or_default() += status.hit;
    }
    Ok(hits)
}

#[test]
fn a_backup_and_a_restore_end_correctly_with_faults_on_every_verb() {
    test(|world| async {
        let _alpha = world.calm["alpha"].read().await;
        let name = "stumbling";
        world.location(name, &["alpha"]).await?;
        world.small_application(Cluster::Alpha, name).await?;
        let before = world.files(name).await?;
        for operation in [Operation::PutBlob, Operation::GetBlob, Operation::ListBlobs, Operation::GetBlobProperties] {
            stumble(world, operation, name).await?;
        }
        world.project.back_up(name, "alpha", name, &[name]).await?;
        world.project.backup_completed(name).await?;
        let after_backup = hits(world, name).await?;
        ensure!(after_backup.get("PutBlob").is_some_and(|hit| *hit >= 6), "uploads were not hit: {after_backup:?}");

        world.delete_namespace(Cluster::Alpha, name).await?;
        stumble(world, Operation::GetBlob, name).await?;
        stumble(world, Operation::ListBlobs, name).await?;
        world.project.create::<Restore>(name, json!({"backup": name, "cluster": "alpha"})).await?;
        world.project.restore_completed(name).await?;
        let after_restore = hits(world, name).await?;
        ensure!(after_restore["GetBlob"] > after_backup["GetBlob"], "downloads were not hit: {after_restore:?}");
        ensure!(after_restore["ListBlobs"] >= 1, "listings were not hit: {after_restore:?}");
        ensure!(world.files(name).await? == before, "restored files differ");
        world.delete_namespace(Cluster::Alpha, name).await
    });
}

#[test]
fn access_tokens_that_expire_and_are_revoked_during_a_backup_are_replaced() {
    test(|world| async {
        // Every client gets short tokens and loses them: nobody else may be in the middle of something.
        let (_alpha, _garden) = (world.calm["alpha"].write().await, world.garden_calm.write().await);
        let name = "expiring";
        world.location(name, &["alpha"]).await?;
        world.small_application(Cluster::Alpha, name).await?;
        let slow = Fault::new(FaultKind::Delay { milliseconds: 1500 }).on(Operation::PutBlob);
        world.azure.add_fault(&slow.path_contains(&format!("/{name}/")).always()).await?;
        world.azure.put_settings(Settings { access_token_seconds: 2 }).await?;
        world.project.back_up(name, "alpha", name, &[name]).await?;
        world
            .project
            .wait_for(name, "has begun its volumes", std::time::Duration::from_secs(90), |backup: &Backup| {
                let status = backup.status.as_ref()?;
                (status.progress.volumes_total > 0).then_some(())
            })
            .await?;
        world.azure.put_settings(Settings::default()).await?;
        world.azure.revoke_tokens().await?;
        let ended = world.project.backup_completed(name).await;
        world.azure.clear_faults().await?;
        ended?;
        world.delete_namespace(Cluster::Alpha, name).await
    });
}

#[test]
fn a_location_whose_role_is_taken_away_fails_the_backup_with_the_services_own_code() {
    test(|world| async {
        let _alpha = world.calm["alpha"].read().await;
        let name = "role-lost";
        let client_id = world.landscape.azure().client_id;
        world.azure.put_container(name).await?;
        world.azure.put_role_assignment(&client_id, name, shoot_backup_azure_emulator::Role::Contributor).await?;
        world.broken_location(name, |spec| spec["container"] = json!(name)).await?;
        world.project.location_valid(name, "alpha").await?;
        world.azure.delete_role_assignment(&client_id, name).await?;
        world.project.back_up(name, "alpha", name, &["default"]).await?;
        let backup = world.project.backup_ended(name).await?;
        let status = backup.status.context("no status")?;
        ensure!(status.phase == OperationPhase::Failed, "the backup is {}", status.phase);
        let text = serde_json::to_string(&status)?;
        ensure!(text.contains("AuthorizationPermissionMismatch"), "{text}");
        // Given back, the same backup works on request.
        world.azure.put_role_assignment(&client_id, name, shoot_backup_azure_emulator::Role::Contributor).await?;
        world.project.request::<BackupLocation>(name, "validate").await?;
        world.project.location_valid(name, "alpha").await?;
        world.project.request::<Backup>(name, "retry").await?;
        world
            .project
            .wait_for(name, "completes after a retry", std::time::Duration::from_secs(90), |backup: &Backup| {
                (backup.status.as_ref()?.phase == OperationPhase::Completed).then_some(())
            })
            .await
    });
}

#[test]
fn a_container_with_an_immutability_policy_takes_backups_and_gives_them_back() {
    test(|world| async {
        let _alpha = world.calm["alpha"].read().await;
        let name = "write-once";
        let client_id = world.landscape.azure().client_id;
        world.azure.put_container(name).await?;
        world.azure.put_immutability(name, 7).await?;
        world.azure.put_role_assignment(&client_id, name, shoot_backup_azure_emulator::Role::Contributor).await?;
        world.broken_location(name, |spec| spec["container"] = json!(name)).await?;
        let entry = world.project.location_tried(name, "alpha").await?;
        ensure!(entry.phase == LocationPhase::Valid, "{}", entry.message);
        world.small_application(Cluster::Alpha, name).await?;
        for round in ["write-once-1", "write-once-2"] {
            world.project.back_up(round, "alpha", name, &[name]).await?;
            world.project.backup_completed(round).await?;
        }
        world.delete_namespace(Cluster::Alpha, name).await?;
        world.project.create::<Restore>(name, json!({"backup": "write-once-2", "cluster": "alpha"})).await?;
        world.project.restore_completed(name).await?;
        world.delete_namespace(Cluster::Alpha, name).await
    });
}

#[test]
fn a_corrupt_blob_is_found_on_restore_and_nothing_wrong_is_handed_out() {
    test(|world| async {
        let _alpha = world.calm["alpha"].read().await;
        let name = "corrupt";
        world.location(name, &["alpha"]).await?;
        world.small_application(Cluster::Alpha, name).await?;
        world.project.back_up(name, "alpha", name, &[name]).await?;
        world.project.backup_completed(name).await?;
        let container = world.landscape.azure().container;
        let packs = world.azure.blobs(&container, &format!("{name}/")).await?;
        let largest = packs.iter().filter(|blob| blob.name.contains("/data/")).max_by_key(|blob| blob.size);
        let largest = largest.context("no pack")?;
        let mut content = world.azure.blob(&container, &largest.name).await?.to_vec();
        let middle = content.len() / 2;
        content[middle] ^= 0x01;
        world.azure.put_blob(&container, &largest.name, content).await?;
        world.delete_namespace(Cluster::Alpha, name).await?;
        world.project.create::<Restore>(name, json!({"backup": name, "cluster": "alpha"})).await?;
        let restore = world.project.restore_ended(name).await?;
        let status = restore.status.context("no status")?;
        ensure!(status.phase == OperationPhase::PartiallyFailed, "the restore is {}", status.phase);
        let text = serde_json::to_string(&status.errors)?;
        ensure!(text.contains("data"), "the errors do not name the volume: {text}");
        // The workload does not start on a volume that is wrong or empty.
        let claims = world.kubectl(Cluster::Alpha).run(&["get", "pvc", "-n", name, "-o", "name"]).await?;
        ensure!(claims.trim().is_empty(), "a claim was made without its data: {claims}");
        world.delete_namespace(Cluster::Alpha, name).await
    });
}
