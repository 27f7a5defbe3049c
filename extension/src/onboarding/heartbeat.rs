//! The agent's heartbeat, and why there is none.

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client};
use shoot_backup_api::names;

use crate::request::{self, timed, timed_opt};

/// A heartbeat that is older is stale. The agent renews it every 10 s.
pub const STALE_SECONDS: i64 = 60;
/// How long a new agent may take until its first heartbeat before that is worth telling: its image may have to be pulled.
pub const START_SECONDS: i64 = 300;

/// What the agent's lease says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heartbeat {
    /// When it was renewed last.
    pub time: Option<Timestamp>,
    /// Version of the agent that renewed it.
    pub version: Option<String>,
}

impl Heartbeat {
    /// Whether it is fresh. A little of the future is the difference of two clocks.
    #[must_use]
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        self.time.is_some_and(|time| now.as_second() - time.as_second() <= STALE_SECONDS)
    }
}

/// Reads the lease; one that is missing is no heartbeat.
pub async fn read(client: &Client) -> Result<Heartbeat, request::Error> {
    let api: Api<Lease> = Api::namespaced(client.clone(), names::AGENT_NAMESPACE);
    let lease = timed_opt(format!("get Lease {}", names::AGENT_NAME), api.get(names::AGENT_NAME)).await?;
    Ok(lease.map(from_lease).unwrap_or_default())
}

fn from_lease(lease: Lease) -> Heartbeat {
    let version =
        lease.metadata.annotations.and_then(|mut annotations| annotations.remove(names::ANNOTATION_AGENT_VERSION));
    // A lease that was given back has no holder: whoever held it is gone.
    let spec = lease.spec.filter(|spec| spec.holder_identity.as_ref().is_some_and(|holder| !holder.is_empty()));
    Heartbeat { time: spec.and_then(|spec| spec.renew_time).map(|time| time.0), version }
}

/// Why the agent gives no heartbeat, as far as its pods say.
pub async fn explain(client: &Client) -> Option<String> {
    let api: Api<Pod> = Api::namespaced(client.clone(), names::AGENT_NAMESPACE);
    let parameters = ListParams::default().limit(20);
    let pods = timed("list Pods", api.list(&parameters)).await.ok()?;
    let agents: Vec<Pod> = pods
        .items
        .into_iter()
        .filter(|pod| {
            pod.metadata.name.as_ref().is_some_and(|name| name.starts_with(&format!("{}-", names::AGENT_NAME)))
        })
        .collect();
    if agents.is_empty() {
        return Some("it has no pod: see the events of its Deployment".to_owned());
    }
    agents.iter().find_map(from_pod)
}

fn from_pod(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    for container in status.container_statuses.iter().flatten() {
        let state = container.state.as_ref();
        if let Some(waiting) = state.and_then(|state| state.waiting.as_ref()) {
            let message = waiting.message.clone().unwrap_or_default();
            return Some(format!("its container waits: {} {message}", waiting.reason.clone().unwrap_or_default()));
        }
        if let Some(ended) = state.and_then(|state| state.terminated.as_ref()) {
            let message = ended.message.clone().unwrap_or_default();
            return Some(format!("its container ended with {}: {message}", ended.exit_code));
        }
    }
    let scheduled = status.conditions.iter().flatten().find(|condition| condition.type_ == "PodScheduled")?;
    (scheduled.status != "True")
        .then(|| format!("its pod is not scheduled: {}", scheduled.message.clone().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn lease(holder: &str) -> Heartbeat {
        from_lease(
            serde_json::from_value(json!({
                "metadata": {"annotations": {names::ANNOTATION_AGENT_VERSION: "0.1.0"}},
                "spec": {"holderIdentity": holder, "renewTime": "1970-01-01T00:10:00.000000Z"},
            }))
            .unwrap(),
        )
    }

    #[test]
    fn a_heartbeat_gets_stale_after_a_minute() {
        let heartbeat = lease("pod");
        assert_eq!(heartbeat.version.as_deref(), Some("0.1.0"));
        assert!(heartbeat.is_fresh(Timestamp::from_second(660).unwrap()));
        assert!(!heartbeat.is_fresh(Timestamp::from_second(661).unwrap()));
        assert!(!Heartbeat::default().is_fresh(Timestamp::from_second(0).unwrap()));
    }

    #[test]
    fn a_lease_that_was_given_back_is_no_heartbeat() {
        assert_eq!(lease("").time, None);
    }

    #[test]
    fn a_pod_that_waits_says_why() {
        let pod: Pod = serde_json::from_value(json!({"status": {"containerStatuses": [{
            "name": "agent", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}},
        }]}}))
        .unwrap();
        assert_eq!(from_pod(&pod).unwrap(), "its container waits: ImagePullBackOff not found");
    }
}
