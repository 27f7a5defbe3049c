//! Pack files: sealed blobs one after another, then an encrypted header that names them (restic design, "Pack Format").

use crate::blob::{BlobError, BlobKind, SealedBlob};
use crate::crypto::Key;
use crate::error::RepositoryError;
use crate::id::Id;

/// A pack is closed once it is this long. It may be longer by one blob.
pub(crate) const TARGET_SIZE: usize = 16 * 1024 * 1024;
/// A pack is closed once it has this many blobs, so that many tiny files do not make a huge header.
const MAX_BLOBS: usize = 16 * 1024;

/// Why a pack is not what it must be.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// A blob in it is damaged.
    #[error("failed to read {} blob {blob} in pack {pack}: {source}; the pack is damaged, see `restic repair packs`", kind.as_str())]
    Blob {
        /// The pack.
        pack: Id,
        /// The blob.
        blob: Id,
        /// Data or tree.
        kind: BlobKind,
        /// What is wrong.
        source: BlobError,
    },
    /// The pack is shorter than the index says, or not there.
    #[error("failed to read blob {blob} in pack {pack}: {source}")]
    Store {
        /// The pack.
        pack: Id,
        /// The blob.
        blob: Id,
        /// What the store said.
        source: crate::store::StoreError,
    },
}

/// Where one blob stands in a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PackedBlob {
    pub(crate) kind: BlobKind,
    pub(crate) id: Id,
    pub(crate) offset: u32,
    pub(crate) length: u32,
    pub(crate) uncompressed: Option<u32>,
}

/// A pack that is being filled.
#[derive(Debug, Default)]
pub(crate) struct PackBuilder {
    bytes: Vec<u8>,
    blobs: Vec<PackedBlob>,
}

impl PackBuilder {
    /// Appends a blob; true when the pack is full.
    pub(crate) fn push(&mut self, blob: &SealedBlob) -> bool {
        let need = self.bytes.len() + blob.bytes.len();
        if need > self.bytes.capacity() {
            // Doubling, but not beyond the target: several packs are in memory at once.
            let capacity = (self.bytes.capacity() * 2).min(TARGET_SIZE).max(need);
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.blobs.push(PackedBlob {
            kind: blob.kind,
            id: blob.id,
            offset: self.bytes.len() as u32,
            length: blob.bytes.len() as u32,
            uncompressed: blob.uncompressed,
        });
        self.bytes.extend_from_slice(&blob.bytes);
        self.bytes.len() >= TARGET_SIZE || self.blobs.len() >= MAX_BLOBS
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.blobs.is_empty()
    }

    /// The finished file, and what is in it.
    pub(crate) fn finish(self, key: &Key) -> Result<(Vec<u8>, Vec<PackedBlob>), RepositoryError> {
        let mut bytes = self.bytes;
        let header = key
            .seal(&encode_header(&self.blobs))
            .map_err(|error| RepositoryError::crypto("the header of a pack", error))?;
        bytes.reserve_exact(header.len() + 4);
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(&(header.len() as u32).to_le_bytes());
        Ok((bytes, self.blobs))
    }
}

fn encode_header(blobs: &[PackedBlob]) -> Vec<u8> {
    let mut out = Vec::with_capacity(blobs.len() * 41);
    for blob in blobs {
        let kind = match blob.kind {
            BlobKind::Data => 0,
            BlobKind::Tree => 1,
        };
        out.push(kind | if blob.uncompressed.is_some() { 2 } else { 0 });
        out.extend_from_slice(&blob.length.to_le_bytes());
        if let Some(length) = blob.uncompressed {
            out.extend_from_slice(&length.to_le_bytes());
        }
        out.extend_from_slice(blob.id.as_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reads the header of a whole pack, as a repair without the index would.
    fn read_header(pack: &[u8], key: &Key) -> Result<Vec<PackedBlob>, String> {
        let (rest, length) =
            pack.split_last_chunk::<4>().ok_or_else(|| String::from("shorter than its length field"))?;
        let length = u32::from_le_bytes(*length) as usize;
        if length < crate::crypto::OVERHEAD {
            return Err(String::from("its length is out of bounds"));
        }
        let start = rest.len().checked_sub(length).ok_or_else(|| String::from("longer than the pack"))?;
        let header = key.open(&rest[start..]).map_err(|error| error.to_string())?;
        let blobs = decode_header(&header).ok_or_else(|| String::from("an entry is cut or of an unknown type"))?;
        let end = blobs.last().map_or(0, |blob| u64::from(blob.offset) + u64::from(blob.length));
        if end == start as u64 { Ok(blobs) } else { Err(String::from("its lengths do not add up to the pack's")) }
    }

    fn decode_header(mut rest: &[u8]) -> Option<Vec<PackedBlob>> {
        let mut blobs = Vec::new();
        let mut offset = 0_u32;
        while let Some((kind, after)) = rest.split_first() {
            let (length, after) = after.split_first_chunk::<4>()?;
            let length = u32::from_le_bytes(*length);
            let (uncompressed, after) = if kind & 2 == 0 {
                (None, after)
            } else {
                let (length, after) = after.split_first_chunk::<4>()?;
                (Some(u32::from_le_bytes(*length)), after)
            };
            let (id, after) = after.split_first_chunk::<32>()?;
            let kind = match kind & !2 {
                0 => BlobKind::Data,
                1 => BlobKind::Tree,
                _ => return None,
            };
            blobs.push(PackedBlob { kind, id: Id::from_bytes(*id), offset, length, uncompressed });
            offset = offset.checked_add(length)?;
            rest = after;
        }
        Some(blobs)
    }

    fn blob(kind: BlobKind, plain: &[u8], key: &Key) -> SealedBlob {
        crate::blob::seal(kind, Id::of(plain), plain, key).unwrap()
    }

    proptest! {
        #[test]
        fn a_header_names_exactly_the_blobs_that_were_packed(
            contents in proptest::collection::vec((any::<bool>(), proptest::collection::vec(any::<u8>(), 0..300)), 0..40)
        ) {
            let key = Key::random().unwrap();
            let mut builder = PackBuilder::default();
            for (tree, plain) in &contents {
                builder.push(&blob(if *tree { BlobKind::Tree } else { BlobKind::Data }, plain, &key));
            }
            let (bytes, packed) = builder.finish(&key).unwrap();
            prop_assert_eq!(read_header(&bytes, &key).unwrap(), packed.clone());
            for (entry, (_, plain)) in packed.iter().zip(&contents) {
                let sealed = &bytes[entry.offset as usize..][..entry.length as usize];
                prop_assert_eq!(&crate::blob::open(entry.id, sealed, entry.uncompressed, &key).unwrap(), plain);
            }
        }

        #[test]
        fn no_bytes_make_the_header_reader_fail_otherwise_than_by_an_error(
            bytes in proptest::collection::vec(any::<u8>(), 0..200)
        ) {
            let key = Key::random().unwrap();
            prop_assert!(read_header(&bytes, &key).is_err());
            if let Some(blobs) = decode_header(&bytes) {
                prop_assert_eq!(encode_header(&blobs), bytes);
            }
        }
    }

    #[test]
    fn a_pack_is_full_at_its_target_size() {
        let key = Key::random().unwrap();
        let mut noise = vec![0; TARGET_SIZE / 2];
        crate::crypto::fill_random(&mut noise).unwrap();
        let blob = blob(BlobKind::Data, &noise, &key);
        let mut builder = PackBuilder::default();
        assert!(!builder.push(&blob));
        assert!(builder.push(&blob));
    }
}
