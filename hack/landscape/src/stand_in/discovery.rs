//! Publishes token issuers over HTTPS, with the paths and headers of Gardener's discovery server.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use kube::Client;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio::sync::{RwLock, Semaphore};
use tokio_rustls::TlsAcceptor;

use crate::context::Context;
use crate::error::{Doing, Error, Result};
use crate::pki::Key;
use crate::slot::Port;

/// More connections than this wait.
const CONNECTIONS: usize = 64;
/// No connection lives longer: clients open a new one.
const CONNECTION_LIFE: Duration = Duration::from_mins(1);
/// More documents than any landscape has issuers for are not kept.
const DOCUMENTS: usize = 128;

/// Published documents by path.
#[derive(Debug, Clone, Default)]
pub(super) struct Documents(Arc<RwLock<BTreeMap<String, String>>>);

impl Documents {
    /// Publishes the API server's documents below its issuer's address.
    pub(super) async fn publish(&self, issuer: &str, client: &Client) -> Result<()> {
        let base = issuer.splitn(4, '/').nth(3).unwrap_or_default();
        let sources = [
            (format!("/{base}/.well-known/openid-configuration"), "/.well-known/openid-configuration"),
            (format!("/{base}/jwks"), "/openid/v1/jwks"),
        ];
        for (path, source) in sources {
            let request = ::http::Request::get(source)
                .body(Vec::new())
                .map_err(|error| Error::Precondition(format!("failed to ask for {source}: {error}")))?;
            let text = client.request_text(request).await.doing(|| format!("read {source}"))?;
            let mut documents = self.0.write().await;
            if documents.len() < DOCUMENTS || documents.contains_key(&path) {
                documents.insert(path, text);
            }
        }
        Ok(())
    }

    /// Takes an issuer's documents back.
    pub(super) async fn retract(&self, issuer: &str) {
        let prefix = format!("/{}/", issuer.splitn(4, '/').nth(3).unwrap_or_default());
        self.0.write().await.retain(|path, _| !path.starts_with(&prefix));
    }
}

/// Serves the documents until the process ends.
pub(super) async fn serve(context: &Context, documents: Documents) -> Result<()> {
    let servers = context.pki.authority("ca", Key::Ec)?;
    let addresses = [context.slot.host().into(), [127, 0, 0, 1].into()];
    let pair = context.pki.server(&servers, "discovery", &["localhost"], &addresses)?;
    let unreadable = |error| Error::Precondition(format!("failed to read the discovery certificate: {error}"));
    let chain: Vec<_> = CertificateDer::pem_file_iter(&pair.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(unreadable)?;
    let key = PrivateKeyDer::from_pem_file(&pair.key).map_err(unreadable)?;
    let mut tls = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| Error::Precondition(format!("failed to use the discovery certificate: {error}")))?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let address = (context.slot.host(), context.slot.port(Port::Discovery));
    let listener = TcpListener::bind(address).await.doing(|| format!("listen on {}:{}", address.0, address.1))?;
    let router = Router::new().fallback(answer).with_state(documents);
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else { return Ok(()) };
        let (stream, _) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "failed to accept a connection");
                continue;
            }
        };
        let (acceptor, router) = (acceptor.clone(), router.clone());
        tokio::spawn(async move {
            let _permit = permit;
            let work = async {
                let stream = acceptor.accept(stream).await.ok()?;
                let service = TowerToHyperService::new(router);
                Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await.ok()
            };
            // What goes wrong on a connection is its client's to see.
            let _ = tokio::time::timeout(CONNECTION_LIFE, work).await;
        });
    }
}

async fn answer(State(documents): State<Documents>, uri: Uri) -> Response {
    let Some(text) = documents.0.read().await.get(uri.path()).cloned() else {
        return (StatusCode::NOT_FOUND, "not found\n").into_response();
    };
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "public, max-age=3600")];
    (headers, text).into_response()
}
