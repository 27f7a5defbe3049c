//! One Azurite for all tests of this binary: each test has containers of its own.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

pub const ACCOUNT: &str = "emulated";

/// Runs a program until standard input ends, then ends it and removes its folder.
const LEASHED: &str =
    r#""$@" & child=$!; read -r _; exec 2>/dev/null; kill -9 $child; wait $child; rm -rf "$LEASHED_FOLDER""#;

/// A certificate authority with one server certificate for localhost, as files.
pub struct Certificates {
    pub authority: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

pub struct Azurite {
    pub url: String,
    pub certificates: Certificates,
    // Held open: the shell that keeps Azurite ends it when this closes, also when the tests are killed.
    _leash: ChildStdin,
    _shell: Child,
    _output: BufReader<std::process::ChildStdout>,
}

pub fn azurite() -> &'static Azurite {
    static AZURITE: OnceLock<Azurite> = OnceLock::new();
    AZURITE.get_or_init(start)
}

fn start() -> Azurite {
    // A static is never dropped: the shell below removes the folder.
    let folder = tempfile::tempdir().unwrap().keep();
    let certificates = certificates(&folder);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../hack/tools/azurite.sh");
    let installed = Command::new(&script).stderr(Stdio::inherit()).output().expect("hack/tools/azurite.sh runs");
    assert!(installed.status.success(), "hack/tools/azurite.sh failed");
    let main = String::from_utf8(installed.stdout).unwrap().trim().to_owned();

    let mut child = Command::new("sh")
        .args(["-c", LEASHED, "azurite", "node", &main])
        .args(["--blobHost", "127.0.0.1", "--blobPort", "0", "--oauth", "basic"])
        .arg("--cert")
        .arg(&certificates.certificate)
        .arg("--key")
        .arg(&certificates.key)
        .args(["--disableTelemetry", "--silent", "--skipApiVersionCheck", "--inMemoryPersistence"])
        .env("AZURITE_ACCOUNTS", format!("{ACCOUNT}:a2V5"))
        .env("LEASHED_FOLDER", &folder)
        .current_dir(&folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("node runs");
    let leash = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    let url = loop {
        line.clear();
        assert_ne!(output.read_line(&mut line).unwrap(), 0, "Azurite ended before it listened");
        if let Some((_, url)) = line.split_once("successfully listens on ") {
            break url.trim().to_owned();
        }
    };
    Azurite { url, certificates, _leash: leash, _shell: child, _output: output }
}

fn certificates(folder: &Path) -> Certificates {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();
    let write = |name: &str, content: String| {
        let path = folder.join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    Certificates {
        authority: write("authority.pem", authority.pem()),
        certificate: write("server.pem", certificate.pem()),
        key: write("server-key.pem", key.serialize_pem()),
    }
}
