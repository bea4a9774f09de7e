//! Owns the types that openraft is instantiated with. Nothing of it leaves `cluster::raft`.

use std::any::Any;
use std::fmt;

use bytes::Bytes;
use openraft::impls::leader_id_adv;

use super::snapshot::SnapshotData;

/// The id of one replica of one group, in one incarnation. Never used twice, so that a replica that lost its disk
/// cannot pass for the one it was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId(pub u64);

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<u64> for ReplicaId {
    fn from(id: u64) -> Self {
        Self(id)
    }
}

/// Where the node of a replica listens for its peers; opaque to this crate's Raft layer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct ReplicaAddress(pub String);

impl fmt::Display for ReplicaAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The gathered commands of one Raft entry, as the proposer's encoder made them. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Batch(pub Bytes);

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "batch of {} bytes", self.0.len())
    }
}

/// What applying one Raft entry answered: the machine's outcome for a batch, nothing for Raft's own entries.
///
/// The outcome's type is erased, because openraft wants one type for every group, and a type parameter would run
/// through every message and error of this module. One box per Raft entry, not per command.
pub(super) struct Reply(Option<Box<dyn Any + Send + Sync>>);

impl Reply {
    /// The answer of a Raft entry that is not a batch.
    pub fn none() -> Self {
        Self(None)
    }

    /// The answer of a batch.
    pub fn outcome<O: Send + Sync + 'static>(outcome: O) -> Self {
        Self(Some(Box::new(outcome)))
    }

    /// The outcome of a batch; none if it is not one of this type.
    pub fn into_outcome<O: 'static>(self) -> Option<O> {
        self.0?.downcast().ok().map(|outcome| *outcome)
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "outcome" } else { "no outcome" })
    }
}

openraft::declare_raft_types!(
    /// openraft's types for all groups.
    pub(super) Types:
        D = Batch,
        R = Reply,
        NodeId = ReplicaId,
        Node = ReplicaAddress,
        Term = u64,
        LeaderId = leader_id_adv::LeaderId<u64, ReplicaId>,
        AsyncRuntime = openraft_rt_tokio::TokioRuntime,
);

pub(super) type LeaderId = leader_id_adv::LeaderId<u64, ReplicaId>;
pub(super) type LogId = openraft::LogId<LeaderId>;
pub(super) type Vote = openraft::Vote<LeaderId>;
pub(super) type Membership = openraft::Membership<ReplicaId, ReplicaAddress>;
pub(super) type StoredMembership = openraft::StoredMembership<LeaderId, ReplicaId, ReplicaAddress>;
pub(super) type Payload = openraft::EntryPayload<Batch, ReplicaId, ReplicaAddress>;
pub(super) type Entry = openraft::Entry<LeaderId, Payload>;
pub(super) type SnapshotMeta = openraft::SnapshotMeta<LeaderId, ReplicaId, ReplicaAddress>;
pub(super) type Snapshot = openraft::Snapshot<LeaderId, ReplicaId, ReplicaAddress, SnapshotData>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_gives_back_only_its_own_type() {
        assert_eq!(Reply::outcome(vec![1u8, 2]).into_outcome::<Vec<u8>>(), Some(vec![1, 2]));
        assert_eq!(Reply::outcome(vec![1u8, 2]).into_outcome::<Vec<u16>>(), None);
        assert_eq!(Reply::none().into_outcome::<Vec<u8>>(), None);
    }
}
