//! Claims that are not there yet, or not at all, because their data is not.
//!
//! A pod waits for a claim that is missing. A `StatefulSet` does not: its controller makes the claims that are missing,
//! empty ones, and the application would start on nothing. So a `StatefulSet` waits for its claims here.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use super::transform::Kept;

/// Claims that should be there and are not, by namespace and name.
#[derive(Debug, Default)]
pub struct MissingClaims {
    missing: Mutex<BTreeSet<(String, String)>>,
}

impl MissingClaims {
    /// Notes whether a claim is there.
    pub fn note(&self, claim: &Kept, there: bool) {
        let namespace = claim.namespace.as_deref().unwrap_or_default();
        if there {
            self.missing().remove(&(namespace.to_owned(), claim.name.clone()));
        } else {
            self.note_missing(namespace, &claim.name);
        }
    }

    /// Notes that a claim of this namespace is not there.
    pub fn note_missing(&self, namespace: &str, claim: &str) {
        self.missing().insert((namespace.to_owned(), claim.to_owned()));
    }

    /// The first missing claim that the controller of this `StatefulSet` would make, empty.
    #[must_use]
    pub fn of_stateful_set(&self, set: &Kept) -> Option<String> {
        let namespace = set.namespace.as_deref().unwrap_or_default();
        let templates = set.object.pointer("/spec/volumeClaimTemplates").and_then(Value::as_array)?;
        let names = templates.iter().filter_map(|template| template.pointer("/metadata/name").and_then(Value::as_str));
        // Source: Kubernetes, StatefulSet, "Stable Storage": `<template>-<set>-<ordinal>`.
        let prefixes: Vec<_> = names.map(|template| format!("{template}-{}-", set.name)).collect();
        let is_made = |claim: &str| {
            let ordinal = prefixes.iter().find_map(|prefix| claim.strip_prefix(prefix.as_str()));
            ordinal.is_some_and(|ordinal| !ordinal.is_empty() && ordinal.bytes().all(|byte| byte.is_ascii_digit()))
        };
        let missing = self.missing();
        missing.iter().find(|(of, claim)| of == namespace && is_made(claim)).map(|(_, claim)| claim.clone())
    }

    fn missing(&self) -> MutexGuard<'_, BTreeSet<(String, String)>> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn kept(name: &str, object: Value) -> Kept {
        Kept { object, kind: String::new(), name: name.to_owned(), namespace: Some("shop".to_owned()), renamed: false }
    }

    #[test]
    fn a_stateful_set_waits_for_its_own_claims_only() {
        let set = kept("db", json!({"spec": {"volumeClaimTemplates": [{"metadata": {"name": "data"}}]}}));
        let claims = MissingClaims::default();
        for other in ["data-db-copy-0", "data-db-", "logs-db-0", "data"] {
            claims.note(&kept(other, Value::Null), false);
        }
        assert_eq!(claims.of_stateful_set(&set), None);
        let elsewhere = Kept { namespace: Some("site".to_owned()), ..kept("data-db-0", Value::Null) };
        claims.note(&elsewhere, false);
        assert_eq!(claims.of_stateful_set(&set), None);
        claims.note(&kept("data-db-0", Value::Null), false);
        assert_eq!(claims.of_stateful_set(&set).as_deref(), Some("data-db-0"));
        claims.note(&kept("data-db-0", Value::Null), true);
        assert_eq!(claims.of_stateful_set(&set), None);
    }
}
