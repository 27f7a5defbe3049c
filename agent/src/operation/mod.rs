//! What backup and restore have in common: taken up once, attempts counted, progress reported, ended by a deadline or on
//! request, nothing left behind.
//!
//! - [`decision`]: what happens next with one object (pure).
//! - [`running`]: the handle that the work reports to.
//! - [`status`]: the status of both kinds, as one type.
//! - [`registry`]: which operations run in this process, and how many may.
//! - [`reconcile`]: the controller that joins these.
//! - `attempt`: one attempt, from its first to its last status.
//! - [`request`]: requests by annotation.
//! - [`writer`]: writes a status.
//! - [`leftovers`]: removes what an attempt leaves behind.

mod attempt;
pub mod decision;
pub mod failure;
pub mod leftovers;
pub mod reconcile;
pub mod registry;
pub mod request;
pub mod running;
pub mod status;
pub mod writer;

pub use failure::Failure;
pub use reconcile::{AgentOperation, Outcome};
pub use registry::Registry;
pub use running::Running;
