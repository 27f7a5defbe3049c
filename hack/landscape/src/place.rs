//! Where a landscape's things lie: the checkout, its state folder, the project's own programs.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cluster::Cluster;
use crate::error::{Doing, Error, Result};

/// The folders of one landscape.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The checkout: holds `hack/tools`.
    pub(crate) checkout: PathBuf,
    /// Everything that this landscape writes, but for sockets and process records.
    pub(crate) state: PathBuf,
}

impl Place {
    /// The place of the landscape `name`; creates nothing.
    pub(crate) fn of(name: &str) -> Result<Self> {
        let valid = !name.is_empty()
            && name.len() <= 20
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        if !valid {
            return Err(Error::Precondition(format!(
                "'{name}' is no name for a landscape: use up to 20 lower-case letters, digits and hyphens"
            )));
        }
        let checkout = checkout()?;
        let landscapes =
            std::env::var_os("SHOOT_BACKUP_STATE").map_or_else(|| checkout.join(".landscape"), PathBuf::from);
        let landscapes =
            std::path::absolute(&landscapes).doing(|| format!("find the absolute path of {}", landscapes.display()))?;
        Ok(Self { checkout, state: landscapes.join(name) })
    }

    /// Certificates and keys.
    pub(crate) fn pki(&self) -> PathBuf {
        self.state.join("pki")
    }

    /// Logs of all components.
    pub(crate) fn logs(&self) -> PathBuf {
        self.state.join("logs")
    }

    /// Image archives.
    pub(crate) fn images(&self) -> PathBuf {
        self.state.join("images")
    }

    /// Configuration and data of one cluster.
    pub(crate) fn cluster(&self, cluster: Cluster) -> PathBuf {
        self.state.join("clusters").join(cluster.name())
    }

    /// The administrator's kubeconfig of a cluster.
    pub(crate) fn kubeconfig(&self, cluster: Cluster) -> PathBuf {
        self.state.join(format!("{cluster}.kubeconfig"))
    }

    /// Directories behind a cluster's `PersistentVolume`s.
    pub(crate) fn volumes(&self, cluster: Cluster) -> PathBuf {
        self.cluster(cluster).join("volumes")
    }
}

/// The workspace around the working directory, else the one that this program was built from.
fn checkout() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("SHOOT_BACKUP_CHECKOUT") {
        return Ok(PathBuf::from(folder));
    }
    let here = std::env::current_dir().doing(|| "find the working directory")?;
    let built_from = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().chain(built_from.ancestors()).find(|folder| is_checkout(folder)).map(Path::to_owned).ok_or_else(
        || Error::Precondition("no checkout of shoot-backup around the working directory: change into one".to_owned()),
    )
}

fn is_checkout(folder: &Path) -> bool {
    folder.join("hack/tools/build.sh").is_file()
        && fs::read_to_string(folder.join("Cargo.toml")).is_ok_and(|text| text.contains("[workspace]"))
}

/// One of the project's own programs, built beside the running one.
pub(crate) fn own_program(name: &str) -> Result<PathBuf> {
    let folder = if let Some(folder) = std::env::var_os("SHOOT_BACKUP_BIN_DIR") {
        PathBuf::from(folder)
    } else {
        let running = std::env::current_exe().doing(|| "find the running program")?;
        let folder = running.parent().unwrap_or(Path::new("/")).to_owned();
        // Tests and examples lie one folder below the programs.
        if folder.ends_with("deps") || folder.ends_with("examples") {
            folder.parent().unwrap_or(&folder).to_owned()
        } else {
            folder
        }
    };
    let program = folder.join(name);
    if program.is_file() {
        return Ok(program);
    }
    Err(Error::Precondition(format!(
        "there is no program {name} in {}: build it with `cargo build --workspace`, or name its folder in \
         SHOOT_BACKUP_BIN_DIR",
        folder.display()
    )))
}

/// Writes a file and the folders above it, unless it is so already: some components end when their configuration is
/// touched.
pub(crate) fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    if fs::read(path).is_ok_and(|there| there == content.as_ref()) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).doing(|| format!("create {}", folder.display()))?;
    }
    fs::write(path, content).doing(|| format!("write {}", path.display()))
}

/// Reads a text file.
pub(crate) fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).doing(|| format!("read {}", path.display()))
}
