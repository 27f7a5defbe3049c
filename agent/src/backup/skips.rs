//! What could not be backed up: all of it counted, the first listed.

use std::sync::{Mutex, MutexGuard, PoisonError};

use shoot_backup_api::manifest::{MAX_LISTED, SkippedEntry};

use crate::operation::Running;

/// Collects what could not be backed up, from all tasks of a backup.
#[derive(Debug)]
pub struct Skips<'a> {
    running: &'a Running,
    collected: Mutex<Collected>,
}

/// What was collected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// The first of them.
    pub entries: Vec<SkippedEntry>,
    /// How many there are in all.
    pub total: u64,
}

impl<'a> Skips<'a> {
    /// Nothing skipped so far.
    #[must_use]
    pub fn new(running: &'a Running) -> Self {
        Self { running, collected: Mutex::default() }
    }

    /// Counts and lists one item.
    pub fn add(&self, item: impl Into<String>, reason: impl Into<String>) {
        let (item, reason) = (item.into(), reason.into());
        self.running.error(item.clone(), &reason);
        let mut collected = self.lock();
        collected.total += 1;
        if collected.entries.len() < MAX_LISTED {
            collected.entries.push(SkippedEntry { item, reason });
        }
    }

    /// Counts items of which only the number is known.
    pub fn add_unlisted(&self, count: u64) {
        self.lock().total += count;
    }

    /// Everything so far.
    #[must_use]
    pub fn collected(&self) -> Collected {
        self.lock().clone()
    }

    /// A panic elsewhere cannot leave it half changed, so a poisoned lock is still good.
    fn lock(&self) -> MutexGuard<'_, Collected> {
        self.collected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_counted_and_the_list_is_bounded() {
        let running = Running::test();
        let skips = Skips::new(&running);
        for number in 0..MAX_LISTED + 5 {
            skips.add(format!("item {number}"), "denied");
        }
        skips.add_unlisted(3);
        let collected = skips.collected();
        assert_eq!(collected.total as usize, MAX_LISTED + 8);
        assert_eq!(collected.entries.len(), MAX_LISTED);
        assert_eq!(running.snapshot().errors[0].item, "item 0");
    }
}
