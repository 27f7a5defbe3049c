//! Programs that run to their end: `ip`, `mount`, `ctr`, build scripts.

use std::process::{Output, Stdio};

use tokio::process::Command;

use crate::error::{Doing, Error, Result};

/// As much of a program's output as an error shows.
const SHOWN: usize = 2_000;

/// Runs `argv` to its end and returns what it printed on standard output.
pub(crate) async fn run(argv: &[&str]) -> Result<String> {
    let output = output(argv).await?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
    Err(Error::Command {
        action: format!("run `{}` ({})", argv.join(" "), output.status),
        output: tail(&String::from_utf8_lossy(text)),
    })
}

/// Runs a long program to its end, which shows its progress on standard error, and returns its standard output.
pub(crate) async fn run_showing(argv: &[&str]) -> Result<String> {
    let output =
        command(argv)?.stderr(Stdio::inherit()).output().await.doing(|| format!("start `{}`", argv.join(" ")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Error::Command {
        action: format!("run `{}` ({})", argv.join(" "), output.status),
        output: "see above".to_owned(),
    })
}

/// Whether `argv` ends well; for questions, not for work.
pub(crate) async fn succeeds(argv: &[&str]) -> bool {
    output(argv).await.is_ok_and(|output| output.status.success())
}

/// Runs `argv` to its end, whatever that is.
async fn output(argv: &[&str]) -> Result<Output> {
    command(argv)?.output().await.doing(|| format!("start `{}`", argv.join(" ")))
}

fn command(argv: &[&str]) -> Result<Command> {
    let [program, arguments @ ..] = argv else {
        return Err(Error::Precondition("failed to run a program: no name given".to_owned()));
    };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    Ok(command)
}

fn tail(text: &str) -> String {
    let text = text.trim();
    let start = text.ceil_char_boundary(text.len().saturating_sub(SHOWN));
    text[start..].to_owned()
}
