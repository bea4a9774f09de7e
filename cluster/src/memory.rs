//! Owns the memory budget of a node: what the settings become within it, and the keeper that sheds when it is passed.
//!
//! - What counts is the resident size of the process, which includes what nobody here has a figure for.
//! - Shed are, each only if what comes before it is not enough: cached tables, the least recently flushed first; the pages of
//!   segments; active tables, by flushing them early; the feeds of readers who stay away.
//! - Nothing that is shed changes an answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fanfold_storage::ids::{PartitionId, Stamp};
use fanfold_storage::log::LogOptions;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::blocking::blocking;
use crate::options::DiskOptions;
use crate::partition::Partitions;
use crate::raft::FileSettings;

/// How often the keeper looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// This part of the budget is for the tables of all partitions, and as much for what a restart replays.
const TABLES_PART: u64 = 4;

/// A partition's part of that holds a table that is written to, one that is being flushed, and cached ones.
const TABLES_OF_PARTITION: u64 = 3;

/// Shedding begins so far below the budget, as a part of it …
const MARGIN_PART: u64 = 8;

/// … and at most so many bytes.
const MARGIN_BYTES_MAX: u64 = 256 << 20;

/// The smallest table that is flushed because of the budget: smaller ones would make more work than room.
const TABLE_BYTES_MIN: u64 = 64 << 10;

/// While memory is short, tables are flushed at this part of their size.
const TIGHT_PART: u64 = 8;

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

/// The settings of each of a node's `partitions` that keeps within `memory_bytes` (0: without a budget). A partition that merges
/// does not flush, and one that restarts replays its log, so both have bounds too.
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
        table_bytes: disk.files.table_bytes.min(table.max(TABLE_BYTES_MIN)),
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

/// Whether memory is short, as the keeper tells those who write tables.
#[derive(Debug, Default)]
pub(crate) struct Pressure(AtomicBool);

impl Pressure {
    /// What the work on files goes by now.
    pub fn settings(&self, files: FileSettings) -> FileSettings {
        if !self.0.load(Ordering::Relaxed) {
            return files;
        }
        let table_bytes = files.table_bytes.min((files.table_bytes / TIGHT_PART).max(TABLE_BYTES_MIN));
        FileSettings { table_bytes, cache_bytes: 0, ..files }
    }

    fn set(&self, short: bool) {
        self.0.store(short, Ordering::Relaxed);
    }
}

/// What the process holds in memory, as the system counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Resident {
    bytes: u64,
    /// Of files: segments, and the program itself.
    mapped_bytes: u64,
}

impl Resident {
    fn now() -> Option<Self> {
        Self::parse(&std::fs::read_to_string("/proc/self/status").ok()?)
    }

    fn parse(status: &str) -> Option<Self> {
        let bytes = |key: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(key))?;
            Some(value.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
        };
        Some(Self { bytes: bytes("VmRSS:")?, mapped_bytes: bytes("RssFile:")? })
    }
}

/// What can be shed.
#[derive(Debug, Default)]
struct Figures {
    /// Cached tables of each partition, oldest first: when each was flushed, and its bytes.
    cached: Vec<Vec<(Stamp, u64)>>,
    /// Bytes of pages of segments.
    pages: u64,
    /// Bytes of tables that can be flushed.
    tables: u64,
}

/// What is shed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shed {
    /// A partition's cached tables, until they have no more than this.
    Cached { partition: usize, left_bytes: u64 },
    /// The pages of all segments.
    Pages,
    /// Active tables are flushed early.
    Tables,
    /// The feeds of readers who stay away.
    Feeds,
}

impl Figures {
    /// What is to be shed of this, so that `excess` bytes become free.
    fn plan(&self, mut excess: u64) -> Vec<Shed> {
        let mut plan = Vec::new();
        let mut left: Vec<u64> =
            self.cached.iter().map(|tables| tables.iter().map(|(_, bytes)| bytes).sum()).collect();
        let tables = self.cached.iter().enumerate();
        let mut tables: Vec<_> =
            tables.flat_map(|(n, of)| of.iter().map(move |(at, b)| (*at, n, *b))).collect();
        // Stable, so that those of one partition stay in their order.
        tables.sort_by_key(|(flushed_at, ..)| *flushed_at);
        for (_, partition, bytes) in tables {
            if excess == 0 {
                return plan;
            }
            left[partition] -= bytes;
            plan.push(Shed::Cached { partition, left_bytes: left[partition] });
            excess = excess.saturating_sub(bytes);
        }
        for (shed, bytes) in [(Shed::Pages, self.pages), (Shed::Tables, self.tables), (Shed::Feeds, 0)] {
            if excess > 0 {
                plan.push(shed);
                excess = excess.saturating_sub(bytes);
            }
        }
        plan
    }
}

/// Looks after the budget.
pub(crate) struct Keeper {
    partitions: Arc<Partitions>,
    memory_bytes: u64,
    pressure: Arc<Pressure>,
    /// Mapped bytes that are not of segments.
    mapped_otherwise: u64,
}

impl Keeper {
    /// A keeper of `memory_bytes`.
    pub fn new(partitions: Arc<Partitions>, memory_bytes: u64, pressure: Arc<Pressure>) -> Self {
        Self { partitions, memory_bytes, pressure, mapped_otherwise: 0 }
    }

    /// Looks and sheds until it is stopped.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = looks.tick() => {}
            }
            let Some(resident) = Resident::now() else {
                tracing::warn!("the system does not tell how much memory is used; the budget is not kept");
                return;
            };
            let most = self.memory_bytes - (self.memory_bytes / MARGIN_PART).min(MARGIN_BYTES_MAX);
            let plan = match resident.bytes.saturating_sub(most) {
                0 => Vec::new(),
                excess => self.figures(resident).plan(excess),
            };
            self.pressure.set(plan.contains(&Shed::Tables));
            if !plan.is_empty() {
                self.shed(plan).await;
            }
        }
    }

    fn figures(&self, resident: Resident) -> Figures {
        let pages = resident.mapped_bytes.saturating_sub(self.mapped_otherwise);
        let mut figures = Figures { pages, ..Figures::default() };
        for n in 0..self.partitions.count() {
            let Some(partition) = self.partitions.hosted(PartitionId(n)) else {
                figures.cached.push(Vec::new());
                continue;
            };
            partition.group().read(|machine| {
                let state = machine.state_as_is();
                figures.cached.push(state.cached_tables().collect());
                let sizes = state.timeline_sizes();
                figures.tables += sizes.unflushed_bytes + sizes.active_bytes.saturating_sub(TABLE_BYTES_MIN);
            });
        }
        figures
    }

    async fn shed(&mut self, plan: Vec<Shed>) {
        let mut tables = Vec::new();
        for shed in plan {
            match shed {
                Shed::Cached { partition, left_bytes } => {
                    let Some(partition) = self.partitions.hosted(PartitionId(partition as u16)) else {
                        continue;
                    };
                    let dropped = partition.group().change(|machine| machine.drop_cached_tables(left_bytes));
                    tables.push(dropped.await);
                }
                Shed::Pages => self.forget_pages().await,
                // Those who write tables were told.
                Shed::Tables => {}
                Shed::Feeds => {
                    self.partitions.all().for_each(|partition| partition.activity().free_feeds());
                }
            }
        }
        // To free them takes long.
        let _ended = blocking(move || drop(tables)).await;
    }

    async fn forget_pages(&mut self) {
        let mut segments = Vec::new();
        for partition in self.partitions.all() {
            partition.group().read(|machine| segments.extend(machine.state_as_is().segments().cloned()));
        }
        let forget = move || {
            segments.iter().for_each(|segment| segment.forget_pages());
            Resident::now()
        };
        if let Ok(Some(resident)) = blocking(forget).await {
            self.mapped_otherwise = resident.mapped_bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shed_first_is_what_reads_miss_least() {
        let figures = Figures {
            cached: vec![vec![(Stamp(10), 100), (Stamp(40), 100)], Vec::new(), vec![(Stamp(20), 50)]],
            pages: 300,
            tables: 80,
        };
        let cached = |partition, left_bytes| Shed::Cached { partition, left_bytes };
        let all = [cached(0, 100), cached(2, 0), cached(0, 0), Shed::Pages, Shed::Tables, Shed::Feeds];
        for (excess, count) in [(0, 0), (1, 1), (100, 1), (101, 2), (150, 2), (250, 3)] {
            assert_eq!(figures.plan(excess), all[..count], "{excess}");
        }
        for (excess, count) in [(251, 4), (550, 4), (551, 5), (630, 5), (631, 6), (u64::MAX, 6)] {
            assert_eq!(figures.plan(excess), all[..count], "{excess}");
        }
    }

    #[test]
    fn the_tables_of_all_partitions_fit_into_their_part() {
        for (memory_bytes, partitions) in [(64 << 20, 16), (1 << 30, 64), (16 << 30, 16)] {
            let disk = within(&DiskOptions::default(), memory_bytes, partitions);
            let FileSettings { table_bytes, cache_bytes, segment_bytes_max, cut_bytes_max } = disk.files;
            let tables = u64::from(partitions) * (2 * table_bytes + cache_bytes);
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

    #[test]
    fn tables_are_flushed_early_only_while_memory_is_short() {
        let (pressure, files) = (Pressure::default(), DiskOptions::default().files);
        assert_eq!(pressure.settings(files), files);
        pressure.set(true);
        let short = pressure.settings(files);
        assert_eq!((short.table_bytes, short.cache_bytes), (files.table_bytes / TIGHT_PART, 0));
        pressure.set(false);
        assert_eq!(pressure.settings(files), files);
    }

    #[test]
    fn the_resident_size_is_read_as_the_system_writes_it() {
        let status = "Name:\tfanfold\nVmRSS:\t  123456 kB\nRssAnon:\t   1 kB\nRssFile:\t    7 kB\n";
        let resident = Resident { bytes: 123_456 << 10, mapped_bytes: 7 << 10 };
        assert_eq!(Resident::parse(status), Some(resident));
        assert_eq!(Resident::parse("VmRSS:\t1 kB\n"), None);
    }
}
