//! What a `Backup` needs before it can go to its cluster.

use kube::ResourceExt;
use shoot_backup_api::{ApplicationCluster, Backup, BackupLocation};

use super::operation::Judged;
use super::verdict::{self, Verdict};
use super::{Error, location};
use crate::context::Context;

impl Judged for Backup {
    async fn judge(&self, cluster: &ApplicationCluster, context: &Context) -> Result<Verdict, Error> {
        let namespace = self.namespace().unwrap_or_default();
        let found: Option<BackupLocation> = location::find(context, &namespace, &self.spec.location).await?;
        Ok(verdict::backup(self, found.as_ref(), cluster))
    }
}
