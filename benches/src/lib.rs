//! Owns the load harness: measurements of Fanfold beside Redis, and the replay of real data into a node, both checked
//! against the oracle.
//!
//! - What the harness shares with `fanfold demo` lives in `fanfold_server::workload`.
//! - A node that the harness starts itself is this same program, called with `start`: always the code just built.

pub mod cli;
pub mod load;
pub mod plan;
pub mod redis;
pub mod replay;
pub mod tsv;
