//! Stock restic reads what we wrote.

#![allow(clippy::unwrap_used, reason = "outside of test functions the lint does not see that this is a test")]

mod support;

use shoot_backup_repository::Metadata;
use support::{PASSWORD, Restic, info, noise, repository};

#[tokio::test]
async fn restic_lists_checks_and_restores_what_the_writer_wrote() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("repository");
    let repository = repository(&place).await;
    let large = noise(1, 20 << 20);

    let mut writer = repository.writer().await.unwrap();
    writer.begin_directory("objects").await.unwrap();
    writer.add_bytes("z.json", "{\"kind\":\"Pod\"}".into()).await.unwrap();
    writer.add_bytes("a <&> \u{2028}\"b\\ü\u{a0}.json", "{}".into()).await.unwrap();
    writer.add_bytes("empty", bytes::Bytes::new()).await.unwrap();
    writer.begin_directory("below").await.unwrap();
    writer.end_directory().await.unwrap();
    writer.end_directory().await.unwrap();
    writer.add_file("large", Metadata::synthetic(0o640), large.as_slice()).await.unwrap();
    let summary = writer.finish(info("/objects")).await.unwrap();
    assert_eq!((summary.files, summary.directories), (4, 2));
    assert!(summary.bytes_added >= large.len() as u64);

    let restic = Restic::new(&place);
    let snapshots = restic.json(&["snapshots", "--json"]);
    assert_eq!(snapshots[0]["id"], summary.snapshot.to_string());
    assert_eq!(snapshots[0]["tree"], summary.tree.to_string());
    assert_eq!(snapshots[0]["hostname"], "alpha");
    restic.check();
    let target = directory.path().join("restored");
    restic.run(&["restore", "latest", "--target", target.to_str().unwrap()]);
    assert_eq!(std::fs::read(target.join("large")).unwrap(), large);
    assert_eq!(std::fs::read(target.join("objects/z.json")).unwrap(), b"{\"kind\":\"Pod\"}");
    assert_eq!(std::fs::read(target.join("objects/a <&> \u{2028}\"b\\ü\u{a0}.json")).unwrap(), b"{}");
    assert_eq!(std::fs::read(target.join("objects/empty")).unwrap(), b"");
    assert!(target.join("objects/below").is_dir());
}

#[tokio::test]
async fn restic_refuses_another_password() {
    let directory = tempfile::tempdir().unwrap();
    repository(directory.path()).await;
    let output = Restic::with_password(directory.path(), "another").output(&["snapshots"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("wrong password"));
    assert!(Restic::with_password(directory.path(), PASSWORD).output(&["snapshots"]).status.success());
}

#[tokio::test]
async fn restic_backs_up_into_our_repository_and_both_deduplicate_against_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("repository");
    let source = directory.path().join("source");
    std::fs::create_dir(&source).unwrap();
    let large = noise(2, 24 << 20);
    std::fs::write(source.join("large"), &large).unwrap();
    let repository = repository(&place).await;
    let restic = Restic::new(&place);
    restic.run(&["backup", source.to_str().unwrap()]);

    // The same cuts: everything that we would add is there already, but for the directory.
    let mut writer = repository.writer().await.unwrap();
    let file = writer.add_file("large", Metadata::synthetic(0o600), large.as_slice()).await.unwrap();
    let summary = writer.finish(info("/large")).await.unwrap();
    assert!(file.blobs > 5, "{file:?}");
    assert!(summary.bytes_added < 8192, "{summary:?}");
    restic.check();
}
