//! Owns the view of the cluster: its nodes, its settings, and where every group's replicas are.

use crate::error::BodyError;
use crate::field::Field;
use crate::ids::{ClusterId, NodeId, PartitionId};
use crate::wire::{Reader, Writer, bitmap};

/// Most nodes of a cluster.
const NODES_MAX: usize = 4_096;
/// Most groups: a partition each, and the catalog.
const GROUPS_MAX: usize = 4_097;
/// Most replicas of a group, those that come and go included.
const REPLICAS_MAX: usize = 64;

const NODE_BYTES_MIN: usize = 8;
const GROUP_BYTES_MIN: usize = 5;
const REPLICA_BYTES_MIN: usize = 4;

/// A Raft group: the catalog or a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GroupName {
    /// The group that holds nodes, placement, spaces and settings.
    Catalog,
    /// A partition.
    Partition(PartitionId),
}

/// What a node is to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NodeState {
    /// It holds replicas and may get more.
    Active,
    /// Its replicas go to others.
    Draining,
    /// It is no member any more; its id is never used again.
    Removed,
}

/// A node as the cluster knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterNode {
    /// The node.
    pub node: NodeId,
    /// Where clients reach it.
    pub address: String,
    /// Where other nodes reach it; empty if it listens to none.
    pub peer_address: String,
    /// The zone that it is in; empty if none was named.
    pub zone: String,
    /// What it is to the cluster.
    pub state: NodeState,
    /// How long the node that answers has not heard of it, in milliseconds; none: never, since it started.
    pub heard_ms: Option<u64>,
    /// Whether it counts as alive.
    pub is_alive: bool,
    /// By how many milliseconds its wall clock is ahead of the answering node's, if that is known.
    pub clock_ahead_ms: Option<i64>,
    /// Whether its clock is so far from the others' that it leads nothing.
    pub is_clock_off: bool,
    /// Whether its disk does not get on, or did not a moment ago, so that it leads nothing.
    pub is_disk_slow: bool,
    /// Whether its disk is so full that it takes no entries.
    pub is_disk_full: bool,
    /// Whether it is over its memory budget, and nothing is left that can give way.
    pub is_over_memory: bool,
    /// Replicas placed on it.
    pub replicas: u32,
    /// Groups that it leads, as far as is known.
    pub leads: u32,
}

/// What a replica is to its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReplicaRole {
    /// It votes.
    Voter,
    /// It receives the log and does not vote.
    Learner,
    /// It is placed there and no member yet.
    Coming,
    /// It is a member that is not placed there any more.
    Going,
}

/// A replica of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReplicaView {
    /// Its id, never used twice.
    pub replica: u64,
    /// Its node.
    pub node: NodeId,
    /// What it is.
    pub role: ReplicaRole,
    /// How many Raft entries it lacks, if the answering node knows.
    pub lag: Option<u64>,
    /// Whether its node says that it cannot take part: it is damaged, and is to be filled anew.
    pub is_closed: bool,
}

/// How a group is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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

/// A group as the answering node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupView {
    /// The group.
    pub group: GroupName,
    /// Its leader; none if none is known.
    pub leader: Option<NodeId>,
    /// The Raft term in which that leads.
    pub term: u64,
    /// The node that is to lead when it can; none if any may.
    pub preferred: Option<NodeId>,
    /// How it is.
    pub health: GroupHealth,
    /// Whether its replicas came to different states at one index.
    pub is_diverged: bool,
    /// Its replicas.
    pub replicas: Vec<ReplicaView>,
}

/// The settings of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClusterSettings {
    /// Replicas that every group should have.
    pub replicas: u32,
    /// After how many milliseconds of silence a node's replicas go to others; 0 is never.
    pub repair_after_ms: u64,
}

/// The cluster as one node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterView {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node that answers.
    pub by: NodeId,
    /// Goes up with every change of nodes, placement, spaces and settings.
    pub epoch: u64,
    /// What programs have to have, at least, to be in it.
    pub feature_level: u32,
    /// Its settings.
    pub settings: ClusterSettings,
    /// Its nodes, by id.
    pub nodes: Vec<ClusterNode>,
    /// Its groups: the catalog first, then the partitions.
    pub groups: Vec<GroupView>,
}

impl GroupName {
    pub(crate) fn encode(self, w: &mut Writer) {
        w.number(match self {
            Self::Catalog => 0,
            Self::Partition(partition) => u32::from(partition.0) + 1,
        });
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        let malformed = BodyError::Malformed { field: Field::Partition };
        match r.number32(Field::Partition)?.checked_sub(1) {
            None => Ok(Self::Catalog),
            Some(partition) => match u16::try_from(partition) {
                Ok(partition) => Ok(Self::Partition(PartitionId(partition))),
                Err(_) => Err(malformed),
            },
        }
    }
}

impl std::fmt::Display for GroupName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Catalog => f.write_str("catalog"),
            Self::Partition(partition) => partition.fmt(f),
        }
    }
}

impl NodeState {
    pub(crate) fn encode(self, w: &mut Writer) {
        w.byte(self as u8 + 1);
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        Ok(match r.byte(Field::Nodes)? {
            1 => Self::Active,
            2 => Self::Draining,
            3 => Self::Removed,
            _ => return Err(BodyError::Malformed { field: Field::Nodes }),
        })
    }
}

impl GroupHealth {
    /// All of them, in the order of their numbers on the wire, which start at 1.
    pub const ALL: [Self; 5] = [Self::Whole, Self::Changing, Self::Degraded, Self::Electing, Self::Lost];

    fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        let code = r.byte(Field::Cluster)?;
        let health = usize::from(code).checked_sub(1).and_then(|at| Self::ALL.get(at));
        health.copied().ok_or(BodyError::Malformed { field: Field::Cluster })
    }
}

impl ReplicaRole {
    fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        Ok(match r.byte(Field::Cluster)? {
            1 => Self::Voter,
            2 => Self::Learner,
            3 => Self::Coming,
            4 => Self::Going,
            _ => return Err(BodyError::Malformed { field: Field::Cluster }),
        })
    }
}

impl ClusterNode {
    fn encode(&self, w: &mut Writer) {
        w.byte(bitmap([
            self.heard_ms.is_some(),
            self.clock_ahead_ms.is_some(),
            self.is_alive,
            self.is_clock_off,
            self.is_disk_slow,
            self.is_disk_full,
            self.is_over_memory,
        ]));
        w.number(self.node.0);
        w.string(&self.address);
        w.string(&self.peer_address);
        w.string(&self.zone);
        self.state.encode(w);
        w.number(self.replicas);
        w.number(self.leads);
        if let Some(heard_ms) = self.heard_ms {
            w.number(heard_ms);
        }
        if let Some(ahead_ms) = self.clock_ahead_ms {
            w.signed(ahead_ms);
        }
    }

    fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        let at = Field::Nodes;
        let present = r.presence(0b111_1111)?;
        Ok(Self {
            node: NodeId(r.number(at)?),
            address: r.string(Field::Address)?,
            peer_address: r.string(Field::Address)?,
            zone: r.string(Field::Zone)?,
            state: NodeState::decode(r)?,
            replicas: r.number32(at)?,
            leads: r.number32(at)?,
            is_alive: present >> 2 & 1 == 1,
            is_clock_off: present >> 3 & 1 == 1,
            is_disk_slow: present >> 4 & 1 == 1,
            is_disk_full: present >> 5 & 1 == 1,
            is_over_memory: present >> 6 & 1 == 1,
            heard_ms: r.optional(present, 0, |r| r.number(at))?,
            clock_ahead_ms: r.optional(present, 1, |r| r.signed(at))?,
        })
    }
}

impl ReplicaView {
    fn encode(&self, w: &mut Writer) {
        w.byte(bitmap([self.lag.is_some(), self.is_closed]));
        w.number(self.replica);
        w.number(self.node.0);
        w.byte(self.role as u8 + 1);
        if let Some(lag) = self.lag {
            w.number(lag);
        }
    }

    fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        let at = Field::Cluster;
        let present = r.presence(0b11)?;
        Ok(Self {
            replica: r.number(at)?,
            node: NodeId(r.number(at)?),
            role: ReplicaRole::decode(r)?,
            lag: r.optional(present, 0, |r| r.number(at))?,
            is_closed: present >> 1 & 1 == 1,
        })
    }
}

impl GroupView {
    fn encode(&self, w: &mut Writer) {
        w.byte(bitmap([self.leader.is_some(), self.preferred.is_some(), self.is_diverged]));
        self.group.encode(w);
        w.byte(self.health as u8 + 1);
        w.number(self.term);
        if let Some(leader) = self.leader {
            w.number(leader.0);
        }
        if let Some(preferred) = self.preferred {
            w.number(preferred.0);
        }
        w.count(self.replicas.len());
        for replica in &self.replicas {
            replica.encode(w);
        }
    }

    fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        let at = Field::Cluster;
        let present = r.presence(0b111)?;
        let group = GroupName::decode(r)?;
        let health = GroupHealth::decode(r)?;
        let term = r.number(at)?;
        let leader = r.optional(present, 0, |r| r.number(at).map(NodeId))?;
        let preferred = r.optional(present, 1, |r| r.number(at).map(NodeId))?;
        let count = r.count(at, REPLICA_BYTES_MIN, REPLICAS_MAX)?;
        let replicas = r.items(count, ReplicaView::decode)?;
        let is_diverged = present >> 2 & 1 == 1;
        Ok(Self { group, leader, term, preferred, health, is_diverged, replicas })
    }
}

impl ClusterView {
    pub(crate) fn encode(&self, w: &mut Writer) {
        w.fixed128(self.cluster.0);
        w.number(self.by.0);
        w.number(self.epoch);
        w.number(self.feature_level);
        w.number(self.settings.replicas);
        w.number(self.settings.repair_after_ms);
        w.count(self.nodes.len());
        for node in &self.nodes {
            node.encode(w);
        }
        w.count(self.groups.len());
        for group in &self.groups {
            group.encode(w);
        }
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        let cluster = ClusterId(r.fixed128(Field::ClusterId)?);
        let by = NodeId(r.number(Field::Cluster)?);
        let epoch = r.number(Field::Epoch)?;
        let feature_level = r.number32(Field::Cluster)?;
        let settings = ClusterSettings {
            replicas: r.number32(Field::Replicas)?,
            repair_after_ms: r.number(Field::RepairAfter)?,
        };
        let count = r.count(Field::Nodes, NODE_BYTES_MIN, NODES_MAX)?;
        let nodes = r.items(count, ClusterNode::decode)?;
        let count = r.count(Field::Cluster, GROUP_BYTES_MIN, GROUPS_MAX)?;
        let groups = r.items(count, GroupView::decode)?;
        Ok(Self { cluster, by, epoch, feature_level, settings, nodes, groups })
    }
}
