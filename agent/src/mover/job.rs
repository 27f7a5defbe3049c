//! Builds a mover's Job, runs it, watches it, brings its report home.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::batch::v1::{
    Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, ConfigMapVolumeSource, Container, EmptyDirVolumeSource, EnvVar, NodeAffinity, NodeSelector,
    NodeSelectorRequirement, NodeSelectorTerm, PersistentVolumeClaimVolumeSource, PodSpec, PodTemplateSpec,
    ProjectedVolumeSource, ResourceRequirements, SeccompProfile, SecurityContext, ServiceAccountTokenProjection,
    Toleration, Volume, VolumeMount, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::{DeleteParams, ObjectMeta, PostParams};
use shoot_backup_api::names;

use super::protocol::{self, EXIT_PERMANENT, FailedReport, MoverProgress, Report, Task, Work};
use super::watch::{self, Seen};
use crate::config::CONFIG_DIRECTORY;
use crate::context::{Context, Pod as OwnPod};
use crate::operation::Running;
use crate::retry;

/// Pods that a Job starts after the first has failed.
const BACKOFF_LIMIT: i32 = 2;
/// How often a Job is looked at.
const POLL: Duration = Duration::from_secs(1);
/// How long a pod may take to start: a node may have to be made first.
const START_PATIENCE: Duration = Duration::from_mins(10);
/// How long a finished Job stays if the agent does not remove it.
const KEEP_FINISHED: i32 = 3600;
/// Name of the mover's container.
pub(super) const CONTAINER: &str = "mover";
/// What a mover may read: every file of a volume, whoever owns it.
const BACKUP_CAPABILITIES: &[&str] = &["DAC_READ_SEARCH"];
/// What a mover may write: every file with its owner, mode, capabilities and kind.
const RESTORE_CAPABILITIES: &[&str] = &["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "SETFCAP"];

/// Why a mover has no result.
#[derive(Debug, thiserror::Error)]
pub enum MoverError {
    /// The API server refused a step.
    #[error("failed to {what}")]
    Api {
        /// The step.
        what: String,
        /// Why.
        source: kube::Error,
    },
    /// The task is no JSON.
    #[error("failed to write the mover's task")]
    Task(#[from] serde_json::Error),
    /// The mover says why.
    #[error("{}", .0.message)]
    Failed(FailedReport),
    /// Its pod did not start.
    #[error("the mover's pod did not start: {reason}")]
    NotStarted {
        /// What Kubernetes says.
        reason: String,
    },
    /// Its pod ended without a report.
    #[error("the mover ended without a report: {reason}")]
    Lost {
        /// What Kubernetes says.
        reason: String,
    },
}

/// One run of a mover.
#[derive(Clone, Copy, Debug)]
pub struct MoverJob<'a> {
    /// Name of the Job, unique for operation, attempt and volume.
    pub name: &'a str,
    /// Claim in the agent's namespace that is mounted.
    pub claim: &'a str,
    /// Node that the pod has to run on, because the volume is in use there.
    pub node: Option<&'a str>,
    /// What to do.
    pub task: &'a Task,
}

/// Runs a mover to its end and removes its Job. Bytes are reported to the operation while it runs. The report is
/// [`Report::Backup`] or [`Report::Restore`]; a mover that failed is an error.
pub async fn run(context: &Context, running: &Running, job: MoverJob<'_>) -> Result<Report, MoverError> {
    let api = context.own::<Job>();
    let left = running.deadline().saturating_duration_since(tokio::time::Instant::now());
    let object = build(job, &context.pod, running.uid(), left)?;
    let created = retry::call(|| async { api.create(&PostParams::default(), &object).await }).await;
    match created {
        Ok(_) => {}
        // The answer to our own first request was lost: names are unique to this attempt.
        Err(kube::Error::Api(status)) if status.is_already_exists() => {}
        Err(source) => return Err(MoverError::Api { what: format!("create Job {}", job.name), source }),
    }
    let result = follow(context, running, job.name).await;
    let removed =
        retry::absent(retry::call(|| async { api.delete(job.name, &DeleteParams::foreground()).await }).await);
    if let Err(source) = removed {
        tracing::warn!(error = %source, job = job.name, "failed to delete a mover's Job; it is removed with the operation");
    }
    result
}

/// Looks at the Job until it ends.
async fn follow(context: &Context, running: &Running, name: &str) -> Result<Report, MoverError> {
    let mut last = MoverProgress::default();
    let mut waiting_since = tokio::time::Instant::now();
    let mut ticks = tokio::time::interval(POLL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match watch::look(context, name).await? {
            Seen::Finished(report) => {
                let bytes = match &report {
                    Report::Backup(report) => report.bytes,
                    Report::Restore(report) => report.bytes,
                    Report::Failed(failed) => return Err(MoverError::Failed(failed.clone())),
                };
                running.add_bytes(bytes as i64 - last.bytes as i64);
                return Ok(report);
            }
            Seen::Lost(reason) => return Err(MoverError::Lost { reason }),
            Seen::Waiting(reason) => {
                if waiting_since.elapsed() > START_PATIENCE {
                    return Err(MoverError::NotStarted { reason });
                }
            }
            Seen::Running(progress) => {
                waiting_since = tokio::time::Instant::now();
                if let Some(progress) = progress {
                    running.add_bytes(progress.bytes as i64 - last.bytes as i64);
                    last = progress;
                }
            }
        }
    }
}

/// The Job of a mover.
pub fn build(job: MoverJob<'_>, own: &OwnPod, operation_uid: &str, left: Duration) -> Result<Job, serde_json::Error> {
    let labels = labels(operation_uid);
    let template = PodTemplateSpec {
        metadata: Some(ObjectMeta { labels: Some(labels.clone()), ..ObjectMeta::default() }),
        spec: Some(pod(job, own)?),
    };
    Ok(Job {
        metadata: ObjectMeta {
            name: Some(job.name.to_owned()),
            namespace: Some(own.namespace.clone()),
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        spec: Some(JobSpec {
            active_deadline_seconds: Some((left.as_secs() as i64).max(1)),
            backoff_limit: Some(BACKOFF_LIMIT),
            pod_failure_policy: Some(PodFailurePolicy {
                rules: vec![PodFailurePolicyRule {
                    action: "FailJob".to_owned(),
                    on_exit_codes: Some(PodFailurePolicyOnExitCodesRequirement {
                        container_name: Some(CONTAINER.to_owned()),
                        operator: "In".to_owned(),
                        values: vec![EXIT_PERMANENT],
                    }),
                    on_pod_conditions: None,
                }],
            }),
            ttl_seconds_after_finished: Some(KEEP_FINISHED),
            template,
            ..JobSpec::default()
        }),
        ..Job::default()
    })
}

/// Labels of everything that an operation makes.
#[must_use]
pub fn labels(operation_uid: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        (names::LABEL_OPERATION_UID.to_owned(), operation_uid.to_owned()),
        ("app.kubernetes.io/managed-by".to_owned(), names::MANAGED_BY.to_owned()),
        ("app.kubernetes.io/name".to_owned(), "shoot-backup-mover".to_owned()),
        ("app.kubernetes.io/component".to_owned(), "mover".to_owned()),
    ])
}

fn pod(job: MoverJob<'_>, own: &OwnPod) -> Result<PodSpec, serde_json::Error> {
    Ok(PodSpec {
        // The account gives the token its subject. Its own token is not mounted, and the API server refuses one of the
        // audience that is: a mover has no rights in the cluster.
        service_account_name: Some(names::AGENT_NAME.to_owned()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        restart_policy: Some("Never".to_owned()),
        // The first process of a container ignores SIGTERM, and nothing has to be finished: all writes are create-only.
        termination_grace_period_seconds: Some(1),
        // A volume can be on any node, whatever its taints.
        tolerations: Some(vec![Toleration { operator: Some("Exists".to_owned()), ..Toleration::default() }]),
        affinity: job.node.map(on_node),
        containers: vec![container(job, own)?],
        volumes: Some(volumes(job.claim)),
        ..PodSpec::default()
    })
}

/// By the scheduler rather than by `nodeName`, so that resources and the volume's topology are respected.
fn on_node(node: &str) -> Affinity {
    let term = NodeSelectorTerm {
        match_fields: Some(vec![NodeSelectorRequirement {
            key: "metadata.name".to_owned(),
            operator: "In".to_owned(),
            values: Some(vec![node.to_owned()]),
        }]),
        match_expressions: None,
    };
    Affinity {
        node_affinity: Some(NodeAffinity {
            required_during_scheduling_ignored_during_execution: Some(NodeSelector { node_selector_terms: vec![term] }),
            preferred_during_scheduling_ignored_during_execution: None,
        }),
        ..Affinity::default()
    }
}

fn container(job: MoverJob<'_>, own: &OwnPod) -> Result<Container, serde_json::Error> {
    let (capabilities, read_only) = match job.task.work {
        Work::Backup { .. } => (BACKUP_CAPABILITIES, true),
        Work::Restore { .. } => (RESTORE_CAPABILITIES, false),
    };
    let mount = |name: &str, path: &str, read_only: bool| VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: Some(read_only),
        ..VolumeMount::default()
    };
    let token_directory = names::TOKEN_FILE.rsplit_once('/').map_or("/", |(directory, _)| directory);
    Ok(Container {
        name: CONTAINER.to_owned(),
        image: Some(own.image.clone()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        args: Some(vec!["mover".to_owned(), job.task.work.verb().to_owned()]),
        env: Some(vec![EnvVar {
            name: protocol::TASK_VARIABLE.to_owned(),
            value: Some(serde_json::to_string(job.task)?),
            value_from: None,
        }]),
        resources: Some(ResourceRequirements {
            requests: Some(quantities(&[("cpu", "50m"), ("memory", "128Mi")])),
            limits: Some(quantities(&[("memory", "1Gi")])),
            ..ResourceRequirements::default()
        }),
        security_context: Some(SecurityContext {
            // Files of a volume belong to anyone: only root with these capabilities reads (writes) them all.
            run_as_user: Some(0),
            run_as_group: Some(0),
            run_as_non_root: Some(false),
            read_only_root_filesystem: Some(true),
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".to_owned()]),
                add: Some(capabilities.iter().map(|name| (*name).to_owned()).collect()),
            }),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
            ..SecurityContext::default()
        }),
        termination_message_path: Some(protocol::REPORT_PATH.to_owned()),
        volume_mounts: Some(vec![
            mount("volume", protocol::VOLUME_PATH, read_only),
            mount("configuration", CONFIG_DIRECTORY, true),
            mount("token", token_directory, true),
            mount("tmp", "/tmp", false),
        ]),
        ..Container::default()
    })
}

fn volumes(claim: &str) -> Vec<Volume> {
    let volume = |name: &str| Volume { name: name.to_owned(), ..Volume::default() };
    let token = ServiceAccountTokenProjection {
        audience: Some(names::TOKEN_AUDIENCE.to_owned()),
        expiration_seconds: Some(3600),
        path: names::TOKEN_FILE.rsplit('/').next().unwrap_or_default().to_owned(),
    };
    vec![
        Volume {
            // Read-only is the mount, not the claim: some drivers attach a volume anew if its claim is read-only, which
            // fails while it is in use.
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim.to_owned(),
                read_only: None,
            }),
            ..volume("volume")
        },
        Volume {
            config_map: Some(ConfigMapVolumeSource {
                name: names::AGENT_CONFIG_MAP.to_owned(),
                ..ConfigMapVolumeSource::default()
            }),
            ..volume("configuration")
        },
        Volume {
            projected: Some(ProjectedVolumeSource {
                sources: Some(vec![VolumeProjection {
                    service_account_token: Some(token),
                    ..VolumeProjection::default()
                }]),
                default_mode: Some(0o444),
            }),
            ..volume("token")
        },
        Volume { empty_dir: Some(EmptyDirVolumeSource::default()), ..volume("tmp") },
    ]
}

fn quantities(pairs: &[(&str, &str)]) -> BTreeMap<String, Quantity> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), Quantity((*value).to_owned()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mover::protocol::Target;

    fn built(work: Work) -> PodSpec {
        let task = Task { target: Target::default(), cluster_uid: "c".to_owned(), work };
        let job = MoverJob { name: "mover", claim: "twin", node: Some("node-1"), task: &task };
        let own = OwnPod { image: "agent:1".to_owned(), namespace: "shoot-backup".to_owned(), ..OwnPod::default() };
        build(job, &own, "uid", Duration::from_mins(1)).unwrap().spec.unwrap().template.spec.unwrap()
    }

    fn backup() -> Work {
        Work::Backup { hostname: String::new(), path: String::new(), tags: Vec::new(), parent: None }
    }

    #[test]
    fn a_mover_has_no_rights_in_the_cluster() {
        let pod = built(backup());
        assert_eq!(pod.automount_service_account_token, Some(false));
        let tokens: Vec<_> = pod
            .volumes
            .unwrap()
            .into_iter()
            .filter_map(|volume| volume.projected)
            .flat_map(|projected| projected.sources.unwrap())
            .filter_map(|source| source.service_account_token)
            .collect();
        assert_eq!(tokens.len(), 1);
        assert_eq!(tokens[0].audience.as_deref(), Some(names::TOKEN_AUDIENCE));
    }

    #[test]
    fn a_backup_cannot_write_to_the_volume() {
        let pod = built(backup());
        let container = &pod.containers[0];
        let mounts = container.volume_mounts.as_ref().unwrap();
        assert_eq!(mounts.iter().find(|mount| mount.name == "volume").unwrap().read_only, Some(true));
        let capabilities = container.security_context.as_ref().unwrap().capabilities.as_ref().unwrap();
        assert_eq!(capabilities.add.as_ref().unwrap(), &["DAC_READ_SEARCH"]);
        assert_eq!(capabilities.drop.as_ref().unwrap(), &["ALL"]);
    }

    #[test]
    fn a_restore_writes_and_runs_where_the_volume_is() {
        let pod = built(Work::Restore { snapshot: "s".to_owned(), operation: "o".to_owned() });
        let mounts = pod.containers[0].volume_mounts.as_ref().unwrap();
        assert_eq!(mounts.iter().find(|mount| mount.name == "volume").unwrap().read_only, Some(false));
        let affinity = pod.affinity.unwrap().node_affinity.unwrap();
        let terms = affinity.required_during_scheduling_ignored_during_execution.unwrap().node_selector_terms;
        assert_eq!(terms[0].match_fields.as_ref().unwrap()[0].values.as_ref().unwrap(), &["node-1"]);
    }
}
