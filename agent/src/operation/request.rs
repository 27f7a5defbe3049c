//! Requests by annotation: read, and removed when they are taken up.

use std::fmt::Debug;

use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;
use shoot_backup_api::names::ANNOTATION_OPERATION;
use shoot_backup_api::operation::Requested;

/// What somebody asks for, and the annotation's value. A value that no operation has is removed like the others.
#[must_use]
pub fn requested<K: Resource>(object: &K) -> Option<(Option<Requested>, String)> {
    let value = object.annotations().get(ANNOTATION_OPERATION)?;
    Some((Requested::parse(value), value.clone()))
}

/// Removes the annotation if it still has this value: a request that came meanwhile stays.
pub async fn take_up<K>(api: &Api<K>, name: &str, value: &str) -> Result<(), kube::Error>
where
    K: Clone + Debug + DeserializeOwned,
{
    let pointer = format!("/metadata/annotations/{}", ANNOTATION_OPERATION.replace('/', "~1"));
    let operations = json!([
        {"op": "test", "path": pointer, "value": value},
        {"op": "remove", "path": pointer},
    ]);
    let patch: Patch<()> = Patch::Json(serde_json::from_value(operations).map_err(kube::Error::SerdeError)?);
    match api.patch_metadata(name, &PatchParams::default(), &patch).await {
        // Gone, or another value by now.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409 | 422) => Ok(()),
        result => result.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use shoot_backup_api::Backup;

    use super::*;

    fn backup(value: Option<&str>) -> Backup {
        let spec = json!({"cluster": "c", "location": "l", "namespaces": ["n"]});
        let mut backup = Backup::new("b", serde_json::from_value(spec).unwrap());
        backup.metadata.annotations =
            value.map(|value| BTreeMap::from([(ANNOTATION_OPERATION.to_owned(), value.to_owned())]));
        backup
    }

    #[test]
    fn a_request_is_read_from_the_annotation() {
        assert_eq!(requested(&backup(None)), None);
        assert_eq!(requested(&backup(Some("cancel"))), Some((Some(Requested::Cancel), "cancel".to_owned())));
        assert_eq!(requested(&backup(Some("explode"))), Some((None, "explode".to_owned())));
    }
}
