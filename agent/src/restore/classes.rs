//! Storage classes of this cluster.

use std::collections::BTreeSet;

use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use crate::retry;

/// Annotation of the default class.
const DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";

/// Names of this cluster's storage classes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Classes {
    names: BTreeSet<String>,
    has_default: bool,
}

impl Classes {
    /// The classes as they are now. A cluster has a handful.
    pub async fn list(client: &Client) -> Result<Self, kube::Error> {
        let api: Api<StorageClass> = Api::all(client.clone());
        let list = retry::call(|| async { api.list(&ListParams::default()).await }).await?;
        Ok(Self::of(&list.items))
    }

    fn of(classes: &[StorageClass]) -> Self {
        let is_default = |class: &StorageClass| class.annotations().get(DEFAULT).is_some_and(|value| value == "true");
        Self { names: classes.iter().map(ResourceExt::name_any).collect(), has_default: classes.iter().any(is_default) }
    }

    /// Why a new volume cannot be made with the class that a claim names here; `None` if it can.
    #[must_use]
    pub fn objection(&self, class: Option<&str>) -> Option<String> {
        let classes = || self.names.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        match class {
            None if self.has_default => None,
            None => Some(format!(
                "it names no storage class and this cluster has no default one; make one of these the default: {}",
                classes()
            )),
            Some("") => Some(format!(
                "its volume was made by hand, without a storage class; map the class \"\" in spec.storageClassMapping to \
                 one of: {}",
                classes()
            )),
            Some(name) if self.names.contains(name) => None,
            Some(name) => Some(format!(
                "storage class {name} does not exist in this cluster; map it in spec.storageClassMapping to one of: {}",
                classes()
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn classes(default: &str) -> Classes {
        let class = |name: &str, default: &str| -> StorageClass {
            let metadata = json!({"name": name, "annotations": {DEFAULT: default}});
            serde_json::from_value(json!({"metadata": metadata, "provisioner": "p"})).unwrap()
        };
        Classes::of(&[class("slow", "false"), class("fast", default)])
    }

    #[test]
    fn a_class_that_is_not_here_is_named_with_those_that_are_and_the_way_out() {
        let objection = classes("true").objection(Some("gold")).unwrap();
        assert!(objection.contains("gold"), "{objection}");
        assert!(objection.contains("spec.storageClassMapping to one of: fast, slow"), "{objection}");
        assert_eq!(classes("true").objection(Some("slow")), None);
    }

    #[test]
    fn a_claim_without_a_class_needs_a_default_one() {
        assert_eq!(classes("true").objection(None), None);
        assert!(classes("false").objection(None).unwrap().contains("no default"));
        assert!(classes("true").objection(Some("")).unwrap().contains("by hand"));
    }
}
