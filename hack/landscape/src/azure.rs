//! Azure as the landscape knows it: Azurite behind the project's own emulator of Entra ID and of the blob service's rules.

use serde_json::json;

use crate::context::Context;
use crate::error::{Doing, Error, Result};
use crate::pki::Key;
use crate::place::own_program;
use crate::process::Start;
use crate::slot::Port;

/// The storage account.
const ACCOUNT: &str = "sblandscape";
/// The container that is there from the start.
const CONTAINER: &str = "backups";
const AZURITE: &str = "azurite";
const EMULATOR: &str = "azure-emulator";

/// How to reach the landscape's Azure, from the host and from pods alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Azure {
    /// Blob endpoint with the account's name in its path.
    pub blob_endpoint: String,
    /// Token endpoint's base, for `AZURE_AUTHORITY_HOST`.
    pub authority_host: String,
    /// Storage account.
    pub account: String,
    /// Tenant of all identities.
    pub tenant_id: String,
    /// An identity that is registered from the start, without roles or federated credentials.
    pub client_id: String,
    /// A container that is there from the start.
    pub container: String,
    /// The emulator's admin API; on loopback, for tests only.
    pub admin_url: String,
}

/// The landscape's Azure; it need not run.
pub(crate) fn describe(context: &Context) -> Azure {
    let base = format!("https://{}:{}", context.slot.host(), context.slot.port(Port::Azure));
    Azure {
        blob_endpoint: format!("{base}/{ACCOUNT}"),
        authority_host: format!("{base}/"),
        account: ACCOUNT.to_owned(),
        tenant_id: context.settings.tenant_id.clone(),
        client_id: context.settings.client_id.clone(),
        container: CONTAINER.to_owned(),
        admin_url: format!("http://127.0.0.1:{}", context.slot.port(Port::AzureAdmin)),
    }
}

/// Starts Azurite and the emulator, and makes the first identity and container.
pub(crate) async fn ensure(context: &Context) -> Result<()> {
    let azure = describe(context);
    let servers = context.pki.authority("ca", Key::Ec)?;
    let addresses = [context.slot.host().into(), [127, 0, 0, 1].into()];
    let server = context.pki.server(&servers, "azure", &["localhost"], &addresses)?;
    let port = context.slot.port(Port::Azurite).to_string();
    let start = Start::new("/usr/bin/env")
        .args(["node".into(), context.programs.azurite.clone().into_os_string()])
        .args(["--blobHost", "127.0.0.1", "--blobPort", &port, "--oauth", "basic"])
        .args(["--skipApiVersionCheck", "--disableTelemetry", "--silent"])
        .arg("--cert")
        .arg(&server.certificate)
        .arg("--key")
        .arg(&server.key)
        .arg("-l")
        .arg(context.place.state.join("azurite"))
        .env("AZURITE_ACCOUNTS", format!("{ACCOUNT}:{}", context.settings.account_key));
    context.processes.ensure(AZURITE, &start).await?;
    let own = format!("https://127.0.0.1:{port}");
    context
        .processes
        .ready(AZURITE, 60, || async {
            // Any answer will do: it refuses requests without a token.
            context.http.get(&own).send().await.err().map(|error| error.to_string())
        })
        .await?;

    let start = Start::new(own_program("shoot-backup-azure-emulator")?)
        .args(["--listen", &format!("{}:{}", context.slot.host(), context.slot.port(Port::Azure))])
        .args(["--admin", &format!("127.0.0.1:{}", context.slot.port(Port::AzureAdmin))])
        .args(["--azurite", &own, "--account", ACCOUNT])
        .arg("--certificate")
        .arg(&server.certificate)
        .arg("--key")
        .arg(&server.key)
        .arg("--trust")
        .arg(context.authority())
        .arg("--state")
        .arg(context.place.state.join("azure.json"));
    context.processes.ensure(EMULATOR, &start).await?;
    let health = format!("{}/healthz", azure.admin_url);
    context.processes.ready(EMULATOR, 60, || crate::http::not_ready(&context.http, &health)).await?;
    let identity = json!({"tenantID": azure.tenant_id, "name": "landscape"});
    put(context, &format!("{}/identities/{}", azure.admin_url, azure.client_id), &identity).await?;
    put(context, &format!("{}/containers/{CONTAINER}", azure.admin_url), &json!({})).await
}

async fn put(context: &Context, url: &str, body: &serde_json::Value) -> Result<()> {
    let answer = context.http.put(url).json(body).send().await.doing(|| format!("put {url}"))?;
    // What is there already is as good as made.
    if answer.status().is_success() || answer.status() == reqwest::StatusCode::CONFLICT {
        return Ok(());
    }
    let status = answer.status();
    let text = answer.text().await.unwrap_or_default();
    Err(Error::Command { action: format!("put {url} ({status})"), output: text })
}
