//! Owns workloads that run against a node in its own process and are checked against the oracle: what the demo and the
//! replay of real data have in common.
//!
//! - A workload is a sequence of [`operation::Operation`]s. The [`driver`] keeps many of them in flight, and still the
//!   effect is that of one after the other.
//! - The [`mirror`] applies each acknowledged operation to the oracle; [`compare`] reads everything back.
//! - Everything drawn is drawn from a seed.

pub mod access;
pub mod activity;
pub mod answer;
pub mod compare;
pub mod difference;
pub mod driver;
pub mod error;
pub mod fleet;
pub mod graph;
pub mod killer;
pub mod machine;
pub mod mirror;
pub mod node_process;
pub mod operation;
pub mod powerlaw;
pub mod progress;
pub mod reads;
pub mod report;
pub mod run;
pub mod schedule;
mod words;

pub use error::WorkloadError;
