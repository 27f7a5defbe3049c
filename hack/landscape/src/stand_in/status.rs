//! What a Shoot's status should say, from what is seen of its cluster. Pure.

use std::error::Error as StdError;
use std::fmt::Write as _;

use jiff::Timestamp;
use serde_json::{Value, json};

/// A status is written again after this time even if nothing changed: gardenlet's heartbeat is about as slow.
const FRESH_SECONDS: i64 = 60;

/// How much of a cluster runs.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Runs {
    /// Nothing that answers.
    #[default]
    Nothing,
    /// The API server, but not all nodes.
    ApiServer,
    /// All of it.
    All,
}

/// All that a status depends on.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) technical_id: String,
    pub(super) garden_identity: String,
    pub(super) uid: String,
    pub(super) generation: i64,
    pub(super) asked_to_hibernate: bool,
    /// Whether the owner asked for a public issuer.
    pub(super) managed: bool,
    pub(super) address: String,
    pub(super) issuer: String,
    /// The status as it is.
    pub(super) before: Value,
    pub(super) runs: Runs,
    pub(super) now: Timestamp,
}

/// The status of a Shoot with a cluster behind it.
pub(super) fn desired(facts: &Facts) -> Value {
    let was_hibernated = facts.before["hibernated"].as_bool().unwrap_or_default();
    let created = facts.before["lastOperation"]["state"] == "Succeeded";
    // Asleep when it should be and is; also on its way up until the API server answers.
    let (api, nodes) = (facts.runs >= Runs::ApiServer, facts.runs == Runs::All);
    let hibernated = !api && (facts.asked_to_hibernate || was_hibernated);
    let moving = facts.asked_to_hibernate != hibernated || (!created && !hibernated && !nodes);
    let mut status = common(facts, &operation(facts, if created { "Reconcile" } else { "Create" }, moving));
    status["hibernated"] = json!(hibernated);
    status["advertisedAddresses"] = json!([
        {"name": "external", "url": facts.address},
        {"name": "service-account-issuer", "url": facts.issuer},
    ]);
    let up = |ready: bool, reason: &str, good: &str, bad: &str| match (hibernated, ready) {
        (true, _) => ("True", "ConditionNotChecked".to_owned(), "Shoot cluster has been hibernated.".to_owned()),
        (false, true) => ("True", format!("{reason}Healthy"), good.to_owned()),
        (false, false) => ("False", format!("{reason}Unhealthy"), bad.to_owned()),
    };
    status["conditions"] = json!([
        condition(
            facts,
            "APIServerAvailable",
            up(
                api,
                "HealthzRequest",
                "API server /healthz endpoint responded with success status code.",
                "API server does not answer."
            )
        ),
        condition(
            facts,
            "ControlPlaneHealthy",
            up(api, "ControlPlane", "All control plane components are healthy.", "The control plane does not run.")
        ),
        condition(
            facts,
            "ObservabilityComponentsHealthy",
            up(
                api,
                "ObservabilityComponents",
                "All observability components are healthy.",
                "The control plane does not run."
            )
        ),
        condition(facts, "EveryNodeReady", up(nodes, "EveryNode", "All nodes are ready.", "Not all nodes are ready.")),
        condition(
            facts,
            "SystemComponentsHealthy",
            up(
                nodes,
                "SystemComponents",
                "All system components are healthy.",
                "Not all system components are healthy."
            )
        ),
    ]);
    status
}

/// The value of label `shoot.gardener.cloud/status` that goes with a status.
pub(super) fn label(status: &Value) -> &'static str {
    let conditions = status["conditions"].as_array();
    match conditions {
        None => "unknown",
        Some(conditions) if conditions.iter().any(|condition| condition["status"] != "True") => "unhealthy",
        Some(_) if status["lastOperation"]["state"] != "Succeeded" => "progressing",
        Some(_) => "healthy",
    }
}

/// The status of a Shoot that nothing stands behind: its creation never ends.
pub(super) fn without_cluster(facts: &Facts) -> Value {
    common(facts, &operation(facts, "Create", true))
}

/// The status of a Shoot of which nothing is left.
pub(super) fn deleted(facts: &Facts) -> Value {
    common(facts, &operation(facts, "Delete", false))
}

fn common(facts: &Facts, last_operation: &Value) -> Value {
    json!({
        "technicalID": facts.technical_id,
        "uid": facts.uid,
        "clusterIdentity": crate::garden::cluster_identity(&facts.garden_identity, &facts.technical_id, &facts.uid),
        "gardener": {"id": "landscape", "name": "landscape-gardenlet", "version": "v1.149.3"},
        "seedName": crate::garden_content::SEED,
        "observedGeneration": facts.generation,
        "lastOperation": last_operation,
    })
}

fn operation(facts: &Facts, kind: &str, moving: bool) -> Value {
    let before = &facts.before["lastOperation"];
    // A finished creation stays one until there is something to reconcile.
    let kind = if !moving
        && kind == "Reconcile"
        && before["type"].is_string()
        && facts.before["observedGeneration"] == facts.generation
    {
        before["type"].as_str().unwrap_or(kind)
    } else {
        kind
    };
    json!({
        "type": kind,
        "state": if moving { "Processing" } else { "Succeeded" },
        "progress": if moving { 50 } else { 100 },
        "description": if moving { "Waiting for the cluster." } else { "Shoot cluster has been successfully reconciled." },
        "lastUpdateTime": second(facts.now),
    })
}

fn condition(facts: &Facts, kind: &str, (status, reason, message): (&str, String, String)) -> Value {
    let now = second(facts.now);
    let before =
        facts.before["conditions"].as_array().into_iter().flatten().find(|condition| condition["type"] == kind);
    let since = match before {
        Some(before) if before["status"] == status => before["lastTransitionTime"].clone(),
        _ => json!(now),
    };
    json!({
        "type": kind, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": since, "lastUpdateTime": now,
    })
}

/// Whether writing `desired` over `before` would change more than the time of writing.
pub(super) fn same(before: &Value, desired: &Value) -> bool {
    match (before, desired) {
        (Value::Object(before), Value::Object(desired)) => desired
            .iter()
            .filter(|(name, _)| *name != "lastUpdateTime")
            .all(|(name, value)| same(before.get(name).unwrap_or(&Value::Null), value)),
        (Value::Array(before), Value::Array(desired)) => {
            before.len() == desired.len() && before.iter().zip(desired).all(|(before, desired)| same(before, desired))
        }
        // The API leaves false out of what it returns.
        (Value::Null, Value::Bool(false)) => true,
        _ => before == desired,
    }
}

/// Whether the status was last written long ago.
pub(super) fn stale(before: &Value, now: Timestamp) -> bool {
    let written = before["lastOperation"]["lastUpdateTime"].as_str().and_then(|text| text.parse::<Timestamp>().ok());
    written.is_none_or(|written| now.as_second() - written.as_second() >= FRESH_SECONDS)
}

/// An error with its causes, for a log line.
pub(super) fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

fn second(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            technical_id: "shoot--demo--alpha".to_owned(),
            garden_identity: "landscape".to_owned(),
            uid: "1234".to_owned(),
            generation: 3,
            asked_to_hibernate: false,
            managed: false,
            address: "https://10.77.0.1:20022".to_owned(),
            issuer: "https://10.77.0.1:20022".to_owned(),
            before: Value::Null,
            runs: Runs::All,
            now: Timestamp::from_second(1_000_000).unwrap(),
        }
    }

    fn conditions(status: &Value) -> Vec<&str> {
        status["conditions"].as_array().unwrap().iter().map(|condition| condition["status"].as_str().unwrap()).collect()
    }

    #[test]
    fn a_cluster_that_is_up_makes_a_shoot_that_succeeded() {
        let status = desired(&facts());
        assert_eq!(status["lastOperation"]["state"], "Succeeded");
        assert_eq!(status["hibernated"], false);
        assert_eq!(conditions(&status), ["True"; 5]);
    }

    #[test]
    fn a_shoot_that_should_sleep_and_does_is_hibernated() {
        let status = desired(&Facts { asked_to_hibernate: true, runs: Runs::Nothing, ..facts() });
        assert_eq!(status["hibernated"], true);
        assert_eq!(status["lastOperation"]["state"], "Succeeded");
        assert_eq!(conditions(&status), ["True"; 5]);
    }

    #[test]
    fn a_shoot_that_wakes_stays_hibernated_until_its_api_server_answers() {
        let asleep = json!({"hibernated": true, "lastOperation": {"type": "Create", "state": "Succeeded"}});
        let waking = Facts { before: asleep, runs: Runs::Nothing, ..facts() };
        let status = desired(&waking);
        assert_eq!((&status["hibernated"], &status["lastOperation"]["state"]), (&json!(true), &json!("Processing")));
        let status = desired(&Facts { runs: Runs::All, ..waking });
        assert_eq!((&status["hibernated"], &status["lastOperation"]["state"]), (&json!(false), &json!("Succeeded")));
    }

    #[test]
    fn a_lost_api_server_is_a_failed_condition_and_no_hibernation() {
        let before = desired(&facts());
        let status = desired(&Facts { before, runs: Runs::Nothing, ..facts() });
        assert_eq!(status["hibernated"], false);
        assert_eq!(conditions(&status), ["False"; 5]);
    }

    #[test]
    fn a_status_that_differs_in_nothing_but_time_is_not_written() {
        let before = desired(&facts());
        let later = Timestamp::from_second(1_000_030).unwrap();
        let status = desired(&Facts { before: before.clone(), now: later, ..facts() });
        assert!(same(&before, &status));
        assert!(!stale(&before, later));
        assert!(stale(&before, Timestamp::from_second(1_000_060).unwrap()));
        assert!(!same(&before, &desired(&Facts { runs: Runs::ApiServer, ..facts() })));
    }
}
