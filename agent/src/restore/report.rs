//! What a restore did, object by object: counted without end, listed within bounds.

use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use shoot_backup_api::OperationPhase;
use shoot_backup_api::conditions::truncate;
use shoot_backup_api::manifest::{FORMAT_VERSION, MAX_LISTED, ReportAction, ReportItem, RestoreReport, paths};
use shoot_backup_api::restore::RestoreResult;

use crate::location::{Location, LocationError};
use crate::operation::Running;

/// Longest reason of one item, in bytes: all items together stay below 20 MiB.
const MAX_REASON: usize = 1024;
/// Reports of one restore that a location takes: it is written once per attempt, and attempts are bounded, but someone
/// may ask for a retry again and again.
const MAX_REPORTS: u32 = 1000;

/// Collects what happens to each object. Shared by all tasks of a restore.
#[derive(Debug, Default)]
pub struct Collector {
    collected: Mutex<Collected>,
}

#[derive(Debug, Default)]
struct Collected {
    counts: RestoreResult,
    total: u64,
    /// Failures are listed first: of a report that is full, they are what matters.
    failed: Vec<ReportItem>,
    others: Vec<ReportItem>,
}

impl Collector {
    /// Notes what happened to one thing.
    pub fn note(&self, item: String, action: ReportAction, reason: &str) {
        let mut collected = self.collected();
        let counts = &mut collected.counts;
        match action {
            ReportAction::Created => counts.created += 1,
            ReportAction::Changed => counts.changed += 1,
            ReportAction::Skipped => counts.skipped += 1,
            ReportAction::Failed => counts.failed += 1,
        }
        collected.total += 1;
        let list = if action == ReportAction::Failed { &mut collected.failed } else { &mut collected.others };
        if list.len() < MAX_LISTED {
            list.push(ReportItem { item, action, reason: truncate(reason, MAX_REASON).to_owned() });
        }
    }

    /// Notes a volume whose data was written, read back and is that of the manifest.
    pub fn volume(&self, bytes: u64) {
        let counts = &mut self.collected().counts;
        counts.volumes += 1;
        counts.volumes_verified += 1;
        counts.bytes += bytes as i64;
    }

    /// Notes a volume whose data was written but is not that of the manifest.
    pub fn unverified_volume(&self) {
        self.collected().counts.volumes += 1;
    }

    /// The counts so far.
    #[must_use]
    pub fn counts(&self) -> RestoreResult {
        self.collected().counts.clone()
    }

    /// The report as it goes to the location.
    #[must_use]
    pub fn report(&self, running: &Running, manifest: &str, completed: Timestamp) -> RestoreReport {
        let mut collected = self.collected();
        let mut items = std::mem::take(&mut collected.failed);
        items.append(&mut collected.others);
        items.truncate(MAX_LISTED);
        let failed = collected.counts.failed > 0;
        RestoreReport {
            format_version: FORMAT_VERSION,
            name: running.name().to_owned(),
            uid: running.origin_uid().to_owned(),
            manifest: manifest.to_owned(),
            phase: if failed { OperationPhase::PartiallyFailed } else { OperationPhase::Completed },
            started: running.started(),
            completed,
            items,
            items_total: collected.total,
        }
    }

    /// A panic elsewhere cannot leave it half changed, so a poisoned lock is still good.
    fn collected(&self) -> MutexGuard<'_, Collected> {
        self.collected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes a report beside those of earlier attempts, none of which is ever overwritten. Returns its path.
pub async fn write(location: &Location, cluster_uid: &str, report: &RestoreReport) -> Result<String, LocationError> {
    let name = format!("{}.{}", report.name, report.uid);
    let mut path = paths::restore(cluster_uid, &name);
    for attempt in 2..=MAX_REPORTS {
        if !location.create_json(&path, report).await?.conflict {
            break;
        }
        path = paths::restore(cluster_uid, &format!("{name}.{attempt}"));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use shoot_backup_repository::MemoryStore;

    use super::*;
    use crate::mover::protocol::Target;

    #[test]
    fn everything_is_counted_and_the_list_is_bounded_with_failures_first() {
        let collector = Collector::default();
        for number in 0..MAX_LISTED + 5 {
            collector.note(format!("configmaps/shop/{number}"), ReportAction::Created, "");
        }
        collector.note("secrets/shop/web".to_owned(), ReportAction::Failed, &"x".repeat(5000));
        collector.note("pods/shop/web".to_owned(), ReportAction::Skipped, "made by ReplicaSet web");
        collector.volume(7);
        let counts = collector.counts();
        assert_eq!((counts.created, counts.failed, counts.skipped), (MAX_LISTED as i64 + 5, 1, 1));
        assert_eq!((counts.volumes, counts.volumes_verified, counts.bytes), (1, 1, 7));
        let report = collector.report(&Running::test(), "clusters/c/backups/b.json", Timestamp::UNIX_EPOCH);
        assert_eq!(report.items.len(), MAX_LISTED);
        assert_eq!(report.items_total, MAX_LISTED as u64 + 7);
        assert_eq!(report.items[0].item, "secrets/shop/web");
        assert_eq!(report.items[0].reason.len(), MAX_REASON);
        assert_eq!(report.phase, OperationPhase::PartiallyFailed);
    }

    #[tokio::test]
    async fn the_report_of_a_second_attempt_stands_beside_the_first() {
        let location = Location::with_store("main", Target::default(), Arc::new(MemoryStore::new()));
        let collector = Collector::default();
        let report = |second| {
            let completed = Timestamp::from_second(second).unwrap();
            collector.report(&Running::test(), "m", completed)
        };
        let paths = [
            write(&location, "c", &report(1)).await.unwrap(),
            write(&location, "c", &report(2)).await.unwrap(),
            write(&location, "c", &report(3)).await.unwrap(),
            // The same report again, because the answer to its first writing was lost.
            write(&location, "c", &report(3)).await.unwrap(),
        ];
        let expected = ["", ".2", ".3", ".3"].map(|suffix| format!("clusters/c/restores/nightly.origin{suffix}.json"));
        assert_eq!(paths, expected);
    }
}
