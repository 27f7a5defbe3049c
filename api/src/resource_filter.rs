//! Which resources belong in a backup. Everything does but what is on the deny-list, each entry with its reason: a
//! kind that nobody thought of is backed up, not lost.

/// A resource that never makes sense in a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denied {
    /// API group; empty for the core group. `"*"`-suffixed groups do not exist here: each is named.
    pub group: &'static str,
    /// Plural name; `*` for every resource of the group.
    pub resource: &'static str,
    /// Why.
    pub reason: &'static str,
}

/// The deny-list.
pub const DENIED: &[Denied] = &[
    Denied { group: "", resource: "events", reason: "history of the source cluster that expires by itself" },
    Denied { group: "events.k8s.io", resource: "*", reason: "history of the source cluster that expires by itself" },
    Denied { group: "", resource: "nodes", reason: "machines belong to the cluster, not to an application" },
    Denied { group: "", resource: "componentstatuses", reason: "computed by the API server" },
    Denied { group: "", resource: "bindings", reason: "a request, not an object" },
    Denied { group: "", resource: "endpoints", reason: "made from Services and Pods; manual ones are EndpointSlices" },
    Denied {
        group: "",
        resource: "persistentvolumes",
        reason: "storage of the source cluster; claims get new volumes",
    },
    Denied { group: "coordination.k8s.io", resource: "leases", reason: "held by running processes" },
    Denied { group: "storage.k8s.io", resource: "volumeattachments", reason: "state of the source cluster's nodes" },
    Denied { group: "storage.k8s.io", resource: "csinodes", reason: "state of the source cluster's nodes" },
    Denied { group: "storage.k8s.io", resource: "csistoragecapacities", reason: "state of the source cluster's nodes" },
    Denied {
        group: "snapshot.storage.k8s.io",
        resource: "*",
        reason: "snapshots live in the source cluster's storage",
    },
    Denied { group: "metrics.k8s.io", resource: "*", reason: "computed by the metrics server" },
    Denied { group: "custom.metrics.k8s.io", resource: "*", reason: "computed by an adapter" },
    Denied { group: "external.metrics.k8s.io", resource: "*", reason: "computed by an adapter" },
    Denied { group: "authentication.k8s.io", resource: "*", reason: "requests, not objects" },
    Denied { group: "authorization.k8s.io", resource: "*", reason: "requests, not objects" },
    Denied { group: "certificates.k8s.io", resource: "*", reason: "requests signed by the source cluster's authority" },
    Denied { group: "flowcontrol.apiserver.k8s.io", resource: "*", reason: "settings of the source API server" },
    Denied { group: "internal.apiserver.k8s.io", resource: "*", reason: "settings of the source API server" },
    Denied { group: "resource.k8s.io", resource: "resourceslices", reason: "state of the source cluster's nodes" },
    Denied { group: crate::names::GROUP, resource: "*", reason: "instructions of the management plane" },
];

/// Why a resource is not backed up; `None` if it is.
#[must_use]
pub fn denied(group: &str, resource: &str) -> Option<&'static str> {
    DENIED
        .iter()
        .find(|entry| entry.group == group && (entry.resource == "*" || entry.resource == resource))
        .map(|entry| entry.reason)
}

/// Included and excluded resources of a spec, as `resource` or `resource.group`.
#[derive(Clone, Copy, Debug)]
pub struct ResourceFilter<'a> {
    included: &'a [String],
    excluded: &'a [String],
}

impl<'a> ResourceFilter<'a> {
    /// Excluded wins over included; nothing included means everything.
    #[must_use]
    pub fn new(included: &'a [String], excluded: &'a [String]) -> Self {
        Self { included, excluded }
    }

    /// Whether a resource is wanted.
    #[must_use]
    pub fn wants(self, group: &str, resource: &str) -> bool {
        let named = |names: &[String]| names.iter().any(|name| names_resource(name, group, resource));
        !named(self.excluded) && (self.included.is_empty() || named(self.included))
    }
}

fn names_resource(name: &str, group: &str, resource: &str) -> bool {
    match name.split_once('.') {
        Some((name, named_group)) => name == resource && named_group == group,
        // Without a group a name means that resource of every group, as kubectl has it when it is not ambiguous.
        None => name == resource,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_kind_that_nobody_thought_of_is_backed_up() {
        assert_eq!(denied("example.org", "widgets"), None);
        assert_eq!(denied("", "configmaps"), None);
    }

    #[test]
    fn each_denied_resource_has_a_reason() {
        assert!(denied("", "events").is_some());
        assert!(denied("events.k8s.io", "events").is_some());
        assert!(DENIED.iter().all(|entry| !entry.reason.is_empty()));
    }

    #[test]
    fn excluded_wins_over_included() {
        let (included, excluded) = (names(&["configmaps", "deployments.apps"]), names(&["configmaps"]));
        let filter = ResourceFilter::new(&included, &excluded);
        assert!(!filter.wants("", "configmaps"));
        assert!(filter.wants("apps", "deployments"));
        assert!(!filter.wants("example.org", "deployments"));
        assert!(!filter.wants("", "secrets"));
        assert!(ResourceFilter::new(&[], &excluded).wants("", "secrets"));
    }
}
