//! What an `ApplicationCluster` refers to: the first step of its reconciliation.

use std::sync::Arc;

use kube::{Api, Client, ResourceExt};
use shoot_backup_api::ApplicationCluster;
use shoot_backup_api::references::SecretKeyReference;
use shoot_backup_api::shoot::Shoot;

use super::Error;
use crate::context::{self, Context};
use crate::discovery::selection::{self, Decision, MANUAL};
use crate::discovery::{foreign, shoots};
use crate::request::timed_opt;

/// Where a cluster's kubeconfig comes from.
#[derive(Clone)]
pub enum Target {
    /// A Shoot.
    Shoot {
        /// The garden that it is in.
        garden: Client,
        /// Whether that is the own garden, where we may patch Shoots.
        own: bool,
        /// The Shoot.
        shoot: Arc<Shoot>,
    },
    /// A cluster whose kubeconfig is in a Secret.
    Standalone(SecretKeyReference),
}

impl Target {
    /// The Shoot, if it is one.
    #[must_use]
    pub fn shoot(&self) -> Option<&Shoot> {
        match self {
            Self::Shoot { shoot, .. } => Some(shoot),
            Self::Standalone(_) => None,
        }
    }
}

/// What was found.
pub struct Found {
    /// Whether the cluster is looked after.
    pub decision: Decision,
    /// What it refers to; `None` if that is gone.
    pub target: Option<Target>,
}

/// Finds what a cluster refers to, and decides whether it is looked after.
pub async fn dereference(cluster: &ApplicationCluster, context: &Context) -> Result<Found, Error> {
    let namespace = cluster.namespace().unwrap_or_default();
    if let Some(reference) = &cluster.spec.kubeconfig_secret_ref {
        let decision = Decision::Managed(MANUAL.to_owned());
        return Ok(Found { decision, target: Some(Target::Standalone(reference.clone())) });
    }
    let Some(reference) = &cluster.spec.shoot_ref else {
        // The rules of the kind exclude it.
        return Ok(Found { decision: Decision::Removed, target: None });
    };
    let Some(discovery) = &reference.discovery else {
        let shoot = context.stores.shoot(&namespace, &reference.name);
        let discoveries = context.stores.discoveries_in(&namespace);
        let decision = selection::own(cluster, shoot.as_deref(), &discoveries, context.config.auto_enable);
        let target = shoot.map(|shoot| Target::Shoot { garden: context.garden.clone(), own: true, shoot });
        return Ok(Found { decision, target });
    };
    let Some(discovery) = context::get(&context.stores.discoveries, &namespace, discovery)
        .filter(|discovery| discovery.metadata.deletion_timestamp.is_none())
    else {
        let why = format!("ClusterDiscovery {discovery}, through which the Shoot was reached, is gone");
        return Ok(Found { decision: Decision::Unmanaged(why), target: None });
    };
    let allowed = discovery.spec.garden.as_ref().map(|garden| garden.namespaces.as_slice()).unwrap_or_default();
    let foreign_namespace = reference.namespace.clone().unwrap_or_default();
    if !allowed.contains(&foreign_namespace) {
        let why = format!("ClusterDiscovery {} no longer names namespace {foreign_namespace}", discovery.name_any());
        return Ok(Found { decision: Decision::Unmanaged(why), target: None });
    }
    let garden = foreign::client(context, &discovery, &namespace).await?;
    let api: Api<Shoot> = Api::namespaced(garden.clone(), &foreign_namespace);
    let what = format!("get Shoot {foreign_namespace}/{}", reference.name);
    let shoot = timed_opt(what, api.get(&reference.name)).await.map_err(|error| {
        context.foreign.forget(&namespace, &discovery.name_any());
        Error::Garden(error)
    })?;
    let shoot = shoot.map(|mut shoot| {
        shoots::slim(&mut shoot);
        shoot.metadata.namespace = Some(foreign_namespace);
        Arc::new(shoot)
    });
    let decision = selection::foreign(cluster, shoot.as_deref(), &discovery);
    Ok(Found { decision, target: shoot.map(|shoot| Target::Shoot { garden, own: false, shoot }) })
}
