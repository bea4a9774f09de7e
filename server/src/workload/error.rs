//! Owns the errors of workloads.

use fanfold_client::Error as ClientError;
use fanfold_protocol::UserId;

use super::node_process::NodeProcessError;
use super::schedule::Place;

/// Why a workload stopped. None of these is a mismatch: those are counted and reported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkloadError {
    /// The node could not be started, ended or restarted.
    #[error(transparent)]
    Node(#[from] NodeProcessError),
    /// The nodes did not come to stand as a cluster.
    #[error("the cluster was not whole after {waited:?}; it was seen last as: {seen}")]
    NotWhole {
        /// How long it had.
        waited: std::time::Duration,
        /// What was seen last.
        seen: String,
    },
    /// The node could not be reached or prepared.
    #[error("the node could not be prepared for the workload: {source}")]
    Prepare {
        /// Why.
        source: ClientError,
    },
    /// An operation was not answered, so its outcome is unknown or it had none, and no comparison has a meaning.
    #[error("operation {place} of the run ({kind}, user {user}) failed: {source}")]
    Operation {
        /// Its place in the run, from 0.
        place: Place,
        /// What it is.
        kind: &'static str,
        /// The user it writes for.
        user: UserId,
        /// Why.
        source: ClientError,
    },
    /// The node holds data of others, so that nothing can be compared.
    #[error("the node holds {entries} entries and {edges} edges already; a workload needs an empty node")]
    NotEmpty {
        /// Live entries.
        entries: u64,
        /// Edges.
        edges: u64,
    },
    /// The fan-out did not drain, or the node's status could not be read.
    #[error("waiting for the fan-out to drain failed: {source}")]
    Drain {
        /// Why.
        source: ClientError,
    },
    /// A read failed.
    #[error("reading for user {user} failed: {source}")]
    Read {
        /// Whose feed, timeline or counts.
        user: UserId,
        /// Why.
        source: ClientError,
    },
    /// A task of the workload ended early.
    #[error("a task of the workload ended early: {source}")]
    Task {
        /// How.
        #[from]
        source: tokio::task::JoinError,
    },
}
