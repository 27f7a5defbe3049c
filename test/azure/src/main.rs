//! The Azure emulator as a program.

use clap::Parser as _;
use shoot_backup_azure_emulator::{Arguments, run};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // One TLS stack, chosen before anyone can guess.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    run(Arguments::parse()).await?;
    Ok(())
}
