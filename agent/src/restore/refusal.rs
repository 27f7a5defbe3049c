//! What the API server's refusals mean to a restore: for ever, or only for now.

use std::future::Future;

use kube::core::Status;

use crate::operation::failure::with_causes;
use crate::retry;

/// Why an object was not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Something that has to be there first may still come: a webhook's server, a definition, a deletion's end.
    ForNow(String),
    /// It stays refused.
    ForGood(String),
}

/// Texts of refusals that depend on what else is there. The API server has no reasons of their own for these.
const PASSING: [&str; 7] = [
    // Namespace lifecycle, resource quota and service account admission.
    "being terminated",
    "exceeded quota",
    "error looking up service account",
    "no API token found for service account",
    // A webhook may be up and still wait for what it looks up.
    "admission webhook",
    "failed calling webhook",
    // Optimistic locking.
    "the object has been modified",
];

impl Refusal {
    /// What an error of a create, an apply or an update means.
    #[must_use]
    pub fn of(error: &kube::Error) -> Self {
        let text = with_causes(error);
        match error {
            kube::Error::Api(status) if is_passing(status) => Self::ForNow(text),
            kube::Error::Api(_) => Self::ForGood(text),
            error if retry::is_retryable(error) => Self::ForNow(text),
            _ => Self::ForGood(text),
        }
    }
}

fn is_passing(status: &Status) -> bool {
    // 404: the namespace is gone, or a definition is not served yet.
    matches!(status.code, 404 | 429 | 500 | 502 | 503 | 504)
        || (status.code == 409 && status.reason == "Conflict")
        || PASSING.iter().any(|text| status.message.contains(text))
}

/// Repeats a call while the API server is away or asks for patience. Answers about the object itself come back at once:
/// waiting two minutes for each of a thousand objects behind a webhook that is not up would be for ever.
pub async fn patiently<T, F, Fut>(mut call: F) -> Result<T, kube::Error>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, kube::Error>>,
{
    let result = retry::call(|| {
        let answer = call();
        async move {
            match answer.await {
                Err(kube::Error::Api(status)) if !matches!(status.code, 429 | 503) => Ok(Err(kube::Error::Api(status))),
                Err(error) => Err(error),
                Ok(value) => Ok(Ok(value)),
            }
        }
    })
    .await;
    result?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(code: u16, reason: &str, message: &str) -> Refusal {
        Refusal::of(&kube::Error::Api(Status::failure(message, reason).with_code(code).boxed()))
    }

    #[test]
    fn what_may_still_come_is_waited_for() {
        for (code, reason, message) in [
            (404, "NotFound", "the server could not find the requested resource"),
            (403, "Forbidden", "unable to create new content in namespace shop because it is being terminated"),
            (403, "Forbidden", "exceeded quota: pods"),
            (403, "Forbidden", "error looking up service account shop/default: not found"),
            (500, "InternalError", "failed calling webhook \"hook\": no endpoints available"),
            (400, "BadRequest", "admission webhook \"hook\" denied the request: no class"),
            (409, "Conflict", "the object has been modified"),
        ] {
            assert!(matches!(answer(code, reason, message), Refusal::ForNow(_)), "{message}");
        }
    }

    #[test]
    fn what_is_wrong_stays_wrong() {
        for (code, reason, message) in [
            (422, "Invalid", "spec.selector: field is immutable"),
            (403, "Forbidden", "violates PodSecurity \"restricted\""),
            (400, "BadRequest", "strict decoding error"),
        ] {
            assert!(matches!(answer(code, reason, message), Refusal::ForGood(_)), "{message}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_about_the_object_is_not_asked_for_twice() {
        let mut calls = 0;
        let result: Result<(), _> = patiently(|| {
            calls += 1;
            async {
                Err(kube::Error::Api(Status::failure("failed calling webhook", "InternalError").with_code(500).boxed()))
            }
        })
        .await;
        assert!(result.is_err());
        assert_eq!(calls, 1);
        let mut calls = 0;
        let result = patiently(|| {
            calls += 1;
            let away = calls < 3;
            async move {
                let status = Status::failure("apiserver is shutting down", "ServiceUnavailable").with_code(503);
                if away { Err(kube::Error::Api(status.boxed())) } else { Ok(()) }
            }
        })
        .await;
        assert!(result.is_ok());
        assert_eq!(calls, 3);
    }
}
