//! Whether a cluster is looked after, and by whose wish. Pure: Shoot, discoveries and cluster in, decision out.

use shoot_backup_api::shoot::{FoundBy, Shoot};
use shoot_backup_api::{ApplicationCluster, ClusterDiscovery};

/// What `status.foundBy` says of a cluster that a person made.
pub const MANUAL: &str = "Manual";

/// Whether a cluster is looked after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Yes; the value of `status.foundBy`.
    Managed(String),
    /// Its Shoot is there, and nothing opts it in (any more); why.
    Unmanaged(String),
    /// Its Shoot is gone.
    Removed,
}

/// Who opts a Shoot of the own garden in. The Shoot's own word counts first, then the first discovery by name, then the
/// landscape. With `automatic`, discoveries that only run on demand do not count.
#[must_use]
pub fn found_by(
    shoot: &Shoot,
    discoveries: &[ClusterDiscovery],
    auto_enable: bool,
    automatic: bool,
) -> Option<FoundBy> {
    if shoot.opted_out() {
        return None;
    }
    if let Some(found) = shoot.opted_in() {
        return Some(found);
    }
    let mut selecting: Vec<&str> = discoveries
        .iter()
        .filter(|discovery| discovery.spec.garden.is_none() && discovery.metadata.deletion_timestamp.is_none())
        .filter(|discovery| discovery.spec.auto_discover || !automatic)
        // A selector that cannot be read selects nothing; the discovery's own status says so.
        .filter(|discovery| shoot.matches(&discovery.spec.shoot_selector) == Ok(true))
        .filter_map(|discovery| discovery.metadata.name.as_deref())
        .collect();
    selecting.sort_unstable();
    if let Some(name) = selecting.first() {
        return Some(FoundBy::Discovery((*name).to_owned()));
    }
    auto_enable.then_some(FoundBy::AutoEnabled)
}

/// Decides about a cluster whose Shoot is in the own garden.
#[must_use]
pub fn own(
    cluster: &ApplicationCluster,
    shoot: Option<&Shoot>,
    discoveries: &[ClusterDiscovery],
    auto_enable: bool,
) -> Decision {
    let Some(shoot) = shoot else { return Decision::Removed };
    if is_manual(cluster) {
        return manual(shoot);
    }
    // Until it is gone, a Shoot that is being deleted is what it was: its state says the rest.
    if shoot.metadata.deletion_timestamp.is_some()
        && let Some(found_by) = known_found_by(cluster)
    {
        return Decision::Managed(found_by.to_owned());
    }
    match found_by(shoot, discoveries, auto_enable, false) {
        Some(found) => Decision::Managed(found.to_string()),
        None if shoot.opted_out() => Decision::Unmanaged("the Shoot opts out".to_owned()),
        None => Decision::Unmanaged(
            "neither an annotation, nor an extension, nor a ClusterDiscovery opts the Shoot in any more".to_owned(),
        ),
    }
}

/// A cluster that a person made: only the owner of its Shoot can say no to it.
fn manual(shoot: &Shoot) -> Decision {
    if shoot.opted_out() && shoot.metadata.deletion_timestamp.is_none() {
        let why = "the Shoot opts out, which counts more than an ApplicationCluster made by hand";
        return Decision::Unmanaged(why.to_owned());
    }
    Decision::Managed(MANUAL.to_owned())
}

/// Decides about a cluster whose Shoot is in a foreign garden, reached through a discovery.
#[must_use]
pub fn foreign(cluster: &ApplicationCluster, shoot: Option<&Shoot>, discovery: &ClusterDiscovery) -> Decision {
    let Some(shoot) = shoot else { return Decision::Removed };
    if is_manual(cluster) {
        return manual(shoot);
    }
    let name = discovery.metadata.name.clone().unwrap_or_default();
    let found = FoundBy::Discovery(name.clone()).to_string();
    if shoot.metadata.deletion_timestamp.is_some() || shoot.matches(&discovery.spec.shoot_selector) == Ok(true) {
        return Decision::Managed(found);
    }
    if shoot.opted_out() {
        return Decision::Unmanaged("the Shoot opts out".to_owned());
    }
    Decision::Unmanaged(format!("the Shoot no longer matches the selector of ClusterDiscovery {name}"))
}

fn known_found_by(cluster: &ApplicationCluster) -> Option<&str> {
    cluster.status.as_ref()?.found_by.as_deref()
}

/// Whether a person made the cluster: it is then looked after whatever matches, unless its Shoot opts out. Discovery marks what it makes.
#[must_use]
pub fn is_manual(cluster: &ApplicationCluster) -> bool {
    match known_found_by(cluster) {
        Some(found_by) => found_by == MANUAL,
        None => !super::create::is_ours(cluster),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::discovery::create;
    use serde_json::json;
    use shoot_backup_api::names;

    pub(crate) fn shoot(name: &str, labels: &serde_json::Value, annotations: &serde_json::Value) -> Shoot {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "garden-demo", "uid": format!("uid-{name}"), "labels": labels,
                         "annotations": annotations},
        }))
        .unwrap()
    }

    pub(crate) fn discovery(name: &str, env: &str) -> ClusterDiscovery {
        serde_json::from_value(json!({
            "apiVersion": "shootbackup.extensions.gardener.cloud/v1alpha1", "kind": "ClusterDiscovery",
            "metadata": {"name": name, "namespace": "garden-demo"},
            "spec": {"shootSelector": {"matchLabels": {"env": env}}},
        }))
        .unwrap()
    }

    pub(crate) fn cluster(shoot: &str, found_by: Option<&str>) -> ApplicationCluster {
        let mut cluster = create::cluster("garden-demo", shoot, create::own_reference(shoot), None, None);
        if let Some(found_by) = found_by {
            cluster.status = Some(shoot_backup_api::ApplicationClusterStatus {
                found_by: Some(found_by.to_owned()),
                ..Default::default()
            });
        }
        cluster
    }

    #[test]
    fn the_shoots_own_word_counts_more_than_a_discovery_and_the_first_discovery_by_name_wins() {
        let discoveries = [discovery("b", "prod"), discovery("a", "prod")];
        let annotated = shoot("s", &json!({"env": "prod"}), &json!({names::ANNOTATION_ENABLED: "true"}));
        assert_eq!(found_by(&annotated, &discoveries, false, true), Some(FoundBy::Annotation));
        let plain = shoot("s", &json!({"env": "prod"}), &json!({}));
        assert_eq!(found_by(&plain, &discoveries, true, true), Some(FoundBy::Discovery("a".to_owned())));
        let other = shoot("s", &json!({}), &json!({}));
        assert_eq!(found_by(&other, &discoveries, false, true), None);
        assert_eq!(found_by(&other, &discoveries, true, true), Some(FoundBy::AutoEnabled));
    }

    #[test]
    fn a_discovery_on_demand_keeps_what_it_found_and_takes_nothing_in_by_itself() {
        let mut discovery = discovery("a", "prod");
        discovery.spec.auto_discover = false;
        let shoot = shoot("s", &json!({"env": "prod"}), &json!({}));
        let discoveries = [discovery];
        assert_eq!(found_by(&shoot, &discoveries, false, true), None);
        assert_eq!(found_by(&shoot, &discoveries, false, false), Some(FoundBy::Discovery("a".to_owned())));
    }

    #[test]
    fn a_cluster_is_unmanaged_when_nothing_matches_and_managed_again_when_something_does() {
        let cluster = cluster("s", Some("Discovery/a"));
        let discoveries = [discovery("a", "prod")];
        let matching = shoot("s", &json!({"env": "prod"}), &json!({}));
        let other = shoot("s", &json!({"env": "test"}), &json!({}));
        let decide = |shoot: Option<&Shoot>| own(&cluster, shoot, &discoveries, false);
        assert_eq!(decide(Some(&matching)), Decision::Managed("Discovery/a".to_owned()));
        assert!(matches!(decide(Some(&other)), Decision::Unmanaged(_)));
        assert_eq!(decide(None), Decision::Removed);
    }

    #[test]
    fn opting_out_wins_over_the_landscape() {
        let out = shoot("s", &json!({}), &json!({names::ANNOTATION_ENABLED: "false"}));
        assert!(matches!(own(&cluster("s", None), Some(&out), &[], true), Decision::Unmanaged(_)));
    }

    #[test]
    fn a_cluster_that_a_person_made_stays_whatever_matches_unless_its_shoot_opts_out() {
        let mut manual = cluster("s", None);
        manual.metadata.labels = None;
        let other = shoot("s", &json!({}), &json!({}));
        assert_eq!(own(&manual, Some(&other), &[], false), Decision::Managed(MANUAL.to_owned()));
        assert_eq!(own(&manual, None, &[], false), Decision::Removed);
        let out = shoot("s", &json!({}), &json!({names::ANNOTATION_ENABLED: "false"}));
        assert!(matches!(own(&manual, Some(&out), &[], false), Decision::Unmanaged(_)));
    }

    #[test]
    fn a_shoot_that_is_being_deleted_is_what_it_was() {
        let mut deleting = shoot("s", &json!({"env": "prod"}), &json!({}));
        deleting.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
        let decision = own(&cluster("s", Some("Discovery/a")), Some(&deleting), &[discovery("a", "prod")], false);
        assert_eq!(decision, Decision::Managed("Discovery/a".to_owned()));
    }
}
