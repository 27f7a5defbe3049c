//! The manifest: a backup exists when it does.

use futures::StreamExt;
use jiff::Timestamp;
use shoot_backup_api::OperationPhase;
use shoot_backup_api::backup::{BackupResult, BackupSpec};
use shoot_backup_api::manifest::{BackupManifest, FORMAT_VERSION, ObjectsEntry, paths};

use super::skips::Collected;
use super::volumes::Volumes;
use crate::context::ClusterFacts;
use crate::location::{Location, LocationError};
use crate::operation::{Outcome, Running};

/// Tags of every snapshot of a backup: `kind=objects`, `backup=<name>.<uid>`.
#[must_use]
pub fn tags(running: &Running, kind: &str) -> Vec<String> {
    vec![format!("kind={kind}"), format!("backup={}", running.file_name())]
}

/// What a manifest is made of.
pub struct Parts<'a> {
    /// Name, UID, begin.
    pub running: &'a Running,
    /// What was asked for.
    pub spec: &'a BackupSpec,
    /// Name of the cluster for people.
    pub cluster: &'a str,
    /// UID and version of the cluster.
    pub facts: &'a ClusterFacts,
    /// Namespaces that were backed up.
    pub namespaces: Vec<String>,
    /// The snapshot of the objects.
    pub objects: ObjectsEntry,
    /// The snapshots of the volumes.
    pub volumes: &'a Volumes,
    /// What could not be backed up.
    pub skipped: Collected,
}

/// The manifest of a backup that ends now.
#[must_use]
pub fn build(parts: Parts<'_>, now: Timestamp) -> BackupManifest {
    let phase = if parts.skipped.total == 0 { OperationPhase::Completed } else { OperationPhase::PartiallyFailed };
    BackupManifest {
        format_version: FORMAT_VERSION,
        name: parts.running.name().to_owned(),
        uid: parts.running.origin_uid().to_owned(),
        cluster: parts.cluster.to_owned(),
        cluster_uid: parts.facts.uid.clone(),
        kubernetes_version: parts.facts.version.clone(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        spec: parts.spec.clone(),
        phase,
        started: parts.running.started(),
        completed: now,
        namespaces: parts.namespaces,
        objects: parts.objects,
        volumes: parts.volumes.entries.clone(),
        skipped: parts.skipped.entries,
        skipped_total: parts.skipped.total,
    }
}

/// What a manifest means for the status.
#[must_use]
pub fn outcome(manifest: &BackupManifest, path: String, digest: String, stored_bytes: u64) -> Outcome<BackupResult> {
    let (files, bytes) = manifest
        .volumes
        .iter()
        .fold((0, manifest.objects.bytes), |(files, bytes), volume| (files + volume.files, bytes + volume.bytes));
    let skipped = match manifest.skipped_total {
        0 => String::new(),
        count => format!("; {count} items could not be backed up, the manifest lists them"),
    };
    Outcome {
        phase: manifest.phase,
        message: format!("{} objects, {} volumes{skipped}", manifest.objects.count, manifest.volumes.len()),
        result: BackupResult {
            cluster_uid: manifest.cluster_uid.clone(),
            manifest: path,
            manifest_digest: digest,
            objects: manifest.objects.count as i64,
            volumes: manifest.volumes.len() as i64,
            files: files as i64,
            bytes: bytes as i64,
            stored_bytes: stored_bytes as i64,
            skipped: manifest.skipped_total as i64,
        },
    }
}

/// The cluster's backup before this one, by the storage's clock; `None` if there is none or it cannot be read: it only
/// saves time.
pub async fn previous(location: &Location, cluster_uid: &str) -> Option<BackupManifest> {
    let folder = paths::backups(cluster_uid);
    let mut newest = None;
    let mut entries = location.store().list(&folder);
    while let Some(entry) = entries.next().await {
        let entry = entry.ok()?;
        let candidate = (entry.modified, entry.path);
        if newest.as_ref().is_none_or(|newest| candidate > *newest) {
            newest = Some(candidate);
        }
    }
    let (_, path) = newest?;
    read(location, &path).await.ok().flatten()
}

async fn read(location: &Location, path: &str) -> Result<Option<BackupManifest>, LocationError> {
    location.read_json(path).await
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;
    use shoot_backup_api::manifest::{SkippedEntry, VolumeEntry};
    use shoot_backup_repository::MemoryStore;

    use super::*;
    use crate::mover::protocol::Target;

    fn manifest(skipped: Collected) -> BackupManifest {
        let running = Running::test();
        let spec =
            serde_json::from_value(json!({"cluster": "alpha", "location": "main", "namespaces": ["shop"]})).unwrap();
        let entry = VolumeEntry {
            namespace: "shop".to_owned(),
            claim: "data".to_owned(),
            snapshot: "s".to_owned(),
            storage_class: None,
            capacity: None,
            files: 2,
            bytes: 7,
        };
        let volumes = Volumes { entries: vec![entry], bytes_stored: 5 };
        let facts = ClusterFacts { uid: "c".to_owned(), version: "v1.34.0".to_owned() };
        let parts = Parts {
            running: &running,
            spec: &spec,
            cluster: "alpha",
            facts: &facts,
            namespaces: vec!["shop".to_owned()],
            objects: ObjectsEntry { snapshot: "o".to_owned(), count: 3, bytes: 100 },
            volumes: &volumes,
            skipped,
        };
        build(parts, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn one_skipped_item_makes_a_backup_partially_failed() {
        assert_eq!(manifest(Collected::default()).phase, OperationPhase::Completed);
        let skipped = SkippedEntry { item: "i".to_owned(), reason: "r".to_owned() };
        let partial = manifest(Collected { entries: vec![skipped], total: 1 });
        assert_eq!(partial.phase, OperationPhase::PartiallyFailed);
        let outcome = outcome(&partial, "p".to_owned(), "d".to_owned(), 9);
        assert_eq!(outcome.phase, OperationPhase::PartiallyFailed);
        assert_eq!((outcome.result.files, outcome.result.bytes, outcome.result.skipped), (2, 107, 1));
    }

    #[test]
    fn a_manifest_goes_by_the_gardens_uid() {
        assert_eq!(manifest(Collected::default()).uid, "origin");
    }

    #[tokio::test]
    async fn the_newest_manifest_is_the_previous_backup() {
        let location = Location::with_store("main", Target::default(), Arc::new(MemoryStore::new()));
        assert!(previous(&location, "c").await.is_none());
        for name in ["b", "a"] {
            let mut manifest = manifest(Collected::default());
            manifest.name = name.to_owned();
            location.create_json(&paths::backup("c", name), &manifest).await.unwrap();
        }
        assert_eq!(previous(&location, "c").await.unwrap().name, "a");
    }
}
