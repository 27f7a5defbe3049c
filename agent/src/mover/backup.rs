//! Volume to repository, inside a mover's pod.

use std::path::Path;

use jiff::Timestamp;
use shoot_backup_repository::{BackupOptions, Repository, SnapshotInfo, backup_directory};

use super::protocol::{BackupReport, Skipped, Work};
use super::run::{MoveError, Printer};

/// Backs up everything below `volume` as one snapshot.
pub async fn run(repository: &Repository, work: &Work, volume: &Path) -> Result<BackupReport, MoveError> {
    let Work::Backup { hostname, path, tags, parent } = work else {
        return Err(MoveError::Command { task: work.verb(), command: "backup".to_owned() });
    };
    // A parent only saves time: one that is no id is none.
    let options = BackupOptions { parent: parent.as_ref().and_then(|id| id.parse().ok()) };
    let info = SnapshotInfo {
        hostname: hostname.clone(),
        paths: vec![path.clone()],
        tags: tags.clone(),
        time: Timestamp::now(),
    };
    let printer = Printer::new();
    let done = backup_directory(repository, volume, info, options, &|progress| printer.print(progress)).await?;
    Ok(BackupReport {
        snapshot: done.summary.snapshot.to_string(),
        files: done.summary.files,
        bytes: done.summary.bytes,
        bytes_stored: done.summary.bytes_stored,
        skipped: done.skipped.count,
        first_skipped: entries(done.skipped.first),
    })
}

/// The engine's list in the protocol's words.
pub(super) fn entries(list: Vec<shoot_backup_repository::SkippedItem>) -> Vec<Skipped> {
    list.into_iter().map(|item| Skipped { path: item.path, reason: item.reason }).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use shoot_backup_repository::MemoryStore;

    use super::*;

    #[tokio::test]
    async fn what_one_mover_backs_up_the_other_restores_and_verifies() {
        let store = Arc::new(MemoryStore::new());
        let repository = Repository::open_or_init(store, "password").await.unwrap();
        let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir(source.path().join("var")).unwrap();
        std::fs::write(source.path().join("var/data"), b"content").unwrap();
        std::fs::write(source.path().join("empty"), b"").unwrap();
        let work = Work::Backup {
            hostname: "alpha".to_owned(),
            path: "/volumes/shop/data".to_owned(),
            tags: Vec::new(),
            parent: Some("no id".to_owned()),
        };
        let backup = run(&repository, &work, source.path()).await.unwrap();
        assert_eq!((backup.files, backup.bytes, backup.skipped), (2, 7, 0));
        let restore =
            super::super::restore::run(&repository, &backup.snapshot, "operation", target.path()).await.unwrap();
        assert_eq!((restore.verified_files, restore.verified_bytes, restore.failed), (2, 7, 0));
        assert_eq!(std::fs::read(target.path().join("var/data")).unwrap(), b"content");
    }
}
