//! The agent of shoot-backup, and its movers.

use std::process::ExitCode;

use clap::Parser;
use shoot_backup_agent::run::{Arguments, run};

#[tokio::main]
async fn main() -> ExitCode {
    // One provider for every TLS connection, before the first: a second one in the tree could otherwise not be told from
    // it.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        return ExitCode::FAILURE;
    }
    run(Arguments::parse()).await
}
