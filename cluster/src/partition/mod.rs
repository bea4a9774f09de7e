//! Owns a partition on this node: its state machine in its Raft group, and the way to propose to and read from it.
//!
//! - A read that must see everything answered before goes through [`PartitionHandle::confirm`] first.
//! - A committed batch that does not decode is damage: nothing is applied from then on, and service is refused.

mod activity;
#[cfg(test)]
mod crashes;
mod due;
mod fresh;
mod gate;
mod handle;
mod machine;
mod marks;
#[cfg(test)]
mod moved;
mod receive;
mod slots;
mod ticker;

pub(crate) use activity::{READERS_MAX as ACTIVE_READERS_MAX, run as run_activity};
pub(crate) use due::background;
pub(crate) use handle::{PartitionHandle, Progress, StreamProgress, position_of};
pub(crate) use machine::{Applied, PartitionMachine};
pub(crate) use marks::{Mark, first_difference};
pub(crate) use receive::{ReceiveError, receive};
pub(crate) use slots::{Hosted, Partitions};
pub(crate) use ticker::run as run_ticker;
