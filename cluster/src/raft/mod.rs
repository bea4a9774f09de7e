//! Owns the Raft groups of a node: openraft over the node's log, with nothing of openraft visible outside.
//!
//! - A group is the same thing with one voter and with several: only its members differ.
//! - Votes and entries reach the disk through one queue, in order, before anything is answered.
//! - A snapshot is taken beside the applies, and the log goes behind the second newest; a restart begins with the newest.
//! - A batch is applied under the write lock, a read runs under the read lock, and neither waits for anything else.

mod codec;
mod error;
mod files;
mod group;
mod in_process;
mod log_store;
mod look;
mod machine;
mod message;
mod network;
mod settings;
mod snapshot;
mod state_machine;
mod transport;
mod types;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use codec::CodecError;
pub use error::{LeaderHint, OpenError, ProposeError, ReadError, StopReason, StorageFailure};
pub use files::{
    FileError, FileSettings, FileWork, Garbage, GroupDirectory, GroupFiles, Install, Pace, group_dir,
    groups_dir,
};
pub use group::{
    BATCH_BYTES_MAX, Formation, Group, GroupMetrics, GroupSpec, InFlight, Leadership, Proposed, Turn,
};
pub use in_process::InProcessTransport;
pub use log_store::{LogStoreError, READ_BYTES_MAX};
pub use look::{Look, look};
pub use machine::{Bucket, LastBucket, Machine};
pub use settings::RaftSettings;
pub use snapshot::StoredSnapshot;
pub use transport::{EndpointError, MessageKind, PeerEndpoint, PeerRequest, PeerTransport, TransportError};
pub use types::{Batch, ReplicaAddress, ReplicaId};
