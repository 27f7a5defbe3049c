//! Proves that this cluster can use a location: every verb that the work needs, with the cluster's own identity.

use shoot_backup_api::BackupLocation;
use shoot_backup_api::backup_location::{LocationCluster, LocationPhase, VerbOutcome as Outcome, VerbResult};
use shoot_backup_api::manifest::{ClusterIdentity, paths};
use shoot_backup_repository::VerbOutcome;

use super::advice::{Advice, advise};
use super::open::{azure_store, target};
use super::prepare::prepare;
use super::{Location, LocationError};
use crate::context::Context;
use crate::mover::protocol::Target;
use crate::operation::failure::with_causes;

/// Name of the one entry that a location's status has in an application cluster.
pub const OWN_ENTRY: &str = "self";

/// Tries the location. The entry has no time yet.
pub async fn validate(context: &Context, name: &str, object: &BackupLocation) -> LocationCluster {
    let mut entry = LocationCluster { name: OWN_ENTRY.to_owned(), ..LocationCluster::default() };
    match attempt(context, name, object, &mut entry).await {
        Ok(()) => {
            entry.phase = LocationPhase::Valid;
            "Valid".clone_into(&mut entry.reason);
            "every verb works".clone_into(&mut entry.message);
        }
        Err(advice) => {
            entry.phase = LocationPhase::Failed;
            entry.reason = advice.reason;
            entry.message = advice.message;
        }
    }
    entry
}

async fn attempt(
    context: &Context,
    name: &str,
    object: &BackupLocation,
    entry: &mut LocationCluster,
) -> Result<(), Advice> {
    let config = context.config().await.map_err(|error| plain("Configuration", with_causes(&error)))?;
    let target = target(name, object, &config.identity).map_err(|error| from_location(&error))?;
    entry.client_id = Some(target.client_id.clone());
    let facts = context.facts().await.map_err(|error| {
        plain("ApiServer", format!("failed to read the cluster's identity: {}", with_causes(&error)))
    })?;
    let extra_ca = context.extra_ca().await.map_err(|error| plain("Configuration", with_causes(&error)))?;
    let store = azure_store(&target, extra_ca.clone()).map_err(|error| from_location(&error))?;
    let outcomes = store.probe(&format!("{}/canary", paths::cluster(&facts.uid))).await;
    entry.verbs = outcomes.iter().map(verb_result).collect();
    judge(&outcomes, &target, &config.cluster.issuer)?;
    let location = Location::with_store(name, target, std::sync::Arc::new(store));
    let identity = ClusterIdentity {
        uid: facts.uid.clone(),
        name: config.cluster.name,
        project: config.cluster.project,
        issuer: config.cluster.issuer,
    };
    prepare(&location, &identity).await.map_err(|error| from_location(&error))
}

/// The first verb that failed says what to do.
fn judge(outcomes: &[VerbOutcome], target: &Target, issuer: &str) -> Result<(), Advice> {
    let failed = outcomes.iter().find_map(|outcome| Some((outcome.verb, outcome.error.as_ref()?)));
    match failed {
        Some((verb, error)) => Err(advise(verb, error, target, issuer)),
        None => Ok(()),
    }
}

fn verb_result(outcome: &VerbOutcome) -> VerbResult {
    let result = match (&outcome.error, outcome.skipped) {
        (Some(_), _) => Outcome::Failed,
        (None, true) => Outcome::Skipped,
        (None, false) => Outcome::Succeeded,
    };
    VerbResult {
        verb: outcome.verb.as_str().to_owned(),
        outcome: result,
        code: outcome.error.as_ref().and_then(|error| error.code().map(str::to_owned)),
    }
}

fn from_location(error: &LocationError) -> Advice {
    plain(error.reason(), with_causes(error))
}

fn plain(reason: &str, message: String) -> Advice {
    Advice { reason: reason.to_owned(), message }
}

#[cfg(test)]
mod tests {
    use shoot_backup_repository::{StoreError, StoreErrorKind, Verb};

    use super::*;

    fn outcome(verb: Verb, error: Option<StoreError>, skipped: bool) -> VerbOutcome {
        VerbOutcome { verb, error, skipped, note: None }
    }

    #[test]
    fn the_first_verb_that_failed_decides() {
        let denied = StoreError::new(StoreErrorKind::Forbidden, "no").with_code("AuthorizationPermissionMismatch");
        let outcomes = [
            outcome(Verb::TokenExchange, None, false),
            outcome(Verb::List, Some(denied), false),
            outcome(Verb::Put, None, true),
        ];
        let advice = judge(&outcomes, &Target::default(), "").unwrap_err();
        assert_eq!(advice.reason, "AuthorizationPermissionMismatch");
        let results: Vec<_> = outcomes.iter().map(verb_result).collect();
        assert_eq!(results[0].outcome, Outcome::Succeeded);
        assert_eq!(results[1].outcome, Outcome::Failed);
        assert_eq!(results[1].code.as_deref(), Some("AuthorizationPermissionMismatch"));
        assert_eq!(results[2].outcome, Outcome::Skipped);
        assert!(judge(&outcomes[..1], &Target::default(), "").is_ok());
    }
}
