//! Logs: one JSON object per line on standard output.

use tracing_subscriber::EnvFilter;

/// Starts logging. `level` is a level (`info`) or a filter in the grammar of `tracing_subscriber`; the environment
/// variable `RUST_LOG` wins. A second call changes nothing.
pub fn start(level: &str) {
    let fallback = if level.is_empty() { "info" } else { level };
    let filter = EnvFilter::try_from_default_env()
        .or_else(|_| EnvFilter::try_new(fallback))
        .unwrap_or_else(|_| EnvFilter::new("info"));
    let installed = tracing_subscriber::fmt().json().flatten_event(true).with_env_filter(filter).try_init();
    if installed.is_err() {
        tracing::debug!("logging was started before");
    }
}
