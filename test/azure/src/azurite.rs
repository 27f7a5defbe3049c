//! The way to Azurite: every request goes there with a token of the emulator's own, which Azurite takes always.

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use serde::Deserialize;
use url::Url;

use crate::signing::STORAGE_AUDIENCE;

/// The newest version that Azurite 3.35 knows; for the emulator's own requests only, clients send their own.
const API_VERSION: &str = "2025-11-05";
/// A page of a listing is at most 5000 blobs of well under 4 KiB of XML each.
const MAX_LISTING: usize = 32 * 1024 * 1024;

/// Headers of one hop, which a proxy does not pass on (RFC 9110, section 7.6.1), and those that it sets itself.
const OF_ONE_HOP: [HeaderName; 10] = [
    header::CONNECTION,
    header::EXPECT,
    header::HOST,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::AUTHORIZATION,
];

/// Why Azurite gave no answer, or not the one that was needed.
#[derive(Debug, thiserror::Error)]
pub enum AzuriteError {
    /// No connection, or it broke.
    #[error("failed to reach Azurite for {method} {path}, check that it runs: {source}")]
    Unreachable {
        /// The verb.
        method: Method,
        /// The path.
        path: String,
        /// The cause.
        source: reqwest::Error,
    },
    /// It refused.
    #[error("failed to {action}: Azurite answered {status}: {body}")]
    Refused {
        /// What was tried.
        action: String,
        /// Its status.
        status: StatusCode,
        /// The begin of its answer.
        body: String,
    },
    /// It answered with something else than expected.
    #[error("failed to read Azurite's answer to {action}: {reason}")]
    Answer {
        /// What was tried.
        action: String,
        /// What is wrong in it.
        reason: String,
    },
}

/// What a `HEAD` says of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobFacts {
    /// `x-ms-creation-time`.
    pub created: Timestamp,
}

/// One blob of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedBlob {
    /// Its name.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
}

/// A page of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListedPage {
    /// In the order of their names.
    pub blobs: Vec<ListedBlob>,
    /// Where the next page begins, `None` after the last.
    pub next: Option<String>,
}

#[derive(Deserialize)]
struct EnumerationResults {
    #[serde(rename = "Blobs", default)]
    blobs: BlobList,
    #[serde(rename = "NextMarker", default)]
    next_marker: String,
}

#[derive(Default, Deserialize)]
struct BlobList {
    #[serde(rename = "Blob", default)]
    blob: Vec<XmlBlob>,
}

#[derive(Deserialize)]
struct XmlBlob {
    #[serde(rename = "Name")]
    name: String,
    #[serde(rename = "Properties")]
    properties: XmlProperties,
}

#[derive(Deserialize)]
struct XmlProperties {
    #[serde(rename = "Content-Length", default)]
    content_length: u64,
}

/// Azurite's blob service with one account.
pub struct Azurite {
    client: reqwest::Client,
    base: Url,
    account: String,
}

impl Azurite {
    /// `base` is Azurite's HTTPS origin. The client brings trust and timeouts.
    pub fn new(client: reqwest::Client, base: Url, account: String) -> Self {
        Self { client, base, account }
    }

    /// The account in paths.
    pub fn account(&self) -> &str {
        &self.account
    }

    /// Azurite's URL for a path and query of the gateway, normalised.
    pub fn url(&self, path_and_query: &str) -> Option<Url> {
        let url = Url::parse(&format!("{}{path_and_query}", self.base.as_str().trim_end_matches('/'))).ok()?;
        // An authority smuggled into the path ("//elsewhere") must not move the request to another host.
        (url.origin() == self.base.origin()).then_some(url)
    }

    /// The URL of a container, or of a blob in it.
    fn object(&self, container: &str, blob: Option<&str>, query: &[(&str, &str)]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push(&self.account).push(container);
            for part in blob.into_iter().flat_map(|name| name.split('/')) {
                segments.push(part);
            }
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    /// Passes a request on and its answer back, both streaming.
    pub async fn forward(
        &self,
        method: Method,
        url: Url,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Response<Body>, AzuriteError> {
        let mut passed: HeaderMap = headers
            .iter()
            .filter(|(name, _)| !OF_ONE_HOP.contains(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        passed.insert(header::AUTHORIZATION, own_token());
        let path = url.path().to_owned();
        let mut request = self.client.request(method.clone(), url).headers(passed);
        if method == Method::PUT || method == Method::POST {
            request = request.body(reqwest::Body::wrap_stream(body.into_data_stream()));
        }
        let answer = request.send().await.map_err(|source| AzuriteError::Unreachable {
            method: method.clone(),
            path,
            source,
        })?;
        let (mut parts, body) = Response::<reqwest::Body>::from(answer).into_parts();
        for name in OF_ONE_HOP {
            parts.headers.remove(name);
        }
        // The server announces a HEAD's length from its header, which an empty body leaves alone.
        let body = if method == Method::HEAD { Body::empty() } else { Body::new(body.map_err(axum::Error::new)) };
        Ok(Response::from_parts(parts, body))
    }

    async fn own(
        &self,
        method: Method,
        url: Url,
        headers: HeaderMap,
        body: Body,
    ) -> Result<Response<Body>, AzuriteError> {
        let mut headers = headers;
        headers.insert("x-ms-version", HeaderValue::from_static(API_VERSION));
        self.forward(method, url, &headers, body).await
    }

    async fn accepted(
        action: &str,
        response: Response<Body>,
        also: &[StatusCode],
    ) -> Result<Response<Body>, AzuriteError> {
        let status = response.status();
        if status.is_success() || also.contains(&status) {
            return Ok(response);
        }
        let body = axum::body::to_bytes(response.into_body(), 4096).await.unwrap_or_default();
        let body = String::from_utf8_lossy(&body).into_owned();
        Err(AzuriteError::Refused { action: action.to_owned(), status, body })
    }

    /// Makes a container; one that is there already stays as it is.
    pub async fn create_container(&self, container: &str) -> Result<(), AzuriteError> {
        let url = self.object(container, None, &[("restype", "container")]);
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        let response = self.own(Method::PUT, url, headers, Body::empty()).await?;
        let action = format!("create container '{container}'");
        Self::accepted(&action, response, &[StatusCode::CONFLICT]).await.map(drop)
    }

    /// What is known of a blob, `None` where there is none.
    pub async fn blob_facts(&self, url: &Url) -> Result<Option<BlobFacts>, AzuriteError> {
        let mut bare = url.clone();
        bare.set_query(None);
        let action = format!("look at {}", bare.path());
        let response = self.own(Method::HEAD, bare, HeaderMap::new(), Body::empty()).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let response = Self::accepted(&action, response, &[]).await?;
        let created = response
            .headers()
            .get("x-ms-creation-time")
            .and_then(|value| value.to_str().ok())
            .and_then(|value| jiff::fmt::rfc2822::parse(value).ok())
            .ok_or_else(|| AzuriteError::Answer { action, reason: "it has no x-ms-creation-time".to_owned() })?;
        Ok(Some(BlobFacts { created: created.timestamp() }))
    }

    /// One page of a container's blobs.
    pub async fn list(
        &self,
        container: &str,
        prefix: &str,
        marker: Option<&str>,
        page: usize,
    ) -> Result<ListedPage, AzuriteError> {
        let page = page.to_string();
        let mut query = vec![("restype", "container"), ("comp", "list"), ("prefix", prefix), ("maxresults", &page)];
        query.extend(marker.map(|marker| ("marker", marker)));
        let url = self.object(container, None, &query);
        let action = format!("list container '{container}'");
        let response = self.own(Method::GET, url, HeaderMap::new(), Body::empty()).await?;
        let response = Self::accepted(&action, response, &[]).await?;
        let unreadable = |reason: String| AzuriteError::Answer { action: action.clone(), reason };
        let body = axum::body::to_bytes(response.into_body(), MAX_LISTING)
            .await
            .map_err(|error| unreadable(error.to_string()))?;
        let text = std::str::from_utf8(&body).map_err(|error| unreadable(error.to_string()))?;
        let results: EnumerationResults = quick_xml::de::from_str(text.trim_start_matches('\u{feff}'))
            .map_err(|error| unreadable(error.to_string()))?;
        let blobs = results.blobs.blob.into_iter();
        Ok(ListedPage {
            blobs: blobs.map(|blob| ListedBlob { name: blob.name, size: blob.properties.content_length }).collect(),
            next: Some(results.next_marker).filter(|marker| !marker.is_empty()),
        })
    }

    /// A blob's content, streaming.
    pub async fn get(&self, container: &str, blob: &str) -> Result<Response<Body>, AzuriteError> {
        let url = self.object(container, Some(blob), &[]);
        let response = self.own(Method::GET, url, HeaderMap::new(), Body::empty()).await?;
        Self::accepted(&format!("read blob '{blob}' of '{container}'"), response, &[]).await
    }

    /// Writes a block blob of this length, over whatever is there.
    pub async fn put(&self, container: &str, blob: &str, length: u64, body: Body) -> Result<(), AzuriteError> {
        let url = self.object(container, Some(blob), &[]);
        let mut headers = HeaderMap::new();
        headers.insert("x-ms-blob-type", HeaderValue::from_static("BlockBlob"));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        let response = self.own(Method::PUT, url, headers, body).await?;
        Self::accepted(&format!("write blob '{blob}' of '{container}'"), response, &[]).await.map(drop)
    }

    /// Removes a blob with its snapshots.
    pub async fn delete(&self, container: &str, blob: &str) -> Result<(), AzuriteError> {
        let url = self.object(container, Some(blob), &[]);
        let mut headers = HeaderMap::new();
        headers.insert("x-ms-delete-snapshots", HeaderValue::from_static("include"));
        let response = self.own(Method::DELETE, url, headers, Body::empty()).await?;
        Self::accepted(&format!("delete blob '{blob}' of '{container}'"), response, &[]).await.map(drop)
    }
}

/// Azurite's `--oauth basic` reads claims and checks no signature.
fn own_token() -> HeaderValue {
    let now = Timestamp::now().as_second();
    let claims = serde_json::json!({
        "aud": STORAGE_AUDIENCE, "iss": "https://sts.windows.net/emulator/",
        "iat": now - 60, "nbf": now - 60, "exp": now + 3600,
    });
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let token = format!("Bearer {}.{}.none", encode(r#"{"alg":"none","typ":"JWT"}"#), encode(&claims.to_string()));
    HeaderValue::try_from(token).unwrap_or(HeaderValue::from_static("Bearer none"))
}
