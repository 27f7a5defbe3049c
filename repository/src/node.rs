//! A directory entry as trees record it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _, ser::Error as _};

use crate::id::Id;
use crate::quoting;

/// What kind of thing a [`Node`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A block device.
    Dev,
    /// A character device.
    CharDev,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// Something else; other systems have it.
    Irregular,
}

/// An extended attribute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtendedAttribute {
    /// Its name, with its namespace.
    pub name: String,
    /// Its value.
    #[serde(with = "crate::base64_bytes")]
    pub value: Vec<u8>,
}

/// All that is recorded of an entry beside its name, kind and content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Permission bits as `chmod` takes them, with set-user-id, set-group-id and sticky: at most `0o7777`.
    pub mode: u32,
    /// When the content changed last.
    pub mtime: Timestamp,
    /// When it was read last. Backups of directories put the time of modification here, as restic does.
    pub atime: Timestamp,
    /// When anything of it changed last.
    pub ctime: Timestamp,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// The owner's name; empty when not known.
    pub user: String,
    /// The group's name; empty when not known.
    pub group: String,
    /// Inode number, 0 when there is none.
    pub inode: u64,
    /// The file system's device number; only kept for what has more than one link.
    pub device_id: u64,
    /// How many names the inode has, 0 when not known.
    pub links: u64,
    /// Extended attributes, sorted by name.
    pub extended_attributes: Vec<ExtendedAttribute>,
}

impl Metadata {
    /// For what is not a file of any file system: this mode, owner 0, and the epoch for all times, so that equal content
    /// makes equal trees.
    #[must_use]
    pub const fn synthetic(mode: u32) -> Self {
        Self {
            mode,
            mtime: Timestamp::UNIX_EPOCH,
            atime: Timestamp::UNIX_EPOCH,
            ctime: Timestamp::UNIX_EPOCH,
            uid: 0,
            gid: 0,
            user: String::new(),
            group: String::new(),
            inode: 0,
            device_id: 0,
            links: 0,
            extended_attributes: Vec::new(),
        }
    }
}

/// A file, directory or other entry of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name in its directory: any bytes but a slash and NUL.
    pub name: OsString,
    /// What it is.
    pub kind: NodeKind,
    /// Mode, owner, times and the like.
    pub metadata: Metadata,
    /// A file's size in bytes.
    pub size: u64,
    /// Where a symbolic link points.
    pub link_target: Option<OsString>,
    /// A device's number.
    pub device: u64,
    /// A file's blobs, in order; `None` for what is no file.
    pub content: Option<Vec<Id>>,
    /// A directory's tree.
    pub subtree: Option<Id>,
}

impl Node {
    /// An entry without content.
    #[must_use]
    pub fn new(name: impl Into<OsString>, kind: NodeKind, metadata: Metadata) -> Self {
        Self { name: name.into(), kind, metadata, size: 0, link_target: None, device: 0, content: None, subtree: None }
    }

    /// The name for people; bytes that are no UTF-8 are replaced.
    #[must_use]
    pub fn display_name(&self) -> String {
        self.name.to_string_lossy().into_owned()
    }

    /// Whether it is a directory.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        self.kind == NodeKind::Dir
    }

    /// Whether it is a regular file.
    #[must_use]
    pub fn is_file(&self) -> bool {
        self.kind == NodeKind::File
    }
}

/// Whether this can be the name of a directory entry. Everything read from a repository is asked this before it becomes
/// a path.
pub(crate) fn is_entry_name(name: &OsStr) -> bool {
    let bytes = name.as_bytes();
    !matches!(bytes, b"" | b"." | b"..") && !bytes.iter().any(|byte| matches!(byte, b'/' | 0))
}

/// Go's `os.FileMode` bits, which trees store.
mod go_mode {
    use super::NodeKind;

    const SETUID: u32 = 1 << 23;
    const SETGID: u32 = 1 << 22;
    const STICKY: u32 = 1 << 20;

    pub(super) const fn from_unix(kind: NodeKind, mode: u32) -> u32 {
        let mut bits = mode & 0o777;
        if mode & 0o4000 != 0 {
            bits |= SETUID;
        }
        if mode & 0o2000 != 0 {
            bits |= SETGID;
        }
        if mode & 0o1000 != 0 {
            bits |= STICKY;
        }
        bits | match kind {
            NodeKind::File => 0,
            NodeKind::Dir => 1 << 31,
            NodeKind::Symlink => 1 << 27,
            NodeKind::Dev => 1 << 26,
            NodeKind::CharDev => (1 << 26) | (1 << 21),
            NodeKind::Fifo => 1 << 25,
            NodeKind::Socket => 1 << 24,
            NodeKind::Irregular => 1 << 19,
        }
    }

    pub(super) const fn to_unix(bits: u32) -> u32 {
        let mut mode = bits & 0o777;
        if bits & SETUID != 0 {
            mode |= 0o4000;
        }
        if bits & SETGID != 0 {
            mode |= 0o2000;
        }
        if bits & STICKY != 0 {
            mode |= 0o1000;
        }
        mode
    }
}

/// The JSON form, fields in the order in which restic writes them.
#[derive(Serialize, Deserialize)]
struct NodeJson {
    name: String,
    #[serde(rename = "type")]
    kind: NodeKind,
    #[serde(default, skip_serializing_if = "is_zero_32")]
    mode: u32,
    mtime: Timestamp,
    atime: Timestamp,
    ctime: Timestamp,
    uid: u32,
    gid: u32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    user: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    group: String,
    #[serde(default, skip_serializing_if = "is_zero")]
    inode: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    device_id: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    size: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    links: u64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    linktarget: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "crate::base64_bytes")]
    linktarget_raw: Vec<u8>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    extended_attributes: Vec<ExtendedAttribute>,
    #[serde(default, skip_serializing_if = "is_zero")]
    device: u64,
    content: Option<Vec<Id>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subtree: Option<Id>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
const fn is_zero(value: &u64) -> bool {
    *value == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
const fn is_zero_32(value: &u32) -> bool {
    *value == 0
}

/// Go's time format has years of four digits: what lies outside is moved to the nearest that it can write.
fn writable(time: Timestamp) -> Result<Timestamp, jiff::Error> {
    let earliest = Timestamp::from_second(-62_167_219_200)?;
    let latest = Timestamp::from_second(253_402_207_200)?;
    Ok(time.clamp(earliest, latest))
}

impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let target = self.link_target.as_deref().unwrap_or_default();
        let metadata = &self.metadata;
        NodeJson {
            name: quoting::quote(self.name.as_bytes()).into_owned(),
            kind: self.kind,
            mode: go_mode::from_unix(self.kind, metadata.mode),
            mtime: writable(metadata.mtime).map_err(S::Error::custom)?,
            atime: writable(metadata.atime).map_err(S::Error::custom)?,
            ctime: writable(metadata.ctime).map_err(S::Error::custom)?,
            uid: metadata.uid,
            gid: metadata.gid,
            user: metadata.user.clone(),
            group: metadata.group.clone(),
            inode: metadata.inode,
            device_id: metadata.device_id,
            size: self.size,
            links: metadata.links,
            linktarget: target.to_string_lossy().into_owned(),
            // The lossy form stays for readers that do not know the raw one.
            linktarget_raw: if target.to_str().is_some() { Vec::new() } else { target.as_bytes().to_vec() },
            extended_attributes: metadata.extended_attributes.clone(),
            device: self.device,
            content: self.content.clone(),
            subtree: self.subtree,
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = NodeJson::deserialize(deserializer)?;
        let link_target = if json.linktarget_raw.is_empty() {
            (json.kind == NodeKind::Symlink).then(|| OsString::from(json.linktarget))
        } else {
            Some(OsString::from_vec(json.linktarget_raw))
        };
        Ok(Self {
            name: OsString::from_vec(quoting::unquote(&json.name).map_err(D::Error::custom)?),
            kind: json.kind,
            metadata: Metadata {
                mode: go_mode::to_unix(json.mode),
                mtime: json.mtime,
                atime: json.atime,
                ctime: json.ctime,
                uid: json.uid,
                gid: json.gid,
                user: json.user,
                group: json.group,
                inode: json.inode,
                device_id: json.device_id,
                links: json.links,
                extended_attributes: json.extended_attributes,
            },
            size: json.size,
            link_target,
            device: json.device,
            content: json.content,
            subtree: json.subtree,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::go_json;

    #[test]
    fn a_file_is_written_as_restic_writes_it() {
        let mut node = Node::new("a<b", NodeKind::File, Metadata::synthetic(0o4755));
        node.metadata.mtime = "2020-01-02T03:04:05.0605Z".parse().unwrap();
        node.size = 3;
        node.content = Some(vec![Id::of(b"abc")]);
        let json = String::from_utf8(go_json::to_vec(&node).unwrap()).unwrap();
        assert_eq!(
            json,
            format!(
                r#"{{"name":"a\u003cb","type":"file","mode":8389101,"mtime":"2020-01-02T03:04:05.0605Z","atime":"1970-01-01T00:00:00Z","ctime":"1970-01-01T00:00:00Z","uid":0,"gid":0,"size":3,"content":["{}"]}}"#,
                Id::of(b"abc")
            )
        );
        assert_eq!(serde_json::from_str::<Node>(&json).unwrap(), node);
    }

    #[test]
    fn a_link_to_bytes_that_are_no_text_keeps_them() {
        let mut node = Node::new("l", NodeKind::Symlink, Metadata::synthetic(0o777));
        node.link_target = Some(OsString::from_vec(vec![b'x', 0xff]));
        let json = go_json::to_vec(&node).unwrap();
        assert_eq!(serde_json::from_slice::<Node>(&json).unwrap(), node);
    }

    #[test]
    fn times_that_go_cannot_write_are_moved_to_the_nearest_it_can() {
        let mut node = Node::new("f", NodeKind::File, Metadata::synthetic(0));
        node.metadata.mtime = Timestamp::MIN;
        node.metadata.atime = Timestamp::MAX;
        let json = String::from_utf8(go_json::to_vec(&node).unwrap()).unwrap();
        assert!(json.contains(r#""mtime":"0000-01-01T00:00:00Z""#), "{json}");
        assert!(json.contains(r#""atime":"9999-"#), "{json}");
    }

    #[test]
    fn names_that_would_leave_their_directory_are_no_entry_names() {
        for name in ["", ".", "..", "a/b", "/", "a\0"] {
            assert!(!is_entry_name(OsStr::new(name)), "{name:?}");
        }
        assert!(is_entry_name(OsStr::new("...")));
        assert!(is_entry_name(OsStr::from_bytes(b"\xff")));
    }

    proptest::proptest! {
        #[test]
        fn any_name_survives_its_json(name: Vec<u8>, mode in 0_u32..0o10000) {
            let node = Node::new(OsString::from_vec(name), NodeKind::Dir, Metadata::synthetic(mode));
            let json = go_json::to_vec(&node).unwrap();
            proptest::prop_assert_eq!(serde_json::from_slice::<Node>(&json).unwrap(), node);
        }
    }
}
