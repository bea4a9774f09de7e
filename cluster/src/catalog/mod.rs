//! Owns the catalog: the Raft group that holds what the whole cluster agrees on.
//!
//! - Spaces and graphs, placement, nodes, limits and the feature level are a function of the catalog's log.
//! - Every change raises the epoch.
//! - Partitions learn of spaces and limits through their own logs only (R3); the distributor brings them there.

mod access;
mod answer;
mod command;
mod distributor;
#[cfg(test)]
mod golden;
mod handle;
mod machine;
mod nodes;
mod policy;
mod state;
mod take_over;
mod view;

pub(crate) use access::{CATALOG_GROUP, Catalog};
pub use command::SpaceChanges;
pub(crate) use command::{CatalogCommand, CatalogOutcome, CatalogRefusal, Founding};
pub(crate) use distributor::Distributor;
pub(crate) use handle::CatalogHandle;
pub(crate) use machine::CatalogMachine;
pub use nodes::{
    ClusterSettings, MOVED, NodeRecord, NodeState, REPAIR_AFTER_MS_DEFAULT, REPLICAS_DEFAULT, REPLICAS_MAX,
    ReplicaRecord,
};
pub(crate) use nodes::{Edit, NodeFacts, Place};
pub use policy::{NAME_BYTES_MAX, name_refusal};
pub use state::CatalogState;
pub(crate) use take_over::{EPOCH_LEAP, Fate, TakeOver};
pub(crate) use view::CatalogView;

/// What this program can do; a cluster is raised to it when all nodes can (R3). One whose level is higher has, or may get,
/// commands that this program does not know.
///
/// 1: all there was at first. 2: that the level can be raised.
pub(crate) const FEATURE_LEVEL: u32 = 2;
