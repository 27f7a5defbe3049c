//! OCI archives with one layer: the same bytes for the same input.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Seek as _, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

/// One path of an image.
#[derive(Debug, Clone)]
pub(crate) enum Node {
    Folder { mode: u32 },
    Copy { from: PathBuf, mode: u32 },
    Text { text: String, mode: u32 },
    Link { target: String },
}

/// Paths of an image, sorted, relative to its root.
pub(crate) type Content = BTreeMap<String, Node>;

/// Adds the folders above each path: some unpackers do not make them up.
pub(crate) fn with_folders(mut content: Content) -> Content {
    let paths: Vec<_> = content.keys().cloned().collect();
    for path in paths {
        for folder in Path::new(&path).ancestors().skip(1) {
            let folder = folder.to_string_lossy();
            if !folder.is_empty() {
                content.entry(folder.into_owned()).or_insert(Node::Folder { mode: 0o755 });
            }
        }
    }
    content
}

/// Writes the archive and returns the digest of its manifest.
pub(crate) fn assemble(content: &Content, config: &Value, reference: &str, archive: &Path) -> io::Result<String> {
    let layer_path = archive.with_extension("layer");
    let mut layer = Hashing::new(BufWriter::new(File::create(&layer_path)?));
    write_layer(content, &mut layer)?;
    let (layer_digest, layer_size) = layer.finish()?;

    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [layer_digest]},
    })
    .to_string();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &digest(config.as_bytes()), config.len() as u64),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer_digest, layer_size)],
    })
    .to_string();
    let manifest_digest = digest(manifest.as_bytes());
    let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest_digest, manifest.len() as u64);
    entry["annotations"] = json!({"io.containerd.image.name": reference, "org.opencontainers.image.ref.name": "dev"});
    let index = json!({"schemaVersion": 2, "manifests": [entry]}).to_string();

    // Written aside and moved: an archive is whole or not there.
    let aside = archive.with_extension("tar.new");
    let mut builder = Builder::new(BufWriter::new(File::create(&aside)?));
    append(&mut builder, "oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    append(&mut builder, "index.json", 0o644, index.as_bytes())?;
    append(&mut builder, &blob(&manifest_digest), 0o644, manifest.as_bytes())?;
    append(&mut builder, &blob(&digest(config.as_bytes())), 0o644, config.as_bytes())?;
    let mut layer = File::open(&layer_path)?;
    layer.rewind()?;
    builder.append_data(
        &mut header(EntryType::Regular, 0o644, layer_size),
        blob(&layer_digest),
        BufReader::new(layer),
    )?;
    builder.into_inner()?.flush()?;
    fs::rename(&aside, archive)?;
    fs::remove_file(&layer_path)?;
    Ok(manifest_digest)
}

fn write_layer(content: &Content, layer: &mut impl Write) -> io::Result<()> {
    let mut builder = Builder::new(layer);
    for (path, node) in content {
        match node {
            Node::Folder { mode } => {
                builder.append_data(&mut header(EntryType::Directory, *mode, 0), format!("{path}/"), io::empty())?;
            }
            Node::Copy { from, mode } => {
                let file = File::open(from)?;
                let size = file.metadata()?.len();
                builder.append_data(&mut header(EntryType::Regular, *mode, size), path, BufReader::new(file))?;
            }
            Node::Text { text, mode } => append(&mut builder, path, *mode, text.as_bytes())?,
            Node::Link { target } => {
                builder.append_link(&mut header(EntryType::Symlink, 0o777, 0), path, target)?;
            }
        }
    }
    builder.finish()
}

fn append(builder: &mut Builder<impl Write>, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
    builder.append_data(&mut header(EntryType::Regular, mode, content.len() as u64), path, content)
}

/// A header that depends on nothing but its arguments: owned by root, of the epoch.
fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn descriptor(kind: &str, digest: &str, size: u64) -> Value {
    json!({"mediaType": kind, "digest": digest, "size": size})
}

fn blob(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// Counts and hashes what passes through.
struct Hashing<W> {
    inner: W,
    hash: Sha256,
    size: u64,
}

impl<W: Write> Hashing<W> {
    fn new(inner: W) -> Self {
        Self { inner, hash: Sha256::new(), size: 0 }
    }

    fn finish(mut self) -> io::Result<(String, u64)> {
        self.inner.flush()?;
        Ok((format!("sha256:{}", hex::encode(self.hash.finalize())), self.size))
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(bytes.get(..written).unwrap_or_default());
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// The digest recorded in an archive's index; archives are trusted, they are our own.
pub(crate) fn recorded_digest(archive: &Path) -> io::Result<String> {
    let mut archive = tar::Archive::new(BufReader::new(File::open(archive)?));
    for entry in archive.entries()? {
        let mut entry = entry?;
        if entry.path()?.as_ref() == Path::new("index.json") {
            let mut text = String::new();
            entry.by_ref().take(1 << 16).read_to_string(&mut text)?;
            let index: Value = serde_json::from_str(&text)?;
            if let Some(digest) = index.pointer("/manifests/0/digest").and_then(Value::as_str) {
                return Ok(digest.to_owned());
            }
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "no index.json in the archive"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(folder: &Path, name: &str, text: &str) -> (Vec<u8>, String) {
        let source = folder.join("program");
        fs::write(&source, text).unwrap();
        let content =
            with_folders(Content::from([("usr/bin/program".to_owned(), Node::Copy { from: source, mode: 0o755 })]));
        let archive = folder.join(name);
        let digest =
            assemble(&content, &json!({"Entrypoint": ["/usr/bin/program"]}), "docker.io/x/y:dev", &archive).unwrap();
        (fs::read(archive).unwrap(), digest)
    }

    #[test]
    fn the_same_input_gives_the_same_image() {
        let folder = tempfile::tempdir().unwrap();
        let first = built(folder.path(), "one.tar", "text");
        assert_eq!(first, built(folder.path(), "two.tar", "text"));
        assert_ne!(first.1, built(folder.path(), "three.tar", "other").1);
    }

    #[test]
    fn every_digest_in_the_archive_is_that_of_the_blob_it_names() {
        let folder = tempfile::tempdir().unwrap();
        let (bytes, digest) = built(folder.path(), "one.tar", "text");
        assert_eq!(digest, recorded_digest(&folder.path().join("one.tar")).unwrap());
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut blobs = 0;
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().to_string_lossy().into_owned();
            if let Some(named) = path.strip_prefix("blobs/sha256/") {
                let mut content = Vec::new();
                entry.read_to_end(&mut content).unwrap();
                assert_eq!(named, hex::encode(Sha256::digest(&content)));
                blobs += 1;
            }
        }
        assert_eq!(3, blobs);
    }

    #[test]
    fn an_image_has_every_folder_above_its_files() {
        let content = with_folders(Content::from([(
            "usr/lib/x/y.so".to_owned(),
            Node::Text { text: String::new(), mode: 0o644 },
        )]));
        for folder in ["usr", "usr/lib", "usr/lib/x"] {
            assert!(matches!(content.get(folder), Some(Node::Folder { mode: 0o755 })), "{folder}");
        }
    }
}
