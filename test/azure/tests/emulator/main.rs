//! The emulator before a real Azurite: each rule from the outside, over HTTPS.
// Helpers of tests are tests: what they cannot do ends the test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod access;
mod administration;
mod azurite_process;
mod fault_injection;
mod issuer;
mod landscape;
mod program;
mod retention;
mod sdk;
mod token_exchange;
