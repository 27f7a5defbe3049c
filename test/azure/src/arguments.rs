//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use url::Url;

/// A token endpoint like Entra ID and a blob gateway like Azure Storage, before Azurite.
#[derive(Clone, Debug, Parser)]
#[command(name = "shoot-backup-azure-emulator", version)]
pub struct Arguments {
    /// Where tokens and blobs are served over HTTPS. Port 0 takes a free one, which the ready line names.
    #[arg(long)]
    pub listen: SocketAddr,
    /// PEM file with the server's certificate and its chain.
    #[arg(long)]
    pub certificate: PathBuf,
    /// PEM file with the certificate's private key.
    #[arg(long)]
    pub key: PathBuf,
    /// PEM file with the authorities trusted for issuers' discovery documents and for Azurite.
    #[arg(long)]
    pub trust: PathBuf,
    /// Azurite's blob service, an HTTPS URL without the account.
    #[arg(long)]
    pub azurite: Url,
    /// The storage account: the first part of each blob's path.
    #[arg(long)]
    pub account: String,
    /// Where the admin interface is served, plain HTTP, on a loopback address only.
    #[arg(long)]
    pub admin: SocketAddr,
    /// JSON file that keeps what is configured over a restart.
    #[arg(long)]
    pub state: PathBuf,
}
