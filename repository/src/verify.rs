//! Reads restored files back from the disk and compares them with the snapshot.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Advice, Mode, OFlags};

use crate::blob::BlobKind;
use crate::error::RepositoryError;
use crate::id::Id;
use crate::inode::open_directory;
use crate::node::{Node, is_entry_name};
use crate::reader::Reader;
use crate::restore::{DirectoryRestore, blocking, is_local};

/// Compares everything below an open directory with a tree. What fails is counted in `result`.
pub(crate) async fn directory(
    reader: &Reader,
    root: &Arc<OwnedFd>,
    tree: Id,
    result: &mut DirectoryRestore,
) -> Result<(), RepositoryError> {
    let nodes = reader.tree(&tree).await?.nodes.into_iter();
    let mut levels = vec![(Arc::clone(root), PathBuf::new(), nodes)];
    while let Some((directory, path, nodes)) = levels.last_mut() {
        let Some(node) = nodes.next() else {
            levels.pop();
            continue;
        };
        // Counted already when it was not restored.
        if !is_entry_name(&node.name) {
            continue;
        }
        let (parent, path) = (Arc::clone(directory), path.join(&node.name));
        if let (true, Some(subtree)) = (node.is_directory(), node.subtree) {
            let name = node.name.clone();
            let Ok(descriptor) = blocking(move || open_directory(&parent, &name)).await? else { continue };
            match reader.tree(&subtree).await {
                Ok(tree) => levels.push((Arc::new(descriptor), path, tree.nodes.into_iter())),
                Err(error) if is_local(&error) => {}
                Err(error) => return Err(error),
            }
        } else if node.is_file() {
            file(reader, parent, &path, node, result).await?;
        }
    }
    Ok(())
}

async fn file(
    reader: &Reader,
    parent: Arc<OwnedFd>,
    path: &Path,
    node: Node,
    result: &mut DirectoryRestore,
) -> Result<(), RepositoryError> {
    let mut pieces = Vec::new();
    for id in node.content.iter().flatten() {
        // A blob that is not there was counted when the file was not restored.
        let Some(location) = reader.locate(BlobKind::Data, id) else { return Ok(()) };
        pieces.push((*id, location.plain_length()));
    }
    match blocking(move || compare(&parent, &node, &pieces)).await? {
        Ok(Some(length)) => {
            result.verified_files += 1;
            result.verified_bytes += length;
        }
        Ok(None) => result.failed.add(path, "what was read back from the disk is not what the snapshot has"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => result.failed.add(path, &format!("reading it back: {error}")),
    }
    Ok(())
}

/// The file's length when it is what it must be.
fn compare(parent: &OwnedFd, node: &Node, pieces: &[(Id, u32)]) -> io::Result<Option<u64>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOATIME | OFlags::CLOEXEC;
    let descriptor = match rustix::fs::openat(parent, &node.name, flags, Mode::empty()) {
        // Given to another owner, and we are not root.
        Err(rustix::io::Errno::PERM) => rustix::fs::openat(parent, &node.name, flags - OFlags::NOATIME, Mode::empty())?,
        result => result?,
    };
    // From the disk, not from what is still in memory. Where the kernel cannot, the comparison is worth less, not wrong.
    let _ = rustix::fs::fadvise(&descriptor, 0, None, Advice::DontNeed);
    let mut file = std::fs::File::from(descriptor);
    let mut length = 0;
    let mut buffer = Vec::new();
    for (id, size) in pieces {
        buffer.resize(*size as usize, 0);
        match file.read_exact(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            result => result?,
        }
        if Id::of(&buffer) != *id {
            return Ok(None);
        }
        length += u64::from(*size);
    }
    let more = file.read(&mut [0])?;
    Ok((more == 0).then_some(length))
}
