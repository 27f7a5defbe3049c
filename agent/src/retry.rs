//! Calls of the API server that are worth repeating, repeated within bounds.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

/// How long a call is repeated in all: an API server that restarts is back by then.
const PATIENCE: Duration = Duration::from_mins(2);
/// The first pause; each is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Whether the same call may succeed later without anyone doing anything.
#[must_use]
pub fn is_retryable(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => matches!(status.code, 429 | 500 | 502 | 503 | 504),
        kube::Error::HyperError(_) | kube::Error::Service(_) | kube::Error::ReadEvents(_) => true,
        _ => false,
    }
}

/// Calls until it works, until the error is one that stays, or until two minutes are over. A call that changes something
/// may have taken effect although its answer was lost: callers accept "already exists" and "not found" accordingly.
pub async fn call<T, F, Fut>(call: F) -> Result<T, kube::Error>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, kube::Error>>,
{
    call_within(PATIENCE, call).await
}

/// Like [`call`], with other bounds.
pub async fn call_within<T, F, Fut>(patience: Duration, mut call: F) -> Result<T, kube::Error>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, kube::Error>>,
{
    let end = Instant::now() + patience;
    let mut pause = FIRST_PAUSE;
    loop {
        // Boxed, because the client's futures are large and callers hold several.
        match Box::pin(call()).await {
            Err(error) if is_retryable(&error) && Instant::now() + pause < end => {
                tracing::debug!(%error, "repeating a call of the API server");
                tokio::time::sleep(pause.max(asked_pause(&error))).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            result => return result,
        }
    }
}

/// The pause that the server asks for, within our own bound.
fn asked_pause(error: &kube::Error) -> Duration {
    match error {
        kube::Error::Api(status) => status.details.as_ref().map_or(Duration::ZERO, |details| {
            Duration::from_secs(details.retry_after_seconds.into()).min(LONGEST_PAUSE)
        }),
        _ => Duration::ZERO,
    }
}

/// An API server's answer to a deletion or a read of something that may be gone: `None` if it is.
pub fn absent<T>(result: Result<T, kube::Error>) -> Result<Option<T>, kube::Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn api_error(code: u16) -> kube::Error {
        kube::Error::Api(Status::failure("no", "Reason").with_code(code).boxed())
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_comes_back_is_waited_for() {
        let mut tries = 0;
        let result = call(|| {
            tries += 1;
            let result = if tries < 5 { Err(api_error(503)) } else { Ok(tries) };
            async move { result }
        })
        .await;
        assert_eq!(result.unwrap(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_stays_away_is_given_up_after_two_minutes() {
        let begin = Instant::now();
        let result: Result<(), _> = call(|| async { Err(api_error(503)) }).await;
        assert!(result.is_err());
        assert!(begin.elapsed() <= PATIENCE);
        assert!(begin.elapsed() > PATIENCE / 2);
    }

    #[tokio::test]
    async fn an_error_that_stays_is_not_repeated() {
        let mut tries = 0;
        let result: Result<(), _> = call(|| {
            tries += 1;
            async { Err(api_error(403)) }
        })
        .await;
        assert!(result.is_err());
        assert_eq!(tries, 1);
    }

    #[test]
    fn what_is_gone_is_no_error() {
        assert!(absent::<()>(Err(api_error(404))).unwrap().is_none());
        assert!(absent::<()>(Err(api_error(500))).is_err());
    }
}
