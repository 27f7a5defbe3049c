//! The token endpoint: exchanges a federated assertion for an access token, in Entra ID's order of checks.

use axum::body::{Body, to_bytes};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::causes::with_causes;
use crate::entra_error::{EntraError, json_response};
use crate::issuers::Issuers;
use crate::model::{Configuration, FederatedCredential, Identity};
use crate::signing::{AccessClaims, STORAGE_AUDIENCE, SigningKey};

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// A form is an assertion of a few KiB and four short fields.
const MAX_FORM: usize = 64 * 1024;
/// Kubernetes signs with RS256, or ES256 where a landscape chose so.
const ALGORITHMS: [Algorithm; 5] =
    [Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::ES256, Algorithm::ES384];

/// Routes of the token service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenRoute {
    /// `POST /{tenant}/oauth2/v2.0/token`
    Token(String),
    /// `GET /{tenant}/v2.0/.well-known/openid-configuration`
    Discovery(String),
    /// `GET /{tenant}/discovery/v2.0/keys`
    Keys(String),
    /// `GET /common/discovery/instance`, which Microsoft's libraries ask before they trust an authority.
    Instance,
}

impl TokenRoute {
    /// The route of a request, if it is one of the token service's.
    #[must_use]
    pub fn of(method: &Method, path: &str) -> Option<Self> {
        let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        match (method, segments.as_slice()) {
            (&Method::POST, [tenant, "oauth2", "v2.0", "token"]) => Some(Self::Token((*tenant).to_owned())),
            (
                &Method::GET,
                [tenant, "v2.0", ".well-known", "openid-configuration"]
                | [tenant, ".well-known", "openid-configuration"],
            ) => Some(Self::Discovery((*tenant).to_owned())),
            (&Method::GET, [tenant, "discovery", "v2.0", "keys"]) => Some(Self::Keys((*tenant).to_owned())),
            (&Method::GET, ["common", "discovery", "instance"]) => Some(Self::Instance),
            _ => None,
        }
    }
}

/// What the endpoint answered, and whom.
pub struct TokenAnswer {
    /// The answer.
    pub response: Response<Body>,
    /// The client id of the request, where one was given.
    pub client_id: Option<String>,
}

#[derive(Deserialize)]
struct Form {
    client_id: Option<String>,
    client_assertion: Option<String>,
    client_assertion_type: Option<String>,
    grant_type: Option<String>,
    scope: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
struct AssertionClaims {
    iss: String,
    sub: String,
    aud: Audience,
    exp: i64,
    nbf: Option<i64>,
    iat: Option<i64>,
}

impl AssertionClaims {
    fn audiences(&self) -> &[String] {
        match &self.aud {
            Audience::One(audience) => std::slice::from_ref(audience),
            Audience::Many(audiences) => audiences,
        }
    }
}

/// Answers a request to the token service. `origin` is `https://host:port` as the client sees it.
pub async fn answer(
    route: TokenRoute,
    request: Request<Body>,
    configuration: &Configuration,
    key: &SigningKey,
    issuers: &Issuers,
    origin: &str,
) -> TokenAnswer {
    let now = Timestamp::now();
    let correlation = correlation_id(request.headers());
    let mut client_id = None;
    let result = match route {
        TokenRoute::Instance => Ok(instance(origin)),
        TokenRoute::Discovery(tenant) => known(configuration, &tenant).map(|()| discovery(origin, &tenant)),
        TokenRoute::Keys(tenant) => known(configuration, &tenant).map(|()| key.jwks()),
        TokenRoute::Token(tenant) => match read_form(request).await {
            Ok(form) => {
                client_id.clone_from(&form.client_id);
                exchange(&tenant, form, configuration, key, issuers, now).await
            }
            Err(error) => Err(error),
        },
    };
    let response = match result {
        Ok(body) => json_response(StatusCode::OK, &body),
        Err(error) => {
            tracing::info!(client_id, code = error.code(), ?error, "token request refused");
            error.response(now, correlation.as_deref())
        }
    };
    TokenAnswer { response, client_id }
}

/// A client's own correlation id comes back to it.
fn correlation_id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get("client-request-id")?.to_str().ok()?;
    uuid::Uuid::parse_str(id).ok().map(|id| id.to_string())
}

fn known(configuration: &Configuration, tenant: &str) -> Result<(), EntraError> {
    if configuration.knows_tenant(tenant) { Ok(()) } else { Err(EntraError::TenantNotFound(tenant.to_owned())) }
}

async fn read_form(request: Request<Body>) -> Result<Form, EntraError> {
    let body = to_bytes(request.into_body(), MAX_FORM).await.map_err(|_| EntraError::MissingField("grant_type"))?;
    let mut fields = url::form_urlencoded::parse(&body).into_owned().collect::<std::collections::HashMap<_, _>>();
    Ok(Form {
        client_id: fields.remove("client_id"),
        client_assertion: fields.remove("client_assertion"),
        client_assertion_type: fields.remove("client_assertion_type"),
        grant_type: fields.remove("grant_type"),
        scope: fields.remove("scope"),
    })
}

async fn exchange(
    tenant: &str,
    form: Form,
    configuration: &Configuration,
    key: &SigningKey,
    issuers: &Issuers,
    now: Timestamp,
) -> Result<Value, EntraError> {
    known(configuration, tenant)?;
    match form.grant_type.as_deref() {
        Some("client_credentials") => {}
        Some(other) => return Err(EntraError::UnsupportedGrant(other.to_owned())),
        None => return Err(EntraError::MissingField("grant_type")),
    }
    let client_id = form.client_id.ok_or(EntraError::MissingField("client_id"))?;
    let scope = form.scope.ok_or(EntraError::MissingField("scope"))?;
    let resource = scope.strip_suffix("/.default").ok_or_else(|| EntraError::ScopeNotDefault(scope.clone()))?;
    let (client_id, identity) = configuration.identity(tenant, &client_id).ok_or_else(|| {
        EntraError::ApplicationNotFound { client_id: client_id.clone(), tenant_id: tenant.to_owned() }
    })?;
    if resource.trim_end_matches('/') != STORAGE_AUDIENCE {
        let (resource, tenant_id) = (resource.to_owned(), tenant.to_owned());
        return Err(EntraError::UnknownResource { resource, tenant_id });
    }
    let (Some(assertion), Some(ASSERTION_TYPE)) = (form.client_assertion, form.client_assertion_type.as_deref()) else {
        return Err(EntraError::AssertionRequired);
    };
    check_assertion(&assertion, identity, issuers, now).await?;
    grant(client_id, identity, configuration, key, now)
}

/// Well-formed, federated, signed, in time: in this order.
async fn check_assertion(
    assertion: &str,
    identity: &Identity,
    issuers: &Issuers,
    now: Timestamp,
) -> Result<(), EntraError> {
    let header = jsonwebtoken::decode_header(assertion).map_err(|_| EntraError::MalformedAssertion)?;
    if !ALGORITHMS.contains(&header.alg) {
        return Err(EntraError::MalformedAssertion);
    }
    let kid = header.kid.ok_or(EntraError::MalformedAssertion)?;
    let claims = jsonwebtoken::dangerous::insecure_decode::<AssertionClaims>(assertion)
        .map_err(|_| EntraError::MalformedAssertion)?
        .claims;
    match_credential(&claims, identity.federated_credentials.values())?;

    let jwk = match issuers.key(&claims.iss, &kid).await {
        Ok(Some(jwk)) => jwk,
        Ok(None) => return Err(EntraError::KeyNotFound(kid)),
        Err(error) => {
            tracing::warn!(issuer = claims.iss, error = with_causes(&error), "no keys from the issuer of an assertion");
            return Err(EntraError::IssuerUnreachable);
        }
    };
    let public = DecodingKey::from_jwk(&jwk).map_err(|_| EntraError::KeyNotFound(kid.clone()))?;
    let mut validation = Validation::new(header.alg);
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    jsonwebtoken::decode::<Value>(assertion, &public, &validation).map_err(|_| EntraError::SignatureMismatch(kid))?;

    let at = |seconds| Timestamp::from_second(seconds).map_err(|_| EntraError::MalformedAssertion);
    let (not_before, expires) = (at(claims.nbf.or(claims.iat).unwrap_or(0))?, at(claims.exp)?);
    if now < not_before || now >= expires {
        return Err(EntraError::OutsideValidity { now, not_before, expires });
    }
    Ok(())
}

/// Says which of the three does not match, narrowing down: issuer, then subject, then audience.
fn match_credential<'a>(
    claims: &AssertionClaims,
    credentials: impl Iterator<Item = &'a FederatedCredential>,
) -> Result<(), EntraError> {
    let of_issuer: Vec<_> = credentials.filter(|credential| credential.issuer == claims.iss).collect();
    if of_issuer.is_empty() {
        return Err(EntraError::IssuerMismatch(claims.iss.clone()));
    }
    let of_subject: Vec<_> = of_issuer.into_iter().filter(|credential| credential.subject == claims.sub).collect();
    if of_subject.is_empty() {
        return Err(EntraError::SubjectMismatch(claims.sub.clone()));
    }
    let presented = claims.audiences();
    if of_subject.iter().any(|credential| credential.audiences.iter().any(|wanted| presented.contains(wanted))) {
        Ok(())
    } else {
        Err(EntraError::AudienceMismatch(presented.join(", ")))
    }
}

fn grant(
    client_id: &str,
    identity: &Identity,
    configuration: &Configuration,
    key: &SigningKey,
    now: Timestamp,
) -> Result<Value, EntraError> {
    let seconds = configuration.settings.access_token_seconds;
    let issuer = format!("https://sts.windows.net/{}/", identity.tenant_id);
    let claims = AccessClaims {
        aud: STORAGE_AUDIENCE.to_owned(),
        iss: issuer.clone(),
        iat: now.as_second(),
        nbf: now.as_second(),
        exp: now.as_second() + i64::from(seconds),
        appid: client_id.to_owned(),
        appidacr: "2".to_owned(),
        idp: issuer,
        oid: identity.object_id.clone(),
        sub: identity.object_id.clone(),
        tid: identity.tenant_id.clone(),
        uti: uuid::Uuid::new_v4().to_string(),
        ver: "1.0".to_owned(),
        generation: configuration.token_generation,
    };
    let token = key.sign(&claims).map_err(|error| {
        tracing::error!(%error, client_id, "no access token");
        EntraError::Transient(StatusCode::INTERNAL_SERVER_ERROR)
    })?;
    Ok(json!({
        "token_type": "Bearer", "expires_in": seconds, "ext_expires_in": seconds, "access_token": token,
    }))
}

fn discovery(origin: &str, tenant: &str) -> Value {
    json!({
        "issuer": format!("{origin}/{tenant}/v2.0"),
        "authorization_endpoint": format!("{origin}/{tenant}/oauth2/v2.0/authorize"),
        "token_endpoint": format!("{origin}/{tenant}/oauth2/v2.0/token"),
        "jwks_uri": format!("{origin}/{tenant}/discovery/v2.0/keys"),
        "token_endpoint_auth_methods_supported": ["private_key_jwt"],
        "response_types_supported": ["token"],
        "subject_types_supported": ["pairwise"],
        "id_token_signing_alg_values_supported": ["ES256"],
    })
}

fn instance(origin: &str) -> Value {
    let host = origin.trim_start_matches("https://");
    json!({
        "tenant_discovery_endpoint": format!("{origin}/common/v2.0/.well-known/openid-configuration"),
        "api-version": "1.1",
        "metadata": [{"preferred_network": host, "preferred_cache": host, "aliases": [host]}],
    })
}
