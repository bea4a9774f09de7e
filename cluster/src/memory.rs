//! Owns the memory budget of a node: what the settings become within it, what is shed when it is passed, and what is refused when
//! shedding is not enough.
//!
//! - What counts is the resident size of the process, which includes what nobody here has a figure for.
//! - Shedding begins an eighth below the budget. Shed are, each only if what comes before it is not enough: cached tables, the least
//!   recently flushed first; the pages of segments; active tables, by flushing them early; the feeds of readers who stay away.
//! - Nothing that is shed changes an answer.
//! - Pages are forgotten and tables flushed early only once that frees a part of the budget, a larger one while all of it together
//!   would not be enough: what does not help is not done again and again.
//! - A node is *over its budget* when what nothing of that frees is above the budget (the graph, rows, active feeds), and no feeds are
//!   being freed. It says so from then on until that is below again.
//! - Over its budget and a tenth above it, or a second above that line whatever gives way, a node refuses writes that make memory grow
//!   ([`grows`]) in the partitions that it leads, before they are proposed, and takes them again by itself. Meanwhile feeds of readers
//!   who return are not rebuilt; their pages come from the chains.
//! - Never refused are reads, writes that take something away, sessions, operators' commands, what streams deliver, and what is
//!   committed. So a follower may grow past the line: it says that it is over its budget, and no more.
//! - Without a budget nothing is looked at; what may be refused costs one atomic load.

mod judge;
mod keeper;
mod pressure;
mod resident;

use fanfold_storage::command::Write;
use fanfold_storage::log::LogOptions;

pub(crate) use keeper::Keeper;
pub(crate) use pressure::Pressure;
pub use resident::{ProcessSize, Resident, ResidentSize};

use crate::options::DiskOptions;
use crate::raft::FileSettings;

/// This part of the budget is for the tables of all partitions, and as much for what a restart replays.
const TABLES_PART: u64 = 4;

/// A partition's part of that holds a table that is written to, one that is being flushed, and cached ones.
const TABLES_OF_PARTITION: u64 = 3;

/// By how much a table may be larger than what makes it full: this part of it.
const TABLE_SLACK_PART: u64 = 8;

/// The smallest table that is flushed because of the budget: smaller ones would make more work than room.
const TABLE_BYTES_MIN: u64 = 64 << 10;

/// This part of the budget is for what changes while snapshots are cut, of all partitions …
const CUTS_PART: u64 = 16;

/// … but a partition's is not less, because of the budget.
const CUT_BYTES_MIN: u64 = 256 << 10;

/// The least log between two snapshots, however small the budget.
const SNAPSHOT_LOG_BYTES_MIN: u64 = 256 << 10;

/// The smallest bound of merged segments because of the budget.
const SEGMENT_BYTES_MIN: u64 = 1 << 20;

/// A partition's share of the log between snapshots is not less, unless that of all is.
const SNAPSHOT_SHARE_BYTES_MIN: u64 = 1 << 20;

/// This part of the budget is for what the log holds in memory: entries that wait to be written, recent ones, and at a start
/// some segments that are being read.
const LOG_PART: u64 = 16;

/// The smallest segment of the log because of the budget: a batch and what is gathered with it fit.
const LOG_SEGMENT_BYTES_MIN: u64 = 8 << 20;

/// The least that is kept of recent entries of a group.
const RECENT_BYTES_MIN: u64 = 64 << 10;

/// The log of a node with `partitions` that keeps within `memory_bytes` (0: without a budget).
pub(crate) fn log_within(log: LogOptions, memory_bytes: u64, partitions: u16) -> LogOptions {
    if memory_bytes == 0 {
        return log;
    }
    let share = memory_bytes / LOG_PART;
    let segment_bytes = log.segment_bytes.min(share.max(LOG_SEGMENT_BYTES_MIN));
    LogOptions {
        segment_bytes,
        // As many bytes, which are on the disk.
        spare_segments_max: log.spare_segments_max * (log.segment_bytes / segment_bytes.max(1)) as usize,
        queue_bytes_max: log.queue_bytes_max.min(share.max(log.gather_bytes_max)),
        recent_bytes_max: log
            .recent_bytes_max
            .min((share / u64::from(partitions.max(1))).max(RECENT_BYTES_MIN)),
        ..log
    }
}

/// The settings of each of a node's `partitions` that keeps within `memory_bytes` (0: without a budget). One that restarts replays its
/// log, so that has a bound too.
pub(crate) fn within(disk: &DiskOptions, memory_bytes: u64, partitions: u16) -> DiskOptions {
    let partitions = u64::from(partitions.max(1));
    let least = disk.snapshot_log_bytes.min(SNAPSHOT_SHARE_BYTES_MIN);
    let snapshot_log_bytes = (disk.snapshot_log_bytes / partitions).max(least);
    let disk = DiskOptions { snapshot_log_bytes, ..disk.clone() };
    if memory_bytes == 0 {
        return disk;
    }
    let share = memory_bytes / TABLES_PART;
    let of_partition = share / partitions;
    let table = of_partition / TABLES_OF_PARTITION;
    let files = FileSettings {
        // A full one is a little larger than that, and is to fit where it is kept as a cache.
        table_bytes: disk.files.table_bytes.min((table - table / TABLE_SLACK_PART).max(TABLE_BYTES_MIN)),
        unflushed_bytes_max: disk.files.unflushed_bytes_max.min(2 * table.max(TABLE_BYTES_MIN)),
        cache_bytes: disk.files.cache_bytes.min(table),
        segment_bytes_max: disk.files.segment_bytes_max.min(share.max(SEGMENT_BYTES_MIN)),
        cut_bytes_max: disk
            .files
            .cut_bytes_max
            .min((memory_bytes / CUTS_PART / partitions).max(CUT_BYTES_MIN)),
    };
    let snapshot_log_bytes = disk.snapshot_log_bytes.min(of_partition.max(SNAPSHOT_LOG_BYTES_MIN));
    DiskOptions { files, snapshot_log_bytes, ..disk }
}

/// Whether a write makes memory grow, for good or until its entry is on disk and its events are delivered.
pub(crate) fn grows(write: &Write) -> bool {
    match write {
        Write::Append { .. }
        | Write::Amend { .. }
        | Write::Follow { .. }
        | Write::Mute { .. }
        | Write::Block { .. }
        | Write::ImportFollows { .. }
        | Write::ImportEntries { .. } => true,
        Write::Delete { .. }
        | Write::SetExpiry { .. }
        | Write::Unfollow { .. }
        | Write::Unmute { .. }
        | Write::Unblock { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_of_all_partitions_fit_into_their_part() {
        for (memory_bytes, partitions) in [(64 << 20, 16), (1 << 30, 64), (16 << 30, 16)] {
            let disk = within(&DiskOptions::default(), memory_bytes, partitions);
            let FileSettings { unflushed_bytes_max, cache_bytes, segment_bytes_max, cut_bytes_max, .. } =
                disk.files;
            let tables = u64::from(partitions) * (unflushed_bytes_max + cache_bytes);
            assert!(tables <= memory_bytes / TABLES_PART, "{tables} of {memory_bytes}");
            assert!(u64::from(partitions) * disk.snapshot_log_bytes <= memory_bytes / TABLES_PART);
            assert!(segment_bytes_max <= memory_bytes / TABLES_PART);
            assert!(
                u64::from(partitions) * cut_bytes_max <= (memory_bytes / CUTS_PART).max(16 * CUT_BYTES_MIN)
            );
        }
        assert_eq!(within(&DiskOptions::default(), 0, 1), DiskOptions::default());
        assert_eq!(within(&DiskOptions::default(), 1 << 40, 1), DiskOptions::default());
        let shares = [1, 16, 4_096].map(|n| within(&DiskOptions::default(), 0, n).snapshot_log_bytes);
        assert_eq!(shares, [256 << 20, 16 << 20, SNAPSHOT_SHARE_BYTES_MIN]);
        let often = DiskOptions { snapshot_log_bytes: 64 << 10, ..DiskOptions::default() };
        assert_eq!(within(&often, 0, 16).snapshot_log_bytes, 64 << 10);
        let tiny = within(&DiskOptions::default(), 1 << 20, 4_096);
        assert_eq!((tiny.files.table_bytes, tiny.files.cache_bytes), (TABLE_BYTES_MIN, 21));
    }

    #[test]
    fn the_log_keeps_to_its_part() {
        let within = |memory_bytes, partitions| {
            let log = log_within(LogOptions::default(), memory_bytes, partitions);
            (log.segment_bytes, log.spare_segments_max, log.queue_bytes_max, log.recent_bytes_max)
        };
        assert_eq!(within(0, 16), (64 << 20, 6, 64 << 20, 8 << 20));
        assert_eq!(within(1 << 40, 16), (64 << 20, 6, 64 << 20, 8 << 20));
        assert_eq!(within(128 << 20, 16), (8 << 20, 48, 8 << 20, 512 << 10));
        assert_eq!(within(1 << 20, 4_096), (LOG_SEGMENT_BYTES_MIN, 48, 4 << 20, RECENT_BYTES_MIN));
    }
}
