//! Where an object lies in the snapshot:
//! `objects/<group or core>/<version>/<resource>/namespaces/<namespace>/<name>.json`, or `…/cluster/<name>.json`.

use sha2::{Digest, Sha256};

/// The root of all objects.
pub const ROOT: &str = "objects";
/// Folder of namespaces below a resource.
pub const NAMESPACES: &str = "namespaces";
/// Folder of cluster-scoped objects below a resource.
pub const CLUSTER: &str = "cluster";
/// The core group's folder: its own name is empty.
pub const CORE: &str = "core";

/// Longest file name in bytes. Source: Linux, `NAME_MAX`; a snapshot must be restorable to a disk.
const MAX_FILE_NAME: usize = 255;

/// The folder of an API group.
#[must_use]
pub fn group_folder(group: &str) -> &str {
    if group.is_empty() { CORE } else { group }
}

/// The API group of a folder.
#[must_use]
pub fn folder_group(folder: &str) -> &str {
    if folder == CORE { "" } else { folder }
}

/// An object's file name. Names are mostly safe already; those of RBAC may be anything but a path, and a name may be as
/// long as a file name without its suffix. The name itself stands in the file.
#[must_use]
pub fn file_name(name: &str) -> String {
    let encoded = name.replace('%', "%25").replace('/', "%2F").replace('\0', "%00");
    let whole = format!("{encoded}.json");
    if whole.len() <= MAX_FILE_NAME {
        return whole;
    }
    let digest = hex::encode(Sha256::digest(name.as_bytes()));
    let start = shoot_backup_api::conditions::truncate(&encoded, 200);
    format!("{start}~{}.json", &digest[..32])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_safe_and_stay_distinct() {
        assert_eq!(file_name("web"), "web.json");
        assert_eq!(file_name("system:node/x%2F"), "system:node%2Fx%252F.json");
        let (one, two) = (format!("{}a", "x".repeat(252)), format!("{}b", "x".repeat(252)));
        assert!(file_name(&one).len() <= MAX_FILE_NAME);
        assert_ne!(file_name(&one), file_name(&two));
    }

    #[test]
    fn the_core_group_has_a_folder() {
        assert_eq!(folder_group(group_folder("")), "");
        assert_eq!(folder_group(group_folder("apps")), "apps");
    }
}
