//! How many federated credentials each identity needs. Entra ID accepts 20 on one identity, and has no wildcards.

use std::collections::{BTreeSet, HashMap};

use kube::ResourceExt;
use shoot_backup_api::application_cluster::ApplicationClusterPhase;
use shoot_backup_api::{ApplicationCluster, BackupLocation, names};

use crate::dispatch::selects;

/// From this many on it is said that the limit is near.
pub const NEAR: usize = names::MAX_FEDERATED_CREDENTIALS - 4;

/// Client ids that a cluster presents itself as: of the locations that it may use, and its own.
#[must_use]
pub fn client_ids(cluster: &ApplicationCluster, locations: &[BackupLocation]) -> BTreeSet<String> {
    let own = cluster.spec.identity.as_ref().map(|identity| identity.client_id.to_ascii_lowercase());
    let mut ids: BTreeSet<String> = own.into_iter().collect();
    for location in locations.iter().filter(|location| selects(location, cluster)) {
        if let Some(identity) = &location.spec.identity {
            ids.insert(identity.client_id.to_ascii_lowercase());
        }
    }
    ids
}

/// Issuers that each identity has to trust, counted over all projects: identities may be shared.
#[must_use]
pub fn count<'a>(
    projects: impl Iterator<Item = (&'a [ApplicationCluster], &'a [BackupLocation])>,
) -> HashMap<String, usize> {
    let mut issuers: HashMap<String, BTreeSet<String>> = HashMap::new();
    for (clusters, locations) in projects {
        for cluster in clusters {
            let Some(status) = &cluster.status else { continue };
            // A cluster that is gone needs no credential; one that may come back does.
            if status.phase == ApplicationClusterPhase::Removed {
                continue;
            }
            let issuer = status.workload_identity.as_ref().map(|identity| identity.issuer.clone());
            let issuer = issuer.filter(|issuer| !issuer.is_empty()).unwrap_or_else(|| {
                // Not published yet, and it will be one of its own.
                format!("{}/{}", cluster.namespace().unwrap_or_default(), cluster.name_any())
            });
            for id in client_ids(cluster, locations) {
                issuers.entry(id).or_default().insert(issuer.clone());
            }
        }
    }
    issuers.into_iter().map(|(id, issuers)| (id, issuers.len())).collect()
}

/// A warning if the limit is near or passed.
#[must_use]
pub fn warning(client_id: &str, credentials: usize) -> Option<String> {
    let limit = names::MAX_FEDERATED_CREDENTIALS;
    if credentials > limit {
        return Some(format!(
            "identity {client_id} would need {credentials} federated credentials, Entra ID accepts {limit}: give some \
             clusters another identity"
        ));
    }
    (credentials >= NEAR).then(|| {
        format!("identity {client_id} needs {credentials} of the {limit} federated credentials that Entra ID accepts")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::tests_support::{cluster, location};
    use shoot_backup_api::ApplicationClusterStatus;
    use shoot_backup_api::application_cluster::WorkloadIdentityStatus;

    const ID: &str = "11111111-1111-1111-1111-111111111111";

    fn with_issuer(name: &str, issuer: &str, phase: ApplicationClusterPhase) -> ApplicationCluster {
        let mut cluster = cluster(name);
        cluster.status = Some(ApplicationClusterStatus {
            phase,
            workload_identity: Some(WorkloadIdentityStatus { issuer: issuer.to_owned(), ..Default::default() }),
            ..Default::default()
        });
        cluster
    }

    #[test]
    fn one_credential_is_needed_for_each_issuer_and_none_for_a_cluster_that_is_gone() {
        let clusters = [
            with_issuer("a", "https://a", ApplicationClusterPhase::Ready),
            with_issuer("b", "https://b", ApplicationClusterPhase::Waiting),
            with_issuer("again", "https://b", ApplicationClusterPhase::Ready),
            with_issuer("gone", "https://c", ApplicationClusterPhase::Removed),
        ];
        let locations = [location("main", Some(ID))];
        let counts = count([(clusters.as_slice(), locations.as_slice())].into_iter());
        assert_eq!(counts.get(ID), Some(&2));
    }

    #[test]
    fn it_is_said_before_the_limit_is_reached_and_again_when_it_is_passed() {
        assert_eq!(warning(ID, NEAR - 1), None);
        assert!(warning(ID, NEAR).is_some_and(|text| text.contains("16 of the 20")));
        assert!(warning(ID, 21).is_some_and(|text| text.contains("another identity")));
    }
}
