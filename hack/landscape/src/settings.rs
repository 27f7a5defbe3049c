//! What is drawn by lot when a landscape is made and stays the same after.

use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::place::{read, write};
use crate::programs::Programs;

/// A landscape's own constants.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// The one Entra tenant.
    pub(crate) tenant_id: String,
    /// The identity that is registered from the start.
    pub(crate) client_id: String,
    /// Azurite wants a key although nobody uses it.
    pub(crate) account_key: String,
}

impl Settings {
    pub(crate) fn ensure(state: &Path) -> Result<Self> {
        let path = state.join("settings.json");
        if path.exists() {
            return serde_json::from_str(&read(&path)?).map_err(|error| {
                Error::Precondition(format!(
                    "failed to read {}: {error}; `landscape down` and `up` make a new one",
                    path.display()
                ))
            });
        }
        let key: Vec<u8> = (0..4).flat_map(|_| *Uuid::new_v4().as_bytes()).collect();
        let settings = Self {
            tenant_id: Uuid::new_v4().to_string(),
            client_id: Uuid::new_v4().to_string(),
            account_key: BASE64_STANDARD.encode(key),
        };
        write(&path, serde_json::to_string_pretty(&settings).unwrap_or_default())?;
        Ok(settings)
    }
}

/// Remembers where the programs were found, so that attaching does not build.
pub(crate) fn remember_programs(state: &Path, programs: &Programs) -> Result<()> {
    write(&state.join("programs.json"), serde_json::to_string_pretty(programs).unwrap_or_default())
}

/// The programs of a landscape that is up.
pub(crate) fn remembered_programs(state: &Path) -> Result<Programs> {
    let path = state.join("programs.json");
    serde_json::from_str(&read(&path)?)
        .map_err(|error| Error::Precondition(format!("failed to read {}: {error}; run `landscape up`", path.display())))
}
