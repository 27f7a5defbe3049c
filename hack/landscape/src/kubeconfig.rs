//! Kubeconfigs of the landscape's clusters, and clients made from them.

use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::json;

use crate::error::{Doing, Error, Result};
use crate::pki::Pair;
use crate::place::{read, write};

/// Writes a kubeconfig with everything in it, so that it can be handed on as one file.
pub(crate) fn save(path: &Path, cluster: &str, server: &str, authority: &Path, client: &Pair) -> Result<()> {
    let encoded = |path: &Path| Ok::<_, Error>(BASE64_STANDARD.encode(read(path)?));
    // JSON is YAML, and every reader of kubeconfigs takes it.
    let content = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": cluster, "cluster": {"server": server, "certificate-authority-data": encoded(authority)?}}],
        "users": [{"name": cluster, "user": {
            "client-certificate-data": encoded(&client.certificate)?,
            "client-key-data": encoded(&client.key)?,
        }}],
        "contexts": [{"name": cluster, "context": {"cluster": cluster, "user": cluster}}],
        "current-context": cluster,
    });
    write(path, format!("{content:#}\n"))
}

/// A client for the cluster of a kubeconfig.
pub(crate) async fn client(path: &Path) -> Result<Client> {
    let failed = |source| Error::Kubeconfig { path: path.to_owned(), source: Box::new(source) };
    let kubeconfig = Kubeconfig::read_from(path).map_err(failed)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(failed)?;
    Client::try_from(config).doing(|| format!("make a client from {}", path.display()))
}
