//! Owns the errors of a node: opening it, using it, and its failure while it runs.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use fanfold_storage::command::Refusal;
use fanfold_storage::ids::{GraphId, PartitionId, SpaceId};
use thiserror::Error;

use crate::change::ClusterRefusal;
use crate::map::{Whereabouts, group_of};
use crate::raft::{self, Damage, ProposeError, ReadError, StopReason};

mod range;
mod said;

pub use range::RangeField;
pub(crate) use said::because;
use said::{catalog_to_do, holder, own_log, to_do, whose};

/// Why a node was not opened. Nothing that was answered before is lost by it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process uses the data directory.
    #[error("{data_dir:?} is in use by {}; stop that process, or choose another data directory", holder(*pid))]
    Locked {
        /// The directory.
        data_dir: PathBuf,
        /// The process, if the lock file says.
        pid: Option<u32>,
    },
    /// There is nothing of a node in the directory.
    #[error("{data_dir:?} holds no node; name the data directory of one with --data-dir")]
    NoNode {
        /// The directory.
        data_dir: PathBuf,
    },
    /// The number of partitions is no power of two up to 4,096.
    #[error("{got} partitions are not possible; choose a power of two from 1 to 4096")]
    PartitionCount {
        /// What was asked for.
        got: u16,
    },
    /// The data directory was made with another number of partitions.
    #[error(
        "{data_dir:?} was made with {found} partitions, not {asked}; the number is fixed when a cluster is made, so \
         leave the setting out, or choose another data directory"
    )]
    PartitionsDiffer {
        /// The directory.
        data_dir: PathBuf,
        /// What it has.
        found: u16,
        /// What was asked for.
        asked: u16,
    },
    /// The data directory has another version of the format.
    #[error(
        "{data_dir:?} has format version {found}, this program reads version {supported}; start it with the version of \
         fanfold that made it"
    )]
    FormatVersion {
        /// The directory.
        data_dir: PathBuf,
        /// What it has.
        found: u64,
        /// What this program reads.
        supported: u64,
    },
    /// The directory holds something else.
    #[error("{data_dir:?} holds {foreign:?}, which is not of fanfold; choose an empty or new directory")]
    NotADataDirectory {
        /// The directory.
        data_dir: PathBuf,
        /// One of the things in it.
        foreign: PathBuf,
    },
    /// The node's identity is there, but its log is gone.
    #[error(
        "{data_dir:?} belongs to node {node} of cluster {cluster_id:032x}, but its log is missing; put the `log` directory \
         back, or start with an empty data directory: a node that is alone loses what was stored, one of several is filled by \
         the others after `fanfold node replace {node}`"
    )]
    LogMissing {
        /// The directory.
        data_dir: PathBuf,
        /// The cluster it belongs to.
        cluster_id: u128,
        /// The node.
        node: u64,
    },
    /// The log is of another node of the same cluster.
    #[error(
        "the log in {data_dir:?} is of node {log}, and {}; nothing of it was changed: put it back where node {log} has its \
         data, {}",
        whose(*node), own_log(*node)
    )]
    LogOfAnother {
        /// The directory.
        data_dir: PathBuf,
        /// The node that it belongs to; 0 if it has not joined yet.
        node: u64,
        /// The node that wrote the log.
        log: u64,
    },
    /// The note in the log's directory that says whose it is is damaged.
    #[error(
        "{path:?}, which says which node's log this is, is damaged; if the log is this node's, remove that file, and the next \
         start writes it anew"
    )]
    LogNote {
        /// The file.
        path: PathBuf,
    },
    /// Identity and log come from different clusters or nodes.
    #[error(
        "the identity in {data_dir:?} is of cluster {identity:032x}, its log of cluster {log:032x}; one of both was \
         copied here from elsewhere: put the right one back"
    )]
    IdentityDiffers {
        /// The directory.
        data_dir: PathBuf,
        /// The cluster of the identity.
        identity: u128,
        /// The cluster of the log.
        log: u128,
    },
    /// The address for the map is longer than 256 bytes or empty.
    #[error("the advertised address has {bytes} bytes; give a host and port of 1 to 256 bytes")]
    AdvertiseLength {
        /// Its length.
        bytes: usize,
    },
    /// A restore into the directory was not finished.
    #[error(
        "{data_dir:?} holds a restore that was not finished; run the same `fanfold backup restore` again, or the same \
         `fanfold partition salvage`, if it was that"
    )]
    RestoreUnfinished {
        /// The directory.
        data_dir: PathBuf,
    },
    /// The note about what was restored is damaged.
    #[error(
        "{path:?}, which says what was restored here, is damaged; run the same `fanfold backup restore` again into an empty directory"
    )]
    RestoreUnreadable {
        /// The file.
        path: PathBuf,
    },
    /// The operating system refused an operation on a file or directory.
    #[error("cannot use {path:?}: {source}")]
    Io {
        /// On which file or directory.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The identity database cannot be used.
    #[error("the identity database {path:?} cannot be used: {source}")]
    Identity {
        /// Its directory.
        path: PathBuf,
        /// Why.
        source: Box<sled::Error>,
    },
    /// The write-ahead log was not opened.
    #[error(transparent)]
    Log(#[from] fanfold_storage::log::OpenError),
    /// The catalog's group was not opened, so that nothing can be served.
    #[error("the catalog was not opened: {}{}", .0, catalog_to_do(.0))]
    Catalog(#[source] raft::OpenError),
    /// A partition's group was not opened.
    #[error("partition {partition} was not opened: {source}{}", to_do(*partition, source))]
    Partition {
        /// Which.
        partition: PartitionId,
        /// Why.
        source: raft::OpenError,
    },
    /// The data directory belongs to another cluster than the one that answered.
    #[error(
        "{data_dir:?} belongs to cluster {own:032x}, and the node at {address} to another one; correct the addresses to \
         join, or choose an empty data directory"
    )]
    OtherCluster {
        /// The directory.
        data_dir: PathBuf,
        /// Its cluster.
        own: u128,
        /// Who answered.
        address: String,
    },
    /// The identity of a node of several is gone.
    #[error(
        "the identity in {data_dir:?} is unreadable, and its cluster has several nodes; start with an empty data \
         directory, and run `fanfold node replace` for the node that was here"
    )]
    IdentityLost {
        /// The directory.
        data_dir: PathBuf,
    },
    /// The disk has no room to read which node of several this is.
    #[error(
        "the disk of {data_dir:?} has no room for its identity to be read, and its cluster has several nodes; make room \
         for 4 MB and start it again, nothing is lost"
    )]
    NoRoom {
        /// The directory.
        data_dir: PathBuf,
    },
    /// Another process runs as this node.
    #[error(
        "another process runs as node {node}, and was there first: {data_dir:?} is a copy of its data directory, or it of \
         this one; let only the one run that ran last, and join with an empty data directory for another node"
    )]
    RunsElsewhere {
        /// The directory.
        data_dir: PathBuf,
        /// The node.
        node: u64,
    },
    /// Another node has an order to take the cluster over too.
    #[error(
        "node {node} has an order to take the cluster over too, and one only may: stop it, withdraw one of the orders with \
         `fanfold cluster recover --withdraw --data-dir {}`, and start the other node first",
        data_dir.display()
    )]
    TakeOverTwice {
        /// The directory of this one.
        data_dir: PathBuf,
        /// The other node.
        node: u64,
    },
    /// Another node has taken the cluster over.
    #[error(
        "the cluster was taken over by another node, as node {node} knows (epoch {epoch}); withdraw the order here with \
         `fanfold cluster recover --withdraw --data-dir {}`, and start this node as one of the others",
        data_dir.display()
    )]
    TakenOver {
        /// The directory of this one.
        data_dir: PathBuf,
        /// Who knows.
        node: u64,
        /// The epoch that it knows.
        epoch: u64,
    },
    /// A node that is said to be gone runs.
    #[error(
        "node {node}, which the order to take over says is gone, answers; stop it for good, or withdraw the order with \
         `fanfold cluster recover --withdraw --data-dir {}`",
        data_dir.display()
    )]
    NotGone {
        /// The directory of this one.
        data_dir: PathBuf,
        /// The node.
        node: u64,
    },
    /// A node whose replica of the catalog is said to be damaged has a whole one.
    #[error(
        "node {node} has a whole replica of the catalog, which the order to take over says is damaged; withdraw the order with \
         `fanfold cluster recover --withdraw --data-dir {}`: if it has a majority with this node, start that; else give the \
         order without it",
        data_dir.display()
    )]
    CatalogWhole {
        /// The directory of this one.
        data_dir: PathBuf,
        /// The node.
        node: u64,
    },
    /// The catalog is damaged, and no other node has it.
    #[error(
        "the catalog is damaged on this node, and no other node has a replica of it: {source}; restore a backup into an \
         empty directory (`fanfold backup restore`), or let another node of the cluster go on with what it knows of the \
         catalog: stop that one, and `fanfold cluster recover --gone {node} --data-dir DIR --dry-run` there"
    )]
    CatalogDamaged {
        /// This node.
        node: u64,
        /// What is damaged.
        source: raft::OpenError,
    },
    /// The cluster refuses the node.
    #[error("the cluster refuses this node: {0}")]
    Refused(#[source] ClusterRefusal),
    /// The address for other nodes cannot be listened at.
    #[error("cannot listen for other nodes at {address}: {source}")]
    PeerListen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// To join, a node must listen for other nodes.
    #[error("a node that joins needs an address where it listens for other nodes; give `--peer-listen`")]
    NoPeerListen,
    /// The node stopped serving while it was being opened.
    #[error("the node could not be made ready: {0}")]
    Setup(#[from] NodeError),
}

/// Where the leader of a partition is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderAt {
    /// The node believed to lead.
    pub node: u64,
    /// Its address, `host:port`.
    pub address: String,
}

/// Why a node did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The partition's state machine refused the command; it had no effect.
    #[error("refused: {refusal:?}")]
    Refused {
        /// Why.
        refusal: Refusal,
    },
    /// There is no such space.
    #[error("there is no such space")]
    UnknownSpace {
        /// Those that exist.
        known: Vec<(SpaceId, String)>,
    },
    /// There is no such graph.
    #[error("there is no such graph")]
    UnknownGraph {
        /// Those that exist.
        known: Vec<(GraphId, String)>,
    },
    /// A space of that name exists.
    #[error("a space of that name exists already")]
    SpaceExists,
    /// A name has other bytes than `a`-`z`, `0`-`9`, `-` and `_`.
    #[error("names consist of a-z, 0-9, - and _; byte {at} is something else")]
    NameByte {
        /// Which byte.
        at: usize,
    },
    /// No more spaces or graphs can be made.
    #[error("all {limit} spaces exist already")]
    SpacesExhausted {
        /// The limit.
        limit: u16,
    },
    /// A number is outside its range.
    #[error("{field:?} is {got} and must lie between {min} and {max}")]
    OutOfRange {
        /// Which.
        field: RangeField,
        /// The smallest accepted value.
        min: u64,
        /// The largest accepted value.
        max: u64,
        /// What came.
        got: u64,
    },
    /// There is no partition of this number.
    #[error("there is no partition {partition}")]
    UnknownPartition {
        /// The number.
        partition: PartitionId,
    },
    /// This node does not lead the partition.
    #[error("this node does not lead the partition")]
    NotLeader {
        /// Who does, if known.
        leader: Option<LeaderAt>,
    },
    /// A queue is full. Nothing was done.
    #[error("busy; try again in {delay_ms} ms")]
    Busy {
        /// When to try again, in milliseconds.
        delay_ms: u64,
    },
    /// The disk has no room. Nothing was done.
    #[error("the disk has no room for the log; writes go on when there is room")]
    DiskFull,
    /// The node has no memory for a write that needs more. Nothing was done.
    #[error("the node is over its memory budget; writes that need more go on when it is below again")]
    MemoryFull,
    /// The command is larger than what is accepted. Nothing was done.
    #[error("{bytes} bytes are above the limit of {limit_bytes}")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// A partition cannot serve now.
    #[error("partition {partition} cannot serve now")]
    Unavailable {
        /// Which.
        partition: PartitionId,
        /// Whether a write may take effect all the same.
        may_have_applied: bool,
    },
    /// The catalog cannot serve now.
    #[error("the catalog cannot serve now")]
    CatalogUnavailable {
        /// Whether a change may take effect all the same.
        may_have_applied: bool,
    },
    /// Most of the nodes with a replica of the catalog are silent, and nobody leads it. Nothing was changed.
    #[error("the catalog has no majority: nodes {silent:?} are silent")]
    CatalogSilent {
        /// Those that are.
        silent: Vec<u64>,
    },
    /// The node is stopping and did not start on it.
    #[error("the node is stopping")]
    ShuttingDown,
    /// The change of the cluster is refused.
    #[error(transparent)]
    Cluster(#[from] ClusterRefusal),
    /// What this node has of the partition is damaged, and nobody else has a replica of it.
    #[error("partition {partition} is damaged on this node and refuses service: {}", because(damage.as_deref()))]
    Damaged {
        /// Which.
        partition: PartitionId,
        /// What is damaged of it; none if another node answered so.
        damage: Option<Arc<Damage>>,
    },
}

impl NodeError {
    /// Whether the same request can succeed later or elsewhere, unchanged.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::NotLeader { .. }
                | Self::Busy { .. }
                | Self::DiskFull
                | Self::MemoryFull
                | Self::Unavailable { .. }
                | Self::CatalogUnavailable { .. }
                | Self::CatalogSilent { .. }
                | Self::ShuttingDown
                | Self::Refused { refusal: Refusal::WrongPartition { .. } | Refusal::SessionFull }
        )
    }

    /// Whether a write so answered may have taken, or may yet take, effect.
    pub fn may_have_applied(&self) -> bool {
        match self {
            Self::Unavailable { may_have_applied, .. } | Self::CatalogUnavailable { may_have_applied } => {
                *may_have_applied
            }
            Self::Damaged { .. } => true,
            Self::Refused { refusal } => {
                matches!(refusal, Refusal::UnknownSession | Refusal::SequenceTooOld)
            }
            _ => false,
        }
    }

    /// A refusal of a partition's state machine.
    pub(crate) fn refused(refusal: Refusal) -> Self {
        Self::Refused { refusal }
    }

    /// This node does not lead `partition` (none: the catalog).
    fn not_leader(
        partition: Option<PartitionId>,
        hint: Option<&raft::LeaderHint>,
        whereabouts: &Whereabouts,
    ) -> Self {
        let hinted = hint.and_then(|hint| whereabouts.of_hint(hint));
        Self::NotLeader { leader: hinted.or_else(|| whereabouts.leader_of(group_of(partition), None)) }
    }

    /// What a proposal to `partition` (none: the catalog) failed with.
    pub(crate) fn from_proposal(
        partition: Option<PartitionId>,
        error: &ProposeError,
        whereabouts: &Whereabouts,
    ) -> Self {
        let may_have_applied = error.may_have_applied();
        match error {
            ProposeError::NotLeader { hint } => Self::not_leader(partition, hint.as_ref(), whereabouts),
            ProposeError::Busy { delay_ms } => Self::Busy { delay_ms: *delay_ms },
            ProposeError::DiskFull => Self::DiskFull,
            ProposeError::TooLarge { bytes, limit_bytes } => {
                Self::TooLarge { bytes: *bytes, limit_bytes: *limit_bytes }
            }
            ProposeError::Lost { .. } | ProposeError::Stopped { .. } => match partition {
                Some(partition) => Self::Unavailable { partition, may_have_applied },
                None => Self::CatalogUnavailable { may_have_applied },
            },
        }
    }

    /// What a read of `partition` (none: the catalog) failed with.
    pub(crate) fn from_read(
        partition: Option<PartitionId>,
        error: &ReadError,
        whereabouts: &Whereabouts,
    ) -> Self {
        match (error, partition) {
            (ReadError::NotLeader { hint }, _) => Self::not_leader(partition, hint.as_ref(), whereabouts),
            (_, Some(partition)) => Self::Unavailable { partition, may_have_applied: false },
            (_, None) => Self::CatalogUnavailable { may_have_applied: false },
        }
    }
}

/// Why a node can no longer serve: the process must end, and a restart is safe.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NodeFailure {
    /// The node was removed from its cluster.
    #[error(
        "node {node} was removed from its cluster for ever; start it with an empty data directory to join as a new node"
    )]
    Removed {
        /// The node.
        node: u64,
    },
    /// Another process runs as this node.
    #[error(
        "another process runs as node {node}, on a copy of its data directory, and node {by} heard it first; let only the \
         one run that ran last"
    )]
    Twice {
        /// The node.
        node: u64,
        /// The node that said so.
        by: u64,
    },
    /// The cluster's feature level was raised above what the program has, which was started meanwhile (R3).
    #[error(
        "the cluster uses feature level {needed} now, and this program has only {supported}: what it does not know, it would \
         leave out; start the node with a newer version of fanfold"
    )]
    FeatureLevel {
        /// The level that the cluster uses.
        needed: u32,
        /// What the program has.
        supported: u32,
    },
    /// A Raft group stopped: its log failed, or it panicked.
    #[error("group {group} failed: {reason}; this process must end, and a restart is safe")]
    Group {
        /// The group: 0 is the catalog, partition `n` has `n` + 1.
        group: u32,
        /// Why.
        reason: StopReason,
    },
    /// Work on a group's files panicked.
    #[error("work on the files of group {group} panicked; this process must end, and a restart is safe")]
    Upkeep {
        /// The group: 0 is the catalog, partition `n` has `n` + 1.
        group: u32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_leadership_leaves_the_outcome_open() {
        let nowhere = Whereabouts::default();
        let lost =
            NodeError::from_proposal(Some(PartitionId(3)), &ProposeError::Lost { hint: None }, &nowhere);
        assert!(lost.may_have_applied() && lost.is_retryable());
        let busy =
            NodeError::from_proposal(Some(PartitionId(3)), &ProposeError::Busy { delay_ms: 5 }, &nowhere);
        assert!(!busy.may_have_applied() && busy.is_retryable());
        let unknown = NodeError::Refused { refusal: Refusal::UnknownSpace };
        assert!(!unknown.may_have_applied() && !unknown.is_retryable());
    }

    #[test]
    fn a_held_lock_names_directory_and_process() {
        let message = OpenError::Locked { data_dir: PathBuf::from("/data"), pid: Some(7) }.to_string();
        assert!(message.contains("/data") && message.contains("process 7"), "{message}");
    }
}
