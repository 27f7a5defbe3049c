//! What an application consists of, taken through kubectl and normalised by rules of its own, independent of the
//! product's: two applications are the same when these are equal.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::{Map, Value};

use crate::kubectl::Kubectl;

/// Normalised objects by `Kind/name`.
pub type Objects = BTreeMap<String, Value>;

/// Kinds that are not part of an application: the cluster makes them.
const NOT_OURS: &[&str] = &["Event", "Endpoints", "Lease", "PodMetrics", "CSIStorageCapacity", "ControllerRevision"];

/// All objects of a namespace and all cluster-scoped objects with label `part-of=<application>`. Where an object names
/// its own namespace, `<namespace>` is written, so that copies in other namespaces compare.
pub async fn objects(kubectl: &Kubectl, namespace: &str, application: &str) -> Result<Objects> {
    let mut objects = Objects::new();
    let selector = format!("part-of={application}");
    for (scope, filter) in [("true", vec!["-n", namespace]), ("false", vec!["-l", selector.as_str()])] {
        let resources =
            kubectl.run(&["api-resources", "--verbs=list,get", &format!("--namespaced={scope}"), "-o", "name"]).await?;
        let resources =
            resources.lines().filter(|name| !name.ends_with("metrics.k8s.io")).collect::<Vec<_>>().join(",");
        let mut arguments = vec!["get", resources.as_str()];
        arguments.extend(filter);
        let list = kubectl.json(&arguments).await?;
        for object in list["items"].as_array().into_iter().flatten() {
            if let Some((key, object)) = normalise(object, namespace) {
                objects.insert(key, object);
            }
        }
    }
    Ok(objects)
}

fn normalise(object: &Value, namespace: &str) -> Option<(String, Value)> {
    let kind = object["kind"].as_str()?;
    let group = object["apiVersion"].as_str()?.rsplit_once('/').map_or("", |(group, _)| group);
    let name = object["metadata"]["name"].as_str()?;
    let owned = object["metadata"]["ownerReferences"]
        .as_array()
        .is_some_and(|owners| owners.iter().any(|owner| owner["controller"] == true));
    let by_the_cluster = (kind == "ConfigMap" && name == "kube-root-ca.crt")
        || (kind == "ServiceAccount" && name == "default")
        || object["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"].is_string();
    // The claims of a StatefulSet have no owner; what a controller owns it makes again.
    if owned || by_the_cluster || NOT_OURS.contains(&kind) {
        return None;
    }
    let mut object = object.clone();
    let root = object.as_object_mut()?;
    root.remove("status");
    let metadata = root.get_mut("metadata").and_then(Value::as_object_mut)?;
    for field in ["uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "namespace"] {
        metadata.remove(field);
    }
    for field in ["annotations", "labels"] {
        strip_keys(metadata, field);
    }
    if kind == "Namespace" {
        metadata.remove("name");
    }
    strip_spec(kind, root);
    let text = serde_json::to_string(&object).ok()?;
    let text = text.replace(&format!("\"namespace\":\"{namespace}\""), "\"namespace\":\"<namespace>\"");
    let key = if kind == "Namespace" { "Namespace".to_owned() } else { format!("{kind}.{group}/{name}") };
    Some((key, serde_json::from_str(&text).ok()?))
}

/// Labels and annotations that the cluster, its controllers or the product itself write.
fn strip_keys(metadata: &mut Map<String, Value>, field: &str) {
    const WRITTEN_BY_OTHERS: &[&str] = &[
        "kubernetes.io/metadata.name",
        "shootbackup.extensions.gardener.cloud/",
        "pv.kubernetes.io/",
        "volume.kubernetes.io/",
        "volume.beta.kubernetes.io/",
        "deployment.kubernetes.io/revision",
        "deprecated.daemonset.template.generation",
        "batch.kubernetes.io/",
        "controller-uid",
        "autoscaling.alpha.kubernetes.io/",
    ];
    let Some(map) = metadata.get_mut(field).and_then(Value::as_object_mut) else { return };
    map.retain(|key, _| !WRITTEN_BY_OTHERS.iter().any(|prefix| key.starts_with(prefix)));
    if map.is_empty() {
        metadata.remove(field);
    }
}

/// Fields of `spec` that the cluster assigns.
fn strip_spec(kind: &str, root: &mut Map<String, Value>) {
    let Some(spec) = root.get_mut("spec").and_then(Value::as_object_mut) else { return };
    match kind {
        "Namespace" => {
            spec.remove("finalizers");
        }
        "Service" => {
            if spec.get("clusterIP").and_then(Value::as_str) != Some("None") {
                spec.remove("clusterIP");
                spec.remove("clusterIPs");
            }
            for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
                port.as_object_mut().map(|port| port.remove("nodePort"));
            }
        }
        "PersistentVolumeClaim" => {
            spec.remove("volumeName");
        }
        "Pod" => {
            spec.remove("nodeName");
            spec.remove("tolerations");
            strip_token_volume(spec);
        }
        "Job" => {
            spec.remove("selector");
            if let Some(labels) = spec.get_mut("template").and_then(|template| template.get_mut("metadata")) {
                labels.as_object_mut().map(|metadata| metadata.remove("labels"));
            }
        }
        _ => {}
    }
}

/// The volume with the ServiceAccount's token has a random name.
fn strip_token_volume(spec: &mut Map<String, Value>) {
    let is_token = |value: &Value| value["name"].as_str().is_some_and(|name| name.starts_with("kube-api-access-"));
    if let Some(volumes) = spec.get_mut("volumes").and_then(Value::as_array_mut) {
        volumes.retain(|volume| !is_token(volume));
        if volumes.is_empty() {
            spec.remove("volumes");
        }
    }
    for container in spec.get_mut("containers").and_then(Value::as_array_mut).into_iter().flatten() {
        let Some(container) = container.as_object_mut() else { continue };
        if let Some(mounts) = container.get_mut("volumeMounts").and_then(Value::as_array_mut) {
            mounts.retain(|mount| !is_token(mount));
            if mounts.is_empty() {
                container.remove("volumeMounts");
            }
        }
    }
}

/// The objects as a restore with a mapped storage class makes them.
#[must_use]
pub fn with_storage_class(objects: &Objects, class: &str) -> Objects {
    let mut objects = objects.clone();
    for (_, claim) in objects.iter_mut().filter(|(key, _)| key.starts_with("PersistentVolumeClaim.")) {
        claim["spec"]["storageClassName"] = Value::String(class.to_owned());
    }
    objects
}

/// What differs, one line each, at most 40; empty when nothing does.
#[must_use]
pub fn differences(expected: &BTreeMap<String, Value>, found: &BTreeMap<String, Value>) -> Vec<String> {
    let mut lines = Vec::new();
    for (key, value) in expected {
        match found.get(key) {
            None => lines.push(format!("{key}: missing")),
            Some(other) if other != value => lines.push(format!("{key}:\n  expected {value}\n  found    {other}")),
            Some(_) => {}
        }
    }
    lines.extend(found.keys().filter(|key| !expected.contains_key(*key)).map(|key| format!("{key}: not expected")));
    lines.truncate(40);
    lines
}

/// The same for the facts of files.
#[must_use]
pub fn file_differences(expected: &BTreeMap<String, String>, found: &BTreeMap<String, String>) -> Vec<String> {
    let values = |facts: &BTreeMap<String, String>| {
        facts.iter().map(|(path, fact)| (path.clone(), Value::String(fact.clone()))).collect::<BTreeMap<_, _>>()
    };
    differences(&values(expected), &values(found))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn normalised(object: &Value) -> Option<(String, Value)> {
        normalise(object, "shop")
    }

    #[test]
    fn a_changed_value_is_a_difference() {
        let config = |value: &str| {
            let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "shop"}, "data": {"k": value}});
            BTreeMap::from([normalised(&object).unwrap()])
        };
        assert!(differences(&config("1"), &config("1")).is_empty());
        assert_eq!(differences(&config("1"), &config("2")).len(), 1);
        assert_eq!(differences(&config("1"), &BTreeMap::new()).len(), 1);
        assert_eq!(differences(&BTreeMap::new(), &config("1")).len(), 1);
    }

    #[test]
    fn what_a_controller_owns_is_not_compared_but_the_claims_of_a_stateful_set_are() {
        let owned = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "ownerReferences": [{"controller": true}]}});
        assert!(normalised(&owned).is_none());
        let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data-0"}, "spec": {"volumeName": "pv"}});
        assert_eq!(normalised(&claim).unwrap().1["spec"], json!({}));
    }
}
