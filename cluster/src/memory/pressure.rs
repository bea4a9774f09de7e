//! Owns how short memory is, as the keeper tells those who write tables, take writes and show figures.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::watch;

use super::TABLE_BYTES_MIN;
use super::judge::Verdict;
use crate::raft::FileSettings;
use crate::status::MemoryStatus;

/// While memory is short, tables are flushed at this part of their size.
const TIGHT_PART: u64 = 8;

/// How short memory is. Without a budget it never is.
#[derive(Debug, Default)]
pub(crate) struct Pressure {
    budget_bytes: u64,
    resident_bytes: AtomicU64,
    /// Tables are to be flushed early.
    flushes_early: watch::Sender<bool>,
    is_over: AtomicBool,
    refuses: AtomicBool,
}

impl Pressure {
    /// That of a node with a budget; 0: without one.
    pub fn of(budget_bytes: u64) -> Self {
        Self { budget_bytes, ..Self::default() }
    }

    /// What the work on files goes by now.
    pub fn settings(&self, files: FileSettings) -> FileSettings {
        if !*self.flushes_early.borrow() {
            return files;
        }
        FileSettings { table_bytes: early_table_bytes(files), cache_bytes: 0, ..files }
    }

    /// Tells when tables are to be flushed early, and when no longer.
    pub fn watch_early(&self) -> watch::Receiver<bool> {
        self.flushes_early.subscribe()
    }

    /// Whether writes that make memory grow are refused in what this node leads.
    #[inline]
    pub fn refuses(&self) -> bool {
        self.refuses.load(Ordering::Relaxed)
    }

    /// Whether the node is over its budget.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// How the budget is kept; none if there is none.
    pub fn status(&self) -> Option<MemoryStatus> {
        (self.budget_bytes > 0).then(|| MemoryStatus {
            budget_bytes: self.budget_bytes,
            resident_bytes: self.resident_bytes.load(Ordering::Relaxed),
            is_over: self.is_over(),
            refuses_writes: self.refuses(),
        })
    }

    pub(super) fn tell(&self, resident_bytes: u64, verdict: Verdict) {
        self.resident_bytes.store(resident_bytes, Ordering::Relaxed);
        self.is_over.store(verdict.is_over, Ordering::Relaxed);
        self.refuses.store(verdict.refuses, Ordering::Relaxed);
    }

    pub(super) fn flush_early(&self, early: bool) {
        self.flushes_early.send_if_modified(|flushes_early| std::mem::replace(flushes_early, early) != early);
    }
}

/// The size at which tables are flushed while memory is short.
pub(super) fn early_table_bytes(files: FileSettings) -> u64 {
    files.table_bytes.min((files.table_bytes / TIGHT_PART).max(TABLE_BYTES_MIN))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::DiskOptions;

    #[test]
    fn tables_are_flushed_early_only_while_memory_is_short() {
        let (pressure, files) = (Pressure::of(1 << 30), DiskOptions::default().files);
        assert_eq!(pressure.settings(files), files);
        pressure.flush_early(true);
        let short = pressure.settings(files);
        assert_eq!((short.table_bytes, short.cache_bytes), (files.table_bytes / TIGHT_PART, 0));
        pressure.flush_early(false);
        assert_eq!(pressure.settings(files), files);
    }

    #[test]
    fn without_a_budget_nothing_is_said_and_nothing_refused() {
        let pressure = Pressure::default();
        assert_eq!((pressure.status(), pressure.refuses()), (None, false));
    }
}
