//! Owns the keeper of a node's memory budget: it looks at the resident size, and sheds.

use std::sync::Arc;
use std::time::Duration;

use fanfold_storage::ids::{PartitionId, Stamp};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::judge::{Judge, Look, Verdict};
use super::pressure::early_table_bytes;
use super::{Pressure, Resident, ResidentSize};
use crate::blocking::blocking;
use crate::options::NodeOptions;
use crate::partition::Partitions;
use crate::raft::FileSettings;

/// How often the keeper looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Shedding begins so far below the budget, as a part of it …
const MARGIN_PART: u64 = 8;

/// … and at most so many bytes.
const MARGIN_BYTES_MAX: u64 = 256 << 20;

/// Pages and tables are shed when they are this part of the budget, if shedding brings the size below the margin …
const WORTH_PART: u64 = 256;

/// … and this part, if nothing does: that much above what stays does little harm, and shedding all the time does much.
const WORTH_PART_IN_VAIN: u64 = 32;

/// How many looks pass before what gives way through the log is asked for again: what went has to leave the process first.
const LOGGED_LOOKS: u32 = 16;

/// What can be shed.
#[derive(Debug, Default)]
struct Figures {
    /// Cached tables of each partition, oldest first: when each was flushed, and its bytes.
    cached: Vec<Vec<(Stamp, u64)>>,
    /// Bytes of pages of segments.
    pages: u64,
    /// Bytes of tables that are flushed if they are to be early.
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
    /// What gives way through the log: the feeds of readers who stay away, and beyond the budget rows.
    Logged,
}

impl Figures {
    /// What all of it frees.
    fn bytes(&self) -> u64 {
        self.cached.iter().flatten().map(|(_, bytes)| bytes).sum::<u64>() + self.pages + self.tables
    }

    /// What is to be shed of this, so that `excess` bytes become free; pages and tables only if they are `worth` it.
    fn plan(&self, mut excess: u64, worth: u64) -> Vec<Shed> {
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
        for (shed, bytes) in [(Shed::Pages, self.pages), (Shed::Tables, self.tables)] {
            if excess > 0 && bytes >= worth {
                plan.push(shed);
            }
            excess = excess.saturating_sub(bytes);
        }
        if excess > 0 {
            plan.push(Shed::Logged);
        }
        plan
    }
}

/// Looks after the budget.
pub(crate) struct Keeper {
    partitions: Arc<Partitions>,
    resident: Arc<dyn ResidentSize>,
    budget_bytes: u64,
    /// What the work on files goes by while memory is not short.
    files: FileSettings,
    judge: Judge,
    /// Mapped bytes that are not of segments.
    mapped_otherwise: u64,
    /// Looks until what gives way through the log is asked for again.
    logged_in: u32,
}

impl Keeper {
    /// The keeper of a node's budget, which is not 0.
    pub fn new(partitions: Arc<Partitions>, options: &NodeOptions, files: FileSettings) -> Self {
        let (budget_bytes, resident) = (options.memory_bytes, options.resident.clone());
        let judge = Judge::new(budget_bytes);
        Self { partitions, resident, budget_bytes, files, judge, mapped_otherwise: 0, logged_in: 0 }
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
            let Some(resident) = self.resident.now() else {
                tracing::warn!("the system does not tell how much memory is used; the budget is not kept");
                return self.tell(0, Verdict::default());
            };
            self.look(resident).await;
        }
    }

    async fn look(&mut self, resident: Resident) {
        // Pages that others pushed out are not held against those of segments.
        self.mapped_otherwise = self.mapped_otherwise.min(resident.mapped_bytes);
        let most = self.budget_bytes - (self.budget_bytes / MARGIN_PART).min(MARGIN_BYTES_MAX);
        let mut excess = resident.bytes.saturating_sub(most);
        if excess > 0 {
            excess = excess.saturating_sub(self.partitions.kept().give_up());
        }
        let figures = if excess > 0 { self.figures(resident) } else { Figures::default() };
        let stays_bytes = resident.bytes.saturating_sub(figures.bytes());
        let gives_way = self.partitions.all().any(|partition| partition.activity().gives_way());
        let before = self.judge.verdict();
        let now = self.judge.look(Look { resident_bytes: resident.bytes, stays_bytes, gives_way });
        self.tell(resident.bytes, now);
        self.say(before, now, resident.bytes);
        let worth = self.budget_bytes / if stays_bytes <= most { WORTH_PART } else { WORTH_PART_IN_VAIN };
        let plan = figures.plan(excess, worth);
        self.pressure().flush_early(plan.contains(&Shed::Tables));
        self.shed(plan, resident.bytes > self.budget_bytes).await;
    }

    fn pressure(&self) -> &Pressure {
        self.partitions.pressure()
    }

    fn tell(&self, resident_bytes: u64, verdict: Verdict) {
        self.pressure().tell(resident_bytes, verdict);
    }

    /// Says in the log when the node begins to be over its budget, and when that ends.
    fn say(&self, before: Verdict, now: Verdict, resident_bytes: u64) {
        let budget_bytes = self.budget_bytes;
        match (before.is_over, now.is_over) {
            (false, true) => tracing::warn!(
                resident_bytes,
                budget_bytes,
                "the node is over its memory budget, and nothing is left to shed; a tenth above it, writes that need more are \
                 refused (`memory_full`): raise `memory_bytes`, or move replicas to other nodes (MemoryOverBudget in RUNBOOK.md)"
            ),
            (true, false) => {
                tracing::warn!(resident_bytes, budget_bytes, "the node is within its memory budget again");
            }
            _ => {}
        }
    }

    fn figures(&self, resident: Resident) -> Figures {
        let pages = resident.mapped_bytes - self.mapped_otherwise;
        let early_bytes = early_table_bytes(self.files);
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
                let is_due = sizes.active_bytes > early_bytes;
                figures.tables += sizes.unflushed_bytes + if is_due { sizes.active_bytes } else { 0 };
            });
        }
        figures
    }

    async fn shed(&mut self, plan: Vec<Shed>, rows: bool) {
        self.logged_in = self.logged_in.saturating_sub(1);
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
                Shed::Logged if self.logged_in > 0 => {}
                Shed::Logged => {
                    self.logged_in = LOGGED_LOOKS;
                    self.partitions.all().for_each(|partition| partition.activity().give_way(rows));
                }
            }
        }
        if !tables.is_empty() {
            // To free them takes long.
            let _ended = blocking(move || drop(tables)).await;
        }
    }

    async fn forget_pages(&mut self) {
        let mut segments = Vec::new();
        for partition in self.partitions.all() {
            partition.group().read(|machine| segments.extend(machine.state_as_is().segments().cloned()));
        }
        let resident = self.resident.clone();
        let forget = move || {
            segments.iter().for_each(|segment| segment.forget_pages());
            resident.now()
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
        let all = [cached(0, 100), cached(2, 0), cached(0, 0), Shed::Pages, Shed::Tables, Shed::Logged];
        for (excess, count) in [(0, 0), (1, 1), (100, 1), (101, 2), (150, 2), (250, 3)] {
            assert_eq!(figures.plan(excess, 1), all[..count], "{excess}");
        }
        for (excess, count) in [(251, 4), (550, 4), (551, 5), (630, 5), (631, 6), (u64::MAX, 6)] {
            assert_eq!(figures.plan(excess, 1), all[..count], "{excess}");
        }
        assert_eq!(figures.bytes(), 630);
    }

    #[test]
    fn pages_and_tables_that_free_too_little_are_left_alone() {
        let figures = Figures { cached: vec![vec![(Stamp(10), 5)]], pages: 300, tables: 80 };
        let cached = Shed::Cached { partition: 0, left_bytes: 0 };
        for (worth, plan) in [
            (80, vec![cached, Shed::Pages, Shed::Tables, Shed::Logged]),
            (81, vec![cached, Shed::Pages, Shed::Logged]),
            (300, vec![cached, Shed::Pages, Shed::Logged]),
            (301, vec![cached, Shed::Logged]),
        ] {
            assert_eq!(figures.plan(u64::MAX, worth), plan, "{worth}");
        }
    }
}
