//! The main job: an application is backed up, destroyed, restored, and proven equal.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use shoot_backup_api::{Backup, Restore};
use shoot_backup_e2e::application::{CLAIMS, Shop};
use shoot_backup_e2e::comparison::{Objects, differences, file_differences, with_storage_class};
use shoot_backup_e2e::oracle::RepositoryCopy;
use shoot_backup_landscape::Cluster;

use crate::world::{World, test};

type Files = BTreeMap<String, String>;

#[test]
fn an_application_is_destroyed_and_restored_equal_here_and_in_another_cluster() {
    test(|world| async {
        let (_alpha, _beta) = (world.calm["alpha"].read().await, world.calm["beta"].read().await);
        world.location("main", &["alpha", "beta"]).await?;
        let shop = Shop::new(&world.landscape, Cluster::Alpha, "shop");
        shop.deploy().await?;
        shop.fill().await?;
        let objects = shop.objects().await?;
        ensure!(objects.len() >= 30, "the shop has only {} objects", objects.len());
        let mut files = Vec::new();
        for claim in CLAIMS {
            files.push(shop.files(&world.landscape, claim).await?);
        }
        world.project.back_up("main", "alpha", "main", &["shop"]).await?;
        let backup = world.project.backup_completed("main").await?;

        shop.destroy().await?;
        let spec = json!({"backup": "main", "cluster": "alpha"});
        world.project.create::<Restore>("main", spec).await?;
        let restore = world.project.restore_completed("main").await?;
        let result = restore.status.and_then(|status| status.result).context("the restore has no result")?;
        ensure!(result.volumes == 2 && result.volumes_verified == 2, "{result:?}");
        shop.wait_until_running().await?;
        same(world, &shop, &objects, &files).await?;

        let copy = Shop::new(&world.landscape, Cluster::Beta, "shop-copy");
        let spec = json!({"backup": "main", "cluster": "beta", "namespaceMapping": {"shop": "shop-copy"},
            "storageClassMapping": {"local-path": "fast"}});
        world.project.create::<Restore>("copy", spec).await?;
        world.project.restore_completed("copy").await?;
        copy.wait_until_running().await?;
        let found = copy.objects().await?;
        let moved = with_storage_class(&objects, "fast");
        let lines = differences(&moved, &found);
        ensure!(lines.is_empty(), "the copy differs:\n{}", lines.join("\n"));
        for (claim, files) in CLAIMS.iter().zip(&files) {
            let lines = file_differences(files, &copy.files(&world.landscape, claim).await?);
            ensure!(lines.is_empty(), "files of the copy's claim {claim} differ:\n{}", lines.join("\n"));
        }
        stock_restic_reads(world, &backup, CLAIMS[0], &files[0]).await?;
        shop.destroy().await?;
        copy.destroy().await
    });
}

/// Restoring over an application that is there changes nothing with `Skip`, and brings changed objects back with
/// `Overwrite`; data of a claim that is there is never touched.
#[test]
fn objects_that_are_there_are_skipped_or_overwritten_as_asked_and_data_that_is_there_is_kept() {
    test(|world| async {
        let _alpha = world.calm["alpha"].read().await;
        let namespace = "conflict";
        world.location(namespace, &["alpha"]).await?;
        world.small_application(Cluster::Alpha, namespace).await?;
        world.project.back_up(namespace, "alpha", namespace, &[namespace]).await?;
        world.project.backup_completed(namespace).await?;
        let kubectl = world.kubectl(Cluster::Alpha);
        let change = ["patch", "configmap", "config-1", "-n", namespace, "-p", r#"{"data":{"value":"changed"}}"#];
        kubectl.run(&change).await?;
        kubectl.run(&["delete", "configmap", "config-2", "-n", namespace]).await?;
        kubectl.shell(namespace, "writer", "echo changed > /data/marker").await?;
        let value = || async {
            kubectl.run(&["get", "configmap", "config-1", "-n", namespace, "-o", "jsonpath={.data.value}"]).await
        };

        world.project.create::<Restore>("conflict-skip", json!({"backup": namespace, "cluster": "alpha"})).await?;
        let restore = world.project.restore_completed("conflict-skip").await?;
        let result = restore.status.and_then(|status| status.result).context("the restore has no result")?;
        ensure!(result.created == 1 && result.changed == 0 && result.skipped > 20, "{result:?}");
        ensure!(value().await? == "changed", "Skip changed an object");

        let spec = json!({"backup": namespace, "cluster": "alpha", "conflictPolicy": "Overwrite",
            "includedResources": ["configmaps", "persistentvolumeclaims"]});
        world.project.create::<Restore>("conflict-overwrite", spec).await?;
        let restore = world.project.restore_completed("conflict-overwrite").await?;
        let result = restore.status.and_then(|status| status.result).context("the restore has no result")?;
        ensure!(result.changed >= 1 && result.volumes == 0, "{result:?}");
        ensure!(value().await? == format!("{namespace} 1"), "Overwrite left an object changed");
        ensure!(
            kubectl.shell(namespace, "writer", "cat /data/marker").await?.trim() == "changed",
            "data was overwritten"
        );
        world.delete_namespace(Cluster::Alpha, namespace).await
    });
}

#[test]
fn two_clusters_write_to_one_container_at_once() {
    test(|world| async {
        let (_alpha, _beta) = (world.calm["alpha"].read().await, world.calm["beta"].read().await);
        world.location("together", &["alpha", "beta"]).await?;
        let namespace = "together";
        tokio::try_join!(
            world.small_application(Cluster::Alpha, namespace),
            world.small_application(Cluster::Beta, namespace)
        )?;
        for cluster in ["alpha", "beta"] {
            world.project.back_up(&format!("together-{cluster}"), cluster, "together", &[namespace]).await?;
        }
        let (one, other) = tokio::try_join!(
            world.project.backup_completed("together-alpha"),
            world.project.backup_completed("together-beta")
        )?;
        for (cluster, backup) in [(Cluster::Alpha, &one), (Cluster::Beta, &other)] {
            let files = Shop::new(&world.landscape, cluster, namespace).files(&world.landscape, "data").await?;
            stock_restic_reads(world, backup, "data", &files).await?;
        }
        world.delete_namespace(Cluster::Alpha, namespace).await?;
        world.delete_namespace(Cluster::Beta, namespace).await
    });
}

async fn same(world: &World, shop: &Shop, objects: &Objects, files: &[Files]) -> Result<()> {
    let lines = differences(objects, &shop.objects().await?);
    ensure!(lines.is_empty(), "the restored application differs:\n{}", lines.join("\n"));
    for (claim, files) in CLAIMS.iter().zip(files) {
        let lines = file_differences(files, &shop.files(&world.landscape, claim).await?);
        ensure!(lines.is_empty(), "restored files of claim {claim} differ:\n{}", lines.join("\n"));
    }
    Ok(())
}

/// Stock restic checks all data of the backup's repository and restores a volume with these files.
async fn stock_restic_reads(world: &World, backup: &Backup, claim: &str, files: &Files) -> Result<()> {
    let container = world.landscape.azure().container;
    let copy = RepositoryCopy::of(&world.azure, &container, &backup.spec.location, backup).await?;
    copy.restic(&["check", "--read-data"]).await?;
    let restored = copy.restore_volume(claim).await?;
    let lines = file_differences(files, &shoot_backup_e2e::files::facts(&restored)?);
    ensure!(lines.is_empty(), "what stock restic restored differs:\n{}", lines.join("\n"));
    Ok(())
}
