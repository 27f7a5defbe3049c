//! Directories of a file system, backed up and restored, by us and by stock restic in turn.

#![allow(clippy::unwrap_used, reason = "outside of test functions the lint does not see that this is a test")]

mod support;

use std::path::{Path, PathBuf};

use shoot_backup_repository::{
    BackupOptions, DirectoryBackup, DirectoryRestore, Id, Repository, RestoreOptions, backup_directory,
    restore_directory,
};
use support::{Restic, assert_same, info, listing, make_odd_files, noise, repository};

struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A directory of odd files.
    fn source(&self) -> PathBuf {
        let source = self.path("source");
        make_odd_files(&source);
        source
    }
}

async fn back_up(repository: &Repository, source: &Path, parent: Option<Id>) -> DirectoryBackup {
    backup_directory(repository, source, info("/volumes/data"), BackupOptions { parent }, &|_| ()).await.unwrap()
}

async fn restore(repository: &Repository, snapshot: &Id, target: &Path) -> DirectoryRestore {
    let reader = repository.reader().await.unwrap();
    restore_directory(&reader, snapshot, target, RestoreOptions::default(), &|_| ()).await.unwrap()
}

#[tokio::test]
async fn restic_restores_what_we_backed_up() {
    let place = Place::new();
    let source = place.source();
    let repository = repository(&place.path("repository")).await;
    let backup = back_up(&repository, &source, None).await;
    assert_eq!(backup.skipped.count, 0, "{:?}", backup.skipped);

    let restic = Restic::new(&place.path("repository"));
    restic.check();
    restic.run(&["restore", "latest", "--target", place.path("restored").to_str().unwrap()]);
    let restored = place.path("restored/volumes/data");
    // restic 0.14 knows only the text of a link's target.
    std::fs::remove_file(source.join("raw link")).unwrap();
    std::fs::remove_file(restored.join("raw link")).unwrap();
    assert_same(&source, &restored);
    assert_eq!(listing(&restored), listing(&source));
}

#[tokio::test]
async fn we_restore_what_we_backed_up_with_all_metadata_and_holes() {
    use std::os::unix::fs::MetadataExt;
    let place = Place::new();
    let source = place.source();
    let repository = repository(&place.path("repository")).await;
    let backup = back_up(&repository, &source, None).await;
    let restored = restore(&repository, &backup.summary.snapshot, &place.path("target")).await;

    assert_eq!(restored.failed.count, 0, "{:?}", restored.failed);
    assert_same(&source, &place.path("target"));
    assert_eq!(listing(&place.path("target")), listing(&source));
    assert_eq!((restored.files, restored.directories), (backup.summary.files, backup.summary.directories - 2));
    assert!(restored.verified_files >= 13, "{restored:?}");
    assert!(restored.verified_bytes >= restored.bytes);
    let sparse = std::fs::metadata(place.path("target/sparse")).unwrap();
    assert!(sparse.len() == 40 << 20 && sparse.blocks() * 512 < 1 << 20, "{} blocks", sparse.blocks());
    let inode = |name: &str| std::fs::metadata(place.path("target").join(name)).unwrap().ino();
    assert_eq!(inode("text"), inode("a/b/text too"));
    assert_eq!(inode("text"), inode("z last text"));
}

#[tokio::test]
async fn we_restore_what_restic_backed_up() {
    let place = Place::new();
    let source = place.source();
    repository(&place.path("repository")).await;
    let restic = Restic::new(&place.path("repository"));
    restic.run(&["backup", "--compression", "max", source.to_str().unwrap()]);

    let repository = repository(&place.path("repository")).await;
    let (snapshot, _) = repository.snapshots().await.unwrap().pop().unwrap();
    let restored = restore(&repository, &snapshot, &place.path("target")).await;
    assert_eq!(restored.failed.count, 0, "{:?}", restored.failed);
    // restic 0.14 loses the bytes of a link's target that are no text: not ours to find again.
    std::fs::remove_file(source.join("raw link")).unwrap();
    std::fs::remove_file(place.path("target/raw link")).unwrap();
    assert_same(&source, &place.path("target"));

    assert_eq!(listing(&place.path("target")), listing(&source));
}

#[tokio::test]
async fn directories_that_restic_wrote_have_the_same_ids_when_we_write_them() {
    let place = Place::new();
    let source = place.source();
    // restic 0.14 writes an escape for bytes that are no text in a link's target; nothing else differs.
    std::fs::remove_file(source.join("raw link")).unwrap();
    let repository = repository(&place.path("repository")).await;
    Restic::new(&place.path("repository")).run(&["backup", source.to_str().unwrap()]);
    let (_, snapshot) = repository.snapshots().await.unwrap().pop().unwrap();
    let reader = repository.reader().await.unwrap();
    let (mut trees, mut seen) = (vec![snapshot.tree], 0);
    while let Some(id) = trees.pop() {
        let tree = reader.tree(&id).await.unwrap();
        assert_eq!(tree.id().unwrap(), id, "{tree:#?}");
        trees.extend(tree.nodes.iter().filter_map(|node| node.subtree));
        seen += 1;
    }
    assert!(seen >= 7, "{seen}");
}

#[tokio::test]
async fn a_repository_that_restic_made_is_read_and_written() {
    let place = Place::new();
    let source = place.source();
    let restic = Restic::new(&place.path("repository"));
    restic.run(&["init", "--repository-version", "2"]);
    restic.run(&["backup", source.to_str().unwrap()]);
    let repository = repository(&place.path("repository")).await;
    let backup = back_up(&repository, &source, None).await;
    // Trees differ (restic writes user names), data does not.
    assert!(backup.summary.bytes_added < 64 * 1024, "{:?}", backup.summary);
    restic.check();
    assert_eq!(repository.snapshots().await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_second_backup_of_the_same_directory_adds_nothing_and_a_changed_file_only_itself() {
    let place = Place::new();
    let source = place.source();
    let repository = repository(&place.path("repository")).await;
    let first = back_up(&repository, &source, None).await;
    let again = back_up(&repository, &source, None).await;
    assert_eq!(again.summary.tree, first.summary.tree);
    assert_eq!(again.summary.bytes_added, 0);

    let parent = first.summary.snapshot;
    std::fs::write(source.join("a/noise"), noise(99, 300_000)).unwrap();
    let changed = back_up(&repository, &source, Some(parent)).await;
    assert!((300_000..400_000).contains(&changed.summary.bytes_added), "{:?}", changed.summary);
    assert_eq!(repository.snapshot(&changed.summary.snapshot).await.unwrap().parent, Some(parent));
    let unchanged = back_up(&repository, &source, Some(changed.summary.snapshot)).await;
    assert_eq!(unchanged.summary.tree, changed.summary.tree);
    assert_eq!(unchanged.summary.bytes, changed.summary.bytes);
    Restic::new(&place.path("repository")).check();
}

#[tokio::test]
async fn a_file_that_its_parent_snapshot_knows_is_not_read_again() {
    let place = Place::new();
    let source = place.path("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("file"), b"what the disk has").unwrap();
    let repository = repository(&place.path("repository")).await;
    let first = back_up(&repository, &source, None).await.summary.snapshot;
    let reader = repository.reader().await.unwrap();
    let node = reader.find(&first, "/volumes/data/file").await.unwrap();

    // A parent that says the same of the file but has other bytes: what it has is taken, so the disk was not read.
    let mut writer = repository.writer().await.unwrap();
    writer.begin_directory("volumes").await.unwrap();
    writer.begin_directory("data").await.unwrap();
    writer.add_file("file", node.metadata, b"what was recorded".as_slice()).await.unwrap();
    writer.end_directory().await.unwrap();
    writer.end_directory().await.unwrap();
    let parent = writer.finish(info("/volumes/data")).await.unwrap().snapshot;

    let second = back_up(&repository, &source, Some(parent)).await.summary.snapshot;
    restore(&repository, &second, &place.path("target")).await;
    assert_eq!(std::fs::read(place.path("target/file")).unwrap(), b"what was recorded");

    // Touched, it is read.
    std::fs::File::open(source.join("file")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    let third = back_up(&repository, &source, Some(parent)).await.summary.snapshot;
    restore(&repository, &third, &place.path("target")).await;
    assert_eq!(std::fs::read(place.path("target/file")).unwrap(), b"what the disk has");
}

#[tokio::test]
async fn what_cannot_be_backed_up_is_counted_and_the_rest_is_backed_up() {
    let place = Place::new();
    let source = place.path("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("file"), b"kept").unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(source.join("socket")).unwrap();
    let repository = repository(&place.path("repository")).await;
    let backup = back_up(&repository, &source, None).await;
    assert_eq!(backup.skipped.count, 1);
    assert_eq!(backup.skipped.first[0].path, "socket");
    assert_eq!(backup.summary.files, 1);
}

#[tokio::test]
async fn a_directory_that_is_not_there_is_an_error_that_names_it() {
    let place = Place::new();
    let repository = repository(&place.path("repository")).await;
    let missing = place.path("missing");
    let error =
        backup_directory(&repository, &missing, info("/x"), BackupOptions::default(), &|_| ()).await.unwrap_err();
    assert!(error.to_string().contains("missing"), "{error}");
    assert!(repository.snapshots().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_restore_follows_no_link_out_of_its_target() {
    let place = Place::new();
    let source = place.path("source");
    std::fs::create_dir_all(source.join("inside")).unwrap();
    std::fs::write(source.join("inside/file"), b"mine").unwrap();
    let repository = repository(&place.path("repository")).await;
    let backup = back_up(&repository, &source, None).await;

    // Where the snapshot has a directory, the target has a link to somewhere else.
    let outside = place.path("outside");
    std::fs::create_dir_all(&outside).unwrap();
    std::fs::create_dir_all(place.path("target")).unwrap();
    std::os::unix::fs::symlink(&outside, place.path("target/inside")).unwrap();
    let restored = restore(&repository, &backup.summary.snapshot, &place.path("target")).await;
    assert_eq!(restored.failed.count, 1, "{restored:?}");
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
}

#[tokio::test]
async fn a_restore_replaces_files_and_leaves_what_the_snapshot_does_not_have() {
    let place = Place::new();
    let source = place.path("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("file"), b"from the snapshot").unwrap();
    let repository = repository(&place.path("repository")).await;
    let backup = back_up(&repository, &source, None).await;
    let target = place.path("target");
    std::fs::create_dir(&target).unwrap();
    std::fs::write(target.join("file"), b"newer and longer than what the snapshot has").unwrap();
    std::fs::write(target.join("other"), b"stays").unwrap();
    let restored = restore(&repository, &backup.summary.snapshot, &target).await;
    assert_eq!(restored.verified_files, 1);
    assert_eq!(std::fs::read(target.join("file")).unwrap(), b"from the snapshot");
    assert_eq!(std::fs::read(target.join("other")).unwrap(), b"stays");
}
