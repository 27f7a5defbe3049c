//! The demo and the end-to-end tests.
