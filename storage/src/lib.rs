//! Owns what Fanfold keeps: the write-ahead log, the partition state machine and the segments with its entries.
//!
//! - Everything here is synchronous and deterministic: no clock, no randomness, no network.
//! - A partition is a function of the commands of its log; [`partition::Partition`] is that function.
//! - [`oracle::Oracle`] states in a few lines what a feed is; the partition must always agree with it.
//!
//! The bytes on disk are specified in `storage/FORMAT.md`.

pub mod codec;
pub mod command;
pub mod entry;
pub mod event;
pub mod fs;
#[cfg(test)]
mod golden;
pub mod ids;
pub mod import;
mod limits;
pub mod log;
pub mod oracle;
pub mod partition;
pub mod segment;
pub mod snapshot;
pub mod space;
