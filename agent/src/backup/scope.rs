//! Which namespaces a backup is about.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Namespace;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use shoot_backup_api::{BackupSpec, names, selector};

use crate::context::Context;
use crate::operation::Failure;
use crate::retry;

/// Means every namespace but those of the system.
const ALL: &str = "*";

/// Reads the cluster's namespaces and picks those that the spec means. A missing one fails the backup: a backup that
/// quietly lacks what was asked for is worse than none.
pub async fn namespaces(context: &Context, spec: &BackupSpec) -> Result<BTreeSet<String>, Failure> {
    let label_selector = spec.namespace_selector.as_ref().map(selector::format);
    let parameters = ListParams { label_selector, ..ListParams::default() };
    let api: Api<Namespace> = Api::all(context.client.clone());
    let list = retry::call(|| async { api.list_metadata(&parameters).await })
        .await
        .map_err(|error| Failure::api("list namespaces", &error))?;
    let there = list.items.iter().map(ResourceExt::name_any).collect();
    pick(spec, &there)
}

fn pick(spec: &BackupSpec, there: &BTreeSet<String>) -> Result<BTreeSet<String>, Failure> {
    let Some(wanted) = &spec.namespaces else {
        if there.is_empty() {
            let text = spec.namespace_selector.as_ref().map(selector::format).unwrap_or_default();
            let message = format!("no namespace matches spec.namespaceSelector ({text}): label one, or change it");
            return Err(Failure::new("NamespaceMissing", message));
        }
        return Ok(there.clone());
    };
    if wanted.iter().any(|name| name == ALL) {
        return Ok(there.iter().filter(|name| !is_system(name)).cloned().collect());
    }
    let missing: Vec<&str> = wanted.iter().filter(|name| !there.contains(*name)).map(String::as_str).collect();
    if missing.is_empty() {
        return Ok(wanted.iter().cloned().collect());
    }
    let message = format!(
        "namespaces of spec.namespaces that do not exist in cluster {}: {}; create the Backup anew without them",
        spec.cluster,
        missing.join(", ")
    );
    Err(Failure::new("NamespaceMissing", message))
}

fn is_system(name: &str) -> bool {
    name.starts_with("kube-") || name == names::AGENT_NAMESPACE
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(namespaces: &[&str]) -> BackupSpec {
        serde_json::from_value(json!({"cluster": "alpha", "location": "main", "namespaces": namespaces})).unwrap()
    }

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_star_means_all_but_the_systems() {
        let there = set(&["default", "kube-system", "shoot-backup", "shop"]);
        assert_eq!(pick(&spec(&["*"]), &there).unwrap(), set(&["default", "shop"]));
    }

    #[test]
    fn missing_namespaces_are_named() {
        let failure = pick(&spec(&["shop", "bar", "foo"]), &set(&["shop"])).unwrap_err();
        assert_eq!(failure.reason(), "NamespaceMissing");
        assert!(failure.to_string().contains("alpha: bar, foo;"), "{failure}");
        assert_eq!(pick(&spec(&["shop"]), &set(&["shop", "other"])).unwrap(), set(&["shop"]));
    }

    #[test]
    fn a_selector_that_matches_nothing_is_told() {
        let mut spec = spec(&[]);
        spec.namespaces = None;
        spec.namespace_selector = serde_json::from_value(json!({"matchLabels": {"team": "a"}})).unwrap();
        let failure = pick(&spec, &set(&[])).unwrap_err();
        assert!(failure.to_string().contains("team=a"), "{failure}");
        assert_eq!(pick(&spec, &set(&["shop"])).unwrap(), set(&["shop"]));
    }
}
