//! Owns what makes nodes one store: Raft groups and their proposers, the catalog, the streams between partitions, and
//! the coordinators of reads.
//!
//! - This is the only crate that names openraft, and only its `raft` module does.
//! - Time enters a partition only through the stamps of its leader.
//! - [`node::Node`] is the whole of it: what the server opens, asks and closes.

pub mod backup;
pub mod blocking;
pub mod catalog;
pub mod change;
pub mod clock;
pub mod dispatcher;
pub mod error;
#[cfg(test)]
mod golden;
pub mod identity;
pub mod inspect;
pub mod jobs;
mod lock;
pub mod map;
mod memory;
pub mod meter;
pub mod node;
pub mod options;
mod owner;
mod pacer;
mod partition;
pub mod peer;
pub mod phases;
pub mod position;
pub mod proposer;
pub mod raft;
pub mod read;
mod reserve;
pub mod simulation;
pub mod status;
pub mod survivor;
mod timed;
mod upkeep;
pub mod verify;
pub mod view;
pub mod zone;

pub use catalog::SpaceChanges;
pub use change::{AcceptedLoss, ClusterChange, ClusterChanged, ClusterRefusal};
pub use error::{NodeError, NodeFailure, OpenError};
pub use identity::Identity;
pub use memory::{ProcessSize, Resident, ResidentSize};
pub use node::Node;
pub use options::{DiskOptions, NodeOptions, Start};
pub use position::{Position, Receipt};
pub use raft::{ApplyTimes, BOUNDS as APPLY_TIME_BOUNDS, Times};
pub use view::ClusterView;
