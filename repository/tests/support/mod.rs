//! What several of the tests need: stock restic, and files to back up.
#![allow(dead_code, reason = "not every test uses every part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "only tests use this")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use shoot_backup_repository::{BlobStore, DirectoryStore, Repository, SnapshotInfo};

/// The password of every test's repository.
pub const PASSWORD: &str = "correct horse battery staple";

/// Stock restic on one repository.
pub struct Restic {
    pub repository: PathBuf,
    password: String,
}

impl Restic {
    pub fn new(repository: &Path) -> Self {
        Self { repository: repository.to_owned(), password: PASSWORD.to_owned() }
    }

    pub fn with_password(repository: &Path, password: &str) -> Self {
        Self { repository: repository.to_owned(), password: password.to_owned() }
    }

    pub fn output(&self, arguments: &[&str]) -> Output {
        Command::new("restic")
            .arg("--repo")
            .arg(&self.repository)
            .arg("--no-cache")
            .args(arguments)
            .env("RESTIC_PASSWORD", &self.password)
            .env("TZ", "UTC")
            .output()
            .expect("install restic")
    }

    /// Runs restic and gives what it printed.
    pub fn run(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        assert!(
            output.status.success(),
            "restic {arguments:?} failed:\n{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn json(&self, arguments: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.run(arguments)).unwrap()
    }

    /// Reads and checks every pack.
    pub fn check(&self) {
        self.run(&["check", "--read-data"]);
    }
}

pub fn directory_store(path: &Path) -> Arc<dyn BlobStore> {
    Arc::new(DirectoryStore::new(path))
}

pub async fn repository(path: &Path) -> Repository {
    Repository::open_or_init(directory_store(path), PASSWORD).await.unwrap()
}

pub fn info(path: &str) -> SnapshotInfo {
    SnapshotInfo {
        hostname: "alpha".to_owned(),
        paths: vec![path.to_owned()],
        tags: vec!["test".to_owned()],
        time: "2026-01-02T03:04:05Z".parse().unwrap(),
    }
}

/// Bytes that do not compress, the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(length + 8);
    while out.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    out.truncate(length);
    out
}

/// Compares two directories by `diff`: names, kinds, contents.
pub fn assert_same(left: &Path, right: &Path) {
    let output = Command::new("diff").args(["-r", "--no-dereference"]).arg(left).arg(right).output().unwrap();
    // diff has no way to compare two pipes and says so as a difference.
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let differences: Vec<_> = text.lines().filter(|line| !line.ends_with(" is a fifo")).collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert!(output.status.code().is_some_and(|code| code < 2), "{output:?}");
}

/// A directory with everything that a file system can hold and a test can make.
pub fn make_odd_files(root: &Path) {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{FileExt, PermissionsExt, symlink};

    let file = |name: &OsStr, data: &[u8]| std::fs::write(root.join(name), data).unwrap();
    std::fs::create_dir_all(root.join("a/b/c/empty")).unwrap();
    file(OsStr::new("empty"), b"");
    file(OsStr::new("text"), "line\n".repeat(30_000).as_bytes());
    file(OsStr::new("a/noise"), &noise(7, 300_000));
    file(OsStr::new("großer Name 😀 e\u{301}"), b"unicode");
    file(OsStr::new("<&>\"\\\u{2028}\u{a0}'`$"), b"escapes");
    file(OsStr::new("tab\tnew\nline\u{1}\u{7f}"), b"controls");
    file(OsStr::from_bytes(b"not\xffutf8\xfe"), b"bytes");
    // The same large piece three times in one file, and again in another.
    let piece = noise(8, 3 << 20);
    file(OsStr::new("repeated"), &[&piece[..], &piece, &noise(9, 1 << 20), &piece].concat());
    file(OsStr::new("a/b/again"), &piece);
    let sparse = std::fs::File::create(root.join("sparse")).unwrap();
    sparse.write_all_at(b"start", 0).unwrap();
    sparse.write_all_at(b"middle", 20 << 20).unwrap();
    sparse.set_len(40 << 20).unwrap();
    symlink("a/noise", root.join("link")).unwrap();
    symlink("nowhere/at/all", root.join("a/dangling")).unwrap();
    symlink(OsStr::from_bytes(b"raw\xff"), root.join("raw link")).unwrap();
    std::fs::hard_link(root.join("text"), root.join("a/b/text too")).unwrap();
    std::fs::hard_link(root.join("text"), root.join("z last text")).unwrap();
    std::fs::write(root.join("setuid"), b"#!").unwrap();
    std::fs::set_permissions(root.join("setuid"), std::fs::Permissions::from_mode(0o6751)).unwrap();
    std::fs::set_permissions(root.join("a/b"), std::fs::Permissions::from_mode(0o1777)).unwrap();
    std::fs::set_permissions(root.join("a/b/c"), std::fs::Permissions::from_mode(0o2550)).unwrap();
    assert!(Command::new("mkfifo").arg(root.join("pipe")).status().unwrap().success());
    let old = std::time::UNIX_EPOCH + std::time::Duration::new(1_234_567_890, 123_456_789);
    std::fs::File::open(root.join("a/noise")).unwrap().set_modified(old).unwrap();
    std::fs::File::open(root.join("a")).unwrap().set_modified(old).unwrap();
}

/// One line for each entry: kind, mode, owner, times, links, size, target. Directories' sizes are the file system's own.
pub fn listing(root: &Path) -> String {
    let output = Command::new("find")
        .arg(root)
        .args(["-mindepth", "1", "-type", "d", "-printf", "%P|%y|%m|%U|%G|%T@\\n", "-o"])
        .args(["-printf", "%P|%y|%m|%U|%G|%T@|%n|%s|%l\\n"])
        .output()
        .unwrap();
    assert!(output.status.success());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}
