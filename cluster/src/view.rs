//! Owns the view of the cluster that people and programs ask a node for: what it knows, which may be a little old.

use fanfold_storage::ids::PartitionId;

use crate::catalog::{ClusterSettings, NodeState, ReplicaRecord};

/// The cluster as one node knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterView {
    /// The cluster.
    pub cluster_id: u128,
    /// The version of the catalog: counts its changes.
    pub epoch: u64,
    /// What programs have to have, at least, to be in it (R3).
    pub feature_level: u32,
    /// The number of partitions.
    pub partitions: u16,
    /// What holds for the whole cluster.
    pub settings: ClusterSettings,
    /// The node that says this.
    pub told_by: u64,
    /// The nodes by id, those that were removed too.
    pub nodes: Vec<NodeView>,
    /// The groups: the catalog, then the partitions by number.
    pub groups: Vec<GroupView>,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    /// Its id.
    pub node: u64,
    /// Where it listens for clients.
    pub address: String,
    /// Where it listens for other nodes; empty if it does not.
    pub peer_address: String,
    /// Its zone.
    pub zone: String,
    /// What it is for.
    pub state: NodeState,
    /// How long nothing was heard of it, in milliseconds; none: nothing since this node started.
    pub silent_ms: Option<u64>,
    /// How far its clock is ahead of this node's, in milliseconds; none: not known.
    pub clock_ahead_ms: Option<i64>,
    /// Whether its clock is so far from the others' that it leads nothing (R2).
    pub is_clock_off: bool,
    /// Whether its disk does not get on, or is full, so that it leads nothing.
    pub is_disk_slow: bool,
    /// Whether its log takes no entries for want of room.
    pub is_disk_full: bool,
    /// Whether it says that it is over its memory budget.
    pub is_over_memory: bool,
    /// Whether it counts as alive.
    pub is_alive: bool,
    /// Groups of which a replica is wanted on it, or is there.
    pub replicas: u32,
    /// Groups that it leads.
    pub leads: u32,
}

/// A group: the catalog, or a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupView {
    /// The partition; none is the catalog.
    pub partition: Option<PartitionId>,
    /// The replicas that it should have, the preferred leader first.
    pub wanted: Vec<ReplicaRecord>,
    /// The node that leads it; none if nobody is known to.
    pub leader: Option<u64>,
    /// The term of that leader; 0 if there is none.
    pub term: u64,
    /// Those who vote, as its leader last said; empty if it has said nothing yet.
    pub voters: Vec<ReplicaRecord>,
    /// Those who are being filled.
    pub learners: Vec<ReplicaRecord>,
    /// Raft entries that each replica is behind its leader; none: not known.
    pub lag: Vec<(ReplicaRecord, Option<u64>)>,
    /// Replicas whose nodes say that they cannot take part: they are damaged.
    pub closed: Vec<ReplicaRecord>,
    /// Whether its replicas came to different states at one index.
    pub is_diverged: bool,
    /// How it is.
    pub health: GroupHealth,
}

impl GroupView {
    /// Whether a replica is wanted on a node, or is there.
    #[must_use]
    pub fn is_on(&self, node: u64) -> bool {
        let mut all = self.wanted.iter().chain(&self.voters).chain(&self.learners);
        all.any(|record| record.node == node)
    }
}

/// How a group is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum GroupHealth {
    /// It has a leader and exactly the replicas that it should have, all alive.
    Whole,
    /// It serves, and its replicas are on their way to what they should be.
    Changing,
    /// It serves, and a replica is on a node that is silent.
    Degraded,
    /// No leader is known, and there should be one soon.
    Electing,
    /// So many of its replicas are on nodes that are silent that it cannot serve.
    Lost,
}
