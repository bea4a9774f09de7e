//! Owns the changes of the cluster that an operator asks for, and why they are refused.

use fanfold_storage::ids::{PartitionId, Stamp};
use thiserror::Error;

use crate::catalog::{ClusterSettings, NodeState};

/// A change of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClusterChange {
    /// Changes settings; none leaves one as it is.
    Settings {
        /// Replicas of each group, an odd number up to [`REPLICAS_MAX`](crate::catalog::REPLICAS_MAX).
        replicas: Option<u8>,
        /// How long a node may be silent before its replicas go elsewhere, in milliseconds; 0: for ever.
        repair_after_ms: Option<u64>,
    },
    /// Moves the replicas of a node elsewhere, and gives it no new ones.
    Drain {
        /// The node.
        node: u64,
    },
    /// Lets a draining node hold replicas again.
    Undrain {
        /// The node.
        node: u64,
    },
    /// Takes a node out for ever: one that was drained, or that is silent.
    Remove {
        /// The node.
        node: u64,
    },
    /// Gives all replicas of a node to another one. A silent node is removed by it, one that is alive is drained.
    Replace {
        /// The node.
        node: u64,
        /// Who takes its place.
        by: u64,
    },
    /// Moves a replica of a group.
    Move {
        /// The partition; none: the catalog.
        partition: Option<PartitionId>,
        /// From this node …
        from: u64,
        /// … to this one.
        to: u64,
    },
    /// Spreads replicas and leaders evenly over the active nodes.
    Balance,
    /// Lets a partition that has lost its majority go on with nothing but what one node has of it. What was acknowledged and
    /// this node never got is lost; the replicas that come back are given up. Until the partition is led again, another
    /// node may be named instead.
    Recover {
        /// The partition.
        partition: PartitionId,
        /// The node.
        from: u64,
    },
    /// Lets a partition begin with nothing on a node, where no live node has anything of it. All that it had is lost; replicas
    /// that come back are given up.
    BeginEmpty {
        /// The partition.
        partition: PartitionId,
        /// The node.
        to: u64,
    },
    /// Raises the feature level to what the programs of all nodes have (R3).
    Upgrade {
        /// The level; none: the highest that any node's program has.
        to: Option<u32>,
    },
}

/// What a change did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClusterChanged {
    /// The version of the catalog with the change; of a dry run, that it was looked at.
    pub epoch: u64,
    /// Nodes whose state changes.
    pub nodes: Vec<(u64, NodeState)>,
    /// Groups whose replicas change. Replicas on draining nodes follow later, by and by.
    pub placement: Vec<PlacementChange>,
    /// New settings, if they change.
    pub settings: Option<ClusterSettings>,
    /// What is accepted as lost.
    pub losses: Vec<AcceptedLoss>,
    /// Partitions that begin with nothing, each with its node.
    pub emptied: Vec<(PartitionId, u64)>,
    /// The feature level before and after, if it was to be raised.
    pub level: Option<(u32, u32)>,
}

/// What a partition that goes on with one replica has lost: every write that was acknowledged by the others and had not
/// reached it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptedLoss {
    /// The partition.
    pub partition: PartitionId,
    /// The node whose replica counts from now on.
    pub kept: u64,
    /// The nodes whose replicas are given up.
    pub given_up: Vec<u64>,
    /// What is left of it on live nodes, that which has most first.
    pub left: Vec<Remains>,
}

/// What a node has of a partition that nobody leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remains {
    /// The node.
    pub node: u64,
    /// The term and the index of the last Raft entry: whoever has the later one has everything that the other has of what
    /// was acknowledged.
    pub last: (u64, u64),
    /// The time up to which entries were applied there; zero if that cannot be told.
    pub applied: Stamp,
}

/// The replicas of a group, before and after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacementChange {
    /// The partition; none: the catalog.
    pub partition: Option<PartitionId>,
    /// The nodes before, the preferred leader first.
    pub from: Vec<u64>,
    /// The nodes after.
    pub to: Vec<u64>,
}

/// Why a change of the cluster was refused. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ClusterRefusal {
    /// There is no such node.
    #[error("there is no node {node}; there are {}", list(known))]
    UnknownNode {
        /// The node.
        node: u64,
        /// Those there are.
        known: Vec<u64>,
    },
    /// There is no such partition.
    #[error("there is no partition {}; there are 0 to {}", partition.0, partitions.saturating_sub(1))]
    UnknownPartition {
        /// The partition.
        partition: PartitionId,
        /// How many there are.
        partitions: u16,
    },
    /// The node was removed.
    #[error("node {node} was removed for ever; start it with an empty data directory to join as a new node")]
    NodeRemoved {
        /// The node.
        node: u64,
    },
    /// The node is silent.
    #[error("node {node} is silent; start it, or choose another one")]
    NodeSilent {
        /// The node.
        node: u64,
    },
    /// The node takes no replicas.
    #[error("node {node} is draining; undrain it first, or choose another one")]
    NodeDraining {
        /// The node.
        node: u64,
    },
    /// The last replica would go.
    #[error(
        "node {node} has the only replica of {}, and no other active node is there to take it; start one (`fanfold start --join`), \
         or undrain one",
        name(*partition)
    )]
    LastVoter {
        /// The node.
        node: u64,
        /// The partition; none: the catalog.
        partition: Option<PartitionId>,
    },
    /// A node would take its own place.
    #[error("node {node} cannot take its own place; name the one that was started for it")]
    Itself {
        /// The node.
        node: u64,
    },
    /// Too few nodes would be left.
    #[error(
        "without node {node} only {left} active nodes are left for {replicas} replicas{}; add a node, or lower the \
         setting `replicas` first",
        beside(silent)
    )]
    BelowReplicas {
        /// The node.
        node: u64,
        /// Replicas that groups have.
        replicas: u8,
        /// Nodes that would be left, and can take replicas.
        left: u32,
        /// Active nodes that cannot take any, because they are silent.
        silent: Vec<u64>,
    },
    /// The node has replicas, and is alive.
    #[error(
        "{replicas} groups have a replica on node {node}, or may have; drain it, and remove it when it has none"
    )]
    NotDrained {
        /// The node.
        node: u64,
        /// How many, with those that nobody knows enough of.
        replicas: u32,
    },
    /// Most replicas of a group are on silent nodes, or damaged, so that it cannot change.
    #[error(
        "{} has lost its quorum: nodes {} are silent, or what they have of it is damaged; start them, or accept the \
         loss: {}",
        name(*partition), list(silent), way_out(*partition)
    )]
    QuorumLost {
        /// The partition; none: the catalog.
        partition: Option<PartitionId>,
        /// The nodes whose replicas take no part.
        silent: Vec<u64>,
    },
    /// No live node has anything of the partition, so that it can neither change nor go on.
    #[error(
        "partition {0} is on no node that is alive: nodes {1} are silent, or what they have of it is damaged; start them, \
         see what `fanfold partition salvage {0} --data-dir DIR --dry-run` can save on one that is damaged, take it from a \
         backup (`fanfold backup restore --partition`), or let it begin empty: `fanfold partition recover {0} --empty --to {2} \
         --accept-loss`",
        partition.0, list(silent), takers.first().map_or_else(|| "NODE".to_owned(), u64::to_string)
    )]
    NothingLeft {
        /// The partition.
        partition: PartitionId,
        /// The nodes that had it.
        silent: Vec<u64>,
        /// The live nodes that take replicas.
        takers: Vec<u64>,
    },
    /// Something is left of the partition, so that it need not begin empty.
    #[error(
        "nodes {1} have a replica of partition {0}, or have not said yet what they have; go on with what is there: \
         `fanfold partition recover {0} --from {2} --accept-loss` (a node whose replica was never filled: stop it first)",
        partition.0, list(nodes), nodes.first().copied().unwrap_or_default()
    )]
    ReplicaLeft {
        /// The partition.
        partition: PartitionId,
        /// The nodes.
        nodes: Vec<u64>,
    },
    /// The partition can serve, so that nothing needs to be given up.
    #[error("partition {} has its quorum and needs no recovery", partition.0)]
    HasQuorum {
        /// The partition.
        partition: PartitionId,
    },
    /// The node has no replica of the group.
    #[error("node {node} has no replica of {}; {} have", name(*partition), list(holders))]
    NoReplica {
        /// The partition; none: the catalog.
        partition: Option<PartitionId>,
        /// The node.
        node: u64,
        /// Those that have one.
        holders: Vec<u64>,
    },
    /// What the node has of the partition cannot be opened.
    #[error("what node {node} has of partition {} is damaged, or was not opened; choose another node", partition.0)]
    ReplicaDamaged {
        /// The partition.
        partition: PartitionId,
        /// The node.
        node: u64,
    },
    /// The node has a replica of the group already.
    #[error("node {node} has a replica of {} already; name a node that has none, as `fanfold partition list` shows", name(*partition))]
    HasReplica {
        /// The partition; none: the catalog.
        partition: Option<PartitionId>,
        /// The node.
        node: u64,
    },
    /// The number of replicas is not possible. An even one bears no more losses than the odd one below it.
    #[error("{got} replicas are not possible; choose an odd number from 1 to {max}")]
    Replicas {
        /// What was asked for.
        got: u8,
        /// The most.
        max: u8,
    },
    /// Another node's directory listens at this address, so this one was wiped, or is another one.
    #[error(
        "node {node} has the address {address} with another data directory; if that is lost, start this one at \
         another address and run `fanfold node replace {node} --by` with its id"
    )]
    AddressTaken {
        /// The node.
        node: u64,
        /// The address.
        address: String,
    },
    /// The node's id belongs to another data directory.
    #[error(
        "node {node} has another data directory; join with an empty one, and run `fanfold node replace {node} --by` \
         with the new id"
    )]
    OtherDirectory {
        /// The node.
        node: u64,
    },
    /// The node's program is older than what the cluster uses (R3).
    #[error(
        "the cluster uses feature level {needed}, and this program has only {supported}; start the node with a newer \
         version of fanfold"
    )]
    FeatureLevel {
        /// The level that the cluster uses.
        needed: u32,
        /// What the program has.
        supported: u32,
    },
    /// The programs of some nodes do not have a feature level.
    #[error(
        "feature level {level} is more than what the programs of these nodes have: {}; start them with a newer version of \
         fanfold first, one after the other",
        with_levels(below)
    )]
    LevelAbove {
        /// The level.
        level: u32,
        /// The nodes, each with what its program has.
        below: Vec<(u64, u32)>,
    },
    /// What the programs of some nodes have is not known.
    #[error(
        "nodes {} do not say what their programs have, and would be refused if that is too little; start them, or remove \
         those that are gone for good (`fanfold node remove`, `fanfold node replace`)",
        list(silent)
    )]
    LevelUnknown {
        /// The nodes.
        silent: Vec<u64>,
    },
    /// A feature level would fall.
    #[error("the cluster uses feature level {level} already, which never falls; {asked} is less")]
    LevelFalls {
        /// The level that the cluster uses.
        level: u32,
        /// What was asked for.
        asked: u32,
    },
    /// The cluster does not take the node.
    #[error("the cluster does not take this node; its version may be another one")]
    NotTaken,
    /// The replica cannot lead.
    #[error("node {node} cannot lead {} now: it does not vote, is behind, or is silent", name(*partition))]
    CannotLead {
        /// The partition; none: the catalog.
        partition: Option<PartitionId>,
        /// The node.
        node: u64,
    },
}

fn name(partition: Option<PartitionId>) -> String {
    partition.map_or_else(|| "the catalog".to_owned(), |id| format!("partition {}", id.0))
}

fn beside(silent: &[u64]) -> String {
    if silent.is_empty() {
        String::new()
    } else {
        format!(" beside the silent {}, which can take none", list(silent))
    }
}

/// How a loss is accepted.
fn way_out(partition: Option<PartitionId>) -> String {
    partition.map_or_else(
        || {
            "`fanfold cluster recover --gone NODE,… --data-dir DIR --dry-run` on one of those that are left"
                .to_owned()
        },
        |id| {
            let id = id.0;
            format!(
                "`fanfold partition recover {id} --from NODE --accept-loss`, with one of those that \
                 `fanfold partition show {id}` names"
            )
        },
    )
}

fn with_levels(nodes: &[(u64, u32)]) -> String {
    let names: Vec<_> = nodes.iter().map(|(node, level)| format!("node {node} has {level}")).collect();
    names.join(", ")
}

fn list(nodes: &[u64]) -> String {
    let names: Vec<_> = nodes.iter().map(u64::to_string).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
