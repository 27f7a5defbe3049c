//! Byte strings in JSON: standard Base64, as Go's `encoding/json` writes `[]byte`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serializer, de::Error};

pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(bytes))
}

/// Go writes an empty slice as `""` and an absent one as `null`: both are read as empty.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    Option::<String>::deserialize(deserializer)?
        .map_or_else(|| Ok(Vec::new()), |text| STANDARD.decode(text).map_err(D::Error::custom))
}
