//! Waiting for a condition, always with a deadline.

use std::future::Future;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// How often a condition is looked at.
const PACE: Duration = Duration::from_millis(100);

/// What one look at a condition showed.
pub(crate) enum Seen<T> {
    /// It holds.
    Yes(T),
    /// Not yet, and what was seen instead.
    NotYet(String),
}

/// Looks until the condition holds, an error ends it, or `seconds` have passed.
pub(crate) async fn until<T, F>(what: &str, seconds: u64, mut look: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<Seen<T>>>,
{
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let mut last = None;
    loop {
        // A look that hangs must not outlive the deadline either.
        let left = deadline.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left, look()).await {
            Ok(Ok(Seen::Yes(value))) => return Ok(value),
            Ok(Ok(Seen::NotYet(seen))) => last = Some(seen),
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(Error::Timeout { what: what.to_owned(), seconds, last }),
        }
        if Instant::now() >= deadline {
            return Err(Error::Timeout { what: what.to_owned(), seconds, last });
        }
        tokio::time::sleep(PACE).await;
    }
}
