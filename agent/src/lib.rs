//! The agent in every application cluster.
