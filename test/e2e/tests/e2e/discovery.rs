//! Clusters are found, taken in, let go and taken in again without anyone's help.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use kube::api::DeleteParams;
use serde_json::json;
use shoot_backup_api::names::{ANNOTATION_ENABLED, ANNOTATION_SHOOT_ISSUER};
use shoot_backup_api::shoot::Shoot;
use shoot_backup_api::{ApplicationCluster, ApplicationClusterPhase, ClusterDiscovery, conditions};
use shoot_backup_e2e::wait::{Seen, until};
use shoot_backup_landscape::{Cluster, PROJECT_NAMESPACE};

use crate::world::{World, test};

async fn found_by(world: &World, cluster: &str) -> Result<String> {
    let cluster = world.project.api::<ApplicationCluster>().get(cluster).await?;
    cluster.status.and_then(|status| status.found_by).context("status.foundBy is not set")
}

/// A Shoot that Gardener never creates: enough for what discovery decides.
async fn plan_shoot(world: &World, name: &str, group: &str) -> Result<()> {
    let garden = world.garden();
    let alpha = garden.json(&["get", "shoot", "alpha", "-n", PROJECT_NAMESPACE]).await?;
    let mut spec = alpha["spec"].clone();
    // Without a seed nobody takes it up.
    spec.as_object_mut().context("a Shoot without spec")?.remove("seedName");
    spec.as_object_mut().context("a Shoot without spec")?.remove("dns");
    let shoot = json!({"apiVersion": "core.gardener.cloud/v1beta1", "kind": "Shoot",
        "metadata": {"name": name, "namespace": PROJECT_NAMESPACE, "labels": {"group": group}}, "spec": spec});
    garden.run_with_input(&["create", "-f", "-"], Some(&shoot.to_string())).await.map(drop)
}

async fn label(world: &World, shoot: &str, label: &str) -> Result<()> {
    world.garden().run(&["label", "shoot", shoot, "-n", PROJECT_NAMESPACE, "--overwrite", label]).await.map(drop)
}

async fn remove_shoot(world: &World, name: &str) -> Result<()> {
    world.project.annotate::<Shoot>(name, "confirmation.gardener.cloud/deletion", Some("true")).await?;
    // Nobody deletes what nobody created: the finalizer that the API server sets is taken away as gardenlet would.
    let _ = world.project.api::<Shoot>().delete(name, &DeleteParams::default()).await?;
    let patch =
        ["patch", "shoot", name, "-n", PROJECT_NAMESPACE, "--type=merge", "-p", r#"{"metadata":{"finalizers":null}}"#];
    let _ = world.garden().run(&patch).await;
    until("the Shoot is gone", Duration::from_secs(30), || async {
        Ok(match world.project.api::<Shoot>().get_opt(name).await? {
            None => Seen::Done(()),
            Some(shoot) => Seen::NotYet(format!("{:?}", shoot.metadata.finalizers)),
        })
    })
    .await
}

#[test]
fn a_shoot_is_found_by_its_annotation_and_gets_a_managed_issuer_and_an_agent() {
    test(|world| async {
        ensure!(found_by(world, "alpha").await? == "Annotation");
        let shoot = world.project.api::<Shoot>().get("alpha").await?;
        let issuer = shoot.metadata.annotations.as_ref().and_then(|all| all.get(ANNOTATION_SHOOT_ISSUER));
        ensure!(issuer.map(String::as_str) == Some("managed"), "the managed issuer was not asked for");
        let cluster = world.project.api::<ApplicationCluster>().get("alpha").await?;
        let status = cluster.status.context("no status")?;
        let identity = status.workload_identity.context("no workload identity")?;
        ensure!(Some(identity.issuer.as_str()) == shoot.managed_issuer(), "issuer {}", identity.issuer);
        ensure!(identity.subject == "system:serviceaccount:shoot-backup:shoot-backup-agent");
        let uid =
            world.kubectl(Cluster::Alpha).run(&["get", "ns", "kube-system", "-o", "jsonpath={.metadata.uid}"]).await?;
        ensure!(status.cluster_uid.as_deref() == Some(uid.as_str()), "{:?} is not {uid}", status.cluster_uid);
        ensure!(status.agent_version.as_deref() == Some(env!("CARGO_PKG_VERSION")));
        let events = world.garden().run(&["get", "events", "-n", PROJECT_NAMESPACE, "-o", "json"]).await?;
        ensure!(
            events.contains("az identity federated-credential create"),
            "no event carries the credential to create"
        );
        ensure!(events.contains(&identity.issuer), "the event does not name the issuer");
        Ok(())
    });
}

#[test]
fn a_shoot_is_found_by_its_extension() {
    test(|world| async {
        ensure!(found_by(world, "beta").await? == "Extension");
        world.project.cluster_in("beta", ApplicationClusterPhase::Ready).await.map(drop)
    });
}

#[test]
fn a_selector_takes_shoots_in_lets_them_go_and_takes_them_in_again() {
    test(|world| async {
        let project = &world.project;
        plan_shoot(world, "planned", "selected").await?;
        let spec = json!({"shootSelector": {"matchExpressions": [{"key": "group", "operator": "In", "values": ["selected"]}]}});
        project.create::<ClusterDiscovery>("selected", spec).await?;
        project.cluster_in("planned", ApplicationClusterPhase::Waiting).await?;
        ensure!(found_by(world, "planned").await? == "Discovery/selected");
        let counts = |what: &'static str, wanted: fn(&shoot_backup_api::cluster_discovery::DiscoveryCounts) -> bool| async move {
            project
                .wait_for("selected", what, Duration::from_secs(30), |discovery: &ClusterDiscovery| {
                    discovery.status.as_ref().filter(|status| wanted(&status.counts)).map(|_| ())
                })
                .await
        };
        counts("counts the Shoot", |counts| counts.discovered == 1 && counts.associated == 1).await?;

        label(world, "planned", "group=other").await?;
        project.cluster_in("planned", ApplicationClusterPhase::Unmanaged).await?;
        counts("counts it as unmanaged", |counts| counts.discovered == 0 && counts.unmanaged == 1).await?;

        label(world, "planned", "group=selected").await?;
        project.cluster_in("planned", ApplicationClusterPhase::Waiting).await?;
        counts("counts it again", |counts| counts.discovered == 1 && counts.unmanaged == 0).await?;

        project.annotate::<Shoot>("planned", ANNOTATION_ENABLED, Some("false")).await?;
        project.cluster_in("planned", ApplicationClusterPhase::Unmanaged).await?;
        project.annotate::<Shoot>("planned", ANNOTATION_ENABLED, None).await?;
        project.cluster_in("planned", ApplicationClusterPhase::Waiting).await?;

        project.request::<ClusterDiscovery>("selected", "discover").await?;
        project
            .wait_for(
                "selected",
                "shows a manual discovery",
                Duration::from_secs(30),
                |discovery: &ClusterDiscovery| discovery.status.as_ref()?.last_manual_discovery.as_ref().map(|_| ()),
            )
            .await?;

        remove_shoot(world, "planned").await?;
        let cluster = project.cluster_in("planned", ApplicationClusterPhase::Removed).await?;
        ensure!(cluster.metadata.deletion_timestamp.is_none(), "a cluster whose Shoot is gone was forgotten");
        counts("counts it as removed", |counts| counts.removed == 1).await
    });
}

#[test]
fn an_invalid_selector_is_said_to_be_invalid() {
    test(|world| async {
        let spec =
            json!({"shootSelector": {"matchExpressions": [{"key": "group", "operator": "Like", "values": ["x"]}]}});
        world.project.create::<ClusterDiscovery>("invalid", spec).await?;
        let what = "is Invalid";
        let message = world
            .project
            .wait_for("invalid", what, Duration::from_secs(30), |discovery: &ClusterDiscovery| {
                let status = discovery.status.as_ref()?;
                let invalid = format!("{:?}", status.phase) == "Invalid";
                invalid.then(|| conditions::find(&status.conditions, "Ready").map(|ready| ready.message.clone()))
            })
            .await?;
        ensure!(message.as_deref().is_some_and(|message| message.contains("Like")), "{message:?}");
        Ok(())
    });
}

#[test]
fn a_hibernated_shoot_waits_and_is_taken_in_when_it_wakes() {
    test(|world| async {
        let _gamma = world.calm["gamma"].write().await;
        world.project.enable("gamma").await?;
        let cluster = world.project.cluster_in("gamma", ApplicationClusterPhase::Waiting).await?;
        let status = cluster.status.unwrap_or_default();
        let ready = conditions::find(&status.conditions, "ShootReady").context("no condition ShootReady")?;
        ensure!(ready.reason == "ShootHibernated", "{} {}", ready.reason, ready.message);
        world.landscape.wake(Cluster::Gamma).await?;
        world.project.cluster_in("gamma", ApplicationClusterPhase::Ready).await?;
        world.landscape.hibernate(Cluster::Gamma).await?;
        world.project.cluster_in("gamma", ApplicationClusterPhase::Waiting).await.map(drop)
    });
}

#[test]
fn what_is_deleted_or_changed_in_the_agents_manifests_is_delivered_again() {
    test(|world| async {
        let _beta = world.calm["beta"].write().await;
        let beta = world.kubectl(Cluster::Beta);
        beta.run(&["delete", "deployment", "shoot-backup-agent", "-n", "shoot-backup", "--wait=true"]).await?;
        until("the agent is delivered again", Duration::from_mins(2), || async {
            beta.run(&["get", "deployment", "shoot-backup-agent", "-n", "shoot-backup"]).await?;
            Ok(Seen::Done(()))
        })
        .await?;
        beta.run(&["scale", "deployment", "shoot-backup-agent", "-n", "shoot-backup", "--replicas=0"]).await?;
        until("the changed agent is as delivered again", Duration::from_mins(2), || async {
            let path =
                ["get", "deployment", "shoot-backup-agent", "-n", "shoot-backup", "-o", "jsonpath={.spec.replicas}"];
            let replicas = beta.run(&path).await?;
            Ok(if replicas == "1" { Seen::Done(()) } else { Seen::NotYet(format!("{replicas} replicas")) })
        })
        .await?;
        // The restricted account itself is gone: the garden side has to get in anew.
        beta.run(&["delete", "serviceaccount", "shoot-backup-garden", "-n", "shoot-backup"]).await?;
        until("the restricted account is delivered again", Duration::from_mins(3), || async {
            beta.run(&["get", "serviceaccount", "shoot-backup-garden", "-n", "shoot-backup"]).await?;
            Ok(Seen::Done(()))
        })
        .await?;
        world.project.cluster_in("beta", ApplicationClusterPhase::Ready).await.map(drop)
    });
}

#[test]
fn an_unreachable_cluster_is_shown_and_comes_back() {
    test(|world| async {
        let _beta = world.calm["beta"].write().await;
        world.landscape.stop_apiserver(Cluster::Beta).await?;
        let shown = world.project.cluster_in("beta", ApplicationClusterPhase::Unreachable).await;
        world.landscape.start_apiserver(Cluster::Beta).await?;
        shown?;
        world.project.cluster_in("beta", ApplicationClusterPhase::Ready).await.map(drop)
    });
}
