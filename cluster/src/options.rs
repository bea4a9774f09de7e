//! Owns the settings of a node.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use fanfold_storage::command::Limits;
use fanfold_storage::fs::{FileSystem, RealFs};
use fanfold_storage::log::LogOptions;

use crate::catalog::{FEATURE_LEVEL, REPLICAS_DEFAULT};
use crate::clock::{Clock, SystemClock};
use crate::memory::{ProcessSize, ResidentSize};
use crate::phases::Phases;
use crate::raft::{FileSettings, RaftSettings};

/// Partitions of a new node that names no number.
pub const PARTITIONS_DEFAULT: u16 = 16;

/// The most partitions a cluster can have.
pub const PARTITIONS_MAX: u16 = 4_096;

/// What a node writes in the background, and what it keeps in memory for that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskOptions {
    /// What each partition's work on its segments goes by.
    pub files: FileSettings,
    /// Bytes of the log behind the newest snapshots of all partitions together; one takes the next when its share has grown past.
    pub snapshot_log_bytes: u64,
    /// Bytes of the whole log above which the group that pins its oldest part takes a snapshot.
    pub log_bytes_max: u64,
    /// Bytes that are written in the background, by all groups together, in a second.
    pub background_bytes_per_second: u64,
    /// Bytes of log and snapshots that the replicas here take in a second, all together, while they are filled by their peers.
    pub fill_bytes_per_second: u64,
    /// Bytes of the disk that are kept for the time when it is full; 0 is none.
    pub reserve_bytes: u64,
}

impl Default for DiskOptions {
    fn default() -> Self {
        let files = FileSettings {
            table_bytes: 32 << 20,
            unflushed_bytes_max: 128 << 20,
            segment_bytes_max: 512 << 20,
            cache_bytes: 64 << 20,
            cut_bytes_max: 16 << 20,
        };
        Self {
            files,
            snapshot_log_bytes: 256 << 20,
            log_bytes_max: 2 << 30,
            background_bytes_per_second: 256 << 20,
            fill_bytes_per_second: 8 << 20,
            reserve_bytes: 0,
        }
    }
}

/// What a node without a data directory does. One that was founded or has joined goes on as what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// It founds a cluster.
    Found {
        /// Replicas that each group should have, once there are nodes for them.
        replicas: u8,
    },
    /// It joins one; it waits until one of these answers.
    Join {
        /// Where nodes of the cluster listen for other nodes, `host:port`.
        addresses: Vec<String>,
    },
}

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
    /// Where it listens for other nodes; none: it stays alone.
    pub peer_listen: Option<SocketAddr>,
    /// The address that other nodes are told, `host:port`; none: that where it listens.
    pub peer_advertise: Option<String>,
    /// What may fail together with other nodes of the same name: replicas are spread over zones. Empty: a zone of its own.
    pub zone: String,
    /// What it does the first time.
    pub start: Start,
    /// What the write-ahead log reads and writes files through.
    pub fs: Arc<dyn FileSystem>,
    /// The write-ahead log; its salt is drawn by the node.
    pub log: LogOptions,
    /// Snapshots and segments.
    pub disk: DiskOptions,
    /// Bytes of memory that the process keeps to; tables, segments and snapshots become smaller within it, and a tenth above it
    /// writes that need more are refused. 0: any.
    pub memory_bytes: u64,
    /// What tells how much it takes of that.
    pub resident: Arc<dyn ResidentSize>,
    /// Days without a read after which a reader's feeds are freed when memory is short; they are rebuilt on return. 0: never.
    pub away_days: u16,
    /// The Raft groups.
    pub raft: RaftSettings,
    /// Where is noted how long things take.
    pub phases: Arc<Phases>,
    /// Events a journal keeps for a destination that does not answer, before it is dropped (R10).
    pub journal_events_max: usize,
    /// The feature level that the node says its program has (R3); another one than the default is for tests of clusters of several
    /// versions.
    pub feature_level: u32,
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
            peer_listen: None,
            peer_advertise: None,
            zone: String::new(),
            start: Start::Found { replicas: REPLICAS_DEFAULT },
            fs: Arc::new(RealFs),
            log: LogOptions::default(),
            disk: DiskOptions::default(),
            memory_bytes: 0,
            resident: Arc::new(ProcessSize),
            away_days: 30,
            raft: RaftSettings::default(),
            phases: Arc::default(),
            journal_events_max: 1 << 20,
            feature_level: FEATURE_LEVEL,
        }
    }
}
