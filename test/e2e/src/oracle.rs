//! Stock restic as the judge of what was written: a repository is copied out of the container as it is, and restic,
//! which knows nothing of this product, checks and restores it.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use shoot_backup_api::Backup;
use shoot_backup_api::manifest::{BackupManifest, paths};
use shoot_backup_azure_emulator::AdminClient;
use tempfile::TempDir;
use tokio::process::Command;

/// A copy of one cluster's repository on this machine.
#[derive(Debug)]
pub struct RepositoryCopy {
    folder: TempDir,
    password: String,
    /// The manifest of the backup that was asked for.
    pub manifest: BackupManifest,
}

impl RepositoryCopy {
    /// Copies the repository that a backup is in. `prefix` is that of the backup's location.
    pub async fn of(azure: &AdminClient, container: &str, prefix: &str, backup: &Backup) -> Result<Self> {
        let result = backup.status.as_ref().and_then(|status| status.result.as_ref());
        let result = result.context("the backup has no result")?;
        let manifest = azure.blob(container, &format!("{prefix}/{}", result.manifest)).await?;
        let manifest = serde_json::from_slice(&manifest).context("failed to read the manifest")?;
        let folder = tempfile::tempdir().context("failed to make a folder")?;
        let root = format!("{prefix}/{}/", paths::repository(&result.cluster_uid));
        for blob in azure.blobs(container, &root).await? {
            let path: PathBuf = folder.path().join("repository").join(blob.name.trim_start_matches(&root));
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            std::fs::write(&path, azure.blob(container, &blob.name).await?)?;
        }
        let password = azure.blob(container, &format!("{prefix}/{}", paths::password(&result.cluster_uid))).await?;
        let password = String::from_utf8(password.to_vec()).context("the password is no text")?.trim().to_owned();
        Ok(Self { folder, password, manifest })
    }

    /// Runs restic on the copy and returns what it printed.
    pub async fn restic(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new("restic")
            .args(arguments)
            .env("RESTIC_PASSWORD", &self.password)
            .env("RESTIC_REPOSITORY", self.folder.path().join("repository"))
            .env("RESTIC_CACHE_DIR", self.folder.path().join("cache"))
            .output()
            .await
            .context("failed to start restic: install the package restic")?;
        anyhow::ensure!(
            output.status.success(),
            "restic {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Lets restic restore the volume of one claim, and returns where it is.
    pub async fn restore_volume(&self, claim: &str) -> Result<PathBuf> {
        let volume = self.manifest.volumes.iter().find(|volume| volume.claim == claim);
        let volume = volume.with_context(|| format!("the manifest has no volume of claim {claim}"))?;
        let target = self.folder.path().join("restored").join(claim);
        self.restic(&["restore", &volume.snapshot, "--target", &target.display().to_string()]).await?;
        // A volume's snapshot is of the path that names its claim.
        Ok(target.join("volumes").join(&volume.namespace).join(claim))
    }
}
