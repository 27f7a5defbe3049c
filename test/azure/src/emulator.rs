//! The whole: reads its files, opens its two listeners, serves until it is told to stop.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{Request, Response};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::arguments::Arguments;
use crate::azurite::Azurite;
use crate::faults::Faults;
use crate::gateway::Gateway;
use crate::injection::{self, Before, Cut};
use crate::issuers::Issuers;
use crate::operation::Operation;
use crate::requests::{RequestKey, Requests};
use crate::signing::SigningKey;
use crate::storage_error::StorageError;
use crate::store::{Store, StoreError};
use crate::token::{self, TokenRoute};
use crate::{admin, server};

/// Azurite closes a connection that has been idle for five seconds. Dropping it first avoids a request on a dying one,
/// which a streamed body would make impossible to repeat.
const IDLE: Duration = Duration::from_secs(2);
/// The longest wait for the next sign of life of Azurite, a whole upload included.
const SILENCE: Duration = Duration::from_mins(5);

/// Why the emulator cannot run.
#[derive(Debug, thiserror::Error)]
pub enum EmulatorError {
    /// A PEM file cannot be read.
    #[error("failed to read PEM file {path}: {source}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: rustls_pki_types::pem::Error,
    },
    /// A PEM file of authorities without any.
    #[error("failed to find a certificate in {0}")]
    NoCertificate(PathBuf),
    /// Certificate and key do not make a server.
    #[error("failed to set up TLS with {certificate}: {source}")]
    Tls {
        /// The certificate's file.
        certificate: PathBuf,
        /// The cause.
        source: rustls::Error,
    },
    /// The HTTP client cannot be made.
    #[error("failed to set up the HTTP client: {0}")]
    Client(#[source] reqwest::Error),
    /// The address is taken, or not ours.
    #[error("failed to listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: std::io::Error,
    },
    /// The admin interface has no access control of its own.
    #[error("failed to open the admin interface on {0}: only a loopback address is allowed")]
    AdminNotLoopback(SocketAddr),
    /// Azurite without TLS would refuse bearer tokens.
    #[error("failed to use {0} for Azurite: it must be an https:// URL")]
    AzuriteNotHttps(url::Url),
    /// The state file.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A serving task ended by itself.
    #[error("failed to go on serving: {0}")]
    Serve(#[source] std::io::Error),
}

/// What the handlers share.
pub struct Shared {
    /// Configuration.
    pub store: Store,
    /// Key of the access tokens.
    pub key: Arc<SigningKey>,
    /// Keys of outside issuers.
    pub issuers: Issuers,
    /// The store behind.
    pub azurite: Arc<Azurite>,
    /// The checks before it.
    pub gateway: Gateway,
    /// Fault rules.
    pub faults: Faults,
    /// Counts.
    pub requests: Requests,
}

/// A running emulator.
pub struct Emulator {
    /// Where tokens and blobs are served.
    pub address: SocketAddr,
    /// Where the admin interface is.
    pub admin_address: SocketAddr,
    stop: CancellationToken,
    public: tokio::task::JoinHandle<()>,
    admin: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Emulator {
    /// Starts to serve: both listeners accept when this returns.
    pub async fn start(arguments: &Arguments) -> Result<Self, EmulatorError> {
        if !arguments.admin.ip().is_loopback() {
            return Err(EmulatorError::AdminNotLoopback(arguments.admin));
        }
        if arguments.azurite.scheme() != "https" {
            return Err(EmulatorError::AzuriteNotHttps(arguments.azurite.clone()));
        }
        let tls = server_tls(&arguments.certificate, &arguments.key)?;
        let trust = authorities(&arguments.trust)?;
        let store = Store::open(&arguments.state)?;
        let key = Arc::new(SigningKey::of(&store.snapshot()).map_err(StoreError::from)?);
        let azurite =
            Arc::new(Azurite::new(client(&trust, None)?, arguments.azurite.clone(), arguments.account.clone()));
        let shared = Arc::new(Shared {
            store,
            gateway: Gateway::new(Arc::clone(&azurite), Arc::clone(&key)),
            key,
            issuers: Issuers::new(client(&trust, Some(Duration::from_secs(10)))?),
            azurite,
            faults: Faults::default(),
            requests: Requests::default(),
        });

        let public = listen(arguments.listen).await?;
        let admin = listen(arguments.admin).await?;
        let at = |listener: &TcpListener, address| {
            listener.local_addr().map_err(|source| EmulatorError::Listen { address, source })
        };
        let (address, admin_address) = (at(&public, arguments.listen)?, at(&admin, arguments.admin)?);
        let stop = CancellationToken::new();
        let routes = admin::routes(Arc::clone(&shared));
        let stopped = stop.clone();
        Ok(Self {
            address,
            admin_address,
            public: tokio::spawn(server::serve(public, tls, shared, stop.clone())),
            admin: tokio::spawn(async move {
                axum::serve(admin, routes).with_graceful_shutdown(stopped.cancelled_owned()).await
            }),
            stop,
        })
    }

    /// The admin interface's URL.
    #[must_use]
    pub fn admin_url(&self) -> String {
        format!("http://{}", self.admin_address)
    }

    /// Takes no more connections, lets requests in work end (ten seconds at most), then returns.
    pub async fn stop(self) -> Result<(), EmulatorError> {
        self.stop.cancel();
        let ended = async {
            self.public.await.map_err(std::io::Error::other)?;
            self.admin.await.map_err(std::io::Error::other)?
        };
        match tokio::time::timeout(server::DRAIN, ended).await {
            Ok(result) => result.map_err(EmulatorError::Serve),
            Err(_) => Ok(()),
        }
    }
}

/// Answers one request of the public listener.
pub async fn answer(shared: &Shared, request: Request<Body>) -> Result<Response<Body>, Cut> {
    let path = request.uri().path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
    if let Some((url, target)) = shared.gateway.target(&request) {
        let work = async |request| {
            let configuration = shared.store.snapshot();
            let answer = shared.gateway.answer(request, url, &target, &configuration).await;
            (answer.response, answer.client_id)
        };
        return struck(shared, target.operation, &target.container, &path, request, work).await;
    }
    if let Some(route) = TokenRoute::of(request.method(), request.uri().path()) {
        let work = async |request: Request<Body>| {
            let host = request.headers().get(http::header::HOST).and_then(|host| host.to_str().ok());
            let origin = format!("https://{}", host.unwrap_or("localhost"));
            let configuration = shared.store.snapshot();
            let answer = token::answer(route, request, &configuration, &shared.key, &shared.issuers, &origin).await;
            (answer.response, answer.client_id)
        };
        return struck(shared, Operation::Token, "", &path, request, work).await;
    }
    Ok(StorageError::invalid_uri().response(request.headers()))
}

/// Does the work with the fault that strikes it, if one does, and counts the outcome.
async fn struck(
    shared: &Shared,
    operation: Operation,
    container: &str,
    path: &str,
    request: Request<Body>,
    work: impl AsyncFnOnce(Request<Body>) -> (Response<Body>, Option<String>),
) -> Result<Response<Body>, Cut> {
    let fault = shared.faults.strike(operation, request.method().as_str(), path);
    let mut client_id = None;
    let result = async {
        if let Some(fault) = fault
            && let Before::Answer(response) = injection::before(fault, operation, request.headers()).await?
        {
            return Ok(*response);
        }
        let (response, client) = work(request).await;
        client_id = client;
        match fault {
            Some(fault) => injection::after(fault, response).await,
            None => Ok(response),
        }
    }
    .await;
    let status = result.as_ref().map_or(0, |response| response.status().as_u16());
    let (client_id, container) = (client_id.unwrap_or_default(), container.to_owned());
    shared.requests.record(RequestKey { operation, client_id, container, status });
    result
}

async fn listen(address: SocketAddr) -> Result<TcpListener, EmulatorError> {
    TcpListener::bind(address).await.map_err(|source| EmulatorError::Listen { address, source })
}

fn server_tls(certificate: &Path, key: &Path) -> Result<rustls::ServerConfig, EmulatorError> {
    let chain = certificates(certificate)?;
    let key =
        PrivateKeyDer::from_pem_file(key).map_err(|source| EmulatorError::Pem { path: key.to_owned(), source })?;
    let failed = |source| EmulatorError::Tls { certificate: certificate.to_owned(), source };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(failed)?;
    // As Azure Storage: HTTP/1.1 only. A fault can then cut a connection without harm to other requests.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, EmulatorError> {
    let failed = |source| EmulatorError::Pem { path: path.to_owned(), source };
    let found: Vec<_> =
        CertificateDer::pem_file_iter(path).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)?;
    if found.is_empty() { Err(EmulatorError::NoCertificate(path.to_owned())) } else { Ok(found) }
}

fn authorities(path: &Path) -> Result<Vec<reqwest::Certificate>, EmulatorError> {
    certificates(path)?.iter().map(|der| reqwest::Certificate::from_der(der).map_err(EmulatorError::Client)).collect()
}

/// A client that trusts these authorities only. Without a total time limit it passes on transfers of any length;
/// silence ends those too.
fn client(trust: &[reqwest::Certificate], total: Option<Duration>) -> Result<reqwest::Client, EmulatorError> {
    let builder = reqwest::Client::builder()
        .tls_certs_only(trust.iter().cloned())
        .no_proxy()
        .http1_only()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(Duration::from_secs(5))
        .read_timeout(SILENCE)
        .pool_idle_timeout(IDLE);
    let builder = match total {
        Some(total) => builder.timeout(total),
        None => builder,
    };
    builder.build().map_err(EmulatorError::Client)
}
