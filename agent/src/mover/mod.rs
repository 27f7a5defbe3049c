//! Movers: Jobs that mount one volume and move its files between the volume and the location.
//!
//! - [`protocol`]: what agent and mover tell each other.
//! - [`job`]: builds, runs and watches a Job (agent).
//! - `watch`: what a Job looks like now (agent).
//! - [`twin`]: makes a volume of another namespace mountable (agent).
//! - [`claim`]: a new volume for data that is restored, and its hand-over (agent).
//! - [`run`]: what happens inside the pod: [`backup`] or [`restore`].

pub mod backup;
pub mod claim;
pub mod job;
pub mod protocol;
pub mod restore;
pub mod run;
pub mod twin;
mod watch;
