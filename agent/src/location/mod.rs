//! Locations: opened for work, validated verb by verb, reported.

pub mod error;
pub mod open;

pub use error::LocationError;
pub use open::{Location, open};
