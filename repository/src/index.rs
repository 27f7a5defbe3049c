//! The index: which pack holds which blob.

use serde::{Deserialize, Serialize};

use crate::blob::BlobKind;
use crate::id::Id;
use crate::pack::PackedBlob;

/// An index file's JSON (restic design, "Indexing").
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct IndexFile {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) supersedes: Option<Vec<Id>>,
    pub(crate) packs: Vec<IndexPack>,
}

/// One pack of an index file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct IndexPack {
    pub(crate) id: Id,
    pub(crate) blobs: Vec<IndexBlob>,
}

impl IndexPack {
    /// Length of the blobs in the pack, its header left out.
    pub(crate) fn stored_bytes(&self) -> u64 {
        self.blobs.iter().map(|blob| u64::from(blob.length)).sum()
    }
}

/// One blob of a pack.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct IndexBlob {
    id: Id,
    #[serde(rename = "type")]
    kind: BlobKind,
    offset: u32,
    length: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uncompressed_length: Option<u32>,
}

impl From<&PackedBlob> for IndexBlob {
    fn from(blob: &PackedBlob) -> Self {
        Self {
            id: blob.id,
            kind: blob.kind,
            offset: blob.offset,
            length: blob.length,
            uncompressed_length: blob.uncompressed,
        }
    }
}

/// Where a blob is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) pack: Id,
    pub(crate) offset: u32,
    pub(crate) length: u32,
    pub(crate) uncompressed: Option<u32>,
    /// Where the last known blob of the pack ends: nothing beyond is worth reading ahead.
    pub(crate) pack_end: u32,
}

impl Location {
    /// The blob's length when it is open.
    pub(crate) const fn plain_length(&self) -> u32 {
        match self.uncompressed {
            Some(length) => length,
            None => self.length.saturating_sub(crate::crypto::OVERHEAD as u32),
        }
    }
}

/// All blobs of a repository, in memory: 52 bytes per blob, 36 per pack. 1 TiB of large files is about 52 MiB.
#[derive(Debug, Default)]
pub(crate) struct Index {
    packs: Vec<(Id, u32)>,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    id: Id,
    kind: BlobKind,
    pack: u32,
    offset: u32,
    length: u32,
    /// Zero means not compressed: an empty blob is never compressed, it would not gain.
    uncompressed: u32,
}

impl Index {
    /// Takes in one file. [`Index::seal`] must follow the last.
    pub(crate) fn add(&mut self, file: IndexFile) {
        for pack in file.packs {
            let number = self.packs.len() as u32;
            let end = pack.blobs.iter().map(|blob| blob.offset.saturating_add(blob.length)).max().unwrap_or(0);
            self.packs.push((pack.id, end));
            self.entries.extend(pack.blobs.iter().map(|blob| Entry {
                id: blob.id,
                kind: blob.kind,
                pack: number,
                offset: blob.offset,
                length: blob.length,
                uncompressed: blob.uncompressed_length.unwrap_or(0),
            }));
        }
    }

    /// Sorts, so that blobs can be found, and drops second copies.
    pub(crate) fn seal(&mut self) {
        self.entries.sort_unstable();
        self.entries.dedup_by_key(|entry| (entry.id, entry.kind));
        self.entries.shrink_to_fit();
        self.packs.shrink_to_fit();
    }

    pub(crate) fn find(&self, kind: BlobKind, id: &Id) -> Option<Location> {
        let at = self.entries.binary_search_by(|entry| (entry.id, entry.kind).cmp(&(*id, kind))).ok()?;
        let entry = self.entries.get(at)?;
        let (pack, pack_end) = *self.packs.get(entry.pack as usize)?;
        Some(Location {
            pack,
            offset: entry.offset,
            length: entry.length,
            uncompressed: (entry.uncompressed != 0).then_some(entry.uncompressed),
            pack_end,
        })
    }

    pub(crate) const fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(plain: &[u8], kind: BlobKind, offset: u32, uncompressed: Option<u32>) -> PackedBlob {
        PackedBlob { kind, id: Id::of(plain), offset, length: 40, uncompressed }
    }

    fn file(pack: &[u8], blobs: &[PackedBlob]) -> IndexFile {
        let pack = IndexPack { id: Id::of(pack), blobs: blobs.iter().map(IndexBlob::from).collect() };
        IndexFile { supersedes: None, packs: vec![pack] }
    }

    #[test]
    fn blobs_are_found_by_kind_and_id() {
        let mut index = Index::default();
        index.add(file(b"p", &[packed(b"a", BlobKind::Data, 0, None), packed(b"b", BlobKind::Data, 40, Some(99))]));
        index.add(file(b"q", &[packed(b"a", BlobKind::Tree, 0, Some(7))]));
        index.seal();
        let found = index.find(BlobKind::Data, &Id::of(b"b")).unwrap();
        assert_eq!((found.pack, found.offset, found.length, found.uncompressed), (Id::of(b"p"), 40, 40, Some(99)));
        assert_eq!(found.pack_end, 80);
        assert_eq!(index.find(BlobKind::Tree, &Id::of(b"a")).unwrap().pack, Id::of(b"q"));
        assert!(index.find(BlobKind::Tree, &Id::of(b"b")).is_none());
    }

    #[test]
    fn a_blob_in_two_packs_counts_once() {
        let mut index = Index::default();
        for pack in [b"p", b"q"] {
            index.add(file(pack, &[packed(b"a", BlobKind::Data, 0, None)]));
        }
        index.seal();
        assert_eq!(index.len(), 1);
    }

    #[test]
    fn an_entry_has_the_size_that_the_documentation_says() {
        assert_eq!(size_of::<Entry>(), 52);
        assert_eq!(size_of::<(Id, u32)>(), 36);
    }
}
