//! The controller of restores: the frame around [`crate::restore`].

use std::sync::Arc;

use shoot_backup_api::restore::RestoreResult;
use shoot_backup_api::{OperationPhase, Restore};
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::operation::{AgentOperation, Failure, Outcome, Running, reconcile};
use crate::restore;

/// Runs the controller of restores until `stop`.
pub async fn run(context: Arc<Context>, stop: CancellationToken) {
    reconcile::run::<Restore>(context, stop).await;
}

impl AgentOperation for Restore {
    const KIND: &'static str = "Restore";
    type Result = RestoreResult;

    fn timeout(&self) -> &str {
        &self.spec.timeout
    }

    async fn execute(context: &Context, restore: &Self, running: &Running) -> Result<Outcome<RestoreResult>, Failure> {
        running.step("Preparation");
        let result = restore::run(context, restore, running).await?;
        context.metrics.add_bytes(Self::KIND, result.bytes.unsigned_abs());
        Ok(outcome(result))
    }
}

/// One failed item makes a restore partially failed.
fn outcome(result: RestoreResult) -> Outcome<RestoreResult> {
    let phase = if result.failed == 0 { OperationPhase::Completed } else { OperationPhase::PartiallyFailed };
    let failed = match result.failed {
        0 => String::new(),
        count => format!(", {count} failed: see errors and the report {}", result.report),
    };
    let message = format!(
        "{} created, {} changed, {} skipped{failed}; {} of {} volumes verified",
        result.created, result.changed, result.skipped, result.volumes_verified, result.volumes
    );
    Outcome { phase, message, result }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failed_item_makes_a_restore_partially_failed() {
        assert_eq!(outcome(RestoreResult::default()).phase, OperationPhase::Completed);
        let partial = outcome(RestoreResult { failed: 1, report: "r.json".to_owned(), ..RestoreResult::default() });
        assert_eq!(partial.phase, OperationPhase::PartiallyFailed);
        assert!(partial.message.contains("r.json"), "{}", partial.message);
    }
}
