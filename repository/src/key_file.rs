//! Key files: the master key, encrypted under a key that scrypt derives from the password.

use serde::{Deserialize, Serialize};

use crate::crypto::{CryptoError, Key, KeyJson, fill_random};
use crate::error::RepositoryError;
use crate::go_json;

/// scrypt's cost for new keys: N = 2^15, r = 8, p = 1, which takes 32 MiB and about a tenth of a second.
const LOG_N: u8 = 15;
const R: u32 = 8;
const P: u32 = 1;
/// Memory that a key file may make us use: 128 * N * r bytes. A hostile one could ask for terabytes.
const MAX_MEMORY: u64 = 256 * 1024 * 1024;
const MAX_P: u32 = 64;

/// A key file's JSON, fields in restic's order.
#[derive(Serialize, Deserialize)]
pub(crate) struct KeyFile {
    created: jiff::Timestamp,
    #[serde(default)]
    username: String,
    #[serde(default)]
    hostname: String,
    kdf: String,
    #[serde(rename = "N")]
    n: u64,
    r: u32,
    p: u32,
    #[serde(with = "crate::base64_bytes")]
    salt: Vec<u8>,
    #[serde(with = "crate::base64_bytes")]
    data: Vec<u8>,
}

impl KeyFile {
    /// Encrypts a master key under this password. Slow on purpose: run it where blocking is allowed.
    pub(crate) fn seal(master: &Key, password: &str) -> Result<Self, RepositoryError> {
        let sealed = || -> Result<_, CryptoError> {
            let mut salt = vec![0; 64];
            fill_random(&mut salt)?;
            Ok(salt)
        };
        let salt = sealed().map_err(|error| RepositoryError::crypto("a new key", error))?;
        let mut file = Self {
            created: jiff::Timestamp::now(),
            username: "shoot-backup".to_owned(),
            hostname: "shoot-backup".to_owned(),
            kdf: "scrypt".to_owned(),
            n: 1 << LOG_N,
            r: R,
            p: P,
            salt,
            data: Vec::new(),
        };
        let json =
            go_json::to_vec(&master.to_json()).map_err(|error| RepositoryError::malformed("a new key", error))?;
        file.data = file.derive(password)?.seal(&json).map_err(|error| RepositoryError::crypto("a new key", error))?;
        Ok(file)
    }

    /// The master key, or `None` when the password is another one. Slow on purpose.
    pub(crate) fn open(&self, password: &str) -> Result<Option<Key>, RepositoryError> {
        let json = match self.derive(password)?.open(&self.data) {
            Ok(json) => json,
            Err(CryptoError::Unauthenticated) => return Ok(None),
            Err(error) => return Err(RepositoryError::crypto("a key file", error)),
        };
        let json: KeyJson =
            serde_json::from_slice(&json).map_err(|error| RepositoryError::malformed("a master key", error))?;
        Key::from_json(&json)
            .map(Some)
            .ok_or_else(|| RepositoryError::malformed("a master key", "a part has a wrong length"))
    }

    fn derive(&self, password: &str) -> Result<Key, RepositoryError> {
        let malformed = |reason: String| RepositoryError::malformed("a key file", reason);
        if self.kdf != "scrypt" {
            return Err(malformed(format!("key derivation {:?} is not supported", self.kdf)));
        }
        let memory = self.n.checked_mul(128).and_then(|bytes| bytes.checked_mul(u64::from(self.r)));
        if !self.n.is_power_of_two() || self.p > MAX_P || memory.is_none_or(|bytes| bytes > MAX_MEMORY) {
            return Err(malformed(format!(
                "scrypt parameters N={} r={} p={} are out of bounds",
                self.n, self.r, self.p
            )));
        }
        let parameters = scrypt::Params::new(self.n.trailing_zeros() as u8, self.r, self.p, 64)
            .map_err(|error| malformed(error.to_string()))?;
        let mut bytes = [0; 64];
        scrypt::scrypt(password.as_bytes(), &self.salt, &parameters, &mut bytes)
            .map_err(|error| malformed(error.to_string()))?;
        Ok(Key::from_derived(&bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_opens_the_key_and_another_does_not() {
        let master = Key::random().unwrap();
        let file = KeyFile::seal(&master, "right").unwrap();
        let json = go_json::to_vec(&file).unwrap();
        let file: KeyFile = serde_json::from_slice(&json).unwrap();
        let opened = file.open("right").unwrap().unwrap();
        assert_eq!(opened.open(&master.seal(b"text").unwrap()).unwrap(), b"text");
        assert!(file.open("wrong").unwrap().is_none());
    }

    #[test]
    fn a_key_that_asks_for_too_much_memory_is_refused() {
        let mut file = KeyFile::seal(&Key::random().unwrap(), "x").unwrap();
        file.n = 1 << 40;
        assert!(file.open("x").unwrap_err().to_string().contains("out of bounds"));
    }
}
