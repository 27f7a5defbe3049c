//! Claims and storage classes.

use serde_json::Value;

use super::rules::Rules;

/// Where a claim's storage class stood before it had a field.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// A class that another takes the place of is not needed.
pub(super) fn mapped_class(object: &Value, rules: &Rules) -> Option<String> {
    let name = object.pointer("/metadata/name").and_then(Value::as_str)?;
    let here = rules.storage_classes.get(name)?;
    Some(format!("mapped to storage class {here}"))
}

/// A claim asks for a new volume: it forgets the one that it had and what that was filled from.
pub(super) fn claim(object: &mut Value, rules: &Rules) {
    let annotated = object.pointer("/metadata/annotations").and_then(|all| all.get(CLASS_ANNOTATION)).cloned();
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return };
    for field in ["volumeName", "dataSource", "dataSourceRef"] {
        spec.remove(field);
    }
    if let Some(class) = annotated {
        spec.entry("storageClassName").or_insert(class);
    }
    rules.map_class(spec.get_mut("storageClassName"));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::ANNOTATION_RESTORE;
    use super::super::test_support::{kept, skipped};
    use super::CLASS_ANNOTATION;

    #[test]
    fn a_claim_asks_for_a_new_volume_of_the_mapped_class() {
        let claim = json!({
            "metadata": {"annotations": {
                "pv.kubernetes.io/bind-completed": "yes",
                "pv.kubernetes.io/bound-by-controller": "yes",
                "volume.kubernetes.io/storage-provisioner": "disk.example.org",
                "volume.kubernetes.io/selected-node": "node-1",
                "volume.beta.kubernetes.io/storage-provisioner": "disk.example.org",
                "owner": "ann",
            }},
            "spec": {
                "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
                "storageClassName": "gold", "volumeMode": "Filesystem", "volumeName": "pv-1",
                "dataSource": {"kind": "VolumeSnapshot", "name": "s"}, "dataSourceRef": {"kind": "VolumeSnapshot", "name": "s"},
            },
            "status": {"phase": "Bound"},
        });
        let claim = kept("core/v1/persistentvolumeclaims", "PersistentVolumeClaim", &claim).object;
        assert_eq!(claim["metadata"]["annotations"], json!({"owner": "ann", ANNOTATION_RESTORE: "restore-1"}));
        let expected = json!({
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
            "storageClassName": "silver", "volumeMode": "Filesystem",
        });
        assert_eq!(claim["spec"], expected);
    }

    #[test]
    fn a_class_in_the_old_annotation_is_mapped_too() {
        let claim = json!({"metadata": {"annotations": {CLASS_ANNOTATION: "gold"}}, "spec": {"volumeName": "pv-1"}});
        let claim = kept("core/v1/persistentvolumeclaims", "PersistentVolumeClaim", &claim).object;
        assert_eq!(claim["spec"], json!({"storageClassName": "silver"}));
    }

    #[test]
    fn a_claim_without_a_class_takes_the_default_one_here() {
        let claim = kept("core/v1/persistentvolumeclaims", "PersistentVolumeClaim", &json!({"spec": {}})).object;
        assert_eq!(claim["spec"], json!({}));
    }

    #[test]
    fn a_class_that_is_mapped_to_another_is_not_needed() {
        let gold = json!({"metadata": {"name": "gold", "namespace": null}});
        assert_eq!(
            skipped("storage.k8s.io/v1/storageclasses", "StorageClass", &gold),
            "mapped to storage class silver"
        );
    }
}
