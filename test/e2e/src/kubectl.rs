//! Calls of kubectl, helm and other programs: the tests look at clusters with the eyes of a person, not with the
//! product's own client code.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// Runs a program to its end and returns its standard output. An exit code other than 0 is an error with what the
/// program said.
pub async fn run(program: &Path, arguments: &[&str], input: Option<&str>) -> Result<String> {
    let shown = || format!("{} {}", program.display(), arguments.join(" "));
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("failed to start {}", shown()))?;
    if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
        // A program that ends before it has read everything says why on its standard error.
        let _ = stdin.write_all(input.as_bytes()).await;
    }
    let output = child.wait_with_output().await.with_context(|| format!("failed to run {}", shown()))?;
    if !output.status.success() {
        bail!("failed: {}: {}\n{}", shown(), output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// kubectl for one cluster.
#[derive(Clone, Debug)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: String,
}

impl Kubectl {
    /// kubectl at `program` with the kubeconfig file of a cluster.
    #[must_use]
    pub fn new(program: PathBuf, kubeconfig: &Path) -> Self {
        Self { program, kubeconfig: kubeconfig.display().to_string() }
    }

    /// Runs kubectl with arguments.
    pub async fn run(&self, arguments: &[&str]) -> Result<String> {
        self.run_with_input(arguments, None).await
    }

    /// Runs kubectl with arguments and standard input.
    pub async fn run_with_input(&self, arguments: &[&str], input: Option<&str>) -> Result<String> {
        let mut all = vec!["--kubeconfig", self.kubeconfig.as_str(), "--request-timeout=60s"];
        all.extend_from_slice(arguments);
        run(&self.program, &all, input).await
    }

    /// Applies manifests, server-side.
    pub async fn apply(&self, manifests: &str) -> Result<()> {
        let arguments = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        self.run_with_input(&arguments, Some(manifests)).await.map(drop)
    }

    /// Runs kubectl with `-o json` and reads the answer.
    pub async fn json(&self, arguments: &[&str]) -> Result<serde_json::Value> {
        let mut all = arguments.to_vec();
        all.extend_from_slice(&["-o", "json"]);
        let text = self.run(&all).await?;
        serde_json::from_str(&text).context("failed to read kubectl's JSON")
    }

    /// Runs a shell in the first container of a pod.
    pub async fn shell(&self, namespace: &str, pod: &str, script: &str) -> Result<String> {
        self.run(&["exec", "-n", namespace, pod, "--", "sh", "-ec", script]).await
    }
}
