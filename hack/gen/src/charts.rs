//! Versions of the charts: those of the crates.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// Charts of the project.
const CHARTS: &[&str] = &["agent", "garden", "garden-resources"];

/// Each `Chart.yaml` with the version of the crates.
pub fn files(root: &Path) -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    for chart in CHARTS {
        let path = format!("charts/{chart}/Chart.yaml");
        let existing = fs::read_to_string(root.join(&path)).with_context(|| format!("failed to read {path}"))?;
        let stamped = with_version(&existing, env!("CARGO_PKG_VERSION"));
        ensure!(stamped.is_some(), "{path} must have one line `version:` and one line `appVersion:`");
        files.extend(stamped.map(|content| (path, content)));
    }
    Ok(files)
}

/// Sets `version` and `appVersion`; the rest stays as it was written. `None` if one of the two is missing.
fn with_version(chart: &str, version: &str) -> Option<String> {
    let (mut chart_versions, mut app_versions) = (0, 0);
    let mut stamped = String::with_capacity(chart.len());
    for line in chart.lines() {
        if line.starts_with("version:") {
            chart_versions += 1;
            stamped.push_str(&format_version("version", version));
        } else if line.starts_with("appVersion:") {
            app_versions += 1;
            stamped.push_str(&format_version("appVersion", version));
        } else {
            stamped.push_str(line);
        }
        stamped.push('\n');
    }
    (chart_versions == 1 && app_versions == 1).then_some(stamped)
}

fn format_version(key: &str, version: &str) -> String {
    format!("{key}: \"{version}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_versions_change() {
        let chart = "name: agent\nversion: 0.0.1\n# why\nappVersion: \"0.0.1\"\n";
        let expected = "name: agent\nversion: \"1.2.3\"\n# why\nappVersion: \"1.2.3\"\n";
        assert_eq!(with_version(chart, "1.2.3").as_deref(), Some(expected));
    }

    #[test]
    fn a_chart_without_a_version_is_refused() {
        assert_eq!(with_version("name: agent\nversion: 0.0.1\n", "1.2.3"), None);
    }
}
