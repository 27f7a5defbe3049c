//! Bad input gets a clear message on the object, naming what to change.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use shoot_backup_api::backup_location::LocationPhase;
use shoot_backup_api::{Backup, OperationPhase, Restore, conditions};
use shoot_backup_azure_emulator::Role;

use crate::world::{World, test};

async fn failed_backup_says(world: &World, name: &str, spec: serde_json::Value, words: &[&str]) -> Result<()> {
    world.project.create::<Backup>(name, spec).await?;
    let backup = world.project.backup_ended(name).await?;
    let status = backup.status.unwrap_or_default();
    ensure!(status.phase == OperationPhase::Failed, "backup {name} is {}", status.phase);
    says(name, conditions::find(&status.conditions, "Ready").map_or("", |condition| &condition.message), words)
}

fn says(name: &str, message: &str, words: &[&str]) -> Result<()> {
    for word in words {
        ensure!(message.contains(word), "{name}: the message does not say {word:?}: {message}");
    }
    Ok(())
}

async fn failed_location_says(world: &World, name: &str, words: &[&str]) -> Result<()> {
    let entry = world.project.location_until(name, "alpha", |entry| entry.phase == LocationPhase::Failed).await?;
    says(name, &entry.message, words)
}

#[test]
fn a_backup_of_a_namespace_that_does_not_exist_fails_and_names_it() {
    test(|world| async {
        let _alpha = world.calm["alpha"].read().await;
        world.location("bad-namespace", &["alpha"]).await?;
        let spec = json!({"cluster": "alpha", "location": "bad-namespace", "namespaces": ["no-such-namespace"]});
        failed_backup_says(world, "bad-namespace", spec, &["no-such-namespace"]).await
    });
}

#[test]
fn a_backup_to_a_location_that_does_not_exist_fails_and_names_it() {
    test(|world| async {
        let spec = json!({"cluster": "alpha", "location": "no-such-location", "namespaces": ["default"]});
        failed_backup_says(world, "bad-location", spec, &["BackupLocation", "no-such-location"]).await
    });
}

#[test]
fn a_backup_of_a_cluster_that_does_not_exist_fails_and_names_it() {
    test(|world| async {
        let spec = json!({"cluster": "no-such-cluster", "location": "x", "namespaces": ["default"]});
        failed_backup_says(world, "bad-cluster", spec, &["ApplicationCluster", "no-such-cluster"]).await
    });
}

#[test]
fn a_restore_of_a_backup_that_does_not_exist_fails_and_names_it() {
    test(|world| async {
        world.project.create::<Restore>("bad-backup", json!({"backup": "no-such-backup", "cluster": "alpha"})).await?;
        let restore = world.project.restore_ended("bad-backup").await?;
        let status = restore.status.unwrap_or_default();
        ensure!(status.phase == OperationPhase::Failed, "the restore is {}", status.phase);
        let message = conditions::find(&status.conditions, "Ready").map_or("", |condition| &condition.message);
        says("bad-backup", message, &["Backup", "no-such-backup"])
    });
}

#[test]
fn a_location_with_a_container_that_does_not_exist_says_so() {
    test(|world| async {
        let _alpha = world.calm["alpha"].read().await;
        let container = "no-such-container";
        // The role is there, so that the container is what is wrong.
        let client_id = world.landscape.azure().client_id;
        world.azure.put_role_assignment(&client_id, container, Role::Contributor).await?;
        world.broken_location("bad-container", |spec| spec["container"] = json!(container)).await?;
        failed_location_says(world, "bad-container", &["ContainerNotFound", container]).await
    });
}

#[test]
fn a_location_without_a_role_names_the_role_and_works_as_soon_as_it_is_assigned() {
    test(|world| async {
        let _alpha = world.calm["alpha"].read().await;
        world.azure.put_container("no-role").await?;
        world.broken_location("bad-role", |spec| spec["container"] = json!("no-role")).await?;
        let words = ["AuthorizationPermissionMismatch", "Storage Blob Data Contributor", "no-role"];
        failed_location_says(world, "bad-role", &words).await?;
        let client_id = world.landscape.azure().client_id;
        world.azure.put_role_assignment(&client_id, "no-role", Role::Reader).await?;
        world.project.request::<shoot_backup_api::BackupLocation>("bad-role", "validate").await?;
        let entry = world
            .project
            .location_until("bad-role", "alpha", |entry| {
                entry.phase == LocationPhase::Failed
                    && entry
                        .verbs
                        .iter()
                        .any(|verb| verb.verb == "List" && format!("{:?}", verb.outcome) == "Succeeded")
            })
            .await?;
        ensure!(entry.message.contains("Put"), "the message does not name the verb: {}", entry.message);
        world.azure.put_role_assignment(&client_id, "no-role", Role::Contributor).await?;
        world.project.request::<shoot_backup_api::BackupLocation>("bad-role", "validate").await?;
        world.project.location_valid("bad-role", "alpha").await
    });
}

#[test]
fn an_identity_without_a_federated_credential_gets_entras_reason_and_the_credential_to_create() {
    test(|world| async {
        let _alpha = world.calm["alpha"].read().await;
        let (client, tenant) = ("11111111-2222-3333-4444-555555555501", world.landscape.azure().tenant_id);
        world.azure.put_identity(client, &tenant, "without-credential").await?;
        world
            .broken_location("bad-credential", |spec| {
                spec["identity"] = json!({"clientID": client, "tenantID": tenant});
            })
            .await?;
        let words = ["AADSTS70021", "system:serviceaccount:shoot-backup:shoot-backup-agent", "/issuer", client];
        failed_location_says(world, "bad-credential", &words).await
    });
}

#[test]
fn a_wrong_tenant_is_named() {
    test(|world| async {
        let _alpha = world.calm["alpha"].read().await;
        let tenant = "11111111-2222-3333-4444-555555555502";
        let client = world.landscape.azure().client_id;
        world
            .broken_location("bad-tenant", |spec| spec["identity"] = json!({"clientID": client, "tenantID": tenant}))
            .await?;
        failed_location_says(world, "bad-tenant", &["AADSTS90002", tenant]).await
    });
}

#[test]
fn an_unreachable_account_is_said_to_be_unreachable() {
    test(|world| async {
        let _alpha = world.calm["alpha"].read().await;
        world
            .broken_location("bad-endpoint", |spec| {
                let account = spec["account"].as_str().unwrap_or_default().to_owned();
                spec["endpoints"]["blob"] = json!(format!("https://127.0.0.1:9/{account}"));
            })
            .await?;
        let what = "is Failed";
        world
            .project
            .wait_for("bad-endpoint", what, Duration::from_mins(4), |location: &shoot_backup_api::BackupLocation| {
                let entry = location.status.as_ref()?.clusters.first()?;
                (entry.phase == LocationPhase::Failed && entry.message.contains("127.0.0.1:9")).then_some(())
            })
            .await
    });
}
