//! Refusals of the Blob service: status, code, XML and headers of the real one.

use axum::body::Body;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use jiff::Timestamp;

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageError {
    status: StatusCode,
    code: &'static str,
    message: String,
    detail: Option<String>,
    headers: Vec<(HeaderName, String)>,
}

impl StorageError {
    fn new(status: StatusCode, code: &'static str, message: &str) -> Self {
        Self { status, code, message: message.to_owned(), detail: None, headers: Vec::new() }
    }

    /// 401: no `Authorization` at all.
    #[must_use]
    pub fn no_authentication(tenant: &str) -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "NoAuthenticationInformation",
            "Server failed to authenticate the request. Please refer to the information in the www-authenticate \
             header.",
        )
        .challenge(tenant)
    }

    /// 401: a bearer token that does not count. `detail` says why.
    #[must_use]
    pub fn invalid_authentication(tenant: &str, detail: &str) -> Self {
        let mut error = Self::new(
            StatusCode::UNAUTHORIZED,
            "InvalidAuthenticationInfo",
            "Server failed to authenticate the request. Please refer to the information in the www-authenticate \
             header.",
        );
        error.detail = Some(detail.to_owned());
        error.challenge(tenant)
    }

    fn challenge(mut self, tenant: &str) -> Self {
        let value = format!(
            "Bearer authorization_uri=https://login.microsoftonline.com/{tenant}/oauth2/authorize \
             resource_id=https://storage.azure.com"
        );
        self.headers.push((header::WWW_AUTHENTICATE, value));
        self
    }

    /// 403: a shared key or a signature in the URL, on an account that allows neither.
    #[must_use]
    pub fn key_access_not_permitted() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "KeyBasedAuthenticationNotPermitted",
            "Key based authentication is not permitted on this storage account.",
        )
    }

    /// 403: no role assignment permits the operation.
    #[must_use]
    pub fn permission_mismatch() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "AuthorizationPermissionMismatch",
            "This request is not authorized to perform this operation using this permission.",
        )
    }

    /// 409: within the retention of the container.
    #[must_use]
    pub fn immutable() -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "BlobImmutableDueToPolicy",
            "This operation is not permitted as the blob is immutable due to a policy.",
        )
    }

    /// 503.
    #[must_use]
    pub fn server_busy(retry_after_seconds: u32) -> Self {
        let mut error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "ServerBusy", "The server is busy.");
        error.headers.push((header::RETRY_AFTER, retry_after_seconds.to_string()));
        error
    }

    /// 429, which a proxy or a future limit may answer. The Blob service itself throttles by 503.
    #[must_use]
    pub fn too_many_requests(retry_after_seconds: u32) -> Self {
        let mut error =
            Self::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", "Too many requests, slow down and retry.");
        error.headers.push((header::RETRY_AFTER, retry_after_seconds.to_string()));
        error
    }

    /// 500.
    #[must_use]
    pub fn internal(message: &str) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message)
    }

    /// 501: an operation that the emulator does not let through. The real service knows it.
    #[must_use]
    pub fn not_offered() -> Self {
        Self::new(
            StatusCode::NOT_IMPLEMENTED,
            "NotImplemented",
            "The emulator does not offer this operation: it could not judge the rights it needs.",
        )
    }

    /// 411: a write that does not say how long it is.
    #[must_use]
    pub fn missing_length() -> Self {
        Self::new(StatusCode::LENGTH_REQUIRED, "MissingContentLengthHeader", "Content-Length HTTP header is missing.")
    }

    /// 400: a path that is not below the account.
    #[must_use]
    pub fn invalid_uri() -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "InvalidUri",
            "The requested URI does not represent any resource on the server.",
        )
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The answer to a request with these headers.
    #[must_use]
    pub fn response(&self, request: &HeaderMap) -> Response<Body> {
        let request_id = uuid::Uuid::new_v4().to_string();
        let now = Timestamp::now();
        let detail = self.detail.as_deref().map_or_else(String::new, |detail| {
            format!("<AuthenticationErrorDetail>{}</AuthenticationErrorDetail>", escaped(detail))
        });
        let body = format!(
            "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>{}</Code><Message>{}\nRequestId:{request_id}\
             \nTime:{now:.7}</Message>{detail}</Error>",
            self.code,
            escaped(&self.message),
        );
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        let mut set = |name: HeaderName, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        };
        set(header::CONTENT_TYPE, "application/xml");
        set(header::SERVER, "Windows-Azure-Blob/1.0 Microsoft-HTTPAPI/2.0");
        set(HeaderName::from_static("x-ms-error-code"), self.code);
        set(HeaderName::from_static("x-ms-request-id"), &request_id);
        for (name, value) in &self.headers {
            set(name.clone(), value);
        }
        for echoed in ["x-ms-version", "x-ms-client-request-id"] {
            if let Some(value) = request.get(echoed).and_then(|value| value.to_str().ok()) {
                set(HeaderName::from_static(echoed), value);
            }
        }
        response
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
