//! Owns the offline look at one Raft entry of a log.

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::vote::RaftLeaderId;

use super::codec::{CodecError, decode_entry};

/// What a Raft entry holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// The first entry of a leader.
    Blank,
    /// A change of the group's members.
    Membership,
    /// A batch of commands.
    Batch(Bytes),
}

/// The term and content of the entry at `index`, from the bytes of its record.
pub fn look(index: u64, record: &Bytes) -> Result<(u64, Look), CodecError> {
    let entry = decode_entry(index, record)?;
    let look = match entry.payload {
        EntryPayload::Blank => Look::Blank,
        EntryPayload::Membership(_) => Look::Membership,
        EntryPayload::Normal(batch) => Look::Batch(batch.0),
    };
    Ok((entry.log_id.committed_leader_id().term(), look))
}
