//! Brings one object into the cluster, and decides what happens when one of its name is already there.

use kube::api::{Patch, PatchParams, PostParams};
use kube::core::{DynamicObject, ObjectMeta};
use kube::{Api, Client};
use serde_json::{Map, Value, json};
use shoot_backup_api::names::FIELD_MANAGER;
use shoot_backup_api::restore::ConflictPolicy;

use super::refusal::{Refusal, patiently};
use super::resource::Resource;
use super::transform::{ANNOTATION_RESTORE, Kept, missing_subjects};
use super::waves::Wave;
use crate::operation::failure::with_causes;
use crate::retry;

/// Tries at adding subjects to a binding that others change at the same time.
const BINDING_TRIES: usize = 5;

/// What became of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// It was not there and is there now.
    Created,
    /// It was there and was changed.
    Changed,
    /// It was left alone, for this reason.
    Skipped(String),
    /// It did not work and will not.
    Failed(String),
    /// It did not work yet.
    Again(String),
}

/// What happens to an object that is already there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnConflict {
    /// It stays as it is, for this reason.
    Skip(&'static str),
    /// It becomes what the backup has.
    Overwrite,
    /// A binding keeps its subjects and gets ours.
    AddSubjects,
}

impl OnConflict {
    /// Decides for one object. `new_namespace`: its namespace was made by this restore, so that what is in it already
    /// was made by the cluster.
    #[must_use]
    pub fn of(resource: &Resource, kept: &Kept, policy: ConflictPolicy, new_namespace: bool) -> Self {
        let wave = Wave::of(resource);
        if resource.is("rbac.authorization.k8s.io", "clusterrolebindings") && kept.renamed {
            return Self::AddSubjects;
        }
        if kept.renamed {
            return Self::Skip("already there, where it serves the namespace of the original name");
        }
        if resource.is("", "persistentvolumeclaims") {
            return Self::Skip("already there, with data of its own; delete the claim to restore it");
        }
        if resource.is("", "serviceaccounts") && kept.name == "default" && new_namespace {
            return Self::Overwrite;
        }
        let shared =
            wave == Wave::Definitions || (wave == Wave::ClusterWide && resource.group != "rbac.authorization.k8s.io");
        match policy {
            _ if shared => Self::Skip("already there; what the whole cluster shares is never overwritten"),
            ConflictPolicy::Skip => Self::Skip("already there"),
            ConflictPolicy::Overwrite => Self::Overwrite,
        }
    }
}

/// Brings objects into the cluster.
#[derive(Clone)]
pub struct Applier {
    /// The cluster.
    pub client: Client,
    /// Value of [`ANNOTATION_RESTORE`].
    pub restore_uid: String,
}

impl Applier {
    /// Brings one object into the cluster:
    /// 1. Create it. Where that works, it was not there.
    /// 2. Where one of the same name is there: if this restore made it (an earlier attempt, or a request whose answer
    ///    was lost), it counts as created, and the overwriting of data is finished; if it is being deleted, the restore comes back later.
    /// 3. Otherwise do what the conflict policy says. Nothing is ever deleted to be made anew.
    pub async fn apply(&self, resource: &Resource, kept: &Kept, on_conflict: OnConflict) -> Done {
        let api = resource.api(self.client.clone(), kept.namespace.as_deref(), &kept.kind);
        let object: DynamicObject = match serde_json::from_value(kept.object.clone()) {
            Ok(object) => object,
            Err(error) => return Done::Failed(format!("the backup has no object here: {error}")),
        };
        let parameters = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let Err(refused) = patiently(|| api.create(&parameters, &object)).await else { return Done::Created };
        if !matches!(&refused, kube::Error::Api(status) if status.code == 409 && status.reason == "AlreadyExists") {
            return refusal(resource, &refused);
        }
        let existing = match retry::absent(patiently(|| api.get_metadata(&kept.name)).await) {
            Ok(Some(existing)) => existing.metadata,
            Ok(None) => return Done::Again("it vanished while it was looked at".to_owned()),
            Err(error) => return refusal(resource, &error),
        };
        if existing.deletion_timestamp.is_some() {
            return Done::Again("one of the same name is being deleted".to_owned());
        }
        if self.made(&existing) {
            // Overwriting a ConfigMap or Secret takes two requests. An attempt that was cut off between them has left
            // our mark and entries that the backup does not have, so both are repeated: that changes nothing else.
            if on_conflict == OnConflict::Overwrite && is_read_as_a_whole(resource) {
                return self.overwrite(&api, resource, kept).await;
            }
            return Done::Created;
        }
        match on_conflict {
            OnConflict::Skip(reason) => Done::Skipped(reason.to_owned()),
            OnConflict::Overwrite => self.overwrite(&api, resource, kept).await,
            OnConflict::AddSubjects => self.add_subjects(&api, resource, kept).await,
        }
    }

    /// Whether this restore made an object.
    #[must_use]
    pub fn made(&self, metadata: &ObjectMeta) -> bool {
        let annotations = metadata.annotations.as_ref();
        annotations.and_then(|all| all.get(ANNOTATION_RESTORE)).is_some_and(|uid| *uid == self.restore_uid)
    }

    /// Server-side apply keeps fields that others set and the backup does not have. For the data of a
    /// `ConfigMap` or `Secret` that would be wrong: it is read as a whole, so entries that the backup does not have are removed.
    async fn overwrite(&self, api: &Api<DynamicObject>, resource: &Resource, kept: &Kept) -> Done {
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        let patch = Patch::Apply(&kept.object);
        let applied = match patiently(|| api.patch(&kept.name, &parameters, &patch)).await {
            Ok(applied) => applied,
            Err(error) => return overwrite_refusal(resource, &error),
        };
        if let Some(removal) = stray_entries(resource, &applied.data, &kept.object) {
            let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
            let patch = Patch::Merge(&removal);
            if let Err(error) = patiently(|| api.patch(&kept.name, &parameters, &patch)).await {
                return overwrite_refusal(resource, &error);
            }
        }
        Done::Changed
    }

    async fn add_subjects(&self, api: &Api<DynamicObject>, resource: &Resource, kept: &Kept) -> Done {
        for _ in 0..BINDING_TRIES {
            let mut existing = match patiently(|| api.get(&kept.name)).await {
                Ok(existing) => existing,
                Err(error) => return refusal(resource, &error),
            };
            let Some(missing) = missing_subjects(&existing.data, &kept.object) else {
                return Done::Skipped("already there, and binds another role".to_owned());
            };
            if missing.is_empty() {
                return Done::Skipped("already there, with all subjects".to_owned());
            }
            match existing.data.get_mut("subjects").and_then(Value::as_array_mut) {
                Some(subjects) => subjects.extend(missing),
                None => existing.data["subjects"] = Value::Array(missing),
            }
            let parameters = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
            match patiently(|| api.replace(&kept.name, &parameters, &existing)).await {
                Ok(_) => return Done::Changed,
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => return refusal(resource, &error),
            }
        }
        Done::Again("others change the binding all the time".to_owned())
    }
}

fn refusal(resource: &Resource, error: &kube::Error) -> Done {
    if matches!(error, kube::Error::Api(status) if status.code == 404) {
        let (plural, version) = (&resource.plural, resource.api_version());
        let cause = with_causes(error);
        return Done::Again(format!("this cluster serves no {plural} of {version}, or the namespace is gone: {cause}"));
    }
    match Refusal::of(error) {
        Refusal::ForNow(text) => Done::Again(text),
        Refusal::ForGood(text) => Done::Failed(text),
    }
}

fn overwrite_refusal(resource: &Resource, error: &kube::Error) -> Done {
    match error {
        kube::Error::Api(status) if status.code == 422 => Done::Failed(format!(
            "it cannot be changed to what the backup has; delete it and restore it again: {}",
            with_causes(error)
        )),
        _ => refusal(resource, error),
    }
}

/// Whether the entries of an object's data are one value together.
fn is_read_as_a_whole(resource: &Resource) -> bool {
    resource.is("", "configmaps") || resource.is("", "secrets")
}

/// A merge patch that removes the entries of a ConfigMap or Secret that the backup does not have.
fn stray_entries(resource: &Resource, existing: &Value, wanted: &Value) -> Option<Value> {
    if !is_read_as_a_whole(resource) {
        return None;
    }
    let mut patch = Map::new();
    for field in ["data", "binaryData"] {
        let wanted = wanted.get(field).and_then(Value::as_object);
        let strays: Map<String, Value> = existing
            .get(field)
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .filter(|(key, _)| !wanted.is_some_and(|wanted| wanted.contains_key(*key)))
            .map(|(key, _)| (key.clone(), Value::Null))
            .collect();
        if !strays.is_empty() {
            patch.insert(field.to_owned(), Value::Object(strays));
        }
    }
    (!patch.is_empty()).then(|| json!(patch))
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::restore::fake_cluster::FakeCluster;

    const CONFIG_MAPS: &str = "/api/v1/namespaces/shop/configmaps";
    const SETTINGS: &str = "/api/v1/namespaces/shop/configmaps/settings";
    const BINDING: &str = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/web";

    fn cluster() -> (FakeCluster, Applier) {
        let (cluster, client) = FakeCluster::start();
        cluster.put("/api/v1/namespaces/shop", json!({"metadata": {"name": "shop"}}));
        (cluster, Applier { client, restore_uid: "restore-1".to_owned() })
    }

    fn config_map(data: &Value) -> (Resource, Kept) {
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "settings", "namespace": "shop", "annotations": {ANNOTATION_RESTORE: "restore-1"}},
            "data": data,
        });
        let kept = Kept {
            object,
            kind: "ConfigMap".to_owned(),
            name: "settings".to_owned(),
            namespace: Some("shop".to_owned()),
            renamed: false,
        };
        (Resource::of_folder("core", "v1", "configmaps"), kept)
    }

    fn there(annotations: &Value, data: &Value) -> Value {
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "settings", "namespace": "shop", "annotations": annotations}, "data": data,
        })
    }

    const SKIP: OnConflict = OnConflict::Skip("already there");

    #[tokio::test]
    async fn what_is_not_there_is_created() {
        let (cluster, applier) = cluster();
        let (resource, kept) = config_map(&json!({"a": "1"}));
        assert_eq!(applier.apply(&resource, &kept, SKIP).await, Done::Created);
        assert_eq!(cluster.get(SETTINGS).unwrap()["data"], json!({"a": "1"}));
        assert_eq!(cluster.requests(&Method::PATCH), Vec::<String>::new());
    }

    #[tokio::test]
    async fn what_is_there_stays_under_skip() {
        let (cluster, applier) = cluster();
        cluster.put(SETTINGS, there(&json!({}), &json!({"a": "theirs"})));
        let (resource, kept) = config_map(&json!({"a": "ours"}));
        assert_eq!(applier.apply(&resource, &kept, SKIP).await, Done::Skipped("already there".to_owned()));
        assert_eq!(cluster.get(SETTINGS).unwrap()["data"], json!({"a": "theirs"}));
    }

    #[tokio::test]
    async fn what_this_restore_made_before_counts_as_created() {
        let (cluster, applier) = cluster();
        cluster.put(SETTINGS, there(&json!({ANNOTATION_RESTORE: "restore-1"}), &json!({})));
        let (resource, kept) = config_map(&json!({}));
        assert_eq!(applier.apply(&resource, &kept, SKIP).await, Done::Created);
        cluster.put(SETTINGS, there(&json!({ANNOTATION_RESTORE: "another"}), &json!({})));
        assert!(matches!(applier.apply(&resource, &kept, SKIP).await, Done::Skipped(_)));
    }

    #[tokio::test]
    async fn overwrite_makes_data_what_the_backup_has() {
        let (cluster, applier) = cluster();
        cluster.put(SETTINGS, there(&json!({"note": "n"}), &json!({"a": "theirs", "stray": "x"})));
        let (resource, kept) = config_map(&json!({"a": "ours"}));
        assert_eq!(applier.apply(&resource, &kept, OnConflict::Overwrite).await, Done::Changed);
        assert_eq!(cluster.get(SETTINGS).unwrap()["data"], json!({"a": "ours"}));
        assert_eq!(cluster.requests(&Method::DELETE), Vec::<String>::new());
    }

    #[tokio::test]
    async fn an_overwrite_that_was_cut_off_is_finished() {
        let (cluster, applier) = cluster();
        // Applied, with our mark, but the entry that the backup does not have is still there.
        let half = there(&json!({ANNOTATION_RESTORE: "restore-1"}), &json!({"a": "ours", "stray": "x"}));
        cluster.put(SETTINGS, half);
        let (resource, kept) = config_map(&json!({"a": "ours"}));
        for _ in 0..2 {
            assert_eq!(applier.apply(&resource, &kept, OnConflict::Overwrite).await, Done::Changed);
            assert_eq!(cluster.get(SETTINGS).unwrap()["data"], json!({"a": "ours"}));
        }
    }

    #[tokio::test]
    async fn what_is_being_deleted_is_tried_again() {
        let (cluster, applier) = cluster();
        let mut leaving = there(&json!({}), &json!({}));
        leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        cluster.put(SETTINGS, leaving);
        let (resource, kept) = config_map(&json!({}));
        assert!(matches!(applier.apply(&resource, &kept, OnConflict::Overwrite).await, Done::Again(_)));
        cluster.remove(SETTINGS);
        assert_eq!(applier.apply(&resource, &kept, OnConflict::Overwrite).await, Done::Created);
    }

    #[tokio::test]
    async fn a_refusal_that_may_pass_is_tried_again_and_one_that_stays_is_a_failure() {
        let (cluster, applier) = cluster();
        let (resource, kept) = config_map(&json!({}));
        cluster.refuse(CONFIG_MAPS, 1, 500, "InternalError", "failed calling webhook \"hook\"");
        assert!(matches!(applier.apply(&resource, &kept, SKIP).await, Done::Again(_)));
        cluster.refuse(CONFIG_MAPS, 1, 422, "Invalid", "data: too long");
        let done = applier.apply(&resource, &kept, SKIP).await;
        assert_eq!(done, Done::Failed("data: too long (Invalid)".to_owned()));
        assert_eq!(applier.apply(&resource, &kept, SKIP).await, Done::Created);
    }

    #[tokio::test]
    async fn what_the_cluster_does_not_serve_says_so() {
        let (_, applier) = cluster();
        let (resource, mut kept) = config_map(&json!({}));
        kept.namespace = Some("gone".to_owned());
        let Done::Again(reason) = applier.apply(&resource, &kept, SKIP).await else { panic!() };
        assert!(reason.contains("serves no configmaps of v1, or the namespace is gone"), "{reason}");
    }

    fn binding(role: &str, namespaces: &[&str]) -> Value {
        let subjects: Vec<_> = namespaces
            .iter()
            .map(|namespace| json!({"kind": "ServiceAccount", "name": "web", "namespace": namespace}))
            .collect();
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "web"},
            "roleRef": {"kind": "ClusterRole", "name": role}, "subjects": subjects,
        })
    }

    #[tokio::test]
    async fn a_copy_gets_its_rights_beside_the_original() {
        let (cluster, applier) = cluster();
        cluster.put(BINDING, binding("view", &["shop"]));
        let resource = Resource::of_folder("rbac.authorization.k8s.io", "v1", "clusterrolebindings");
        let kept = |role: &str| Kept {
            object: binding(role, &["shop-copy"]),
            kind: "ClusterRoleBinding".to_owned(),
            name: "web".to_owned(),
            namespace: None,
            renamed: true,
        };
        let on_conflict = OnConflict::of(&resource, &kept("view"), ConflictPolicy::Overwrite, false);
        assert_eq!(on_conflict, OnConflict::AddSubjects);
        assert_eq!(applier.apply(&resource, &kept("view"), on_conflict).await, Done::Changed);
        assert_eq!(cluster.get(BINDING).unwrap()["subjects"], binding("view", &["shop", "shop-copy"])["subjects"]);
        assert!(matches!(applier.apply(&resource, &kept("view"), on_conflict).await, Done::Skipped(_)));
        assert!(matches!(applier.apply(&resource, &kept("admin"), on_conflict).await, Done::Skipped(_)));
    }

    fn decided(name: &str, object: &str, renamed: bool, policy: ConflictPolicy, new_namespace: bool) -> OnConflict {
        let parts: Vec<_> = name.split('/').collect();
        let kept = Kept { object: Value::Null, kind: String::new(), name: object.to_owned(), namespace: None, renamed };
        OnConflict::of(&Resource::of_folder(parts[0], "v1", parts[1]), &kept, policy, new_namespace)
    }

    #[test]
    fn the_policy_decides_about_objects_of_the_application_only() {
        use ConflictPolicy::{Overwrite, Skip};
        let overwrites =
            |name: &str, renamed: bool| decided(name, "web", renamed, Overwrite, false) == OnConflict::Overwrite;
        assert!(overwrites("apps/deployments", false));
        assert!(overwrites("rbac.authorization.k8s.io/clusterroles", false));
        assert!(!overwrites("storage.k8s.io/storageclasses", false));
        assert!(!overwrites("apiextensions.k8s.io/customresourcedefinitions", false));
        // The data of a claim that is there is never overwritten.
        assert!(!overwrites("core/persistentvolumeclaims", false));
        // It calls the original's service.
        assert!(!overwrites("admissionregistration.k8s.io/validatingwebhookconfigurations", true));
        assert!(overwrites("admissionregistration.k8s.io/validatingwebhookconfigurations", false));
        assert!(matches!(decided("apps/deployments", "web", false, Skip, true), OnConflict::Skip(_)));
    }

    #[test]
    fn the_account_that_the_cluster_made_in_a_new_namespace_is_no_conflict() {
        use ConflictPolicy::Skip;
        assert_eq!(decided("core/serviceaccounts", "default", false, Skip, true), OnConflict::Overwrite);
        assert!(matches!(decided("core/serviceaccounts", "default", false, Skip, false), OnConflict::Skip(_)));
        assert!(matches!(decided("core/serviceaccounts", "web", false, Skip, true), OnConflict::Skip(_)));
    }
}
