//! Definitions of custom resources are of use when the API server serves them.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, Client};
use tokio::time::Instant;

use crate::operation::{Failure, Running};
use crate::retry;

/// How long all definitions together may take to be served.
const PATIENCE: Duration = Duration::from_mins(1);
/// How often one is looked at.
const POLL: Duration = Duration::from_millis(500);

/// Names of the definitions that were made.
#[derive(Debug, Default)]
pub struct Definitions {
    made: Mutex<Vec<String>>,
}

impl Definitions {
    /// Notes a definition that was made.
    pub fn note(&self, name: &str) {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).push(name.to_owned());
    }

    /// Waits until all of them are served. One that is not in time is left behind: its custom resources are tried again
    /// until the end of the restore, and say themselves what is wrong.
    pub async fn wait_until_served(&self, client: &Client, running: &Running) -> Result<(), Failure> {
        let made = std::mem::take(&mut *self.made.lock().unwrap_or_else(PoisonError::into_inner));
        let api: Api<CustomResourceDefinition> = Api::all(client.clone());
        let end = Instant::now() + PATIENCE;
        for name in made {
            loop {
                running.check()?;
                let definition = retry::absent(retry::call(|| api.get(&name)).await)
                    .map_err(|error| Failure::api(&format!("get CustomResourceDefinition {name}"), &error))?;
                if definition.is_none_or(|definition| is_served(&definition)) {
                    break;
                }
                if Instant::now() >= end {
                    tracing::warn!(name, "a definition is not served in time; going on");
                    break;
                }
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(())
    }
}

/// Whether the API server serves a definition.
fn is_served(definition: &CustomResourceDefinition) -> bool {
    let conditions = definition.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Established" && condition.status == "True")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_definition_is_served_when_it_is_established() {
        let definition = |status: &str| -> CustomResourceDefinition {
            serde_json::from_value(json!({
                "metadata": {"name": "widgets.example.org"},
                "spec": {
                    "group": "example.org", "scope": "Namespaced", "versions": [],
                    "names": {"kind": "Widget", "plural": "widgets"},
                },
                "status": {"conditions": [
                    {"type": "NamesAccepted", "status": "True"}, {"type": "Established", "status": status},
                ]},
            }))
            .unwrap()
        };
        assert!(is_served(&definition("True")));
        assert!(!is_served(&definition("False")));
    }
}
