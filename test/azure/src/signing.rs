//! The emulator's own key: signs access tokens as the tenant's token service does, and checks them as the storage
//! service does. ES256, where Entra ID uses RS256: no client looks into an access token.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use crate::model::Configuration;

/// The resource that storage tokens are for.
pub const STORAGE_AUDIENCE: &str = "https://storage.azure.com";

/// Why there is no signing key.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    /// The operating system or the library gave none.
    #[error("failed to make a signing key: {0}")]
    Generate(#[source] rcgen::Error),
    /// The state file's key is not one.
    #[error("failed to read the signing key of the state file, remove the file to start afresh")]
    Read,
    /// A token could not be signed.
    #[error("failed to sign an access token: {0}")]
    Sign(#[source] jsonwebtoken::errors::Error),
}

/// Claims of an access token for storage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessClaims {
    /// Resource that the token is for.
    pub aud: String,
    /// `https://sts.windows.net/{tenant}/`.
    pub iss: String,
    /// Seconds since 1970, as are the next two.
    pub iat: i64,
    /// Not before.
    pub nbf: i64,
    /// Not after.
    pub exp: i64,
    /// Client id.
    pub appid: String,
    /// `2`: the client proved itself by an assertion.
    pub appidacr: String,
    /// Tenant's issuer again.
    pub idp: String,
    /// Object id of the service principal.
    pub oid: String,
    /// The same for an application.
    pub sub: String,
    /// Tenant id.
    pub tid: String,
    /// Token id.
    pub uti: String,
    /// Version.
    pub ver: String,
    /// The emulator's own: tokens of an earlier generation are revoked.
    pub generation: u64,
}

/// What is wrong with a bearer token, in the storage service's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BearerError {
    /// Not a token at all.
    #[error("Authentication scheme Bearer is not supported in this format.")]
    Malformed,
    /// Signed by nobody we know.
    #[error("Signature validation failed. Signature key not found.")]
    Signature,
    /// Too old.
    #[error("Lifetime validation failed. The token is expired.")]
    Expired,
    /// For something else.
    #[error("Audience validation failed. Audience did not match.")]
    Audience,
    /// From a tenant that the account does not trust.
    #[error("Issuer validation failed. Issuer did not match.")]
    Issuer,
    /// Revoked through the admin interface.
    #[error(
        "Continuous access evaluation resulted in challenge with result: InteractionRequired and code: TokenIssuedBeforeRevocationTimestamp"
    )]
    Revoked,
}

/// An ECDSA P-256 key pair.
pub struct SigningKey {
    pkcs8: Vec<u8>,
    x: String,
    y: String,
    kid: String,
}

impl SigningKey {
    /// A new key.
    pub fn generate() -> Result<Self, SigningError> {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(SigningError::Generate)?;
        Self::from_pair(&pair)
    }

    /// The key of the configuration.
    pub fn of(configuration: &Configuration) -> Result<Self, SigningError> {
        let der = STANDARD.decode(&configuration.signing_key).map_err(|_| SigningError::Read)?;
        let pair = rcgen::KeyPair::try_from(der).map_err(|_| SigningError::Read)?;
        Self::from_pair(&pair)
    }

    fn from_pair(pair: &rcgen::KeyPair) -> Result<Self, SigningError> {
        // SEC 1 uncompressed point: 04, then 32 bytes each of x and y.
        let point = pair.public_key_raw();
        let (Some(4), Some(x), Some(y), 65) = (point.first(), point.get(1..33), point.get(33..65), point.len()) else {
            return Err(SigningError::Read);
        };
        let kid = URL_SAFE_NO_PAD.encode(x.get(..15).unwrap_or(x));
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        Ok(Self { pkcs8: pair.serialize_der(), x, y, kid })
    }

    /// As the state file keeps it.
    pub fn to_base64(&self) -> String {
        STANDARD.encode(&self.pkcs8)
    }

    /// The published key set.
    pub fn jwks(&self) -> serde_json::Value {
        serde_json::json!({"keys": [
            {"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.kid, "x": self.x, "y": self.y}
        ]})
    }

    /// Signs an access token.
    pub fn sign(&self, claims: &AccessClaims) -> Result<String, SigningError> {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.kid.clone());
        jsonwebtoken::encode(&header, claims, &EncodingKey::from_ec_der(&self.pkcs8)).map_err(SigningError::Sign)
    }

    /// Checks what the storage service checks of a token. `now` in seconds since 1970; Azure grants five minutes of
    /// clock skew, this does not, so that a test of expiry need not wait for them.
    pub fn verify(&self, token: &str, generation: u64, now: i64) -> Result<AccessClaims, BearerError> {
        jsonwebtoken::decode_header(token).map_err(|_| BearerError::Malformed)?;
        let key = DecodingKey::from_ec_components(&self.x, &self.y).map_err(|_| BearerError::Signature)?;
        // The library would check time against its own clock and name only the first fault: do both here.
        let mut validation = Validation::new(Algorithm::ES256);
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        let claims =
            jsonwebtoken::decode::<AccessClaims>(token, &key, &validation).map_err(|_| BearerError::Signature)?.claims;
        if claims.iss != format!("https://sts.windows.net/{}/", claims.tid) {
            return Err(BearerError::Issuer);
        }
        if claims.aud.trim_end_matches('/') != STORAGE_AUDIENCE {
            return Err(BearerError::Audience);
        }
        if now < claims.nbf || now >= claims.exp {
            return Err(BearerError::Expired);
        }
        if claims.generation != generation {
            return Err(BearerError::Revoked);
        }
        Ok(claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(now: i64) -> AccessClaims {
        AccessClaims {
            aud: STORAGE_AUDIENCE.into(),
            iss: "https://sts.windows.net/t/".into(),
            iat: now,
            nbf: now,
            exp: now + 60,
            appid: "c".into(),
            appidacr: "2".into(),
            idp: "https://sts.windows.net/t/".into(),
            oid: "o".into(),
            sub: "o".into(),
            tid: "t".into(),
            uti: "u".into(),
            ver: "1.0".into(),
            generation: 3,
        }
    }

    #[test]
    fn a_token_counts_from_its_issue_until_its_end_and_only_in_its_generation() {
        let key = SigningKey::generate().unwrap();
        let token = key.sign(&claims(1000)).unwrap();
        assert_eq!(key.verify(&token, 3, 1000).unwrap(), claims(1000));
        assert_eq!(key.verify(&token, 3, 1059).unwrap().appid, "c");
        assert_eq!(key.verify(&token, 3, 999), Err(BearerError::Expired));
        assert_eq!(key.verify(&token, 3, 1060), Err(BearerError::Expired));
        assert_eq!(key.verify(&token, 4, 1000), Err(BearerError::Revoked));
    }

    #[test]
    fn a_token_of_another_key_audience_or_issuer_is_refused() {
        let (key, other) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let verify = |claims: &AccessClaims| key.verify(&key.sign(claims).unwrap(), 3, 1000);
        assert_eq!(key.verify(&other.sign(&claims(1000)).unwrap(), 3, 1000), Err(BearerError::Signature));
        assert_eq!(key.verify("no.token.this", 3, 1000), Err(BearerError::Malformed));
        let elsewhere = AccessClaims { aud: "https://vault.azure.net".into(), ..claims(1000) };
        assert_eq!(verify(&elsewhere), Err(BearerError::Audience));
        let foreign = AccessClaims { iss: "https://evil.example/".into(), ..claims(1000) };
        assert_eq!(verify(&foreign), Err(BearerError::Issuer));
    }

    #[test]
    fn a_key_survives_its_way_through_the_state_file() {
        let key = SigningKey::generate().unwrap();
        let configuration = Configuration { signing_key: key.to_base64(), ..Configuration::default() };
        let read = SigningKey::of(&configuration).unwrap();
        let token = key.sign(&claims(0)).unwrap();
        assert!(read.verify(&token, 3, 1).is_ok());
        assert_eq!(read.jwks(), key.jwks());
    }
}
