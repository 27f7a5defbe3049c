//! Refusals of the token endpoint, with Entra ID's codes, words and JSON.

use axum::body::Body;
use http::{Response, StatusCode, header};
use jiff::Timestamp;
use serde_json::json;

const FEDERATION_PAGE: &str = "https://learn.microsoft.com/entra/workload-id/workload-identity-federation";
const MATCHING_HINT: &str =
    "Check your federated identity credential Subject, Audience and Issuer against the presented assertion.";

/// Why the token endpoint gives no token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntraError {
    /// No identity lives in this tenant.
    TenantNotFound(String),
    /// The client id is not in this tenant.
    ApplicationNotFound {
        /// The client id of the request.
        client_id: String,
        /// The tenant of the request.
        tenant_id: String,
    },
    /// A form field is missing.
    MissingField(&'static str),
    /// Not `client_credentials`.
    UnsupportedGrant(String),
    /// Not a client assertion of type `jwt-bearer`.
    AssertionRequired,
    /// The scope does not end in `/.default`.
    ScopeNotDefault(String),
    /// The scope names a resource that is not storage.
    UnknownResource {
        /// The resource of the scope.
        resource: String,
        /// The tenant of the request.
        tenant_id: String,
    },
    /// The assertion is not a JWT, or its claims are not there.
    MalformedAssertion,
    /// No federated credential has the assertion's issuer.
    IssuerMismatch(String),
    /// Credentials of this issuer have other subjects.
    SubjectMismatch(String),
    /// Credentials of this issuer and subject have other audiences.
    AudienceMismatch(String),
    /// The issuer's discovery document or keys cannot be fetched; the reason stays in the log, as at Microsoft.
    IssuerUnreachable,
    /// The issuer publishes no key with the assertion's `kid`.
    KeyNotFound(String),
    /// The key is there, the signature is not its.
    SignatureMismatch(String),
    /// Too early or too late.
    OutsideValidity {
        /// The endpoint's clock.
        now: Timestamp,
        /// From the assertion.
        not_before: Timestamp,
        /// From the assertion.
        expires: Timestamp,
    },
    /// Injected, or the emulator's own failure.
    Transient(StatusCode),
}

impl EntraError {
    /// The number after `AADSTS`.
    #[must_use]
    pub fn code(&self) -> u32 {
        match self {
            Self::TenantNotFound(_) => 90_002,
            Self::ApplicationNotFound { .. } => 700_016,
            Self::MissingField(_) => 90_014,
            Self::UnsupportedGrant(_) => 70_003,
            Self::AssertionRequired => 7_000_216,
            Self::ScopeNotDefault(_) => 1_002_012,
            Self::UnknownResource { .. } => 500_011,
            Self::MalformedAssertion => 50_027,
            Self::IssuerMismatch(_) => 700_211,
            Self::SubjectMismatch(_) => 700_213,
            Self::AudienceMismatch(_) => 700_212,
            Self::IssuerUnreachable => 50_166,
            Self::KeyNotFound(_) | Self::SignatureMismatch(_) => 700_027,
            Self::OutsideValidity { .. } => 700_024,
            Self::Transient(_) => 90_033,
        }
    }

    /// OAuth's `error` and the HTTP status: 401 where the client failed to prove itself, else 400.
    #[must_use]
    pub fn kind(&self) -> (&'static str, StatusCode) {
        match self {
            Self::ApplicationNotFound { .. } => ("unauthorized_client", StatusCode::BAD_REQUEST),
            Self::UnsupportedGrant(_) => ("unsupported_grant_type", StatusCode::BAD_REQUEST),
            Self::ScopeNotDefault(_) => ("invalid_scope", StatusCode::BAD_REQUEST),
            Self::UnknownResource { .. } => ("invalid_resource", StatusCode::BAD_REQUEST),
            Self::TenantNotFound(_) | Self::MissingField(_) | Self::MalformedAssertion | Self::IssuerUnreachable => {
                ("invalid_request", StatusCode::BAD_REQUEST)
            }
            Self::AssertionRequired
            | Self::IssuerMismatch(_)
            | Self::SubjectMismatch(_)
            | Self::AudienceMismatch(_)
            | Self::KeyNotFound(_)
            | Self::SignatureMismatch(_)
            | Self::OutsideValidity { .. } => ("invalid_client", StatusCode::UNAUTHORIZED),
            Self::Transient(status) => ("temporarily_unavailable", *status),
        }
    }

    fn message(&self) -> String {
        match self {
            Self::TenantNotFound(tenant) => format!(
                "Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID and are signing into \
                 the correct cloud. Check with your subscription administrator, this may happen if there are no \
                 active subscriptions for the tenant."
            ),
            Self::ApplicationNotFound { client_id, tenant_id } => format!(
                "Application with identifier '{client_id}' was not found in the directory '{tenant_id}'. This can \
                 happen if the application has not been installed by the administrator of the tenant or consented to \
                 by any user in the tenant. You may have sent your authentication request to the wrong tenant."
            ),
            Self::MissingField(field) => format!(
                "The required field '{field}' is missing from the credential. Ensure that you have all the necessary \
                 parameters for the login request."
            ),
            Self::UnsupportedGrant(grant) => {
                format!("The app requested an unsupported grant type '{grant}'.")
            }
            Self::AssertionRequired => "'client_assertion', 'client_secret' or 'request' is required for the \
                 'client_credentials' grant type."
                .to_owned(),
            Self::ScopeNotDefault(scope) => format!(
                "The provided value for scope {scope} is not valid. Client credential flows must have a scope value \
                 with /.default suffixed to the resource identifier (application ID URI)."
            ),
            Self::UnknownResource { resource, tenant_id } => format!(
                "The resource principal named {resource} was not found in the tenant named {tenant_id}. This can \
                 happen if the application has not been installed by the administrator of the tenant or consented to \
                 by any user in the tenant. You might have sent your authentication request to the wrong tenant."
            ),
            Self::MalformedAssertion => "JWT token is invalid or malformed.".to_owned(),
            Self::IssuerMismatch(issuer) => mismatch("issuer", issuer),
            Self::SubjectMismatch(subject) => mismatch("subject", subject),
            Self::AudienceMismatch(audience) => mismatch("audience", audience),
            Self::IssuerUnreachable => "Request to External OIDC endpoint failed.".to_owned(),
            Self::KeyNotFound(kid) => format!(
                "Client assertion contains an invalid signature. [Reason - The key was not found., Thumbprint of key \
                 used by client: '{kid}']"
            ),
            Self::SignatureMismatch(kid) => format!(
                "Client assertion contains an invalid signature. [Reason - The provided signature value did not match \
                 the expected signature value., Thumbprint of key used by client: '{kid}']"
            ),
            Self::OutsideValidity { now, not_before, expires } => format!(
                "Client assertion is not within its valid time range. Current time: {now:.7}, assertion valid from \
                 {not_before:.7}, expiry time of assertion {expires:.7}. Review the documentation at \
                 https://learn.microsoft.com/entra/identity-platform/certificate-credentials ."
            ),
            Self::Transient(_) => "A transient error has occurred. Please try again.".to_owned(),
        }
    }

    /// The whole answer.
    #[must_use]
    pub fn response(&self, now: Timestamp, correlation: Option<&str>) -> Response<Body> {
        let (error, status) = self.kind();
        let trace_id = uuid::Uuid::new_v4().to_string();
        let correlation_id = correlation.map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned);
        let timestamp = now.strftime("%Y-%m-%d %H:%M:%SZ").to_string();
        let code = self.code();
        let description = format!(
            "AADSTS{code}: {} Trace ID: {trace_id} Correlation ID: {correlation_id} Timestamp: {timestamp}",
            self.message()
        );
        let body = json!({
            "error": error,
            "error_description": description,
            "error_codes": [code],
            "timestamp": timestamp,
            "trace_id": trace_id,
            "correlation_id": correlation_id,
            "error_uri": format!("https://login.microsoftonline.com/error?code={code}"),
        });
        json_response(status, &body)
    }
}

fn mismatch(what: &str, value: &str) -> String {
    format!(
        "No matching federated identity record found for presented assertion {what} '{value}'. {MATCHING_HINT} \
         {FEDERATION_PAGE}"
    )
}

/// An answer of the token endpoint: never to be cached.
#[must_use]
pub fn json_response(status: StatusCode, body: &serde_json::Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/json; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, http::HeaderValue::from_static("no-store, no-cache"));
    response
}
