//! A container's time-based retention: what it forbids. Pure: the caller brings the clock and the blob's creation.
//!
//! Azure's rule for container-level policies: a new blob may be created; an existing one is never overwritten nor
//! changed while the container has a policy, and not deleted before its retention has ended.

use jiff::{SignedDuration, Timestamp};

use crate::model::ImmutabilityPolicy;
use crate::operation::Operation;

/// What must be known before an operation on a container with a policy is let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Nothing: it cannot hurt an existing blob.
    Free,
    /// Whether the blob exists: an overwrite or a change.
    Exists,
    /// When the blob was created: a deletion.
    Age,
    /// Whether the container holds any blob: a deletion of it all.
    EmptyContainer,
}

/// What an operation needs. `creates_only` is true where the request says `If-None-Match: *`: the store itself then
/// refuses to overwrite, with its own code.
#[must_use]
pub fn guard(operation: Operation, creates_only: bool) -> Guard {
    match operation {
        Operation::PutBlob | Operation::PutBlockList if creates_only => Guard::Free,
        Operation::PutBlob
        | Operation::PutBlockList
        | Operation::SetBlobProperties
        | Operation::SnapshotBlob
        | Operation::AppendOrPage => Guard::Exists,
        Operation::DeleteBlob => Guard::Age,
        Operation::DeleteContainer => Guard::EmptyContainer,
        _ => Guard::Free,
    }
}

/// Whether the retention of a blob has not ended. A time that cannot be computed counts as not ended.
#[must_use]
pub fn retained(policy: ImmutabilityPolicy, created: Timestamp, now: Timestamp) -> bool {
    created.checked_add(SignedDuration::from_hours(24 * i64::from(policy.days))).map_or(true, |end| now < end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retention_ends_its_number_of_days_after_creation() {
        let created: Timestamp = "2026-01-01T10:00:00Z".parse().unwrap();
        let policy = ImmutabilityPolicy { days: 2 };
        assert!(retained(policy, created, "2026-01-03T09:59:59Z".parse().unwrap()));
        assert!(!retained(policy, created, "2026-01-03T10:00:00Z".parse().unwrap()));
    }

    #[test]
    fn a_period_beyond_the_end_of_time_never_ends() {
        assert!(retained(ImmutabilityPolicy { days: u32::MAX }, Timestamp::MAX, Timestamp::MAX));
    }

    #[test]
    fn reading_leasing_and_creating_are_free_and_changing_is_not() {
        for operation in [Operation::GetBlob, Operation::ListBlobs, Operation::LeaseBlob, Operation::PutBlock] {
            assert_eq!(guard(operation, false), Guard::Free);
        }
        assert_eq!(guard(Operation::PutBlob, true), Guard::Free);
        assert_eq!(guard(Operation::PutBlob, false), Guard::Exists);
        assert_eq!(guard(Operation::PutBlockList, false), Guard::Exists);
        assert_eq!(guard(Operation::DeleteBlob, true), Guard::Age);
        assert_eq!(guard(Operation::DeleteContainer, false), Guard::EmptyContainer);
    }
}
