//! How long to wait before an object is tried again: each object has its own exponential backoff.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_mins(5);
/// Objects remembered. One that is forgotten begins again with the shortest wait, which is harmless.
const MAX_OBJECTS: usize = 20_000;

/// Failures in a row, by object.
#[derive(Debug, Default)]
pub struct Failures {
    counts: Mutex<HashMap<String, u32>>,
    held: Mutex<HashMap<String, Instant>>,
}

impl Failures {
    /// Notes a failure; returns how long to wait.
    pub fn failed(&self, object: &str) -> Duration {
        let Ok(mut counts) = self.counts.lock() else { return LONGEST };
        if counts.len() >= MAX_OBJECTS && !counts.contains_key(object) {
            counts.clear();
        }
        let count = counts.entry(object.to_owned()).or_insert(0);
        *count = count.saturating_add(1);
        wait(*count)
    }

    /// Notes that it worked.
    pub fn worked(&self, object: &str) {
        if let Ok(mut counts) = self.counts.lock() {
            counts.remove(object);
        }
    }
}

impl Failures {
    /// Leaves one request alone for the longest wait, while the rest of its object goes on.
    pub fn hold(&self, request: &str) {
        if let Ok(mut held) = self.held.lock() {
            if held.len() >= MAX_OBJECTS {
                held.clear();
            }
            held.insert(request.to_owned(), Instant::now());
        }
    }

    /// Whether that request is still left alone.
    #[must_use]
    pub fn is_held(&self, request: &str) -> bool {
        self.held.lock().is_ok_and(|held| held.get(request).is_some_and(|since| since.elapsed() < LONGEST))
    }
}

fn wait(failures: u32) -> Duration {
    FIRST.saturating_mul(2u32.saturating_pow(failures.saturating_sub(1).min(16))).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_is_held_is_left_alone_and_no_other() {
        let failures = Failures::default();
        failures.hold("a");
        assert!(failures.is_held("a"));
        assert!(!failures.is_held("b"));
    }

    #[test]
    fn the_wait_doubles_up_to_a_limit_and_success_resets_it() {
        let failures = Failures::default();
        assert_eq!(failures.failed("a"), Duration::from_secs(2));
        assert_eq!(failures.failed("a"), Duration::from_secs(4));
        assert_eq!(failures.failed("b"), Duration::from_secs(2));
        for _ in 0..100 {
            failures.failed("a");
        }
        assert_eq!(failures.failed("a"), LONGEST);
        failures.worked("a");
        assert_eq!(failures.failed("a"), FIRST);
    }
}
