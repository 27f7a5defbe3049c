//! The cluster's workload identity: which federated credential it needs, and whether it was seen to work.

use std::collections::BTreeSet;

use kube::ResourceExt;
use shoot_backup_api::application_cluster::{ClusterLocation, WorkloadIdentityStatus};
use shoot_backup_api::backup_location::{LocationCluster, VerbOutcome};
use shoot_backup_api::{ApplicationCluster, BackupLocation, names};

use crate::dispatch::selects;

/// The verb that proves the identity.
const TOKEN_EXCHANGE: &str = "TokenExchange";

/// What is known of the issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Issuer {
    /// It is published.
    Known(String),
    /// It is not, and this is what has to happen.
    Missing(String),
}

/// The locations that a cluster may use, and whether it can.
#[must_use]
pub fn locations(cluster: &ApplicationCluster, all: &[BackupLocation]) -> Vec<ClusterLocation> {
    let mut locations: Vec<ClusterLocation> = all
        .iter()
        .filter(|location| selects(location, cluster))
        .map(|location| ClusterLocation {
            name: location.name_any(),
            phase: entry(location, cluster).map(|entry| entry.phase).unwrap_or_default(),
        })
        .collect();
    locations.sort_by(|left, right| left.name.cmp(&right.name));
    // As many as the kind allows.
    locations.truncate(64);
    locations
}

fn entry<'a>(location: &'a BackupLocation, cluster: &ApplicationCluster) -> Option<&'a LocationCluster> {
    let name = cluster.name_any();
    location.status.as_ref()?.clusters.iter().find(|entry| entry.name == name)
}

fn exchange(entry: &LocationCluster) -> Option<VerbOutcome> {
    entry.verbs.iter().find(|verb| verb.verb == TOKEN_EXCHANGE).map(|verb| verb.outcome)
}

/// The status of the identity.
#[must_use]
pub fn status(
    cluster: &ApplicationCluster,
    issuer: &Issuer,
    client_ids: &BTreeSet<String>,
    all: &[BackupLocation],
) -> WorkloadIdentityStatus {
    let mut identity = WorkloadIdentityStatus {
        subject: names::TOKEN_SUBJECT.to_owned(),
        audience: names::TOKEN_AUDIENCE.to_owned(),
        ..WorkloadIdentityStatus::default()
    };
    match issuer {
        Issuer::Known(issuer) => issuer.clone_into(&mut identity.issuer),
        Issuer::Missing(message) => identity.missing = Some(message.clone()),
    }
    let entries: Vec<&LocationCluster> = all
        .iter()
        .filter(|location| selects(location, cluster))
        .filter_map(|location| entry(location, cluster))
        .collect();
    let verified = entries
        .iter()
        .filter(|entry| exchange(entry) == Some(VerbOutcome::Succeeded))
        .max_by_key(|entry| entry.time.as_ref().map(|time| time.0));
    if let Some(entry) = verified {
        identity.verified_at.clone_from(&entry.time);
        identity.verified_by.clone_from(&entry.client_id);
    }
    let refused = entries.iter().find(|entry| exchange(entry) == Some(VerbOutcome::Failed));
    match (identity.missing.is_some(), refused, verified) {
        (true, ..) | (false, None, Some(_)) => {}
        (false, Some(entry), _) => identity.missing = Some(entry.message.clone()),
        (false, None, None) => identity.missing = Some(needed(&identity.issuer, client_ids)),
    }
    identity
}

/// The exact credential to create.
fn needed(issuer: &str, client_ids: &BTreeSet<String>) -> String {
    let whom = match client_ids.len() {
        0 => "the identity that the location will name".to_owned(),
        _ => format!("client id {}", client_ids.iter().cloned().collect::<Vec<_>>().join(", ")),
    };
    format!(
        "not verified yet; {whom} needs a federated credential with issuer {issuer}, subject {}, audience {}",
        names::TOKEN_SUBJECT,
        names::TOKEN_AUDIENCE
    )
}

/// The command that creates it, for the event.
#[must_use]
pub fn command(project: &str, cluster: &str, identity: &WorkloadIdentityStatus) -> String {
    format!(
        "az identity federated-credential create --name shoot-backup-{project}-{cluster} --identity-name <identity> \
         --resource-group <group> --issuer {} --subject {} --audiences {}",
        identity.issuer, identity.subject, identity.audience
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::tests_support::{cluster, location};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use shoot_backup_api::BackupLocationStatus;
    use shoot_backup_api::backup_location::{LocationPhase, VerbResult};

    fn tried(outcome: VerbOutcome, message: &str) -> BackupLocation {
        let mut location = location("main", Some("id"));
        location.status = Some(BackupLocationStatus {
            clusters: vec![LocationCluster {
                name: "alpha".to_owned(),
                phase: LocationPhase::Valid,
                time: Some(Time(jiff::Timestamp::UNIX_EPOCH)),
                client_id: Some("id".to_owned()),
                message: message.to_owned(),
                verbs: vec![VerbResult { verb: TOKEN_EXCHANGE.to_owned(), outcome, code: None }],
                ..LocationCluster::default()
            }],
            ..BackupLocationStatus::default()
        });
        location
    }

    fn known() -> Issuer {
        Issuer::Known("https://issuer.example.org".to_owned())
    }

    #[test]
    fn an_identity_that_was_never_tried_names_the_credential_to_create() {
        let ids = BTreeSet::from(["id".to_owned()]);
        let identity = status(&cluster("alpha"), &known(), &ids, &[]);
        let missing = identity.missing.clone().unwrap();
        for part in ["id", "https://issuer.example.org", names::TOKEN_SUBJECT, names::TOKEN_AUDIENCE] {
            assert!(missing.contains(part), "{missing}");
        }
        let command = command("demo", "alpha", &identity);
        assert!(command.contains("--issuer https://issuer.example.org"), "{command}");
    }

    #[test]
    fn a_token_exchange_that_worked_verifies_the_identity() {
        let locations = [tried(VerbOutcome::Succeeded, "")];
        let identity = status(&cluster("alpha"), &known(), &BTreeSet::new(), &locations);
        assert_eq!(identity.verified_by.as_deref(), Some("id"));
        assert_eq!(identity.missing, None);
    }

    #[test]
    fn a_token_exchange_that_failed_says_what_the_agent_said() {
        let locations = [tried(VerbOutcome::Failed, "AADSTS700213: create a federated credential")];
        let identity = status(&cluster("alpha"), &known(), &BTreeSet::new(), &locations);
        assert_eq!(identity.missing.as_deref(), Some("AADSTS700213: create a federated credential"));
        assert_eq!(identity.verified_at, None);
    }
}
