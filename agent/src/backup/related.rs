//! Names of cluster-scoped objects that the backed up objects refer to. Only names are kept: memory grows with the number
//! of distinct names, not with the number of objects.

use std::collections::BTreeSet;

use serde_json::Value;

use super::discovery::Resource;

/// A cluster-scoped kind whose objects are backed up because others refer to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RelatedKind {
    /// `clusterroles.rbac.authorization.k8s.io`
    ClusterRole,
    /// `storageclasses.storage.k8s.io`
    StorageClass,
    /// `priorityclasses.scheduling.k8s.io`
    PriorityClass,
    /// `ingressclasses.networking.k8s.io`
    IngressClass,
    /// `runtimeclasses.node.k8s.io`
    RuntimeClass,
    /// `customresourcedefinitions.apiextensions.k8s.io`
    Definition,
    /// `namespaces`
    Namespace,
}

impl RelatedKind {
    /// The kind of a resource, if it is one of these.
    #[must_use]
    pub fn of(group: &str, plural: &str) -> Option<Self> {
        Some(match (group, plural) {
            ("rbac.authorization.k8s.io", "clusterroles") => Self::ClusterRole,
            ("storage.k8s.io", "storageclasses") => Self::StorageClass,
            ("scheduling.k8s.io", "priorityclasses") => Self::PriorityClass,
            ("networking.k8s.io", "ingressclasses") => Self::IngressClass,
            ("node.k8s.io", "runtimeclasses") => Self::RuntimeClass,
            ("apiextensions.k8s.io", "customresourcedefinitions") => Self::Definition,
            ("", "namespaces") => Self::Namespace,
            _ => return None,
        })
    }
}

/// The resource of bindings, which are found by whom they bind.
pub const BINDINGS: (&str, &str) = ("rbac.authorization.k8s.io", "clusterrolebindings");

/// Groups whose cluster-scoped objects others refer to: they are written last, when all names are known.
pub const LAST_GROUPS: &[&str] = &["apiextensions.k8s.io", "node.k8s.io", "scheduling.k8s.io", "storage.k8s.io"];

/// Names that were seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Related {
    names: BTreeSet<(RelatedKind, String)>,
}

impl Related {
    /// What a backup of these namespaces needs before anything was seen: the namespaces themselves.
    #[must_use]
    pub fn new(namespaces: &BTreeSet<String>) -> Self {
        Self { names: namespaces.iter().map(|name| (RelatedKind::Namespace, name.clone())).collect() }
    }

    /// The names of one kind.
    pub fn names(&self, kind: RelatedKind) -> impl Iterator<Item = &str> {
        self.names.iter().filter(move |(each, _)| *each == kind).map(|(_, name)| name.as_str())
    }

    /// Notes what an object refers to.
    pub fn observe(&mut self, resource: &Resource, object: &Value) {
        if RelatedKind::of(&resource.group, &resource.plural).is_none() && is_extensible(&resource.group) {
            self.add(RelatedKind::Definition, Some(&format!("{}.{}", resource.plural, resource.group)));
        }
        match (resource.group.as_str(), resource.plural.as_str()) {
            ("", "persistentvolumeclaims") => self.observe_claim(object),
            ("", "pods") => self.observe_pod(object.pointer("/spec")),
            ("", "podtemplates") => self.observe_pod(object.pointer("/template/spec")),
            ("batch", "cronjobs") => self.observe_pod(object.pointer("/spec/jobTemplate/spec/template/spec")),
            ("apps" | "batch", _) | ("", "replicationcontrollers") => {
                self.observe_pod(object.pointer("/spec/template/spec"));
                for claim in array(object.pointer("/spec/volumeClaimTemplates")) {
                    self.observe_claim(claim);
                }
            }
            ("networking.k8s.io", "ingresses") => {
                self.add(RelatedKind::IngressClass, text(object, "/spec/ingressClassName"));
                let annotation =
                    object.pointer("/metadata/annotations").and_then(|all| all.get("kubernetes.io/ingress.class"));
                self.add(RelatedKind::IngressClass, annotation.and_then(Value::as_str));
            }
            ("rbac.authorization.k8s.io", "rolebindings") => self.observe_role_reference(object),
            _ => {}
        }
    }

    /// Notes the `ClusterRole` that a binding refers to.
    pub fn observe_role_reference(&mut self, binding: &Value) {
        if text(binding, "/roleRef/kind") == Some("ClusterRole") {
            self.add(RelatedKind::ClusterRole, text(binding, "/roleRef/name"));
        }
    }

    fn observe_claim(&mut self, claim: &Value) {
        self.add(RelatedKind::StorageClass, text(claim, "/spec/storageClassName"));
    }

    fn observe_pod(&mut self, spec: Option<&Value>) {
        let Some(spec) = spec else { return };
        // Classes with this prefix are the cluster's own, and nobody else may make them.
        let priority = text(spec, "/priorityClassName").filter(|name| !name.starts_with("system-"));
        self.add(RelatedKind::PriorityClass, priority);
        self.add(RelatedKind::RuntimeClass, text(spec, "/runtimeClassName"));
        for volume in array(spec.pointer("/volumes")) {
            if let Some(claim) = volume.pointer("/ephemeral/volumeClaimTemplate") {
                self.observe_claim(claim);
            }
        }
    }

    fn add(&mut self, kind: RelatedKind, name: Option<&str>) {
        if let Some(name) = name.filter(|name| !name.is_empty()) {
            self.names.insert((kind, name.to_owned()));
        }
    }
}

/// Whether a `ClusterRoleBinding` gives rights to `ServiceAccounts` of the namespaces.
#[must_use]
pub fn binds(binding: &Value, namespaces: &BTreeSet<String>) -> bool {
    array(binding.pointer("/subjects")).any(|subject| match text(subject, "/kind") {
        Some("ServiceAccount") => text(subject, "/namespace").is_some_and(|namespace| namespaces.contains(namespace)),
        Some("Group") => text(subject, "/name")
            .and_then(|name| name.strip_prefix("system:serviceaccounts:"))
            .is_some_and(|namespace| namespaces.contains(namespace)),
        _ => false,
    })
}

/// Whether the API server makes an object by itself: every cluster has its own.
#[must_use]
pub fn is_bootstrapped(object: &Value) -> bool {
    let label = |name: &str| object.pointer("/metadata/labels").and_then(|labels| labels.get(name));
    label("kubernetes.io/bootstrapping").is_some()
}

/// Whether a group may have custom resources: the groups that Kubernetes itself compiles in have none.
fn is_extensible(group: &str) -> bool {
    !matches!(
        group,
        "" | "apps"
            | "batch"
            | "autoscaling"
            | "policy"
            | "events.k8s.io"
            | "networking.k8s.io"
            | "storage.k8s.io"
            | "rbac.authorization.k8s.io"
            | "discovery.k8s.io"
            | "resource.k8s.io"
            | "coordination.k8s.io"
    )
}

fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer).and_then(Value::as_str)
}

fn array(value: Option<&Value>) -> impl Iterator<Item = &Value> {
    value.and_then(Value::as_array).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn resource(group: &str, plural: &str) -> Resource {
        Resource {
            group: group.to_owned(),
            version: "v1".to_owned(),
            plural: plural.to_owned(),
            kind: String::new(),
            namespaced: true,
        }
    }

    fn observed(group: &str, plural: &str, object: &Value) -> Vec<(RelatedKind, String)> {
        let mut related = Related::default();
        related.observe(&resource(group, plural), object);
        related.names.into_iter().collect()
    }

    #[test]
    fn what_objects_refer_to_is_found() {
        let pod = json!({"priorityClassName": "gold", "runtimeClassName": "gvisor",
            "volumes": [{"ephemeral": {"volumeClaimTemplate": {"spec": {"storageClassName": "scratch"}}}}]});
        let three = [
            (RelatedKind::StorageClass, "scratch".to_owned()),
            (RelatedKind::PriorityClass, "gold".to_owned()),
            (RelatedKind::RuntimeClass, "gvisor".to_owned()),
        ];
        assert_eq!(observed("", "pods", &json!({"spec": pod})), three);
        assert_eq!(observed("apps", "deployments", &json!({"spec": {"template": {"spec": pod}}})), three);
        let cron_job = json!({"spec": {"jobTemplate": {"spec": {"template": {"spec": pod}}}}});
        assert_eq!(observed("batch", "cronjobs", &cron_job), three);
        let claims = json!({"spec": {"volumeClaimTemplates": [{"spec": {"storageClassName": "fast"}}]}});
        assert_eq!(observed("apps", "statefulsets", &claims), [(RelatedKind::StorageClass, "fast".to_owned())]);
        let claim = json!({"spec": {"storageClassName": "fast"}});
        assert_eq!(observed("", "persistentvolumeclaims", &claim), [(RelatedKind::StorageClass, "fast".to_owned())]);
        let ingress = json!({"spec": {"ingressClassName": "nginx"}});
        assert_eq!(
            observed("networking.k8s.io", "ingresses", &ingress),
            [(RelatedKind::IngressClass, "nginx".to_owned())]
        );
        let binding = json!({"roleRef": {"kind": "ClusterRole", "name": "reader"}});
        let role = [(RelatedKind::ClusterRole, "reader".to_owned())];
        assert_eq!(observed("rbac.authorization.k8s.io", "rolebindings", &binding), role);
        let widget = [(RelatedKind::Definition, "widgets.example.org".to_owned())];
        assert_eq!(observed("example.org", "widgets", &json!({})), widget);
    }

    #[test]
    fn what_every_cluster_has_is_not_needed() {
        let pod = json!({"spec": {"priorityClassName": "system-cluster-critical"}});
        assert!(observed("", "pods", &pod).is_empty());
        assert!(observed("", "configmaps", &json!({"data": {}})).is_empty());
        assert!(is_bootstrapped(&json!({"metadata": {"labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}}})));
        assert!(!is_bootstrapped(&json!({"metadata": {}})));
    }

    #[test]
    fn a_binding_belongs_to_the_namespaces_of_its_accounts() {
        let namespaces = BTreeSet::from(["shop".to_owned()]);
        let bound = |subject: Value| binds(&json!({"subjects": [{"kind": "User", "name": "x"}, subject]}), &namespaces);
        assert!(bound(json!({"kind": "ServiceAccount", "namespace": "shop", "name": "web"})));
        assert!(!bound(json!({"kind": "ServiceAccount", "namespace": "other", "name": "web"})));
        assert!(bound(json!({"kind": "Group", "name": "system:serviceaccounts:shop"})));
        assert!(!bound(json!({"kind": "Group", "name": "system:serviceaccounts"})));
        assert!(!binds(&json!({}), &namespaces));
    }
}
