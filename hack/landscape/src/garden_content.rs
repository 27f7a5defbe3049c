//! What lies in a garden: projects, a cloud profile, a seed, Shoots, and what Gardener's admission plugins want to find.

use serde_json::{Value, json};

/// The seed's name in the garden.
pub const SEED: &str = "local";
/// The project whose Shoots have clusters behind them.
pub const PROJECT: &str = "demo";
/// That project's namespace.
pub const PROJECT_NAMESPACE: &str = "garden-demo";
/// A project of other people.
pub const OTHER_PROJECT: &str = "other";
/// The version that all clusters run.
pub(crate) const KUBERNETES: &str = "1.34.4";
/// The one region.
pub(crate) const REGION: &str = "local";

/// Namespaces, projects and roles.
pub(crate) fn projects(discovery_host: &str) -> Vec<Value> {
    let mut objects = vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "garden", "labels": {"gardener.cloud/role": "garden"}}}),
        // Without it, no Shoot may ask for a managed issuer.
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": {"name": "service-account-issuer", "namespace": "garden", "labels": {"gardener.cloud/role": "shoot-service-account-issuer"}},
            "stringData": {"hostname": discovery_host},
        }),
        secret("internal-domain"),
        aggregate("member"),
        aggregate("viewer"),
    ];
    for project in [PROJECT, OTHER_PROJECT] {
        objects.extend(project_objects(project));
    }
    objects
}

fn secret(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": {"name": name, "namespace": "garden"},
        "stringData": {"note": "stands for DNS credentials; nobody uses it"},
    })
}

/// The role that all roles of this label add up to, as gardener-operator installs it.
fn aggregate(role: &str) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": format!("gardener.cloud:system:project-{role}")},
        "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {format!("rbac.gardener.cloud/aggregate-to-project-{role}"): "true"}}]},
        "rules": [],
    })
}

fn project_objects(project: &str) -> Vec<Value> {
    let namespace = format!("garden-{project}");
    let labels = json!({"gardener.cloud/role": "project", "project.gardener.cloud/name": project});
    let user = |name: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": format!("{name}@{project}.example")});
    let member = |name: &str, role: &str| {
        let mut member = user(name);
        member["role"] = json!(role);
        member
    };
    let binding = |role: &str, name: &str| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": format!("gardener.cloud:system:project-{role}"), "namespace": namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": format!("gardener.cloud:system:project-{role}")},
            "subjects": [user(name)],
        })
    };
    vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}}),
        json!({
            "apiVersion": "core.gardener.cloud/v1beta1", "kind": "Project", "metadata": {"name": project},
            "spec": {
                "namespace": namespace, "owner": user("owner"),
                "members": [member("owner", "admin"), member("viewer", "viewer")],
            },
        }),
        binding("member", "owner"),
        binding("viewer", "viewer"),
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": {"name": "cloud", "namespace": namespace},
            "stringData": {"note": "stands for cloud credentials; nobody uses it"},
        }),
        json!({
            "apiVersion": "security.gardener.cloud/v1alpha1", "kind": "CredentialsBinding", "metadata": {"name": "cloud", "namespace": namespace},
            "provider": {"type": "azure"},
            "credentialsRef": {"apiVersion": "v1", "kind": "Secret", "name": "cloud", "namespace": namespace},
        }),
    ]
}

/// The cloud profile, registrations for every extension kind in use, and the seed.
pub(crate) fn infrastructure() -> Vec<Value> {
    let kinds = [
        ("ControlPlane", "azure"),
        ("Infrastructure", "azure"),
        ("Worker", "azure"),
        ("BackupBucket", "azure"),
        ("BackupEntry", "azure"),
        ("Bastion", "azure"),
        ("DNSRecord", "azure-dns"),
        ("Network", "calico"),
        ("OperatingSystemConfig", "gardenlinux"),
        // So that a Shoot may name the extension before the real registration is installed.
        ("Extension", "shoot-backup"),
    ];
    let registrations = kinds.map(|(kind, r#type)| {
        json!({
            "apiVersion": "core.gardener.cloud/v1beta1", "kind": "ControllerRegistration",
            "metadata": {"name": format!("landscape-{}-{type}", kind.to_lowercase())},
            "spec": {"resources": [{"kind": kind, "type": r#type}]},
        })
    });
    registrations.into_iter().chain([cloud_profile(), seed()]).collect()
}

fn cloud_profile() -> Value {
    json!({
        "apiVersion": "core.gardener.cloud/v1beta1", "kind": "CloudProfile", "metadata": {"name": "azure"},
        "spec": {
            "type": "azure",
            "kubernetes": {"versions": [{"version": KUBERNETES}]},
            "machineImages": [{
                "name": "gardenlinux",
                "versions": [{"version": "1877.3.0", "architectures": ["amd64"], "cri": [{"name": "containerd"}]}],
            }],
            "machineTypes": [{"name": "Standard_D2s_v5", "cpu": "2", "gpu": "0", "memory": "8Gi", "architecture": "amd64", "usable": true}],
            "volumeTypes": [{"name": "StandardSSD_LRS", "class": "standard", "usable": true}],
            "regions": [{"name": REGION, "zones": [{"name": "1"}]}],
        },
    })
}

fn seed() -> Value {
    let reference = json!({"apiVersion": "v1", "kind": "Secret", "name": "internal-domain", "namespace": "garden"});
    json!({
        "apiVersion": "core.gardener.cloud/v1beta1", "kind": "Seed",
        "metadata": {"name": SEED, "labels": {"seed.gardener.cloud/region": REGION}},
        "spec": {
            "provider": {"type": "azure", "region": REGION, "zones": ["1"]},
            "networks": {"nodes": "10.240.0.0/16", "pods": "10.241.128.0/17", "services": "10.241.0.0/17"},
            "ingress": {"domain": "ingress.local.example", "controller": {"kind": "nginx"}},
            "dns": {
                "provider": {"type": "azure-dns", "credentialsRef": reference},
                "internal": {"type": "azure-dns", "domain": "internal.local.example", "credentialsRef": reference},
            },
            "settings": {"scheduling": {"visible": true}},
        },
    })
}

/// A Shoot of a project, on the landscape's seed.
pub(crate) fn shoot(project: &str, name: &str, hibernated: bool) -> Value {
    json!({
        "apiVersion": "core.gardener.cloud/v1beta1", "kind": "Shoot",
        "metadata": {"name": name, "namespace": format!("garden-{project}"), "labels": {"purpose": "landscape"}},
        "spec": {
            "seedName": SEED,
            "cloudProfile": {"kind": "CloudProfile", "name": "azure"},
            "credentialsBindingName": "cloud",
            "region": REGION,
            "purpose": "evaluation",
            "kubernetes": {"version": KUBERNETES},
            "networking": {"type": "calico", "nodes": "10.250.0.0/16", "pods": "100.64.0.0/12", "services": "100.112.0.0/13"},
            "provider": {
                "type": "azure",
                "workers": [{
                    "name": "worker", "minimum": 1, "maximum": 1, "cri": {"name": "containerd"},
                    "machine": {
                        "type": "Standard_D2s_v5", "architecture": "amd64",
                        "image": {"name": "gardenlinux", "version": "1877.3.0"},
                    },
                    "volume": {"type": "StandardSSD_LRS", "size": "50Gi"},
                }],
            },
            "hibernation": {"enabled": hibernated},
            "maintenance": {"autoUpdate": {"kubernetesVersion": false, "machineImageVersion": false}},
        },
    })
}
