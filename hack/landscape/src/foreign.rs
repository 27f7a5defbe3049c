//! A second garden, of another landscape operator: for what is discovered by a kubeconfig Secret.

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::context::Context;
use crate::error::{Doing, Result};
use crate::garden_content::{self, PROJECT};
use crate::stand_in::BACKED_BY;
use crate::wait::{self, Seen};
use crate::{control_plane, garden, objects, up};

/// The one Shoot of the foreign garden.
pub const FOREIGN_SHOOT: &str = "omega";

/// Starts the foreign garden with its Shoot; cluster `delta` stands behind it.
pub(crate) async fn ensure(context: &Context) -> Result<()> {
    let cluster = Cluster::ForeignGarden;
    let client = up::apiserver(context, cluster).await?;
    control_plane::ensure_controllers(context, cluster).await?;
    garden::ensure(context, cluster, &client).await?;
    objects::create_all(&client, &garden_content::projects(&context.slot.discovery_host())).await?;
    objects::create_all(&client, &garden_content::infrastructure()).await?;
    let shoot = garden_content::shoot(PROJECT, FOREIGN_SHOOT, false);
    objects::create(&client, &shoot).await?;
    let api = objects::api(&client, &shoot)?;
    let annotation = json!({"metadata": {"annotations": {BACKED_BY: Cluster::Delta.name()}}});
    api.patch(FOREIGN_SHOOT, &PatchParams::default(), &Patch::Merge(&annotation))
        .await
        .doing(|| format!("annotate Shoot {FOREIGN_SHOOT}"))?;
    wait::until(&format!("status of foreign Shoot {FOREIGN_SHOOT}"), 60, || async {
        let shoot = api.get(FOREIGN_SHOOT).await.doing(|| format!("get Shoot {FOREIGN_SHOOT}"))?;
        let addresses = shoot.data.pointer("/status/advertisedAddresses").and_then(Value::as_array);
        Ok(match addresses {
            Some(addresses) if !addresses.is_empty() => Seen::Yes(()),
            _ => Seen::NotYet("no advertised addresses".to_owned()),
        })
    })
    .await
}
