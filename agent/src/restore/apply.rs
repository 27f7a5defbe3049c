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
    ///    was lost), it counts as created; if it is being deleted, the restore comes back later.
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

/// A merge patch that removes the entries of a ConfigMap or Secret that the backup does not have.
fn stray_entries(resource: &Resource, existing: &Value, wanted: &Value) -> Option<Value> {
    if !resource.is("", "configmaps") && !resource.is("", "secrets") {
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
