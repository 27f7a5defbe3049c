//! An object's mirror in an application cluster: how it is made, and whose it is.

use std::fmt::Debug;

use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use shoot_backup_api::operation::Requested;
use shoot_backup_api::{ApplicationCluster, names};

use crate::request::{self, timed, timed_opt};

/// What every mirrored kind is.
pub trait Kind:
    Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope> + Clone + Debug + DeserializeOwned
{
}

impl<K> Kind for K where
    K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope> + Clone + Debug + DeserializeOwned
{
}

/// Whose mirror it is, as seen from one object of the garden.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// This object's own.
    Own,
    /// Of an object of this name that came through the same cluster object and is gone: it may be deleted.
    Former,
    /// Of another project or another garden, or made by hand in the cluster.
    Foreign,
}

/// Tells whose mirror it is.
#[must_use]
pub fn ownership<K: Resource>(object: &K, mirror: &K, cluster: &ApplicationCluster) -> Ownership {
    let annotations = mirror.annotations();
    if annotations.get(names::ANNOTATION_ORIGIN_UID) == object.meta().uid.as_ref() {
        return Ownership::Own;
    }
    if annotations.get(names::ANNOTATION_ORIGIN_CLUSTER) == cluster.metadata.uid.as_ref() {
        return Ownership::Former;
    }
    Ownership::Foreign
}

/// The mirror as it is applied.
#[must_use]
pub fn document<K: Resource<DynamicType = ()>>(object: &K, spec: &Value, cluster: &ApplicationCluster) -> Value {
    let meta = object.meta();
    json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": {
            "name": meta.name,
            "namespace": names::AGENT_NAMESPACE,
            "labels": {"app.kubernetes.io/managed-by": names::MANAGED_BY},
            "annotations": {
                names::ANNOTATION_ORIGIN_UID: meta.uid,
                names::ANNOTATION_ORIGIN_GENERATION: meta.generation.unwrap_or_default().to_string(),
                names::ANNOTATION_ORIGIN_CLUSTER: cluster.metadata.uid,
            },
        },
        "spec": spec,
    })
}

/// Whether the mirror is of the object's current generation, and the agent has seen it as it is.
#[must_use]
pub fn is_current<K: Resource>(object: &K, mirror: &K, observed_generation: i64) -> bool {
    let origin = mirror.annotations().get(names::ANNOTATION_ORIGIN_GENERATION);
    origin == Some(&object.meta().generation.unwrap_or_default().to_string())
        && Some(observed_generation) == mirror.meta().generation
}

/// Access to the mirrors of a kind.
#[must_use]
pub fn api<K: Kind>(client: &Client) -> Api<K> {
    Api::namespaced(client.clone(), names::AGENT_NAMESPACE)
}

fn title<K: Kind>(name: &str) -> String {
    format!("{} {}/{name} in the cluster", K::kind(&()), names::AGENT_NAMESPACE)
}

/// Reads a mirror.
pub async fn get<K: Kind>(client: &Client, name: &str) -> Result<Option<K>, request::Error> {
    timed_opt(format!("get {}", title::<K>(name)), api::<K>(client).get(name)).await
}

/// Makes or updates a mirror.
pub async fn apply<K: Kind>(client: &Client, name: &str, document: &Value) -> Result<K, request::Error> {
    let parameters = PatchParams::apply(names::FIELD_MANAGER).force();
    let request = api::<K>(client);
    timed(format!("apply {}", title::<K>(name)), request.patch(name, &parameters, &Patch::Apply(document))).await
}

/// Deletes exactly this mirror, not one that took its place meanwhile.
pub async fn delete<K: Kind>(client: &Client, mirror: &K) -> Result<(), request::Error> {
    let name = mirror.name_any();
    let preconditions = Preconditions { uid: mirror.uid(), ..Preconditions::default() };
    let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
    timed_opt(format!("delete {}", title::<K>(&name)), api::<K>(client).delete(&name, &parameters)).await?;
    Ok(())
}

/// Puts a request on a mirror.
pub async fn request<K: Kind>(client: &Client, name: &str, requested: Requested) -> Result<(), request::Error> {
    let patch = json!({"metadata": {"annotations": {names::ANNOTATION_OPERATION: requested.as_str()}}});
    let what = format!("request {} of {}", requested.as_str(), title::<K>(name));
    let request = api::<K>(client);
    timed(what, request.patch(name, &PatchParams::default(), &Patch::Merge(patch))).await?;
    Ok(())
}

/// The request on an object, if it is one that we know.
#[must_use]
pub fn requested<K: Resource>(object: &K) -> Option<Requested> {
    object.annotations().get(names::ANNOTATION_OPERATION).and_then(|value| Requested::parse(value))
}

/// Removes the request from an object in the garden.
pub async fn taken_up<K: Kind>(garden: &Client, object: &K) -> Result<(), request::Error> {
    let patch = json!({"metadata": {"annotations": {names::ANNOTATION_OPERATION: null}}});
    merge(garden, object, &patch, "remove the annotation from").await
}

/// Makes sure that an object in the garden has our finalizer before it has a mirror.
pub async fn hold<K: Kind>(garden: &Client, object: &K) -> Result<(), request::Error> {
    if object.finalizers().iter().any(|finalizer| finalizer == names::FINALIZER) {
        return Ok(());
    }
    let mut finalizers = object.finalizers().to_vec();
    finalizers.push(names::FINALIZER.to_owned());
    set_finalizers(garden, object, &finalizers).await
}

/// Lets an object in the garden go.
pub async fn release<K: Kind>(garden: &Client, object: &K) -> Result<(), request::Error> {
    let finalizers: Vec<String> =
        object.finalizers().iter().filter(|finalizer| *finalizer != names::FINALIZER).cloned().collect();
    set_finalizers(garden, object, &finalizers).await
}

/// The version makes sure that nobody else's finalizer is lost.
async fn set_finalizers<K: Kind>(garden: &Client, object: &K, finalizers: &[String]) -> Result<(), request::Error> {
    let patch = json!({
        "metadata": {"finalizers": finalizers, "resourceVersion": object.meta().resource_version},
    });
    merge(garden, object, &patch, "set the finalizers of").await
}

async fn merge<K: Kind>(garden: &Client, object: &K, patch: &Value, what: &str) -> Result<(), request::Error> {
    let name = object.name_any();
    let api: Api<K> = Api::namespaced(garden.clone(), &object.namespace().unwrap_or_default());
    let what = format!("{what} {} {name}", K::kind(&()));
    timed_opt(what, api.patch(&name, &PatchParams::default(), &Patch::Merge(patch))).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::tests_support::{cluster, location};
    use shoot_backup_api::BackupLocation;

    fn mirrored(of: &BackupLocation, through: &ApplicationCluster) -> BackupLocation {
        let spec = serde_json::to_value(&of.spec).unwrap();
        serde_json::from_value(document(of, &spec, through)).unwrap()
    }

    #[test]
    fn a_mirror_has_the_name_the_origin_and_the_spec_of_its_object() {
        let location = location("main", None);
        let mirror = mirrored(&location, &cluster("alpha"));
        assert_eq!(mirror.name_any(), "main");
        assert_eq!(mirror.namespace().as_deref(), Some(names::AGENT_NAMESPACE));
        assert_eq!(mirror.annotations()[names::ANNOTATION_ORIGIN_UID], "uid-main");
        assert_eq!(mirror.annotations()[names::ANNOTATION_ORIGIN_GENERATION], "1");
        assert_eq!(mirror.spec, location.spec);
        assert_eq!(ownership(&location, &mirror, &cluster("alpha")), Ownership::Own);
    }

    #[test]
    fn a_namesake_of_another_project_is_never_ours() {
        let mut other = location("main", None);
        other.metadata.uid = Some("another".to_owned());
        let mine = location("main", None);
        assert_eq!(ownership(&mine, &mirrored(&other, &cluster("alpha")), &cluster("alpha")), Ownership::Former);
        assert_eq!(ownership(&mine, &mirrored(&other, &cluster("beta")), &cluster("alpha")), Ownership::Foreign);
        let mut by_hand = mine.clone();
        by_hand.metadata.annotations = None;
        assert_eq!(ownership(&mine, &by_hand, &cluster("alpha")), Ownership::Foreign);
    }

    #[test]
    fn a_mirror_is_current_once_the_agent_has_seen_this_generation() {
        let mut location = location("main", None);
        let mut mirror = mirrored(&location, &cluster("alpha"));
        mirror.metadata.generation = Some(7);
        assert!(is_current(&location, &mirror, 7));
        assert!(!is_current(&location, &mirror, 6));
        location.metadata.generation = Some(2);
        assert!(!is_current(&location, &mirror, 7));
    }
}
