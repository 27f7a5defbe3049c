//! The order in which objects come back.

use super::resource::Resource;

/// One step of a restore. What a later wave makes may need what an earlier one made, never the other way round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Wave {
    /// Namespaces.
    Namespaces,
    /// Definitions of custom resources; the next wave begins when they are established.
    Definitions,
    /// What is shared by the whole cluster and that pods, claims or accounts name.
    ClusterWide,
    /// Accounts, their rights, settings, and the network rules that have to hold before the first pod runs.
    Configuration,
    /// Volume claims with their data. Before custom resources: an operator that sees its custom resource makes the
    /// claims that are missing, empty ones, and a claim that is there is never overwritten.
    Claims,
    /// Custom resources.
    CustomResources,
    /// Services, before the pods whose environment they fill.
    Services,
    /// Everything that runs pods.
    Workloads,
    /// Everything else: ingresses, autoscalers, disruption budgets, and quotas, which must not count a restore's race.
    Others,
    /// What stands between the API server and all other objects; its servers are restored by now.
    Admission,
}

impl Wave {
    /// All waves in order.
    pub const ALL: [Self; 10] = [
        Self::Namespaces,
        Self::Definitions,
        Self::ClusterWide,
        Self::Configuration,
        Self::Claims,
        Self::CustomResources,
        Self::Services,
        Self::Workloads,
        Self::Others,
        Self::Admission,
    ];

    /// The wave of a resource.
    #[must_use]
    pub fn of(resource: &Resource) -> Self {
        match (resource.group.as_str(), resource.plural.as_str()) {
            ("", "namespaces") => Self::Namespaces,
            ("apiextensions.k8s.io", "customresourcedefinitions") => Self::Definitions,
            ("storage.k8s.io", "storageclasses" | "volumeattributesclasses" | "csidrivers")
            | ("scheduling.k8s.io", "priorityclasses")
            | ("networking.k8s.io", "ingressclasses")
            | ("node.k8s.io", "runtimeclasses")
            | ("resource.k8s.io", "deviceclasses")
            | ("rbac.authorization.k8s.io", "clusterroles" | "clusterrolebindings") => Self::ClusterWide,
            ("", "serviceaccounts" | "secrets" | "configmaps" | "limitranges" | "podtemplates")
            | ("rbac.authorization.k8s.io", "roles" | "rolebindings")
            | ("resource.k8s.io", "resourceclaimtemplates")
            | ("networking.k8s.io", "networkpolicies") => Self::Configuration,
            ("", "persistentvolumeclaims") => Self::Claims,
            ("", "services") => Self::Services,
            ("", "pods" | "replicationcontrollers")
            | ("apps", "replicasets" | "deployments" | "statefulsets" | "daemonsets")
            | ("batch", "jobs" | "cronjobs") => Self::Workloads,
            ("admissionregistration.k8s.io" | "apiregistration.k8s.io", _) => Self::Admission,
            (group, _) if is_built_in(group) => Self::Others,
            _ => Self::CustomResources,
        }
    }

    /// Name for people and for progress.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Namespaces => "Namespaces",
            Self::Definitions => "CustomResourceDefinitions",
            Self::ClusterWide => "ClusterWide",
            Self::Configuration => "Configuration",
            Self::Claims => "Volumes",
            Self::CustomResources => "CustomResources",
            Self::Services => "Services",
            Self::Workloads => "Workloads",
            Self::Others => "Others",
            Self::Admission => "Admission",
        }
    }
}

/// Groups that the API server serves itself. Its own groups are either without a dot or below `k8s.io`; groups below
/// `k8s.io` may be custom too (`gateway.networking.k8s.io`), so those are named one by one.
fn is_built_in(group: &str) -> bool {
    !group.contains('.')
        || matches!(
            group,
            "admissionregistration.k8s.io"
                | "apiextensions.k8s.io"
                | "apiregistration.k8s.io"
                | "authentication.k8s.io"
                | "authorization.k8s.io"
                | "certificates.k8s.io"
                | "coordination.k8s.io"
                | "discovery.k8s.io"
                | "events.k8s.io"
                | "flowcontrol.apiserver.k8s.io"
                | "internal.apiserver.k8s.io"
                | "networking.k8s.io"
                | "node.k8s.io"
                | "rbac.authorization.k8s.io"
                | "resource.k8s.io"
                | "scheduling.k8s.io"
                | "storage.k8s.io"
                | "storagemigration.k8s.io"
        )
}

/// Order within a wave: roles and accounts before what names them, so that admission plugins that look them up find
/// them; single pods and Jobs after the workloads that serve them.
#[must_use]
pub fn rank(resource: &Resource) -> u8 {
    match resource.plural.as_str() {
        "serviceaccounts" | "clusterroles" | "roles" => 0,
        "configmaps" | "secrets" | "limitranges" => 1,
        "pods" | "jobs" | "cronjobs" => 3,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(group: &str, plural: &str) -> Wave {
        Wave::of(&Resource { group: group.to_owned(), version: "v1".to_owned(), plural: plural.to_owned() })
    }

    #[test]
    fn waves_come_in_the_order_of_what_needs_what() {
        let order = [
            wave("", "namespaces"),
            wave("apiextensions.k8s.io", "customresourcedefinitions"),
            wave("rbac.authorization.k8s.io", "clusterrolebindings"),
            wave("", "secrets"),
            wave("", "persistentvolumeclaims"),
            wave("example.org", "widgets"),
            wave("", "services"),
            wave("apps", "deployments"),
            wave("networking.k8s.io", "ingresses"),
            wave("admissionregistration.k8s.io", "validatingwebhookconfigurations"),
        ];
        assert_eq!(order, Wave::ALL);
        assert!(order.is_sorted());
    }

    #[test]
    fn claims_come_before_the_operators_that_would_make_empty_ones() {
        assert!(wave("", "persistentvolumeclaims") < wave("postgresql.example.org", "clusters"));
    }

    #[test]
    fn quotas_and_autoscalers_come_after_what_they_govern() {
        assert!(wave("", "resourcequotas") > wave("apps", "statefulsets"));
        assert!(wave("autoscaling", "horizontalpodautoscalers") > wave("apps", "deployments"));
        assert!(wave("policy", "poddisruptionbudgets") > wave("", "pods"));
    }

    #[test]
    fn a_custom_group_below_k8s_io_is_custom() {
        assert_eq!(wave("gateway.networking.k8s.io", "httproutes"), Wave::CustomResources);
        assert_eq!(wave("discovery.k8s.io", "endpointslices"), Wave::Others);
    }

    #[test]
    fn network_policies_hold_before_the_first_pod_runs() {
        assert!(wave("networking.k8s.io", "networkpolicies") < wave("", "pods"));
    }
}
