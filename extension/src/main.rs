//! The garden side's binary.

use clap::Parser as _;
use shoot_backup_extension::run::{Arguments, run};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        anyhow::bail!("failed to install the TLS provider: another one is installed already");
    }
    Box::pin(run(Arguments::parse())).await
}
