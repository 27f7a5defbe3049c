//! `make demo`.

use std::process::ExitCode;

use shoot_backup_e2e::demo;

#[tokio::main]
async fn main() -> ExitCode {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let keep = std::env::var("KEEP").is_ok_and(|value| value == "1");
    match demo::run(keep).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\n✗ {error:#}");
            ExitCode::FAILURE
        }
    }
}
