//! Owns the commands that found and change a cluster, and what they answer.

use crate::error::BodyError;
use crate::field::Field;
use crate::ids::NodeId;
use crate::message::cluster::{GroupName, NodeState};
use crate::wire::{Reader, Writer, bitmap};

/// Most steps that an answer names.
pub const CHANGE_STEPS_MAX: usize = 16_384;
/// Most losses that an answer names.
pub const CHANGE_LOSSES_MAX: usize = 4_097;

const STEP_BYTES_MIN: usize = 3;
const LOSS_BYTES_MIN: usize = 2;

/// Founds a cluster on a node that waits for one, or asks such a node whether another one may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InitCluster {
    /// Replicas that every group should have.
    pub replicas: u32,
    /// Number of partitions, a power of two up to 4,096.
    pub partitions: u16,
    /// Also if nodes that the node was told to join are silent, which may have a cluster.
    pub force: bool,
    /// A waiting node, by the number that it drew when it began to wait, asks whether it may found one; nothing is founded here.
    pub asker: Option<u64>,
}

/// What is to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterChange {
    /// Settings; none stays as it is.
    Settings {
        /// Replicas that every group should have.
        replicas: Option<u32>,
        /// After how many milliseconds of silence a node's replicas go to others; 0 is never.
        repair_after_ms: Option<u64>,
    },
    /// A node's replicas go to others, and it gets no more.
    Drain {
        /// The node.
        node: NodeId,
    },
    /// A node that is drained takes replicas again.
    Undrain {
        /// The node.
        node: NodeId,
    },
    /// A node without replicas is no member any more; one that is dead loses those that it has.
    Remove {
        /// The node.
        node: NodeId,
    },
    /// A node takes the place of another, which is gone for good.
    Replace {
        /// The one that is gone.
        node: NodeId,
        /// The one that takes its place.
        by: NodeId,
    },
    /// A replica goes from one node to another.
    Move {
        /// The group.
        group: GroupName,
        /// The node that has it.
        from: NodeId,
        /// The node that gets it.
        to: NodeId,
    },
    /// A replica leads from now on.
    TransferLeader {
        /// The group.
        group: GroupName,
        /// The node of the replica.
        to: NodeId,
    },
    /// A group that no live node has anything of begins with nothing.
    BeginEmpty {
        /// The group.
        group: GroupName,
        /// The node that it begins on.
        to: NodeId,
    },
    /// A group that has lost its majority for good goes on with what one replica has.
    Recover {
        /// The group.
        group: GroupName,
        /// The node of the replica that it goes on with.
        from: NodeId,
    },
    /// Replicas and leaders are spread evenly over the active nodes.
    Balance,
    /// The cluster uses what all of its nodes' programs can do.
    Upgrade {
        /// The feature level; none: the highest that any node's program has.
        to: Option<u32>,
    },
}

/// Changes a cluster, or says what a change would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeCluster {
    /// What is to change.
    pub change: ClusterChange,
    /// Only say what would change.
    pub dry_run: bool,
}

/// One thing that a change does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChangeStep {
    /// A replica is added.
    AddReplica {
        /// The group.
        group: GroupName,
        /// Where.
        to: NodeId,
    },
    /// A replica is removed.
    RemoveReplica {
        /// The group.
        group: GroupName,
        /// Where.
        from: NodeId,
    },
    /// The leadership moves.
    MoveLeader {
        /// The group.
        group: GroupName,
        /// Where.
        to: NodeId,
    },
    /// A node is something else to the cluster.
    SetNode {
        /// The node.
        node: NodeId,
        /// What it is from now on.
        state: NodeState,
    },
    /// The cluster uses more of what its nodes' programs can do.
    RaiseLevel {
        /// The feature level before.
        from: u32,
        /// The feature level from now on.
        to: u32,
    },
}

/// What is lost, or may be, when a group is recovered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeLoss {
    /// The group.
    pub group: GroupName,
    /// What, for people.
    pub what: String,
}

/// What a change does or would do. Replicas move afterwards, in the background.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClusterChanged {
    /// The epoch with the change; that of now if it was only asked for.
    pub epoch: u64,
    /// What it does to the placement.
    pub steps: Vec<ChangeStep>,
    /// What is lost.
    pub losses: Vec<ChangeLoss>,
}

/// Why a change of the cluster is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum ChangeRefusal {
    /// There is no such node.
    UnknownNode = 1,
    /// There is no such partition.
    UnknownGroup = 2,
    /// The node is not in the state that the change needs.
    NodeState = 3,
    /// Too few nodes would be left for the replicas.
    TooFewNodes = 4,
    /// The last voter of a group would go.
    LastVoter = 5,
    /// The node holds replicas.
    HoldsReplicas = 6,
    /// The node holds no replica of the group.
    NoReplica = 7,
    /// The node holds a replica of the group already.
    HasReplica = 8,
    /// The group has a majority and needs no recovery, or the change needs a majority that is not there.
    Majority = 9,
    /// The replica is no voter that has caught up.
    NotCaughtUp = 10,
    /// The node is alive.
    NodeAlive = 11,
    /// The node does not answer.
    NodeSilent = 12,
    /// A cluster exists already.
    Founded = 13,
    /// Anything else.
    Other = 14,
    /// The node was told to found a cluster itself, and asks the others.
    Founding = 15,
    /// The node is the one that asks.
    Asker = 16,
}

impl ChangeRefusal {
    /// Every refusal of this version, in the order of their numbers on the wire, which start at 1.
    pub const ALL: [Self; 16] = [
        Self::UnknownNode,
        Self::UnknownGroup,
        Self::NodeState,
        Self::TooFewNodes,
        Self::LastVoter,
        Self::HoldsReplicas,
        Self::NoReplica,
        Self::HasReplica,
        Self::Majority,
        Self::NotCaughtUp,
        Self::NodeAlive,
        Self::NodeSilent,
        Self::Founded,
        Self::Other,
        Self::Founding,
        Self::Asker,
    ];

    pub(crate) fn code(self) -> u8 {
        self as u8
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        let code = r.byte(Field::Status)?;
        let refusal = usize::from(code).checked_sub(1).and_then(|at| Self::ALL.get(at));
        refusal.copied().ok_or(BodyError::Malformed { field: Field::Status })
    }
}

impl InitCluster {
    pub(crate) fn encode(self, w: &mut Writer) {
        w.byte(bitmap([self.force, self.asker.is_some()]));
        w.number(self.replicas);
        w.number(self.partitions);
        if let Some(asker) = self.asker {
            w.fixed64(asker);
        }
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        let present = r.presence(0b11)?;
        Ok(Self {
            replicas: r.number32(Field::Replicas)?,
            partitions: r.number16(Field::Partition)?,
            force: present & 1 == 1,
            asker: r.optional(present, 1, |r| r.fixed64(Field::Nodes))?,
        })
    }
}

impl ClusterChange {
    fn encode(&self, w: &mut Writer) {
        match self {
            Self::Settings { replicas, repair_after_ms } => {
                w.byte(1);
                w.byte(bitmap([replicas.is_some(), repair_after_ms.is_some()]));
                if let Some(replicas) = replicas {
                    w.number(*replicas);
                }
                if let Some(ms) = repair_after_ms {
                    w.number(*ms);
                }
            }
            Self::Drain { node } => encode_node(w, 2, *node),
            Self::Undrain { node } => encode_node(w, 3, *node),
            Self::Remove { node } => encode_node(w, 4, *node),
            Self::Replace { node, by } => {
                encode_node(w, 5, *node);
                w.number(by.0);
            }
            Self::Move { group, from, to } => {
                encode_group(w, 6, *group, *from);
                w.number(to.0);
            }
            Self::TransferLeader { group, to } => encode_group(w, 7, *group, *to),
            Self::Recover { group, from } => encode_group(w, 8, *group, *from),
            Self::Balance => w.byte(9),
            Self::BeginEmpty { group, to } => encode_group(w, 10, *group, *to),
            Self::Upgrade { to } => {
                w.byte(11);
                w.byte(bitmap([to.is_some()]));
                if let Some(to) = to {
                    w.number(*to);
                }
            }
        }
    }

    fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        let node = |r: &mut Reader| r.number(Field::Nodes).map(NodeId);
        Ok(match r.byte(Field::Operation)? {
            1 => {
                let present = r.presence(0b11)?;
                Self::Settings {
                    replicas: r.optional(present, 0, |r| r.number32(Field::Replicas))?,
                    repair_after_ms: r.optional(present, 1, |r| r.number(Field::RepairAfter))?,
                }
            }
            2 => Self::Drain { node: node(r)? },
            3 => Self::Undrain { node: node(r)? },
            4 => Self::Remove { node: node(r)? },
            5 => Self::Replace { node: node(r)?, by: node(r)? },
            6 => Self::Move { group: GroupName::decode(r)?, from: node(r)?, to: node(r)? },
            7 => Self::TransferLeader { group: GroupName::decode(r)?, to: node(r)? },
            8 => Self::Recover { group: GroupName::decode(r)?, from: node(r)? },
            9 => Self::Balance,
            10 => Self::BeginEmpty { group: GroupName::decode(r)?, to: node(r)? },
            11 => {
                let present = r.presence(0b1)?;
                Self::Upgrade { to: r.optional(present, 0, |r| r.number32(Field::Operation))? }
            }
            _ => return Err(BodyError::Malformed { field: Field::Operation }),
        })
    }
}

fn encode_node(w: &mut Writer, kind: u8, node: NodeId) {
    w.byte(kind);
    w.number(node.0);
}

fn encode_group(w: &mut Writer, kind: u8, group: GroupName, node: NodeId) {
    w.byte(kind);
    group.encode(w);
    w.number(node.0);
}

impl ChangeCluster {
    pub(crate) fn encode(&self, w: &mut Writer) {
        w.boolean(self.dry_run);
        self.change.encode(w);
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        Ok(Self { dry_run: r.boolean(Field::Operation)?, change: ClusterChange::decode(r)? })
    }
}

impl ChangeStep {
    fn encode(self, w: &mut Writer) {
        match self {
            Self::AddReplica { group, to } => encode_group(w, 1, group, to),
            Self::RemoveReplica { group, from } => encode_group(w, 2, group, from),
            Self::MoveLeader { group, to } => encode_group(w, 3, group, to),
            Self::SetNode { node, state } => {
                encode_node(w, 4, node);
                state.encode(w);
            }
            Self::RaiseLevel { from, to } => {
                w.byte(5);
                w.number(from);
                w.number(to);
            }
        }
    }

    fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        let kind = r.byte(Field::Cluster)?;
        let node = |r: &mut Reader| r.number(Field::Nodes).map(NodeId);
        if kind == 4 {
            return Ok(Self::SetNode { node: node(r)?, state: NodeState::decode(r)? });
        }
        if kind == 5 {
            let level = |r: &mut Reader| r.number32(Field::Cluster);
            return Ok(Self::RaiseLevel { from: level(r)?, to: level(r)? });
        }
        let (group, node) = (GroupName::decode(r)?, node(r)?);
        Ok(match kind {
            1 => Self::AddReplica { group, to: node },
            2 => Self::RemoveReplica { group, from: node },
            3 => Self::MoveLeader { group, to: node },
            _ => return Err(BodyError::Malformed { field: Field::Cluster }),
        })
    }
}

impl ClusterChanged {
    pub(crate) fn encode(&self, w: &mut Writer) {
        w.number(self.epoch);
        w.count(self.steps.len());
        for step in &self.steps {
            step.encode(w);
        }
        w.count(self.losses.len());
        for ChangeLoss { group, what } in &self.losses {
            group.encode(w);
            w.string(what);
        }
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        let epoch = r.number(Field::Epoch)?;
        let count = r.count(Field::Cluster, STEP_BYTES_MIN, CHANGE_STEPS_MAX)?;
        let steps = r.items(count, ChangeStep::decode)?;
        let count = r.count(Field::Cluster, LOSS_BYTES_MIN, CHANGE_LOSSES_MAX)?;
        let losses = r.items(count, |r| {
            Ok(ChangeLoss { group: GroupName::decode(r)?, what: r.string(Field::Cluster)? })
        })?;
        Ok(Self { epoch, steps, losses })
    }
}
