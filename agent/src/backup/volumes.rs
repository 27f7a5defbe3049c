//! The data of a backup's volumes: one mover for each bound claim, two at once.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;
use futures::stream;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use shoot_backup_api::manifest::{BackupManifest, VolumeEntry};
use shoot_backup_api::{BackupSpec, selector};

use super::objects::WrittenClaims;
use super::skips::Skips;
use crate::context::Context;
use crate::mover::job::{self, MoverError, MoverJob};
use crate::mover::protocol::{BackupReport, Report, Target, Task, Work};
use crate::mover::twin;
use crate::operation::failure::with_causes;
use crate::operation::{Failure, Running};
use crate::retry;

/// Movers of one backup that run at once.
const PARALLEL: usize = 2;
/// Claims and pods of a page.
const PAGE: u32 = 250;

/// What the movers of a backup have in common.
#[derive(Clone, Copy)]
pub struct VolumeBackup<'a> {
    /// Client.
    pub context: &'a Context,
    /// Progress, cancel, deadline.
    pub running: &'a Running,
    /// What was asked for.
    pub spec: &'a BackupSpec,
    /// What could not be backed up.
    pub skips: &'a Skips<'a>,
    /// Where to.
    pub target: &'a Target,
    /// Folder of this cluster in the location.
    pub cluster_uid: &'a str,
    /// Name of this cluster.
    pub hostname: &'a str,
    /// The cluster's backup before this one: unchanged files are not read again.
    pub previous: Option<&'a BackupManifest>,
}

/// What came out.
#[derive(Debug, Default)]
pub struct Volumes {
    /// One for each volume that was backed up, by namespace and claim.
    pub entries: Vec<VolumeEntry>,
    /// Bytes that were new to the repository, as stored.
    pub bytes_stored: u64,
}

/// A claim with data, and where it can be read.
struct Candidate {
    claim: PersistentVolumeClaim,
    volume: String,
    node: Option<String>,
}

impl VolumeBackup<'_> {
    /// Backs up the data of every bound claim. A claim that does not work is counted, never fatal. `written`: the claims
    /// among the objects, which were listed some time before.
    pub async fn run(&self, namespaces: &BTreeSet<String>, written: &WrittenClaims) -> Result<Volumes, Failure> {
        let mut candidates = Vec::new();
        for namespace in namespaces {
            candidates.extend(self.candidates(namespace).await?);
        }
        let found = candidates.iter().map(|one| (one.claim.namespace().unwrap_or_default(), one.claim.name_any()));
        for ((namespace, claim), reason) in unmatched(written, &found.collect()) {
            self.skips.add(format!("volume {namespace}/{claim}"), reason);
        }
        self.running.set_volumes_total(candidates.len() as u64);
        let outcomes = stream::iter(candidates.into_iter().map(|candidate| async move {
            let path = twin::claim_path(&candidate.claim);
            let outcome = Box::pin(self.volume(&candidate)).await;
            self.running.volume_done();
            match outcome {
                Ok(found) => found,
                Err(error) => {
                    self.skips.add(format!("volume {path}"), with_causes(&error));
                    None
                }
            }
        }))
        .buffer_unordered(PARALLEL)
        .filter_map(|found| async { found })
        .collect::<Vec<_>>()
        .await;
        let mut volumes = Volumes::default();
        for (entry, bytes_stored) in outcomes {
            volumes.entries.push(entry);
            volumes.bytes_stored += bytes_stored;
        }
        volumes.entries.sort_by(|one, other| (&one.namespace, &one.claim).cmp(&(&other.namespace, &other.claim)));
        Ok(volumes)
    }

    /// The bound claims of a namespace. An unbound claim has no data: its object is all there is.
    async fn candidates(&self, namespace: &str) -> Result<Vec<Candidate>, Failure> {
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.context.client.clone(), namespace);
        let mut parameters = ListParams::default().limit(PAGE);
        parameters.label_selector =
            self.spec.label_selector.as_ref().map(selector::format).filter(|selector| !selector.is_empty());
        let mut candidates = Vec::new();
        loop {
            let page = retry::call(|| claims.list(&parameters))
                .await
                .map_err(|error| Failure::api(&format!("list claims of namespace {namespace}"), &error))?;
            for mut claim in page.items {
                claim.metadata.managed_fields = None;
                let volume = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone()).unwrap_or_default();
                if !volume.is_empty() {
                    candidates.push(Candidate { claim, volume, node: None });
                }
            }
            parameters.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if parameters.continue_token.is_none() {
                break;
            }
        }
        if !candidates.is_empty() {
            let mut nodes = self.nodes(namespace).await?;
            for candidate in &mut candidates {
                candidate.node = nodes.remove(&candidate.claim.name_any());
            }
        }
        Ok(candidates)
    }

    /// On which node a pod uses a claim. Memory: one page of pods, and a name for each claim in use.
    async fn nodes(&self, namespace: &str) -> Result<BTreeMap<String, String>, Failure> {
        let pods: Api<Pod> = Api::namespaced(self.context.client.clone(), namespace);
        let mut parameters = ListParams::default().limit(PAGE).fields("status.phase!=Succeeded,status.phase!=Failed");
        let mut nodes = BTreeMap::new();
        loop {
            let page = retry::call(|| pods.list(&parameters))
                .await
                .map_err(|error| Failure::api(&format!("list pods of namespace {namespace}"), &error))?;
            for pod in &page.items {
                note_node(&mut nodes, pod);
            }
            parameters.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if parameters.continue_token.is_none() {
                return Ok(nodes);
            }
        }
    }

    /// Backs up one volume; `None` if it was skipped with a reason.
    async fn volume(&self, candidate: &Candidate) -> Result<Option<(VolumeEntry, u64)>, MoverError> {
        let Candidate { claim, volume: volume_name, node } = candidate;
        let volumes: Api<PersistentVolume> = Api::all(self.context.client.clone());
        let volume = retry::absent(retry::call(|| volumes.get(volume_name)).await)
            .map_err(|source| MoverError::Api { what: format!("get PersistentVolume {volume_name}"), source })?;
        let path = twin::claim_path(claim);
        if let Some(reason) = twin::unreadable(claim, volume.as_ref()) {
            self.skips.add(format!("volume {path}"), reason);
            return Ok(None);
        }
        let Some(volume) = volume else { return Ok(None) };
        let (namespace, name) = (claim.namespace().unwrap_or_default(), claim.name_any());
        let unique = twin::unique_name(self.running, &namespace, &name);
        let source = twin::mount_source(self.context, self.running, &unique, &volume).await?;
        let task = self.task(&namespace, &name);
        let node = node.as_deref().filter(|_| twin::is_bound_to_a_node(&volume));
        let job = MoverJob { name: &unique, claim: &source.claim, node, task: &task };
        let report = job::run(self.context, self.running, job).await;
        if let Err(error) = twin::release(self.context, &unique).await {
            tracing::warn!(error = %with_causes(&error), unique, "failed to remove a twin; it is removed with the operation");
        }
        let Report::Backup(report) = report? else {
            return Err(MoverError::Lost { reason: "its report is not that of a backup".to_owned() });
        };
        self.note_skipped(&path, &report);
        let stored = report.bytes_stored;
        Ok(Some((entry(claim, &volume, report), stored)))
    }

    fn task(&self, namespace: &str, claim: &str) -> Task {
        let parent = self.previous.and_then(|previous| {
            previous.volumes.iter().find(|volume| volume.namespace == namespace && volume.claim == claim)
        });
        Task {
            target: self.target.clone(),
            cluster_uid: self.cluster_uid.to_owned(),
            work: Work::Backup {
                hostname: self.hostname.to_owned(),
                path: format!("/volumes/{namespace}/{claim}"),
                tags: super::manifest::tags(self.running, "volume"),
                parent: parent.map(|volume| volume.snapshot.clone()),
            },
        }
    }

    fn note_skipped(&self, path: &str, report: &BackupReport) {
        for skipped in &report.first_skipped {
            self.skips.add(format!("volume {path}: {}", skipped.path), skipped.reason.clone());
        }
        self.skips.add_unlisted(report.skipped.saturating_sub(report.first_skipped.len() as u64));
    }
}

/// Claims of which the backup has either the object or the data and not both, with the reason. A restore would fail for
/// each, so the backup says so first.
fn unmatched<'a>(
    written: &'a WrittenClaims,
    found: &'a BTreeSet<(String, String)>,
) -> impl Iterator<Item = (&'a (String, String), &'static str)> {
    let no_data = written.iter().filter(|(key, bound)| **bound && !found.contains(key)).map(|(key, _)| {
        (key, "its data is not in the backup: the claim was deleted or changed after its object was written")
    });
    let no_object = found.iter().filter(|key| !written.contains_key(key)).map(|key| {
        (key, "its data is in the backup but its claim is not: it was created after claims were listed, or is not readable")
    });
    no_data.chain(no_object)
}

fn note_node(nodes: &mut BTreeMap<String, String>, pod: &Pod) {
    let Some(spec) = &pod.spec else { return };
    let Some(node) = spec.node_name.as_ref().filter(|node| !node.is_empty()) else { return };
    for volume in spec.volumes.iter().flatten() {
        if let Some(claim) = &volume.persistent_volume_claim {
            nodes.insert(claim.claim_name.clone(), node.clone());
        } else if volume.ephemeral.is_some() {
            // Kubernetes names the claim of an ephemeral volume after its pod.
            nodes.insert(format!("{}-{}", pod.name_any(), volume.name), node.clone());
        }
    }
}

fn entry(claim: &PersistentVolumeClaim, volume: &PersistentVolume, report: BackupReport) -> VolumeEntry {
    let capacity = volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref()?.get("storage").cloned());
    VolumeEntry {
        namespace: claim.namespace().unwrap_or_default(),
        claim: claim.name_any(),
        snapshot: report.snapshot,
        storage_class: claim.spec.as_ref().and_then(|spec| spec.storage_class_name.clone()),
        capacity: capacity.map(|quantity| quantity.0),
        files: report.files,
        bytes: report.bytes,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_mover_runs_where_a_pod_uses_the_volume() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web-0"},
            "spec": {"nodeName": "node-1", "containers": [], "volumes": [
                {"name": "data", "persistentVolumeClaim": {"claimName": "data-web-0"}},
                {"name": "scratch", "ephemeral": {}}, {"name": "tmp", "emptyDir": {}}]}
        }))
        .unwrap();
        let mut nodes = BTreeMap::new();
        note_node(&mut nodes, &pod);
        let expected = [("data-web-0", "node-1"), ("web-0-scratch", "node-1")];
        assert_eq!(nodes, expected.map(|(claim, node)| (claim.to_owned(), node.to_owned())).into());
        let mut unscheduled = pod.clone();
        unscheduled.spec.as_mut().unwrap().node_name = None;
        let mut nodes = BTreeMap::new();
        note_node(&mut nodes, &unscheduled);
        assert!(nodes.is_empty());
    }

    #[test]
    fn a_claim_without_its_data_and_data_without_its_claim_are_told() {
        let key = |name: &str| ("shop".to_owned(), name.to_owned());
        // A claim that was bound only after its object was written has both.
        let written = WrittenClaims::from([
            (key("both"), true),
            (key("bound-since"), false),
            (key("unbound"), false),
            (key("gone"), true),
        ]);
        let found = BTreeSet::from([key("both"), key("bound-since"), key("new")]);
        let told: Vec<_> = unmatched(&written, &found).collect();
        assert_eq!(told.iter().map(|(key, _)| key.1.as_str()).collect::<Vec<_>>(), ["gone", "new"]);
        assert!(told[0].1.contains("its data is not in the backup"));
        assert!(told[1].1.contains("its claim is not"));
    }

    #[test]
    fn an_entry_tells_what_a_restore_needs() {
        let claim = serde_json::from_value(json!({
            "metadata": {"namespace": "shop", "name": "data"}, "spec": {"storageClassName": "fast"}}))
        .unwrap();
        let volume = serde_json::from_value(json!({
            "metadata": {"name": "pv"}, "spec": {"capacity": {"storage": "5Gi"}}}))
        .unwrap();
        let report = BackupReport { snapshot: "s".to_owned(), files: 2, bytes: 7, ..BackupReport::default() };
        let entry = entry(&claim, &volume, report);
        assert_eq!(entry.capacity.as_deref(), Some("5Gi"));
        assert_eq!(entry.storage_class.as_deref(), Some("fast"));
        assert_eq!((entry.files, entry.bytes), (2, 7));
    }
}
