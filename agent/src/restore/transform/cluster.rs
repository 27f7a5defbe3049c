//! Cluster-wide objects: what every cluster has by itself, and references to namespaces.

use serde_json::Value;

use super::rules::Rules;
use crate::restore::resource::Resource;

/// Why a cluster-wide object is not restored: every cluster makes its own.
pub(super) fn made_by_the_cluster(resource: &Resource, object: &Value) -> Option<&'static str> {
    let name = object.pointer("/metadata/name").and_then(Value::as_str)?;
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("rbac.authorization.k8s.io", _) => {
            let labels = object.pointer("/metadata/labels");
            let cluster_wide = object.pointer("/metadata/namespace").is_none_or(Value::is_null);
            let bootstrapped = labels.is_some_and(|labels| labels.get("kubernetes.io/bootstrapping").is_some());
            (bootstrapped || (name.starts_with("system:") && cluster_wide)).then_some("part of every cluster")
        }
        ("scheduling.k8s.io", "priorityclasses") => name.starts_with("system-").then_some("part of every cluster"),
        ("apiregistration.k8s.io", "apiservices") => {
            object.pointer("/spec/service").is_none_or(Value::is_null).then_some("served by the API server itself")
        }
        _ => None,
    }
}

/// Drops what is computed in a cluster-wide object and renames the namespaces that it names. Returns whether a name
/// changed.
pub(super) fn cluster_wide(resource: &Resource, object: &mut Value, rules: &Rules) -> bool {
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "namespaces") => {
            if let Some(fields) = object.as_object_mut() {
                fields.remove("spec");
            }
            false
        }
        ("rbac.authorization.k8s.io", "clusterroles") => {
            // Rules of an aggregated role are collected by a controller.
            if object.get("aggregationRule").is_some_and(|rule| !rule.is_null())
                && let Some(fields) = object.as_object_mut()
            {
                fields.insert("rules".to_owned(), Value::Array(Vec::new()));
            }
            false
        }
        ("scheduling.k8s.io", "priorityclasses") => {
            // Two default classes are refused.
            if let Some(fields) = object.as_object_mut() {
                fields.remove("globalDefault");
            }
            false
        }
        ("apiextensions.k8s.io", "customresourcedefinitions") => {
            rules.rename(object.pointer_mut("/spec/conversion/webhook/clientConfig/service/namespace"))
        }
        ("apiregistration.k8s.io", "apiservices") => rules.rename(object.pointer_mut("/spec/service/namespace")),
        ("admissionregistration.k8s.io", plural) if plural.ends_with("webhookconfigurations") => {
            let webhooks = object.get_mut("webhooks").and_then(Value::as_array_mut).into_iter().flatten();
            webhooks.fold(false, |renamed, webhook| {
                rules.rename(webhook.pointer_mut("/clientConfig/service/namespace"))
                    | rules.rename_selector(webhook.get_mut("namespaceSelector"))
                    | renamed
            })
        }
        ("admissionregistration.k8s.io", plural) if plural.ends_with("bindings") => {
            rules.rename(object.pointer_mut("/spec/paramRef/namespace"))
                | rules.rename_selector(object.pointer_mut("/spec/matchResources/namespaceSelector"))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::test_support::{kept, skipped};

    fn wide(fields: &Value) -> Value {
        let mut fields = fields.clone();
        fields["metadata"]["namespace"] = Value::Null;
        fields
    }

    #[test]
    fn what_every_cluster_has_is_left_alone() {
        let role = "rbac.authorization.k8s.io/v1/clusterroles";
        let bootstrapped =
            json!({"metadata": {"name": "edit", "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}}});
        skipped(role, "ClusterRole", &wide(&bootstrapped));
        skipped(role, "ClusterRole", &wide(&json!({"metadata": {"name": "system:node"}})));
        let own = json!({"metadata": {"name": "system:of-the-shop"}});
        kept("rbac.authorization.k8s.io/v1/roles", "Role", &own);
        let critical = json!({"metadata": {"name": "system-node-critical"}});
        skipped("scheduling.k8s.io/v1/priorityclasses", "PriorityClass", &wide(&critical));
        let local = json!({"spec": {"group": "apps", "service": null}});
        skipped("apiregistration.k8s.io/v1/apiservices", "APIService", &wide(&local));
    }

    #[test]
    fn an_aggregated_role_leaves_its_rules_to_the_controller() {
        let role = json!({"aggregationRule": {"clusterRoleSelectors": []}, "rules": [{"verbs": ["get"]}]});
        let role = kept("rbac.authorization.k8s.io/v1/clusterroles", "ClusterRole", &wide(&role)).object;
        assert_eq!(role["rules"], json!([]));
        let plain = json!({"rules": [{"verbs": ["get"]}]});
        let plain = kept("rbac.authorization.k8s.io/v1/clusterroles", "ClusterRole", &wide(&plain)).object;
        assert_eq!(plain["rules"], json!([{"verbs": ["get"]}]));
    }

    #[test]
    fn a_restored_priority_class_does_not_become_a_second_default() {
        let class = json!({"value": 7, "globalDefault": true});
        let class = kept("scheduling.k8s.io/v1/priorityclasses", "PriorityClass", &wide(&class)).object;
        assert_eq!((class.get("globalDefault"), &class["value"]), (None, &json!(7)));
    }

    #[test]
    fn cluster_wide_objects_call_services_in_their_new_namespaces() {
        let service = |namespace: &str| json!({"service": {"name": "hook", "namespace": namespace}});
        let selector = |namespace: &str| json!({"matchLabels": {"kubernetes.io/metadata.name": namespace}});
        let cases = [
            ("apiregistration.k8s.io/v1/apiservices", "APIService", "/spec"),
            (
                "apiextensions.k8s.io/v1/customresourcedefinitions",
                "CustomResourceDefinition",
                "/spec/conversion/webhook/clientConfig",
            ),
        ];
        for (resource, kind, pointer) in cases {
            let fields = |namespace: &str| {
                pointer
                    .rsplit('/')
                    .filter(|part| !part.is_empty())
                    .fold(service(namespace), |inner, part| json!({part: inner}))
            };
            let here = kept(resource, kind, &wide(&fields("shop")));
            assert_eq!(here.object.pointer(pointer), Some(&service("shop-copy")), "{kind}");
            assert!(here.renamed, "{kind}");
            assert!(!kept(resource, kind, &wide(&fields("site"))).renamed, "{kind}");
        }
        for kind in ["ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"] {
            let resource = format!("admissionregistration.k8s.io/v1/{}s", kind.to_lowercase());
            let webhooks = |namespace: &str| {
                json!([
                    {"clientConfig": service(namespace), "namespaceSelector": selector(namespace)},
                    {"clientConfig": {"url": "https://hook.example.org"}},
                ])
            };
            let here = kept(&resource, kind, &wide(&json!({"webhooks": webhooks("shop")})));
            assert_eq!(here.object["webhooks"], webhooks("shop-copy"), "{kind}");
            assert!(here.renamed, "{kind}");
        }
        let binding = |namespace: &str| json!({"matchResources": {"namespaceSelector": selector(namespace)}, "paramRef": {"namespace": namespace}});
        let here = kept(
            "admissionregistration.k8s.io/v1/validatingadmissionpolicybindings",
            "ValidatingAdmissionPolicyBinding",
            &wide(&json!({"spec": binding("shop")})),
        );
        assert_eq!(here.object["spec"], binding("shop-copy"));
    }
}
