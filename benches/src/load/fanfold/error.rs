//! Owns the ways in which the Fanfold side fails.

use std::io;
use std::time::Duration;

use fanfold_protocol::Status;
use fanfold_protocol::error::DecodeError;
use fanfold_server::workload::WorkloadError;
use fanfold_server::workload::node_process::NodeProcessError;

use super::page::PageError;
use crate::load::target::{TargetError, TargetKind};

/// Why the Fanfold side could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FanfoldError {
    /// The node does not run.
    #[error(transparent)]
    Node(#[from] NodeProcessError),
    /// The node could not be set up or asked.
    #[error(transparent)]
    Control(#[from] WorkloadError),
    /// The runtime that watches the node could not be started.
    #[error("the runtime could not be started: {source}")]
    Runtime {
        /// Why.
        source: io::Error,
    },
    /// A connection failed.
    #[error("the connection to the node failed: {source}; the end of the node's log says more")]
    Connection {
        /// Why.
        source: io::Error,
    },
    /// The node closed a connection.
    #[error("the node closed a connection; the end of its log says why")]
    Closed,
    /// What the node sent does not decode.
    #[error("the node's answer does not decode: {0}; build the harness and the node from the same sources")]
    Decode(#[from] DecodeError),
    /// What the node sent is not an answer to what was asked.
    #[error("the node answered request {request} with something else; build both from the same sources")]
    Unexpected {
        /// The number of the request.
        request: u64,
    },
    /// The node answered a read with a wrong page.
    #[error("the page of reader {reader} is wrong: {source}; `feed explain` says what the node knows")]
    WrongPage {
        /// Whose feed was read.
        reader: u32,
        /// What is wrong.
        source: PageError,
    },
    /// The node refused.
    #[error("the node refused: {0}")]
    Refused(Status),
    /// Nothing came for long.
    #[error("the node answered nothing for {waited:?} while {in_flight} requests were under way")]
    Stalled {
        /// How long nothing came.
        waited: Duration,
        /// Requests under way.
        in_flight: usize,
    },
    /// The process could not be stopped, resumed or looked at.
    #[error("the node's process could not be signalled or looked at: {source}")]
    Process {
        /// Why.
        source: io::Error,
    },
}

impl From<FanfoldError> for TargetError {
    fn from(error: FanfoldError) -> Self {
        Self { side: TargetKind::Fanfold, source: Box::new(error) }
    }
}
