//! Repository to volume, inside a mover's pod.

use std::fs::{File, FileTimes};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use shoot_backup_repository::{Repository, RepositoryError, RestoreOptions, restore_directory};

use super::backup::entries;
use super::protocol::RestoreReport;
use super::run::{MoveError, Printer};

/// What file systems put into their root themselves.
const OF_THE_FILE_SYSTEM: &str = "lost+found";

/// Writes a snapshot into `volume`, then reads every file back and compares it.
///
/// A claim can be bound to a volume that was there before, with data of someone else. So a volume that is not empty is
/// refused, unless the marker of this very operation is there: then a pod before this one was cut off. The marker stays
/// until all is verified, because a pod can be cut off while it verifies too.
pub async fn run(
    repository: &Repository,
    snapshot: &str,
    operation: &str,
    volume: &Path,
) -> Result<RestoreReport, MoveError> {
    let id = snapshot.parse().map_err(|_| MoveError::Snapshot(snapshot.to_owned()))?;
    let marker = format!(".shoot-backup-restore-{operation}");
    let (root, name) = (volume.to_owned(), marker.clone());
    blocking(move || begin(&root, &name)).await?;
    let reader = repository.reader().await?;
    let printer = Printer::new();
    let done = restore_directory(&reader, &id, volume, RestoreOptions::default(), &|progress| {
        printer.print(progress);
    })
    .await?;
    let (root, name) = (volume.to_owned(), marker);
    blocking(move || finish(&root, &name).map_err(MoveError::Volume)).await?;
    Ok(RestoreReport {
        files: done.files,
        bytes: done.bytes,
        verified_files: done.verified_files,
        verified_bytes: done.verified_bytes,
        failed: done.failed.count,
        first_failed: entries(done.failed.first),
    })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, MoveError> + Send + 'static,
) -> Result<T, MoveError> {
    tokio::task::spawn_blocking(work).await.map_err(RepositoryError::Worker)?
}

/// Makes sure that nothing but this operation's own files is in the volume, and marks it.
fn begin(volume: &Path, marker: &str) -> Result<(), MoveError> {
    match marker_of(volume, marker).symlink_metadata() {
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(MoveError::Volume(error)),
    }
    for entry in volume.read_dir().map_err(MoveError::Volume)? {
        let name = entry.map_err(MoveError::Volume)?.file_name();
        if name != OF_THE_FILE_SYSTEM {
            return Err(MoveError::NotEmpty { entry: name.to_string_lossy().into_owned() });
        }
    }
    File::create_new(marker_of(volume, marker)).map_err(MoveError::Volume)?.sync_all().map_err(MoveError::Volume)
}

/// Removes the marker. The volume's root keeps the times that it was restored with.
fn finish(volume: &Path, marker: &str) -> io::Result<()> {
    let root = File::open(volume)?;
    let before = root.metadata()?;
    let times = FileTimes::new().set_accessed(before.accessed()?).set_modified(before.modified()?);
    match std::fs::remove_file(marker_of(volume, marker)) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    root.set_times(times)?;
    root.sync_all()
}

fn marker_of(volume: &Path, marker: &str) -> PathBuf {
    volume.join(marker)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    const MARKER: &str = ".shoot-backup-restore-a";

    fn names(volume: &Path) -> Vec<OsString> {
        let mut names: Vec<_> = volume.read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_volume_with_data_of_someone_else_is_never_written_to() {
        let volume = tempfile::tempdir().unwrap();
        std::fs::write(volume.path().join("precious"), b"x").unwrap();
        let error = begin(volume.path(), MARKER).unwrap_err();
        assert!(matches!(&error, MoveError::NotEmpty { entry } if entry == "precious"), "{error:?}");
        assert_eq!(names(volume.path()), ["precious"]);
        // The marker of another operation does not help.
        std::fs::remove_file(volume.path().join("precious")).unwrap();
        begin(volume.path(), ".shoot-backup-restore-b").unwrap();
        assert!(matches!(begin(volume.path(), MARKER), Err(MoveError::NotEmpty { .. })));
    }

    #[test]
    fn an_operation_continues_what_it_began_and_leaves_no_marker() {
        let volume = tempfile::tempdir().unwrap();
        std::fs::create_dir(volume.path().join("lost+found")).unwrap();
        begin(volume.path(), MARKER).unwrap();
        std::fs::write(volume.path().join("half"), b"x").unwrap();
        begin(volume.path(), MARKER).unwrap();
        let root = File::open(volume.path()).unwrap();
        let restored = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1000);
        root.set_times(FileTimes::new().set_modified(restored)).unwrap();
        finish(volume.path(), MARKER).unwrap();
        assert_eq!(names(volume.path()), ["half", "lost+found"]);
        assert_eq!(root.metadata().unwrap().modified().unwrap(), restored);
    }
}
