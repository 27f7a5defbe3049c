//! Waiting for a condition with a deadline; what was seen last is part of the error.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

/// What one look at the world gave.
#[derive(Debug)]
pub enum Seen<T> {
    /// The condition holds.
    Done(T),
    /// It does not hold yet; the text says what there is instead.
    NotYet(String),
}

/// Looks again and again until the condition holds. A look that fails counts as "not yet": API servers are restarted in
/// some tests.
pub async fn until<T, F, Fut>(what: &str, deadline: Duration, mut look: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<Seen<T>>>,
{
    let end = Instant::now() + deadline;
    loop {
        let last = match look().await {
            Ok(Seen::Done(value)) => return Ok(value),
            Ok(Seen::NotYet(seen)) => seen,
            Err(error) => format!("{error:#}"),
        };
        if Instant::now() >= end {
            bail!("waited {} s in vain until {what}; last seen: {last}", deadline.as_secs());
        }
        sleep(Duration::from_millis(250)).await;
    }
}
