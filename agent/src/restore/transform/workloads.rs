//! Everything that runs pods.

use serde_json::{Map, Value};

use super::object_meta::remove_job_labels;
use super::rules::Rules;
use crate::restore::resource::Resource;

/// Volume that the API server adds to every pod for its token; it adds a new one.
const TOKEN_VOLUME: &str = "kube-api-access-";

/// Why a pod is not restored: it is done, or the kubelet made it of a file.
pub(super) fn finished_pod(object: &Value) -> Option<&'static str> {
    let annotations = object.pointer("/metadata/annotations");
    if annotations.is_some_and(|annotations| annotations.get("kubernetes.io/config.mirror").is_some()) {
        return Some("made by the kubelet from a file of its node");
    }
    let phase = object.pointer("/status/phase").and_then(Value::as_str);
    matches!(phase, Some("Succeeded" | "Failed")).then_some("finished; recorded in the backup and not run again")
}

/// A Job that is done must not do its work again.
pub(super) fn finished_job(object: &Value) -> Option<&'static str> {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array)?;
    let finished = conditions.iter().any(|condition| {
        let text = |key: &str| condition.get(key).and_then(Value::as_str);
        text("status") == Some("True") && matches!(text("type"), Some("Complete" | "Failed"))
    });
    finished.then_some("finished; recorded in the backup and not run again")
}

/// Drops what controllers and admission computed, and renames what the pods name.
pub(super) fn workload(resource: &Resource, object: &mut Value, rules: &Rules) {
    match resource.plural.as_str() {
        "pods" => {
            if let Some(spec) = object.get_mut("spec") {
                running_pod(spec);
                pod_spec(spec, rules);
            }
        }
        "podtemplates" => template(object.get_mut("template"), rules),
        "cronjobs" => template(object.pointer_mut("/spec/jobTemplate/spec/template"), rules),
        "jobs" => {
            if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
                job(spec);
            }
            template(object.pointer_mut("/spec/template"), rules);
        }
        _ => {
            template(object.pointer_mut("/spec/template"), rules);
            let claims = object.pointer_mut("/spec/volumeClaimTemplates").and_then(Value::as_array_mut);
            for claim in claims.into_iter().flatten() {
                rules.map_class(claim.pointer_mut("/spec/storageClassName"));
            }
        }
    }
}

/// The API server makes a Job's selector and its labels from its new UID, unless people chose them.
fn job(spec: &mut Map<String, Value>) {
    if spec.get("manualSelector") != Some(&Value::Bool(true)) {
        spec.remove("selector");
        remove_job_labels(spec.get_mut("template").and_then(|template| template.pointer_mut("/metadata/labels")));
    }
}

fn template(template: Option<&mut Value>, rules: &Rules) {
    if let Some(spec) = template.and_then(|template| template.get_mut("spec")) {
        pod_spec(spec, rules);
    }
}

/// What the scheduler, admission plugins and `kubectl debug` added to a pod that ran.
fn running_pod(spec: &mut Value) {
    let account = spec.get("serviceAccountName").and_then(Value::as_str).unwrap_or("default");
    let old_token = format!("{account}-token-");
    let is_token = |volume: &Value| {
        let named = |name: Option<&Value>, prefix: &str| {
            name.and_then(Value::as_str).is_some_and(|name| name.starts_with(prefix))
        };
        named(volume.get("name"), TOKEN_VOLUME) || named(volume.pointer("/secret/secretName"), &old_token)
    };
    let volumes = spec.get("volumes").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let tokens: Vec<Value> =
        volumes.iter().filter(|volume| is_token(volume)).map(|volume| volume["name"].clone()).collect();
    if let Some(volumes) = spec.get_mut("volumes").and_then(Value::as_array_mut) {
        volumes.retain(|volume| !tokens.contains(&volume["name"]));
    }
    for containers in ["containers", "initContainers"] {
        for container in spec.get_mut(containers).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(mounts) = container.get_mut("volumeMounts").and_then(Value::as_array_mut) {
                mounts.retain(|mount| !tokens.contains(&mount["name"]));
            }
        }
    }
    if let Some(spec) = spec.as_object_mut() {
        // Priority and overhead follow from classes, and a value that differs from this cluster's class is refused.
        for computed in ["nodeName", "ephemeralContainers", "priority", "overhead"] {
            spec.remove(computed);
        }
        if spec.get("priorityClassName").is_some() {
            spec.remove("preemptionPolicy");
        }
    }
}

/// Namespaces in affinities, and storage classes of volumes that live as long as the pod.
fn pod_spec(spec: &mut Value, rules: &Rules) {
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(affinity) = spec.pointer_mut(&format!("/affinity/{kind}")) else { continue };
        for (list, term) in [
            ("requiredDuringSchedulingIgnoredDuringExecution", ""),
            ("preferredDuringSchedulingIgnoredDuringExecution", "/podAffinityTerm"),
        ] {
            for entry in affinity.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                if let Some(term) = entry.pointer_mut(term) {
                    rules.rename_all(term.get_mut("namespaces"));
                    rules.rename_selector(term.get_mut("namespaceSelector"));
                }
            }
        }
    }
    for volume in spec.get_mut("volumes").and_then(Value::as_array_mut).into_iter().flatten() {
        rules.map_class(volume.pointer_mut("/ephemeral/volumeClaimTemplate/spec/storageClassName"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::test_support::{kept, skipped};

    #[test]
    fn a_pod_forgets_its_node_its_token_and_what_classes_gave_it() {
        let mount = |name: &str| json!({"name": name, "mountPath": format!("/{name}")});
        let pod = json!({"spec": {
            "nodeName": "node-1", "serviceAccountName": "web", "priorityClassName": "high", "priority": 1000,
            "preemptionPolicy": "Never", "overhead": {"cpu": "1"}, "ephemeralContainers": [{"name": "debug"}],
            "containers": [{"name": "web", "volumeMounts": [mount("data"), mount("kube-api-access-x1"), mount("old")]}],
            "initContainers": [{"name": "init", "volumeMounts": [mount("kube-api-access-x1")]}],
            "volumes": [
                {"name": "data", "persistentVolumeClaim": {"claimName": "data"}},
                {"name": "kube-api-access-x1", "projected": {}},
                {"name": "old", "secret": {"secretName": "web-token-abcde"}},
                {"name": "settings", "secret": {"secretName": "web-settings"}},
            ],
        }, "status": {"phase": "Running"}});
        let pod = kept("core/v1/pods", "Pod", &pod).object;
        let expected = json!({
            "serviceAccountName": "web", "priorityClassName": "high",
            "containers": [{"name": "web", "volumeMounts": [mount("data")]}],
            "initContainers": [{"name": "init", "volumeMounts": []}],
            "volumes": [
                {"name": "data", "persistentVolumeClaim": {"claimName": "data"}},
                {"name": "settings", "secret": {"secretName": "web-settings"}},
            ],
        });
        assert_eq!(pod["spec"], expected);
    }

    #[test]
    fn what_is_finished_is_not_run_again() {
        for phase in ["Succeeded", "Failed"] {
            let reason = skipped("core/v1/pods", "Pod", &json!({"status": {"phase": phase}}));
            assert!(reason.contains("not run again"), "{reason}");
        }
        let job = |type_: &str, status: &str| json!({"status": {"conditions": [{"type": type_, "status": status}]}});
        skipped("batch/v1/jobs", "Job", &job("Complete", "True"));
        skipped("batch/v1/jobs", "Job", &job("Failed", "True"));
        kept("batch/v1/jobs", "Job", &job("Complete", "False"));
        kept("batch/v1/jobs", "Job", &job("Suspended", "True"));
    }

    #[test]
    fn a_static_pod_belongs_to_its_node() {
        let mirror = json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}}});
        assert!(skipped("core/v1/pods", "Pod", &mirror).contains("kubelet"));
    }

    #[test]
    fn a_job_gets_a_new_selector_unless_people_chose_it() {
        let labels = json!({
            "app": "report", "controller-uid": "u", "batch.kubernetes.io/controller-uid": "u",
            "job-name": "web", "batch.kubernetes.io/job-name": "web",
        });
        let fields = |manual: bool| {
            let mut spec = json!({
                "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": []}},
            });
            if manual {
                spec["manualSelector"] = json!(true);
            }
            json!({"metadata": {"labels": labels}, "spec": spec})
        };
        let job = kept("batch/v1/jobs", "Job", &fields(false)).object;
        assert_eq!(job["metadata"]["labels"], json!({"app": "report"}));
        let template = json!({"metadata": {"labels": {"app": "report"}}, "spec": {"containers": []}});
        assert_eq!(job["spec"], json!({"template": template}));
        let manual = kept("batch/v1/jobs", "Job", &fields(true)).object;
        assert_eq!(manual["spec"], fields(true)["spec"]);
    }

    #[test]
    fn a_stateful_set_names_the_mapped_class_in_its_claims() {
        let claims = |class: &str| json!([{"metadata": {"name": "data"}, "spec": {"storageClassName": class}}]);
        let fields = json!({"spec": {"volumeClaimTemplates": claims("gold"), "template": {"spec": {}}}});
        let set = kept("apps/v1/statefulsets", "StatefulSet", &fields).object;
        assert_eq!(set["spec"]["volumeClaimTemplates"], claims("silver"));
    }

    /// A pod's spec that names a namespace and a class wherever it can.
    fn naming(namespace: &str, class: &str) -> Value {
        let term = json!({
            "topologyKey": "zone", "namespaces": [namespace],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        });
        let affinity = json!({
            "requiredDuringSchedulingIgnoredDuringExecution": [term],
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": term}],
        });
        json!({
            "affinity": {"podAffinity": affinity, "podAntiAffinity": affinity},
            "volumes": [{"name": "s", "ephemeral": {"volumeClaimTemplate": {"spec": {"storageClassName": class}}}}],
        })
    }

    #[test]
    fn pods_of_every_workload_name_namespaces_and_classes_by_their_new_names() {
        for (resource, kind, pointer) in [
            ("core/v1/pods", "Pod", "/spec"),
            ("core/v1/podtemplates", "PodTemplate", "/template/spec"),
            ("core/v1/replicationcontrollers", "ReplicationController", "/spec/template/spec"),
            ("apps/v1/replicasets", "ReplicaSet", "/spec/template/spec"),
            ("apps/v1/deployments", "Deployment", "/spec/template/spec"),
            ("apps/v1/statefulsets", "StatefulSet", "/spec/template/spec"),
            ("apps/v1/daemonsets", "DaemonSet", "/spec/template/spec"),
            ("batch/v1/jobs", "Job", "/spec/template/spec"),
            ("batch/v1/cronjobs", "CronJob", "/spec/jobTemplate/spec/template/spec"),
        ] {
            let mut fields = naming("shop", "gold");
            for part in pointer.rsplit('/').filter(|part| !part.is_empty()) {
                fields = json!({part: fields});
            }
            let object = kept(resource, kind, &fields).object;
            assert_eq!(object.pointer(pointer), Some(&naming("shop-copy", "silver")), "{kind}");
        }
    }
}
