//! What a `Restore` needs before it can go to its cluster.

use kube::{Api, ResourceExt};
use shoot_backup_api::{ApplicationCluster, Backup, Restore};

use super::operation::Judged;
use super::verdict::{self, Verdict};
use super::{Error, location};
use crate::context::Context;
use crate::request::timed_opt;

impl Judged for Restore {
    async fn judge(&self, cluster: &ApplicationCluster, context: &Context) -> Result<Verdict, Error> {
        let namespace = self.namespace().unwrap_or_default();
        let backup = match &self.spec.backup {
            // Asked for anew: whether it has just been completed decides.
            Some(name) => {
                let api: Api<Backup> = Api::namespaced(context.garden.clone(), &namespace);
                timed_opt(format!("get Backup {name}"), api.get(name)).await.map_err(Error::Garden)?
            }
            None => None,
        };
        let source = match verdict::source(self, backup.as_ref()) {
            Ok(source) => source,
            Err(verdict) => return Ok(verdict),
        };
        let found = location::find(context, &namespace, &source.location).await?;
        Ok(verdict::restore(self, source, found.as_ref(), cluster))
    }
}
