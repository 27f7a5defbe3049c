//! Keeps the connection to a cluster and what was delivered there.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::core::DeserializeGuard;
use kube::{Api, Client, ResourceExt};
use serde::Deserialize;
use shoot_backup_api::ApplicationCluster;
use shoot_backup_api::application_cluster::ApplicationClusterPhase as Phase;
use shoot_backup_api::names;

use super::target::Target;
use super::{Error, access, account};
use crate::connections::{ClusterKey, Connection};
use crate::context::{self, Context};
use crate::delivery::{Values, apply};
use crate::kubeconfig::Access;
use crate::request::{self, Kind, timed};

/// What was delivered is compared with what is there at least this often.
pub const CHECK_EVERY: Duration = Duration::from_mins(1);
/// A new account may be refused until the API server's authorizer has seen its roles.
const ACCOUNT_TRIES: u32 = 10;
const ACCOUNT_EVERY: Duration = Duration::from_millis(500);

/// Why the agent was delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// It was not there.
    First,
    /// Version, image or configuration changed.
    Upgrade,
    /// This was changed or deleted in the cluster.
    Repair(String),
}

/// A cluster that can be worked with.
pub struct Connected {
    /// The connection.
    pub connection: Connection,
    /// What was delivered just now, if anything.
    pub delivery: Option<Delivery>,
}

/// What one cluster needs.
pub struct Wanted<'a> {
    /// The cluster.
    pub cluster: &'a ApplicationCluster,
    /// Where its kubeconfig comes from.
    pub target: &'a Target,
    /// What is delivered; the issuer of a cluster that is no Shoot is added here.
    pub values: Values,
}

impl Wanted<'_> {
    fn key(&self) -> ClusterKey {
        context::key(self.cluster)
    }

    /// A cluster or Shoot that was made anew under the same name is another one, and so is another Secret.
    fn owner(&self) -> String {
        let target = match self.target {
            Target::Shoot { shoot, .. } => shoot.metadata.uid.clone().unwrap_or_default(),
            Target::Standalone(secret) => format!("{}/{}", secret.name, secret.key),
        };
        format!("{}/{target}", self.cluster.uid().unwrap_or_default())
    }

    fn values(&self, issuer: Option<&str>) -> Values {
        let mut values = self.values.clone();
        if values.issuer.is_empty()
            && let Some(issuer) = issuer
        {
            issuer.clone_into(&mut values.issuer);
        }
        values
    }
}

/// Makes sure that the cluster is connected and has what it should have: (1) go on with the restricted account if there
/// is one, (2) renew its token in time, (3) compare at least every minute, (4) where it is refused, or something has to
/// be delivered, use administrative access once.
pub async fn ensure(wanted: &Wanted<'_>, context: &Context) -> Result<Connected, Error> {
    let key = wanted.key();
    let mut reason = None;
    if let Some(mut connection) = context.connections.get(&key).filter(|connection| connection.owner == wanted.owner())
    {
        if context.connections.client(&key).is_err() {
            // It was given up meanwhile: only an answer makes it usable again.
            connection.checked = None;
        }
        match upkeep(&mut connection, wanted, context).await {
            Ok(None) => {
                context.connections.put(key, connection.clone());
                return Ok(Connected { connection, delivery: None });
            }
            Ok(Some(delivery)) => reason = Some(delivery),
            Err(Error::Cluster(error)) if matches!(error.kind(), Kind::Refused | Kind::NotFound) => {
                tracing::info!(namespace = key.namespace, cluster = key.name, %error, "onboards again: refused");
                context.connections.drop_connection(&key);
            }
            // Its address or its CA may have changed: both come with fresh access. A cluster that is simply down costs
            // one such try in each of its reconciliations, whose backoff and deadline bound it.
            Err(error) if error.is_unreachable() => {
                tracing::info!(namespace = key.namespace, cluster = key.name, %error, "onboards again: does not answer");
                context.connections.mark_unreachable(&key, &error.to_string());
            }
            Err(error) => {
                context.connections.mark_unreachable(&key, &error.to_string());
                return Err(error);
            }
        }
    }
    let result = onboard(wanted, reason, context).await;
    if let Err(error) = &result {
        context.connections.mark_unreachable(&key, &error.to_string());
    }
    result
}

/// Returns why something has to be delivered, if it has.
async fn upkeep(
    connection: &mut Connection,
    wanted: &Wanted<'_>,
    context: &Context,
) -> Result<Option<Delivery>, Error> {
    let now = Timestamp::now();
    if now >= connection.renew_at {
        let account = account::connect(&connection.client, &connection.endpoint, now).await?;
        connection.client = account.client;
        connection.renew_at = account.renew_at;
    }
    let values = wanted.values(connection.issuer.as_deref());
    let digest = values.digest();
    let fresh = connection.checked.is_some_and(|checked| checked.elapsed() < CHECK_EVERY);
    if fresh && connection.delivered.as_ref() == Some(&digest) {
        return Ok(None);
    }
    let reason = compare(&connection.client, wanted, &values, true, context).await?;
    if reason.is_none() {
        connection.checked = Some(Instant::now());
        connection.delivered = Some(digest);
    }
    Ok(reason)
}

/// Why something has to be delivered; `None` if all is there as it should be. An agent that another cluster object of
/// ours looks after is left to that one: two of them would deliver against each other for ever.
async fn compare(
    client: &Client,
    wanted: &Wanted<'_>,
    values: &Values,
    restricted: bool,
    context: &Context,
) -> Result<Option<Delivery>, Error> {
    let delivered = apply::delivered(client).await.map_err(Error::Cluster)?;
    let manifests = values.render().map_err(Error::Delivery)?;
    let shared = delivered.owner.as_ref().is_some_and(|owner| is_other(owner, wanted, context));
    match delivered.digest {
        None => Ok(Some(Delivery::First)),
        Some(_) if shared => Ok(None),
        Some(digest) if digest != values.digest() => Ok(Some(Delivery::Upgrade)),
        Some(_) => {
            let uid = wanted.cluster.uid().unwrap_or_default();
            let drifted = apply::drifted(client, &manifests, restricted, &uid, &context.normalised)
                .await
                .map_err(Error::Cluster)?;
            Ok((!drifted.is_empty()).then(|| Delivery::Repair(apply::describe(&drifted))))
        }
    }
}

/// Whether the owner is another cluster object that is looked after now.
fn is_other(owner: &str, wanted: &Wanted<'_>, context: &Context) -> bool {
    wanted.cluster.uid().as_deref() != Some(owner)
        && context.stores.clusters.find(|guarded| is_managed(guarded, owner)).is_some()
}

fn is_managed(guarded: &DeserializeGuard<ApplicationCluster>, uid: &str) -> bool {
    guarded.0.as_ref().is_ok_and(|cluster| {
        let phase = cluster.status.as_ref().map(|status| status.phase).unwrap_or_default();
        cluster.uid().as_deref() == Some(uid) && !matches!(phase, Phase::Unmanaged | Phase::Removed)
    })
}

/// Connects with administrative access: delivers if there is a reason, then gets a token of the restricted account.
async fn onboard(wanted: &Wanted<'_>, reason: Option<Delivery>, context: &Context) -> Result<Connected, Error> {
    let namespace = wanted.cluster.namespace().unwrap_or_default();
    let admin = access::administrative(wanted.target, &namespace, context).await?;
    let cluster_uid = cluster_uid(&admin.client).await.map_err(Error::Cluster)?;
    let issuer = match wanted.target {
        Target::Standalone(_) => issuer(wanted.cluster, &admin).await,
        Target::Shoot { .. } => None,
    };
    let values = wanted.values(issuer.as_deref());
    let digest = values.digest();
    let known = wanted.cluster.status.as_ref().and_then(|status| status.cluster_uid.as_ref()) == Some(&cluster_uid);
    let delivery = match reason {
        Some(Delivery::First) if known => Some(lost()),
        Some(reason) => Some(reason),
        None => compare(&admin.client, wanted, &values, false, context)
            .await?
            .map(|reason| if known && reason == Delivery::First { lost() } else { reason }),
    };
    if delivery.is_some() {
        let manifests = values.render().map_err(Error::Delivery)?;
        let owner = wanted.cluster.uid().unwrap_or_default();
        apply::deliver(&admin.client, &manifests, &digest, &owner, &context.normalised)
            .await
            .map_err(Error::Delivery)?;
        context.metrics.delivered(matches!(delivery, Some(Delivery::Repair(_))));
    }
    let account = account::connect(&admin.client, &admin.endpoint, Timestamp::now()).await?;
    usable(&account.client).await.map_err(Error::Cluster)?;
    let connection = Connection {
        client: account.client,
        endpoint: admin.endpoint,
        owner: wanted.owner(),
        cluster_uid,
        version: admin.version,
        issuer,
        renew_at: account.renew_at,
        checked: Some(Instant::now()),
        delivered: Some(digest),
    };
    if context.connections.put(wanted.key(), connection.clone()) {
        Ok(Connected { connection, delivery })
    } else {
        Err(Error::TooMany)
    }
}

/// A cluster that had the agent before has lost what marks it.
fn lost() -> Delivery {
    Delivery::Repair(format!("Namespace {0} was deleted, or lost its annotations", names::AGENT_NAMESPACE))
}

/// Waits until the account's roles are in force.
async fn usable(client: &Client) -> Result<(), request::Error> {
    let mut tries = 0;
    loop {
        match cluster_uid(client).await {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == Kind::Refused && tries < ACCOUNT_TRIES => tries += 1,
            Err(error) => return Err(error),
        }
        tokio::time::sleep(ACCOUNT_EVERY).await;
    }
}

async fn cluster_uid(client: &Client) -> Result<String, request::Error> {
    let api: Api<Namespace> = Api::all(client.clone());
    let namespace = timed("get Namespace kube-system", api.get("kube-system")).await?;
    Ok(namespace.uid().unwrap_or_default())
}

/// What a cluster says of its own issuer.
#[derive(Deserialize)]
struct Discovery {
    issuer: String,
}

/// Issuer of a cluster that is no Shoot: as given, or as its API server says. A cluster that says none has none.
async fn issuer(cluster: &ApplicationCluster, admin: &Access) -> Option<String> {
    if let Some(issuer) = &cluster.spec.issuer {
        return Some(issuer.clone());
    }
    let request = http::Request::get("/.well-known/openid-configuration").body(Vec::new()).ok()?;
    let answer = timed("get the issuer", admin.client.request::<Discovery>(request)).await;
    match answer {
        Ok(discovery) => Some(discovery.issuer),
        Err(error) => {
            tracing::info!(cluster = cluster.name_any(), %error, "the cluster does not say its issuer");
            None
        }
    }
}
