//! What the agent counts. Labels are bounded: kinds, phases and error names that this program knows.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use shoot_backup_api::OperationPhase;

/// Kind of an operation and how it ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabels {
    kind: &'static str,
    phase: &'static str,
}

/// Kind of an operation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

/// Kind of an object and why its reconcile failed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabels {
    kind: &'static str,
    error: &'static str,
}

/// A location. There are as many as people made.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LocationLabels {
    location: String,
}

/// What the agent counts.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    operations: Family<OperationLabels, Counter>,
    durations: Family<KindLabels, Histogram>,
    bytes: Family<KindLabels, Counter>,
    locations: Family<LocationLabels, Gauge>,
    validations: Family<ErrorLabels, Counter>,
    reconcile_errors: Family<ErrorLabels, Counter>,
    heartbeat: Gauge<f64, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Counters that stand at zero.
    #[must_use]
    pub fn new() -> Self {
        let metrics = Self {
            registry: Mutex::new(Registry::with_prefix("shoot_backup_agent")),
            operations: Family::default(),
            // From a second to about nine hours.
            durations: Family::new_with_constructor(|| Histogram::new(exponential_buckets(1.0, 2.0, 16))),
            bytes: Family::default(),
            locations: Family::default(),
            validations: Family::default(),
            reconcile_errors: Family::default(),
            heartbeat: Gauge::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&self) {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        registry.register("operations", "Operations that ended, by kind and phase", self.operations.clone());
        registry.register("operation_duration_seconds", "How long attempts took", self.durations.clone());
        registry.register("volume_bytes", "Bytes of objects and volumes of operations that ended", self.bytes.clone());
        registry.register("location_valid", "1 if the location can be used, else 0", self.locations.clone());
        registry.register("location_validations", "Validations of locations, by outcome", self.validations.clone());
        registry.register("reconcile_errors", "Reconciles that failed", self.reconcile_errors.clone());
        registry.register(
            "heartbeat_timestamp_seconds",
            "When the lease was renewed last, in seconds since 1970",
            self.heartbeat.clone(),
        );
    }

    /// Counts an operation that ended.
    pub fn operation_ended(&self, kind: &'static str, phase: OperationPhase, elapsed: Duration) {
        self.operations.get_or_create(&OperationLabels { kind, phase: phase.as_str() }).inc();
        self.durations.get_or_create(&KindLabels { kind }).observe(elapsed.as_secs_f64());
    }

    /// Counts bytes of an operation that ended.
    pub fn add_bytes(&self, kind: &'static str, bytes: u64) {
        self.bytes.get_or_create(&KindLabels { kind }).inc_by(bytes);
    }

    /// Notes whether a location can be used, and counts the validation.
    pub fn location_validated(&self, location: &str, outcome: &'static str) {
        let valid = i64::from(outcome == "valid");
        self.locations.get_or_create(&LocationLabels { location: location.to_owned() }).set(valid);
        self.validations.get_or_create(&ErrorLabels { kind: "BackupLocation", error: outcome }).inc();
    }

    /// Forgets a location that is gone.
    pub fn location_gone(&self, location: &str) {
        self.locations.remove(&LocationLabels { location: location.to_owned() });
    }

    /// Counts a reconcile that failed.
    pub fn reconcile_error(&self, kind: &'static str, error: &'static str) {
        self.reconcile_errors.get_or_create(&ErrorLabels { kind, error }).inc();
    }

    /// Notes that the lease was renewed.
    pub fn heartbeat(&self, second: f64) {
        self.heartbeat.set(second);
    }

    /// Everything in the text format of `OpenMetrics`.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry.lock().unwrap_or_else(PoisonError::into_inner))?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_shown() {
        let metrics = Metrics::new();
        metrics.operation_ended("Backup", OperationPhase::Completed, Duration::from_secs(3));
        metrics.location_validated("main", "valid");
        metrics.reconcile_error("Backup", "api");
        let text = metrics.encode().unwrap();
        assert!(text.contains(r#"shoot_backup_agent_operations_total{kind="Backup",phase="Completed"} 1"#), "{text}");
        assert!(text.contains(r#"shoot_backup_agent_location_valid{location="main"} 1"#), "{text}");
        metrics.location_gone("main");
        assert!(!metrics.encode().unwrap().contains("location_valid{"));
    }
}
