//! What `promises.md` says of one node's answers, held against a whole node over real sockets.
//!
//! The numbers in the tests' comments are the rows of its table "Bad inputs and faults".

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod backups;
mod entries;
mod feeds;
mod images;
mod model;
mod operators;
mod relations;
mod sessions;
mod time;
mod wire;
mod world;
