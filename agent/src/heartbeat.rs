//! The agent's heartbeat: a Lease that the garden side watches. It elects nobody; it says who is alive and of which
//! version.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use shoot_backup_api::names;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::server::State;

/// How often the lease is renewed.
const INTERVAL: Duration = Duration::from_secs(10);
/// After how many seconds without renewal the agent counts as lost.
const DURATION_SECONDS: i32 = 30;

/// Renews the lease until `stop`. A renewal that fails is tried again at the next turn; the agent is not ready meanwhile.
pub async fn run(context: Arc<Context>, state: Arc<State>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let now = Timestamp::now();
        let renewal = context.own::<Lease>();
        let parameters = PatchParams::apply(names::AGENT_NAME).force();
        let patch = Patch::Apply(lease(&context.pod.name, now));
        let renewed = tokio::time::timeout(INTERVAL, renewal.patch(names::AGENT_NAME, &parameters, &patch));
        match renewed.await {
            Ok(Ok(_)) => {
                state.ready.store(true, Ordering::Relaxed);
                context.metrics.heartbeat(now.as_second() as f64);
            }
            Ok(Err(error)) => {
                state.ready.store(false, Ordering::Relaxed);
                tracing::warn!(error = %crate::operation::failure::with_causes(&error), "failed to renew the lease");
            }
            Err(_) => {
                state.ready.store(false, Ordering::Relaxed);
                tracing::warn!("failed to renew the lease: the API server did not answer in time");
            }
        }
    }
}

fn lease(holder: &str, now: Timestamp) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": names::AGENT_NAME,
            "annotations": {names::ANNOTATION_AGENT_VERSION: env!("CARGO_PKG_VERSION")},
        },
        "spec": {
            "holderIdentity": holder,
            "leaseDurationSeconds": DURATION_SECONDS,
            // MicroTime wants six digits.
            "renewTime": format!("{now:.6}"),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lease_says_who_and_which_version() {
        let value = lease("pod", Timestamp::from_second(1).unwrap());
        let lease: Lease = serde_json::from_value(value.clone()).unwrap();
        let annotations = lease.metadata.annotations.unwrap();
        assert_eq!(annotations[names::ANNOTATION_AGENT_VERSION], env!("CARGO_PKG_VERSION"));
        let spec = lease.spec.unwrap();
        assert_eq!(spec.holder_identity.as_deref(), Some("pod"));
        assert_eq!(spec.lease_duration_seconds, Some(30));
        assert_eq!(value["spec"]["renewTime"], "1970-01-01T00:00:01.000000Z");
    }
}
