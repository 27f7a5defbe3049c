//! Names of the clusters that are found.

use sha2::{Digest, Sha256};

/// Longest name that is used: what a label's value can hold.
const MAX_NAME: usize = 63;
/// Hexadecimal digits of the hash that keeps shortened names apart.
const HASH_DIGITS: usize = 8;

/// Name of the `ApplicationCluster` of a Shoot in a foreign garden. Shoots of one name in two projects are two clusters.
#[must_use]
pub fn foreign(namespace: &str, shoot: &str) -> String {
    let full = format!("{namespace}--{shoot}");
    if full.len() <= MAX_NAME {
        return full;
    }
    let digest = hex::encode(Sha256::digest(full.as_bytes()));
    // Names of namespaces and Shoots are ASCII, so every byte is a character.
    let kept = shoot_backup_api::conditions::truncate(&full, MAX_NAME - HASH_DIGITS - 1);
    format!("{}-{}", kept.trim_end_matches(['-', '.']), &digest[..HASH_DIGITS])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_name_says_namespace_and_shoot() {
        assert_eq!(foreign("garden-other", "alpha"), "garden-other--alpha");
    }

    #[test]
    fn long_names_fit_and_stay_apart() {
        let namespace = "garden-".to_owned() + &"n".repeat(50);
        let one = foreign(&namespace, "production-1");
        let other = foreign(&namespace, "production-2");
        assert!(one.len() <= MAX_NAME && other.len() <= MAX_NAME);
        assert_ne!(one, other);
        assert_eq!(one, foreign(&namespace, "production-1"));
    }
}
