//! A cluster's issuer: discovery document and keys over HTTPS, and the tokens that it signs.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::KeyPair;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::azurite_process::Certificates;

pub const SUBJECT: &str = "system:serviceaccount:shoot-backup:shoot-backup-agent";
pub const AUDIENCE: &str = "api://AzureADTokenExchange";

/// A key of the issuer.
pub struct IssuerKey {
    kid: String,
    algorithm: Algorithm,
    key: EncodingKey,
}

impl IssuerKey {
    /// RS256, as Kubernetes signs by default.
    pub fn rsa(kid: &str) -> Self {
        let pair = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        // The library wants PKCS #1, which is the octet string at the end of PKCS #8: 26 bytes in, for 2048 bits.
        let key = EncodingKey::from_rsa_der(&pair.serialize_der()[26..]);
        Self { kid: kid.to_owned(), algorithm: Algorithm::RS256, key }
    }

    pub fn ecdsa(kid: &str) -> Self {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let key = EncodingKey::from_ec_der(&pair.serialize_der());
        Self { kid: kid.to_owned(), algorithm: Algorithm::ES256, key }
    }

    fn jwk(&self) -> Value {
        let mut jwk = Jwk::from_encoding_key(&self.key, self.algorithm).unwrap();
        jwk.common.key_id = Some(self.kid.clone());
        serde_json::to_value(jwk).unwrap()
    }

    pub fn sign(&self, claims: &Value) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid = Some(self.kid.clone());
        jsonwebtoken::encode(&header, claims, &self.key).unwrap()
    }
}

#[derive(Default)]
struct Published {
    url: String,
    says_issuer: String,
    keys: Mutex<Vec<Value>>,
    fetches: AtomicUsize,
}

pub struct Issuer {
    pub url: String,
    pub key: IssuerKey,
    published: Arc<Published>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Issuer {
    pub async fn start(certificates: &Certificates) -> Self {
        Self::start_saying(certificates, None).await
    }

    /// An issuer whose discovery document may name another.
    pub async fn start_saying(certificates: &Certificates, says_issuer: Option<&str>) -> Self {
        let listener = TlsListener::bind(certificates).await;
        let url = format!("https://localhost:{}", listener.tcp.local_addr().unwrap().port());
        let key = IssuerKey::rsa("first");
        let published = Arc::new(Published {
            says_issuer: says_issuer.unwrap_or(&url).to_owned(),
            url: url.clone(),
            keys: Mutex::new(vec![key.jwk()]),
            fetches: AtomicUsize::new(0),
        });
        let routes = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/keys", get(keys))
            .with_state(Arc::clone(&published));
        let server = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { url, key, published, server }
    }

    /// From now on this key is published, and no other.
    pub fn rotate(&mut self, key: IssuerKey) {
        *self.published.keys.lock().unwrap() = vec![key.jwk()];
        self.key = key;
    }

    pub fn fetches(&self) -> usize {
        self.published.fetches.load(Ordering::SeqCst)
    }

    /// Claims of a service account token, valid for an hour.
    pub fn claims(&self) -> Value {
        let now = jiff::Timestamp::now().as_second();
        json!({
            "iss": self.url, "sub": SUBJECT, "aud": [AUDIENCE], "iat": now, "nbf": now, "exp": now + 3600,
            "kubernetes.io": {"namespace": "shoot-backup"},
        })
    }

    pub fn token(&self) -> String {
        self.key.sign(&self.claims())
    }
}

async fn discovery(State(published): State<Arc<Published>>) -> Json<Value> {
    Json(json!({"issuer": published.says_issuer, "jwks_uri": format!("{}/keys", published.url)}))
}

async fn keys(State(published): State<Arc<Published>>) -> Json<Value> {
    published.fetches.fetch_add(1, Ordering::SeqCst);
    Json(json!({"keys": *published.keys.lock().unwrap()}))
}

struct TlsListener {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
}

impl TlsListener {
    async fn bind(certificates: &Certificates) -> Self {
        let chain = CertificateDer::pem_file_iter(&certificates.certificate).unwrap().map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(&certificates.key).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        Self { tcp: TcpListener::bind("127.0.0.1:0").await.unwrap(), acceptor: TlsAcceptor::from(Arc::new(config)) }
    }
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = self.tcp.accept().await.unwrap();
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}
