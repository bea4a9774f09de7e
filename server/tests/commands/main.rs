//! The binary as an operator meets it: commands against a node in a process of its own, signals, files and ports.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod backup;
mod by_hand;
mod cluster;
mod damaged;
mod export;
mod export_large;
mod files;
mod import;
mod memory;
mod migrate;
mod observe;
mod operators;
mod process;
mod replicas;
mod resume;
mod runbook;
mod start;
mod stop;
mod upgrade;
