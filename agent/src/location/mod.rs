//! Locations: opened for work, validated verb by verb, reported.

pub mod advice;
pub mod controller;
pub mod error;
pub mod open;
pub mod prepare;
pub mod schedule;
pub mod validate;

pub use error::LocationError;
pub use open::{Location, open};
