//! What tests do to a landscape: wake and hibernate Shoots, cut control planes, kill containers.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::command;
use crate::context::Context;
use crate::error::{Doing, Error, Result};
use crate::garden_content::{PROJECT, PROJECT_NAMESPACE, shoot};
use crate::landscape::Landscape;
use crate::progress::Silent;
use crate::wait::{self, Seen};
use crate::{containerd, control_plane, foreign, garden, node, objects, up};

impl Landscape {
    /// Wakes a hibernated Shoot: starts its control plane and node, then asks for it in the garden and waits until the
    /// Shoot says so.
    pub async fn wake(&self, cluster: Cluster) -> Result<()> {
        let _lock = up::lock(&self.context.place).await?;
        let images = up::archives(&self.context, &Silent).await?;
        ask_hibernation(&self.context, cluster, false).await?;
        up::shoot(&self.context, cluster, &images).await?;
        says_hibernated(&self.context, cluster, false).await
    }

    /// Hibernates a Shoot: asks for it in the garden, ends node and control plane, waits until the Shoot says so. Its
    /// objects and volumes stay.
    pub async fn hibernate(&self, cluster: Cluster) -> Result<()> {
        let _lock = up::lock(&self.context.place).await?;
        ask_hibernation(&self.context, cluster, true).await?;
        node::stop(&self.context, cluster).await?;
        control_plane::stop(&self.context, cluster).await?;
        says_hibernated(&self.context, cluster, true).await
    }

    /// Cuts a cluster's API server off; its workloads run on.
    pub async fn stop_apiserver(&self, cluster: Cluster) -> Result<()> {
        self.context.processes.stop(&control_plane::apiserver(cluster), Duration::from_secs(3)).await
    }

    /// Brings a cluster's API server back and waits until it serves.
    pub async fn start_apiserver(&self, cluster: Cluster) -> Result<()> {
        let client = up::apiserver(&self.context, cluster).await?;
        if matches!(cluster, Cluster::Garden | Cluster::ForeignGarden) {
            garden::ensure(&self.context, cluster, &client).await?;
        }
        Ok(())
    }

    /// Starts a garden of another landscape operator, with project `demo` and Shoot `omega` that cluster `delta` stands
    /// behind; does nothing when it runs.
    pub async fn start_foreign_garden(&self) -> Result<()> {
        let _lock = up::lock(&self.context.place).await?;
        foreign::ensure(&self.context).await
    }

    /// Process that holds a node's namespaces: `/proc/PID/ns/{net,mnt}` of the node are its.
    pub fn node_pid(&self, cluster: Cluster) -> Result<i32> {
        let component = node::anchor(cluster);
        let processes = &self.context.processes;
        processes
            .running(&component)
            .map(|process| process.pid)
            .ok_or_else(|| processes.failure(&component, "is not running"))
    }

    /// Runs a program of the machine on a node and returns what it printed.
    pub async fn exec_on_node(&self, cluster: Cluster, argv: &[&str]) -> Result<String> {
        let enter = node::enter(&self.context, cluster)?;
        let words: Vec<&str> = enter.iter().map(String::as_str).chain(argv.iter().copied()).collect();
        command::run(&words).await
    }

    /// Kills (SIGKILL) the first process of every running container of the selected pods; at least one must run.
    pub async fn kill_container(&self, cluster: Cluster, namespace: &str, selector: &str) -> Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.client(cluster).await?, namespace);
        let list = pods
            .list(&ListParams::default().labels(selector))
            .await
            .doing(|| format!("list pods {selector} of {cluster}/{namespace}"))?;
        let mut killed = 0;
        for status in list.items.into_iter().filter_map(|pod| pod.status) {
            for container in status.container_statuses.unwrap_or_default() {
                let id = container.container_id.unwrap_or_default();
                let id = id.trim_start_matches("containerd://");
                if id.is_empty() {
                    continue;
                }
                if let Some(process) = containerd::first_process(&self.context, cluster, id)? {
                    process.signal(Signal::KILL)?;
                    killed += 1;
                }
            }
        }
        if killed == 0 {
            return Err(Error::Precondition(format!(
                "failed to kill a container: none of pods {selector} in {cluster}/{namespace} runs"
            )));
        }
        Ok(())
    }
}

/// Sets `spec.hibernation.enabled` as the Shoot's owner would.
async fn ask_hibernation(context: &Context, cluster: Cluster, enabled: bool) -> Result<()> {
    if !cluster.is_shoot() {
        return Err(Error::Precondition(format!("cluster {cluster} has no Shoot to hibernate or wake")));
    }
    let client = garden::client(context, Cluster::Garden).await?;
    let patch = json!({"spec": {"hibernation": {"enabled": enabled}}});
    objects::api(&client, &shoot(PROJECT, cluster.name(), enabled))?
        .patch(cluster.name(), &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .doing(|| format!("set hibernation of Shoot {PROJECT_NAMESPACE}/{cluster}"))?;
    Ok(())
}

async fn says_hibernated(context: &Context, cluster: Cluster, hibernated: bool) -> Result<()> {
    let client = garden::client(context, Cluster::Garden).await?;
    let api = objects::api(&client, &shoot(PROJECT, cluster.name(), hibernated))?;
    wait::until(&format!("status.hibernated={hibernated} of Shoot {cluster}"), 60, || async {
        let shoot = api.get(cluster.name()).await.doing(|| format!("get Shoot {cluster}"))?;
        let status = shoot.data.pointer("/status/hibernated").and_then(Value::as_bool).unwrap_or_default();
        let state = shoot.data.pointer("/status/lastOperation/state").and_then(Value::as_str).unwrap_or_default();
        Ok(if status == hibernated && state == "Succeeded" {
            Seen::Yes(())
        } else {
            Seen::NotYet(format!("hibernated={status}, last operation {state}"))
        })
    })
    .await
}
