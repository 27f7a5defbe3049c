//! The demo and the end-to-end tests: what both need to install the product on a landscape, to run an application on
//! it, and to compare an application with what a restore made of it.

pub mod application;
pub mod comparison;
pub mod demo;
pub mod files;
pub mod kubectl;
pub mod oracle;
pub mod product;
pub mod requests;
pub mod story;
pub mod wait;
