//! Owns the settings of a log and their limits.

use std::time::Duration;

/// Batches and segment headers start at multiples of this many bytes.
pub const BLOCK_BYTES: u64 = 4096;

/// The smallest and largest segment, in bytes.
pub const SEGMENT_BYTES_MIN: u64 = 4 * BLOCK_BYTES;
/// The largest segment, in bytes; a longer file is refused before anything is allocated for it.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// The settings of a log. Every size may be changed between two opens.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// Size of a segment file; rounded up to 4 KiB and kept within its limits. A record must fit into one segment.
    pub segment_bytes: u64,
    /// Entries of one group kept in memory; older ones are read from the segments.
    pub recent_bytes_max: u64,
    /// What one batch gathers at most; a single larger record makes a batch of its own.
    pub gather_bytes_max: u64,
    /// What may wait to be written; above it, `submit` blocks until the writer has caught up.
    pub queue_bytes_max: u64,
    /// Unused segments kept for reuse; more are deleted. What is deleted and made anew is written twice: zeros first.
    pub spare_segments_max: usize,
    /// How long nothing must have been submitted before the idle mark is written.
    pub idle_mark_after: Duration,
    /// A number the caller draws for a new log; part of every checksum, so that no payload and no file of another
    /// log can pass for a record. An existing log keeps the one it was made with.
    pub salt: u64,
    /// The number that no group has, nor any above it, if that is known: a damaged place whose groups cannot be read is evidence until
    /// all below it that it may concern were forgotten, and otherwise for ever.
    pub groups: Option<u32>,
    /// Whether a log is made if the directory has none. False for a node that has had one, so that its loss is an
    /// error.
    pub create: bool,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            recent_bytes_max: 8 << 20,
            gather_bytes_max: 4 << 20,
            queue_bytes_max: 64 << 20,
            spare_segments_max: 6,
            idle_mark_after: Duration::from_millis(10),
            salt: 0,
            groups: None,
            create: true,
        }
    }
}

impl LogOptions {
    /// The size of a new segment, within its limits.
    pub(super) fn segment_bytes(&self) -> u64 {
        self.segment_bytes.clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX).next_multiple_of(BLOCK_BYTES)
    }
}
