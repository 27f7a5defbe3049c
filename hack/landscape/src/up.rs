//! Bringing a landscape up: everything that does not run is started, independent parts at the same time.

use std::fs::File;
use std::path::Path;

use kube::Client;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::context::Context;
use crate::control_plane::{self, Issuers};
use crate::error::{Doing, Error, Result};
use crate::garden_content::{self, PROJECT, PROJECT_NAMESPACE};
use crate::image::{self, Archive, Image};
use crate::place::Place;
use crate::process::Start;
use crate::programs::Programs;
use crate::progress::{Progress, step};
use crate::slot::{REGISTRY, Slot};
use crate::wait::{self, Seen};
use crate::{
    azure, down, foreign, garden, machine, network, node, objects, provisioner, settings, shoot_content, stand_in,
};

/// Brings the landscape up and waits until all of it is ready.
pub(crate) async fn up(name: &str, progress: &dyn Progress) -> Result<Context> {
    machine::ensure_root()?;
    let place = Place::of(name)?;
    std::fs::create_dir_all(&place.state).doing(|| format!("create {}", place.state.display()))?;
    let _lock = lock(&place).await?;
    let programs = Programs::ensure(&place.checkout, progress).await?;
    down::sweep_abandoned(progress).await?;
    down::forget_earlier_boot(&place, progress).await?;
    settings::remember_programs(&place.state, &programs)?;
    let slot = Slot::claim(Path::new(REGISTRY), &place.state)?;
    let context = Context::new(name, place, slot, programs)?;
    machine::ensure_watches()?;
    network::ensure_bridge(&context.slot).await?;

    let images = async { step(progress, "images ready", archives(&context, progress)).await };
    let etcd = async { step(progress, "etcd ready", control_plane::ensure_etcd(&context)).await };
    let (images, ()) = tokio::try_join!(images, etcd)?;
    let azure = async { step(progress, "Azure emulator ready", azure::ensure(&context)).await };
    let standalone = async {
        tokio::try_join!(
            step(progress, "seed ready", standalone(&context, Cluster::Seed, &images)),
            step(progress, "delta ready", standalone(&context, Cluster::Delta, &images)),
        )
    };
    let gardened = async {
        step(progress, "garden ready", garden(&context)).await?;
        tokio::try_join!(
            step(progress, "Shoot alpha ready", shoot(&context, Cluster::Alpha, &images)),
            step(progress, "Shoot beta ready", shoot(&context, Cluster::Beta, &images)),
            woken(&context, &images),
        )
    };
    tokio::try_join!(azure, standalone, gardened)?;
    if context.processes.recorded().contains(&control_plane::apiserver(Cluster::ForeignGarden)) {
        step(progress, "foreign garden ready", foreign::ensure(&context)).await?;
    }
    step(progress, "Shoots' status true", shoots_true(&context)).await?;
    // Some components are not waited for: what serves nothing can only be seen to run.
    for component in context.processes.recorded() {
        if context.processes.running(&component).is_none() {
            return Err(context.processes.failure(&component, "ended"));
        }
    }
    Ok(context)
}

/// One command at a time changes a landscape; the lock ends with the returned file.
pub(crate) async fn lock(place: &Place) -> Result<File> {
    let path = place.state.with_extension("lock");
    tokio::task::spawn_blocking(move || {
        let file = File::create(&path).doing(|| format!("open {}", path.display()))?;
        file.lock().doing(|| format!("lock {}", path.display()))?;
        Ok(file)
    })
    .await
    .map_err(|error| Error::Precondition(format!("failed to lock the landscape: {error}")))?
}

/// Archives of all images; those of programs that are not built are left out, with a note.
pub(crate) async fn archives(context: &Context, progress: &dyn Progress) -> Result<Vec<Archive>> {
    let mut archives = Vec::new();
    for image in Image::ALL {
        match image::build(image, &context.place.images()).await {
            Ok(archive) => archives.push(archive),
            Err(Error::Precondition(reason)) => {
                progress
                    .note(&format!("image {} is left out: {reason}; then run `landscape images`", image.reference()));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(archives)
}

/// Starts a cluster's API server with the issuers that are its own.
pub(crate) async fn apiserver(context: &Context, cluster: Cluster) -> Result<Client> {
    let issuers = match cluster {
        Cluster::Garden | Cluster::ForeignGarden | Cluster::Seed => {
            Issuers { issuer: context.slot.apiserver(cluster), published: false }
        }
        Cluster::Delta => Issuers { issuer: context.standalone_issuer(cluster), published: true },
        Cluster::Alpha | Cluster::Beta | Cluster::Gamma => {
            let uid = shoot_uid(context, cluster).await?;
            Issuers { issuer: context.managed_issuer(PROJECT, &uid), published: true }
        }
    };
    control_plane::ensure_apiserver(context, cluster, &issuers).await
}

/// The garden with its content, and the stand-in that keeps it true.
async fn garden(context: &Context) -> Result<()> {
    let client = apiserver(context, Cluster::Garden).await?;
    control_plane::ensure_controllers(context, Cluster::Garden).await?;
    garden::ensure(context, Cluster::Garden, &client).await?;
    objects::create_all(&client, &garden_content::projects(&context.slot.discovery_host())).await?;
    objects::create_all(&client, &garden_content::infrastructure()).await?;
    for cluster in Cluster::ALL.into_iter().filter(|cluster| cluster.is_shoot()) {
        let shoot = garden_content::shoot(PROJECT, cluster.name(), cluster == Cluster::Gamma);
        objects::create(&client, &shoot).await?;
        // Also of the one that sleeps: Gardener keeps a hibernated Shoot's authorities in the garden.
        control_plane::Credentials::ensure(context, cluster)?;
    }
    let start = Start::new(crate::place::own_program("landscape")?)
        .args(["--name", &context.name, "stand-in"])
        .env("SHOOT_BACKUP_STATE", context.place.state.parent().unwrap_or(Path::new("/")))
        .env("SHOOT_BACKUP_CHECKOUT", &context.place.checkout);
    context.processes.ensure(stand_in::COMPONENT, &start).await?;
    Ok(())
}

/// A cluster with a node that no Shoot of the own garden describes.
async fn standalone(context: &Context, cluster: Cluster, images: &[Archive]) -> Result<()> {
    let client = cluster_with_node(context, cluster, images).await?;
    // A Shoot of the foreign garden, or of a test, may be backed by it.
    objects::create_all(&client, &shoot_content::access()).await
}

/// A Shoot's control plane and node.
pub(crate) async fn shoot(context: &Context, cluster: Cluster, images: &[Archive]) -> Result<()> {
    let client = cluster_with_node(context, cluster, images).await?;
    objects::create_all(&client, &shoot_content::access()).await?;
    let garden = garden::identity(context, Cluster::Garden);
    let uid = shoot_uid(context, cluster).await?;
    let identity = garden::cluster_identity(&garden, &format!("shoot--{PROJECT}--{cluster}"), &uid);
    objects::create_all(&client, &shoot_content::marks(cluster, &identity)).await
}

/// Shoot gamma, if it was left awake.
async fn woken(context: &Context, images: &[Archive]) -> Result<()> {
    let shoot = get_shoot(context, Cluster::Gamma).await?;
    match shoot.pointer("/spec/hibernation/enabled").and_then(Value::as_bool) {
        Some(true) => Ok(()),
        _ => self::shoot(context, Cluster::Gamma, images).await,
    }
}

async fn cluster_with_node(context: &Context, cluster: Cluster, images: &[Archive]) -> Result<Client> {
    let control_plane = async {
        let client = apiserver(context, cluster).await?;
        control_plane::ensure_controllers(context, cluster).await?;
        Ok(client)
    };
    let (client, ()) = tokio::try_join!(control_plane, node::ensure_runtime(context, cluster, images))?;
    node::ensure_agents(context, cluster).await?;
    objects::create_all(&client, &provisioner::storage_classes()).await?;
    node::ready(context, cluster, &client).await?;
    Ok(client)
}

async fn get_shoot(context: &Context, cluster: Cluster) -> Result<Value> {
    let client = garden::client(context, Cluster::Garden).await?;
    let shoot = objects::api(&client, &garden_content::shoot(PROJECT, cluster.name(), false))?
        .get(cluster.name())
        .await
        .doing(|| format!("get Shoot {PROJECT_NAMESPACE}/{cluster}"))?;
    Ok(json!({
        "uid": shoot.metadata.uid, "generation": shoot.metadata.generation,
        "spec": shoot.data["spec"], "status": shoot.data["status"],
    }))
}

async fn shoot_uid(context: &Context, cluster: Cluster) -> Result<String> {
    let shoot = get_shoot(context, cluster).await?;
    shoot["uid"]
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| Error::Precondition(format!("Shoot {PROJECT_NAMESPACE}/{cluster} has no uid")))
}

/// Waits until the stand-in has seen what is.
async fn shoots_true(context: &Context) -> Result<()> {
    for cluster in Cluster::ALL.into_iter().filter(|cluster| cluster.is_shoot()) {
        let outcome = wait::until(&format!("status of Shoot {cluster}"), 60, || async {
            if context.processes.running(stand_in::COMPONENT).is_none() {
                return Err(context.processes.failure(stand_in::COMPONENT, "ended"));
            }
            let shoot = get_shoot(context, cluster).await?;
            Ok(if stand_in::settled(&shoot) { Seen::Yes(()) } else { Seen::NotYet(shoot["status"].to_string()) })
        })
        .await;
        outcome.map_err(|error| match error {
            timeout @ Error::Timeout { .. } => context.processes.failure(stand_in::COMPONENT, &timeout.to_string()),
            other => other,
        })?;
    }
    Ok(())
}
