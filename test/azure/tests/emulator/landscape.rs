//! An emulator with an issuer, an identity that trusts it, and a container of its own.

use std::path::PathBuf;

use http::StatusCode;
use reqwest::{Method, RequestBuilder, Response};
use serde_json::Value;
use shoot_backup_azure_emulator::{AdminClient, Arguments, Emulator, FederatedCredential, Role};

use crate::azurite_process::{ACCOUNT, Azurite, azurite};
use crate::issuer::{AUDIENCE, Issuer, SUBJECT};

pub const TENANT: &str = "11111111-aaaa-4bbb-8ccc-222222222222";
pub const CLIENT: &str = "33333333-dddd-4eee-8fff-444444444444";

pub struct Landscape {
    pub emulator: Emulator,
    pub admin: AdminClient,
    pub issuer: Issuer,
    pub http: reqwest::Client,
    pub container: String,
    pub folder: tempfile::TempDir,
}

/// How an emulator is started for a test, its state in this folder.
pub fn arguments(azurite: &Azurite, state: PathBuf) -> Arguments {
    Arguments {
        listen: "127.0.0.1:0".parse().unwrap(),
        certificate: azurite.certificates.certificate.clone(),
        key: azurite.certificates.key.clone(),
        trust: azurite.certificates.authority.clone(),
        azurite: azurite.url.parse().unwrap(),
        account: ACCOUNT.to_owned(),
        admin: "127.0.0.1:0".parse().unwrap(),
        state,
    }
}

pub fn https(azurite: &Azurite) -> reqwest::Client {
    let pem = std::fs::read(&azurite.certificates.authority).unwrap();
    reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(&pem).unwrap()])
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(std::time::Duration::from_secs(30))
        .build()
        .unwrap()
}

impl Landscape {
    /// With the identity, its federated credential, the container, and this role on it.
    pub async fn with_role(role: Option<Role>) -> Self {
        let azurite = azurite();
        let folder = tempfile::tempdir().unwrap();
        let emulator = Emulator::start(&arguments(azurite, folder.path().join("state.json"))).await.unwrap();
        let admin = AdminClient::new(&emulator.admin_url()).unwrap();
        let issuer = Issuer::start(&azurite.certificates).await;
        let container = format!("c{}", uuid::Uuid::new_v4().simple());
        admin.put_identity(CLIENT, TENANT, "backup").await.unwrap();
        admin.put_federated_credential(CLIENT, "alpha", &credential(&issuer.url)).await.unwrap();
        admin.put_container(&container).await.unwrap();
        if let Some(role) = role {
            admin.put_role_assignment(CLIENT, &container, role).await.unwrap();
        }
        Self { emulator, admin, issuer, http: https(azurite), container, folder }
    }

    pub fn origin(&self) -> String {
        format!("https://localhost:{}", self.emulator.address.port())
    }

    /// A token request with these changes to its form.
    pub async fn exchange(&self, tenant: &str, client: &str, assertion: &str) -> (StatusCode, Value) {
        self.exchange_form(tenant, &form(client, assertion)).await
    }

    pub async fn exchange_form(&self, tenant: &str, form: &[(&str, String)]) -> (StatusCode, Value) {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let response = self
            .http
            .post(format!("{}/{tenant}/oauth2/v2.0/token", self.origin()))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body)
            .send()
            .await
            .unwrap();
        (response.status(), response.json().await.unwrap())
    }

    /// An access token by way of the whole exchange.
    pub async fn access_token(&self) -> String {
        let (status, answer) = self.exchange(TENANT, CLIENT, &self.issuer.token()).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        answer["access_token"].as_str().unwrap().to_owned()
    }

    /// A request to the Blob service below the container.
    pub fn storage(&self, method: Method, rest: &str, token: &str) -> RequestBuilder {
        let url = format!("{}/{ACCOUNT}/{}{rest}", self.origin(), self.container);
        self.http.request(method, url).bearer_auth(token).header("x-ms-version", "2026-04-06")
    }

    pub async fn put(&self, blob: &str, content: &'static str, token: &str) -> Response {
        let request = self.storage(Method::PUT, &format!("/{blob}"), token);
        request.header("x-ms-blob-type", "BlockBlob").body(content).send().await.unwrap()
    }

    pub async fn create(&self, blob: &str, content: &'static str, token: &str) -> Response {
        let request = self.storage(Method::PUT, &format!("/{blob}"), token).header("if-none-match", "*");
        // The client sends no length of an empty body by itself, which Azure refuses.
        request
            .header("content-length", content.len())
            .header("x-ms-blob-type", "BlockBlob")
            .body(content)
            .send()
            .await
            .unwrap()
    }

    pub async fn get(&self, blob: &str, token: &str) -> Response {
        self.storage(Method::GET, &format!("/{blob}"), token).send().await.unwrap()
    }

    pub async fn delete(&self, blob: &str, token: &str) -> Response {
        self.storage(Method::DELETE, &format!("/{blob}"), token).send().await.unwrap()
    }
}

pub fn credential(issuer: &str) -> FederatedCredential {
    FederatedCredential { issuer: issuer.to_owned(), subject: SUBJECT.to_owned(), audiences: vec![AUDIENCE.to_owned()] }
}

pub fn form(client: &str, assertion: &str) -> Vec<(&'static str, String)> {
    vec![
        ("client_id", client.to_owned()),
        ("client_assertion", assertion.to_owned()),
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer".to_owned()),
        ("grant_type", "client_credentials".to_owned()),
        ("scope", "https://storage.azure.com/.default".to_owned()),
    ]
}

/// The code that the Blob service gives in header and body alike.
pub async fn refusal(response: Response) -> (u16, String, String) {
    let status = response.status().as_u16();
    let code = response.headers().get("x-ms-error-code").map(|code| code.to_str().unwrap().to_owned());
    let code = code.unwrap_or_default();
    let body = response.text().await.unwrap();
    assert!(body.contains(&format!("<Code>{code}</Code>")), "{body}");
    (status, code, body)
}
