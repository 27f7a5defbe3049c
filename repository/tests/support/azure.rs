//! A token endpoint and a blob service in this process, over HTTPS, that fail on demand.
//!
//! It knows just enough to answer the SDK; the emulator in `test/azure` is the one that behaves like the real services.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use shoot_backup_repository::{AzureOptions, AzureStore};

type Body = BoxBody<Bytes, std::io::Error>;
type Answer = Result<Response<Body>, std::io::Error>;

/// Blobs of one page of a listing: few, so that listings have several.
const PAGE: usize = 2;

/// What goes wrong, once.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// The service answers with this status and code and does nothing.
    Status(u16, &'static str),
    /// The service does what it is asked to and the connection breaks before the answer.
    LoseAnswer,
    /// The connection breaks within the answer's body.
    Truncate,
}

#[derive(Default)]
pub struct State {
    pub blobs: Mutex<BTreeMap<String, Bytes>>,
    /// By operation, in order.
    faults: Mutex<BTreeMap<&'static str, VecDeque<Fault>>>,
    requests: Mutex<Vec<&'static str>>,
    /// Tokens have numbers; those below this one are refused.
    valid_from: AtomicUsize,
    issued: AtomicUsize,
    pub immutable: AtomicBool,
    pub entra_error: Mutex<Option<(u16, String)>>,
}

pub struct Service {
    address: SocketAddr,
    ca_pem: String,
    pub state: Arc<State>,
    directory: tempfile::TempDir,
}

impl Service {
    pub async fn start() -> Self {
        let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
        let issuer = rcgen::Issuer::new(ca, ca_key);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate =
            rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, state) = (acceptor.clone(), Arc::clone(&shared));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request| answer(Arc::clone(&state), request));
                    // Fails whenever a fault breaks the connection.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("token"), "the pod's token").unwrap();
        Self { address, ca_pem, state, directory }
    }

    pub fn options(&self) -> AzureOptions {
        AzureOptions {
            endpoint: format!("https://{}/account", self.address).parse().unwrap(),
            container: "backups".to_owned(),
            prefix: "team/a".to_owned(),
            client_id: "client".to_owned(),
            tenant_id: "tenant".to_owned(),
            token_file: self.token_file(),
            authority_host: format!("https://{}/", self.address).parse().unwrap(),
            extra_ca_pem: Some(self.ca_pem.clone().into_bytes()),
        }
    }

    pub fn token_file(&self) -> PathBuf {
        self.directory.path().join("token")
    }

    pub fn store(&self) -> AzureStore {
        AzureStore::new(self.options()).unwrap()
    }

    pub fn fail(&self, operation: &'static str, faults: impl IntoIterator<Item = Fault>) {
        self.state.faults.lock().unwrap().entry(operation).or_default().extend(faults);
    }

    pub fn count(&self, operation: &str) -> usize {
        self.state.requests.lock().unwrap().iter().filter(|done| **done == operation).count()
    }

    /// From now on every token that was given out is refused.
    pub fn revoke_tokens(&self) {
        self.state.valid_from.store(self.state.issued.load(Ordering::SeqCst), Ordering::SeqCst);
    }
}

fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

fn reply(status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(whole(body)).unwrap()
}

fn refuse(status: u16, code: &str) -> Response<Body> {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>It is {code}.</Message></Error>");
    reply(status, &[("x-ms-error-code", code), ("content-type", "application/xml")], body)
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Answer {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
    let path = parts.uri.path().to_owned();
    let query = parts.uri.query().unwrap_or_default().to_owned();
    let operation = match parts.method {
        _ if path.ends_with("/oauth2/v2.0/token") => "token",
        Method::PUT if query.contains("comp=lease") => "lease",
        Method::PUT => "put",
        Method::DELETE => "delete",
        Method::GET if query.contains("comp=list") => "list",
        _ => "get",
    };
    state.requests.lock().unwrap().push(operation);
    let fault = state.faults.lock().unwrap().get_mut(operation).and_then(VecDeque::pop_front);
    if let Some(Fault::Status(status, code)) = fault {
        return Ok(refuse(status, code));
    }
    let response = if operation == "token" {
        token(&state)
    } else if !is_authorised(&state, &parts.headers) {
        refuse(401, "InvalidAuthenticationInfo")
    } else {
        let name = path.strip_prefix("/account/backups").unwrap_or_default().trim_start_matches('/').to_owned();
        let name = name.replace("%20", " ").replace("%2F", "/");
        blob(&state, operation, &name, &query, &parts.headers, body)
    };
    match fault {
        Some(Fault::LoseAnswer) => Err(std::io::Error::other("fault")),
        Some(Fault::Truncate) => truncate(response).await,
        _ => Ok(response),
    }
}

/// Half of the body, then a broken connection.
async fn truncate(response: Response<Body>) -> Answer {
    let (mut parts, body) = response.into_parts();
    let bytes = body.collect().await?.to_bytes();
    parts.headers.insert("content-length", bytes.len().to_string().parse().unwrap());
    let half = Frame::data(bytes.slice(..bytes.len() / 2));
    let frames = stream::iter([Ok(half), Err(std::io::Error::other("fault"))]);
    Ok(Response::from_parts(parts, BodyExt::boxed(StreamBody::new(frames))))
}

fn token(state: &State) -> Response<Body> {
    if let Some((status, body)) = &*state.entra_error.lock().unwrap() {
        return reply(*status, &[("content-type", "application/json")], body.clone());
    }
    let number = state.issued.fetch_add(1, Ordering::SeqCst);
    let body =
        format!(r#"{{"token_type":"Bearer","expires_in":3600,"ext_expires_in":3600,"access_token":"{number}"}}"#);
    reply(200, &[("content-type", "application/json")], body)
}

fn is_authorised(state: &State, headers: &hyper::HeaderMap) -> bool {
    let number =
        headers.get("authorization").and_then(|value| value.to_str().ok()?.strip_prefix("Bearer ")?.parse().ok());
    number.is_some_and(|number: usize| number >= state.valid_from.load(Ordering::SeqCst))
}

const DATE: &str = "Wed, 01 Jan 2025 00:00:00 GMT";

fn blob(
    state: &State,
    operation: &str,
    name: &str,
    query: &str,
    headers: &hyper::HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let mut blobs = state.blobs.lock().unwrap();
    match operation {
        "list" => list(&blobs, query),
        "put" if headers.get("if-none-match").is_some() && blobs.contains_key(name) => refuse(409, "BlobAlreadyExists"),
        "put" => {
            blobs.insert(name.to_owned(), body);
            reply(201, &[("etag", "\"1\""), ("last-modified", DATE)], "")
        }
        _ if !blobs.contains_key(name) => refuse(404, "BlobNotFound"),
        "lease" if headers.get("x-ms-lease-action").is_some_and(|action| action == "acquire") => {
            reply(201, &[("x-ms-lease-id", "11111111-1111-1111-1111-111111111111")], "")
        }
        "lease" => reply(200, &[], ""),
        "delete" if state.immutable.load(Ordering::SeqCst) => refuse(409, "BlobImmutableDueToPolicy"),
        "delete" => {
            blobs.remove(name);
            reply(202, &[], "")
        }
        _ => get(&blobs[name], headers),
    }
}

fn get(data: &Bytes, headers: &hyper::HeaderMap) -> Response<Body> {
    let range = headers.get("x-ms-range").or_else(|| headers.get("range")).and_then(|range| {
        let (start, end) = range.to_str().ok()?.strip_prefix("bytes=")?.split_once('-')?;
        Some((start.parse::<usize>().ok()?, end.parse::<usize>().unwrap_or(usize::MAX - 1)))
    });
    let common = [("etag", "\"1\""), ("last-modified", DATE), ("x-ms-blob-type", "BlockBlob")];
    let Some((start, end)) = range else { return reply(200, &common, data.clone()) };
    if start >= data.len() {
        return refuse(416, "InvalidRange");
    }
    let end = (end + 1).min(data.len());
    let content_range = format!("bytes {start}-{}/{}", end - 1, data.len());
    let mut all = common.to_vec();
    all.push(("content-range", &content_range));
    reply(206, &all, data.slice(start..end))
}

fn list(blobs: &BTreeMap<String, Bytes>, query: &str) -> Response<Body> {
    let parameter = |name: &str| {
        query
            .split('&')
            .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
            .unwrap_or_default()
            .replace("%2F", "/")
    };
    let (prefix, marker) = (parameter("prefix"), parameter("marker"));
    let mut found = blobs.iter().filter(|(name, _)| name.starts_with(&prefix) && **name >= marker);
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults><Blobs>");
    for (name, data) in found.by_ref().take(PAGE) {
        write!(
            xml,
            "<Blob><Name>{name}</Name><Properties><Last-Modified>{DATE}</Last-Modified><Content-Length>{}</Content-Length>\
             <BlobType>BlockBlob</BlobType></Properties></Blob>",
            data.len()
        )
        .unwrap();
    }
    let next = found.next().map(|(name, _)| name.as_str()).unwrap_or_default();
    write!(xml, "</Blobs><NextMarker>{next}</NextMarker></EnumerationResults>").unwrap();
    reply(200, &[("content-type", "application/xml")], xml)
}
