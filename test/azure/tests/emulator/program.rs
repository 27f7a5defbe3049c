//! The binary: its ready line and its end.

use std::time::Duration;

use shoot_backup_azure_emulator::AdminClient;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use crate::azurite_process::{ACCOUNT, azurite};

#[tokio::test]
async fn the_program_says_when_it_is_ready_and_ends_in_order_on_sigterm() {
    let azurite = azurite();
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_shoot-backup-azure-emulator"))
        .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--account", ACCOUNT])
        .args(["--azurite", &azurite.url])
        .arg("--certificate")
        .arg(&azurite.certificates.certificate)
        .arg("--key")
        .arg(&azurite.certificates.key)
        .arg("--trust")
        .arg(&azurite.certificates.authority)
        .arg("--state")
        .arg(folder.path().join("state.json"))
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready = tokio::time::timeout(Duration::from_secs(30), lines.next_line()).await.unwrap().unwrap().unwrap();
    let (public, admin) = ready.strip_prefix("ready: ").unwrap().split_once(" admin ").unwrap();
    assert!(public.starts_with("https://127.0.0.1:"), "{ready}");
    AdminClient::new(admin).unwrap().health().await.unwrap();

    let id = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().await.unwrap().success());
    let status = tokio::time::timeout(Duration::from_secs(15), child.wait()).await.unwrap().unwrap();
    assert!(status.success(), "{status}");
}
