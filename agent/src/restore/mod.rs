//! Restore: a backup brought back, object by object, wave by wave, volumes by movers.
//!
//! - [`plan`]: what is restored, and under which names (pure).
//! - [`waves`]: in which order (pure).
//! - [`transform`]: what each object becomes (pure).
//! - [`objects`]: walks the objects; [`namespaces`] and [`definitions`] come first, [`owners`] says what is left to
//!   controllers.
//! - [`apply`]: brings one object into the cluster; `refusal`: what the API server's refusals mean.
//! - [`volumes`]: brings claims and their data back; `classes` and `quantity` say which and how large,
//!   [`missing_claims`] what waits for them.
//! - [`report`]: what happened.

pub mod apply;
mod classes;
mod definitions;
#[cfg(test)]
mod fake_cluster;
mod missing_claims;
mod namespaces;
pub mod objects;
pub mod owners;
pub mod plan;
mod quantity;
mod refusal;
pub mod report;
pub mod resource;
#[cfg(test)]
mod tests;
pub mod transform;
pub mod volumes;
pub mod waves;

use std::sync::Mutex;

use jiff::Timestamp;
use shoot_backup_api::Restore;
use shoot_backup_api::manifest::{BackupManifest, paths};
use shoot_backup_api::restore::{RestoreResult, RestoreSource};
use shoot_backup_repository::Id;
use tokio::sync::OnceCell;

use crate::context::Context;
use crate::location::{self, Location};
use crate::operation::failure::with_causes;
use crate::operation::{Failure, Running};

use self::apply::Applier;
use self::missing_claims::MissingClaims;
use self::objects::Work;
use self::owners::Owners;
use self::plan::Plan;
use self::report::Collector;
use self::volumes::Volumes;

/// Restores a backup:
/// 1. Read the manifest from the location: without it there is no backup.
/// 2. Open the repository of the cluster that made the backup, this or another, and plan. What cannot be is refused
///    before anything is written.
/// 3. Make sure of the namespaces, then bring the objects, wave by wave, claims with their data among them.
/// 4. Write the report.
///
/// Each step can be repeated: what an earlier attempt of the same restore made carries its UID and counts as created. A
/// restore that is cut off leaves what it has restored so far.
pub async fn run(context: &Context, restore: &Restore, running: &Running) -> Result<RestoreResult, Failure> {
    let source = restore.spec.source.as_ref().ok_or_else(|| {
        Failure::new("NoSource", "spec.source is not filled in: the garden side does that from spec.backup")
    })?;
    running.step("Manifest");
    let location = location::open(context, &source.location).await?;
    let manifest = manifest(&location, source).await?;

    running.step("Plan");
    let repository = location.repository(&source.cluster_uid).await?;
    let reader = repository.reader().await?;
    let snapshot = manifest.objects.snapshot.parse::<Id>().map_err(|error| {
        Failure::new("Malformed", format!("the backup's manifest names no snapshot of its objects: {error}"))
    })?;
    let folders = plan::folders(&reader, &snapshot).await?;
    let plan = plan::plan(&restore.spec, &manifest, folders, running.origin_uid())
        .map_err(|error| Failure::new("InvalidSpec", error.to_string()))?;
    running.set_volumes_total(volumes_of(&plan));

    running.step("Namespaces");
    let work = Work {
        plan,
        policy: restore.spec.conflict_policy,
        reader,
        applier: Applier { client: context.client.clone(), restore_uid: running.origin_uid().to_owned() },
        collector: Collector::default(),
        running,
        owners: Owners::default(),
        definitions: definitions::Definitions::default(),
        missing_claims: MissingClaims::default(),
        volumes: Volumes {
            context,
            target: location.target().clone(),
            cluster_uid: source.cluster_uid.clone(),
            classes: OnceCell::new(),
            used: Mutex::default(),
        },
    };
    let made = namespaces::ensure(&work).await?;
    work.objects(&made).await?;

    running.step("Report");
    write_report(context, &location, source, &work).await
}

async fn manifest(location: &Location, source: &RestoreSource) -> Result<BackupManifest, Failure> {
    location.manifest(&source.cluster_uid, &source.backup).await?.ok_or_else(|| {
        Failure::new(
            "BackupMissing",
            format!(
                "backup {} of cluster {} is not in location {}: it did not complete, or the location is another one; \
                 look at the Backup's status",
                source.backup, source.cluster_uid, source.location
            ),
        )
    })
}

/// Volumes whose data is restored: none if claims are left out.
fn volumes_of(plan: &Plan) -> u64 {
    if plan.wants_claims { plan.volumes.len() as u64 } else { 0 }
}

/// Writes the report. Where that fails the restore is done all the same, and says so.
async fn write_report(
    context: &Context,
    location: &Location,
    source: &RestoreSource,
    work: &Work<'_>,
) -> Result<RestoreResult, Failure> {
    let facts = context.facts().await.map_err(|error| Failure::api("look at the cluster", &error))?;
    let mut result = work.collector.counts();
    let manifest = paths::backup(&source.cluster_uid, &source.backup);
    let report = work.collector.report(work.running, &manifest, Timestamp::now());
    match report::write(location, &facts.uid, &report).await {
        Ok(path) => result.report = path,
        Err(error) => {
            work.running.error("report", with_causes(&error));
            result.failed += 1;
        }
    }
    Ok(result)
}
