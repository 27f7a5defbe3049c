//! The Gardener side: discovery, onboarding, dispatch.
//!
//! - [`discovery`] finds Shoots and makes an `ApplicationCluster` of each;
//! - [`onboarding`] brings the agent into each cluster and keeps it there, without storing a credential;
//! - [`dispatch`] mirrors `BackupLocation`, `Backup` and `Restore` into the clusters and their status back.
//!
//! Everything that decides is a pure function in a file of its own; everything that talks has a deadline.

pub mod config;
pub mod connections;
pub mod context;
pub mod controllers;
pub mod delivery;
pub mod discovery;
pub mod dispatch;
pub mod events;
pub mod failures;
pub mod kubeconfig;
pub mod metrics;
pub mod onboarding;
pub mod request;
pub mod run;
pub mod server;
pub mod telemetry;
