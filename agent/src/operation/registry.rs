//! Which operations run in this process, and how many may.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// Operations of one kind that run at once. More would compete for the same network and memory.
pub const MAX_RUNNING: usize = 2;

/// What holds an operation whose leftovers are removed. It takes no place of any kind.
const SWEEP: &str = "sweep";

/// Which operations run. Cheap to clone; all clones are the same registry.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    running: Arc<Mutex<HashMap<String, Entry>>>,
}

#[derive(Debug)]
struct Entry {
    kind: &'static str,
    cancel: CancellationToken,
}

/// A place for a running operation; given back when dropped.
#[derive(Debug)]
pub struct Place {
    registry: Registry,
    uid: String,
    cancel: CancellationToken,
}

impl Registry {
    /// Takes a place; `None` if all places of this kind are taken, or the operation runs already or is held.
    #[must_use]
    pub fn take(&self, kind: &'static str, uid: &str) -> Option<Place> {
        let mut running = self.running();
        let taken = running.values().filter(|entry| entry.kind == kind).count();
        if taken >= MAX_RUNNING || running.contains_key(uid) {
            return None;
        }
        Some(self.insert(&mut running, kind, uid))
    }

    /// Holds an operation that does not run, so that it does not begin either while its leftovers are removed; `None` if
    /// it runs.
    #[must_use]
    pub fn hold(&self, uid: &str) -> Option<Place> {
        let mut running = self.running();
        (!running.contains_key(uid)).then(|| self.insert(&mut running, SWEEP, uid))
    }

    fn insert(&self, running: &mut HashMap<String, Entry>, kind: &'static str, uid: &str) -> Place {
        let cancel = CancellationToken::new();
        running.insert(uid.to_owned(), Entry { kind, cancel: cancel.clone() });
        Place { registry: self.clone(), uid: uid.to_owned(), cancel }
    }

    /// Whether an operation runs in this process. One that is only held does not: a request for it waits, and is not
    /// taken for one of an operation that runs.
    #[must_use]
    pub fn is_running(&self, uid: &str) -> bool {
        self.running().get(uid).is_some_and(|entry| entry.kind != SWEEP)
    }

    /// Tells a running operation to stop.
    pub fn stop(&self, uid: &str) {
        if let Some(entry) = self.running().get(uid) {
            entry.cancel.cancel();
        }
    }

    /// How many operations of a kind run.
    #[must_use]
    pub fn count(&self, kind: &str) -> usize {
        self.running().values().filter(|entry| entry.kind == kind).count()
    }

    /// A panic elsewhere cannot leave it half changed, so a poisoned lock is still good.
    fn running(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Cancelled when the operation has to stop.
    #[must_use]
    pub fn cancel(&self) -> &CancellationToken {
        &self.cancel
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.registry.running().remove(&self.uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_two_of_a_kind_run_at_once() {
        let registry = Registry::default();
        let first = registry.take("Backup", "1").unwrap();
        let _second = registry.take("Backup", "2").unwrap();
        assert!(registry.take("Backup", "3").is_none());
        assert!(registry.take("Restore", "4").is_some());
        drop(first);
        assert!(registry.take("Backup", "3").is_some());
    }

    #[test]
    fn an_operation_does_not_begin_while_its_leftovers_are_removed() {
        let registry = Registry::default();
        let held = registry.hold("1").unwrap();
        assert!(registry.take("Backup", "1").is_none());
        assert!(!registry.is_running("1"));
        // Others are not kept waiting.
        let two = registry.take("Backup", "2").unwrap();
        let _three = registry.take("Backup", "3").unwrap();
        assert!(registry.hold("2").is_none());
        drop((held, two));
        assert!(registry.take("Backup", "1").is_some());
    }

    #[test]
    fn the_same_operation_never_runs_twice() {
        let registry = Registry::default();
        let place = registry.take("Backup", "1").unwrap();
        assert!(registry.take("Backup", "1").is_none());
        registry.stop("1");
        assert!(place.cancel().is_cancelled());
        drop(place);
        assert!(!registry.is_running("1"));
    }
}
