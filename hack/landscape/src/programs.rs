//! The programs that a landscape consists of: Go programs built once into a cache, Debian packages, npm's Azurite.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::command;
use crate::error::{Error, Result};
use crate::progress::{Progress, step};

/// Debian packages and a file of each that shows it is installed.
const PACKAGES: [(&str, &str); 9] = [
    ("busybox-static", "/bin/busybox"),
    ("ca-certificates", "/etc/ssl/certs/ca-certificates.crt"),
    ("conntrack", "/usr/sbin/conntrack"),
    ("containerd", "/usr/bin/containerd"),
    ("containernetworking-plugins", "/usr/lib/cni/bridge"),
    ("iproute2", "/bin/ip"),
    ("iptables", "/usr/sbin/iptables"),
    ("nftables", "/usr/sbin/nft"),
    ("runc", "/usr/sbin/runc"),
];

/// Where the programs are.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Programs {
    kubernetes: PathBuf,
    gardener: PathBuf,
    helm: PathBuf,
    /// Azurite's blob service, for node.
    pub(crate) azurite: PathBuf,
}

impl Programs {
    /// Installs and builds what is missing.
    pub(crate) async fn ensure(checkout: &Path, progress: &dyn Progress) -> Result<Self> {
        install_packages(progress).await?;
        let tools = checkout.join("hack/tools");
        let build = tools.join("build.sh");
        // One after the other: each build uses all cores.
        let kubernetes = match std::env::var_os("KUBEBUILDER_ASSETS") {
            Some(folder) => PathBuf::from(folder),
            None => step(progress, "Kubernetes programs built", built(&build, Some("kubernetes"))).await?,
        };
        let gardener = step(progress, "Gardener programs built", built(&build, Some("gardener"))).await?;
        let helm = step(progress, "Helm built", built(&build, Some("helm"))).await?;
        let azurite = step(progress, "Azurite installed", built(&tools.join("azurite.sh"), None)).await?;
        Ok(Self { kubernetes, gardener, helm, azurite })
    }

    pub(crate) fn kubernetes(&self, program: &str) -> PathBuf {
        self.kubernetes.join(program)
    }

    pub(crate) fn gardener(&self, program: &str) -> PathBuf {
        self.gardener.join(program)
    }

    pub(crate) fn helm(&self) -> PathBuf {
        self.helm.join("helm")
    }
}

/// Runs a build script, which prints the path of its product as its last line.
async fn built(script: &Path, argument: Option<&str>) -> Result<PathBuf> {
    let script = script.to_string_lossy();
    let argv: Vec<_> = std::iter::once(&*script).chain(argument).collect();
    let printed = command::run_showing(&argv).await?;
    match printed.trim().lines().last() {
        Some(path) if Path::new(path).exists() => Ok(PathBuf::from(path)),
        _ => Err(Error::Command { action: format!("run `{script}`"), output: format!("no such path: {printed}") }),
    }
}

async fn install_packages(progress: &dyn Progress) -> Result<()> {
    let missing: Vec<_> =
        PACKAGES.iter().filter(|(_, file)| !Path::new(file).exists()).map(|(package, _)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let what = format!("Debian packages installed: {}", missing.join(", "));
    step(progress, &what, async {
        let install = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "--no-install-recommends"];
        let argv: Vec<_> = install.into_iter().chain(missing.iter().copied()).collect();
        // The package lists may be missing or old: then once more with new ones.
        if command::run(&argv).await.is_err() {
            command::run(&["apt-get", "update"]).await?;
            command::run(&argv).await?;
        }
        Ok(())
    })
    .await
}
