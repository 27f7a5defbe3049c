//! Reads entries of a directory without ever following a link.
//!
//! Whoever owns the data may change it under our hands and we may be root: every name is opened relative to its
//! directory's descriptor, so that a directory replaced by a link leads nowhere.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use bytes::Bytes;
use jiff::Timestamp;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};

use crate::node::{ExtendedAttribute, Metadata, Node, NodeKind};

/// Files up to this size are read where they are inspected.
const SMALL: u64 = 64 * 1024;
/// The kernel's limit for a list of attributes and for one value.
const ATTRIBUTE_LIMIT: usize = 64 * 1024;

/// What stands behind a name.
pub(crate) enum Entry {
    Directory {
        descriptor: OwnedFd,
        metadata: Metadata,
    },
    /// As the parent snapshot has it.
    Unchanged(Node),
    Small {
        metadata: Metadata,
        data: Bytes,
        changed: bool,
    },
    File {
        file: std::fs::File,
        metadata: Metadata,
        stat: Stamp,
    },
    /// Complete as it is: a link, a pipe, a device.
    Other(Node),
    Skipped(&'static str),
}

/// What changes when a file's content does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) size: u64,
    mtime: Timestamp,
    ctime: Timestamp,
    inode: u64,
}

impl Stamp {
    pub(crate) fn of(file: &std::fs::File) -> io::Result<Self> {
        Ok(Self::from(&rustix::fs::fstat(file)?))
    }

    fn matches(&self, node: &Node) -> bool {
        let metadata = &node.metadata;
        let known = Self { size: node.size, mtime: metadata.mtime, ctime: metadata.ctime, inode: metadata.inode };
        node.kind == NodeKind::File && *self == known
    }
}

impl From<&Stat> for Stamp {
    fn from(stat: &Stat) -> Self {
        Self {
            size: stat.st_size as u64,
            mtime: timestamp(stat.st_mtime, stat.st_mtime_nsec),
            ctime: timestamp(stat.st_ctime, stat.st_ctime_nsec),
            inode: stat.st_ino,
        }
    }
}

/// File systems can hold times beyond what a timestamp can: those become the nearest it can.
fn timestamp<N: TryInto<i32>>(seconds: i64, nanoseconds: N) -> Timestamp {
    let nanoseconds = nanoseconds.try_into().unwrap_or_default();
    Timestamp::new(seconds, nanoseconds).unwrap_or(if seconds < 0 { Timestamp::MIN } else { Timestamp::MAX })
}

/// Opens a directory of this name, which must not be a link.
pub(crate) fn open_directory(parent: &OwnedFd, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(parent, name, flags, Mode::empty())?)
}

/// The names in a directory, sorted.
pub(crate) fn names(directory: &OwnedFd) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name.to_vec()));
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// The metadata of an open directory.
pub(crate) fn directory_metadata(directory: &OwnedFd) -> io::Result<Metadata> {
    let stat = rustix::fs::fstat(directory)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/.", directory.as_raw_fd()));
    Ok(metadata(&stat, attributes(&path)?))
}

/// Looks at one entry; opens it, unless the parent snapshot has it as it is.
pub(crate) fn inspect(directory: &OwnedFd, name: &OsStr, parent: Option<Node>) -> io::Result<Entry> {
    let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            let descriptor = open_directory(directory, name)?;
            let metadata = directory_metadata(&descriptor)?;
            return Ok(Entry::Directory { descriptor, metadata });
        }
        FileType::RegularFile => return inspect_file(directory, name, &stat, parent),
        FileType::Symlink => NodeKind::Symlink,
        FileType::Fifo => NodeKind::Fifo,
        FileType::BlockDevice => NodeKind::Dev,
        FileType::CharacterDevice => NodeKind::CharDev,
        FileType::Socket => return Ok(Entry::Skipped("a socket has no content; its program makes it again")),
        FileType::Unknown => return Ok(Entry::Skipped("it is of a kind that this system does not know")),
    };
    let mut node = Node::new(name, kind, metadata(&stat, attributes(&below(directory, name))?));
    match kind {
        NodeKind::Symlink => {
            let target = rustix::fs::readlinkat(directory, name, Vec::new())?;
            node.link_target = Some(OsString::from_vec(target.into_bytes()));
        }
        NodeKind::Dev | NodeKind::CharDev => node.device = stat.st_rdev,
        _ => {}
    }
    Ok(Entry::Other(node))
}

fn inspect_file(directory: &OwnedFd, name: &OsStr, stat: &Stat, parent: Option<Node>) -> io::Result<Entry> {
    if let Some(mut node) = parent
        && Stamp::from(stat).matches(&node)
    {
        // The device's number is another one after each attach; links are found by it.
        node.metadata.device_id = if stat.st_nlink > 1 { stat.st_dev } else { 0 };
        return Ok(Entry::Unchanged(node));
    }
    let mut file = open_file(directory, name)?;
    let stat = rustix::fs::fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(Entry::Skipped("it was replaced by something else while it was read"));
    }
    let metadata = metadata(&stat, attributes(&below(directory, name))?);
    let stamp = Stamp::from(&stat);
    if stamp.size > SMALL {
        return Ok(Entry::File { file, metadata, stat: stamp });
    }
    let mut data = Vec::with_capacity(stamp.size as usize);
    (&mut file).take(SMALL).read_to_end(&mut data)?;
    let changed = Stamp::of(&file)? != stamp || data.len() as u64 != stamp.size;
    Ok(Entry::Small { metadata, data: data.into(), changed })
}

/// Opens without waiting for a pipe's other end, and where we may without changing the time of access.
fn open_file(directory: &OwnedFd, name: &OsStr) -> io::Result<std::fs::File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let descriptor = match rustix::fs::openat(directory, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(rustix::io::Errno::PERM) => rustix::fs::openat(directory, name, flags, Mode::empty())?,
        result => result?,
    };
    Ok(descriptor.into())
}

#[allow(clippy::useless_conversion, reason = "the number of links has another type on other architectures")]
fn metadata(stat: &Stat, extended_attributes: Vec<ExtendedAttribute>) -> Metadata {
    let linked = stat.st_nlink > 1 && FileType::from_raw_mode(stat.st_mode) != FileType::Directory;
    Metadata {
        mode: stat.st_mode & 0o7777,
        mtime: timestamp(stat.st_mtime, stat.st_mtime_nsec),
        // As restic does by default: reading changes the time of access, and a tree that changes with each backup is
        // stored with each backup.
        atime: timestamp(stat.st_mtime, stat.st_mtime_nsec),
        ctime: timestamp(stat.st_ctime, stat.st_ctime_nsec),
        uid: stat.st_uid,
        gid: stat.st_gid,
        user: String::new(),
        group: String::new(),
        inode: stat.st_ino,
        device_id: if linked { stat.st_dev } else { 0 },
        links: stat.st_nlink.into(),
        extended_attributes,
    }
}

/// A path to an entry of an open directory, for calls that know no descriptors.
pub(crate) fn below(directory: &OwnedFd, name: &OsStr) -> PathBuf {
    let mut path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    path.push(name);
    path
}

/// All extended attributes of an entry, not following a link. File systems without any give none.
fn attributes(path: &std::path::Path) -> io::Result<Vec<ExtendedAttribute>> {
    use rustix::io::Errno;
    let mut list = vec![0; ATTRIBUTE_LIMIT];
    let length = match rustix::fs::llistxattr(path, &mut list[..]) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        result => result?,
    };
    let mut attributes = Vec::new();
    let mut value = vec![0; ATTRIBUTE_LIMIT];
    for name in list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        match rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value[..]) {
            Ok(length) => attributes.push(ExtendedAttribute {
                // The format has text here; the kernel's names are text in all that we know.
                name: String::from_utf8_lossy(name).into_owned(),
                value: value[..length].to_vec(),
            }),
            // Gone since it was listed.
            Err(Errno::NODATA) => {}
            Err(error) => return Err(error.into()),
        }
    }
    attributes.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(attributes)
}
