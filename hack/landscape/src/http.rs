//! HTTPS to the landscape's own components, which show certificates of its own authority.

use std::path::Path;
use std::time::Duration;

use reqwest::{Certificate, Client};

use crate::error::{Doing, Result};
use crate::place::read;

/// A client that trusts the landscape's authority and nothing else.
pub(crate) fn client(authority: &Path) -> Result<Client> {
    let certificate = Certificate::from_pem(read(authority)?.as_bytes())
        .doing(|| format!("read certificate {}", authority.display()))?;
    Client::builder()
        .tls_certs_only([certificate])
        .no_proxy()
        .timeout(Duration::from_secs(10))
        .build()
        .doing(|| "make an HTTPS client")
}

/// Why the address does not answer with success, if it does not.
pub(crate) async fn not_ready(client: &Client, url: &str) -> Option<String> {
    match client.get(url).send().await {
        Ok(answer) if answer.status().is_success() => None,
        Ok(answer) => Some(format!("{url} answered {}", answer.status())),
        Err(error) => Some(format!("{url} did not answer: {error}")),
    }
}
