//! The admin interface's client: one typed method for each request.

use bytes::Bytes;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use url::Url;

use crate::admin::{BlobEntry, BlobPage, FaultAdded};
use crate::faults::{Fault, FaultStatus};
use crate::model::{FederatedCredential, Identity, IdentitySpec, ImmutabilityPolicy, Role, RoleAssignment, Settings};
use crate::requests::RequestSummary;

/// Why a request to the admin interface failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The URL given is none.
    #[error("failed to use '{0}' as the admin interface's URL: it must be like http://127.0.0.1:1234")]
    Url(String),
    /// No answer, or an unreadable one.
    #[error("failed to {action} at the emulator's admin interface: {source}")]
    Transport {
        /// What was tried.
        action: String,
        /// The cause.
        source: reqwest::Error,
    },
    /// The emulator refused.
    #[error("failed to {action}: {status} {code}: {message}")]
    Refused {
        /// What was tried.
        action: String,
        /// The status.
        status: StatusCode,
        /// The code, as Azure Resource Manager's.
        code: String,
        /// The words.
        message: String,
    },
}

#[derive(Default, Deserialize)]
struct Refusal {
    #[serde(default)]
    error: RefusalDetail,
}

#[derive(Default, Deserialize)]
struct RefusalDetail {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// Sets an emulator up and looks into it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AdminClient {
    http: reqwest::Client,
    base: Url,
}

type Outcome<T> = Result<T, ClientError>;

impl AdminClient {
    /// `base` as `http://127.0.0.1:1234`.
    pub fn new(base: &str) -> Outcome<Self> {
        let url = Url::parse(base).ok().filter(|url| !url.cannot_be_a_base());
        let base = url.ok_or_else(|| ClientError::Url(base.to_owned()))?;
        // Plain HTTP on loopback: no trust to set up, no proxy to go by.
        let http = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only(std::iter::empty())
            .timeout(std::time::Duration::from_mins(1))
            .build()
            .map_err(|source| ClientError::Transport { action: "set up a client".to_owned(), source })?;
        Ok(Self { http, base })
    }

    /// Succeeds when the emulator serves.
    pub async fn health(&self) -> Outcome<()> {
        self.send(self.request(Method::GET, &["healthz"]), "ask for health").await.map(drop)
    }

    /// Creates an identity, or moves it to another tenant or name; credentials and roles stay.
    pub async fn put_identity(&self, client_id: &str, tenant_id: &str, name: &str) -> Outcome<Identity> {
        let spec = IdentitySpec { tenant_id: tenant_id.to_owned(), name: name.to_owned() };
        let request = self.request(Method::PUT, &["identities", client_id]).json(&spec);
        self.json(request, &format!("put identity '{client_id}'")).await
    }

    /// An identity with its credentials and roles.
    pub async fn identity(&self, client_id: &str) -> Outcome<Identity> {
        let request = self.request(Method::GET, &["identities", client_id]);
        self.json(request, &format!("get identity '{client_id}'")).await
    }

    /// Trusts a subject of an issuer. At most 20 per identity.
    pub async fn put_federated_credential(
        &self,
        client_id: &str,
        name: &str,
        credential: &FederatedCredential,
    ) -> Outcome<()> {
        let path = ["identities", client_id, "federatedCredentials", name];
        let request = self.request(Method::PUT, &path).json(credential);
        self.send(request, &format!("put federated credential '{name}' of '{client_id}'")).await.map(drop)
    }

    /// Trusts it no more. A credential that is not there is gone already.
    pub async fn delete_federated_credential(&self, client_id: &str, name: &str) -> Outcome<()> {
        let request = self.request(Method::DELETE, &["identities", client_id, "federatedCredentials", name]);
        self.send(request, &format!("delete federated credential '{name}' of '{client_id}'")).await.map(drop)
    }

    /// Gives an identity a role on a container, or on all by [`crate::WHOLE_ACCOUNT`]. It replaces another one.
    pub async fn put_role_assignment(&self, client_id: &str, container: &str, role: Role) -> Outcome<()> {
        let request = self.request(Method::PUT, &["roleAssignments", client_id, container]);
        let request = request.json(&RoleAssignment { role });
        self.send(request, &format!("assign a role on '{container}' to '{client_id}'")).await.map(drop)
    }

    /// Takes the role away.
    pub async fn delete_role_assignment(&self, client_id: &str, container: &str) -> Outcome<()> {
        let request = self.request(Method::DELETE, &["roleAssignments", client_id, container]);
        self.send(request, &format!("take the role on '{container}' from '{client_id}'")).await.map(drop)
    }

    /// Creates a container; one that is there stays.
    pub async fn put_container(&self, container: &str) -> Outcome<()> {
        let request = self.request(Method::PUT, &["containers", container]);
        self.send(request, &format!("create container '{container}'")).await.map(drop)
    }

    /// Sets a container's retention in days.
    pub async fn put_immutability(&self, container: &str, days: u32) -> Outcome<()> {
        let request = self.request(Method::PUT, &["containers", container, "immutability"]);
        let request = request.json(&ImmutabilityPolicy { days });
        self.send(request, &format!("set the retention of '{container}'")).await.map(drop)
    }

    /// Removes a container's retention.
    pub async fn delete_immutability(&self, container: &str) -> Outcome<()> {
        let request = self.request(Method::DELETE, &["containers", container, "immutability"]);
        self.send(request, &format!("remove the retention of '{container}'")).await.map(drop)
    }

    /// Settings of the token endpoint.
    pub async fn settings(&self) -> Outcome<Settings> {
        self.json(self.request(Method::GET, &["settings"]), "get settings").await
    }

    /// Changes them, for tokens issued from now on.
    pub async fn put_settings(&self, settings: Settings) -> Outcome<()> {
        let request = self.request(Method::PUT, &["settings"]).json(&settings);
        self.send(request, "put settings").await.map(drop)
    }

    /// Makes all access tokens issued so far invalid.
    pub async fn revoke_tokens(&self) -> Outcome<()> {
        self.send(self.request(Method::POST, &["tokens", "revoke"]), "revoke tokens").await.map(drop)
    }

    /// Adds a fault rule and gives its id.
    pub async fn add_fault(&self, fault: &Fault) -> Outcome<u64> {
        let request = self.request(Method::POST, &["faults"]).json(fault);
        let added: FaultAdded = self.json(request, "add a fault").await?;
        Ok(added.id)
    }

    /// The rules and how often each was hit.
    pub async fn faults(&self) -> Outcome<Vec<FaultStatus>> {
        self.json(self.request(Method::GET, &["faults"]), "list faults").await
    }

    /// Removes all rules.
    pub async fn clear_faults(&self) -> Outcome<()> {
        self.send(self.request(Method::DELETE, &["faults"]), "clear faults").await.map(drop)
    }

    /// Requests served so far.
    pub async fn requests(&self) -> Outcome<RequestSummary> {
        self.json(self.request(Method::GET, &["requests"]), "get the summary of requests").await
    }

    /// All blobs of a container below a prefix, page by page into one list: for tests, whose containers are small.
    pub async fn blobs(&self, container: &str, prefix: &str) -> Outcome<Vec<BlobEntry>> {
        let mut all = Vec::new();
        let mut marker: Option<String> = None;
        loop {
            let mut url = self.url(&["blobs", container]);
            url.query_pairs_mut().append_pair("prefix", prefix).extend_pairs(marker.iter().map(|at| ("marker", at)));
            let request = self.http.get(url);
            let page: BlobPage = self.json(request, &format!("list blobs of '{container}'")).await?;
            all.extend(page.blobs);
            marker = page.next_marker;
            if marker.is_none() {
                return Ok(all);
            }
        }
    }

    /// A blob's content, past all checks.
    pub async fn blob(&self, container: &str, blob: &str) -> Outcome<Bytes> {
        let action = format!("read blob '{blob}' of '{container}'");
        let response = self.send(self.blob_request(Method::GET, container, blob), &action).await?;
        response.bytes().await.map_err(|source| ClientError::Transport { action, source })
    }

    /// Writes a blob past all checks, also over an immutable one: to break it on purpose.
    pub async fn put_blob(&self, container: &str, blob: &str, content: impl Into<Bytes>) -> Outcome<()> {
        let content = content.into();
        // Said even for an empty body, of which the library would send none.
        let request =
            self.blob_request(Method::PUT, container, blob).header("content-length", content.len()).body(content);
        self.send(request, &format!("write blob '{blob}' of '{container}'")).await.map(drop)
    }

    /// Deletes a blob past all checks.
    pub async fn delete_blob(&self, container: &str, blob: &str) -> Outcome<()> {
        let request = self.blob_request(Method::DELETE, container, blob);
        self.send(request, &format!("delete blob '{blob}' of '{container}'")).await.map(drop)
    }

    fn blob_request(&self, method: Method, container: &str, blob: &str) -> RequestBuilder {
        let path: Vec<&str> = ["blobs", container].into_iter().chain(blob.split('/')).collect();
        self.request(method, &path)
    }

    fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        self.http.request(method, self.url(path))
    }

    fn url(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        url
    }

    async fn send(&self, request: RequestBuilder, action: &str) -> Outcome<Response> {
        let failed = |source| ClientError::Transport { action: action.to_owned(), source };
        let response = request.send().await.map_err(failed)?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = response.text().await.map_err(failed)?;
        let refusal = serde_json::from_str::<Refusal>(&text).unwrap_or_default().error;
        let message = if refusal.message.is_empty() { text } else { refusal.message };
        Err(ClientError::Refused { action: action.to_owned(), status, code: refusal.code, message })
    }

    async fn json<T: serde::de::DeserializeOwned>(&self, request: RequestBuilder, action: &str) -> Outcome<T> {
        let response = self.send(request, action).await?;
        response.json().await.map_err(|source| ClientError::Transport { action: action.to_owned(), source })
    }
}
