//! Faults on demand: rules that match requests, skip the first few, then hit as often as they say.

use std::sync::{Mutex, PoisonError};

use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::operation::Operation;

/// Rules held at a time.
pub const MAX_RULES: usize = 256;

/// What happens to a request that a rule hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum FaultKind {
    /// 503 `ServerBusy`, before anything is done.
    ServerBusy {
        /// `Retry-After`, in seconds.
        #[serde(default = "one_second")]
        retry_after_seconds: u32,
    },
    /// 500 `InternalError`, before anything is done.
    InternalError,
    /// 429, before anything is done.
    TooManyRequests {
        /// `Retry-After`, in seconds.
        #[serde(default = "one_second")]
        retry_after_seconds: u32,
    },
    /// The connection is cut before anything is done.
    Reset,
    /// The request is done, and the connection cut before the answer: the client cannot know.
    ResetAfter,
    /// The request is done after this time.
    Delay {
        /// The time.
        milliseconds: u32,
    },
    /// The request is done; of the answer's body, half arrives under the full `Content-Length`.
    Truncate,
}

fn one_second() -> u32 {
    1
}

#[expect(clippy::unnecessary_wraps, reason = "a default has the field's own type")]
fn once() -> Option<u32> {
    Some(1)
}

/// A rule. Whatever is not said matches everything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fault {
    /// The operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<Operation>,
    /// The HTTP verb, in capitals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verb: Option<String>,
    /// A part of the path and query, as sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_contains: Option<String>,
    /// A regular expression that must match somewhere in the path and query, as sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_regex: Option<String>,
    /// How many of the matching requests pass first.
    #[serde(default)]
    pub after: u32,
    /// How many are hit then; once where nothing is said, `null` for all.
    #[serde(default = "once")]
    pub count: Option<u32>,
    /// What happens to them.
    #[serde(flatten)]
    pub kind: FaultKind,
}

impl Fault {
    /// A rule that hits the next request, whatever it is.
    #[must_use]
    pub fn new(kind: FaultKind) -> Self {
        Self { operation: None, verb: None, path_contains: None, path_regex: None, after: 0, count: Some(1), kind }
    }

    /// Only this operation.
    #[must_use]
    pub fn on(mut self, operation: Operation) -> Self {
        self.operation = Some(operation);
        self
    }

    /// Only this HTTP verb.
    #[must_use]
    pub fn verb(mut self, verb: &str) -> Self {
        self.verb = Some(verb.to_owned());
        self
    }

    /// Only where the path and query contain this.
    #[must_use]
    pub fn path_contains(mut self, part: &str) -> Self {
        self.path_contains = Some(part.to_owned());
        self
    }

    /// Only where the path and query match this.
    #[must_use]
    pub fn path_regex(mut self, regex: &str) -> Self {
        self.path_regex = Some(regex.to_owned());
        self
    }

    /// Lets the first `after` matching requests pass.
    #[must_use]
    pub fn after(mut self, after: u32) -> Self {
        self.after = after;
        self
    }

    /// Hits so many.
    #[must_use]
    pub fn times(mut self, count: u32) -> Self {
        self.count = Some(count);
        self
    }

    /// Hits until the rules are removed.
    #[must_use]
    pub fn always(mut self) -> Self {
        self.count = None;
        self
    }
}

/// A rule and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultStatus {
    /// Given when it was added.
    pub id: u64,
    /// The rule.
    pub fault: Fault,
    /// Matching requests so far.
    pub matched: u64,
    /// How many of them were hit.
    pub hit: u64,
}

/// Why a rule is not taken.
#[derive(Debug, thiserror::Error)]
pub enum FaultError {
    /// The expression does not compile.
    #[error("failed to read pathRegex: {0}")]
    Regex(#[from] regex::Error),
    /// Too many.
    #[error("there are {MAX_RULES} fault rules already: remove them by DELETE /faults")]
    TooMany,
}

struct Rule {
    status: FaultStatus,
    regex: Option<Regex>,
}

impl Rule {
    fn matches(&self, operation: Operation, verb: &str, path: &str) -> bool {
        let fault = &self.status.fault;
        fault.operation.is_none_or(|wanted| wanted == operation)
            && fault.verb.as_deref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(verb))
            && fault.path_contains.as_deref().is_none_or(|part| path.contains(part))
            && self.regex.as_ref().is_none_or(|regex| regex.is_match(path))
    }
}

#[derive(Default)]
struct Rules {
    next_id: u64,
    rules: Vec<Rule>,
}

/// The rules in the order in which they were added.
#[derive(Default)]
pub struct Faults {
    rules: Mutex<Rules>,
}

impl Faults {
    fn lock(&self) -> std::sync::MutexGuard<'_, Rules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a rule and gives its id.
    pub fn add(&self, fault: Fault) -> Result<u64, FaultError> {
        let regex = fault.path_regex.as_deref().map(Regex::new).transpose()?;
        let mut rules = self.lock();
        if rules.rules.len() >= MAX_RULES {
            return Err(FaultError::TooMany);
        }
        let id = rules.next_id;
        rules.next_id += 1;
        rules.rules.push(Rule { status: FaultStatus { id, fault, matched: 0, hit: 0 }, regex });
        Ok(id)
    }

    /// All rules with their counts.
    #[must_use]
    pub fn list(&self) -> Vec<FaultStatus> {
        self.lock().rules.iter().map(|rule| rule.status.clone()).collect()
    }

    /// Removes all rules.
    pub fn clear(&self) {
        self.lock().rules.clear();
    }

    /// What happens to this request: the first rule that hits it decides, later ones do not count it.
    #[must_use]
    pub fn strike(&self, operation: Operation, verb: &str, path: &str) -> Option<FaultKind> {
        for rule in &mut self.lock().rules {
            if !rule.matches(operation, verb, path) {
                continue;
            }
            let status = &mut rule.status;
            status.matched += 1;
            let passed = status.matched > u64::from(status.fault.after);
            if passed && status.fault.count.is_none_or(|count| status.hit < u64::from(count)) {
                status.hit += 1;
                return Some(status.fault.kind);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_passes_the_first_hits_its_count_and_then_lets_go() {
        let faults = Faults::default();
        faults.add(Fault::new(FaultKind::Reset).on(Operation::PutBlob).after(1).times(2)).unwrap();
        let struck: Vec<bool> = (0..5).map(|_| faults.strike(Operation::PutBlob, "PUT", "/a/c/b").is_some()).collect();
        assert_eq!(struck, [false, true, true, false, false]);
        assert_eq!(faults.strike(Operation::GetBlob, "GET", "/a/c/b"), None);
        let status = faults.list();
        assert_eq!((status[0].matched, status[0].hit), (5, 2));
    }

    #[test]
    fn verb_part_of_path_and_expression_narrow_a_rule() {
        let faults = Faults::default();
        let rule = Fault::new(FaultKind::InternalError).verb("GET").path_contains("/data/").path_regex("[0-9]{2}$");
        faults.add(rule.always()).unwrap();
        assert!(faults.strike(Operation::GetBlob, "GET", "/a/c/data/x12").is_some());
        assert!(faults.strike(Operation::GetBlob, "GET", "/a/c/data/x1").is_none());
        assert!(faults.strike(Operation::GetBlob, "GET", "/a/c/index/12").is_none());
        assert!(faults.strike(Operation::GetBlobProperties, "HEAD", "/a/c/data/x12").is_none());
    }

    #[test]
    fn a_rule_in_json_is_short_and_hits_once_where_no_count_is_said() {
        let fault: Fault = serde_json::from_str(r#"{"kind":"serverBusy","operation":"GetBlob"}"#).unwrap();
        assert_eq!(fault, Fault::new(FaultKind::ServerBusy { retry_after_seconds: 1 }).on(Operation::GetBlob));
        let always: Fault = serde_json::from_str(r#"{"kind":"delay","milliseconds":5,"count":null}"#).unwrap();
        assert_eq!(always, Fault::new(FaultKind::Delay { milliseconds: 5 }).always());
        let again: Fault = serde_json::from_str(&serde_json::to_string(&always).unwrap()).unwrap();
        assert_eq!(again, always);
    }

    #[test]
    fn a_bad_expression_and_one_rule_too_many_are_refused() {
        let faults = Faults::default();
        assert!(matches!(faults.add(Fault::new(FaultKind::Reset).path_regex("(")), Err(FaultError::Regex(_))));
        for _ in 0..MAX_RULES {
            faults.add(Fault::new(FaultKind::Reset)).unwrap();
        }
        assert!(matches!(faults.add(Fault::new(FaultKind::Reset)), Err(FaultError::TooMany)));
        faults.clear();
        assert!(faults.list().is_empty());
    }
}
