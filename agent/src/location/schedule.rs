//! When a location is tried (again): a pure decision with the time given.

use std::time::Duration;

use jiff::Timestamp;

/// How often a location that works is tried.
const VALID_INTERVAL: Duration = Duration::from_mins(10);
/// How soon a location that failed is tried again, the first time; each time is twice the one before.
const FIRST_RETRY: Duration = Duration::from_secs(10);
/// The longest pause between tries of a location that failed.
const LONGEST_RETRY: Duration = Duration::from_mins(5);

/// What this process remembers of a location.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tried {
    /// Generation that was tried.
    pub generation: i64,
    /// When.
    pub at: Timestamp,
    /// How often in a row it failed; 0 if it works.
    pub failures: u32,
}

impl Tried {
    /// When it is tried again.
    #[must_use]
    pub fn interval(&self) -> Duration {
        match self.failures.checked_sub(1) {
            None => VALID_INTERVAL,
            Some(doublings) => (FIRST_RETRY * 2_u32.pow(doublings.min(10))).min(LONGEST_RETRY),
        }
    }
}

/// How long to wait until the next try; `None` means now.
#[must_use]
pub fn wait(tried: Option<&Tried>, generation: i64, requested: bool, now: Timestamp) -> Option<Duration> {
    let tried = tried.filter(|tried| tried.generation == generation && !requested)?;
    let elapsed = Duration::try_from(now.duration_since(tried.at)).unwrap_or_default();
    tried.interval().checked_sub(elapsed).filter(|left| !left.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn tried(failures: u32) -> Tried {
        Tried { generation: 1, at: at(1000), failures }
    }

    #[test]
    fn a_new_a_changed_and_a_requested_location_is_tried_now() {
        assert_eq!(wait(None, 1, false, at(1000)), None);
        assert_eq!(wait(Some(&tried(0)), 2, false, at(1000)), None);
        assert_eq!(wait(Some(&tried(0)), 1, true, at(1000)), None);
    }

    #[test]
    fn a_location_that_works_is_tried_every_ten_minutes() {
        assert_eq!(wait(Some(&tried(0)), 1, false, at(1060)), Some(Duration::from_mins(9)));
        assert_eq!(wait(Some(&tried(0)), 1, false, at(1600)), None);
    }

    #[test]
    fn a_location_that_fails_is_tried_less_and_less_often() {
        let intervals: Vec<_> = (1..=8).map(|failures| tried(failures).interval().as_secs()).collect();
        assert_eq!(intervals, [10, 20, 40, 80, 160, 300, 300, 300]);
        assert_eq!(tried(u32::MAX).interval().as_secs(), 300);
    }
}
