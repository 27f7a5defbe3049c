//! What is restored, and under which names: decided from the `Restore`, the manifest, and the folders of the objects'
//! snapshot, before anything is written.

use std::collections::{BTreeMap, HashMap};

use shoot_backup_api::RestoreSpec;
use shoot_backup_api::backup::VolumePolicy;
use shoot_backup_api::manifest::{BackupManifest, VolumeEntry};
use shoot_backup_api::names::AGENT_NAMESPACE;
use shoot_backup_api::resource_filter::ResourceFilter;
use shoot_backup_repository::{Id, NodeKind, Reader, RepositoryError};

use super::resource::Resource;
use super::transform::Rules;
use super::waves::{Wave, rank};
use crate::backup::layout;

/// Why a `Restore` asks for something that cannot be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PlanError {
    /// A namespace that the backup does not have.
    #[error("namespace {namespace} in spec.{field} is not in the backup, which has: {available}")]
    UnknownNamespace {
        /// The namespace.
        namespace: String,
        /// Where it is named.
        field: &'static str,
        /// What the backup has.
        available: String,
    },
    /// A new name that no namespace can have.
    #[error("{name:?} in spec.namespaceMapping is no name for a namespace: use lower-case letters, digits and dashes")]
    InvalidName {
        /// The name.
        name: String,
    },
    /// Two namespaces under one name: their objects would overwrite each other.
    #[error("namespaces {one} and {other} would both become {here}: give one another name in spec.namespaceMapping")]
    SameName {
        /// The one.
        one: String,
        /// The other.
        other: String,
        /// The name that both would have.
        here: String,
    },
    /// The agent's own namespace.
    #[error("namespace {AGENT_NAMESPACE} is the agent's own: choose another in spec.namespaceMapping")]
    OwnNamespace,
}

/// One resource of the backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    /// Which.
    pub resource: Resource,
    /// Its folder in the objects' snapshot.
    pub tree: Id,
}

/// What is restored.
#[derive(Clone, Debug)]
pub struct Plan {
    /// New names.
    pub rules: Rules,
    /// The resources that are restored, in order of their waves.
    pub folders: Vec<Folder>,
    /// Where Namespace objects are, also if they are not restored as objects: what is restored needs them.
    pub namespaces: Option<Id>,
    /// Whether Namespace objects are asked for.
    pub wants_namespaces: bool,
    /// Whether claims are asked for.
    pub wants_claims: bool,
    /// Whether a claim that had a volume has to have its data: the backup was to have it, and it is to be restored.
    pub wants_data: bool,
    /// Data of claims, by namespace and name in the backup.
    pub volumes: HashMap<(String, String), VolumeEntry>,
}

impl Plan {
    /// The resources of one wave.
    pub fn of(&self, wave: Wave) -> impl Iterator<Item = &Folder> {
        self.folders.iter().filter(move |folder| Wave::of(&folder.resource) == wave)
    }

    /// The restored resource that has objects of this kind.
    #[must_use]
    pub fn folder_of_kind(&self, group: &str, kind: &str) -> Option<&Folder> {
        self.folders.iter().find(|folder| folder.resource.group == group && is_plural_of(&folder.resource.plural, kind))
    }
}

/// Makes the plan.
pub fn plan(
    spec: &RestoreSpec,
    manifest: &BackupManifest,
    folders: Vec<Folder>,
    restore_uid: &str,
) -> Result<Plan, PlanError> {
    let namespaces = namespaces(spec, &manifest.namespaces)?;
    let filter = ResourceFilter::new(&spec.included_resources, &spec.excluded_resources);
    let of_namespaces = |folder: &Folder| folder.resource.is("", "namespaces");
    let namespace_tree = folders.iter().find(|folder| of_namespaces(folder)).map(|folder| folder.tree);
    let mut wanted: Vec<Folder> = folders
        .into_iter()
        .filter(|folder| !of_namespaces(folder) && filter.wants(&folder.resource.group, &folder.resource.plural))
        .collect();
    wanted.sort_by_cached_key(|folder| (Wave::of(&folder.resource), rank(&folder.resource), folder.resource.clone()));
    let volumes = match spec.volumes {
        VolumePolicy::Exclude => HashMap::new(),
        VolumePolicy::Include => manifest
            .volumes
            .iter()
            .filter(|volume| namespaces.contains_key(&volume.namespace))
            .map(|volume| ((volume.namespace.clone(), volume.claim.clone()), volume.clone()))
            .collect(),
    };
    Ok(Plan {
        rules: Rules {
            namespaces,
            storage_classes: spec.storage_class_mapping.clone(),
            restore_uid: restore_uid.to_owned(),
        },
        folders: wanted,
        namespaces: namespace_tree,
        wants_namespaces: filter.wants("", "namespaces"),
        wants_claims: filter.wants("", "persistentvolumeclaims"),
        wants_data: spec.volumes == VolumePolicy::Include && manifest.spec.volumes == VolumePolicy::Include,
        volumes,
    })
}

/// Every restored namespace, from its name in the backup to its name here.
fn namespaces(spec: &RestoreSpec, available: &[String]) -> Result<BTreeMap<String, String>, PlanError> {
    let known = |namespace: &String, field: &'static str| {
        available.contains(namespace).then_some(()).ok_or_else(|| PlanError::UnknownNamespace {
            namespace: namespace.clone(),
            field,
            available: list(available),
        })
    };
    spec.included_namespaces.iter().try_for_each(|namespace| known(namespace, "includedNamespaces"))?;
    spec.namespace_mapping.keys().try_for_each(|namespace| known(namespace, "namespaceMapping"))?;
    let mut from: HashMap<&str, &str> = HashMap::new();
    let mut restored = BTreeMap::new();
    let included =
        |namespace: &&String| spec.included_namespaces.is_empty() || spec.included_namespaces.contains(namespace);
    for namespace in available.iter().filter(included) {
        let here = spec.namespace_mapping.get(namespace).unwrap_or(namespace);
        if here == AGENT_NAMESPACE {
            return Err(PlanError::OwnNamespace);
        }
        if !is_namespace_name(here) {
            return Err(PlanError::InvalidName { name: here.clone() });
        }
        if let Some(one) = from.insert(here, namespace) {
            return Err(PlanError::SameName { one: one.to_owned(), other: namespace.clone(), here: here.clone() });
        }
        restored.insert(namespace.clone(), here.clone());
    }
    Ok(restored)
}

/// The first names of a list, and how many more there are.
fn list(names: &[String]) -> String {
    const SHOWN: usize = 20;
    let shown = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        Some(more) => format!("{shown} and {more} more"),
        None => shown,
    }
}

/// A label of RFC 1123, as names of namespaces are.
fn is_namespace_name(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&name.len()) && name.bytes().all(inner) && !name.starts_with('-') && !name.ends_with('-')
}

/// Whether this plural is a kind's, by the rules that Kubernetes' own tools follow (`apimeta.UnsafeGuessKindToResource`).
fn is_plural_of(plural: &str, kind: &str) -> bool {
    let singular = kind.to_lowercase();
    let guess = if singular.ends_with('s') || singular.ends_with('x') || singular.ends_with("ch") {
        format!("{singular}es")
    } else if let Some(stem) = singular.strip_suffix('y') {
        format!("{stem}ies")
    } else {
        format!("{singular}s")
    };
    plural == guess || plural == singular
}

/// The resources of a backup: the folders `objects/<group or core>/<version>/<resource>` of its objects' snapshot.
pub async fn folders(reader: &Reader, snapshot: &Id) -> Result<Vec<Folder>, RepositoryError> {
    let mut folders = Vec::new();
    for group in directories(reader.entries(snapshot, layout::ROOT).await?) {
        for version in directories(reader.tree(&group.1).await?.nodes) {
            for resource in directories(reader.tree(&version.1).await?.nodes) {
                folders.push(Folder {
                    resource: Resource::of_folder(&group.0, &version.0, &resource.0),
                    tree: resource.1,
                });
            }
        }
    }
    Ok(folders)
}

/// The directories among entries, with their trees.
pub fn directories(nodes: Vec<shoot_backup_repository::Node>) -> impl Iterator<Item = (String, Id)> {
    nodes.into_iter().filter(|node| node.kind == NodeKind::Dir).filter_map(|node| {
        let tree = node.subtree?;
        Some((node.name.into_string().ok()?, tree))
    })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::{Value, json};
    use shoot_backup_api::manifest::ObjectsEntry;
    use shoot_backup_api::{BackupSpec, OperationPhase};

    use super::*;

    fn manifest() -> BackupManifest {
        let spec: BackupSpec = serde_json::from_value(json!({"cluster": "alpha", "location": "main"})).unwrap();
        let volume = |namespace: &str| VolumeEntry {
            namespace: namespace.to_owned(),
            claim: "data".to_owned(),
            snapshot: "s".to_owned(),
            storage_class: None,
            capacity: None,
            files: 1,
            bytes: 1,
        };
        BackupManifest {
            format_version: 1,
            name: "nightly".to_owned(),
            uid: "u".to_owned(),
            cluster: "alpha".to_owned(),
            cluster_uid: "c".to_owned(),
            kubernetes_version: "v1.34.0".to_owned(),
            agent_version: "0".to_owned(),
            spec,
            phase: OperationPhase::Completed,
            started: Timestamp::UNIX_EPOCH,
            completed: Timestamp::UNIX_EPOCH,
            namespaces: vec!["shop".to_owned(), "site".to_owned()],
            objects: ObjectsEntry::default(),
            volumes: vec![volume("shop"), volume("site")],
            skipped: Vec::new(),
            skipped_total: 0,
        }
    }

    fn planned(fields: &Value, folders: &[&str]) -> Result<Plan, PlanError> {
        let mut spec = json!({"cluster": "beta", "backup": "nightly"});
        spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let folders = folders
            .iter()
            .map(|path| {
                let parts: Vec<_> = path.split('/').collect();
                Folder { resource: Resource::of_folder(parts[0], parts[1], parts[2]), tree: Id::of(path.as_bytes()) }
            })
            .collect();
        plan(&serde_json::from_value(spec).unwrap(), &manifest(), folders, "r")
    }

    #[test]
    fn everything_is_restored_under_its_own_name_unless_told_otherwise() {
        let plan = planned(&json!({"namespaceMapping": {"shop": "shop-copy"}}), &[]).unwrap();
        let expected = [("shop", "shop-copy"), ("site", "site")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(plan.rules.namespaces, BTreeMap::from(expected));
        assert_eq!(plan.volumes.len(), 2);
    }

    #[test]
    fn only_included_namespaces_and_their_volumes_are_restored() {
        let plan = planned(&json!({"includedNamespaces": ["site"]}), &[]).unwrap();
        assert_eq!(plan.rules.namespaces.keys().collect::<Vec<_>>(), ["site"]);
        assert_eq!(plan.volumes.keys().collect::<Vec<_>>(), [&("site".to_owned(), "data".to_owned())]);
        assert!(planned(&json!({"volumes": "Exclude"}), &[]).unwrap().volumes.is_empty());
    }

    #[test]
    fn what_the_backup_does_not_have_is_refused_with_what_it_has() {
        let error = planned(&json!({"includedNamespaces": ["shops"]}), &[]).unwrap_err().to_string();
        assert_eq!(error, "namespace shops in spec.includedNamespaces is not in the backup, which has: shop, site");
        let error = planned(&json!({"namespaceMapping": {"x": "y"}}), &[]).unwrap_err().to_string();
        assert!(error.contains("namespaceMapping"), "{error}");
    }

    #[test]
    fn names_that_cannot_be_are_refused_before_anything_is_written() {
        let mapped = |name: &str| planned(&json!({"namespaceMapping": {"shop": name}}), &[]).unwrap_err();
        assert_eq!(mapped("shoot-backup"), PlanError::OwnNamespace);
        assert!(matches!(mapped("site"), PlanError::SameName { .. }));
        for name in ["", "Shop", "-shop", "shop-", "a.b", &"a".repeat(64)] {
            assert!(matches!(mapped(name), PlanError::InvalidName { .. }), "{name}");
        }
        // Two that swap names do not meet.
        planned(&json!({"namespaceMapping": {"shop": "site", "site": "shop"}}), &[]).unwrap();
    }

    #[test]
    fn resources_come_in_waves_and_excluded_ones_not_at_all() {
        let folders = [
            "apps/v1/deployments",
            "core/v1/configmaps",
            "core/v1/namespaces",
            "core/v1/pods",
            "core/v1/secrets",
            "core/v1/serviceaccounts",
        ];
        let plan = planned(&json!({"excludedResources": ["secrets"]}), &folders).unwrap();
        let order: Vec<_> = plan.folders.iter().map(|folder| folder.resource.plural.as_str()).collect();
        assert_eq!(order, ["serviceaccounts", "configmaps", "deployments", "pods"]);
        assert_eq!(plan.of(Wave::Workloads).count(), 2);
        assert!(plan.wants_namespaces);
        // Namespaces are needed also where they are not asked for.
        let plan = planned(&json!({"includedResources": ["configmaps"]}), &folders).unwrap();
        assert!(!plan.wants_namespaces && plan.namespaces.is_some());
    }

    #[test]
    fn the_folder_of_a_kind_is_found() {
        let folders = ["apps/v1/deployments", "networking.k8s.io/v1/networkpolicies", "networking.k8s.io/v1/ingresses"];
        let plan = planned(&json!({}), &folders).unwrap();
        assert!(plan.folder_of_kind("apps", "Deployment").is_some());
        assert!(plan.folder_of_kind("networking.k8s.io", "NetworkPolicy").is_some());
        assert!(plan.folder_of_kind("networking.k8s.io", "Ingress").is_some());
        assert!(plan.folder_of_kind("", "Deployment").is_none());
    }
}
