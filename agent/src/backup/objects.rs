//! Streams all objects of a backup into one snapshot, resource by resource, page by page.
//!
//! A snapshot is written depth first, so the order of folders is the order of work: groups, versions, resources; below a
//! resource its namespaces. Cluster-scoped objects that others refer to come after those: within a group the namespaced
//! resources come first, and the groups that only others refer to come last ([`related::LAST_GROUPS`]).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use kube::core::Request;
use serde_json::Value;
use shoot_backup_api::resource_filter::ResourceFilter;
use shoot_backup_api::{BackupSpec, selector};
use shoot_backup_repository::SnapshotWriter;

use super::discovery::Resource;
use super::layout;
use super::listing::Listing;
use super::related::{self, Related, RelatedKind};
use super::skips::Skips;
use crate::context::Context;
use crate::operation::failure::with_causes;
use crate::operation::{Failure, Running};
use crate::retry;

/// Writes objects into a snapshot.
pub struct ObjectStream<'a> {
    /// Client and metrics.
    pub context: &'a Context,
    /// Progress, cancel, deadline.
    pub running: &'a Running,
    /// What was asked for.
    pub spec: &'a BackupSpec,
    /// Namespaces of the backup.
    pub namespaces: &'a BTreeSet<String>,
    /// What could not be read.
    pub skips: &'a Skips<'a>,
    /// Where to.
    pub writer: SnapshotWriter,
    /// Names that were seen.
    pub related: Related,
    /// Objects that were written.
    pub count: u64,
    /// Folders that are open.
    pub open: Vec<String>,
    /// Claims that were written: what volumes must be there. Names only.
    pub claims: WrittenClaims,
}

/// Claims that were written, by namespace and name, and whether they had a volume.
pub type WrittenClaims = BTreeMap<(String, String), bool>;

/// Where objects come from, and so where they go.
#[derive(Clone, Copy)]
struct Place<'a> {
    resource: &'a Resource,
    namespace: Option<&'a str>,
    /// What messages call it.
    item: &'a str,
}

impl Place<'_> {
    fn folder(&self) -> Vec<String> {
        let Resource { group, version, plural, .. } = self.resource;
        let mut path = vec![layout::ROOT, layout::group_folder(group), version, plural];
        match self.namespace {
            Some(namespace) => path.extend([layout::NAMESPACES, namespace]),
            None => path.push(layout::CLUSTER),
        }
        path.into_iter().map(str::to_owned).collect()
    }
}

impl ObjectStream<'_> {
    /// Writes all objects of these resources below the folder `objects`.
    pub async fn write(&mut self, resources: Vec<Resource>) -> Result<(), Failure> {
        // Also without any object there is a folder to look into.
        self.enter(&[layout::ROOT.to_owned()]).await?;
        for resource in in_order(resources) {
            self.running.check()?;
            if resource.namespaced {
                self.namespaced(&resource).await?;
            } else {
                self.cluster_scoped(&resource).await?;
            }
        }
        self.enter(&[]).await
    }

    /// Closes and opens folders until `path` is open.
    async fn enter(&mut self, path: &[String]) -> Result<(), Failure> {
        let shared = self.open.iter().zip(path).take_while(|(open, wanted)| open == wanted).count();
        while self.open.len() > shared {
            self.writer.end_directory().await?;
            self.open.pop();
        }
        for name in &path[shared..] {
            self.writer.begin_directory(name).await?;
            self.open.push(name.clone());
        }
        Ok(())
    }

    async fn namespaced(&mut self, resource: &Resource) -> Result<(), Failure> {
        if !self.filter().wants(&resource.group, &resource.plural) {
            return Ok(());
        }
        let label_selector = self.spec.label_selector.as_ref().map(selector::format);
        let namespaces = self.namespaces;
        for namespace in namespaces {
            let listing = Listing::new(&self.context.client, resource, Some(namespace), label_selector.clone());
            let item = format!("{}/{namespace}", resource.name());
            let place = Place { resource, namespace: Some(namespace), item: &item };
            self.list(place, listing, |_, _| true).await?;
        }
        Ok(())
    }

    /// Cluster-scoped objects: those that others refer to, or all if the spec names the resource.
    async fn cluster_scoped(&mut self, resource: &Resource) -> Result<(), Failure> {
        let named = !self.spec.included_resources.is_empty() && self.filter().wants(&resource.group, &resource.plural);
        let excluded =
            !ResourceFilter::new(&[], &self.spec.excluded_resources).wants(&resource.group, &resource.plural);
        let kind = RelatedKind::of(&resource.group, &resource.plural);
        let is_bindings = (resource.group.as_str(), resource.plural.as_str()) == related::BINDINGS;
        if excluded {
            return Ok(());
        }
        let item = resource.name();
        let place = Place { resource, namespace: None, item: &item };
        if let Some(kind) = kind {
            // Also where the spec names the resource: all namespaces of the cluster are never meant.
            self.by_name(resource, kind).await?;
        } else if is_bindings {
            let namespaces = self.namespaces;
            let listing = Listing::new(&self.context.client, resource, None, None);
            self.list(place, listing, |related, object| {
                let wanted = related::binds(object, namespaces) && !related::is_bootstrapped(object);
                if wanted {
                    related.observe_role_reference(object);
                }
                wanted
            })
            .await?;
        } else if named {
            let label_selector = self.spec.label_selector.as_ref().map(selector::format);
            let listing = Listing::new(&self.context.client, resource, None, label_selector);
            self.list(place, listing, |_, _| true).await?;
        }
        Ok(())
    }

    /// Reads objects one by one: they are few and named.
    async fn by_name(&mut self, resource: &Resource, kind: RelatedKind) -> Result<(), Failure> {
        let names: Vec<String> = self.related.names(kind).map(str::to_owned).collect();
        for name in names {
            let item = format!("{}/{name}", resource.name());
            let read = retry::absent(retry::call(|| self.get(resource, &name)).await);
            match read {
                // An aggregated API has resources without a definition; other names may lead nowhere: nothing to keep.
                Ok(None) => {}
                Ok(Some(object)) if related::is_bootstrapped(&object) => {}
                Ok(Some(object)) => self.put(Place { resource, namespace: None, item: &item }, object).await?,
                Err(error) => self.skip(&item, &error)?,
            }
        }
        Ok(())
    }

    async fn get(&self, resource: &Resource, name: &str) -> Result<Value, kube::Error> {
        let request = Request::new(resource.collection(None))
            .get(name, &kube::api::GetParams::default())
            .map_err(kube::Error::BuildRequest)?;
        self.context.client.request(request).await
    }

    /// Writes what a listing hands out and `wanted` accepts.
    async fn list(
        &mut self,
        place: Place<'_>,
        mut listing: Listing<'_>,
        mut wanted: impl FnMut(&mut Related, &Value) -> bool,
    ) -> Result<(), Failure> {
        loop {
            self.running.check()?;
            let page = match listing.next().await {
                Ok(Some(page)) => page,
                Ok(None) => return Ok(()),
                Err(error) => return self.skip(place.item, &error),
            };
            for object in page {
                if wanted(&mut self.related, &object) {
                    self.put(place, object).await?;
                }
            }
        }
    }

    async fn put(&mut self, place: Place<'_>, object: Value) -> Result<(), Failure> {
        let Place { resource, item, .. } = place;
        let Some((name, object)) = prepare(resource, object) else {
            self.skips.add(item, "the API server listed something that is no object");
            return Ok(());
        };
        self.related.observe(resource, &object);
        let json = match serde_json::to_vec(&object) {
            Ok(json) => json,
            Err(error) => {
                self.skips.add(format!("{item}/{name}"), format!("failed to write it as JSON: {error}"));
                return Ok(());
            }
        };
        self.enter(&place.folder()).await?;
        self.writer.add_bytes(layout::file_name(&name), Bytes::from(json)).await?;
        if let (Some(namespace), "", "persistentvolumeclaims") =
            (place.namespace, resource.group.as_str(), resource.plural.as_str())
        {
            let volume = object.pointer("/spec/volumeName").and_then(Value::as_str);
            self.claims.insert((namespace.to_owned(), name), volume.is_some_and(|volume| !volume.is_empty()));
        }
        self.count += 1;
        self.running.add_objects(1);
        Ok(())
    }

    /// Counts what cannot be read. An API server that is gone for longer than a call is repeated ends the backup instead:
    /// nothing else would work either.
    fn skip(&self, item: &str, error: &kube::Error) -> Result<(), Failure> {
        match error {
            kube::Error::Api(_) | kube::Error::SerdeError(_) => {
                self.skips.add(item, format!("failed to read it: {}", with_causes(error)));
                Ok(())
            }
            _ => Err(Failure::api(&format!("read {item}"), error)),
        }
    }

    fn filter(&self) -> ResourceFilter<'_> {
        ResourceFilter::new(&self.spec.included_resources, &self.spec.excluded_resources)
    }
}

/// The order of work: the groups that others refer to last, versions together, namespaced resources first.
fn in_order(mut resources: Vec<Resource>) -> Vec<Resource> {
    resources.sort_by_cached_key(|resource| {
        let last = related::LAST_GROUPS.contains(&resource.group.as_str());
        // Bindings before roles: they name them.
        let role = RelatedKind::of(&resource.group, &resource.plural).is_some();
        let order = (!resource.namespaced, role, resource.plural.clone());
        (last, resource.group.clone(), resource.version.clone(), order)
    });
    resources
}

/// An object as it is kept: with its type, which lists leave out, and without `managedFields`, which say who wrote what
/// in the source cluster and change with every status. `None` for what has no name.
fn prepare(resource: &Resource, mut object: Value) -> Option<(String, Value)> {
    let fields = object.as_object_mut()?;
    fields.insert("apiVersion".to_owned(), Value::String(resource.api_version()));
    fields.insert("kind".to_owned(), Value::String(resource.kind.clone()));
    let metadata = fields.get_mut("metadata")?.as_object_mut()?;
    metadata.remove("managedFields");
    let name = metadata.get("name")?.as_str()?.to_owned();
    Some((name, object))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn resource(group: &str, plural: &str, namespaced: bool) -> Resource {
        Resource {
            group: group.to_owned(),
            version: "v1".to_owned(),
            plural: plural.to_owned(),
            kind: "Kind".to_owned(),
            namespaced,
        }
    }

    #[test]
    fn what_others_refer_to_comes_after_them() {
        let ordered = in_order(vec![
            resource("rbac.authorization.k8s.io", "clusterroles", false),
            resource("storage.k8s.io", "storageclasses", false),
            resource("apiextensions.k8s.io", "customresourcedefinitions", false),
            resource("rbac.authorization.k8s.io", "clusterrolebindings", false),
            resource("rbac.authorization.k8s.io", "rolebindings", true),
            resource("", "persistentvolumeclaims", true),
            resource("zoo.example.org", "lions", true),
        ]);
        let names: Vec<_> = ordered.iter().map(|resource| resource.plural.as_str()).collect();
        assert_eq!(
            names,
            [
                "persistentvolumeclaims",
                "rolebindings",
                "clusterrolebindings",
                "clusterroles",
                "lions",
                "customresourcedefinitions",
                "storageclasses"
            ]
        );
    }

    #[test]
    fn an_object_is_kept_with_its_type_and_without_its_managers() {
        let object = json!({"metadata": {"name": "web", "managedFields": [{}], "labels": {"a": "b"}}, "spec": {}});
        let (name, kept) = prepare(&resource("apps", "deployments", true), object).unwrap();
        assert_eq!(name, "web");
        let expected = json!({"apiVersion": "apps/v1", "kind": "Kind",
            "metadata": {"name": "web", "labels": {"a": "b"}}, "spec": {}});
        assert_eq!(kept, expected);
        assert!(prepare(&resource("", "x", true), json!({"metadata": {}})).is_none());
    }
}
