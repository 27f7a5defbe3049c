//! A landscape that is up, as tests and commands use it.

use std::path::{Path, PathBuf};

use kube::Client;

use crate::azure::{self, Azure};
use crate::cluster::Cluster;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::image::{self, Image};
use crate::place::{Place, read};
use crate::progress::Progress;
use crate::settings;
use crate::slot::{REGISTRY, Slot};
use crate::{containerd, down, kubeconfig, node, up};

/// A landscape of this machine.
#[derive(Debug, Clone)]
pub struct Landscape {
    pub(crate) context: Context,
}

impl Landscape {
    /// Brings the landscape of this name up: starts what does not run, waits until all is ready.
    pub async fn up(name: &str, progress: &dyn Progress) -> Result<Self> {
        Ok(Self { context: Box::pin(up::up(name, progress)).await? })
    }

    /// The landscape of this name, which someone else has brought up.
    pub fn attach(name: &str) -> Result<Self> {
        let place = Place::of(name)?;
        let slot = Slot::held(Path::new(REGISTRY), &place.state)?.ok_or_else(|| {
            Error::Precondition(format!("landscape {name} is not up: run `landscape --name {name} up`"))
        })?;
        let programs = settings::remembered_programs(&place.state)?;
        Ok(Self { context: Context::new(name, place, slot, programs)? })
    }

    /// Ends the landscape and removes all that it left, whether or not it is whole.
    pub async fn down(name: &str, keep_logs: bool, progress: &dyn Progress) -> Result<()> {
        down::down(&Place::of(name)?, keep_logs, progress).await
    }

    /// The administrator's kubeconfig; it works from the host and from pods.
    #[must_use]
    pub fn kubeconfig(&self, cluster: Cluster) -> PathBuf {
        self.context.place.kubeconfig(cluster)
    }

    /// An administrator's client.
    pub async fn client(&self, cluster: Cluster) -> Result<Client> {
        kubeconfig::client(&self.kubeconfig(cluster)).await
    }

    /// The authority that signed all server certificates of the landscape.
    pub fn ca_pem(&self) -> Result<String> {
        read(&self.context.authority())
    }

    /// The same authority as a file.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.context.authority()
    }

    /// The landscape's Azure.
    #[must_use]
    pub fn azure(&self) -> Azure {
        azure::describe(&self.context)
    }

    /// Base address of the published issuers.
    #[must_use]
    pub fn discovery_url(&self) -> String {
        self.context.slot.discovery()
    }

    /// kubectl of the clusters' version.
    #[must_use]
    pub fn kubectl_path(&self) -> PathBuf {
        self.context.programs.kubernetes("kubectl")
    }

    /// Helm.
    #[must_use]
    pub fn helm_path(&self) -> PathBuf {
        self.context.programs.helm()
    }

    /// Log of a component, by its name in `status`.
    #[must_use]
    pub fn log(&self, component: &str) -> PathBuf {
        self.context.processes.log(component)
    }

    /// Names of all components that were started, and the process of each that runs.
    #[must_use]
    pub fn components(&self) -> Vec<(String, Option<i32>)> {
        let processes = &self.context.processes;
        let named = processes.recorded().into_iter();
        named
            .map(|name| (processes.running(&name).map(|process| process.pid), name))
            .map(|(pid, name)| (name, pid))
            .collect()
    }

    /// Builds these images and brings them to every running node that has others.
    pub async fn load_images(&self, images: &[Image]) -> Result<()> {
        for image in images {
            let archive = image::build(*image, &self.context.place.images()).await?;
            for cluster in Cluster::ALL {
                if self.context.processes.running(&node::containerd(cluster)).is_some() {
                    containerd::import(&self.context, cluster, &archive).await?;
                }
            }
        }
        Ok(())
    }

    /// The directory behind a `PersistentVolume`.
    #[must_use]
    pub fn volume_path(&self, cluster: Cluster, volume: &str) -> PathBuf {
        self.context.place.volumes(cluster).join(volume)
    }
}
