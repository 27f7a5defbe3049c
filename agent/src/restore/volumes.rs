//! Brings volume claims back, with their data.
//!
//! Data goes into a new volume that nobody else can see yet, is read back and compared with the manifest there, and only
//! then becomes the claim's. So a claim of the application never has half of its data, and a claim that is already there
//! is never written to.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, VolumeResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::Api;
use sha2::{Digest, Sha256};
use shoot_backup_api::manifest::VolumeEntry;
use tokio::sync::OnceCell;

use super::apply::{Done, OnConflict};
use super::classes::Classes;
use super::objects::Work;
use super::plan::Plan;
use super::quantity::larger;
use super::refusal::Refusal;
use super::resource::Resource;
use super::transform::Kept;
use crate::context::Context;
use crate::mover::claim::{self, ClaimError, ClaimRequest};
use crate::mover::job::{self, MoverJob};
use crate::mover::protocol::{Report, RestoreReport, Target, Task, Work as MoverWork};
use crate::operation::Running;
use crate::operation::failure::with_causes;
use crate::retry;

/// Why a claim that is there is left alone, under every conflict policy.
const HAS_DATA: &str = "already there, with data of its own; delete the claim to restore it";

/// Why a claim that had data is not created without.
const NO_DATA: &str = "the backup has no data of this claim, though it had a volume: the skipped items of the backup \
    say why; restore with volumes: Exclude for an empty claim";

/// Brings volume claims back.
#[derive(Debug)]
pub struct Volumes<'a> {
    /// The agent.
    pub context: &'a Context,
    /// Where the repository is.
    pub target: Target,
    /// Whose repository it is.
    pub cluster_uid: String,
    /// Storage classes of this cluster, as they are when the first claim comes: the backup's own are restored by then.
    pub classes: OnceCell<Classes>,
    /// Claims of the backup that were worked on, by namespace and name there; names only.
    pub used: Mutex<HashSet<(String, String)>>,
}

/// What became of a claim's data.
enum Data {
    Restored,
    Failed(String),
}

impl Volumes<'_> {
    /// Brings one claim back:
    /// 1. A claim that is there stays as it is; one that this restore made is done.
    /// 2. A claim without data in the backup is created empty if it had no volume there, or if data was left out on
    ///    purpose. A claim whose data should be there and is not is a failure.
    /// 3. Otherwise its data is restored to a new volume, verified, and the volume handed over to the claim. If that
    ///    fails the claim is not created: its pods wait, instead of starting on nothing.
    ///
    /// `source`: its namespace in the backup. `had_volume`: it was bound when it was backed up.
    pub async fn claim(
        &self,
        work: &Work<'_>,
        resource: &Resource,
        kept: &Kept,
        source: Option<&str>,
        had_volume: bool,
    ) -> Done {
        let key = (source.unwrap_or_default().to_owned(), kept.name.clone());
        self.used.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone());
        let entry = work.plan.volumes.get(&key);
        let wanted: PersistentVolumeClaim = match serde_json::from_value(kept.object.clone()) {
            Ok(claim) => claim,
            Err(error) => return Done::Failed(format!("the backup has no claim here: {error}")),
        };
        match self.existing(work, kept).await {
            Ok(None) => {}
            Ok(Some(Existing::Ours)) => {
                if let Some(entry) = entry {
                    work.collector.volume(entry.bytes);
                    work.running.volume_done();
                }
                return Done::Created;
            }
            Ok(Some(Existing::Deleting)) => {
                return Done::Again("one of the same name is being deleted; it goes when no pod uses it".to_owned());
            }
            Ok(Some(Existing::Other)) => {
                if entry.is_some() {
                    work.running.volume_done();
                }
                return Done::Skipped(HAS_DATA.to_owned());
            }
            Err(error) => return refusal(&error),
        }
        if entry.is_none() && had_volume && work.plan.wants_data {
            return Done::Failed(NO_DATA.to_owned());
        }
        let class = wanted.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref());
        let classes = match self.classes.get_or_try_init(|| Classes::list(&self.context.client)).await {
            Ok(classes) => classes,
            Err(error) => return refusal(&error),
        };
        let objection = classes.objection(class);
        let Some(entry) = entry else {
            // A claim for a volume that was made by hand waits for one that is made by hand.
            return match objection.filter(|_| class != Some("")) {
                Some(objection) => Done::Failed(objection),
                None => work.applier.apply(resource, kept, OnConflict::Skip(HAS_DATA)).await,
            };
        };
        let data = match objection {
            Some(objection) => Data::Failed(objection),
            None => Box::pin(self.data(work, wanted, entry)).await,
        };
        work.running.volume_done();
        match data {
            Data::Restored => Done::Created,
            Data::Failed(reason) => Done::Failed(format!("{reason}; the claim was not created without its data")),
        }
    }

    /// Data of the backup that no claim was there for, by namespace and name in the backup, in order.
    pub fn unused(&self, plan: &Plan) -> Vec<(String, String)> {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let mut unused: Vec<_> = plan.volumes.keys().filter(|key| !used.contains(key)).cloned().collect();
        unused.sort();
        unused
    }

    /// What is there under the claim's name.
    async fn existing(&self, work: &Work<'_>, kept: &Kept) -> Result<Option<Existing>, kube::Error> {
        let namespace = kept.namespace.as_deref().unwrap_or_default();
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.context.client.clone(), namespace);
        let existing = retry::absent(retry::call(|| api.get_metadata(&kept.name)).await)?;
        Ok(existing.map(|existing| {
            if existing.metadata.deletion_timestamp.is_some() {
                Existing::Deleting
            } else if work.applier.made(&existing.metadata) {
                Existing::Ours
            } else {
                Existing::Other
            }
        }))
    }

    /// Restores the data of one claim to a new volume and hands the volume over.
    async fn data(&self, work: &Work<'_>, wanted: PersistentVolumeClaim, entry: &VolumeEntry) -> Data {
        let (target, request) = target_and_request(wanted, entry);
        let name = temporary_name(work.running, entry);
        let Err(error) = Box::pin(self.fill(work, &name, &request, &target, entry)).await else {
            work.collector.volume(entry.bytes);
            return Data::Restored;
        };
        // What is in hand-over by now is settled with the operation's other leftovers.
        if let Err(error) = claim::discard_temporary(self.context, &name).await {
            let error = with_causes(&error);
            tracing::warn!(error, claim = name, "failed to remove a temporary claim; it is removed with the operation");
        }
        Data::Failed(with_causes(&error))
    }

    async fn fill(
        &self,
        work: &Work<'_>,
        name: &str,
        request: &ClaimRequest,
        target: &PersistentVolumeClaim,
        entry: &VolumeEntry,
    ) -> Result<(), VolumeError> {
        claim::create_temporary(self.context, work.running, name, request).await?;
        let task = Task {
            target: self.target.clone(),
            cluster_uid: self.cluster_uid.clone(),
            work: MoverWork::Restore { snapshot: entry.snapshot.clone(), operation: work.running.uid().to_owned() },
        };
        let mover = MoverJob { name, claim: name, node: None, task: &task };
        let report = match Box::pin(job::run(self.context, work.running, mover)).await? {
            Report::Restore(report) => report,
            other => return Err(VolumeError::Answer { answer: format!("{other:?}") }),
        };
        if let Some(difference) = difference(&report, entry) {
            work.collector.unverified_volume();
            return Err(VolumeError::Different { difference });
        }
        Box::pin(claim::hand_over(self.context, work.running, name, target)).await?;
        Ok(())
    }
}

/// A claim that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Existing {
    /// This restore made it.
    Ours,
    /// It is being deleted.
    Deleting,
    /// Someone else's.
    Other,
}

/// Why a volume's data was not restored.
#[derive(Debug, thiserror::Error)]
enum VolumeError {
    #[error(transparent)]
    Claim(#[from] ClaimError),
    #[error("failed to restore the data")]
    Mover(#[from] job::MoverError),
    #[error("the restored data is not that of the backup: {difference}")]
    Different { difference: String },
    #[error("failed to understand the mover's answer {answer}")]
    Answer { answer: String },
}

fn refusal(error: &kube::Error) -> Done {
    match Refusal::of(error) {
        Refusal::ForNow(text) => Done::Again(text),
        Refusal::ForGood(text) => Done::Failed(text),
    }
}

/// The claim as it will be, and the volume to make for it: as large as the larger of what the claim asks for and what
/// the source volume had, because files that fitted there have to fit here.
fn target_and_request(mut claim: PersistentVolumeClaim, entry: &VolumeEntry) -> (PersistentVolumeClaim, ClaimRequest) {
    let spec = claim.spec.get_or_insert_default();
    let resources = spec.resources.get_or_insert_with(VolumeResourceRequirements::default);
    let requests = resources.requests.get_or_insert_default();
    let asked = requests.get("storage").map_or("1Gi", |quantity| quantity.0.as_str());
    let size = Quantity(larger(asked, entry.capacity.as_deref().unwrap_or(asked)).to_owned());
    requests.insert("storage".to_owned(), size.clone());
    // A selector chooses among volumes that exist; this claim gets one that is made for it.
    spec.selector = None;
    let mut access_modes = spec.access_modes.clone().unwrap_or_default();
    if !access_modes.iter().any(|mode| mode.starts_with("ReadWrite")) {
        // The mover has to write to it once.
        access_modes.push("ReadWriteOnce".to_owned());
    }
    let request = ClaimRequest { storage_class: spec.storage_class_name.clone(), access_modes, size };
    (claim, request)
}

/// What the restored volume has less or other than the backup; `None` if they are the same. Files are compared by what
/// was read back from the disk, with each name of a hard-linked file counted, as the backup counted them.
fn difference(report: &RestoreReport, entry: &VolumeEntry) -> Option<String> {
    if report.failed > 0 {
        let first: Vec<_> =
            report.first_failed.iter().take(3).map(|item| format!("{}: {}", item.path, item.reason)).collect();
        return Some(format!("{} files failed, the first: {}", report.failed, first.join("; ")));
    }
    if report.files != entry.files {
        return Some(format!("{} files instead of {}", report.files, entry.files));
    }
    if report.verified_bytes != entry.bytes {
        return Some(format!("{} bytes instead of {}", report.verified_bytes, entry.bytes));
    }
    None
}

/// Name of the temporary claim and of the mover's Job: of its own for each attempt, so that one that is still being
/// deleted is never taken for the new one.
fn temporary_name(running: &Running, entry: &VolumeEntry) -> String {
    let parts =
        [running.uid(), &running.started().to_string(), &running.attempt().to_string(), &entry.namespace, &entry.claim];
    let digest = hex::encode(Sha256::digest(parts.join("/")));
    format!("shoot-backup-restore-{}", &digest[..16])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::mover::protocol::Skipped;

    fn entry() -> VolumeEntry {
        VolumeEntry {
            namespace: "shop".to_owned(),
            claim: "data".to_owned(),
            snapshot: "s".to_owned(),
            storage_class: Some("gold".to_owned()),
            capacity: Some("10Gi".to_owned()),
            files: 3,
            bytes: 4096,
        }
    }

    fn claim(spec: &serde_json::Value) -> PersistentVolumeClaim {
        serde_json::from_value(json!({"metadata": {"name": "data", "labels": {"app": "shop"}}, "spec": spec})).unwrap()
    }

    #[test]
    fn the_new_volume_has_room_for_what_the_old_one_had() {
        let spec = json!({
            "accessModes": ["ReadWriteOnce"], "storageClassName": "silver", "selector": {"matchLabels": {"a": "b"}},
            "resources": {"requests": {"storage": "8Gi"}},
        });
        let (target, request) = target_and_request(claim(&spec), &entry());
        assert_eq!(request.size.0, "10Gi");
        assert_eq!(request.storage_class.as_deref(), Some("silver"));
        assert_eq!(request.access_modes, ["ReadWriteOnce"]);
        let spec = target.spec.unwrap();
        assert_eq!(spec.resources.unwrap().requests.unwrap()["storage"].0, "10Gi");
        assert_eq!(spec.selector, None);
        assert_eq!(target.metadata.labels.unwrap()["app"], "shop");
    }

    #[test]
    fn a_volume_that_only_readers_use_is_written_once() {
        let spec = json!({"accessModes": ["ReadOnlyMany"], "resources": {"requests": {"storage": "20Gi"}}});
        let (target, request) = target_and_request(claim(&spec), &entry());
        assert_eq!(request.access_modes, ["ReadOnlyMany", "ReadWriteOnce"]);
        assert_eq!(request.size.0, "20Gi");
        assert_eq!(target.spec.unwrap().access_modes.unwrap(), ["ReadOnlyMany"]);
    }

    #[test]
    fn only_data_that_was_read_back_whole_is_handed_over() {
        let whole = RestoreReport {
            files: 3,
            bytes: 2048,
            verified_files: 3,
            verified_bytes: 4096,
            ..RestoreReport::default()
        };
        // Fewer bytes written than read back: a hard link is written once and read under each of its names.
        assert_eq!(difference(&whole, &entry()), None);
        let failed = vec![Skipped { path: "a".to_owned(), reason: "denied".to_owned() }];
        for (report, expected) in [
            (RestoreReport { failed: 1, first_failed: failed, ..whole.clone() }, "a: denied"),
            (RestoreReport { files: 2, ..whole.clone() }, "2 files instead of 3"),
            (RestoreReport { verified_bytes: 4095, ..whole.clone() }, "4095 bytes instead of 4096"),
        ] {
            let text = difference(&report, &entry()).unwrap();
            assert!(text.contains(expected), "{text}");
        }
    }

    #[test]
    fn names_are_of_one_attempt_and_one_claim() {
        let running = Running::test();
        let name = temporary_name(&running, &entry());
        assert_eq!(name, temporary_name(&running, &entry()));
        assert!(name.len() <= 63);
        assert_ne!(name, temporary_name(&running, &VolumeEntry { claim: "other".to_owned(), ..entry() }));
    }
}
