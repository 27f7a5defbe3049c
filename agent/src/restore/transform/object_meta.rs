//! `metadata`: what people wrote stays, what the source cluster wrote goes.

use serde_json::{Map, Value};

use super::rules::{NAMESPACE_NAME_LABEL, Rules};
use crate::restore::resource::Resource;

/// Annotation of everything that a restore made: UID of the `Restore` (of the garden, where there is one). A restore
/// that begins again knows by it what it made before.
pub const ANNOTATION_RESTORE: &str = "shootbackup.extensions.gardener.cloud/restore-uid";

/// Annotations in which controllers note what they did.
const COMPUTED_ANNOTATIONS: [&str; 12] = [
    "batch.kubernetes.io/job-tracking",
    "control-plane.alpha.kubernetes.io/leader",
    "deployment.kubernetes.io/desired-replicas",
    "deployment.kubernetes.io/max-replicas",
    "deployment.kubernetes.io/revision",
    "deployment.kubernetes.io/revision-history",
    "deprecated.daemonset.template.generation",
    "endpoints.kubernetes.io/last-change-trigger-time",
    "kubernetes.io/config.hash",
    "kubernetes.io/config.seen",
    "kubernetes.io/config.source",
    // A second default class would make new claims and ingresses ambiguous.
    "ingressclass.kubernetes.io/is-default-class",
];

/// Annotations of a claim about the volume that it had.
const CLAIM_ANNOTATION_PREFIXES: [&str; 3] =
    ["pv.kubernetes.io/", "volume.kubernetes.io/", "volume.beta.kubernetes.io/"];

/// Annotations of a storage class that make it the default one.
const DEFAULT_CLASS_ANNOTATIONS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

/// Labels that the Job controller writes, on the Job and on its pods.
pub(super) const JOB_LABELS: [&str; 4] =
    ["controller-uid", "batch.kubernetes.io/controller-uid", "job-name", "batch.kubernetes.io/job-name"];

/// Leaves name, namespace (under its new name), labels, annotations and the finalizers that are not Kubernetes' own.
pub(super) fn clean(resource: &Resource, object: &mut Value, rules: &Rules) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    metadata.retain(|field, _| ["name", "namespace", "labels", "annotations", "finalizers"].contains(&field.as_str()));
    rules.rename(metadata.get_mut("namespace"));
    if resource.is("", "namespaces") {
        rules.rename(metadata.get_mut("name"));
    }
    if let Some(finalizers) = metadata.get_mut("finalizers").and_then(Value::as_array_mut) {
        finalizers.retain(|finalizer| finalizer.as_str().is_some_and(|name| !is_finalizer_of_kubernetes(name)));
    }
    if let Some(labels) = metadata.get_mut("labels").and_then(Value::as_object_mut) {
        labels.retain(|label, _| !is_computed_label(resource, label));
    }
    let annotations = metadata.entry("annotations").or_insert_with(|| Value::Object(Map::new()));
    if !annotations.is_object() {
        *annotations = Value::Object(Map::new());
    }
    if let Some(annotations) = annotations.as_object_mut() {
        annotations.retain(|annotation, _| !is_computed_annotation(resource, annotation));
        annotations.insert(ANNOTATION_RESTORE.to_owned(), Value::from(rules.restore_uid.as_str()));
    }
    metadata.retain(|_, value| !is_empty(value));
}

/// Removes the labels that the Job controller writes.
pub(super) fn remove_job_labels(labels: Option<&mut Value>) {
    if let Some(labels) = labels.and_then(Value::as_object_mut) {
        labels.retain(|label, _| !JOB_LABELS.contains(&label.as_str()));
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// Kubernetes sets its own finalizers again where they are needed. Those of others belong to controllers that clean up
/// outside the cluster: without them the outside would be forgotten.
fn is_finalizer_of_kubernetes(name: &str) -> bool {
    let domain = name.split_once('/').map_or("", |(domain, _)| domain);
    matches!(name, "foregroundDeletion" | "orphan" | "kubernetes")
        || ["kubernetes.io", "k8s.io"]
            .iter()
            .any(|own| domain == *own || domain.strip_suffix(own).is_some_and(|sub| sub.ends_with('.')))
        // Without a domain's slash: `customresourcecleanup.apiextensions.k8s.io`.
        || (domain.is_empty() && name.ends_with(".k8s.io"))
}

fn is_computed_label(resource: &Resource, label: &str) -> bool {
    (label == NAMESPACE_NAME_LABEL && resource.is("", "namespaces"))
        || (resource.is("batch", "jobs") && JOB_LABELS.contains(&label))
}

fn is_computed_annotation(resource: &Resource, annotation: &str) -> bool {
    COMPUTED_ANNOTATIONS.contains(&annotation)
        || (resource.is("", "persistentvolumeclaims")
            && CLAIM_ANNOTATION_PREFIXES.iter().any(|prefix| annotation.starts_with(prefix)))
        || (resource.is("storage.k8s.io", "storageclasses") && DEFAULT_CLASS_ANNOTATIONS.contains(&annotation))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::test_support::kept;
    use super::*;

    #[test]
    fn what_people_wrote_stays_and_what_the_cluster_wrote_goes() {
        let metadata = json!({"metadata": {
            "generateName": "web-", "uid": "u", "resourceVersion": "9", "generation": 4, "selfLink": "/x",
            "creationTimestamp": "2026-01-01T00:00:00Z", "deletionTimestamp": "2026-01-01T00:00:00Z",
            "deletionGracePeriodSeconds": 0, "managedFields": [{}],
            "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": "x"}],
            "labels": {"app": "web", "job-name": "no Job has it"},
            "annotations": {
                "kubectl.kubernetes.io/last-applied-configuration": "{}",
                "deployment.kubernetes.io/revision": "7",
                ANNOTATION_RESTORE: "an earlier one",
            },
        }});
        let object = kept("apps/v1/deployments", "Deployment", &metadata).object;
        let expected = json!({
            "name": "web", "namespace": "shop-copy",
            "labels": {"app": "web", "job-name": "no Job has it"},
            "annotations": {
                "kubectl.kubernetes.io/last-applied-configuration": "{}",
                ANNOTATION_RESTORE: "restore-1",
            },
        });
        assert_eq!(object["metadata"], expected);
    }

    #[test]
    fn finalizers_of_kubernetes_go_and_those_of_others_stay() {
        let finalizers = [
            "kubernetes.io/pvc-protection",
            "service.kubernetes.io/load-balancer-cleanup",
            "foregroundDeletion",
            "customresourcecleanup.apiextensions.k8s.io",
            "batch.kubernetes.io/job-tracking",
            "example.org/cleanup",
            "cluster.x-k8s.io/machine",
            "notkubernetes.io/mine",
        ];
        let widget = kept("example.org/v1/widgets", "Widget", &json!({"metadata": {"finalizers": finalizers}}));
        let stay = json!(["example.org/cleanup", "cluster.x-k8s.io/machine", "notkubernetes.io/mine"]);
        assert_eq!(widget.object["metadata"]["finalizers"], stay);
    }

    #[test]
    fn a_namespace_gets_its_new_name_and_no_label_of_the_old_one() {
        let namespace = json!({
            "metadata": {
                "name": "shop", "namespace": null,
                "labels": {NAMESPACE_NAME_LABEL: "shop", "pod-security.kubernetes.io/enforce": "baseline"},
            },
            "spec": {"finalizers": ["kubernetes"]},
            "status": {"phase": "Active"},
        });
        let namespace = kept("core/v1/namespaces", "Namespace", &namespace);
        assert_eq!(namespace.name, "shop-copy");
        assert_eq!(namespace.object["metadata"]["name"], "shop-copy");
        assert_eq!(namespace.object["metadata"]["labels"], json!({"pod-security.kubernetes.io/enforce": "baseline"}));
        assert!(namespace.object.get("spec").is_none());
    }

    #[test]
    fn a_restored_class_does_not_become_a_second_default() {
        let class = json!({"metadata": {
            "namespace": null, "annotations": {DEFAULT_CLASS_ANNOTATIONS[0]: "true", "note": "fast"},
        }});
        let class = kept("storage.k8s.io/v1/storageclasses", "StorageClass", &class).object;
        assert_eq!(class["metadata"]["annotations"], json!({"note": "fast", ANNOTATION_RESTORE: "restore-1"}));
    }
}
