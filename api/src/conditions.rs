//! Conditions as Kubernetes defines them (`metav1.Condition`): set only when they change, so that a status is written
//! only when there is news.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The truth of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Nobody can tell now.
    Unknown,
}

impl Truth {
    /// Kubernetes' own spelling.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for Truth {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

/// Longest message that a condition keeps, in bytes: Kubernetes' own limit of `metav1.Condition` is 32768, and an
/// object with many conditions has to stay small.
const MAX_MESSAGE: usize = 4096;

/// Sets the condition of this type. The transition time changes only with the status. Returns whether anything changed.
pub fn set(
    conditions: &mut Vec<Condition>,
    type_: &str,
    truth: Truth,
    reason: &str,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) -> bool {
    let message = truncate(message, MAX_MESSAGE);
    if let Some(existing) = conditions.iter_mut().find(|condition| condition.type_ == type_) {
        let same_status = existing.status == truth.as_str();
        if same_status
            && existing.reason == reason
            && existing.message == message
            && existing.observed_generation == generation
        {
            return false;
        }
        if !same_status {
            existing.last_transition_time = Time(now);
        }
        truth.as_str().clone_into(&mut existing.status);
        reason.clone_into(&mut existing.reason);
        message.clone_into(&mut existing.message);
        existing.observed_generation = generation;
        return true;
    }
    conditions.push(Condition {
        type_: type_.to_owned(),
        status: truth.as_str().to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: generation,
        last_transition_time: Time(now),
    });
    true
}

/// The condition of this type.
#[must_use]
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Whether the condition of this type is there and True.
#[must_use]
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    find(conditions, type_).is_some_and(|condition| condition.status == Truth::True.as_str())
}

/// The first `limit` bytes of a text, cut at a character's border.
#[must_use]
pub fn truncate(text: &str, limit: usize) -> &str {
    if text.len() <= limit {
        return text;
    }
    let mut end = limit;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_condition_that_says_the_same_is_not_written_again() {
        let mut conditions = Vec::new();
        assert!(set(&mut conditions, "Ready", Truth::True, "Works", "all is well", Some(1), at(1)));
        assert!(!set(&mut conditions, "Ready", Truth::True, "Works", "all is well", Some(1), at(2)));
        assert_eq!(conditions[0].last_transition_time.0, at(1));
    }

    #[test]
    fn the_transition_time_follows_the_status_and_not_the_message() {
        let mut conditions = Vec::new();
        set(&mut conditions, "Ready", Truth::True, "Works", "all is well", Some(1), at(1));
        assert!(set(&mut conditions, "Ready", Truth::True, "Works", "still well", Some(1), at(2)));
        assert_eq!(conditions[0].last_transition_time.0, at(1));
        assert!(set(&mut conditions, "Ready", Truth::False, "Broken", "no", Some(1), at(3)));
        assert_eq!(conditions[0].last_transition_time.0, at(3));
        assert!(!is_true(&conditions, "Ready"));
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        assert_eq!(truncate("ää", 3), "ä");
        assert_eq!(truncate("abc", 3), "abc");
    }
}
