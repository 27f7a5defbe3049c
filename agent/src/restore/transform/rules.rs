//! New names for namespaces and storage classes.

use std::collections::BTreeMap;

use serde_json::Value;

/// The label that every namespace has with its own name; selectors name namespaces by it.
pub const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// New names for things.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Every namespace that is restored: from its name in the backup to its name here.
    pub namespaces: BTreeMap<String, String>,
    /// Storage classes: from the name in the backup to the name here.
    pub storage_classes: BTreeMap<String, String>,
    /// UID by which what this restore makes is known.
    pub restore_uid: String,
}

impl Rules {
    /// A namespace's name here; one that is not restored keeps its name.
    #[must_use]
    pub fn here<'a>(&'a self, namespace: &'a str) -> &'a str {
        self.namespaces.get(namespace).map_or(namespace, String::as_str)
    }

    /// Renames the namespace in this string, and says whether it did.
    pub(super) fn rename(&self, value: Option<&mut Value>) -> bool {
        let Some(value) = value else { return false };
        let here = match value.as_str() {
            Some(namespace) => self.here(namespace),
            None => return false,
        };
        if value.as_str() == Some(here) {
            return false;
        }
        *value = Value::from(here);
        true
    }

    /// Renames the namespaces in a list of names.
    pub(super) fn rename_all(&self, list: Option<&mut Value>) -> bool {
        let names = list.and_then(Value::as_array_mut).into_iter().flatten();
        names.fold(false, |renamed, name| self.rename(Some(name)) | renamed)
    }

    /// Renames the namespaces that a label selector of namespaces names.
    pub(super) fn rename_selector(&self, selector: Option<&mut Value>) -> bool {
        let Some(selector) = selector else { return false };
        let mut renamed =
            self.rename(selector.get_mut("matchLabels").and_then(|labels| labels.get_mut(NAMESPACE_NAME_LABEL)));
        let expressions = selector.get_mut("matchExpressions").and_then(Value::as_array_mut);
        for expression in expressions.into_iter().flatten() {
            if expression.get("key").and_then(Value::as_str) == Some(NAMESPACE_NAME_LABEL) {
                renamed |= self.rename_all(expression.get_mut("values"));
            }
        }
        renamed
    }

    /// Gives the storage class in this string its name here.
    pub(super) fn map_class(&self, class: Option<&mut Value>) {
        if let Some(class) = class
            && let Some(here) = class.as_str().and_then(|name| self.storage_classes.get(name))
        {
            *class = Value::from(here.as_str());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::test_support::rules;
    use super::*;

    #[test]
    fn only_restored_namespaces_get_new_names() {
        let mut list = json!(["shop", "site", "other"]);
        assert!(rules().rename_all(Some(&mut list)));
        assert_eq!(list, json!(["shop-copy", "site", "other"]));
        assert!(!rules().rename_all(Some(&mut json!(["site", "other"]))));
    }

    #[test]
    fn a_selector_of_namespaces_follows_their_names() {
        let mut selector = json!({
            "matchLabels": {NAMESPACE_NAME_LABEL: "shop", "team": "shop"},
            "matchExpressions": [
                {"key": NAMESPACE_NAME_LABEL, "operator": "In", "values": ["shop", "other"]},
                {"key": "team", "operator": "In", "values": ["shop"]},
            ],
        });
        assert!(rules().rename_selector(Some(&mut selector)));
        let expected = json!({
            "matchLabels": {NAMESPACE_NAME_LABEL: "shop-copy", "team": "shop"},
            "matchExpressions": [
                {"key": NAMESPACE_NAME_LABEL, "operator": "In", "values": ["shop-copy", "other"]},
                {"key": "team", "operator": "In", "values": ["shop"]},
            ],
        });
        assert_eq!(selector, expected);
    }
}
