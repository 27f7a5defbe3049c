//! Namespaces: there, or made, or waited for while an earlier one of the name goes away.

use std::collections::HashSet;
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use serde_json::json;
use shoot_backup_api::manifest::ReportAction;
use shoot_backup_api::restore::ConflictPolicy;
use shoot_backup_repository::Id;
use tokio::time::Instant;

use super::apply::{Done, OnConflict};
use super::objects::Work;
use super::resource::Resource;
use super::transform::{Kept, Transformed, transform};
use crate::backup::layout;
use crate::operation::Failure;
use crate::retry;

/// How long a namespace may take to go away: its pods have 30 s each to end, then its finalizer runs.
const PATIENCE: Duration = Duration::from_mins(2);
/// How often it is looked at.
const POLL: Duration = Duration::from_secs(1);

/// Makes sure that every restored namespace is there. Returns those that this restore made: what else is in them was made
/// by the cluster. A namespace that cannot be made ends the restore, before anything else is written.
pub async fn ensure(work: &Work<'_>) -> Result<HashSet<String>, Failure> {
    let resource = Resource::of_folder("core", "v1", "namespaces");
    let stored = match work.plan.namespaces {
        Some(tree) => work.directory(&tree, layout::CLUSTER).await?,
        None => None,
    };
    let mut made = HashSet::new();
    for (source, here) in &work.plan.rules.namespaces {
        work.running.check()?;
        let kept = wanted(work, &resource, stored.as_ref(), source, here).await?;
        wait_until_free(work, here).await?;
        let on_conflict = match work.policy {
            ConflictPolicy::Overwrite if work.plan.wants_namespaces => OnConflict::Overwrite,
            _ => OnConflict::Skip("already there"),
        };
        let item = resource.item(None, here);
        let (action, reason) = match work.applier.apply(&resource, &kept, on_conflict).await {
            Done::Created => {
                made.insert(here.clone());
                (ReportAction::Created, String::new())
            }
            Done::Changed => (ReportAction::Changed, String::new()),
            Done::Skipped(reason) => (ReportAction::Skipped, reason),
            Done::Failed(reason) | Done::Again(reason) => {
                return Err(Failure::new("Namespace", format!("failed to create namespace {here}: {reason}")));
            }
        };
        if action != ReportAction::Skipped || work.plan.wants_namespaces {
            work.collector.note(item, action, &reason);
            work.running.add_objects(1);
        }
    }
    Ok(made)
}

/// The namespace as the backup has it; one without labels where it has none.
async fn wanted(
    work: &Work<'_>,
    resource: &Resource,
    stored: Option<&Id>,
    source: &str,
    here: &str,
) -> Result<Kept, Failure> {
    let mut object = json!({"kind": "Namespace", "metadata": {"name": source}});
    if let Some(tree) = stored {
        let name = layout::file_name(source);
        if let Some(node) = work.reader.tree(tree).await?.find(name.as_ref()) {
            object = work.read(node).await?;
        }
    }
    match transform(resource, object, &work.plan.rules) {
        Transformed::Keep(kept) => Ok(kept),
        Transformed::Skip(reason) => {
            Err(Failure::new("Namespace", format!("failed to restore namespace {here}: {reason}")))
        }
    }
}

/// Waits while a namespace of this name is being deleted.
async fn wait_until_free(work: &Work<'_>, name: &str) -> Result<(), Failure> {
    let api: Api<Namespace> = Api::all(work.applier.client.clone());
    let end = Instant::now() + PATIENCE;
    let mut said = false;
    loop {
        let existing = retry::absent(retry::call(|| api.get(name)).await)
            .map_err(|error| Failure::api(&format!("get namespace {name}"), &error))?;
        let Some(existing) = existing.filter(|namespace| namespace.metadata.deletion_timestamp.is_some()) else {
            return Ok(());
        };
        if Instant::now() >= end {
            return Err(Failure::new("NamespaceTerminating", still_there(name, &existing)));
        }
        if !said {
            work.running.step(&format!("Namespaces: waiting until {name} is deleted"));
            said = true;
        }
        tokio::time::sleep(POLL).await;
    }
}

/// What keeps a namespace, in Kubernetes' own words.
fn still_there(name: &str, namespace: &Namespace) -> String {
    let conditions = namespace.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let reasons: Vec<_> = conditions
        .filter(|condition| condition.status == "True")
        .filter_map(|condition| condition.message.as_deref())
        .collect();
    format!(
        "namespace {name} is still being deleted after {} s: see what keeps it (kubectl get namespace {name} -o yaml), \
         then restore again. {}",
        PATIENCE.as_secs(),
        reasons.join(" ")
    )
    .trim_end()
    .to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn terminating(message: &str) -> Value {
        json!({
            "metadata": {"name": "shop", "deletionTimestamp": "2026-01-01T00:00:00Z"},
            "status": {"phase": "Terminating", "conditions": [
                {"type": "NamespaceContentRemaining", "status": "True", "message": message},
                {"type": "NamespaceDeletionDiscoveryFailure", "status": "False", "message": "all is well"},
            ]},
        })
    }

    #[test]
    fn a_namespace_that_does_not_go_away_says_what_keeps_it() {
        let namespace: Namespace = serde_json::from_value(terminating("pods. has 1 resource instances")).unwrap();
        let text = still_there("shop", &namespace);
        assert!(text.contains("pods. has 1 resource instances"), "{text}");
        assert!(!text.contains("all is well"), "{text}");
    }
}
