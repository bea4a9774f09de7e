//! Owns what a log tells about itself: a group's state, what was found at open, and counters.

use std::path::PathBuf;

use bytes::Bytes;

use super::{Damage, GroupId};

/// What the log knows of one group; everything submitted so far counts, durable or not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupState {
    /// The last vote.
    pub vote: Option<Bytes>,
    /// The last committed position.
    pub committed: Option<Bytes>,
    /// The last purged index and its id.
    pub purged: Option<(u64, Bytes)>,
    /// The first index there is or may be.
    pub first: u64,
    /// The last entry's index; none if there are no entries.
    pub last: Option<u64>,
}

/// A tail that was never completed, dropped at open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    /// The file.
    pub path: PathBuf,
    /// Where it starts, in bytes.
    pub offset: u64,
    /// How many bytes there were up to the last one that is not zero.
    pub bytes: u64,
}

/// What opening a log found.
#[derive(Debug, Clone, Default)]
pub struct Recovered {
    /// Damaged places; their groups are quarantined.
    pub damaged: Vec<Damage>,
    /// The unfinished end that was dropped, if there was one.
    pub torn: Option<TornTail>,
    /// All groups that have records, quarantined ones included.
    pub groups: Vec<GroupId>,
    /// Segments read.
    pub segments: u64,
    /// Batches read.
    pub batches: u64,
    /// Records read.
    pub records: u64,
    /// This run's incarnation of the log.
    pub incarnation: u64,
}

/// What a group holds of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupUsage {
    /// The group.
    pub group: GroupId,
    /// The index of its first entry.
    pub first: u64,
    /// The index of its last entry.
    pub last: u64,
    /// Bytes of its entries.
    pub bytes: u64,
    /// Bytes of its entries ever appended, as far as this run knows; grows.
    pub appended_bytes: u64,
    /// The absolute position of its first entry, which keeps the segment there and all newer ones; none while that entry
    /// is still to be written.
    pub position: Option<u64>,
}

/// Counters and sizes of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogStatus {
    /// Segments in use.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of segments that are kept only because somebody holds the log.
    pub held_bytes: u64,
    /// Absolute position up to which everything is durable.
    pub durable_position: u64,
    /// This run's incarnation of the log.
    pub incarnation: u64,
    /// Submitted and not yet durable, in bytes.
    pub queued_bytes: u64,
    /// Batches written since open.
    pub batches: u64,
    /// Syncs since open.
    pub syncs: u64,
    /// Records written since open.
    pub records: u64,
    /// Bytes written since open, padding included.
    pub written_bytes: u64,
    /// Segments given back for reuse since open.
    pub recycled_segments: u64,
    /// Entries held in memory, in bytes.
    pub recent_bytes: u64,
    /// Whether the log refuses entries until the disk has room.
    pub full: bool,
}
