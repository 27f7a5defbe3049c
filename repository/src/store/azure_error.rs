//! What Azure's and Entra's errors mean for us.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use azure_core::error::ErrorKind;
use azure_core::http::headers::{HeaderName, Headers};
use azure_core::http::policies::{Policy, PolicyResult};
use azure_core::http::{Context, RawResponse, Request};

use super::{StoreError, StoreErrorKind};

const RETRY_AFTER: HeaderName = HeaderName::from_static("retry-after");

/// What Entra ID answered instead of a token.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
struct EntraError {
    status: u16,
    /// `AADSTS…`, or OAuth's own error code.
    code: Option<String>,
    message: String,
    retry_after: Option<Duration>,
}

/// Keeps Entra's code and message. The SDK's own reading gives up on messages with escaped characters, which Entra sends.
#[derive(Debug)]
pub(super) struct KeepEntraErrors;

#[async_trait]
impl Policy for KeepEntraErrors {
    async fn send(&self, context: &Context, request: &mut Request, next: &[Arc<dyn Policy>]) -> PolicyResult {
        let Some((first, rest)) = next.split_first() else {
            return Err(azure_core::Error::with_message(ErrorKind::Other, "no transport behind the policies"));
        };
        let response = first.send(context, request, rest).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let response = response.try_into_raw_response().await?;
        Err(azure_core::Error::new(ErrorKind::Credential, entra_error(&response)))
    }
}

fn entra_error(response: &RawResponse) -> EntraError {
    let status = u16::from(response.status());
    let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap_or_default();
    let description = body["error_description"].as_str().unwrap_or_default();
    let number = body["error_codes"][0].as_u64().map(|number| format!("AADSTS{number}"));
    let in_text = description.split(':').next().filter(|word| word.starts_with("AADSTS")).map(str::to_owned);
    let message = match description.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
    {
        text if text.is_empty() => format!("the token endpoint answered with status {status}"),
        text => text,
    };
    EntraError {
        status,
        code: in_text.or(number).or_else(|| body["error"].as_str().map(str::to_owned)),
        message,
        retry_after: retry_after(response.headers()),
    }
}

fn retry_after(headers: &Headers) -> Option<Duration> {
    headers.get_optional_str(&RETRY_AFTER)?.trim().parse().ok().map(Duration::from_secs)
}

/// Turns the SDK's error into ours.
pub(super) fn map(verb: &str, path: &str, error: azure_core::Error) -> StoreError {
    let what = format!("failed to {verb} {path}");
    if let Some(entra) = sources(&error).find_map(|source| source.downcast_ref::<EntraError>()) {
        let kind = match entra.status {
            429 => StoreErrorKind::Throttled,
            500.. => StoreErrorKind::Unavailable,
            _ => StoreErrorKind::Unauthenticated,
        };
        let mapped = StoreError::new(kind, format!("{what}: Entra ID gave no token: {}", entra.message))
            .with_retry_after(entra.retry_after);
        return with_code(mapped, entra.code.clone());
    }
    let (kind, code, message, delay) = match error.kind() {
        ErrorKind::HttpResponse { status, error_code, raw_response } => {
            let status = u16::from(*status);
            // Without a code in the headers the SDK puts the status there.
            let code = error_code.clone().filter(|code| !code.starts_with(|first: char| first.is_ascii_digit()));
            let message = raw_response
                .as_deref()
                .and_then(|response| xml_message(response.body()))
                .unwrap_or_else(|| format!("status {status}"));
            let delay = raw_response.as_deref().and_then(|response| retry_after(response.headers()));
            (http_kind(status, code.as_deref()), code, message, delay)
        }
        kind => {
            let message = sources(&error).last().map_or_else(|| error.to_string(), ToString::to_string);
            (transport_kind(kind, &error, &message), None, advice(&message), None)
        }
    };
    // Only a connection that never came about leaves no doubt: everything else may have reached the service.
    let ambiguous = matches!(kind, StoreErrorKind::Unavailable | StoreErrorKind::Throttled)
        && !matches!(error.kind(), ErrorKind::Connection | ErrorKind::Credential);
    let mapped = StoreError::new(kind, format!("{what}: {message}")).with_retry_after(delay).with_ambiguous(ambiguous);
    with_code(mapped, code).with_source(error)
}

fn with_code(error: StoreError, code: Option<String>) -> StoreError {
    match code {
        Some(code) => error.with_code(code),
        None => error,
    }
}

/// The service's answers (Azure Storage, "Common REST API error codes" and "Blob service error codes").
fn http_kind(status: u16, code: Option<&str>) -> StoreErrorKind {
    match (status, code.unwrap_or_default()) {
        (
            _,
            "BlobImmutableDueToPolicy"
            | "BlobImmutableDueToLegalHold"
            | "ContainerImmutableDueToPolicy"
            | "ContainerProtectedFromDeletion",
        ) => StoreErrorKind::Immutable,
        (_, "BlobAlreadyExists" | "UnauthorizedBlobOverwrite") | (412, "ConditionNotMet") => {
            StoreErrorKind::AlreadyExists
        }
        (404, _) => StoreErrorKind::NotFound,
        // A token that is no longer good is 403 with some servers.
        (401, _) | (403, "AuthenticationFailed" | "InvalidAuthenticationInfo") => StoreErrorKind::Unauthenticated,
        (403, _) => StoreErrorKind::Forbidden,
        (429 | 503, _) => StoreErrorKind::Throttled,
        (416, _) => StoreErrorKind::Corrupt,
        (408 | 500 | 502 | 504, _) | (409, "OperationTimedOut") => StoreErrorKind::Unavailable,
        _ => StoreErrorKind::Other,
    }
}

fn transport_kind(kind: &ErrorKind, error: &azure_core::Error, message: &str) -> StoreErrorKind {
    let from_network = sources(error).any(<dyn Error>::is::<reqwest::Error>);
    match kind {
        // Trying again will not make a certificate trusted.
        _ if message.contains("certificate") => StoreErrorKind::Other,
        ErrorKind::Connection | ErrorKind::Io => StoreErrorKind::Unavailable,
        ErrorKind::Credential if from_network => StoreErrorKind::Unavailable,
        ErrorKind::Credential => StoreErrorKind::Unauthenticated,
        _ if from_network => StoreErrorKind::Unavailable,
        _ => StoreErrorKind::Other,
    }
}

fn advice(message: &str) -> String {
    if message.contains("certificate") {
        format!("{message}; add the certificate authority that signed the server's certificate")
    } else {
        message.to_owned()
    }
}

/// The error and all its causes.
fn sources<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// The first line of the message in the service's XML.
fn xml_message(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let start = text.find("<Message>")? + "<Message>".len();
    let message = text[start..].split("</Message>").next()?.lines().next()?.trim();
    (!message.is_empty()).then(|| message.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use azure_core::http::StatusCode;

    fn http(status: u16, code: &str, body: &str) -> azure_core::Error {
        let response = RawResponse::from_bytes(StatusCode::from(status), Headers::new(), body.to_owned());
        let kind = ErrorKind::HttpResponse {
            status: status.into(),
            error_code: Some(code.to_owned()),
            raw_response: Some(Box::new(response)),
        };
        azure_core::Error::with_message(kind, "x")
    }

    #[test]
    fn the_services_codes_become_kinds() {
        for (status, code, kind, label) in [
            (409, "BlobAlreadyExists", StoreErrorKind::AlreadyExists, "already-exists"),
            (409, "BlobImmutableDueToPolicy", StoreErrorKind::Immutable, "immutable"),
            (403, "AuthorizationPermissionMismatch", StoreErrorKind::Forbidden, "forbidden"),
            (403, "AuthenticationFailed", StoreErrorKind::Unauthenticated, "unauthenticated"),
            (401, "InvalidAuthenticationInfo", StoreErrorKind::Unauthenticated, "unauthenticated"),
            (404, "ContainerNotFound", StoreErrorKind::NotFound, "not-found"),
            (503, "ServerBusy", StoreErrorKind::Throttled, "throttled"),
            (500, "InternalError", StoreErrorKind::Unavailable, "unavailable"),
            (400, "InvalidHeaderValue", StoreErrorKind::Other, "other"),
        ] {
            let error = map("create", "x", http(status, code, ""));
            assert_eq!((error.kind(), error.label(), error.code()), (kind, label, Some(code)));
        }
    }

    #[test]
    fn a_message_names_the_blob_the_reason_and_the_code() {
        let body = "<?xml version=\"1.0\"?><Error><Code>AuthorizationPermissionMismatch</Code><Message>This request is \
                    not authorized.\nRequestId:1</Message></Error>";
        let error = map("create", "a/b", http(403, "AuthorizationPermissionMismatch", body));
        assert_eq!(
            error.to_string(),
            "failed to create a/b: This request is not authorized. (AuthorizationPermissionMismatch)"
        );
    }

    #[test]
    fn entras_code_and_message_are_kept_also_with_escapes() {
        let body = r#"{"error":"invalid_client","error_description":"AADSTS70021: No matching federated identity record found.\r\nTrace ID: 1","error_codes":[70021]}"#;
        let response = RawResponse::from_bytes(StatusCode::from(401), Headers::new(), body);
        let error = azure_core::Error::new(ErrorKind::Credential, entra_error(&response));
        let error = azure_core::Error::with_error(ErrorKind::Credential, error, "outer");
        let error = map("list", "x", error);
        assert_eq!(error.kind(), StoreErrorKind::Unauthenticated);
        assert_eq!(error.code(), Some("AADSTS70021"));
        assert!(error.to_string().contains("No matching federated identity record found. Trace ID: 1"), "{error}");
    }

    #[test]
    fn a_busy_token_endpoint_is_worth_another_try() {
        let response = RawResponse::from_bytes(StatusCode::from(503), Headers::new(), "");
        let error = map("list", "x", azure_core::Error::new(ErrorKind::Credential, entra_error(&response)));
        assert!(error.is_retryable());
    }

    #[test]
    fn a_lost_answer_is_ambiguous_and_a_refused_one_is_not() {
        assert!(map("create", "x", azure_core::Error::with_message(ErrorKind::Io, "reset")).is_ambiguous());
        assert!(map("create", "x", http(500, "InternalError", "")).is_ambiguous());
        assert!(!map("create", "x", azure_core::Error::with_message(ErrorKind::Connection, "refused")).is_ambiguous());
        assert!(!map("create", "x", http(409, "BlobAlreadyExists", "")).is_ambiguous());
    }
}
