//! The end-to-end tests. They share one landscape and one installation of the product; each test has namespaces and a
//! folder in the container of its own, so that they run beside each other.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking, also in what several tests share")]

mod backup_and_restore;
mod bad_input;
mod crashes;
mod discovery;
mod faults;
mod foreign;
mod metrics;
mod scale;
mod secrets;
mod world;
