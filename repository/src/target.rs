//! Makes directory entries below a restore's target, never through a link.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use jiff::Timestamp;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::inode::{below, open_directory};
use crate::node::{Metadata, Node, NodeKind};

/// Runs of zeros of this length and alignment become holes: a multiple of every file system's block.
const HOLE: usize = 64 * 1024;

/// Opens the target, and makes it with its parents where it is missing. The target itself may be a link.
pub(crate) fn open_target(path: &Path) -> io::Result<OwnedFd> {
    std::fs::create_dir_all(path)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Makes a directory, or takes the one that is there. It is only ours until its metadata is set.
pub(crate) fn make_directory(parent: &OwnedFd, name: &OsStr) -> io::Result<OwnedFd> {
    match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => open_directory(parent, name),
        Err(error) => Err(error.into()),
    }
}

/// Makes an empty file in place of what is there, unless that is a directory.
pub(crate) fn make_file(parent: &OwnedFd, name: &OsStr) -> io::Result<std::fs::File> {
    make_room(parent, name)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR)?.into())
}

/// Removes an entry that is no directory, if there is one.
pub(crate) fn make_room(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Writes, leaving holes for zeros.
pub(crate) fn write_sparse(file: &std::fs::File, offset: u64, data: &[u8]) -> io::Result<()> {
    let mut at = 0;
    while at < data.len() {
        let start = offset + at as u64;
        let length = (HOLE - (start % HOLE as u64) as usize).min(data.len() - at);
        let piece = &data[at..at + length];
        if piece.iter().any(|byte| *byte != 0) {
            file.write_all_at(piece, start)?;
        }
        at += length;
    }
    Ok(())
}

/// Gives a file its length, which makes a hole of zeros at its end, and its metadata.
pub(crate) fn finish_file(parent: &OwnedFd, node: &Node, file: &std::fs::File, length: u64) -> io::Result<()> {
    file.set_len(length)?;
    set_metadata(file.as_fd(), parent, node)
}

/// Sets owner, mode, attributes and times of an open file or directory. Owner before mode: changing the owner clears
/// set-user-id. Times last: all else changes them.
pub(crate) fn set_metadata(open: BorrowedFd<'_>, parent: &OwnedFd, node: &Node) -> io::Result<()> {
    let metadata = &node.metadata;
    let (uid, gid) = owner(metadata);
    owned(rustix::fs::fchown(open, uid, gid))?;
    set_attributes(parent, &node.name, metadata)?;
    rustix::fs::fchmod(open, Mode::from_raw_mode(metadata.mode))?;
    Ok(rustix::fs::futimens(open, &times(metadata))?)
}

/// Makes a link, pipe, socket or device in place of what is there, with its metadata.
pub(crate) fn make_other(parent: &OwnedFd, node: &Node) -> io::Result<()> {
    let name = node.name.as_os_str();
    let kind = match node.kind {
        NodeKind::Symlink => None,
        NodeKind::Fifo => Some(FileType::Fifo),
        NodeKind::Socket => Some(FileType::Socket),
        NodeKind::Dev => Some(FileType::BlockDevice),
        NodeKind::CharDev => Some(FileType::CharacterDevice),
        NodeKind::File | NodeKind::Dir | NodeKind::Irregular => {
            return Err(io::Error::other("it is of a kind that this system cannot make"));
        }
    };
    make_room(parent, name)?;
    if let Some(kind) = kind {
        rustix::fs::mknodat(parent, name, kind, Mode::RUSR | Mode::WUSR, node.device)?;
    } else {
        let target = node.link_target.as_deref().unwrap_or_default();
        rustix::fs::symlinkat(target, parent, name)?;
    }
    let (uid, gid) = owner(&node.metadata);
    owned(rustix::fs::chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW))?;
    set_attributes(parent, name, &node.metadata)?;
    if kind.is_some() {
        // Just made by us and no link: there is nothing to follow.
        rustix::fs::chmodat(parent, name, Mode::from_raw_mode(node.metadata.mode), AtFlags::empty())?;
    }
    Ok(rustix::fs::utimensat(parent, name, &times(&node.metadata), AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Gives a file another name. The first is a path below the root.
pub(crate) fn make_hard_link(root: &OwnedFd, first: &Path, parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    make_room(parent, name)?;
    Ok(rustix::fs::linkat(root, first, parent, name, AtFlags::empty())?)
}

fn owner(metadata: &Metadata) -> (Option<Uid>, Option<Gid>) {
    // The largest number means "leave it" to the kernel and is no owner.
    let given = |id: u32| (id != u32::MAX).then_some(id);
    (given(metadata.uid).map(Uid::from_raw), given(metadata.gid).map(Gid::from_raw))
}

/// Only root can give files away: for anyone else, what is restored is theirs, as with restic and tar.
fn owned(result: rustix::io::Result<()>) -> io::Result<()> {
    match result {
        Err(Errno::PERM) if !rustix::process::geteuid().is_root() => Ok(()),
        result => Ok(result?),
    }
}

fn set_attributes(parent: &OwnedFd, name: &OsStr, metadata: &Metadata) -> io::Result<()> {
    let path = below(parent, name);
    for attribute in &metadata.extended_attributes {
        // A label of the node that it was taken on: the kubelet labels volumes for the pod that uses them.
        if attribute.name == "security.selinux" {
            continue;
        }
        let name = OsStr::from_bytes(attribute.name.as_bytes());
        rustix::fs::lsetxattr(&path, name, &attribute.value, XattrFlags::empty()).map_err(|error| {
            io::Error::new(io::Error::from(error).kind(), format!("extended attribute {}: {error}", attribute.name))
        })?;
    }
    Ok(())
}

fn times(metadata: &Metadata) -> Timestamps {
    Timestamps { last_access: timespec(metadata.atime), last_modification: timespec(metadata.mtime) }
}

/// The kernel counts nanoseconds upwards from the second before, also before 1970.
fn timespec(time: Timestamp) -> Timespec {
    let nanoseconds = time.as_nanosecond();
    Timespec {
        tv_sec: nanoseconds.div_euclid(1_000_000_000) as i64,
        tv_nsec: nanoseconds.rem_euclid(1_000_000_000) as i64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_count_nanoseconds_upwards() {
        let time = timespec("1969-12-31T23:59:58.25Z".parse().unwrap());
        assert_eq!((time.tv_sec, time.tv_nsec), (-2, 250_000_000));
    }

    #[test]
    fn zeros_become_holes_and_read_back_as_zeros() {
        use std::os::unix::fs::MetadataExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sparse");
        let file = std::fs::File::create(&path).unwrap();
        let mut data = vec![0; 8 << 20];
        data[3_000_000] = 7;
        write_sparse(&file, 0, &data).unwrap();
        file.set_len(data.len() as u64).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), data);
        assert!(std::fs::metadata(&path).unwrap().blocks() * 512 < 1 << 20);
    }
}
