//! Owns the load harness: the replay of real data into a node, checked against the oracle.
//!
//! - What the harness shares with `fanfold demo` lives in `fanfold_server::workload`.
//! - A node that the harness starts itself is this same program, called with `start`: always the code just built.

pub mod cli;
pub mod replay;
pub mod tsv;
