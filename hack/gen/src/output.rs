//! What is generated, all of it in memory first: then it is either written or compared.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::{charts, definitions, delivery, reference};

/// Folders in which every file is generated: what else is found there is left over from a kind that is gone.
const OWNED: &[&str] = &[definitions::AGENT_FOLDER, definitions::GARDEN_FOLDER];

/// Generated files by their path in the checkout.
pub struct Outputs {
    files: BTreeMap<String, String>,
}

/// Generates everything for the checkout at `root`.
pub fn all(root: &Path) -> Result<Outputs> {
    let mut files = definitions::files()?;
    files.extend(charts::files(root)?);
    files.extend(reference::files());
    let agent = delivery::render(root, &files)?;
    files.insert(delivery::PATH.to_owned(), agent);
    Ok(Outputs { files })
}

impl Outputs {
    /// Writes what differs and removes what is left over.
    pub fn write(&self, root: &Path) -> Result<()> {
        for (path, content) in &self.files {
            let target = root.join(path);
            if fs::read_to_string(&target).is_ok_and(|existing| existing == *content) {
                continue;
            }
            if let Some(folder) = target.parent() {
                fs::create_dir_all(folder).with_context(|| format!("failed to create {}", folder.display()))?;
            }
            fs::write(&target, content).with_context(|| format!("failed to write {path}"))?;
            println!("wrote {path}");
        }
        for path in self.left_over(root)? {
            fs::remove_file(root.join(&path)).with_context(|| format!("failed to remove {path}"))?;
            println!("removed {path}");
        }
        Ok(())
    }

    /// Fails if a run of [`Self::write`] would change anything.
    pub fn compare(&self, root: &Path) -> Result<()> {
        let mut stale: Vec<String> = self
            .files
            .iter()
            .filter(|(path, content)| !fs::read_to_string(root.join(path)).is_ok_and(|existing| existing == **content))
            .map(|(path, _)| path.clone())
            .collect();
        stale.extend(self.left_over(root)?);
        if stale.is_empty() {
            println!("{} generated files are up to date", self.files.len());
            return Ok(());
        }
        bail!("generated files are not up to date, run `make gen` and commit: {}", stale.join(", "))
    }

    fn left_over(&self, root: &Path) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for folder in OWNED {
            let path = root.join(folder);
            if !path.exists() {
                continue;
            }
            for entry in fs::read_dir(&path).with_context(|| format!("failed to list {folder}"))? {
                let name = entry.with_context(|| format!("failed to list {folder}"))?.file_name();
                let path = format!("{folder}/{}", name.to_string_lossy());
                if !self.files.contains_key(&path) {
                    found.push(path);
                }
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outputs() -> Outputs {
        Outputs { files: BTreeMap::from([(format!("{}/a.yaml", definitions::AGENT_FOLDER), "a: 1\n".to_owned())]) }
    }

    #[test]
    fn what_was_written_compares_equal() {
        let root = tempfile::tempdir().unwrap();
        outputs().write(root.path()).unwrap();
        outputs().compare(root.path()).unwrap();
    }

    #[test]
    fn a_missing_and_a_changed_file_are_named() {
        let root = tempfile::tempdir().unwrap();
        let missing = outputs().compare(root.path()).unwrap_err().to_string();
        assert!(missing.contains("a.yaml"), "{missing}");
        outputs().write(root.path()).unwrap();
        fs::write(root.path().join(definitions::AGENT_FOLDER).join("a.yaml"), "a: 2\n").unwrap();
        assert!(outputs().compare(root.path()).is_err());
    }

    #[test]
    fn a_definition_of_a_kind_that_is_gone_is_found_and_removed() {
        let root = tempfile::tempdir().unwrap();
        outputs().write(root.path()).unwrap();
        let gone = root.path().join(definitions::AGENT_FOLDER).join("gone.yaml");
        fs::write(&gone, "").unwrap();
        let message = outputs().compare(root.path()).unwrap_err().to_string();
        assert!(message.contains("gone.yaml"), "{message}");
        outputs().write(root.path()).unwrap();
        assert!(!gone.exists());
    }
}
