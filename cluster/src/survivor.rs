//! Owns the order to a stopped node to go on without the majority of the catalog, which is gone for good.
//!
//! - It is a note in the data directory; the next start makes the node's replica of the catalog the only one and marks the
//!   nodes that are gone as removed. Partitions that lost their majority too go on with one replica that is left, when all
//!   nodes that are left run: only they know who votes, and which of them has the most.
//! - What only the nodes that are gone had is lost. None of them may ever run again; if one does, it is refused by whoever
//!   knows.
//! - Nodes on which only the catalog is damaged are no loss for anything else: they stay, and are given new replicas of it.
//! - If nobody who is left has a replica of the catalog, it is made anew of what this node wrote down of it.
//! - One node only is given the order. Before the next start does anything it asks the others, and refuses if another one has
//!   an order too, or has done it, or if what the order says of one is not so; an order that has not begun can be withdrawn.

use std::path::{Path, PathBuf};

use fanfold_storage::fs::RealFs;
use fanfold_storage::ids::PartitionId;
use thiserror::Error;

use crate::backup::{Alone, BackupError, Restored};
use crate::catalog::{CATALOG_GROUP, CatalogState, Fate, NodeState};
use crate::error::OpenError;
use crate::identity::DataDir;
use crate::lock::DirLock;

/// What becomes of the cluster, as far as the node knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survival {
    /// The node that goes on.
    pub node: u64,
    /// The nodes that are removed.
    pub gone: Vec<u64>,
    /// Partitions that go on with what one node has, and the nodes left that should have them. One that was being moved may
    /// be better or worse off.
    pub kept: Vec<(PartitionId, Vec<u64>)>,
    /// Partitions that only nodes should have that are gone.
    pub lost: Vec<PartitionId>,
    /// The epoch of what was written down of the catalog, if that is all that is left of it; there may have been later ones.
    pub catalog_of_epoch: Option<u64>,
}

/// Why a node does not go on alone.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SurvivorError {
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] OpenError),
    /// The order cannot be written.
    #[error(transparent)]
    Write(#[from] BackupError),
    /// There is no node, or it was alone.
    #[error("{data_dir:?} holds no node that is one of several")]
    NotOfCluster {
        /// The data directory.
        data_dir: PathBuf,
    },
    /// The node has no replica of the catalog.
    #[error("this node has no replica of the catalog; do it on node {}", listed(.holders))]
    NoCatalog {
        /// The nodes that have one, and are not said to be gone.
        holders: Vec<u64>,
    },
    /// A node that is said to be gone is none of the others.
    #[error("node {node} is none of the other nodes, which are {}", listed(.others))]
    NotOther {
        /// What was said.
        node: u64,
        /// The others.
        others: Vec<u64>,
    },
    /// The catalog has a majority.
    #[error(
        "without {} the catalog still has a majority; start the nodes that are left: those whose replica is damaged get a new \
         one, and `fanfold node remove` is for those that are gone",
        listed(.without)
    )]
    HasMajority {
        /// The nodes that were said to be gone, or to have a damaged replica.
        without: Vec<u64>,
    },
    /// Something else is to be done first.
    #[error(
        "{data_dir:?} holds a restore, or such an order, that the next start does first; an order is withdrawn with \
         `fanfold cluster recover --withdraw`"
    )]
    Pending {
        /// The data directory.
        data_dir: PathBuf,
    },
    /// There is nothing to withdraw.
    #[error("{data_dir:?} holds no order to take the cluster over")]
    NoOrder {
        /// The data directory.
        data_dir: PathBuf,
    },
    /// It is too late to withdraw the order.
    #[error(
        "the order in {data_dir:?} was begun: others may know of it already; start the node, which goes on where it stopped, \
         or an empty data directory in its place if another node has taken the cluster over meanwhile"
    )]
    Begun {
        /// The data directory.
        data_dir: PathBuf,
    },
}

fn listed(nodes: &[u64]) -> String {
    nodes.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
}

/// Lets the stopped node of a data directory go on without nodes that are gone for good, from its next start on.
///
/// `damaged` are nodes that stay, and whose replicas of the catalog are not to be trusted.
pub fn survive(
    data_dir: &Path,
    gone: &[u64],
    damaged: &[u64],
    is_dry_run: bool,
) -> Result<Survival, SurvivorError> {
    let _lock = DirLock::take(data_dir)?;
    let dir = DataDir::at(data_dir);
    if Restored::load(&RealFs, data_dir)?.is_some() {
        return Err(SurvivorError::Pending { data_dir: data_dir.to_owned() });
    }
    let not_of_cluster = || SurvivorError::NotOfCluster { data_dir: data_dir.to_owned() };
    let stored = dir.peek()?.filter(|stored| stored.founded).ok_or_else(not_of_cluster)?;
    let state = dir.load_catalog().ok_or_else(not_of_cluster)?;
    let node = stored.identity.node_id;
    let is_other = |known: &u64| {
        *known != node && state.nodes.get(known).is_some_and(|record| record.state != NodeState::Removed)
    };
    let without = [gone, damaged].concat();
    if let Some(stranger) = without.iter().find(|node| !is_other(node)) {
        let others = state.nodes.keys().copied().filter(is_other).collect();
        return Err(SurvivorError::NotOther { node: *stranger, others });
    }
    if state.fate(0, &without) == Fate::GoesOn {
        return Err(SurvivorError::HasMajority { without });
    }
    let replicas = dir.load_replicas().unwrap_or_default();
    let is_catalog_anew = !replicas.contains_key(&CATALOG_GROUP.0);
    let holders = others_with_catalog(&state, node, &without);
    if is_catalog_anew && !holders.is_empty() {
        return Err(SurvivorError::NoCatalog { holders });
    }
    let catalog_of_epoch = is_catalog_anew.then_some(state.epoch);
    let mut survival =
        Survival { node, gone: gone.to_vec(), kept: Vec::new(), lost: Vec::new(), catalog_of_epoch };
    for partition in (0..stored.partitions).map(PartitionId) {
        match state.fate(u32::from(partition.0) + 1, gone) {
            Fate::GoesOn => {}
            Fate::Kept(left) => survival.kept.push((partition, left)),
            Fate::Lost => survival.lost.push(partition),
        }
    }
    if !is_dry_run {
        let begun = Restored::begin(Vec::new(), false);
        let last = replicas.values().copied().max().unwrap_or_default().max(state.last_replica);
        let replica = begun.unused_replica(last);
        let (gone, damaged, empty) = (gone.to_vec(), damaged.to_vec(), Vec::new());
        let alone = Alone { replica, founds: false, gone, damaged, empty, is_catalog_anew, is_begun: false };
        Restored { is_finished: true, alone: Some(alone), ..begun }.store(&RealFs, data_dir)?;
    }
    Ok(survival)
}

/// Takes back the order of a stopped node to go on without the others, unless a start has begun with it.
pub fn withdraw(data_dir: &Path) -> Result<(), SurvivorError> {
    let _lock = DirLock::take(data_dir)?;
    let restored = Restored::load(&RealFs, data_dir)?;
    let order = restored.as_ref().and_then(|restored| restored.alone.as_ref()).filter(|alone| !alone.founds);
    let Some(order) = order else {
        return Err(SurvivorError::NoOrder { data_dir: data_dir.to_owned() });
    };
    if order.is_begun {
        return Err(SurvivorError::Begun { data_dir: data_dir.to_owned() });
    }
    Ok(Restored::remove(&RealFs, data_dir)?)
}

/// The other nodes that should have the catalog, and are not among those that cannot give it.
fn others_with_catalog(state: &CatalogState, node: u64, without: &[u64]) -> Vec<u64> {
    let holders = state.wanted(CATALOG_GROUP.0).iter().map(|record| record.node);
    holders.filter(|holder| *holder != node && !without.contains(holder)).collect()
}
