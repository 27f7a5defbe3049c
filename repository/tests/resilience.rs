//! What happens when things go wrong: two writers, killed writers, damage, wrong passwords.

#![allow(clippy::unwrap_used, reason = "outside of test functions the lint does not see that this is a test")]

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use shoot_backup_repository::{
    BackupOptions, BlobStore, Id, MemoryStore, Metadata, Repository, RepositoryError, RestoreOptions, Scoped,
    StoreErrorKind, backup_directory, restore_directory,
};
use support::{PASSWORD, Restic, directory_store, info, noise, repository};

async fn write(repository: &Repository, name: &str, data: &[u8]) -> Id {
    let mut writer = repository.writer().await.unwrap();
    writer.add_file(name, Metadata::synthetic(0o600), data).await.unwrap();
    writer.finish(info("/x")).await.unwrap().snapshot
}

/// All files below a folder of a repository.
fn files(repository: &Path, folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![repository.join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found
}

#[tokio::test]
async fn a_wrong_password_and_a_missing_repository_are_told_apart() {
    let store: Arc<dyn BlobStore> = Arc::new(MemoryStore::new());
    let missing = Repository::open(Arc::clone(&store), PASSWORD).await.unwrap_err();
    assert!(matches!(missing, RepositoryError::NotInitialized));
    Repository::open_or_init(Arc::clone(&store), PASSWORD).await.unwrap();
    for wrong in [
        Repository::open(Arc::clone(&store), "wrong").await.unwrap_err(),
        Repository::open_or_init(Arc::clone(&store), "wrong").await.unwrap_err(),
    ] {
        assert!(matches!(wrong, RepositoryError::WrongPassword { keys: 1 }), "{wrong}");
    }
}

#[tokio::test]
async fn many_who_make_the_repository_at_once_get_the_same_one() {
    let directory = tempfile::tempdir().unwrap();
    let made = futures::future::join_all((0..6).map(|_| repository(directory.path()))).await;
    assert!(made.iter().all(|repository| repository.id() == made[0].id()));
    assert_eq!(files(directory.path(), "keys").len(), 1, "one key, so that stock restic cannot pick a wrong one");
    for (at, repository) in made.iter().enumerate() {
        write(repository, "file", format!("content {at}").as_bytes()).await;
    }
    Restic::new(directory.path()).check();
}

#[tokio::test]
async fn a_repository_whose_maker_was_killed_midway_is_made_by_the_next() {
    let finished = Arc::new(MemoryStore::new());
    Repository::open_or_init(Arc::clone(&finished) as Arc<dyn BlobStore>, PASSWORD).await.unwrap();
    for reached in [vec!["first-key"], vec!["first-key", "keys/"]] {
        let store = Arc::new(MemoryStore::new());
        for entry in finished.list("").try_collect::<Vec<_>>().await.unwrap() {
            if reached.iter().any(|part| entry.path.starts_with(part)) {
                store.create(&entry.path, finished.read(&entry.path).await.unwrap()).await.unwrap();
            }
        }
        let repository = Repository::open_or_init(Arc::clone(&store) as Arc<dyn BlobStore>, PASSWORD).await.unwrap();
        write(&repository, "file", b"x").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_writers_at_once_both_finish_and_restic_finds_nothing_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let repository = repository(directory.path()).await;
    let (shared, own) = (noise(1, 20 << 20), noise(2, 20 << 20));
    let (both, more) = ([&shared[..], &own].concat(), [&own[..], &shared].concat());
    let (first, second) = tokio::join!(write(&repository, "a", &both), write(&repository, "b", &more));
    assert_ne!(first, second);
    let restic = Restic::new(directory.path());
    restic.check();
    assert_eq!(restic.json(&["snapshots", "--json"]).as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_writer_dropped_midway_leaves_no_snapshot_and_a_whole_repository() {
    let directory = tempfile::tempdir().unwrap();
    let repository = repository(directory.path()).await;
    write(&repository, "before", b"before").await;
    let mut writer = repository.writer().await.unwrap();
    writer.begin_directory("open").await.unwrap();
    writer.add_file("large", Metadata::synthetic(0o600), noise(3, 80 << 20).as_slice()).await.unwrap();
    drop(writer);
    let restic = Restic::new(directory.path());
    restic.check();
    assert_eq!(repository.snapshots().await.unwrap().len(), 1);
    // The next backup goes through.
    write(&repository, "large", &noise(3, 80 << 20)).await;
    restic.check();
}

#[tokio::test]
async fn a_snapshot_with_a_cancelled_write_in_it_is_never_written() {
    let directory = tempfile::tempdir().unwrap();
    let repository = repository(directory.path()).await;
    let mut writer = repository.writer().await.unwrap();
    let large = noise(4, 4 << 20);
    {
        // Polled once: a chunk is on its way, and its caller goes away.
        let adding = writer.add_file("large", Metadata::synthetic(0o600), large.as_slice());
        futures::pin_mut!(adding);
        assert!(futures::poll!(&mut adding).is_pending());
    }
    writer.add_file("large", Metadata::synthetic(0o600), large.as_slice()).await.unwrap();
    let error = writer.finish(info("/x")).await.unwrap_err();
    assert!(matches!(error, RepositoryError::Misuse { .. }), "{error}");
    assert!(repository.snapshots().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_source_that_fails_midway_is_left_out_and_the_rest_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let repository = repository(directory.path()).await;
    let mut writer = repository.writer().await.unwrap();
    let good = noise(5, 6 << 20);
    let failing = failing_reader(good.clone());
    let error = writer.add_file("bad", Metadata::synthetic(0o600), failing).await.unwrap_err();
    assert!(matches!(error, RepositoryError::Source { .. }), "{error}");
    writer.add_file("good", Metadata::synthetic(0o600), good.as_slice()).await.unwrap();
    let summary = writer.finish(info("/x")).await.unwrap();
    assert_eq!(summary.files, 1);
    Restic::new(directory.path()).check();
}

/// Gives these bytes, then an error.
fn failing_reader(data: Vec<u8>) -> impl tokio::io::AsyncRead + Send + Unpin {
    struct Failing(std::io::Cursor<Vec<u8>>);
    impl tokio::io::AsyncRead for Failing {
        fn poll_read(
            mut self: std::pin::Pin<&mut Self>,
            context: &mut std::task::Context<'_>,
            buffer: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            if self.0.position() == self.0.get_ref().len() as u64 {
                return std::task::Poll::Ready(Err(std::io::Error::other("the disk is gone")));
            }
            std::pin::Pin::new(&mut self.0).poll_read(context, buffer)
        }
    }
    Failing(std::io::Cursor::new(data))
}

#[tokio::test]
async fn a_damaged_pack_fails_the_files_in_it_by_name_and_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("repository");
    let source = directory.path().join("source");
    std::fs::create_dir(&source).unwrap();
    let repository = repository(&place).await;
    std::fs::write(source.join("good"), noise(6, 100_000)).unwrap();
    let backup = async || {
        backup_directory(&repository, &source, info("/data"), BackupOptions::default(), &|_| ()).await.unwrap()
    };
    backup().await;
    let before = files(&place, "data");
    std::fs::write(source.join("bad"), noise(7, 100_000)).unwrap();
    let snapshot = backup().await.summary.snapshot;

    // The new data pack is the larger of the two new ones.
    let damaged = files(&place, "data")
        .into_iter()
        .filter(|path| !before.contains(path))
        .max_by_key(|path| std::fs::metadata(path).unwrap().len())
        .unwrap();
    let mut bytes = std::fs::read(&damaged).unwrap();
    bytes[1000] ^= 1;
    std::fs::write(&damaged, bytes).unwrap();

    let reader = repository.reader().await.unwrap();
    let node = reader.find(&snapshot, "/data/bad").await.unwrap();
    let error = reader.read_file(&node, 1 << 20).await.unwrap_err().to_string();
    assert!(error.contains(damaged.file_name().unwrap().to_str().unwrap()), "{error}");
    assert!(error.contains(&node.content.as_ref().unwrap()[0].to_string()), "{error}");

    let target = directory.path().join("target");
    let restored = restore_directory(&reader, &snapshot, &target, RestoreOptions::default(), &|_| ()).await.unwrap();
    assert_eq!((restored.files, restored.verified_files, restored.failed.count), (1, 1, 1), "{restored:?}");
    assert_eq!(restored.failed.first[0].path, "bad");
    assert!(!target.join("bad").exists(), "half a file is worse than none");
    assert_eq!(std::fs::read(target.join("good")).unwrap(), noise(6, 100_000));
}

#[tokio::test]
async fn an_index_that_was_changed_is_an_error_that_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let repository = repository(directory.path()).await;
    write(&repository, "file", b"x").await;
    let index = files(directory.path(), "index").pop().unwrap();
    let mut bytes = std::fs::read(&index).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&index, bytes).unwrap();
    let error = repository.reader().await.unwrap_err().to_string();
    assert!(error.contains(index.file_name().unwrap().to_str().unwrap()), "{error}");
}

#[tokio::test]
async fn names_that_no_directory_can_have_and_open_directories_are_refused() {
    let store: Arc<dyn BlobStore> = Arc::new(MemoryStore::new());
    let repository = Repository::open_or_init(store, PASSWORD).await.unwrap();
    let mut writer = repository.writer().await.unwrap();
    for name in ["", ".", "..", "a/b", "nul\0"] {
        assert!(matches!(writer.add_bytes(name, Bytes::new()).await, Err(RepositoryError::InvalidName { .. })));
    }
    writer.add_bytes("twice", Bytes::new()).await.unwrap();
    writer.add_bytes("twice", Bytes::new()).await.unwrap();
    assert!(matches!(writer.end_directory().await, Err(RepositoryError::Misuse { .. })));
    assert!(matches!(writer.finish(info("/x")).await, Err(RepositoryError::DuplicateName { .. })));

    let mut writer = repository.writer().await.unwrap();
    writer.begin_directory("open").await.unwrap();
    assert!(matches!(writer.finish(info("/x")).await, Err(RepositoryError::Misuse { .. })));
    assert!(repository.snapshots().await.unwrap().is_empty());
}

#[tokio::test]
async fn files_are_read_by_path_within_a_limit() {
    let store: Arc<dyn BlobStore> = Arc::new(MemoryStore::new());
    let part = Arc::new(Scoped::new(Arc::clone(&store), "clusters/1/repository"));
    let repository = Repository::open_or_init(part, PASSWORD).await.unwrap();
    let mut writer = repository.writer().await.unwrap();
    writer.begin_directory("objects").await.unwrap();
    writer.add_bytes("pod.json", "{}".into()).await.unwrap();
    writer.end_directory().await.unwrap();
    let snapshot = writer.finish(info("/objects")).await.unwrap().snapshot;
    let reader = repository.reader().await.unwrap();
    let entries = reader.entries(&snapshot, "/objects/").await.unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(reader.read_file(&entries[0], 2).await.unwrap(), "{}");
    assert!(matches!(reader.read_file(&entries[0], 1).await, Err(RepositoryError::TooLarge { size: 2, .. })));
    assert!(matches!(reader.entries(&snapshot, "/nothing").await, Err(RepositoryError::MissingPath { .. })));
    let unknown = Id::of(b"no snapshot");
    assert!(matches!(reader.entries(&unknown, "/").await, Err(RepositoryError::MissingSnapshot { .. })));
    let all: Vec<_> = store.list("").try_collect().await.unwrap();
    assert!(all.iter().all(|entry| entry.path.starts_with("clusters/1/repository/")));
}

#[tokio::test]
async fn stores_never_overwrite_and_never_read_short() {
    let directory = tempfile::tempdir().unwrap();
    let memory: Arc<dyn BlobStore> = Arc::new(MemoryStore::new());
    for store in [Arc::clone(&memory), directory_store(directory.path()), Arc::new(Scoped::new(memory, "a/b"))] {
        store.create("x/one", "first".into()).await.unwrap();
        let again = store.create("x/one", "second".into()).await.unwrap_err();
        assert_eq!(again.kind(), StoreErrorKind::AlreadyExists);
        assert_eq!(store.read("x/one").await.unwrap(), "first");
        assert_eq!(store.read_range("x/one", 1, 3).await.unwrap(), "irs");
        assert_eq!(store.read_range("x/one", 3, 3).await.unwrap_err().kind(), StoreErrorKind::Corrupt);
        store.create("x/two/three", Bytes::new()).await.unwrap();
        store.create("xy", Bytes::new()).await.unwrap();
        let mut paths: Vec<_> = store.list("x/").map_ok(|entry| entry.path).try_collect().await.unwrap();
        paths.sort();
        assert_eq!(paths, ["x/one", "x/two/three"], "{store:?}");
        assert_eq!(store.list("x").try_collect::<Vec<_>>().await.unwrap().len(), 3);
        assert!(store.list("nothing/").try_collect::<Vec<_>>().await.unwrap().is_empty());
        store.delete("x/one").await.unwrap();
        assert_eq!(store.delete("x/one").await.unwrap_err().kind(), StoreErrorKind::NotFound);
        assert_eq!(store.read("x/one").await.unwrap_err().kind(), StoreErrorKind::NotFound);
    }
}
