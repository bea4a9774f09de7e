//! Owns the Raft groups of a node: openraft over the node's log, with nothing of openraft visible outside.
//!
//! - A group is the same thing with one voter and with several: only its members differ.
//! - Votes and entries reach the disk through one queue, in order, before anything is answered.
//! - A snapshot is taken beside the applies, and the log goes behind the second newest; a restart begins with the newest.
//! - A batch is applied under the write lock, a read runs under the read lock, and neither waits for anything else.

mod alone;
mod codec;
mod endpoint;
mod error;
mod files;
mod fills;
mod flush;
mod group;
mod hand_over;
mod in_process;
mod keep;
mod log_store;
mod look;
mod machine;
mod members;
mod message;
mod network;
mod note;
mod pipeline;
mod propose;
mod receive;
mod recover;
mod replay;
mod retire;
mod send;
mod settings;
mod sleep;
mod snapshot;
mod state_lock;
mod state_machine;
mod stranded;
mod succeed;
mod times;
mod transfer;
mod transport;
mod types;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use codec::CodecError;
pub use error::{ChangeError, LeaderHint, OpenError, ProposeError, ReadError, StopReason, StorageFailure};
pub use files::{
    FileError, FileSettings, FileWork, Garbage, GroupDirectory, GroupFiles, Install, Installed, Loading,
    Pace, RestoreWork, group_dir, groups_dir,
};
pub use fills::Fills;
pub use group::{Formation, Group, GroupMetrics, GroupSpec, Leadership};
pub use in_process::InProcessTransport;
pub use keep::Turn;
pub use log_store::{LogStoreError, READ_BYTES_MAX};
pub use look::{Look, look};
pub use machine::{Bucket, Damage, LastBucket, LastWork, Machine, Unflushed};
pub use members::{CAUGHT_UP_ENTRIES, GroupMembers};
pub(crate) use message::is_heartbeat;
pub use note::{check as check_note, write as write_note};
pub use propose::{BATCH_BYTES_MAX, InFlight, Proposed};
pub use retire::{RetireError, noted_replicas, retire_closed};
pub use settings::RaftSettings;
pub use sleep::Quiet;
pub use snapshot::{StoredSnapshot, records_behind};
pub use stranded::Stranded;
pub use times::{ApplyTimes, BOUNDS, Times};
pub use transfer::CHUNK_BYTES_MAX;
pub use transport::{EndpointError, MessageKind, PeerEndpoint, PeerRequest, PeerTransport, TransportError};
pub use types::{Batch, ReplicaAddress, ReplicaId};
