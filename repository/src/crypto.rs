//! The repository's cipher: AES-256-CTR with Poly1305-AES (restic design, "Keys, Encryption and MAC").

use aes::cipher::{BlockEncrypt, KeyInit, KeyIvInit, StreamCipher};
use aes::{Aes128, Aes256};
use poly1305::Poly1305;
use serde::{Deserialize, Serialize};

/// Bytes by which encryption lengthens a text: 16 of initialisation vector, 16 of authentication code.
pub(crate) const OVERHEAD: usize = IV + MAC;
const IV: usize = 16;
const MAC: usize = 16;

/// Why something could not be encrypted or decrypted.
#[derive(Debug, thiserror::Error)]
pub enum CryptoError {
    /// Fewer bytes than the overhead alone.
    #[error("failed to decrypt {length} bytes: too short to hold an initialisation vector and an authentication code")]
    TooShort {
        /// How many there were.
        length: usize,
    },
    /// Wrong key, or the bytes are not those that were written.
    #[error("failed to authenticate: the key is another one or the bytes were changed")]
    Unauthenticated,
    /// The operating system gave no random bytes.
    #[error("failed to get random bytes from the operating system: {0}")]
    Random(getrandom::Error),
}

/// An encryption and an authentication key. Its `Debug` form shows neither.
#[derive(Clone)]
pub struct Key {
    encrypt: [u8; 32],
    mac_k: [u8; 16],
    mac_r: [u8; 16],
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

/// The master key's JSON, as it stands encrypted in a key file. Byte strings are Base64, as Go writes them.
#[derive(Serialize, Deserialize)]
pub(crate) struct KeyJson {
    mac: MacJson,
    #[serde(with = "crate::base64_bytes")]
    encrypt: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct MacJson {
    #[serde(with = "crate::base64_bytes")]
    k: Vec<u8>,
    #[serde(with = "crate::base64_bytes")]
    r: Vec<u8>,
}

impl Key {
    /// A new random key.
    pub(crate) fn random() -> Result<Self, CryptoError> {
        let mut bytes = [0; 64];
        fill_random(&mut bytes)?;
        Ok(Self::from_derived(&bytes))
    }

    /// Splits what the key derivation gave: 32 bytes for AES, 16 for `k`, 16 for `r`.
    pub(crate) fn from_derived(bytes: &[u8; 64]) -> Self {
        let mut key = Self { encrypt: [0; 32], mac_k: [0; 16], mac_r: [0; 16] };
        key.encrypt.copy_from_slice(&bytes[..32]);
        key.mac_k.copy_from_slice(&bytes[32..48]);
        key.mac_r.copy_from_slice(&bytes[48..]);
        key
    }

    pub(crate) fn to_json(&self) -> KeyJson {
        KeyJson { mac: MacJson { k: self.mac_k.to_vec(), r: self.mac_r.to_vec() }, encrypt: self.encrypt.to_vec() }
    }

    /// `None` when a part has another length than it must have.
    pub(crate) fn from_json(json: &KeyJson) -> Option<Self> {
        Some(Self {
            encrypt: json.encrypt.as_slice().try_into().ok()?,
            mac_k: json.mac.k.as_slice().try_into().ok()?,
            mac_r: json.mac.r.as_slice().try_into().ok()?,
        })
    }

    /// `IV || ciphertext || MAC` under a fresh random IV.
    pub(crate) fn seal(&self, plaintext: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let mut out = Vec::with_capacity(plaintext.len() + OVERHEAD);
        out.extend_from_slice(&[0; IV]);
        fill_random(&mut out)?;
        let mut iv = [0; IV];
        iv.copy_from_slice(&out);
        out.extend_from_slice(plaintext);
        self.apply_keystream(&iv, &mut out[IV..]);
        let mac = self.mac(&iv, &out[IV..]);
        out.extend_from_slice(&mac);
        Ok(out)
    }

    /// Checks and decrypts what [`Key::seal`] gave.
    pub(crate) fn open(&self, sealed: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let length = sealed.len();
        let (iv, rest) = sealed.split_first_chunk::<IV>().ok_or(CryptoError::TooShort { length })?;
        let (ciphertext, mac) = rest.split_last_chunk::<MAC>().ok_or(CryptoError::TooShort { length })?;
        let expected = self.mac(iv, ciphertext);
        // Without an early exit, so that the time tells nothing about the code.
        if expected.iter().zip(mac).fold(0, |difference, (a, b)| difference | (a ^ b)) != 0 {
            return Err(CryptoError::Unauthenticated);
        }
        let mut plaintext = ciphertext.to_vec();
        self.apply_keystream(iv, &mut plaintext);
        Ok(plaintext)
    }

    fn apply_keystream(&self, iv: &[u8; IV], data: &mut [u8]) {
        ctr::Ctr128BE::<Aes256>::new(&self.encrypt.into(), iv.into()).apply_keystream(data);
    }

    /// Poly1305 under `r || AES-128(k, IV)`.
    fn mac(&self, iv: &[u8; IV], ciphertext: &[u8]) -> [u8; MAC] {
        let mut pad = (*iv).into();
        Aes128::new(&self.mac_k.into()).encrypt_block(&mut pad);
        let mut one_time = [0; 32];
        one_time[..16].copy_from_slice(&self.mac_r);
        one_time[16..].copy_from_slice(&pad);
        Poly1305::new(&one_time.into()).compute_unpadded(ciphertext).into()
    }
}

/// Fills with random bytes of the operating system.
pub(crate) fn fill_random(bytes: &mut [u8]) -> Result<(), CryptoError> {
    getrandom::fill(bytes).map_err(CryptoError::Random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_opens_with_the_same_key_only() {
        let key = Key::random().unwrap();
        for length in [0, 1, 15, 16, 17, 1000] {
            let text = vec![7; length];
            let sealed = key.seal(&text).unwrap();
            assert_eq!(sealed.len(), length + OVERHEAD);
            assert_eq!(key.open(&sealed).unwrap(), text);
            assert!(matches!(Key::random().unwrap().open(&sealed), Err(CryptoError::Unauthenticated)));
        }
    }

    #[test]
    fn every_changed_bit_is_noticed() {
        let key = Key::random().unwrap();
        let sealed = key.seal(b"abc").unwrap();
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(key.open(&changed).is_err(), "bit {bit}");
        }
        assert!(matches!(key.open(&sealed[..31]), Err(CryptoError::TooShort { length: 31 })));
    }

    #[test]
    fn a_key_never_shows_itself_in_debug_output() {
        assert_eq!(format!("{:?}", Key::random().unwrap()), "Key(..)");
    }
}
