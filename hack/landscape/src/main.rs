//! `landscape`: brings the local landscape up and down.

use std::process::ExitCode;

use clap::Parser as _;
use shoot_backup_landscape::cli::{Arguments, run};

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("landscape: {error:#}");
            ExitCode::FAILURE
        }
    }
}
