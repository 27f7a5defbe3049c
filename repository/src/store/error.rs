//! Why a store could not do what it was asked to.

use std::error::Error;
use std::fmt;
use std::time::Duration;

/// What kind of failure it is; decides what a caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StoreErrorKind {
    /// The blob is there already, and blobs are never overwritten.
    AlreadyExists,
    /// No such blob, or no such container.
    NotFound,
    /// The service, or Entra ID before it, does not know who we are.
    Unauthenticated,
    /// The service knows who we are and refuses.
    Forbidden,
    /// A container's immutability policy or a legal hold forbids it.
    Immutable,
    /// The service asks for fewer requests.
    Throttled,
    /// The service could not be reached, or failed on its side.
    Unavailable,
    /// What was read is not what was written.
    Corrupt,
    /// Anything else; trying again will not help.
    Other,
}

/// A failed operation of a [`BlobStore`](super::BlobStore).
#[derive(Debug)]
pub struct StoreError {
    kind: StoreErrorKind,
    code: Option<String>,
    message: String,
    retry_after: Option<Duration>,
    ambiguous: bool,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl StoreError {
    /// An error of this kind; the message starts with "failed to" and names the blob.
    #[must_use]
    pub fn new(kind: StoreErrorKind, message: impl Into<String>) -> Self {
        Self { kind, code: None, message: message.into(), retry_after: None, ambiguous: false, source: None }
    }

    /// Adds the service's own error code, such as `AuthorizationPermissionMismatch` or `AADSTS70021`.
    #[must_use]
    pub fn with_code(mut self, code: impl Into<String>) -> Self {
        self.code = Some(code.into());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Adds how long the service asks to wait.
    #[must_use]
    pub const fn with_retry_after(mut self, delay: Option<Duration>) -> Self {
        self.retry_after = delay;
        self
    }

    /// Says that the operation may have taken effect although its answer was lost.
    #[must_use]
    pub const fn with_ambiguous(mut self, ambiguous: bool) -> Self {
        self.ambiguous = ambiguous;
        self
    }

    /// The kind.
    #[must_use]
    pub const fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// The service's own code.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }

    /// How long the service asks to wait before the next try.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Whether the operation may have taken effect although its answer was lost.
    #[must_use]
    pub const fn is_ambiguous(&self) -> bool {
        self.ambiguous
    }

    /// Whether the same call may succeed later without anyone doing anything.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self.kind, StoreErrorKind::Throttled | StoreErrorKind::Unavailable)
    }

    /// A short fixed name of the kind, for metrics and conditions.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self.kind {
            StoreErrorKind::AlreadyExists => "already-exists",
            StoreErrorKind::NotFound => "not-found",
            StoreErrorKind::Unauthenticated => "unauthenticated",
            StoreErrorKind::Forbidden => "forbidden",
            StoreErrorKind::Immutable => "immutable",
            StoreErrorKind::Throttled => "throttled",
            StoreErrorKind::Unavailable => "unavailable",
            StoreErrorKind::Corrupt => "corrupt",
            StoreErrorKind::Other => "other",
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.code {
            Some(code) if !self.message.contains(code.as_str()) => write!(f, " ({code})"),
            _ => Ok(()),
        }
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_shows_the_services_code_once() {
        let error =
            StoreError::new(StoreErrorKind::Forbidden, "failed to create config").with_code("InsufficientAccess");
        assert_eq!(error.to_string(), "failed to create config (InsufficientAccess)");
        let error = StoreError::new(StoreErrorKind::Unauthenticated, "AADSTS70021: no match").with_code("AADSTS70021");
        assert_eq!(error.to_string(), "AADSTS70021: no match");
    }

    #[test]
    fn only_what_passes_by_itself_is_retryable() {
        for (kind, retryable) in [
            (StoreErrorKind::Throttled, true),
            (StoreErrorKind::Unavailable, true),
            (StoreErrorKind::Forbidden, false),
            (StoreErrorKind::AlreadyExists, false),
            (StoreErrorKind::Corrupt, false),
        ] {
            assert_eq!(StoreError::new(kind, "x").is_retryable(), retryable);
        }
    }
}
