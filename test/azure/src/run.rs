//! The program: start, say so, serve, end on a signal.

use std::io::Write as _;

use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::arguments::Arguments;
use crate::emulator::{Emulator, EmulatorError};

/// Runs until SIGTERM or SIGINT. Prints one line to standard output when both listeners accept.
pub async fn run(arguments: Arguments) -> Result<(), EmulatorError> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let mut terminate = signal(SignalKind::terminate()).map_err(EmulatorError::Serve)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(EmulatorError::Serve)?;

    let emulator = Emulator::start(&arguments).await?;
    let ready = format!("ready: https://{} admin {}\n", emulator.address, emulator.admin_url());
    let mut out = std::io::stdout().lock();
    out.write_all(ready.as_bytes()).and_then(|()| out.flush()).map_err(EmulatorError::Serve)?;
    drop(out);

    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    emulator.stop().await
}
