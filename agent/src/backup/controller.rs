//! The steps of a backup.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use shoot_backup_api::Backup;
use shoot_backup_api::backup::{BackupResult, VolumePolicy};
use shoot_backup_api::manifest::{BackupManifest, ObjectsEntry, paths};
use shoot_backup_api::resource_filter::ResourceFilter;
use shoot_backup_repository::{Repository, SnapshotInfo};
use tokio_util::sync::CancellationToken;

use super::manifest::{self, Parts};
use super::objects::{ObjectStream, WrittenClaims};
use super::related::Related;
use super::skips::Skips;
use super::volumes::{VolumeBackup, Volumes};
use super::{discovery, scope};
use crate::context::{ClusterFacts, Context};
use crate::location::{self, Location};
use crate::operation::{AgentOperation, Failure, Outcome, Running, reconcile};

/// Runs the controller of backups until `stop`.
pub async fn run(context: Arc<Context>, stop: CancellationToken) {
    reconcile::run::<Backup>(context, stop).await;
}

impl AgentOperation for Backup {
    const KIND: &'static str = "Backup";
    type Result = BackupResult;

    fn timeout(&self) -> &str {
        &self.spec.timeout
    }

    /// 1. Check the spec against the cluster, open the location. If the manifest is there, an attempt before this one got
    ///    as far: complete from it.
    /// 2. Discover the resources of all groups.
    /// 3. Stream the objects of the namespaces into the repository.
    /// 4. With them, the cluster-scoped objects that they need.
    /// 5. Back up the data of volumes by movers.
    /// 6. Write the manifest: now the backup exists.
    async fn execute(context: &Context, backup: &Self, running: &Running) -> Result<Outcome<BackupResult>, Failure> {
        running.step("Preparation");
        let location = location::open(context, &backup.spec.location).await?;
        let facts = context.facts().await.map_err(|error| Failure::api("read the cluster's identity", &error))?;
        if let Some(done) = completed_before(&location, facts, running).await? {
            return Ok(done);
        }
        let namespaces = scope::namespaces(context, &backup.spec).await?;
        let repository = location.own_repository(&facts.uid).await?;
        let config = context.config().await.map_err(|error| Failure::new("Configuration", error.to_string()))?;
        let cluster = if config.cluster.name.is_empty() { &backup.spec.cluster } else { &config.cluster.name };
        let work = Work { context, backup, running, facts, cluster, skips: &Skips::new(running) };
        let (objects, objects_stored, claims) = work.objects(&repository, &namespaces).await?;
        drop(repository);
        let volumes = work.volumes(&location, &namespaces, &claims).await?;
        running.step("Manifest");
        let parts = Parts {
            running,
            spec: &backup.spec,
            cluster,
            facts,
            namespaces: namespaces.into_iter().collect(),
            objects,
            volumes: &volumes,
            skipped: work.skips.collected(),
        };
        let outcome =
            write(&location, manifest::build(parts, Timestamp::now()), running, objects_stored + volumes.bytes_stored)
                .await?;
        context.metrics.add_bytes(Self::KIND, outcome.result.bytes as u64);
        Ok(outcome)
    }
}

/// What the steps of one backup share.
#[derive(Clone, Copy)]
struct Work<'a> {
    context: &'a Context,
    backup: &'a Backup,
    running: &'a Running,
    facts: &'a ClusterFacts,
    cluster: &'a str,
    skips: &'a Skips<'a>,
}

impl Work<'_> {
    /// Steps 2 to 4. Gives back the snapshot, the bytes that it cost, and the claims in it.
    async fn objects(
        &self,
        repository: &Repository,
        namespaces: &BTreeSet<String>,
    ) -> Result<(ObjectsEntry, u64, WrittenClaims), Failure> {
        self.running.step("Objects");
        let discovered = discovery::discover(&self.context.client)
            .await
            .map_err(|error| Failure::api("discover the cluster's resources", &error))?;
        for (group, reason) in discovered.unanswered {
            self.skips.add(format!("API group {group}"), format!("it does not answer: {reason}"));
        }
        let mut stream = ObjectStream {
            context: self.context,
            running: self.running,
            spec: &self.backup.spec,
            namespaces,
            skips: self.skips,
            writer: repository.writer().await?,
            related: Related::new(namespaces),
            count: 0,
            open: Vec::new(),
            claims: WrittenClaims::new(),
        };
        stream.write(discovered.resources).await?;
        let ObjectStream { writer, count, claims, .. } = stream;
        let info = SnapshotInfo {
            hostname: self.cluster.to_owned(),
            paths: vec!["/objects".to_owned()],
            tags: manifest::tags(self.running, "objects"),
            time: Timestamp::now(),
        };
        let summary = writer.finish(info).await?;
        let entry = ObjectsEntry { snapshot: summary.snapshot.to_string(), count, bytes: summary.bytes };
        Ok((entry, summary.bytes_stored, claims))
    }

    /// Step 5.
    async fn volumes(
        &self,
        location: &Location,
        namespaces: &BTreeSet<String>,
        claims: &WrittenClaims,
    ) -> Result<Volumes, Failure> {
        let spec = &self.backup.spec;
        let wanted = ResourceFilter::new(&spec.included_resources, &spec.excluded_resources);
        if spec.volumes == VolumePolicy::Exclude || !wanted.wants("", "persistentvolumeclaims") {
            return Ok(Volumes::default());
        }
        self.running.step("Volumes");
        let previous = manifest::previous(location, &self.facts.uid).await;
        let backup = VolumeBackup {
            context: self.context,
            running: self.running,
            spec,
            skips: self.skips,
            target: location.target(),
            cluster_uid: &self.facts.uid,
            hostname: self.cluster,
            previous: previous.as_ref(),
        };
        backup.run(namespaces, claims).await
    }
}

/// What an attempt before this one has completed.
async fn completed_before(
    location: &Location,
    facts: &ClusterFacts,
    running: &Running,
) -> Result<Option<Outcome<BackupResult>>, Failure> {
    let Some(manifest) = location.manifest(&facts.uid, &running.file_name()).await? else { return Ok(None) };
    write(location, manifest, running, 0).await.map(Some)
}

/// Writes the manifest, if it is not there yet; what is there counts.
async fn write(
    location: &Location,
    manifest: BackupManifest,
    running: &Running,
    stored_bytes: u64,
) -> Result<Outcome<BackupResult>, Failure> {
    let path = paths::backup(&manifest.cluster_uid, &running.file_name());
    let written = location.create_json(&path, &manifest).await?;
    let manifest = if written.conflict {
        let there = location.manifest(&manifest.cluster_uid, &running.file_name()).await?;
        there.unwrap_or(manifest)
    } else {
        manifest
    };
    for skipped in &manifest.skipped {
        if running.snapshot().errors.len() >= shoot_backup_api::operation::MAX_ERRORS {
            break;
        }
        if !running.snapshot().errors.iter().any(|error| error.item == skipped.item) {
            running.error(skipped.item.clone(), &skipped.reason);
        }
    }
    Ok(manifest::outcome(&manifest, path, written.digest, stored_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mover::protocol::Target;
    use serde_json::json;
    use shoot_backup_api::OperationPhase;
    use shoot_backup_repository::MemoryStore;

    fn manifest(skipped: bool) -> BackupManifest {
        serde_json::from_value(json!({
            "formatVersion": 1, "name": "nightly", "uid": "origin", "cluster": "alpha", "clusterUid": "c",
            "kubernetesVersion": "", "agentVersion": "",
            "spec": {"cluster": "alpha", "location": "main", "namespaces": ["shop"]},
            "phase": if skipped { "PartiallyFailed" } else { "Completed" },
            "started": "2026-01-01T00:00:00Z", "completed": "2026-01-01T00:00:00Z", "namespaces": ["shop"],
            "objects": {"snapshot": "s", "count": 3, "bytes": 10}, "volumes": [],
            "skipped": if skipped { json!([{"item": "i", "reason": "r"}]) } else { json!([]) },
            "skippedTotal": i32::from(skipped),
        }))
        .unwrap()
    }

    #[tokio::test]
    async fn an_attempt_after_the_manifest_completes_from_it() {
        let location = Location::with_store("main", Target::default(), Arc::new(MemoryStore::new()));
        let facts = ClusterFacts { uid: "c".to_owned(), version: String::new() };
        let running = Running::test();
        assert!(completed_before(&location, &facts, &running).await.unwrap().is_none());
        let first = write(&location, manifest(true), &running, 5).await.unwrap();
        let again = Running::test();
        let second = completed_before(&location, &facts, &again).await.unwrap().unwrap();
        assert_eq!(second.phase, OperationPhase::PartiallyFailed);
        assert_eq!(second.result.manifest_digest, first.result.manifest_digest);
        assert_eq!(again.snapshot().errors.len(), 1);
    }

    #[tokio::test]
    async fn of_two_manifests_the_first_counts() {
        let location = Location::with_store("main", Target::default(), Arc::new(MemoryStore::new()));
        let running = Running::test();
        write(&location, manifest(false), &running, 0).await.unwrap();
        let second = write(&location, manifest(true), &running, 0).await.unwrap();
        assert_eq!(second.phase, OperationPhase::Completed);
    }
}
