//! One run of a discovery as a pure decision: which clusters to make, and the counts.

use shoot_backup_api::application_cluster::{ApplicationClusterPhase, ShootReference, condition};
use shoot_backup_api::cluster_discovery::DiscoveryCounts;
use shoot_backup_api::operation::{ItemError, MAX_ERRORS};
use shoot_backup_api::selector::{self, InvalidSelector};
use shoot_backup_api::shoot::{FoundBy, Shoot};
use shoot_backup_api::{ApplicationCluster, ClusterDiscovery, conditions};

use super::selection::is_manual;

/// Reason of condition `Managed` of a cluster that came back.
pub const REMANAGED: &str = "Remanaged";

/// A Shoot that a discovery sees.
pub struct Candidate<'a> {
    /// The Shoot.
    pub shoot: &'a Shoot,
    /// Name that its cluster has or would have.
    pub cluster_name: String,
    /// How its cluster refers to it.
    pub reference: ShootReference,
    /// Who opts it in.
    pub found_by: Option<FoundBy>,
}

/// What to do, and what to tell.
#[derive(Debug, Default)]
pub struct Plan {
    /// Positions of the candidates that need a cluster.
    pub create: Vec<usize>,
    /// The counts, as if everything worked.
    pub counts: DiscoveryCounts,
    /// The first things that do not work.
    pub errors: Vec<ItemError>,
}

impl Plan {
    /// Notes a Shoot that could not be taken in.
    pub fn failed(&mut self, item: String, message: String) {
        self.counts.failed += 1;
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(ItemError { item, message });
        }
    }
}

/// Plans one run.
pub fn plan(
    discovery: &ClusterDiscovery,
    candidates: &[Candidate<'_>],
    clusters: &[ApplicationCluster],
) -> Result<Plan, InvalidSelector> {
    let mut plan = Plan::default();
    let this = FoundBy::Discovery(discovery.metadata.name.clone().unwrap_or_default());
    let none = std::collections::BTreeMap::new();
    // Said also where there is no Shoot to try it on.
    selector::matches(&discovery.spec.shoot_selector, &none)?;
    for (position, candidate) in candidates.iter().enumerate() {
        let labels = candidate.shoot.metadata.labels.as_ref().unwrap_or(&none);
        if candidate.shoot.metadata.deletion_timestamp.is_some()
            || !selector::matches(&discovery.spec.shoot_selector, labels)?
        {
            continue;
        }
        plan.counts.discovered += 1;
        let cluster = clusters.iter().find(|cluster| cluster.spec.shoot_ref.as_ref() == Some(&candidate.reference));
        if candidate.found_by.as_ref() != Some(&this) || cluster.is_some_and(is_manual) {
            plan.counts.skipped += 1;
            continue;
        }
        if let Some(cluster) = cluster {
            plan.counts.associated += 1;
            plan.counts.remanaged += i64::from(came_back(cluster));
            continue;
        }
        let taken = clusters.iter().find(|cluster| cluster.metadata.name.as_deref() == Some(&candidate.cluster_name));
        match taken {
            None => {
                plan.create.push(position);
                plan.counts.associated += 1;
            }
            // Found by another discovery of the same foreign garden.
            Some(taken) if is_same_shoot(taken, &candidate.reference) => plan.counts.skipped += 1,
            Some(_) => plan.failed(
                format!("shoot {}", candidate.shoot.metadata.name.as_deref().unwrap_or_default()),
                format!(
                    "ApplicationCluster {} exists and is another cluster: rename it, or delete it",
                    candidate.cluster_name
                ),
            ),
        }
    }
    count_lost(discovery, candidates, clusters, &this, &mut plan)?;
    Ok(plan)
}

/// Counts clusters of this discovery whose Shoot is gone or no longer matches.
fn count_lost(
    discovery: &ClusterDiscovery,
    candidates: &[Candidate<'_>],
    clusters: &[ApplicationCluster],
    this: &FoundBy,
    plan: &mut Plan,
) -> Result<(), InvalidSelector> {
    for cluster in clusters {
        let found_by = cluster.status.as_ref().and_then(|status| status.found_by.as_deref());
        if found_by != Some(this.to_string().as_str()) {
            continue;
        }
        let candidate =
            candidates.iter().find(|candidate| Some(&candidate.reference) == cluster.spec.shoot_ref.as_ref());
        match candidate {
            None => plan.counts.removed += 1,
            Some(candidate) if candidate.shoot.metadata.deletion_timestamp.is_some() => {}
            Some(candidate) => {
                let matches = candidate.shoot.matches(&discovery.spec.shoot_selector)?;
                plan.counts.unmanaged += i64::from(!matches && candidate.found_by.is_none());
            }
        }
    }
    Ok(())
}

fn came_back(cluster: &ApplicationCluster) -> bool {
    cluster.status.as_ref().is_some_and(|status| {
        let lost = matches!(status.phase, ApplicationClusterPhase::Unmanaged | ApplicationClusterPhase::Removed);
        let reason = conditions::find(&status.conditions, condition::MANAGED).map(|managed| managed.reason.as_str());
        lost || reason == Some(REMANAGED)
    })
}

fn is_same_shoot(cluster: &ApplicationCluster, reference: &ShootReference) -> bool {
    cluster.spec.shoot_ref.as_ref().is_some_and(|existing| {
        existing.name == reference.name
            && existing.namespace == reference.namespace
            && existing.discovery.is_some() == reference.discovery.is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::create::own_reference;
    use crate::discovery::selection::{self, tests};
    use serde_json::json;
    use shoot_backup_api::names;

    fn run(shoots: &[Shoot], clusters: &[ApplicationCluster]) -> Plan {
        let discovery = tests::discovery("a", "prod");
        let discoveries = [discovery.clone()];
        let candidates: Vec<_> = shoots
            .iter()
            .map(|shoot| {
                let name = shoot.metadata.name.clone().unwrap();
                Candidate {
                    shoot,
                    reference: own_reference(&name),
                    cluster_name: name,
                    found_by: selection::found_by(shoot, &discoveries, false, false),
                }
            })
            .collect();
        plan(&discovery, &candidates, clusters).unwrap()
    }

    #[test]
    fn a_matching_shoot_gets_a_cluster_and_others_do_not() {
        let prod = tests::shoot("p", &json!({"env": "prod"}), &json!({}));
        let test = tests::shoot("t", &json!({"env": "test"}), &json!({}));
        let plan = run(&[prod, test], &[]);
        assert_eq!(plan.create, [0]);
        assert_eq!(plan.counts, DiscoveryCounts { discovered: 1, associated: 1, ..Default::default() });
    }

    #[test]
    fn a_shoot_that_opts_out_or_opts_in_by_itself_is_skipped() {
        let out = tests::shoot("o", &json!({"env": "prod"}), &json!({names::ANNOTATION_ENABLED: "false"}));
        let own = tests::shoot("i", &json!({"env": "prod"}), &json!({names::ANNOTATION_ENABLED: "true"}));
        let plan = run(&[out, own], &[]);
        assert!(plan.create.is_empty());
        assert_eq!(plan.counts, DiscoveryCounts { discovered: 2, skipped: 2, ..Default::default() });
    }

    #[test]
    fn clusters_whose_shoot_is_gone_or_no_longer_matches_are_counted_and_kept() {
        let other = tests::shoot("u", &json!({"env": "test"}), &json!({}));
        let plan = run(&[other], &[tests::cluster("u", Some("Discovery/a")), tests::cluster("g", Some("Discovery/a"))]);
        assert_eq!(plan.counts, DiscoveryCounts { removed: 1, unmanaged: 1, ..Default::default() });
    }

    #[test]
    fn a_cluster_that_matches_again_counts_as_remanaged() {
        let shoot = tests::shoot("r", &json!({"env": "prod"}), &json!({}));
        let mut cluster = tests::cluster("r", Some("Discovery/a"));
        if let Some(status) = cluster.status.as_mut() {
            status.phase = ApplicationClusterPhase::Unmanaged;
        }
        let plan = run(&[shoot], &[cluster]);
        assert_eq!(plan.counts, DiscoveryCounts { discovered: 1, associated: 1, remanaged: 1, ..Default::default() });
    }

    #[test]
    fn a_name_that_another_cluster_has_is_an_error_that_names_it() {
        let shoot = tests::shoot("n", &json!({"env": "prod"}), &json!({}));
        let mut other = tests::cluster("n", None);
        other.spec.shoot_ref = Some(own_reference("different"));
        let plan = run(&[shoot], &[other]);
        assert!(plan.create.is_empty());
        assert_eq!(plan.counts.failed, 1);
        assert!(plan.errors[0].message.contains("ApplicationCluster n"));
    }
}
