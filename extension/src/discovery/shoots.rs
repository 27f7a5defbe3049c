//! Shoots of the own garden: one watch on all of them, of which only what matters is kept.

use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt;
use kube::runtime::controller::Action;
use shoot_backup_api::names;
use shoot_backup_api::shoot::{FoundBy, Shoot};

use super::{Error, create, selection};
use crate::context::{self, Context};

/// A cluster that was deleted while its Shoot is opted in comes back after this time.
const AGAIN: Duration = Duration::from_mins(5);

/// Annotations that decide something.
const ANNOTATIONS: &[&str] =
    &[names::ANNOTATION_ENABLED, names::ANNOTATION_SHOOT_ISSUER, "shoot.gardener.cloud/ignore"];

/// Drops what is never looked at: a landscape has thousands of Shoots, and all of them are kept in memory.
pub fn slim(shoot: &mut Shoot) {
    shoot.metadata.managed_fields = None;
    shoot.metadata.owner_references = None;
    shoot.metadata.finalizers = None;
    if let Some(annotations) = shoot.metadata.annotations.as_mut() {
        annotations.retain(|key, _| ANNOTATIONS.contains(&key.as_str()));
    }
    shoot.spec.extensions.retain(|extension| extension.type_ == names::EXTENSION_TYPE);
    // Only whether there are workers is ever asked.
    shoot.spec.provider.workers.truncate(1);
    shoot.spec.provider.workers.iter_mut().for_each(|worker| *worker = serde_json::Value::Null);
    shoot.status.conditions.retain(|condition| condition.type_ == "APIServerAvailable");
    shoot.status.advertised_addresses.retain(|entry| entry.name == names::SHOOT_ISSUER_ADDRESS);
}

/// Reconciles one Shoot: (1) decide whether anything opts it in, (2) make its cluster if there is none.
pub async fn reconcile(shoot: Arc<Shoot>, context: Arc<Context>) -> Result<Action, Error> {
    let measurement = context.metrics.measure("Shoot");
    let result = take_in(&shoot, &context).await;
    measurement.ended(if result.is_ok() { "ok" } else { "error" });
    if result.is_ok() {
        context.failures.worked(&failure_key(&shoot));
    }
    result
}

async fn take_in(shoot: &Shoot, context: &Context) -> Result<Action, Error> {
    context.stores.ready().await?;
    let namespace = shoot.namespace().unwrap_or_default();
    let name = shoot.name_any();
    if shoot.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let discoveries = context.stores.discoveries_in(&namespace);
    let Some(found) = selection::found_by(shoot, &discoveries, context.config.auto_enable, true) else {
        return Ok(Action::await_change());
    };
    let reference = create::own_reference(&name);
    let exists = context
        .stores
        .clusters_in(&namespace)
        .iter()
        .any(|cluster| cluster.spec.shoot_ref.as_ref() == Some(&reference));
    if !exists {
        let discovery = match &found {
            FoundBy::Discovery(name) => context::get(&context.stores.discoveries, &namespace, name),
            _ => None,
        };
        let cluster = create::cluster(&namespace, &name, reference, Some(shoot), discovery.as_ref());
        create::create(context, &cluster).await?;
    }
    Ok(Action::requeue(AGAIN))
}

/// What to do after an error.
#[allow(clippy::needless_pass_by_value, reason = "the signature is that of kube\'s error policy")]
pub fn failed(shoot: Arc<Shoot>, error: &Error, context: Arc<Context>) -> Action {
    let name = failure_key(&shoot);
    tracing::warn!(shoot = name, %error, "failed to take a Shoot in");
    Action::requeue(context.failures.failed(&name))
}

fn failure_key(shoot: &Shoot) -> String {
    format!("Shoot {}/{}", shoot.namespace().unwrap_or_default(), shoot.name_any())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_decides_survives_slimming() {
        let mut shoot: Shoot = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "s", "annotations": {names::ANNOTATION_ENABLED: "true", "other": "x".repeat(1000)}},
            "spec": {"extensions": [{"type": "shoot-backup"}, {"type": "other"}],
                     "provider": {"workers": [{"name": "a"}, {"name": "b"}]}},
            "status": {"lastOperation": {"type": "Create", "state": "Succeeded"},
                       "conditions": [{"type": "APIServerAvailable", "status": "True"}, {"type": "Other", "status": "True"}]},
        }))
        .unwrap();
        slim(&mut shoot);
        assert_eq!(shoot.not_ready(), None);
        assert_eq!(shoot.opted_in(), Some(FoundBy::Annotation));
        assert_eq!(shoot.status.conditions.len(), 1);
        assert_eq!(shoot.metadata.annotations.as_ref().unwrap().len(), 1);
    }
}
