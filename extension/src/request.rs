//! Requests to API servers: each has a deadline, and each error says what was asked, and what kind of answer it is.

use std::fmt;
use std::time::Duration;

use kube::api::{Patch, PatchParams};
use kube::core::Status;
use kube::{Api, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use shoot_backup_api::names;

/// Longest time for a connection to an API server.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time for one request.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// Why a request had no result.
#[derive(Debug, thiserror::Error)]
#[error("failed to {what}: {cause}")]
pub struct Error {
    /// What was asked: `get Namespace kube-system`.
    what: String,
    #[source]
    cause: Cause,
}

#[derive(Debug)]
enum Cause {
    Api(Box<Status>),
    Timeout,
    Client(kube::Error),
}

impl fmt::Display for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Api(status) if status.message.is_empty() => write!(formatter, "{} ({})", status.reason, status.code),
            Self::Api(status) => formatter.write_str(&status.message),
            Self::Timeout => write!(formatter, "no answer within {}s", REQUEST_TIMEOUT.as_secs()),
            Self::Client(error) => {
                // The outermost text of the client only says that a request failed: the reason is further inside.
                write!(formatter, "{error}")?;
                let mut text = error.to_string();
                let mut source = std::error::Error::source(error);
                while let Some(inner) = source {
                    let message = inner.to_string();
                    if !text.contains(&message) {
                        write!(formatter, ": {message}")?;
                        text = message;
                    }
                    source = inner.source();
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for Cause {}

/// What an error means for what is done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The object, or the kind, is not there.
    NotFound,
    /// The credential is not accepted, or its rights do not suffice.
    Refused,
    /// Somebody else was faster.
    Conflict,
    /// The server will never accept this request.
    Invalid,
    /// Nobody answers.
    Unreachable,
    /// The server cannot answer now.
    Busy,
}

impl Kind {
    /// A bounded label for metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Refused => "refused",
            Self::Conflict => "conflict",
            Self::Invalid => "invalid",
            Self::Unreachable => "unreachable",
            Self::Busy => "busy",
        }
    }
}

impl Error {
    /// Wraps a client's error.
    #[must_use]
    pub fn new(what: impl Into<String>, error: kube::Error) -> Self {
        let cause = match error {
            kube::Error::Api(status) => Cause::Api(status),
            other => Cause::Client(other),
        };
        Self { what: what.into(), cause }
    }

    /// What it means.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match &self.cause {
            Cause::Api(status) => match status.code {
                401 | 403 => Kind::Refused,
                404 | 410 => Kind::NotFound,
                409 => Kind::Conflict,
                408 | 429 | 500.. => Kind::Busy,
                _ => Kind::Invalid,
            },
            Cause::Client(kube::Error::SerdeError(_) | kube::Error::BuildRequest(_) | kube::Error::HttpError(_)) => {
                Kind::Invalid
            }
            Cause::Timeout | Cause::Client(_) => Kind::Unreachable,
        }
    }

    /// Whether the cluster itself is in doubt, so that nothing else need be asked of it now.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        self.kind() == Kind::Unreachable
    }
}

/// Awaits a request for [`REQUEST_TIMEOUT`] at most. `what` completes "failed to …".
pub async fn timed<T>(
    what: impl Into<String>,
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, Error> {
    match tokio::time::timeout(REQUEST_TIMEOUT, request).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Error::new(what, error)),
        Err(_) => Err(Error { what: what.into(), cause: Cause::Timeout }),
    }
}

/// Like [`timed`], with an object that is not there as `None`.
pub async fn timed_opt<T>(
    what: impl Into<String>,
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<Option<T>, Error> {
    match timed(what, request).await {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == Kind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes the whole status of one of our objects by server-side apply: fields that are no longer set go away. An object
/// that is gone meanwhile is no error.
pub async fn write_status<K>(api: &Api<K>, name: &str, status: &impl Serialize) -> Result<(), Error>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + fmt::Debug,
{
    let document = serde_json::json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": {"name": name},
        "status": status,
    });
    let parameters = PatchParams::apply(names::FIELD_MANAGER).force();
    let what = format!("write the status of {} {name}", K::kind(&()));
    timed_opt(what, api.patch_status(name, &parameters, &Patch::Apply(document))).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api(code: u16) -> Error {
        Error::new("get x", kube::Error::Api(Status::failure("no", "Reason").with_code(code).boxed()))
    }

    #[test]
    fn an_answer_is_sorted_by_what_to_do_next() {
        assert_eq!(api(401).kind(), Kind::Refused);
        assert_eq!(api(404).kind(), Kind::NotFound);
        assert_eq!(api(409).kind(), Kind::Conflict);
        assert_eq!(api(422).kind(), Kind::Invalid);
        assert_eq!(api(429).kind(), Kind::Busy);
        assert_eq!(api(503).kind(), Kind::Busy);
    }

    #[test]
    fn an_error_says_what_was_asked() {
        assert_eq!(api(403).to_string(), "failed to get x: no");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_without_an_answer_ends() {
        let error = timed("get y", std::future::pending::<Result<(), kube::Error>>()).await.unwrap_err();
        assert!(error.is_unreachable());
    }
}
