//! Keys of the outside issuers, fetched as Entra ID does: discovery document, then key set, over HTTPS, cached.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::{Jwk, JwkSet};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;

/// Issuers whose keys are kept at a time; the one fetched longest ago makes room.
const MAX_ISSUERS: usize = 64;
/// How long a key set counts without being fetched again.
const FRESH: Duration = Duration::from_mins(5);
/// An answer that is larger is no discovery document.
const MAX_DOCUMENT: usize = 1024 * 1024;

/// Why an issuer's key is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum IssuerError {
    /// No answer, or a bad one.
    #[error("failed to fetch {url}, check that the issuer is served and that its certificate is trusted: {source}")]
    Fetch {
        /// What was fetched.
        url: String,
        /// The cause.
        source: reqwest::Error,
    },
    /// Another request for the same issuer failed while this one waited for it; its own error is in the log.
    #[error("failed to fetch the keys of {issuer} just now")]
    JustFailed {
        /// The issuer.
        issuer: String,
    },
    /// An answer that is not what OpenID Connect Discovery asks for.
    #[error("failed to use {url}: {reason}")]
    Document {
        /// What was fetched.
        url: String,
        /// What is wrong in it.
        reason: String,
    },
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

struct Fetched {
    keys: JwkSet,
    at: Instant,
}

#[derive(Default)]
struct Known {
    fetched: Option<Fetched>,
    failed: Option<Instant>,
}

type Slot = Arc<Mutex<Known>>;

/// The cache. Two requests for one issuer fetch once; different issuers never wait for each other.
pub struct Issuers {
    client: reqwest::Client,
    slots: Mutex<HashMap<String, (Slot, Instant)>>,
}

impl Issuers {
    /// The client brings the trust and the timeouts.
    pub fn new(client: reqwest::Client) -> Self {
        Self { client, slots: Mutex::new(HashMap::new()) }
    }

    /// The key with this id, `None` where the issuer does not publish it. A key that is not in the cache is looked
    /// for at the issuer before that is said, so that a rotation needs no waiting.
    pub async fn key(&self, issuer: &str, kid: &str) -> Result<Option<Jwk>, IssuerError> {
        let asked = Instant::now();
        let slot = self.slot(issuer).await;
        let mut known = slot.lock().await;
        if let Some(fetched) = known.fetched.as_ref().filter(|fetched| fetched.at.elapsed() < FRESH) {
            let key = fetched.keys.find(kid);
            if key.is_some() || fetched.at >= asked {
                return Ok(key.cloned());
            }
        }
        // Whoever queued behind a fetch that failed shares its outcome: waits do not add up.
        if known.failed.is_some_and(|failed| failed >= asked) {
            return Err(IssuerError::JustFailed { issuer: issuer.to_owned() });
        }
        match self.fetch(issuer).await {
            Ok(keys) => {
                let key = keys.find(kid).cloned();
                *known = Known { fetched: Some(Fetched { keys, at: Instant::now() }), failed: None };
                Ok(key)
            }
            Err(error) => {
                known.failed = Some(Instant::now());
                Err(error)
            }
        }
    }

    async fn slot(&self, issuer: &str) -> Slot {
        let mut slots = self.slots.lock().await;
        if !slots.contains_key(issuer)
            && slots.len() >= MAX_ISSUERS
            && let Some(oldest) = slots.iter().min_by_key(|(_, (_, used))| *used).map(|(name, _)| name.clone())
        {
            slots.remove(&oldest);
        }
        let (slot, used) = slots.entry(issuer.to_owned()).or_insert_with(|| (Slot::default(), Instant::now()));
        *used = Instant::now();
        Arc::clone(slot)
    }

    async fn fetch(&self, issuer: &str) -> Result<JwkSet, IssuerError> {
        let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let discovery: Discovery = self.document(&url).await?;
        if discovery.issuer != issuer {
            let reason = format!("it says issuer '{}', not '{issuer}'", discovery.issuer);
            return Err(IssuerError::Document { url, reason });
        }
        if !discovery.jwks_uri.starts_with("https://") {
            let reason = format!("its jwks_uri '{}' is not HTTPS", discovery.jwks_uri);
            return Err(IssuerError::Document { url, reason });
        }
        self.document(&discovery.jwks_uri).await
    }

    async fn document<T: DeserializeOwned>(&self, url: &str) -> Result<T, IssuerError> {
        let failed = |source| IssuerError::Fetch { url: url.to_owned(), source };
        let mut response =
            self.client.get(url).send().await.and_then(reqwest::Response::error_for_status).map_err(failed)?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > MAX_DOCUMENT {
                let reason = format!("it is larger than {MAX_DOCUMENT} bytes");
                return Err(IssuerError::Document { url: url.to_owned(), reason });
            }
            body.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&body)
            .map_err(|error| IssuerError::Document { url: url.to_owned(), reason: error.to_string() })
    }
}
