//! Owns the figures of a node: what operators see of its partitions, streams and log.

use fanfold_storage::ids::{JournalPosition, PartitionId, Stamp};
use fanfold_storage::log::LogStatus;
use fanfold_storage::partition::Usage;

use crate::phases::PhaseTimes;

/// The status of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStatus {
    /// The node.
    pub node_id: u64,
    /// Its cluster.
    pub cluster_id: u128,
    /// How long it has been running, in milliseconds.
    pub uptime_ms: u64,
    /// How far the wall clock is ahead of the stamps, in milliseconds, while a jump is held (R2).
    pub clock_held_ms: Option<i64>,
    /// The version of the catalog: counts its changes.
    pub epoch: u64,
    /// The partitions it serves a replica of, by id.
    pub partitions: Vec<PartitionStatus>,
    /// Partitions that this node should hold and refuses to serve, because what it has of them on disk is damaged.
    pub damaged: Vec<PartitionId>,
    /// Which damaged partitions keep the log, and how many bytes of it from the oldest place on that they may need.
    pub kept_by_damaged: Vec<(PartitionId, u64)>,
    /// Its write-ahead log.
    pub log: LogStatus,
    /// Whose entries keep the oldest segment of the log; none if there are no entries.
    pub log_pinned_by: Option<LogPin>,
    /// The job that holds the log, so that nothing of it is used again.
    pub log_kept_by_job: Option<u64>,
    /// How it keeps its memory budget; none without one.
    pub memory: Option<MemoryStatus>,
    /// Bytes of the entries of other nodes that it keeps because they are often read here.
    pub kept_entry_bytes: u64,
}

/// Who keeps the oldest segment of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogPin {
    /// The partition whose entries are there; none: the catalog.
    pub partition: Option<PartitionId>,
    /// The node that it keeps them for, whose replica is behind both snapshots. Only who leads the group knows.
    pub for_node: Option<u64>,
}

/// How a node keeps its memory budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryStatus {
    /// The budget.
    pub budget_bytes: u64,
    /// What the process takes.
    pub resident_bytes: u64,
    /// What cannot give way is above the budget.
    pub is_over: bool,
    /// Writes that make memory grow are refused in the partitions that it leads.
    pub refuses_writes: bool,
}

/// What a node measures, for scrapers; cheap to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFigures {
    /// How long the phases of requests took.
    pub phases: Vec<PhaseTimes>,
    /// Commands that wait for a batch, by partition.
    pub queued: Vec<(PartitionId, u64)>,
    /// Its write-ahead log.
    pub log: LogStatus,
    /// Partitions whose replicas do not agree, as far as this node has heard of them.
    pub diverged: Vec<PartitionId>,
    /// Bytes that its disk still has for it; none if the disk does not say.
    pub disk_free_bytes: Option<u64>,
    /// Whether its disk did not get on within the last seconds.
    pub is_disk_stalled: bool,
    /// Partitions whose replicas here are damaged now.
    pub damaged: Vec<PartitionId>,
    /// Which of them keep the log, and how many bytes of it from the oldest place on that they may need.
    pub kept_by_damaged: Vec<(PartitionId, u64)>,
    /// Replicas here that were found damaged since it started; others may have taken their places.
    pub damaged_replicas: u64,
    /// How much the last check of its files that came to its end found to be wrong; 0 if there was none since it started.
    pub verify_findings: u64,
}

/// A snapshot on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotStatus {
    /// The last log index that it includes.
    pub index: u64,
    /// Bytes of its buckets.
    pub bytes: u64,
}

/// The status of one partition's replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionStatus {
    /// The partition.
    pub partition: PartitionId,
    /// Whether this node leads it.
    pub is_leader: bool,
    /// Whether a committed batch did not decode, so that it refuses service.
    pub is_damaged: bool,
    /// The Raft term.
    pub term: u64,
    /// The last log index applied.
    pub applied: u64,
    /// The last log index written; none while the log is empty.
    pub log_last: Option<u64>,
    /// The last stamp applied.
    pub stamp: Stamp,
    /// Bytes of the log that it holds.
    pub log_bytes: u64,
    /// Its newest snapshot.
    pub snapshot: Option<SnapshotStatus>,
    /// Segments with entries.
    pub segments: u64,
    /// Their bytes.
    pub segment_bytes: u64,
    /// What it holds, and the memory that takes.
    pub usage: Usage,
    /// Events in the journal that some destination has not acknowledged; one event counts once per destination. Only the
    /// leader knows of any.
    pub undelivered_events: u64,
    /// Events kept in the journal.
    pub journal_len: u64,
    /// The position its next event gets.
    pub journal_next: JournalPosition,
    /// Streams to other partitions, told by the leader.
    pub streams: Vec<StreamStatus>,
}

/// A stream to another partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamStatus {
    /// Where it goes.
    pub destination: PartitionId,
    /// Whether events are kept for it; not while it has been dropped for its silence (R10).
    pub is_active: bool,
    /// Whether the last attempt to reach it failed.
    pub is_failing: bool,
    /// Events not acknowledged.
    pub pending_events: u64,
    /// The age of the oldest of them, in milliseconds.
    pub oldest_age_ms: u64,
    /// The position acknowledged; none before the first answer since the start.
    pub acknowledged: Option<JournalPosition>,
}
