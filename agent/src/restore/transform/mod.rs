//! From an object as the source cluster had it to one that this cluster can be asked for. Pure: JSON in, JSON out.
//!
//! What the source cluster computed is dropped (status, UIDs, addresses, names of nodes and volumes); what it made by
//! itself is skipped, because this cluster makes its own; names of namespaces and storage classes become the new ones
//! wherever the API has a field for them. Names inside texts (an address in a ConfigMap, an argument of a command)
//! are not touched: nobody can tell what they mean.

mod access;
mod cluster;
mod network;
mod object_meta;
mod rules;
mod storage;
mod workloads;

use serde_json::Value;
use shoot_backup_api::resource_filter;

use super::resource::Resource;

pub use access::{is_bare_account, missing_subjects};
pub use object_meta::ANNOTATION_RESTORE;
pub use rules::Rules;

/// The controller that makes an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// API group.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Name, in the same namespace.
    pub name: String,
}

/// What becomes of an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Transformed {
    /// It is restored like this.
    Keep(Kept),
    /// It is not restored, for this reason.
    Skip(String),
}

/// An object that is restored.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    /// The object as this cluster is asked for it.
    pub object: Value,
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its namespace here.
    pub namespace: Option<String>,
    /// A cluster-wide object that now names a renamed namespace. One of the same name that is already there serves the
    /// original, and is never overwritten.
    pub renamed: bool,
}

/// The controller that makes this object again when it is restored itself, if the object is of a kind that controllers
/// make. Claims are not: their data is what a restore is for. Objects that an operator made of its custom resource are
/// not either: the operator may not be here, and where it is, it takes over what has the right name.
#[must_use]
pub fn maker(resource: &Resource, object: &Value) -> Option<Owner> {
    let made = matches!(
        (resource.group.as_str(), resource.plural.as_str()),
        ("", "pods")
            | ("apps", "replicasets" | "controllerrevisions")
            | ("batch", "jobs")
            | ("discovery.k8s.io", "endpointslices")
    );
    let owners = object.pointer("/metadata/ownerReferences").filter(|_| made)?.as_array()?;
    let owner = owners.iter().find(|owner| owner.get("controller") == Some(&Value::Bool(true)))?;
    let text = |key: &str| owner.get(key).and_then(Value::as_str);
    let group = text("apiVersion")?.rsplit_once('/').map_or("", |(group, _)| group);
    Some(Owner { group: group.to_owned(), kind: text("kind")?.to_owned(), name: text("name")?.to_owned() })
}

/// Transforms one object.
#[must_use]
pub fn transform(resource: &Resource, mut object: Value, rules: &Rules) -> Transformed {
    if let Some(reason) = resource_filter::denied(&resource.group, &resource.plural) {
        return Transformed::Skip(reason.to_owned());
    }
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let (Some(kind), Some(name)) = (text("/kind"), text("/metadata/name")) else {
        return Transformed::Skip("not an object: it has no kind or no name".to_owned());
    };
    let namespace = text("/metadata/namespace");
    if let Some(reason) = reason_to_skip(resource, &object, rules) {
        return Transformed::Skip(reason);
    }
    // A claim's storage class may stand in an annotation that its metadata loses.
    if resource.is("", "persistentvolumeclaims") {
        storage::claim(&mut object, rules);
    }
    object_meta::clean(resource, &mut object, rules);
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
        fields.insert("apiVersion".to_owned(), Value::from(resource.api_version()));
    }
    let renamed = match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "pods" | "podtemplates" | "replicationcontrollers") | ("apps" | "batch", _) => {
            workloads::workload(resource, &mut object, rules);
            false
        }
        ("", "services") => {
            network::service(&mut object);
            false
        }
        ("discovery.k8s.io", "endpointslices") => {
            network::slice(&mut object);
            false
        }
        ("networking.k8s.io", "networkpolicies") => {
            network::policy(&mut object, rules);
            false
        }
        ("", "serviceaccounts") => {
            access::account(&mut object);
            false
        }
        ("rbac.authorization.k8s.io", "rolebindings") => {
            access::subjects(&mut object, rules);
            false
        }
        ("rbac.authorization.k8s.io", "clusterrolebindings") => access::subjects(&mut object, rules),
        _ => cluster::cluster_wide(resource, &mut object, rules),
    };
    let namespace = namespace.map(|namespace| rules.here(&namespace).to_owned());
    let name = if resource.is("", "namespaces") { rules.here(&name).to_owned() } else { name };
    Transformed::Keep(Kept { object, kind, name, namespace, renamed })
}

/// Why an object is not restored at all.
fn reason_to_skip(resource: &Resource, object: &Value, rules: &Rules) -> Option<String> {
    let reason = match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "pods") => workloads::finished_pod(object),
        ("batch", "jobs") => workloads::finished_job(object),
        ("", "secrets") => access::secret_of_the_cluster(object),
        ("", "configmaps") => access::config_map_of_the_cluster(object),
        ("", "services") => network::service_of_the_cluster(object),
        ("discovery.k8s.io", "endpointslices") => network::slice_of_a_controller(object),
        ("rbac.authorization.k8s.io", "clusterrolebindings") => {
            access::binding_without_subjects(object, rules).or_else(|| cluster::made_by_the_cluster(resource, object))
        }
        ("storage.k8s.io", "storageclasses") => return storage::mapped_class(object, rules),
        _ => cluster::made_by_the_cluster(resource, object),
    };
    reason.map(str::to_owned)
}

#[cfg(test)]
pub(super) mod test_support {
    use serde_json::{Value, json};

    use super::{Kept, Rules, Transformed, transform};
    use crate::restore::resource::Resource;

    /// `shop` becomes `shop-copy`, `site` keeps its name, class `gold` becomes `silver`.
    pub fn rules() -> Rules {
        let pairs =
            |pairs: &[(&str, &str)]| pairs.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).collect();
        Rules {
            namespaces: pairs(&[("shop", "shop-copy"), ("site", "site")]),
            storage_classes: pairs(&[("gold", "silver")]),
            restore_uid: "restore-1".to_owned(),
        }
    }

    pub fn resource(name: &str) -> Resource {
        let mut parts = name.splitn(3, '/');
        let mut part = || parts.next().unwrap();
        Resource::of_folder(part(), part(), part())
    }

    /// The object of this resource (`core/v1/pods`), kind and fields, as the backup has it, in namespace `shop`.
    pub fn source(kind: &str, fields: &Value) -> Value {
        let mut object = json!({
            "apiVersion": "of the backup",
            "kind": kind,
            "metadata": {"name": "web", "namespace": "shop", "uid": "u", "resourceVersion": "1"},
        });
        merge(&mut object, fields);
        object
    }

    fn merge(target: &mut Value, fields: &Value) {
        match (target, fields) {
            (Value::Object(target), Value::Object(fields)) => {
                for (key, value) in fields {
                    merge(target.entry(key.clone()).or_insert(Value::Null), value);
                }
            }
            (target, value) => *target = value.clone(),
        }
    }

    pub fn kept(name: &str, kind: &str, fields: &Value) -> Kept {
        match transform(&resource(name), source(kind, fields), &rules()) {
            Transformed::Keep(kept) => kept,
            Transformed::Skip(reason) => panic!("skipped: {reason}"),
        }
    }

    pub fn skipped(name: &str, kind: &str, fields: &Value) -> String {
        match transform(&resource(name), source(kind, fields), &rules()) {
            Transformed::Keep(kept) => panic!("kept: {}", kept.object),
            Transformed::Skip(reason) => reason,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::test_support::{kept, resource, skipped, source};
    use super::*;

    #[test]
    fn an_object_comes_back_under_the_new_namespace_without_its_status() {
        let config = kept("core/v1/configmaps", "ConfigMap", &json!({"data": {"a": "b"}, "status": {"x": 1}}));
        assert_eq!(config.namespace.as_deref(), Some("shop-copy"));
        assert_eq!((config.kind.as_str(), config.name.as_str(), config.renamed), ("ConfigMap", "web", false));
        let expected = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": "web", "namespace": "shop-copy", "annotations": {ANNOTATION_RESTORE: "restore-1"}
            },
            "data": {"a": "b"},
        });
        assert_eq!(config.object, expected);
    }

    #[test]
    fn a_custom_resource_keeps_all_its_fields_but_the_status() {
        let fields = json!({"spec": {"size": 3}, "extra": [1], "status": {"ready": true}});
        let widget = kept("example.org/v1beta1/widgets", "Widget", &fields).object;
        assert_eq!(widget["apiVersion"], "example.org/v1beta1");
        assert_eq!(widget["spec"], json!({"size": 3}));
        assert_eq!(widget["extra"], json!([1]));
        assert!(widget.get("status").is_none());
    }

    #[test]
    fn what_is_denied_in_a_backup_is_denied_in_a_restore() {
        assert!(skipped("coordination.k8s.io/v1/leases", "Lease", &json!({})).contains("running processes"));
        assert!(
            skipped("shootbackup.extensions.gardener.cloud/v1alpha1/backups", "Backup", &json!({}))
                .contains("management plane")
        );
    }

    #[test]
    fn what_is_no_object_is_skipped() {
        let reason = transform(&resource("core/v1/configmaps"), json!({"kind": "ConfigMap"}), &Rules::default());
        assert!(matches!(reason, Transformed::Skip(_)));
    }

    fn owned(api_version: &str, kind: &str, controller: bool) -> Value {
        let owner =
            json!({"apiVersion": api_version, "kind": kind, "name": "owner", "uid": "x", "controller": controller});
        source("Any", &json!({"metadata": {"ownerReferences": [owner]}}))
    }

    #[test]
    fn only_kinds_that_controllers_make_have_a_maker() {
        let of_deployment = owned("apps/v1", "Deployment", true);
        let owner = Owner { group: "apps".to_owned(), kind: "Deployment".to_owned(), name: "owner".to_owned() };
        assert_eq!(maker(&resource("apps/v1/replicasets"), &of_deployment), Some(owner));
        assert_eq!(maker(&resource("core/v1/pods"), &owned("v1", "ReplicationController", true)).unwrap().group, "");
        // Its data is what a restore is for.
        assert_eq!(maker(&resource("core/v1/persistentvolumeclaims"), &owned("apps/v1", "StatefulSet", true)), None);
        // The operator may not be here.
        assert_eq!(maker(&resource("apps/v1/statefulsets"), &owned("example.org/v1", "Database", true)), None);
        // An owner that is no controller only wants to be deleted with it.
        assert_eq!(maker(&resource("core/v1/pods"), &owned("apps/v1", "ReplicaSet", false)), None);
    }
}
