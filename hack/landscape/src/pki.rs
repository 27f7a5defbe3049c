//! Certificates and keys of a landscape, made once and kept in its state folder.
//!
//! One authority signs all *server* certificates: people and pods trust a single `ca.crt`. *Client* authorities are one
//! per cluster, so that no credential of one cluster is accepted by another, as with real Shoots.

use std::net::IpAddr;
use std::path::PathBuf;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, RsaKeySize, date_time_ymd,
};

use crate::error::{Doing, Error, Result};
use crate::place::{read, write};

/// The folder of certificates.
#[derive(Debug, Clone)]
pub(crate) struct Pki {
    folder: PathBuf,
}

/// Which kind of key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    /// NIST P-256.
    Ec,
    /// RSA with 2048 bits, where a counterpart insists on it.
    Rsa,
}

/// A certificate and its key on disk.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// A certificate authority of the landscape.
pub(crate) struct Authority {
    pub(crate) pair: Pair,
    issuer: Issuer<'static, KeyPair>,
}

impl Pki {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    pub(crate) fn pair(&self, name: &str) -> Pair {
        Pair { certificate: self.folder.join(format!("{name}.crt")), key: self.folder.join(format!("{name}.key")) }
    }

    /// The authority of this name, made if it is not there.
    pub(crate) fn authority(&self, name: &str, kind: Key) -> Result<Authority> {
        let pair = self.pair(name);
        let mut params = base(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = if pair.certificate.exists() {
            KeyPair::from_pem(&read(&pair.key)?).doing(|| format!("authority {name} from its key"))?
        } else {
            let key = generate(kind).doing(|| format!("the key of authority {name}"))?;
            let certificate = params.self_signed(&key).doing(|| format!("authority {name}"))?;
            write(&pair.key, key.serialize_pem())?;
            write(&pair.certificate, certificate.pem())?;
            key
        };
        Ok(Authority { pair, issuer: Issuer::new(params, key) })
    }

    /// A certificate for a server that is reached by these names and addresses.
    pub(crate) fn server(
        &self,
        authority: &Authority,
        name: &str,
        names: &[&str],
        addresses: &[IpAddr],
    ) -> Result<Pair> {
        let sans: Vec<_> =
            names.iter().map(ToString::to_string).chain(addresses.iter().map(ToString::to_string)).collect();
        let mut params = CertificateParams::new(sans).doing(|| format!("certificate {name}"))?;
        let base = base(name, &[]);
        params.not_before = base.not_before;
        params.not_after = base.not_after;
        params.distinguished_name = base.distinguished_name;
        self.leaf(authority, name, params, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A certificate for a client that is this user in these groups.
    pub(crate) fn client(&self, authority: &Authority, name: &str, user: &str, groups: &[&str]) -> Result<Pair> {
        self.leaf(authority, name, base(user, groups), ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// A bare private key, made if it is not there.
    pub(crate) fn key(&self, name: &str, kind: Key) -> Result<PathBuf> {
        let path = self.pair(name).key;
        if !path.exists() {
            write(&path, generate(kind).doing(|| format!("key {name}"))?.serialize_pem())?;
        }
        Ok(path)
    }

    fn leaf(
        &self,
        authority: &Authority,
        name: &str,
        mut params: CertificateParams,
        usage: ExtendedKeyUsagePurpose,
    ) -> Result<Pair> {
        let pair = self.pair(name);
        if pair.certificate.exists() {
            return Ok(pair);
        }
        let what = || format!("certificate {name}");
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![usage];
        let key = generate(Key::Ec).doing(what)?;
        let certificate = params.signed_by(&key, &authority.issuer).doing(what)?;
        write(&pair.key, key.serialize_pem())?;
        write(&pair.certificate, certificate.pem())?;
        Ok(pair)
    }
}

fn generate(kind: Key) -> Result<KeyPair, rcgen::Error> {
    match kind {
        Key::Ec => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
        Key::Rsa => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048),
    }
}

fn base(common_name: &str, organizations: &[&str]) -> CertificateParams {
    let mut name = DistinguishedName::new();
    for organization in organizations {
        name.push(DnType::OrganizationName, *organization);
    }
    name.push(DnType::CommonName, common_name);
    let mut params = CertificateParams::default();
    params.distinguished_name = name;
    // A landscape is short-lived, its machine's clock may be anything.
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2049, 12, 31);
    params
}

/// An RSA key as PKCS #1 PEM, from PKCS #8 PEM: Gardener signs admin kubeconfigs with the former only.
pub(crate) fn pkcs1(pkcs8: &str) -> Result<String> {
    let malformed = || Error::Precondition("failed to read an RSA key: it is not PKCS #8".to_owned());
    let body: String = pkcs8.lines().filter(|line| !line.starts_with('-')).collect();
    let der = BASE64_STANDARD.decode(body).map_err(|_| malformed())?;
    // RFC 5208: SEQUENCE { version INTEGER, algorithm SEQUENCE, key OCTET STRING holding RFC 8017's RSAPrivateKey }.
    let (_, content, _) = element(&der).ok_or_else(malformed)?;
    let (_, _, rest) = element(content).ok_or_else(malformed)?;
    let (_, _, rest) = element(rest).ok_or_else(malformed)?;
    let (tag, key, _) = element(rest).ok_or_else(malformed)?;
    if tag != 0x04 {
        return Err(malformed());
    }
    let text = BASE64_STANDARD.encode(key);
    let mut pem = String::from("-----BEGIN RSA PRIVATE KEY-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str("-----END RSA PRIVATE KEY-----\n");
    Ok(pem)
}

/// One DER element: its tag, its content, what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let mut length = usize::from(first);
    if first & 0x80 != 0 {
        let (bytes, after) = rest.split_at_checked(usize::from(first & 0x7f))?;
        length = bytes.iter().try_fold(0_usize, |sum, byte| sum.checked_mul(256)?.checked_add(usize::from(*byte)))?;
        rest = after;
    }
    let (content, after) = rest.split_at_checked(length)?;
    Some((tag, content, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_rsa_key_is_the_same_key_as_pkcs1() {
        let key = generate(Key::Rsa).unwrap();
        let pkcs1 = pkcs1(&key.serialize_pem()).unwrap();
        assert!(pkcs1.starts_with("-----BEGIN RSA PRIVATE KEY-----\n"));
        let again = KeyPair::from_pem(&pkcs1).unwrap();
        assert_eq!(key.public_key_pem(), again.public_key_pem());
    }

    #[test]
    fn an_authority_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let pki = Pki::new(folder.path().to_owned());
        let first = pki.authority("ca", Key::Ec).unwrap();
        let before = read(&first.pair.certificate).unwrap();
        let second = pki.authority("ca", Key::Ec).unwrap();
        assert_eq!(before, read(&second.pair.certificate).unwrap());
    }
}
