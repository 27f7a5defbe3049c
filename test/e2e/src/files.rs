//! A directory tree as a list of facts, taken from the disk by this module's own code: what a restore must bring back.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

/// Facts by path relative to the root: type, mode, owner, size, content hash, modification time, link target, links.
pub fn facts(root: &Path) -> Result<BTreeMap<String, String>> {
    let mut facts = BTreeMap::new();
    let mut first_name = BTreeMap::new();
    walk(root, root, &mut facts, &mut first_name)?;
    Ok(facts)
}

fn walk(
    root: &Path,
    directory: &Path,
    facts: &mut BTreeMap<String, String>,
    first_name: &mut BTreeMap<u64, String>,
) -> Result<()> {
    let mut entries = fs::read_dir(directory)
        .and_then(Iterator::collect::<std::io::Result<Vec<_>>>)
        .with_context(|| format!("failed to list {}", directory.display()))?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
        let metadata = fs::symlink_metadata(&path).with_context(|| format!("failed to read {}", path.display()))?;
        let kind = metadata.file_type();
        let mut fact = format!("mode={:o} owner={}:{}", metadata.mode() & 0o7777, metadata.uid(), metadata.gid());
        if kind.is_symlink() {
            fact = format!("link -> {}", fs::read_link(&path)?.display());
        } else {
            let _ = write!(fact, " mtime={}.{:09}", metadata.mtime(), metadata.mtime_nsec());
        }
        if kind.is_file() {
            let _ = write!(fact, " size={} sha256={}", metadata.len(), sha256(&path)?);
            if metadata.nlink() > 1 {
                let first = first_name.entry(metadata.ino()).or_insert_with(|| name.clone());
                let _ = write!(fact, " same-as={first}");
            }
        } else if kind.is_fifo() {
            fact.push_str(" fifo");
        }
        facts.insert(name, fact);
        if kind.is_dir() {
            walk(root, &path, facts, first_name)?;
        }
    }
    Ok(())
}

fn sha256(path: &Path) -> Result<String> {
    let mut file = fs::File::open(path).with_context(|| format!("failed to open {}", path.display()))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(hex::encode(hash.finalize()));
        }
        hash.update(&buffer[..read]);
    }
}
