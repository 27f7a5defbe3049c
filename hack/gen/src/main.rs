//! Writes everything that is generated: the CRDs in the charts, the agent's manifests that the garden side delivers,
//! and the reference pages. With `--check` nothing is written, and a difference is an error.

mod charts;
mod definitions;
mod delivery;
mod output;
mod reference;

use std::path::PathBuf;

use clap::Parser;

#[derive(Parser)]
#[command(about = "Writes everything that is generated from the types and the charts")]
struct Arguments {
    /// Only compare what would be written with what is there.
    #[arg(long)]
    check: bool,
    /// The checkout.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))]
    root: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let outputs = output::all(&arguments.root)?;
    if arguments.check { outputs.compare(&arguments.root) } else { outputs.write(&arguments.root) }
}
