//! Snapshots: a tree, and what it was taken of.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

use crate::id::Id;

/// What the caller says of a snapshot it writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// Whose data it is.
    pub hostname: String,
    /// What was backed up, as absolute paths.
    pub paths: Vec<String>,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// When the data was as it is.
    pub time: Timestamp,
}

/// A snapshot's JSON (restic design, "Snapshots"), fields in restic's order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// When the data was as it is.
    pub time: Timestamp,
    /// The snapshot whose unchanged files were not read again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Id>,
    /// The root directory.
    pub tree: Id,
    /// What was backed up.
    #[serde(default, deserialize_with = "list")]
    pub paths: Vec<String>,
    /// Whose data it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    /// Who made it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub username: String,
    /// The numeric user.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub uid: u32,
    /// The numeric group.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gid: u32,
    /// What was left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "list")]
    pub excludes: Vec<String>,
    /// Words to find it by.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "list")]
    pub tags: Vec<String>,
    /// The program that wrote it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub program_version: String,
}

/// Go writes an absent list as `null`.
fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Option::<Vec<String>>::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
const fn is_zero(value: &u32) -> bool {
    *value == 0
}

impl Snapshot {
    pub(crate) fn new(info: SnapshotInfo, tree: Id, parent: Option<Id>) -> Self {
        Self {
            time: info.time,
            parent,
            tree,
            paths: info.paths,
            hostname: info.hostname,
            username: String::new(),
            uid: 0,
            gid: 0,
            excludes: Vec::new(),
            tags: info.tags,
            program_version: concat!("shoot-backup ", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_of_restic_is_read_with_its_time_zone_and_nulls() {
        let json = format!(
            r#"{{"time":"2024-01-02T18:10:50.895208559+01:00","tree":"{}","paths":["/a"],"hostname":"h","username":"u","uid":1000,"gid":100,"tags":null}}"#,
            Id::of(b"t")
        );
        let snapshot: Snapshot = serde_json::from_str(&json).unwrap();
        assert_eq!(snapshot.time.to_string(), "2024-01-02T17:10:50.895208559Z");
        assert!(snapshot.tags.is_empty());
    }
}
