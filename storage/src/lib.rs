//! Owns what Fanfold keeps: the write-ahead log and the partition state machine.
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
pub mod ids;
pub mod log;
pub mod oracle;
pub mod partition;
pub mod space;
