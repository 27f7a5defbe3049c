//! Services, their endpoints, and network policies.

use serde_json::Value;
use shoot_backup_api::names::MANAGED_BY;

use super::rules::Rules;

/// Label of slices: who makes them.
const SLICE_MANAGER: &str = "endpointslice.kubernetes.io/managed-by";
/// The controller that makes slices from a Service and its Pods.
const SLICE_CONTROLLER: &str = "endpointslice-controller.k8s.io";
/// The controller that makes slices from Endpoints that people wrote for a Service without a selector.
const MIRRORING_CONTROLLER: &str = "endpointslicemirroring-controller.k8s.io";

/// The API server's own Service.
pub(super) fn service_of_the_cluster(object: &Value) -> Option<&'static str> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    (text("/metadata/namespace") == Some("default") && text("/metadata/name") == Some("kubernetes"))
        .then_some("the API server's own Service")
}

/// A slice that a controller makes; those that people made are restored.
pub(super) fn slice_of_a_controller(object: &Value) -> Option<&'static str> {
    let manager = object.pointer("/metadata/labels")?.get(SLICE_MANAGER).and_then(Value::as_str)?;
    (manager == SLICE_CONTROLLER).then_some("made from a Service and its Pods")
}

/// A slice that mirrors Endpoints stands on its own from now on: Endpoints are not in a backup, and the mirroring
/// controller would remove a slice of its own that mirrors nothing.
pub(super) fn slice(object: &mut Value) {
    let label = object.pointer_mut("/metadata/labels").and_then(|labels| labels.get_mut(SLICE_MANAGER));
    if let Some(label) = label.filter(|label| label.as_str() == Some(MIRRORING_CONTROLLER)) {
        *label = Value::from(MANAGED_BY);
    }
}

/// Drops the addresses and ports that the source cluster assigned. A headless Service stays headless.
pub(super) fn service(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return };
    spec.remove("healthCheckNodePort");
    if spec.get("clusterIP").and_then(Value::as_str) != Some("None") {
        spec.remove("clusterIP");
        spec.remove("clusterIPs");
    }
    for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(port) = port.as_object_mut() {
            port.remove("nodePort");
        }
    }
}

/// Rules that name namespaces by name follow the new names.
pub(super) fn policy(object: &mut Value, rules: &Rules) {
    let Some(spec) = object.get_mut("spec") else { return };
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for rule in spec.get_mut(direction).and_then(Value::as_array_mut).into_iter().flatten() {
            for peer in rule.get_mut(peers).and_then(Value::as_array_mut).into_iter().flatten() {
                rules.rename_selector(peer.get_mut("namespaceSelector"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::test_support::{kept, skipped};

    #[test]
    fn a_service_asks_for_new_addresses_and_ports() {
        let service = json!({"spec": {
            "type": "LoadBalancer", "clusterIP": "10.0.0.7", "clusterIPs": ["10.0.0.7"], "healthCheckNodePort": 30001,
            "ports": [{"port": 80, "targetPort": 8080, "nodePort": 30080}], "selector": {"app": "web"},
        }, "status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}}});
        let service = kept("core/v1/services", "Service", &service).object;
        let expected = json!({
            "type": "LoadBalancer", "ports": [{"port": 80, "targetPort": 8080}], "selector": {"app": "web"},
        });
        assert_eq!(service["spec"], expected);
        assert!(service.get("status").is_none());
    }

    #[test]
    fn a_headless_service_stays_headless() {
        let headless = json!({"spec": {"clusterIP": "None", "clusterIPs": ["None"]}});
        let service = kept("core/v1/services", "Service", &headless).object;
        assert_eq!(service["spec"], headless["spec"]);
    }

    #[test]
    fn the_api_servers_own_service_is_left_alone() {
        let own = json!({"metadata": {"name": "kubernetes", "namespace": "default"}});
        assert!(skipped("core/v1/services", "Service", &own).contains("API server"));
        kept("core/v1/services", "Service", &json!({"metadata": {"name": "kubernetes"}}));
    }

    #[test]
    fn slices_of_a_controller_are_made_again_and_those_of_people_are_restored() {
        let labelled =
            |manager: &str| json!({"metadata": {"labels": {"endpointslice.kubernetes.io/managed-by": manager}}});
        let resource = "discovery.k8s.io/v1/endpointslices";
        skipped(resource, "EndpointSlice", &labelled("endpointslice-controller.k8s.io"));
        // It is all that is left of Endpoints that people wrote.
        let mirrored = kept(resource, "EndpointSlice", &labelled("endpointslicemirroring-controller.k8s.io")).object;
        assert_eq!(mirrored["metadata"]["labels"], labelled("shoot-backup")["metadata"]["labels"]);
        kept(resource, "EndpointSlice", &labelled("staff"));
        kept(resource, "EndpointSlice", &json!({}));
    }

    #[test]
    fn a_policy_that_names_a_namespace_follows_its_new_name() {
        let selector =
            |name: &str| json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}});
        let spec = |name: &str| {
            json!({
                "podSelector": {},
                "ingress": [{"from": [selector(name), {"ipBlock": {"cidr": "10.0.0.0/8"}}]}],
                "egress": [{"to": [selector("other")]}],
            })
        };
        let policy =
            kept("networking.k8s.io/v1/networkpolicies", "NetworkPolicy", &json!({"spec": spec("shop")})).object;
        assert_eq!(policy["spec"], spec("shop-copy"));
    }
}
