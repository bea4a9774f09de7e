//! Owns what is due in a partition: noted by whoever applies, looked at without the lock by whoever proposes.
//!
//! - While as much comes as can be applied, the lock is hardly ever free: whoever had to take it to learn what is due would
//!   hold up the next batch, or never learn.
//! - What is noted is that of the last entry applied, or of the snapshot behind it. Something may expire later than it says, if
//!   it was deleted: a tick too many hides nothing. All tables and segments are looked at only when that time has come.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use fanfold_storage::command::Command;
use fanfold_storage::ids::Stamp;
use fanfold_storage::partition::Partition;

use super::machine::PartitionMachine;
use crate::proposer::Background;
use crate::raft::Group;

/// Ticks of one batch, at most. Each serves one slice of one fan-out, and the batch waits for all of them.
const TICKS_MAX: usize = 4;

/// Stands for: nothing expires.
const NEVER: u64 = u64::MAX;

/// What is due in a partition.
#[derive(Debug)]
pub(crate) struct Due {
    /// From which stamp on something has expired, or a stamp before that.
    expires: AtomicU64,
    /// Large fan-outs that have slices left.
    fan_outs: AtomicUsize,
}

/// The background work of a partition's group: the ticks that are due.
pub(crate) fn background(group: &Group<PartitionMachine>) -> Background {
    let due = group.read(PartitionMachine::due);
    Box::new(move |stamp_ms| due.ticks(stamp_ms))
}

impl Due {
    /// Nothing is.
    pub fn new() -> Self {
        Self { expires: AtomicU64::new(NEVER), fan_outs: AtomicUsize::new(0) }
    }

    /// Notes what is due in a state to which an entry was applied since it was noted last; nothing in one that is damaged.
    pub fn note(&self, state: Option<&Partition>) {
        let before = self.expires.load(Ordering::Relaxed);
        let expires = state.map_or(NEVER, |state| {
            if before <= state.stamp().0 {
                return state.next_due().map_or(NEVER, |due| due.0);
            }
            state.next_due_of_new().map_or(before, |due| due.0.min(before))
        });
        self.set(expires, state);
    }

    /// Notes what is due in another state.
    pub fn note_anew(&self, state: Option<&Partition>) {
        self.set(state.and_then(Partition::next_due).map_or(NEVER, |due| due.0), state);
    }

    fn set(&self, expires: u64, state: Option<&Partition>) {
        self.expires.store(expires, Ordering::Relaxed);
        self.fan_outs.store(state.map_or(0, Partition::slices_pending), Ordering::Relaxed);
    }

    /// The ticks that are due at this stamp: one for what expires, or one for each fan-out, a few at a time.
    pub fn ticks(&self, stamp_ms: u64) -> Vec<Bytes> {
        let expired = usize::from(self.expires.load(Ordering::Relaxed) <= stamp_ms);
        let ticks = self.fan_outs.load(Ordering::Relaxed).clamp(expired, TICKS_MAX);
        vec![Command::Tick.to_bytes(); ticks]
    }

    /// When something expires next, and whether a fan-out has slices left.
    pub fn next(&self) -> (Option<Stamp>, bool) {
        let expires = Some(self.expires.load(Ordering::Relaxed)).filter(|due| *due != NEVER);
        (expires.map(Stamp), self.fan_outs.load(Ordering::Relaxed) > 0)
    }
}
