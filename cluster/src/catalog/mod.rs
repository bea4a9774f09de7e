//! Owns the catalog: the Raft group that holds what the whole cluster agrees on.
//!
//! - Spaces and graphs, placement, nodes, limits and the feature level are a function of the catalog's log.
//! - Every change raises the epoch.
//! - Partitions learn of spaces and limits through their own logs only (R3); the distributor brings them there.

mod command;
mod distributor;
mod handle;
mod machine;
mod policy;
mod state;

pub use command::SpaceChanges;
pub(crate) use command::{CatalogCommand, Founding};
pub(crate) use distributor::Distributor;
pub(crate) use handle::CatalogHandle;
pub(crate) use machine::CatalogMachine;
pub use policy::{NAME_BYTES_MAX, name_refusal};
pub use state::{CatalogState, NodeRecord};
