//! Counts of the requests served, by operation, client, container and status.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::operation::Operation;

/// Combinations counted one by one. Beyond, a request counts in [`RequestSummary::others`].
const MAX_ROWS: usize = 4096;

/// What requests are told apart by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestKey {
    /// The operation.
    pub operation: Operation,
    /// Client id, empty where none was proven (token requests: claimed).
    #[serde(rename = "clientID")]
    pub client_id: String,
    /// The container, empty for token requests and for the account.
    pub container: String,
    /// HTTP status, 0 where the connection was cut on purpose.
    pub status: u16,
}

/// A row of the summary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestCount {
    /// What the requests have in common.
    #[serde(flatten)]
    pub key: RequestKey,
    /// How many.
    pub count: u64,
}

/// All rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestSummary {
    /// Rows, sorted by their key.
    pub rows: Vec<RequestCount>,
    /// Requests that found no row.
    pub others: u64,
}

impl RequestSummary {
    /// Requests for an operation, whatever became of them.
    #[must_use]
    pub fn of(&self, operation: Operation) -> u64 {
        self.count(|key| key.operation == operation)
    }

    /// Requests that a condition holds for.
    pub fn count(&self, matches: impl Fn(&RequestKey) -> bool) -> u64 {
        self.rows.iter().filter(|row| matches(&row.key)).map(|row| row.count).sum()
    }
}

/// The counters.
#[derive(Default)]
pub struct Requests {
    counts: Mutex<(BTreeMap<RequestKey, u64>, u64)>,
}

impl Requests {
    /// Counts one.
    pub fn record(&self, key: RequestKey) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let (rows, others) = &mut *counts;
        if rows.len() < MAX_ROWS || rows.contains_key(&key) {
            *rows.entry(key).or_default() += 1;
        } else {
            *others += 1;
        }
    }

    /// The counts as of now.
    #[must_use]
    pub fn summary(&self) -> RequestSummary {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let rows = counts.0.iter().map(|(key, count)| RequestCount { key: key.clone(), count: *count }).collect();
        RequestSummary { rows, others: counts.1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_of_new_containers_does_not_grow_the_summary_without_end() {
        let requests = Requests::default();
        let key = |container: String| RequestKey {
            operation: Operation::GetBlob,
            client_id: "c".into(),
            container,
            status: 403,
        };
        for number in 0..MAX_ROWS + 10 {
            requests.record(key(number.to_string()));
        }
        requests.record(key("0".into()));
        let summary = requests.summary();
        assert_eq!((summary.rows.len(), summary.others), (MAX_ROWS, 10));
        assert_eq!(summary.count(|key| key.container == "0"), 2);
        assert_eq!(summary.of(Operation::GetBlob), MAX_ROWS as u64 + 1);
    }
}
