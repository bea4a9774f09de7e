//! Owns how the demo fails.

use std::io;

use crate::workload::WorkloadError;

/// Why the demo did not end well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DemoError {
    /// Something differs from the oracle; the report was printed.
    #[error(
        "{mismatches} mismatches; what the node shows is not what was written. Please report it with the seed"
    )]
    Mismatched {
        /// How many.
        mismatches: u64,
    },
    /// The demo could not be carried through.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    /// The program that the node runs is not known.
    #[error("the path of this program is not known: {source}")]
    Program {
        /// Why.
        source: io::Error,
    },
    /// The threads could not be started.
    #[error("the runtime could not be started: {source}")]
    Runtime {
        /// Why.
        source: io::Error,
    },
    /// The report could not be written.
    #[error("the report could not be written to stdout: {source}")]
    Output {
        /// Why.
        source: io::Error,
    },
}
