//! Repository to volume, inside a mover's pod.

use std::path::Path;

use shoot_backup_repository::{Repository, RestoreOptions, restore_directory};

use super::backup::entries;
use super::protocol::RestoreReport;
use super::run::{MoveError, Printer};

/// Writes a snapshot into `volume`, then reads every file back and compares it.
pub async fn run(repository: &Repository, snapshot: &str, volume: &Path) -> Result<RestoreReport, MoveError> {
    let id = snapshot.parse().map_err(|_| MoveError::Snapshot(snapshot.to_owned()))?;
    let reader = repository.reader().await?;
    let printer = Printer::new();
    let done = restore_directory(&reader, &id, volume, RestoreOptions::default(), &|progress| {
        printer.print(progress);
    })
    .await?;
    Ok(RestoreReport {
        files: done.files,
        bytes: done.bytes,
        verified_files: done.verified_files,
        verified_bytes: done.verified_bytes,
        failed: done.failed.count,
        first_failed: entries(done.failed.first),
    })
}
