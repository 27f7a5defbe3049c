//! Which resources the API server has. Every group is asked; one that does not answer is reported, never passed over.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIGroup, APIResource, APIResourceList};
use kube::Client;
use shoot_backup_api::resource_filter::denied;

use crate::operation::failure::with_causes;
use crate::retry;

/// How long one group may take: an aggregated API that is down would otherwise hold up the rest.
const PATIENCE: Duration = Duration::from_secs(15);

/// A resource that can be read and listed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Resource {
    /// API group; empty for the core group.
    pub group: String,
    /// Version.
    pub version: String,
    /// Plural name.
    pub plural: String,
    /// Kind.
    pub kind: String,
    /// Whether its objects are in namespaces.
    pub namespaced: bool,
}

impl Resource {
    /// `deployments.apps`, `configmaps`.
    #[must_use]
    pub fn name(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// `apps/v1`, `v1`.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// Path of the collection in the API.
    #[must_use]
    pub fn collection(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() { "/api" } else { "/apis" };
        match namespace {
            Some(namespace) => format!("{root}/{}/namespaces/{namespace}/{}", self.api_version(), self.plural),
            None => format!("{root}/{}/{}", self.api_version(), self.plural),
        }
    }
}

/// What discovery found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Discovered {
    /// Resources that belong in a backup, sorted.
    pub resources: Vec<Resource>,
    /// Groups that did not answer: `<group>/<version>` and why.
    pub unanswered: Vec<(String, String)>,
}

/// Asks every group. The preferred version comes first; what only another version has is taken from there.
pub async fn discover(client: &Client) -> Result<Discovered, kube::Error> {
    let mut found = Discovered::default();
    let core = retry::call(|| client.list_core_api_resources("v1")).await?;
    collect(&mut found.resources, &mut BTreeSet::new(), "", "v1", &core);
    let groups = retry::call(|| client.list_api_groups()).await?;
    for group in groups.groups {
        // Nothing of such a group is wanted: whether it answers does not matter.
        if denied(&group.name, "*").is_some() {
            continue;
        }
        let mut seen = BTreeSet::new();
        for version in versions(&group) {
            let path = format!("{}/{version}", group.name);
            let call = retry::call_within(PATIENCE, || client.list_api_group_resources(&path));
            match tokio::time::timeout(PATIENCE, call).await {
                Ok(Ok(list)) => collect(&mut found.resources, &mut seen, &group.name, &version, &list),
                Ok(Err(error)) => found.unanswered.push((path, with_causes(&error))),
                Err(_) => found.unanswered.push((path, format!("no answer within {} s", PATIENCE.as_secs()))),
            }
        }
    }
    found.resources.sort();
    Ok(found)
}

/// A group's versions, the preferred one first.
fn versions(group: &APIGroup) -> Vec<String> {
    let preferred = group.preferred_version.as_ref().map(|version| version.version.clone());
    let others = group.versions.iter().map(|version| version.version.clone());
    let mut versions: Vec<String> = preferred.into_iter().collect();
    for version in others {
        if !versions.contains(&version) {
            versions.push(version);
        }
    }
    versions
}

fn collect(
    resources: &mut Vec<Resource>,
    seen: &mut BTreeSet<String>,
    group: &str,
    version: &str,
    list: &APIResourceList,
) {
    for resource in &list.resources {
        if is_wanted(group, resource) && seen.insert(resource.name.clone()) {
            resources.push(Resource {
                group: group.to_owned(),
                version: version.to_owned(),
                plural: resource.name.clone(),
                kind: resource.kind.clone(),
                namespaced: resource.namespaced,
            });
        }
    }
}

fn is_wanted(group: &str, resource: &APIResource) -> bool {
    let can = |verb: &str| resource.verbs.iter().any(|each| each == verb);
    // A slash means a subresource.
    !resource.name.contains('/') && can("list") && can("get") && denied(group, &resource.name).is_none()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn list(names: &[(&str, &[&str])]) -> APIResourceList {
        let resources: Vec<_> = names
            .iter()
            .map(|(name, verbs)| {
                json!({"name": name, "singularName": "", "namespaced": true, "kind": "K", "verbs": verbs})
            })
            .collect();
        serde_json::from_value(json!({"groupVersion": "v1", "resources": resources})).unwrap()
    }

    #[test]
    fn what_can_be_listed_is_found_unless_it_is_denied() {
        let list = list(&[
            ("widgets", &["get", "list"]),
            ("widgets/status", &["get"]),
            ("reviews", &["create"]),
            ("leases", &["get", "list"]),
        ]);
        let (mut resources, mut seen) = (Vec::new(), BTreeSet::new());
        collect(&mut resources, &mut seen, "coordination.k8s.io", "v1", &list);
        let names: Vec<_> = resources.iter().map(|resource| resource.plural.as_str()).collect();
        assert_eq!(names, ["widgets"]);
    }

    #[test]
    fn a_resource_is_taken_from_the_preferred_version_only() {
        let group: APIGroup = serde_json::from_value(json!({
            "name": "g", "preferredVersion": {"groupVersion": "g/v2", "version": "v2"},
            "versions": [{"groupVersion": "g/v1", "version": "v1"}, {"groupVersion": "g/v2", "version": "v2"}]
        }))
        .unwrap();
        assert_eq!(versions(&group), ["v2", "v1"]);
        let (mut resources, mut seen) = (Vec::new(), BTreeSet::new());
        collect(&mut resources, &mut seen, "g", "v2", &list(&[("a", &["get", "list"])]));
        collect(&mut resources, &mut seen, "g", "v1", &list(&[("a", &["get", "list"]), ("b", &["get", "list"])]));
        let names: Vec<_> =
            resources.iter().map(|resource| (resource.plural.as_str(), resource.version.as_str())).collect();
        assert_eq!(names, [("a", "v2"), ("b", "v1")]);
    }

    #[test]
    fn collections_have_the_apis_paths() {
        let mut resource = Resource {
            group: String::new(),
            version: "v1".to_owned(),
            plural: "pods".to_owned(),
            kind: "Pod".to_owned(),
            namespaced: true,
        };
        assert_eq!(resource.collection(Some("shop")), "/api/v1/namespaces/shop/pods");
        resource.group = "apps".to_owned();
        assert_eq!(resource.collection(None), "/apis/apps/v1/pods");
    }
}
