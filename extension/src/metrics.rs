//! Metrics. Names and labels that begin with `pxbackup_` are a contract with dashboards and alerts that exist already.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Labels of everything about one `ClusterDiscovery`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DiscoveryLabels {
    /// Its name.
    pub config_name: String,
    /// Its namespace in the garden.
    pub project_name: String,
    /// Its selector as `kubectl` takes it.
    pub label_selector: String,
    /// One word for what went wrong; empty if nothing did.
    pub error_reason: String,
    /// `configuration`, `connectivity`, `cluster`; empty if nothing went wrong.
    pub error_type: String,
}

/// The same, for one cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DiscoveredClusterLabels {
    /// Name of the `ClusterDiscovery`.
    pub config_name: String,
    /// Its namespace in the garden.
    pub project_name: String,
    /// Its selector as `kubectl` takes it.
    pub label_selector: String,
    /// One word for what went wrong.
    pub error_reason: String,
    /// `cluster`.
    pub error_type: String,
    /// Name of the `ApplicationCluster`.
    pub cluster_name: String,
}

/// Values of `pxbackup_cluster_discovery_config_status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiscoveryState {
    /// The spec cannot be used.
    Invalid = 0,
    /// It runs.
    InProgress = 1,
    /// The last run worked.
    Success = 2,
    /// The last run failed.
    Failed = 3,
    /// It is being deleted.
    Deleting = 4,
    /// It is to be deleted.
    DeletePending = 5,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReconcileLabels {
    kind: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabels {
    kind: &'static str,
    phase: String,
}

/// All metrics.
pub struct Metrics {
    registry: Registry,
    discovery_status: Family<DiscoveryLabels, Gauge>,
    connectivity: Family<DiscoveryLabels, Gauge>,
    kubeconfig: Family<DiscoveredClusterLabels, Gauge>,
    shown: Mutex<Shown>,
    reconciles: Family<ReconcileLabels, Counter>,
    durations: Family<KindLabels, Histogram, fn() -> Histogram>,
    phases: Family<PhaseLabels, Gauge>,
    deliveries: Counter,
    repairs: Counter,
}

/// Label sets that are shown now, so that one whose error went away is taken down.
#[derive(Default)]
struct Shown {
    discoveries: HashMap<(String, String), (DiscoveryLabels, bool)>,
    clusters: HashMap<(String, String), DiscoveredClusterLabels>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Metrics")
    }
}

fn histogram() -> Histogram {
    Histogram::new([0.005, 0.02, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0])
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            discovery_status: Family::default(),
            connectivity: Family::default(),
            kubeconfig: Family::default(),
            shown: Mutex::default(),
            reconciles: Family::default(),
            durations: Family::new_with_constructor(histogram),
            phases: Family::default(),
            deliveries: Counter::default(),
            repairs: Counter::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "pxbackup_cluster_discovery_config_status",
            "Where a cluster discovery stands: 0 invalid, 1 in progress, 2 success, 3 failed, 4 deleting, 5 delete pending",
            self.discovery_status.clone(),
        );
        registry.register(
            "pxbackup_gardener_connectivity_failure",
            "1 while the garden of a cluster discovery cannot be reached",
            self.connectivity.clone(),
        );
        registry.register(
            "pxbackup_gardener_shoot_kubeconfig_validation_failure",
            "1 while no working kubeconfig can be had for a discovered cluster",
            self.kubeconfig.clone(),
        );
        registry.register("shoot_backup_reconciles", "Reconciliations by kind and outcome", self.reconciles.clone());
        registry.register(
            "shoot_backup_reconcile_duration_seconds",
            "Time that a reconciliation took",
            self.durations.clone(),
        );
        registry.register("shoot_backup_objects", "Objects by kind and phase", self.phases.clone());
        registry.register(
            "shoot_backup_agent_deliveries",
            "Deliveries of the agent into a cluster",
            self.deliveries.clone(),
        );
        registry.register(
            "shoot_backup_agent_repairs",
            "Deliveries because something was changed or deleted in a cluster",
            self.repairs.clone(),
        );
    }

    /// Notes where a discovery stands; `unreachable` if its garden does not answer.
    pub fn discovery(&self, labels: DiscoveryLabels, state: DiscoveryState, unreachable: bool) {
        let Ok(mut shown) = self.shown.lock() else { return };
        let key = (labels.project_name.clone(), labels.config_name.clone());
        self.take_down_discovery(&mut shown, &key);
        self.discovery_status.get_or_create(&labels).set(state as i64);
        self.connectivity.get_or_create(&labels).set(i64::from(unreachable));
        shown.discoveries.insert(key, (labels, unreachable));
    }

    fn take_down_discovery(&self, shown: &mut Shown, key: &(String, String)) {
        if let Some((old, _)) = shown.discoveries.remove(key) {
            self.discovery_status.remove(&old);
            self.connectivity.remove(&old);
        }
    }

    /// Takes down what is shown of discoveries and clusters that are gone.
    pub fn retain(&self, discovery_exists: impl Fn(&str, &str) -> bool, cluster_exists: impl Fn(&str, &str) -> bool) {
        let Ok(mut shown) = self.shown.lock() else { return };
        let gone: Vec<_> =
            shown.discoveries.keys().filter(|(namespace, name)| !discovery_exists(namespace, name)).cloned().collect();
        for key in gone {
            self.take_down_discovery(&mut shown, &key);
        }
        let gone: Vec<_> =
            shown.clusters.keys().filter(|(namespace, name)| !cluster_exists(namespace, name)).cloned().collect();
        for key in gone {
            if let Some(old) = shown.clusters.remove(&key) {
                self.kubeconfig.remove(&old);
            }
        }
    }

    /// Notes whether a working kubeconfig can be had for a cluster that a discovery found.
    pub fn shoot_kubeconfig(&self, labels: DiscoveredClusterLabels, failed: bool) {
        let Ok(mut shown) = self.shown.lock() else { return };
        let key = (labels.project_name.clone(), labels.cluster_name.clone());
        if let Some(old) = shown.clusters.remove(&key) {
            self.kubeconfig.remove(&old);
        }
        if failed {
            self.kubeconfig.get_or_create(&labels).set(1);
            shown.clusters.insert(key, labels);
        }
    }

    /// Counts a delivery of the agent, and whether it was a repair.
    pub fn delivered(&self, repair: bool) {
        self.deliveries.inc();
        if repair {
            self.repairs.inc();
        }
    }

    /// Shows how many objects of a kind are in which phase.
    pub fn show_phases(&self, counts: &HashMap<(&'static str, String), i64>) {
        self.phases.clear();
        for ((kind, phase), count) in counts {
            self.phases.get_or_create(&PhaseLabels { kind, phase: phase.clone() }).set(*count);
        }
    }

    /// Measures one reconciliation. One that is dropped before it ends counts as cancelled.
    #[must_use]
    pub fn measure(self: &Arc<Self>, kind: &'static str) -> Measurement {
        Measurement { metrics: Arc::clone(self), kind, begun: Instant::now(), outcome: "cancelled" }
    }

    /// All metrics as text.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// A reconciliation that runs.
pub struct Measurement {
    metrics: Arc<Metrics>,
    kind: &'static str,
    begun: Instant,
    outcome: &'static str,
}

impl Measurement {
    /// Says how it ended; a bounded label.
    pub fn ended(mut self, outcome: &'static str) {
        self.outcome = outcome;
    }
}

impl Drop for Measurement {
    fn drop(&mut self) {
        let (kind, outcome) = (self.kind, self.outcome);
        self.metrics.reconciles.get_or_create(&ReconcileLabels { kind, outcome }).inc();
        self.metrics.durations.get_or_create(&KindLabels { kind }).observe(self.begun.elapsed().as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(reason: &str) -> DiscoveryLabels {
        DiscoveryLabels {
            config_name: "all".to_owned(),
            project_name: "garden-demo".to_owned(),
            label_selector: "env=prod".to_owned(),
            error_reason: reason.to_owned(),
            error_type: if reason.is_empty() { String::new() } else { "connectivity".to_owned() },
        }
    }

    #[test]
    fn a_discovery_is_shown_once_with_its_newest_state() {
        let metrics = Metrics::default();
        metrics.discovery(labels("GardenUnreachable"), DiscoveryState::Failed, true);
        let text = metrics.text().unwrap();
        assert!(text.contains(
            "pxbackup_cluster_discovery_config_status{config_name=\"all\",project_name=\"garden-demo\",\
             label_selector=\"env=prod\",error_reason=\"GardenUnreachable\",error_type=\"connectivity\"} 3"
        ));
        assert!(text.contains("error_type=\"connectivity\"} 1"));
        metrics.discovery(labels(""), DiscoveryState::Success, false);
        let text = metrics.text().unwrap();
        assert!(text.contains("error_type=\"\"} 2"), "{text}");
        assert!(!text.contains("GardenUnreachable"));
    }

    #[test]
    fn a_kubeconfig_failure_is_taken_down_when_it_is_over_or_the_cluster_is_gone() {
        let metrics = Metrics::default();
        let labels = DiscoveredClusterLabels {
            cluster_name: "alpha".to_owned(),
            config_name: "all".to_owned(),
            project_name: "garden-demo".to_owned(),
            error_reason: "Refused".to_owned(),
            error_type: "cluster".to_owned(),
            label_selector: String::new(),
        };
        metrics.shoot_kubeconfig(labels.clone(), true);
        assert!(metrics.text().unwrap().contains("cluster_name=\"alpha\"} 1"));
        metrics.shoot_kubeconfig(labels.clone(), false);
        assert!(!metrics.text().unwrap().contains("cluster_name=\"alpha\""));
        metrics.shoot_kubeconfig(labels, true);
        metrics.retain(|_, _| true, |_, _| false);
        assert!(!metrics.text().unwrap().contains("cluster_name=\"alpha\""));
    }

    #[test]
    fn a_reconciliation_that_is_dropped_is_counted_as_cancelled() {
        let metrics = Arc::new(Metrics::default());
        drop(metrics.measure("Backup"));
        metrics.measure("Backup").ended("ok");
        let text = metrics.text().unwrap();
        assert!(text.contains("shoot_backup_reconciles_total{kind=\"Backup\",outcome=\"cancelled\"} 1"), "{text}");
        assert!(text.contains("shoot_backup_reconciles_total{kind=\"Backup\",outcome=\"ok\"} 1"), "{text}");
    }
}
