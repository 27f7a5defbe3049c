//! Blobs: pieces of files and directory listings, compressed and encrypted one by one.

use serde::{Deserialize, Serialize};

use crate::crypto::{CryptoError, Key};
use crate::id::Id;

/// What a blob holds. Data and trees never share a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BlobKind {
    /// A piece of a file.
    Data,
    /// A directory's entries.
    Tree,
}

impl BlobKind {
    /// `data` or `tree`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Tree => "tree",
        }
    }
}

/// The longest blob that anyone writes is far below: restic's own limit for what one blob may decompress to would be
/// 4 GiB, and we hold a blob in memory. Trees of directories with a million entries have about 400 MiB.
pub(crate) const MAX_PLAIN: u32 = 1 << 30;

/// zstd's default: what restic's `auto` uses too.
const COMPRESSION_LEVEL: i32 = 3;

/// A blob as it stands in a pack.
#[derive(Debug)]
pub(crate) struct SealedBlob {
    pub(crate) kind: BlobKind,
    pub(crate) id: Id,
    pub(crate) bytes: Vec<u8>,
    /// Length before compression; `None` when it is stored as it is.
    pub(crate) uncompressed: Option<u32>,
}

/// Why a blob's bytes are not the blob.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// Decryption failed.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
    /// Decompression failed, or gave another length than the index says.
    #[error("failed to decompress: {0}")]
    Decompress(String),
    /// Its hash is not its id.
    #[error("the contents hash to {actual}, not to the blob's id")]
    WrongHash {
        /// What they hash to.
        actual: Id,
    },
    /// Longer than a blob can be.
    #[error("{length} bytes are more than a blob can have ({MAX_PLAIN})")]
    TooLong {
        /// How long.
        length: usize,
    },
}

/// Compresses where that makes it shorter, and encrypts. Takes milliseconds per MiB: run it where blocking is allowed.
pub(crate) fn seal(kind: BlobKind, id: Id, plain: &[u8], key: &Key) -> Result<SealedBlob, BlobError> {
    let length = u32::try_from(plain.len())
        .ok()
        .filter(|length| *length <= MAX_PLAIN)
        .ok_or(BlobError::TooLong { length: plain.len() })?;
    // Trees are always compressed, data only when it gains: what is random already would only grow.
    let compressed =
        zstd::bulk::compress(plain, COMPRESSION_LEVEL).map_err(|error| BlobError::Decompress(error.to_string()))?;
    let (bytes, uncompressed) =
        if compressed.len() < plain.len() { (key.seal(&compressed)?, Some(length)) } else { (key.seal(plain)?, None) };
    Ok(SealedBlob { kind, id, bytes, uncompressed })
}

/// Decrypts, decompresses and checks against the id.
pub(crate) fn open(id: Id, sealed: &[u8], uncompressed: Option<u32>, key: &Key) -> Result<Vec<u8>, BlobError> {
    let mut plain = key.open(sealed)?;
    if let Some(length) = uncompressed {
        if length > MAX_PLAIN {
            return Err(BlobError::TooLong { length: length as usize });
        }
        plain = zstd::bulk::decompress(&plain, length as usize)
            .map_err(|error| BlobError::Decompress(error.to_string()))?;
        if plain.len() != length as usize {
            return Err(BlobError::Decompress(format!("{} bytes instead of {length}", plain.len())));
        }
    }
    let actual = Id::of(&plain);
    if actual == id { Ok(plain) } else { Err(BlobError::WrongHash { actual }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blobs_open_to_what_was_sealed_compressed_only_where_it_gains() {
        let key = Key::random().unwrap();
        let mut noise = vec![0; 10_000];
        crate::crypto::fill_random(&mut noise).unwrap();
        for (plain, compressed) in [(vec![b'a'; 10_000], true), (noise, false), (Vec::new(), false)] {
            let id = Id::of(&plain);
            let sealed = seal(BlobKind::Data, id, &plain, &key).unwrap();
            assert_eq!(sealed.uncompressed.is_some(), compressed);
            assert_eq!(open(id, &sealed.bytes, sealed.uncompressed, &key).unwrap(), plain);
        }
    }

    #[test]
    fn another_blob_in_its_place_is_noticed() {
        let key = Key::random().unwrap();
        let sealed = seal(BlobKind::Data, Id::of(b"a"), b"b", &key).unwrap();
        assert!(matches!(open(Id::of(b"a"), &sealed.bytes, None, &key), Err(BlobError::WrongHash { .. })));
    }
}
