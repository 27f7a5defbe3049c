//! What a mover's Job and its pods look like now.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::ResourceExt;
use kube::api::{ListParams, LogParams};

use super::job::{CONTAINER, MoverError};
use super::protocol::{self, MoverProgress, Report};
use crate::context::Context;
use crate::retry;

/// What a look at a Job found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// No pod runs yet, and why.
    Waiting(String),
    /// A pod runs; how far it is, if it said so.
    Running(Option<MoverProgress>),
    /// It ended with a report.
    Finished(Report),
    /// It ended without one, and why.
    Lost(String),
}

/// Looks at a Job once.
pub async fn look(context: &Context, name: &str) -> Result<Seen, MoverError> {
    let error = |what: &str| {
        let what = format!("{what} {name}");
        move |source| MoverError::Api { what, source }
    };
    let jobs = context.own::<Job>();
    let job = retry::absent(retry::call(|| jobs.get(name)).await).map_err(error("get Job"))?;
    let Some(job) = job else {
        return Ok(Seen::Lost(format!("Job {name} was deleted by someone")));
    };
    let pods = context.own::<Pod>();
    let of_job = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={name}"));
    let list = retry::call(|| pods.list(&of_job)).await.map_err(error("list pods of Job"))?;
    let mut seen = assess(&job, &list.items);
    let newest = newest(&list.items);
    match (&mut seen, newest) {
        (Seen::Running(progress), Some(pod)) => {
            let tail = LogParams {
                container: Some(CONTAINER.to_owned()),
                tail_lines: Some(20),
                limit_bytes: Some(16 * 1024),
                ..LogParams::default()
            };
            // Progress is a courtesy: a log that cannot be read now is read at the next look.
            if let Ok(log) = pods.logs(&pod.name_any(), &tail).await {
                *progress = protocol::last_progress(&log);
            }
        }
        (Seen::Waiting(reason), Some(pod)) => {
            if let Some(warning) = last_warning(context, pod).await {
                *reason = format!("{reason}; {warning}");
            }
        }
        _ => {}
    }
    Ok(seen)
}

/// What a Job and its pods mean.
#[must_use]
pub fn assess(job: &Job, pods: &[Pod]) -> Seen {
    let ended = job_condition(job, "Complete").or_else(|| job_condition(job, "Failed"));
    let newest = newest(pods);
    if let Some(reason) = ended {
        return match newest.and_then(report) {
            Some(report) => Seen::Finished(report),
            None => Seen::Lost(newest.and_then(termination).unwrap_or(reason)),
        };
    }
    match newest {
        None => Seen::Waiting("its pod is not made yet".to_owned()),
        Some(pod) if is_running(pod) => Seen::Running(None),
        // Failed pods are followed by others until the Job says that it ended.
        Some(pod) => Seen::Waiting(waiting_reason(pod)),
    }
}

fn job_condition(job: &Job, type_: &str) -> Option<String> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions.iter().find(|condition| condition.type_ == type_ && condition.status == "True")?;
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    Some(format!("{} ({})", part(&condition.message), part(&condition.reason)))
}

fn newest(pods: &[Pod]) -> Option<&Pod> {
    pods.iter().max_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0))
}

fn is_running(pod: &Pod) -> bool {
    pod.status.as_ref().is_some_and(|status| {
        status.phase.as_deref() == Some("Running")
            || status
                .container_statuses
                .iter()
                .flatten()
                .any(|container| container.state.as_ref().is_some_and(|state| state.running.is_some()))
    })
}

/// The report in a pod's termination message.
fn report(pod: &Pod) -> Option<Report> {
    let status = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
    let message = status.state.as_ref()?.terminated.as_ref()?.message.as_ref()?;
    serde_json::from_str(message).ok()
}

/// How a pod without a report ended.
fn termination(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    if let Some(message) = &status.message {
        return Some(format!("{message} ({})", status.reason.clone().unwrap_or_default()));
    }
    let terminated = status.container_statuses.as_ref()?.first()?.state.as_ref()?.terminated.as_ref()?;
    Some(format!(
        "exit code {} ({}) {}",
        terminated.exit_code,
        terminated.reason.clone().unwrap_or_default(),
        terminated.message.clone().unwrap_or_default()
    ))
}

fn waiting_reason(pod: &Pod) -> String {
    let Some(status) = &pod.status else { return "its pod has no status yet".to_owned() };
    let container = status
        .container_statuses
        .iter()
        .flatten()
        .find_map(|container| container.state.as_ref()?.waiting.as_ref())
        .map(|waiting| {
            format!("{}: {}", waiting.reason.clone().unwrap_or_default(), waiting.message.clone().unwrap_or_default())
        });
    let unscheduled = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")
        .and_then(|condition| condition.message.clone());
    unscheduled.or(container).unwrap_or_else(|| "its pod is pending".to_owned())
}

/// What kubelet or scheduler said last about a pod, such as why a volume cannot be mounted.
async fn last_warning(context: &Context, pod: &Pod) -> Option<String> {
    let events = context.own::<Event>();
    let about = ListParams::default()
        .fields(&format!("involvedObject.uid={},type=Warning", pod.uid().unwrap_or_default()))
        .limit(50);
    let list = events.list(&about).await.ok()?;
    list.items.into_iter().filter_map(|event| event.message).next_back()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn job(condition: Option<&str>) -> Job {
        let conditions = condition.map(|type_| vec![json!({"type": type_, "status": "True", "message": "m"})]);
        serde_json::from_value(json!({"metadata": {"name": "j"}, "status": {"conditions": conditions}})).unwrap()
    }

    fn pod(second: u8, status: &serde_json::Value) -> Pod {
        let created = format!("2026-01-01T00:00:{second:02}Z");
        serde_json::from_value(json!({"metadata": {"name": "p", "creationTimestamp": created}, "status": status}))
            .unwrap()
    }

    fn terminated(message: &str) -> serde_json::Value {
        json!({"phase": "Failed", "containerStatuses": [{
            "name": "mover", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": 2, "reason": "Error", "message": message}}}]})
    }

    #[test]
    fn the_newest_pods_report_counts() {
        let old = pod(1, &terminated(r#"{"failed":{"message":"old","code":null,"retryable":true}}"#));
        let new = pod(2, &terminated(r#"{"failed":{"message":"new","code":"AADSTS700213","retryable":false}}"#));
        let Seen::Finished(Report::Failed(failed)) = assess(&job(Some("Failed")), &[new, old]) else { panic!() };
        assert_eq!(failed.message, "new");
    }

    #[test]
    fn a_pod_that_ended_without_a_report_says_how() {
        let seen = assess(&job(Some("Failed")), &[pod(1, &terminated("not json"))]);
        assert!(matches!(&seen, Seen::Lost(reason) if reason.contains("exit code 2")), "{seen:?}");
    }

    #[test]
    fn a_failed_pod_of_a_job_that_goes_on_is_waited_for() {
        let seen = assess(&job(None), &[pod(1, &terminated("x"))]);
        assert!(matches!(seen, Seen::Waiting(_)));
        assert_eq!(assess(&job(None), &[pod(1, &json!({"phase": "Running"}))]), Seen::Running(None));
    }

    #[test]
    fn a_pod_that_cannot_be_scheduled_says_why() {
        let status = json!({"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available"}]});
        assert_eq!(assess(&job(None), &[pod(1, &status)]), Seen::Waiting("0/1 nodes are available".to_owned()));
    }
}
