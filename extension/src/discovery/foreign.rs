//! Foreign gardens: reached with a kubeconfig that a project member keeps in a Secret of the project.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Secret;
use kube::api::ListParams;
use kube::{Api, Client};
use shoot_backup_api::ClusterDiscovery;
use shoot_backup_api::references::SecretKeyReference;
use shoot_backup_api::shoot::Shoot;

use super::Error;
use crate::context::Context;
use crate::kubeconfig;
use crate::request::{timed, timed_opt};

/// How long a client is used before the Secret is read again.
const CLIENT_LIFE: Duration = Duration::from_mins(5);
/// Clients kept.
const MAX_CLIENTS: usize = 256;
/// Shoots in one page of a list.
const PAGE: u32 = 200;
/// Shoots of one foreign garden that are looked at. More is an error, never a silent cut.
pub const MAX_SHOOTS: usize = 5_000;

/// Clients by namespace and name of the `ClusterDiscovery`.
#[derive(Default)]
pub struct ForeignGardens {
    clients: Mutex<HashMap<(String, String), (Instant, Client)>>,
}

impl ForeignGardens {
    fn known(&self, key: &(String, String)) -> Option<Client> {
        let clients = self.clients.lock().ok()?;
        let (made, client) = clients.get(key)?;
        (made.elapsed() < CLIENT_LIFE).then(|| client.clone())
    }

    fn keep(&self, key: (String, String), client: Client) {
        if let Ok(mut clients) = self.clients.lock() {
            if clients.len() >= MAX_CLIENTS {
                clients.clear();
            }
            clients.insert(key, (Instant::now(), client));
        }
    }

    /// Forgets a client, so that the Secret is read again.
    pub fn forget(&self, namespace: &str, name: &str) {
        if let Ok(mut clients) = self.clients.lock() {
            clients.remove(&(namespace.to_owned(), name.to_owned()));
        }
    }

    /// Forgets the clients of discoveries that are gone.
    pub fn retain(&self, exists: impl Fn(&str, &str) -> bool) {
        if let Ok(mut clients) = self.clients.lock() {
            clients.retain(|(namespace, name), _| exists(namespace, name));
        }
    }
}

/// Reads a kubeconfig from a Secret of a project. The text is not kept.
pub async fn read_secret(context: &Context, namespace: &str, reference: &SecretKeyReference) -> Result<String, Error> {
    let api: Api<Secret> = Api::namespaced(context.garden.clone(), namespace);
    let unusable = |message: String| Error::Secret { secret: reference.name.clone(), message };
    let secret = timed_opt(format!("get Secret {}", reference.name), api.get(&reference.name))
        .await?
        .ok_or_else(|| unusable("it does not exist: create it with a kubeconfig".to_owned()))?;
    let data = secret
        .data
        .and_then(|mut data| data.remove(&reference.key))
        .ok_or_else(|| unusable(format!("it has no key {}: write the kubeconfig there", reference.key)))?;
    String::from_utf8(data.0).map_err(|_| unusable(format!("the value of key {} is not text", reference.key)))
}

/// The client for a discovery's foreign garden.
pub async fn client(context: &Context, discovery: &ClusterDiscovery, namespace: &str) -> Result<Client, Error> {
    let name = discovery.metadata.name.clone().unwrap_or_default();
    let Some(garden) = &discovery.spec.garden else { return Ok(context.garden.clone()) };
    let key = (namespace.to_owned(), name);
    if let Some(client) = context.foreign.known(&key) {
        return Ok(client);
    }
    let reference = &garden.kubeconfig_secret_ref;
    let failed = |source| Error::Kubeconfig { secret: reference.name.clone(), source };
    let text = read_secret(context, namespace, reference).await?;
    let access = kubeconfig::check(&text).map_err(failed)?.connect(&context.roots).await.map_err(failed)?;
    context.foreign.keep(key, access.client.clone());
    Ok(access.client)
}

/// All Shoots of the namespaces that the discovery names.
pub async fn list(client: &Client, namespaces: &[String]) -> Result<Vec<Shoot>, Error> {
    let mut shoots = Vec::new();
    for namespace in namespaces {
        let api: Api<Shoot> = Api::namespaced(client.clone(), namespace);
        let mut parameters = ListParams::default().limit(PAGE);
        loop {
            let page = timed(format!("list Shoots in {namespace}"), api.list(&parameters)).await?;
            let empty = page.items.is_empty();
            for mut shoot in page.items {
                super::shoots::slim(&mut shoot);
                shoot.metadata.namespace = Some(namespace.clone());
                shoots.push(shoot);
            }
            if shoots.len() > MAX_SHOOTS {
                return Err(Error::TooMany);
            }
            // A server that goes on with empty pages would never end.
            match page.metadata.continue_.filter(|token| !token.is_empty() && !empty) {
                Some(token) => parameters = parameters.continue_token(&token),
                None => break,
            }
        }
    }
    Ok(shoots)
}
