//! Why an operation ended without a result.

use std::error::Error;

use shoot_backup_repository::{RepositoryError, StoreError};

use crate::location::LocationError;

/// The end of an operation that has no result.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Somebody asked for it.
    #[error("cancelled on request; nothing was removed from the location")]
    Cancelled,
    /// It took longer than its `timeout`.
    #[error("stopped after its timeout of {timeout}; raise spec.timeout in a new object, or back up less at once")]
    DeadlineExceeded {
        /// `spec.timeout`.
        timeout: String,
    },
    /// It cannot go on.
    #[error("{message}")]
    Failed {
        /// One word for programs, in camel case.
        reason: &'static str,
        /// For people: what happened and what to do.
        message: String,
    },
}

impl Failure {
    /// A failure with its reason for programs and its message for people.
    #[must_use]
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self::Failed { reason, message: message.into() }
    }

    /// One word for conditions, events and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Cancelled => "Cancelled",
            Self::DeadlineExceeded { .. } => "DeadlineExceeded",
            Self::Failed { reason, .. } => reason,
        }
    }

    /// A failed call of the API server; `what` completes "failed to …".
    #[must_use]
    pub fn api(what: &str, error: &kube::Error) -> Self {
        Self::new("ApiServer", format!("failed to {what}: {}", with_causes(error)))
    }
}

impl From<LocationError> for Failure {
    fn from(error: LocationError) -> Self {
        Self::new(error.reason(), with_causes(&error))
    }
}

impl From<RepositoryError> for Failure {
    fn from(error: RepositoryError) -> Self {
        Self::new("Repository", with_causes(&error))
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::new("Storage", with_causes(&error))
    }
}

/// An error and its causes in one line; a cause that its error already tells is not repeated.
#[must_use]
pub fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = match error.downcast_ref::<kube::Error>() {
        // The client's own text repeats the whole answer in Rust's debug format.
        Some(kube::Error::Api(status)) => return format!("{} ({})", status.message, status.reason),
        _ => error.to_string(),
    };
    let mut source = error.source();
    while let Some(cause) = source {
        let line = match cause.downcast_ref::<kube::Error>() {
            Some(kube::Error::Api(status)) => format!("{} ({})", status.message, status.reason),
            _ => cause.to_string(),
        };
        if !text.contains(&line) {
            text.push_str(": ");
            text.push_str(&line);
        }
        if matches!(cause.downcast_ref::<kube::Error>(), Some(kube::Error::Api(_))) {
            break;
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use kube::core::Status;
    use shoot_backup_repository::StoreErrorKind;

    use super::*;

    #[test]
    fn a_failure_tells_its_causes_once() {
        let inner = StoreError::new(StoreErrorKind::Forbidden, "failed to list");
        let outer = StoreError::new(StoreErrorKind::Forbidden, "failed to open: failed to list").with_source(inner);
        assert_eq!(with_causes(&outer), "failed to open: failed to list");
    }

    #[test]
    fn an_answer_of_the_api_server_is_told_in_its_own_words() {
        let error = kube::Error::Api(Status::failure("pods is forbidden", "Forbidden").with_code(403).boxed());
        let failure = Failure::api("list pods", &error);
        assert_eq!(failure.to_string(), "failed to list pods: pods is forbidden (Forbidden)");
    }
}
