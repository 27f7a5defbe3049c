//! A backup: every object of some namespaces, what they need of cluster-scoped objects, and the data of their volumes.
//!
//! - [`controller`]: the steps in order.
//! - [`scope`]: which namespaces.
//! - [`discovery`]: which resources the API server has.
//! - [`listing`]: one resource, page by page.
//! - [`layout`]: where an object lies in the snapshot.
//! - [`related`]: names of cluster-scoped objects that others refer to.
//! - [`objects`]: streams all of them into the repository.
//! - [`volumes`]: the data, by movers.
//! - [`skips`]: what could not be backed up.
//! - [`manifest`]: what makes it a backup.

pub mod controller;
pub mod discovery;
pub mod layout;
pub mod listing;
pub mod manifest;
pub mod objects;
pub mod related;
pub mod scope;
pub mod skips;
pub mod volumes;

#[cfg(test)]
mod tests;
