//! Files outside packs: index and snapshots (restic design, "Unpacked Data Format").

use crate::crypto::Key;
use crate::error::RepositoryError;

/// The first byte of a compressed file's plaintext. JSON of version 1 starts with a bracket instead.
const COMPRESSED: u8 = 2;
/// The longest plaintext we accept: restic keeps index files near 8 MiB, and old ones can be a few times that.
const MAX_PLAIN: usize = 512 * 1024 * 1024;

/// Compresses and encrypts.
pub(crate) fn seal(json: &[u8], key: &Key, what: &str) -> Result<Vec<u8>, RepositoryError> {
    let mut plain = vec![COMPRESSED];
    let compressed = zstd::bulk::compress(json, 3).map_err(|error| RepositoryError::malformed(what, error))?;
    plain.extend_from_slice(&compressed);
    key.seal(&plain).map_err(|error| RepositoryError::crypto(what, error))
}

/// Decrypts, and decompresses what is compressed.
pub(crate) fn open(sealed: &[u8], key: &Key, what: &str) -> Result<Vec<u8>, RepositoryError> {
    let plain = key.open(sealed).map_err(|error| RepositoryError::crypto(what, error))?;
    match plain.split_first() {
        Some((&COMPRESSED, compressed)) => {
            decompress(compressed).map_err(|error| RepositoryError::malformed(what, error))
        }
        Some((b'[' | b'{', _)) => Ok(plain),
        Some((version, _)) => {
            Err(RepositoryError::malformed(what, format!("encoding version {version} is not supported")))
        }
        None => Err(RepositoryError::malformed(what, "it is empty")),
    }
}

fn decompress(compressed: &[u8]) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let mut plain = Vec::new();
    let decoder = zstd::stream::read::Decoder::with_buffer(compressed)?;
    decoder.take(MAX_PLAIN as u64 + 1).read_to_end(&mut plain)?;
    if plain.len() > MAX_PLAIN {
        return Err(std::io::Error::other(format!("it decompresses to more than {MAX_PLAIN} bytes")));
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_encodings_are_read_and_others_refused() {
        let key = Key::random().unwrap();
        assert_eq!(open(&seal(b"{}", &key, "x").unwrap(), &key, "x").unwrap(), b"{}");
        assert_eq!(open(&key.seal(b"[1]").unwrap(), &key, "x").unwrap(), b"[1]");
        assert!(open(&key.seal(b"\x03").unwrap(), &key, "x").is_err());
        assert!(open(&key.seal(b"").unwrap(), &key, "x").is_err());
    }
}
