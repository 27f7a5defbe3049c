//! Azure Blob Storage, with the workload identity of the pod and nothing else.

use std::num::NonZero;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use azure_core::cloud::{CloudConfiguration, CustomConfiguration};
use azure_core::credentials::TokenCredential;
use azure_core::http::{ClientOptions, RetryOptions, Transport};
use azure_identity::{ClientAssertionCredentialOptions, WorkloadIdentityCredential, WorkloadIdentityCredentialOptions};
use azure_storage_blob::models::{
    BlobClientDownloadOptions, BlobClientUploadOptions, BlobContainerClientListBlobsOptions, HttpRange,
    ListBlobsResponse,
};
use azure_storage_blob::{BlobClient, BlobContainerClient, BlobContainerClientOptions};
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use url::Url;

use super::azure_error::{KeepEntraErrors, map};
use super::memory::short;
use super::retry::Patience;
use super::{BlobEntry, BlobStore, StoreError, StoreErrorKind};

/// One request, connection and body included. A pack of 16 MiB passes at 60 KiB/s.
const REQUEST: Duration = Duration::from_mins(5);
const CONNECT: Duration = Duration::from_secs(20);
/// Silence on an open connection.
const SILENCE: Duration = Duration::from_mins(1);
/// Up to this size a blob goes up, and comes down, in one request.
const SINGLE: NonZero<usize> = match NonZero::new(64 * 1024 * 1024) {
    Some(size) => size,
    None => NonZero::<usize>::MIN,
};
/// Entries of one page of a listing; the service's own limit is 5,000.
const PAGE: i32 = 1000;
/// The newest version of the service's interface that Azurite and the sovereign clouds know too.
const SERVICE_VERSION: &str = "2025-11-05";
pub(super) const SCOPE: &str = "https://storage.azure.com/.default";

/// Where the blobs are, and as whom we come.
#[derive(Clone, Debug)]
pub struct AzureOptions {
    /// `https://<account>.blob.core.windows.net`, or `https://host:port/<account>`.
    pub endpoint: Url,
    /// The container. It must exist.
    pub container: String,
    /// What all paths start with, within the container; may be empty.
    pub prefix: String,
    /// The Entra application or managed identity.
    pub client_id: String,
    /// Its Entra tenant.
    pub tenant_id: String,
    /// The projected token of the pod's service account. Read again when it is older than ten minutes.
    pub token_file: PathBuf,
    /// Entra's endpoint, such as `https://login.microsoftonline.com/`.
    pub authority_host: Url,
    /// Certificates of authorities to trust beside the system's, in PEM.
    pub extra_ca_pem: Option<Vec<u8>>,
}

/// Blobs in one container of Azure Blob Storage.
#[derive(Debug)]
pub struct AzureStore {
    options: AzureOptions,
    /// Ends with a slash unless it is empty.
    prefix: String,
    http: reqwest::Client,
    session: Mutex<Option<Arc<Session>>>,
}

/// A client, and the credential whose tokens it holds.
pub(super) struct Session {
    pub(super) credential: Arc<WorkloadIdentityCredential>,
    container: BlobContainerClient,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Session")
    }
}

impl AzureStore {
    /// A store with these options. Nothing is sent, and the token file is not read, before the first call.
    pub fn new(options: AzureOptions) -> Result<Self, StoreError> {
        let invalid = |message: String| StoreError::new(StoreErrorKind::Other, message);
        for (name, url) in [("endpoint", &options.endpoint), ("authority host", &options.authority_host)] {
            if url.scheme() != "https" || url.cannot_be_a_base() {
                return Err(invalid(format!("failed to use the {name} {url}: it must be an https URL")));
            }
        }
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .redirect(reqwest::redirect::Policy::none());
        if let Some(pem) = &options.extra_ca_pem {
            let certificates = reqwest::Certificate::from_pem_bundle(pem).map_err(|error| {
                invalid("failed to read the extra CA certificates: they are no PEM bundle".to_owned())
                    .with_source(error)
            })?;
            builder = builder.tls_certs_merge(certificates);
        }
        let http =
            builder.build().map_err(|error| invalid(format!("failed to set up HTTPS: {error}")).with_source(error))?;
        let trimmed = options.prefix.trim_matches('/');
        let prefix = if trimmed.is_empty() { String::new() } else { format!("{trimmed}/") };
        Ok(Self { options, prefix, http, session: Mutex::default() })
    }

    fn client_options(&self) -> ClientOptions {
        ClientOptions {
            // Retries are ours: the SDK's would also repeat what can never work, and hide which try failed how.
            retry: RetryOptions::none(),
            transport: Some(Transport::new(Arc::new(self.http.clone()))),
            ..ClientOptions::default()
        }
    }

    /// The current session; makes one where there is none.
    pub(super) fn session(&self) -> Result<Arc<Session>, StoreError> {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = &*session {
            return Ok(Arc::clone(session));
        }
        let mut cloud = CustomConfiguration::default();
        cloud.authority_host = self.options.authority_host.to_string();
        let mut client_options = self.client_options();
        client_options.per_try_policies.push(Arc::new(KeepEntraErrors));
        client_options.cloud = Some(Arc::new(CloudConfiguration::Custom(cloud)));
        let credential = WorkloadIdentityCredential::new(Some(WorkloadIdentityCredentialOptions {
            credential_options: ClientAssertionCredentialOptions { client_options },
            client_id: Some(self.options.client_id.clone()),
            tenant_id: Some(self.options.tenant_id.clone()),
            token_file_path: Some(self.options.token_file.clone()),
        }))
        .map_err(|error| map("use", &format!("the token file {}", self.options.token_file.display()), error))?;
        let mut url = self.options.endpoint.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push(&self.options.container);
        }
        let options =
            BlobContainerClientOptions { client_options: self.client_options(), version: SERVICE_VERSION.to_owned() };
        let token: Arc<dyn TokenCredential> = Arc::clone(&credential) as _;
        let container = BlobContainerClient::new(url, Some(token), Some(options))
            .map_err(|error| map("use", &self.options.container, error))?;
        let fresh = Arc::new(Session { credential, container });
        *session = Some(Arc::clone(&fresh));
        Ok(fresh)
    }

    /// Forgets a session whose token was refused, so that the next call gets a fresh one.
    fn forget(&self, refused: &Arc<Session>) {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        if session.as_ref().is_some_and(|current| Arc::ptr_eq(current, refused)) {
            *session = None;
        }
    }

    /// Runs an operation until it works, or fails for good. `lost` tells it whether an earlier try may have worked.
    pub(super) async fn attempt<T, F, R>(
        &self,
        patience: Patience,
        verb: &str,
        path: &str,
        mut run: F,
    ) -> Result<T, StoreError>
    where
        F: FnMut(Arc<Session>) -> R,
        R: Future<Output = azure_core::Result<T>>,
    {
        let (mut tried, mut renewed, mut lost) = (0, false, false);
        loop {
            let session = self.session()?;
            tried += 1;
            let error = match tokio::time::timeout(REQUEST, run(Arc::clone(&session))).await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error)) => map(verb, path, error),
                Err(_) => StoreError::new(
                    StoreErrorKind::Unavailable,
                    format!("failed to {verb} {path}: no answer within {} s", REQUEST.as_secs()),
                )
                .with_ambiguous(true),
            };
            // A token that expired, or was made before a role was given, is worth one fresh one. So is Entra's complaint
            // that the pod's own is out of date: the kubelet has written a new one. Its other refusals are final.
            if error.kind() == StoreErrorKind::Unauthenticated {
                self.forget(&session);
                let code = error.code().unwrap_or_default();
                if !renewed && (!code.starts_with("AADSTS") || code == "AADSTS700024") {
                    renewed = true;
                    continue;
                }
            }
            lost |= error.is_ambiguous();
            let Some(delay) = patience.after(tried, &error) else {
                return Err(error.with_ambiguous(lost));
            };
            tracing::warn!(%error, tried, ?delay, "trying again");
            tokio::time::sleep(delay).await;
        }
    }

    pub(super) fn blob(&self, session: &Session, path: &str) -> BlobClient {
        session.container.blob_client(&format!("{}{path}", self.prefix))
    }

    /// Creates a blob with one request.
    pub(super) async fn put(&self, patience: Patience, path: &str, data: Bytes) -> Result<(), StoreError> {
        let created = self
            .attempt(patience, "create", path, |session| {
                let (blob, data) = (self.blob(&session, path), data.clone());
                async move {
                    let options = BlobClientUploadOptions {
                        partition_size: NonZero::new(SINGLE.get() as u64),
                        parallel: Some(NonZero::<usize>::MIN),
                        ..Default::default()
                    };
                    blob.upload(data.into(), Some(options.if_not_exists())).await.map(drop)
                }
            })
            .await;
        match created {
            // An earlier try may have made it before its answer was lost: then what is there is ours.
            Err(error) if error.kind() == StoreErrorKind::AlreadyExists && error.is_ambiguous() => {
                if self.get(patience, path, None).await? == data { Ok(()) } else { Err(error) }
            }
            // A write-once policy may be looked at before the condition. If the blob is there, that was the answer.
            Err(error) if error.kind() == StoreErrorKind::Immutable => match self.get(patience, path, None).await {
                Ok(there) if error.is_ambiguous() && there == data => Ok(()),
                Ok(_) => {
                    let exists = format!("failed to create {path}: it is there already, and is write-once");
                    Err(StoreError::new(StoreErrorKind::AlreadyExists, exists).with_source(error))
                }
                Err(_) => Err(error),
            },
            result => result,
        }
    }

    pub(super) async fn get(
        &self,
        patience: Patience,
        path: &str,
        range: Option<HttpRange>,
    ) -> Result<Bytes, StoreError> {
        self.attempt(patience, "read", path, |session| {
            let (blob, range) = (self.blob(&session, path), range.clone());
            async move {
                let options = BlobClientDownloadOptions {
                    range,
                    partition_size: Some(SINGLE),
                    parallel: Some(NonZero::<usize>::MIN),
                    ..Default::default()
                };
                blob.download(Some(options)).await?.body.collect().await
            }
        })
        .await
    }

    pub(super) async fn page(
        &self,
        patience: Patience,
        prefix: &str,
        marker: Option<String>,
    ) -> Result<ListBlobsResponse, StoreError> {
        let whole = format!("{}{prefix}", self.prefix);
        let path = format!("{}/{whole}*", self.options.container);
        self.attempt(patience, "list", &path, |session| {
            let options = BlobContainerClientListBlobsOptions {
                prefix: (!whole.is_empty()).then(|| whole.clone()),
                marker: marker.clone(),
                maxresults: Some(PAGE),
                ..Default::default()
            };
            async move {
                let mut pages = session.container.list_blobs(Some(options))?.into_pages();
                match pages.try_next().await? {
                    Some(page) => page.into_model(),
                    None => Ok(ListBlobsResponse::default()),
                }
            }
        })
        .await
    }

    pub(super) async fn remove(&self, patience: Patience, path: &str) -> Result<(), StoreError> {
        let removed = self
            .attempt(patience, "delete", path, |session| {
                let blob = self.blob(&session, path);
                async move { blob.delete(None).await.map(drop) }
            })
            .await;
        match removed {
            Err(error) if error.kind() == StoreErrorKind::NotFound && error.is_ambiguous() => Ok(()),
            result => result,
        }
    }

    fn entries(&self, page: &ListBlobsResponse) -> Vec<Result<BlobEntry, StoreError>> {
        page.blob_items
            .iter()
            .filter_map(|item| {
                let path = item.name.as_deref()?.strip_prefix(&self.prefix)?.to_owned();
                let properties = item.properties.as_ref();
                let modified = properties
                    .and_then(|properties| properties.last_modified)
                    .and_then(|time| jiff::Timestamp::from_nanosecond(time.unix_timestamp_nanos()).ok());
                let size = properties.and_then(|properties| properties.content_length).unwrap_or_default();
                Some(Ok(BlobEntry { path, size, modified }))
            })
            .collect()
    }
}

#[async_trait]
impl BlobStore for AzureStore {
    async fn create(&self, path: &str, data: Bytes) -> Result<(), StoreError> {
        self.put(Patience::LONG, path, data).await
    }

    async fn read(&self, path: &str) -> Result<Bytes, StoreError> {
        self.get(Patience::LONG, path, None).await
    }

    async fn read_range(&self, path: &str, offset: u64, length: u64) -> Result<Bytes, StoreError> {
        if length == 0 {
            return Ok(Bytes::new());
        }
        let data = self.get(Patience::LONG, path, Some(HttpRange::new(offset, length))).await?;
        if data.len() as u64 == length {
            Ok(data)
        } else {
            Err(short(path, offset, length, offset + data.len() as u64))
        }
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<BlobEntry, StoreError>> {
        // The state is the marker of the next page; the outer option ends the listing.
        stream::try_unfold(Some(None), move |state: Option<Option<String>>| async move {
            let Some(marker) = state else { return Ok(None) };
            let page = self.page(Patience::LONG, prefix, marker).await?;
            let next = page.next_marker.clone().filter(|marker| !marker.is_empty()).map(Some);
            Ok::<_, StoreError>(Some((stream::iter(self.entries(&page)), next)))
        })
        .try_flatten()
        .boxed()
    }

    async fn delete(&self, path: &str) -> Result<(), StoreError> {
        self.remove(Patience::LONG, path).await
    }
}
