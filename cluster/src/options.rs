//! Owns the settings of a node.

use std::path::PathBuf;
use std::sync::Arc;

use fanfold_storage::command::Limits;
use fanfold_storage::fs::{FileSystem, RealFs};
use fanfold_storage::log::LogOptions;

use crate::clock::{Clock, SystemClock};
use crate::raft::RaftSettings;

/// Partitions of a new node that names no number.
pub const PARTITIONS_DEFAULT: u16 = 16;

/// The most partitions a cluster can have.
pub const PARTITIONS_MAX: u16 = 4_096;

/// The settings of a node.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// Where everything is kept; made if there is none.
    pub data_dir: PathBuf,
    /// The number of partitions: a power of two up to [`PARTITIONS_MAX`], fixed when the data directory is made. None:
    /// what the directory has, or [`PARTITIONS_DEFAULT`] for a new one.
    pub partitions: Option<u16>,
    /// The limits of every partition; a change reaches them through their logs.
    pub limits: Limits,
    /// The node's clocks.
    pub clock: Arc<dyn Clock>,
    /// The address that the map shows, `host:port`; at most 256 bytes.
    pub advertise: String,
    /// What the write-ahead log reads and writes files through.
    pub fs: Arc<dyn FileSystem>,
    /// The write-ahead log; its salt is drawn by the node.
    pub log: LogOptions,
    /// The Raft groups.
    pub raft: RaftSettings,
    /// Events a journal keeps for a destination that does not answer, before it is dropped (R10).
    pub journal_events_max: usize,
}

impl NodeOptions {
    /// The defaults, with data in `data_dir`.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            partitions: None,
            limits: Limits::default(),
            clock: Arc::new(SystemClock::new()),
            advertise: "127.0.0.1:7117".to_owned(),
            fs: Arc::new(RealFs),
            log: LogOptions::default(),
            raft: RaftSettings::default(),
            journal_events_max: 1 << 20,
        }
    }
}
