//! Container images from programs of this machine: the program, what it is linked with, certificates, two users.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::command;
use crate::error::{Doing, Result};
use crate::oci::{Content, Node, assemble, recorded_digest, with_folders};
use crate::place::own_program;

/// The unprivileged user of images that need none other.
const NONROOT: &str = "65532:65532";
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";
const BUSYBOX: &str = "/bin/busybox";

/// The image of every pod's sandbox.
pub(crate) const PAUSE: &str = "docker.io/landscape/pause:dev";

/// An image that the landscape knows how to build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Image {
    /// `landscape/busybox:dev`: a shell and its tools, for test workloads.
    Busybox,
    /// `landscape/pause:dev`: what holds a pod's namespaces.
    Pause,
    /// `shoot-backup/agent:dev`.
    Agent,
    /// `shoot-backup/extension:dev`.
    Extension,
}

impl Image {
    /// All images.
    pub const ALL: [Self; 4] = [Self::Busybox, Self::Pause, Self::Agent, Self::Extension];

    /// The reference that pods name, with the registry that Kubernetes adds.
    #[must_use]
    pub const fn reference(self) -> &'static str {
        match self {
            Self::Busybox => "docker.io/landscape/busybox:dev",
            Self::Pause => PAUSE,
            Self::Agent => "docker.io/shoot-backup/agent:dev",
            Self::Extension => "docker.io/shoot-backup/extension:dev",
        }
    }

    /// Name of the archive.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Busybox => "busybox",
            Self::Pause => "pause",
            Self::Agent => "agent",
            Self::Extension => "extension",
        }
    }

    /// The project's program inside, if it is one of the project's images.
    #[must_use]
    pub const fn program(self) -> Option<&'static str> {
        match self {
            Self::Agent => Some("shoot-backup-agent"),
            Self::Extension => Some("shoot-backup-extension"),
            Self::Busybox | Self::Pause => None,
        }
    }
}

/// An image archive on disk.
#[derive(Debug, Clone)]
pub(crate) struct Archive {
    pub(crate) image: Image,
    pub(crate) path: PathBuf,
    /// Digest of the manifest: changes exactly when the image does.
    pub(crate) digest: String,
}

/// Builds the image's archive in `folder`.
pub(crate) async fn build(image: Image, folder: &Path) -> Result<Archive> {
    fs::create_dir_all(folder).doing(|| format!("create {}", folder.display()))?;
    let path = folder.join(format!("{}.tar", image.name()));
    let original = image.program().map_or_else(|| Ok(PathBuf::from(BUSYBOX)), own_program)?;
    if let Some(digest) = fresh(&path, &original) {
        return Ok(Archive { image, path, digest });
    }
    let (content, config) = match image.program() {
        Some(program) => {
            let stripped = folder.join(program);
            command::run(&["strip", "-o", &stripped.to_string_lossy(), &original.to_string_lossy()]).await?;
            (program_content(program, &stripped, &libraries(&original).await?), program_config(program))
        }
        None => (busybox_content(&busybox_applets().await?), busybox_config(image)),
    };
    let archive = path.clone();
    let reference = image.reference();
    let digest = tokio::task::spawn_blocking(move || assemble(&content, &config, reference, &archive))
        .await
        .map_err(io::Error::other)
        .and_then(|outcome| outcome)
        .doing(|| format!("build image {reference}"))?;
    Ok(Archive { image, path, digest })
}

/// Digest of an archive that is newer than all that it is made from, this program included.
fn fresh(archive: &Path, original: &Path) -> Option<String> {
    let modified = |path: &Path| fs::metadata(path).and_then(|file| file.modified()).ok();
    let (built, running) = (modified(archive)?, std::env::current_exe().ok()?);
    let newer = built > modified(original)? && built > modified(&running)?;
    if newer { recorded_digest(archive).ok() } else { None }
}

fn program_content(program: &str, stripped: &Path, libraries: &[PathBuf]) -> Content {
    let mut content = accounts();
    content.insert(format!("usr/bin/{program}"), Node::Copy { from: stripped.to_owned(), mode: 0o755 });
    for library in libraries.iter().map(PathBuf::as_path).chain([Path::new(AUTHORITIES)]) {
        let inside = library.to_string_lossy().trim_start_matches('/').to_owned();
        let mode = if library == Path::new(AUTHORITIES) { 0o644 } else { 0o755 };
        content.insert(inside, Node::Copy { from: library.to_owned(), mode });
    }
    with_folders(content)
}

fn program_config(program: &str) -> Value {
    json!({
        "User": NONROOT,
        "Entrypoint": [format!("/usr/bin/{program}")],
        "Env": ["PATH=/usr/bin"],
        "WorkingDir": "/",
        "Labels": {
            "org.opencontainers.image.title": program,
            "org.opencontainers.image.version": env!("CARGO_PKG_VERSION"),
            "org.opencontainers.image.licenses": env!("CARGO_PKG_LICENSE"),
            "org.opencontainers.image.description": "Federated application backup for Gardener shoots",
        },
    })
}

fn busybox_content(applets: &[String]) -> Content {
    let mut content = accounts();
    content.insert("bin/busybox".to_owned(), Node::Copy { from: BUSYBOX.into(), mode: 0o755 });
    for applet in applets {
        content.insert(format!("bin/{applet}"), Node::Link { target: "/bin/busybox".to_owned() });
    }
    with_folders(content)
}

fn busybox_config(image: Image) -> Value {
    // A first process without a handler ignores SIGTERM: the trap is what ends it.
    let hold = "trap 'exit 0' TERM INT; while :; do sleep 86400 & wait $!; done";
    json!({
        "User": if image == Image::Pause { NONROOT } else { "0:0" },
        "Entrypoint": if image == Image::Pause { json!(["/bin/sh", "-c", hold]) } else { json!(null) },
        "Cmd": if image == Image::Pause { json!(null) } else { json!(["/bin/sh"]) },
        "Env": ["PATH=/bin"],
        "WorkingDir": "/",
        "Labels": {"org.opencontainers.image.title": image.name()},
    })
}

fn accounts() -> Content {
    let passwd = "root:x:0:0:root:/:/bin/sh\nnonroot:x:65532:65532:nonroot:/:/bin/sh\n";
    Content::from([
        ("etc/passwd".to_owned(), Node::Text { text: passwd.to_owned(), mode: 0o644 }),
        ("etc/group".to_owned(), Node::Text { text: "root:x:0:\nnonroot:x:65532:\n".to_owned(), mode: 0o644 }),
        ("tmp".to_owned(), Node::Folder { mode: 0o1777 }),
    ])
}

/// The dynamic linker and the shared libraries of a program.
async fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let listed = command::run(&["ldd", &program.to_string_lossy()]).await?;
    let paths = listed.lines().filter_map(|line| {
        // Either "name => /path (address)" or "/path (address)"; the kernel's own vdso has no path.
        let place = line.split_once("=>").map_or(line, |(_, place)| place);
        place.split_whitespace().next().filter(|path| path.starts_with('/'))
    });
    Ok(paths.map(PathBuf::from).collect())
}

async fn busybox_applets() -> Result<Vec<String>> {
    let listed = command::run(&[BUSYBOX, "--list"]).await?;
    Ok(listed.lines().filter(|applet| *applet != "busybox").map(str::to_owned).collect())
}
