//! The agent of shoot-backup: it runs in each application cluster and does all the work there.
//!
//! The management plane only sends instructions (mirrored `BackupLocation`, `Backup` and `Restore` objects in the
//! agent's namespace). Data goes straight from the cluster to Blob Storage, with an identity that only the cluster holds.

pub mod backup;
pub mod config;
pub mod context;
pub mod heartbeat;
pub mod location;
pub mod metrics;
pub mod mover;
pub mod operation;
pub mod restore;
pub mod restore_controller;
pub mod retry;
pub mod run;
pub mod server;
