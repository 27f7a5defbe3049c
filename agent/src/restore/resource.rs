//! A resource as the objects' snapshot names it: `objects/<group or core>/<version>/<resource>`.

use kube::core::{ApiResource, DynamicObject};
use kube::{Api, Client};

use crate::backup::layout;

/// Group, version and plural name of a resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Resource {
    /// API group; empty for the core group.
    pub group: String,
    /// Version in which the backup has its objects.
    pub version: String,
    /// Plural name.
    pub plural: String,
}

impl Resource {
    /// The resource whose objects are in `objects/<folder>/<version>/<plural>`.
    #[must_use]
    pub fn of_folder(folder: &str, version: &str, plural: &str) -> Self {
        let group = layout::folder_group(folder);
        Self { group: group.to_owned(), version: version.to_owned(), plural: plural.to_owned() }
    }

    /// Its folder in the objects' snapshot.
    #[must_use]
    pub fn folder(&self) -> String {
        let group = layout::group_folder(&self.group);
        format!("{}/{group}/{}/{}", layout::ROOT, self.version, self.plural)
    }

    /// `group/version`, or only the version in the core group.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// Whether it is this resource, in any version.
    #[must_use]
    pub fn is(&self, group: &str, plural: &str) -> bool {
        self.group == group && self.plural == plural
    }

    /// An object's name for people: `deployments.apps/shop/web`, `configmaps/shop/settings`, `namespaces/shop`.
    #[must_use]
    pub fn item(&self, namespace: Option<&str>, name: &str) -> String {
        let dot = if self.group.is_empty() { "" } else { "." };
        let namespace = namespace.map(|namespace| format!("{namespace}/")).unwrap_or_default();
        format!("{}{dot}{}/{namespace}{name}", self.plural, self.group)
    }

    /// The cluster's interface for it.
    #[must_use]
    pub fn api(&self, client: Client, namespace: Option<&str>, kind: &str) -> Api<DynamicObject> {
        let resource = ApiResource {
            group: self.group.clone(),
            version: self.version.clone(),
            api_version: self.api_version(),
            kind: kind.to_owned(),
            plural: self.plural.clone(),
        };
        match namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, &resource),
            None => Api::all_with(client, &resource),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_and_names_follow_the_group() {
        let deployments = Resource::of_folder("apps", "v1", "deployments");
        assert_eq!(deployments.folder(), "objects/apps/v1/deployments");
        assert_eq!(deployments.api_version(), "apps/v1");
        assert_eq!(deployments.item(Some("shop"), "web"), "deployments.apps/shop/web");
        let namespaces = Resource::of_folder("core", "v1", "namespaces");
        assert_eq!(namespaces.folder(), "objects/core/v1/namespaces");
        assert_eq!(namespaces.api_version(), "v1");
        assert_eq!(namespaces.item(None, "shop"), "namespaces/shop");
        assert!(namespaces.is("", "namespaces") && !namespaces.is("core", "namespaces"));
    }
}
