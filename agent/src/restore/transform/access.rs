//! Accounts, their rights and secrets.

use serde_json::Value;

use super::rules::Rules;

/// Secrets with tokens: this cluster issues its own.
pub(super) fn secret_of_the_cluster(object: &Value) -> Option<&'static str> {
    let kind = object.get("type").and_then(Value::as_str)?;
    match kind {
        "kubernetes.io/service-account-token" => Some("token of the source cluster; this cluster issues its own"),
        "bootstrap.kubernetes.io/token" => Some("token with which nodes joined the source cluster"),
        _ => None,
    }
}

/// The ConfigMap that the cluster puts into every namespace.
pub(super) fn config_map_of_the_cluster(object: &Value) -> Option<&'static str> {
    let name = object.pointer("/metadata/name").and_then(Value::as_str)?;
    (name == "kube-root-ca.crt").then_some("certificates of the source cluster; this cluster has its own")
}

/// Tokens of an account are the source cluster's. What it pulls images with is kept.
pub(super) fn account(object: &mut Value) {
    if let Some(fields) = object.as_object_mut() {
        fields.remove("secrets");
    }
}

/// Whether an account is what every new namespace has by itself: named `default`, with nothing of its own.
#[must_use]
pub fn is_bare_account(object: &Value) -> bool {
    let own = |field: &str| object.get(field).is_some_and(|value| value.as_array().is_none_or(|list| !list.is_empty()));
    let annotations = object.pointer("/metadata/annotations").and_then(Value::as_object);
    let annotated =
        annotations.is_some_and(|annotations| annotations.keys().any(|name| name != super::ANNOTATION_RESTORE));
    object.pointer("/metadata/name").and_then(Value::as_str) == Some("default")
        && !own("imagePullSecrets")
        && object.get("automountServiceAccountToken").is_none()
        && object.pointer("/metadata/labels").is_none()
        && !annotated
}

/// A binding of which no subject is restored: it would give rights to an account of the same name that happens to be
/// here.
pub(super) fn binding_without_subjects(object: &Value, rules: &Rules) -> Option<&'static str> {
    let subjects = object.get("subjects").and_then(Value::as_array)?;
    (!subjects.is_empty() && !subjects.iter().any(|subject| is_restored(subject, rules)))
        .then_some("none of its accounts is in a restored namespace")
}

/// Users and groups are the same everywhere; an account belongs to its namespace.
fn is_restored(subject: &Value, rules: &Rules) -> bool {
    match (subject.get("kind").and_then(Value::as_str), subject.get("namespace").and_then(Value::as_str)) {
        (Some("ServiceAccount"), Some(namespace)) => rules.namespaces.contains_key(namespace),
        _ => true,
    }
}

/// Gives the accounts of a binding the new names of their namespaces; of a cluster-wide binding only accounts of restored
/// namespaces are kept. Returns whether a name changed.
pub(super) fn subjects(object: &mut Value, rules: &Rules) -> bool {
    let cluster_wide = object.pointer("/metadata/namespace").is_none();
    let Some(subjects) = object.get_mut("subjects").and_then(Value::as_array_mut) else { return false };
    if cluster_wide {
        subjects.retain(|subject| is_restored(subject, rules));
    }
    let mut renamed = false;
    for subject in subjects {
        // The group that all accounts of a namespace are in, and a user name that means an account.
        let old_name = subject.get("name").and_then(Value::as_str).unwrap_or_default();
        let name = match subject.get("kind").and_then(Value::as_str) {
            Some("Group") => old_name
                .strip_prefix("system:serviceaccounts:")
                .map(|namespace| format!("system:serviceaccounts:{}", rules.here(namespace))),
            Some("User") => old_name
                .strip_prefix("system:serviceaccount:")
                .and_then(|rest| rest.split_once(':'))
                .map(|(namespace, account)| format!("system:serviceaccount:{}:{account}", rules.here(namespace))),
            _ => None,
        };
        if let Some(name) = name.filter(|name| name != old_name) {
            subject["name"] = Value::from(name);
            renamed = true;
        }
        renamed |= rules.rename(subject.get_mut("namespace"));
    }
    renamed
}

/// The subjects of `wanted` that `existing`, a binding of the same name, lacks; `None` if the two bind different roles.
#[must_use]
pub fn missing_subjects(existing: &Value, wanted: &Value) -> Option<Vec<Value>> {
    let role = |binding: &Value, key: &str| binding.pointer(&format!("/roleRef/{key}")).cloned();
    if ["kind", "name"].iter().any(|key| role(existing, key) != role(wanted, key)) {
        return None;
    }
    let list = |binding: &Value| binding.get("subjects").and_then(Value::as_array).cloned().unwrap_or_default();
    let identity = |subject: &Value| ["kind", "namespace", "name"].map(|key| subject.get(key).cloned());
    let present: Vec<_> = list(existing).iter().map(identity).collect();
    Some(list(wanted).into_iter().filter(|subject| !present.contains(&identity(subject))).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::test_support::{kept, skipped};
    use super::*;

    fn account_of(namespace: &str) -> Value {
        json!({"kind": "ServiceAccount", "name": "web", "namespace": namespace})
    }

    #[test]
    fn tokens_and_certificates_of_the_source_cluster_stay_behind() {
        let token = json!({"type": "kubernetes.io/service-account-token"});
        assert!(skipped("core/v1/secrets", "Secret", &token).contains("issues its own"));
        let root = json!({"metadata": {"name": "kube-root-ca.crt"}});
        assert!(skipped("core/v1/configmaps", "ConfigMap", &root).contains("has its own"));
        let opaque = kept("core/v1/secrets", "Secret", &json!({"type": "Opaque", "data": {"a": "Yg=="}})).object;
        assert_eq!((&opaque["type"], &opaque["data"]), (&json!("Opaque"), &json!({"a": "Yg=="})));
    }

    #[test]
    fn an_account_keeps_what_it_pulls_images_with() {
        let account = json!({"secrets": [{"name": "web-token-x"}], "imagePullSecrets": [{"name": "registry"}]});
        let account = kept("core/v1/serviceaccounts", "ServiceAccount", &account).object;
        assert!(account.get("secrets").is_none());
        assert_eq!(account["imagePullSecrets"], json!([{"name": "registry"}]));
    }

    #[test]
    fn the_default_account_is_bare_until_someone_gives_it_something() {
        let bare = json!({"metadata": {"name": "default", "annotations": {super::super::ANNOTATION_RESTORE: "r"}}});
        assert!(is_bare_account(&bare));
        for own in [
            json!({"imagePullSecrets": [{"name": "registry"}]}),
            json!({"automountServiceAccountToken": false}),
            json!({"metadata": {"name": "default", "labels": {"a": "b"}}}),
            json!({"metadata": {"name": "default", "annotations": {"eks.amazonaws.com/role-arn": "x"}}}),
            json!({"metadata": {"name": "web"}}),
        ] {
            let mut account = bare.clone();
            account.as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
            assert!(!is_bare_account(&account), "{own}");
        }
    }

    #[test]
    fn a_role_binding_names_accounts_by_their_new_namespaces() {
        let binding = json!({"subjects": [
            account_of("shop"), account_of("other"),
            {"kind": "Group", "name": "system:serviceaccounts:shop"},
            {"kind": "User", "name": "system:serviceaccount:shop:web"},
            {"kind": "User", "name": "shop"},
        ]});
        let binding = kept("rbac.authorization.k8s.io/v1/rolebindings", "RoleBinding", &binding);
        let expected = json!([
            account_of("shop-copy"), account_of("other"),
            {"kind": "Group", "name": "system:serviceaccounts:shop-copy"},
            {"kind": "User", "name": "system:serviceaccount:shop-copy:web"},
            {"kind": "User", "name": "shop"},
        ]);
        assert_eq!(binding.object["subjects"], expected);
        assert!(!binding.renamed);
    }

    #[test]
    fn a_cluster_wide_binding_gives_rights_only_to_what_is_restored() {
        let resource = "rbac.authorization.k8s.io/v1/clusterrolebindings";
        let fields = |subjects: Value| json!({"metadata": {"namespace": null}, "subjects": subjects});
        let user = json!({"kind": "User", "name": "ann"});
        let binding = kept(
            resource,
            "ClusterRoleBinding",
            &fields(json!([account_of("shop"), account_of("site"), account_of("monitoring"), user])),
        );
        assert_eq!(binding.object["subjects"], json!([account_of("shop-copy"), account_of("site"), user]));
        assert!(binding.renamed);
        let reason = skipped(resource, "ClusterRoleBinding", &fields(json!([account_of("monitoring")])));
        assert!(reason.contains("none of its accounts"), "{reason}");
        assert!(!kept(resource, "ClusterRoleBinding", &fields(json!([account_of("site")]))).renamed);
    }

    #[test]
    fn a_binding_that_is_there_lacks_only_the_new_subjects() {
        let binding = |role: &str, subjects: Value| json!({"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}, "subjects": subjects});
        let mut shown = account_of("shop");
        shown["apiGroup"] = json!("");
        let existing = binding("view", json!([shown]));
        let wanted = binding("view", json!([account_of("shop"), account_of("shop-copy")]));
        assert_eq!(missing_subjects(&existing, &wanted), Some(vec![account_of("shop-copy")]));
        assert_eq!(missing_subjects(&existing, &binding("admin", json!([]))), None);
        assert_eq!(missing_subjects(&binding("view", Value::Null), &existing), Some(vec![shown]));
    }
}
