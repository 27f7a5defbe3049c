//! The command line of the landscape.

use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use crate::cluster::Cluster;
use crate::image::Image;
use crate::landscape::Landscape;
use crate::progress::Console;
use crate::stand_in;

/// The local landscape: real Kubernetes and Gardener components as processes of this machine.
#[derive(Debug, Parser)]
#[command(name = "landscape", version)]
pub struct Arguments {
    /// Which landscape: several may run beside each other.
    #[arg(long, global = true, default_value = "default")]
    name: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start what does not run and wait until all is ready.
    Up,
    /// End everything and remove what is left of it.
    Down {
        /// Keep the logs.
        #[arg(long)]
        keep_logs: bool,
    },
    /// Show components and addresses.
    Status,
    /// Print the path of a cluster's administrator kubeconfig.
    Kubeconfig {
        /// garden, seed, alpha, beta, gamma, delta or garden2.
        cluster: Cluster,
    },
    /// Show a component's log.
    Logs {
        /// Name as in `status`.
        component: String,
        /// Go on until interrupted.
        #[arg(short, long)]
        follow: bool,
    },
    /// Hibernate a Shoot.
    Hibernate {
        /// Which one.
        shoot: Cluster,
    },
    /// Wake a hibernated Shoot.
    Wake {
        /// Which one.
        shoot: Cluster,
    },
    /// Build all images again and bring them to the nodes.
    Images,
    /// Start the garden of another landscape operator.
    ForeignGarden,
    /// Keep Shoots true, publish issuers, provision volumes: started by `up`.
    #[command(hide = true)]
    StandIn,
}

/// Does what the command line says.
pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let name = arguments.name.as_str();
    match arguments.command {
        Command::Up => {
            let started = std::time::Instant::now();
            let landscape = Box::pin(Landscape::up(name, &Console)).await?;
            eprintln!("✓ landscape {name} is up ({:.1} s)", started.elapsed().as_secs_f64());
            eprintln!("  export KUBECONFIG={}", landscape.kubeconfig(Cluster::Garden).display());
        }
        Command::Down { keep_logs } => Landscape::down(name, keep_logs, &Console).await?,
        Command::Status => status(&Landscape::attach(name)?)?,
        Command::Kubeconfig { cluster } => {
            writeln!(std::io::stdout(), "{}", Landscape::attach(name)?.kubeconfig(cluster).display())?;
        }
        Command::Logs { component, follow } => logs(&Landscape::attach(name)?.log(&component), follow).await?,
        Command::Hibernate { shoot } => Landscape::attach(name)?.hibernate(shoot).await?,
        Command::Wake { shoot } => Landscape::attach(name)?.wake(shoot).await?,
        Command::Images => Landscape::attach(name)?.load_images(&Image::ALL).await?,
        Command::ForeignGarden => Landscape::attach(name)?.start_foreign_garden().await?,
        Command::StandIn => {
            tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
            stand_in::run(name).await?;
        }
    }
    Ok(())
}

fn status(landscape: &Landscape) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for (component, pid) in landscape.components() {
        match pid {
            Some(pid) => writeln!(out, "{component:32} running  {pid}")?,
            None => writeln!(out, "{component:32} ENDED    {}", landscape.log(&component).display())?,
        }
    }
    let azure = landscape.azure();
    writeln!(out, "\nblob endpoint   {}\nauthority host  {}", azure.blob_endpoint, azure.authority_host)?;
    writeln!(out, "tenant          {}\nclient          {}", azure.tenant_id, azure.client_id)?;
    writeln!(out, "admin API       {}\nissuers         {}", azure.admin_url, landscape.discovery_url())?;
    writeln!(out, "authority       {}", landscape.ca_file().display())?;
    Ok(())
}

/// Copies a log to standard output; with `follow`, whatever is added to it as well.
async fn logs(path: &Path, follow: bool) -> anyhow::Result<()> {
    let file = std::fs::File::open(path)
        .with_context(|| format!("failed to open {}: `landscape status` names the components", path.display()))?;
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line)? > 0 {
            std::io::stdout().write_all(&line)?;
            continue;
        }
        if !follow {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(300)) => {}
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
        let here = reader.stream_position()?;
        reader.seek(SeekFrom::Start(here))?;
    }
}
