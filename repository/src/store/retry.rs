//! How often and how long a failed request is tried again.

use std::time::Duration;

use super::StoreError;

/// How long to go on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Tries in all.
    tries: u32,
    /// The longest wait between two.
    longest: Duration,
}

impl Patience {
    /// For work: eight tries, up to about two minutes.
    pub(super) const LONG: Self = Self { tries: 8, longest: Duration::from_secs(30) };
    /// For a question that someone waits for: three tries within a few seconds.
    pub(super) const SHORT: Self = Self { tries: 3, longest: Duration::from_secs(2) };

    /// How long to wait after try number `tried` (from 1) failed with this error; `None` when it is no use.
    ///
    /// Doubles from half a second and varies by up to a quarter, so that clients that failed together do not come back
    /// together. What the service asks for is kept to, up to twice the longest wait.
    pub(super) fn after(self, tried: u32, error: &StoreError) -> Option<Duration> {
        if !error.is_retryable() || tried >= self.tries {
            return None;
        }
        let doubled = Duration::from_millis(500).saturating_mul(1 << tried.saturating_sub(1).min(16)).min(self.longest);
        let spread = doubled.mul_f64(0.75 + 0.5 * random_fraction());
        Some(error.retry_after().map_or(spread, |asked| asked.max(spread)).min(self.longest * 2))
    }
}

fn random_fraction() -> f64 {
    let mut byte = [0];
    // Without random bytes the waits are merely the same for all.
    match crate::crypto::fill_random(&mut byte) {
        Ok(()) => f64::from(byte[0]) / 256.0,
        Err(_) => 0.5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreErrorKind;

    fn error(kind: StoreErrorKind) -> StoreError {
        StoreError::new(kind, "x")
    }

    #[test]
    fn eight_tries_take_between_half_a_minute_and_two_minutes() {
        let waits: Vec<_> =
            (1..).map_while(|tried| Patience::LONG.after(tried, &error(StoreErrorKind::Unavailable))).collect();
        assert_eq!(waits.len(), 7);
        let total: Duration = waits.iter().sum();
        assert!((Duration::from_secs(30)..Duration::from_mins(2)).contains(&total), "{total:?}");
    }

    #[test]
    fn what_will_not_change_is_not_tried_again() {
        assert!(Patience::LONG.after(1, &error(StoreErrorKind::Forbidden)).is_none());
    }

    #[test]
    fn the_service_says_how_long_to_wait_within_reason() {
        let asked = |seconds| error(StoreErrorKind::Throttled).with_retry_after(Some(Duration::from_secs(seconds)));
        assert_eq!(Patience::LONG.after(1, &asked(7)), Some(Duration::from_secs(7)));
        assert_eq!(Patience::LONG.after(1, &asked(7000)), Some(Duration::from_mins(1)));
    }
}
