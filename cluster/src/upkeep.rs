//! Owns the upkeep of a group's files beside its applies: segments are written and merged, snapshots taken, and the log let
//! go behind them.
//!
//! - One task does the work of a group, one piece after the other; it flushes beside that.
//! - A snapshot is due when the log behind the newest has become larger than the threshold and than half of what that
//!   snapshot wrote or than what is replayed in a second or two, when this group is who pins the oldest part of a log that is too
//!   large, or larger than the snapshots of all would leave it, or when it would free much of the disk. Who has rested for a
//!   while takes one sooner, so that a start has little to replay.
//! - Merges of all groups take turns: more at once would map more of the disk and be no faster, for the pace is one.
//! - A full disk is no failure: the reserve is given up for two snapshots, which let the log go; else the work is tried again
//!   later, and nothing that was there is touched before.

mod flushes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fanfold_storage::log::{GroupId, GroupUsage, Log};
use futures_util::FutureExt;
use futures_util::future::join;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use flushes::run_flushes;

use crate::blocking::blocking;
use crate::memory::Pressure;
use crate::options::DiskOptions;
use crate::raft::{FileError, FileSettings, Group, Machine, Turn};
use crate::reserve::Reserve;

/// How often it is looked whether something is due.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How often it is looked after a group to which nothing is applied; the time grows to this.
const LOOK_EVERY_MAX: Duration = Duration::from_millis(800);

/// After a failure the next attempt waits so long, and twice as long each time …
const RETRY_MIN: Duration = Duration::from_millis(500);

/// … up to this.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// However much a snapshot wrote, the next is due behind so many bytes of log: a start replays them.
const REPLAYED_BYTES_MAX: u64 = 192 << 20;

/// A group that rested for so long takes one behind …
const REST: Duration = Duration::from_secs(60);

/// … this part of those bytes; to rest means that next to nothing is appended: …
const RESTED_PART: u64 = 4;

/// … less than this part of them.
const RESTING_PART: u64 = 1024;

/// Behind so many times that, it is taken before other work that is due.
const OVERDUE: u64 = 2;

/// A group that pins more of the log than so many times what all partitions together may have behind a newest snapshot takes one: with
/// two of each, the snapshots of all leave it smaller.
const PINNED: u64 = 3;

/// Bytes of the disk that a merge leaves free.
const ROOM_KEPT_BYTES: u64 = 32 << 20;

/// Merges at once, of all groups.
const MERGES_MAX: usize = 2;

/// A snapshot is taken early when it would free this part of what the group's segments hold, and at least …
const FREED_PART: u64 = 8;

/// … so many bytes.
const FREED_BYTES_MIN: u64 = 1 << 20;

/// What the upkeep of all groups shares.
#[derive(Clone)]
pub(crate) struct UpkeepMeans {
    /// Where their entries are.
    pub log: Log,
    /// What the work goes by.
    pub options: Arc<DiskOptions>,
    /// Room for the time when there is none.
    pub reserve: Arc<Reserve>,
    /// How short memory is.
    pub pressure: Arc<Pressure>,
    /// Whose upkeep has ended.
    pub ended: Arc<Ended>,
    /// How many partitions there are.
    pub partitions: u16,
    /// Whose turn it is to merge.
    pub merges: Arc<Semaphore>,
}

impl UpkeepMeans {
    /// What a turn to merge is drawn from.
    pub fn merges() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(MERGES_MAX))
    }
}

/// The groups whose upkeep has ended while the node runs.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    groups: Mutex<BTreeSet<GroupId>>,
    /// The first whose upkeep panicked.
    panicked: watch::Sender<Option<GroupId>>,
}

impl Ended {
    /// Waits until the upkeep of some group panics.
    pub async fn wait_panicked(&self) -> GroupId {
        let mut panicked = self.panicked.subscribe();
        loop {
            if let Some(group) = *panicked.borrow_and_update() {
                return group;
            }
            // The sender is this.
            let _ = panicked.changed().await;
        }
    }

    fn panicked(&self, group: GroupId) {
        self.ended(group);
        self.panicked.send_if_modified(|first| {
            let is_first = first.is_none();
            *first = first.or(Some(group));
            is_first
        });
    }

    fn ended(&self, group: GroupId) {
        self.groups.lock().insert(group);
    }

    fn goes_on(&self, group: GroupId) {
        self.groups.lock().remove(&group);
    }

    fn contains(&self, group: GroupId) -> bool {
        self.groups.lock().contains(&group)
    }
}

/// The upkeep of one group.
pub(crate) struct Upkeep<M: Machine> {
    group: Group<M>,
    means: UpkeepMeans,
    /// The index that had been applied when all that was due had been done.
    looked_at: Option<u64>,
    /// When the reserve is looked after next.
    reserve_due: Instant,
    /// When a snapshot is next taken for want of a whole one.
    heal_due: Instant,
    /// Bytes of the log that the newest snapshot includes.
    included_bytes: u64,
    /// Bytes that snapshot wrote.
    wrote_bytes: u64,
    /// Bytes of the log when more than next to nothing had last been appended, and when that was.
    worked: (u64, Instant),
}

/// What became of a look at a group's files.
struct Worked {
    /// Whether anything was done.
    worked: bool,
    /// Whether a merge waits for those of other groups.
    waits: bool,
}

impl<M: Machine> Upkeep<M> {
    /// The upkeep of `group`.
    pub fn new(group: Group<M>, means: UpkeepMeans) -> Self {
        let index = group.newest_snapshot().map_or(0, |newest| newest.manifest.index);
        let (appended_bytes, included_bytes) = means.log.appended(group.id(), index);
        let now = Instant::now();
        Self {
            group,
            means,
            looked_at: None,
            reserve_due: now,
            heal_due: now,
            included_bytes,
            wrote_bytes: 0,
            worked: (appended_bytes, now),
        }
    }

    /// Works until it is stopped; what is under way then is finished first.
    pub async fn run(self, stop: CancellationToken) {
        let ends = stop.child_token();
        let flushes = run_flushes(self.group.clone(), self.means.clone(), ends.clone());
        join(self.work(stop).inspect(|()| ends.cancel()), flushes).await;
    }

    async fn work(mut self, stop: CancellationToken) {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut retry, mut every) = (RETRY_MIN, LOOK_EVERY);
        let mut applied = self.group.watch_applied();
        loop {
            let known = self.looked_at;
            applied.mark_unchanged();
            tokio::select! {
                () = stop.cancelled() => return,
                Ok(()) = applied.changed(), if every > LOOK_EVERY => {
                    every = LOOK_EVERY;
                    looks.reset_after(every);
                    continue;
                }
                _ = looks.tick() => {}
            }
            let mut done = self.step(&stop).await;
            let is_idle = known.is_some() && self.looked_at == known;
            every = if is_idle { (2 * every).min(LOOK_EVERY_MAX) } else { LOOK_EVERY };
            if is_idle {
                looks.reset_after(every);
            }
            if done.as_ref().is_err_and(FileError::is_full) && self.give_up_reserve().await {
                tracing::warn!(
                    group = self.group.id().0,
                    "the disk is full; the reserve is given up for a snapshot"
                );
                done = self.let_log_go().await;
            }
            let Err(error) = done else {
                retry = RETRY_MIN;
                let log = self.means.log.status();
                if log.full && self.means.log.usage().is_empty() {
                    // All of the log went, and it was not enough.
                    self.give_up_reserve().await;
                } else if !log.full && self.means.reserve.is_wanted() && self.reserve_due <= Instant::now() {
                    self.reserve_due = Instant::now() + RETRY_MAX;
                    self.take_reserve().await;
                }
                continue;
            };
            let group = self.group.id().0;
            match error {
                FileError::Panicked => {
                    tracing::error!(
                        group,
                        "the upkeep of the group panicked; the process ends, and a restart is safe"
                    );
                    return self.means.ended.panicked(self.group.id());
                }
                FileError::Stopped | FileError::Damaged => {
                    self.means.ended.ended(self.group.id());
                    if !stop.is_cancelled() {
                        tracing::error!(
                            group,
                            %error,
                            "the upkeep of the group ends: nothing of it goes to disk any more, and its log stays"
                        );
                    }
                    if !matches!(error, FileError::Damaged) || !self.is_whole_again(&stop).await {
                        return;
                    }
                    self.means.ended.goes_on(self.group.id());
                    continue;
                }
                _ => {}
            }
            tracing::warn!(group, %error, retry_ms = retry.as_millis() as u64, "the upkeep of the group is tried again");
            looks.reset_after(retry);
            retry = (2 * retry).min(RETRY_MAX);
        }
    }

    /// Waits until a leader's snapshot takes the place of a damaged state; false if it is stopped before.
    async fn is_whole_again(&self, stop: &CancellationToken) -> bool {
        while self.group.try_read(Machine::is_damaged).unwrap_or(true) {
            tokio::select! {
                () = stop.cancelled() => return false,
                () = tokio::time::sleep(RETRY_MIN) => {}
            }
        }
        !stop.is_cancelled()
    }

    /// Takes two snapshots, behind the first of which the log goes.
    async fn let_log_go(&mut self) -> Result<(), FileError> {
        let turn = self.group.turn().await;
        self.snapshot(&turn).await?;
        self.snapshot(&turn).await
    }

    /// Gives the reserve up; whether there was any.
    async fn give_up_reserve(&self) -> bool {
        let reserve = self.means.reserve.clone();
        blocking(move || reserve.give_up()).await.unwrap_or(false)
    }

    /// Makes the reserve if it is not there.
    async fn take_reserve(&self) {
        let reserve = self.means.reserve.clone();
        if let Ok(Err(error)) = blocking(move || reserve.take()).await {
            tracing::debug!(%error, "no room for the reserve");
        }
    }

    /// Does everything that is due.
    async fn step(&mut self, stop: &CancellationToken) -> Result<(), FileError> {
        let turn = self.group.turn().await;
        let settings = self.means.pressure.settings(self.means.options.files);
        // Nothing becomes due by itself in a group to which nothing was applied, but to give memory back and to let go of the log.
        let applied = Some(self.group.applied_index());
        let is_quiet = std::mem::replace(&mut self.looked_at, applied) == applied;
        self.note_work();
        let lets_go = self.frees_full_log()
            || self.pins_too_much(self.new_bytes())
            || self.pins_others()
            || self.has_rested()
            || self.heals();
        if is_quiet && settings == self.means.options.files && !lets_go {
            return Ok(());
        }
        // Until all that is due now was done.
        self.looked_at = None;
        let done = self.work_on_files(&turn, stop).await;
        if let Err(FileError::Panicked | FileError::Stopped | FileError::Damaged) = done {
            return done.map(drop);
        }
        // The work may have taken long.
        self.note_work();
        // One at a time: the next look does the work on files first. Also if that failed, or the log would grow as long as it does.
        if !stop.is_cancelled() && self.is_snapshot_due() {
            let mut taken = self.snapshot(&turn).await;
            if taken.is_ok() && self.group.files().snapshots.lacks_whole() {
                taken = self.snapshot(&turn).await;
            }
            return done.map(drop).and(taken);
        }
        if matches!(done?, Worked { worked: false, waits: false }) {
            self.looked_at = applied;
        }
        Ok(())
    }

    /// Flushes and merges what is due, and removes what nothing needs.
    async fn work_on_files(&self, turn: &Turn, stop: &CancellationToken) -> Result<Worked, FileError> {
        let (mut worked, mut waits) = (false, false);
        loop {
            let settings = self.means.pressure.settings(self.means.options.files);
            // One, for there may always be another one.
            worked |= self.flush(turn, &settings).await?;
            let unmerged = FileSettings { segment_bytes_max: 0, ..settings };
            let mut work = self.group.change(|machine| machine.file_work(&unmerged)).await;
            let mut merging = None;
            if work.is_none() {
                merging = self.means.merges.try_acquire().ok();
                waits = merging.is_none();
                if merging.is_some() {
                    let segment_bytes_max = settings.segment_bytes_max.min(self.room_bytes());
                    let fitting = FileSettings { segment_bytes_max, ..settings };
                    work = self.group.change(|machine| machine.file_work(&fitting)).await;
                }
            }
            let Some(work) = work else { break };
            worked = true;
            let done = self.group.work(turn, work).await;
            drop(merging);
            if let Err(error) = done {
                self.group.change(|machine| machine.note_failed(&error)).await;
                return Err(error);
            }
            if stop.is_cancelled() {
                return Ok(Worked { worked, waits });
            }
            // While much is written there is always something to merge, and the log is let go of by snapshots alone.
            if self.new_bytes() > OVERDUE * self.most_new_bytes() {
                break;
            }
        }
        if worked {
            // What was merged or has expired since the newest snapshot is named by none.
            self.group.prune(turn).await?;
        }
        Ok(Worked { worked, waits })
    }

    /// Bytes that a merge may write without filling the disk, where the log would have no room meanwhile.
    fn room_bytes(&self) -> u64 {
        let files = self.group.files();
        files.fs.free_bytes(&files.dir).map_or(u64::MAX, |free| free.saturating_sub(ROOM_KEPT_BYTES))
    }

    /// Flushes the next of what is due; false if there was nothing.
    async fn flush(&self, turn: &Turn, settings: &FileSettings) -> Result<bool, FileError> {
        let flushed = self.group.flush(settings).await;
        if flushed.is_err() {
            self.group.remove_failed(turn).await;
        }
        flushed
    }

    /// Takes a snapshot.
    async fn snapshot(&mut self, turn: &Turn) -> Result<(), FileError> {
        let (appended_bytes, _) = self.means.log.appended(self.group.id(), 0);
        let written = |group: &Group<M>| group.files().snapshots.status().written_bytes;
        let number = |group: &Group<M>| group.newest_snapshot().map(|newest| newest.manifest.number);
        let (before, known) = (written(&self.group), number(&self.group));
        if self.group.files().snapshots.lacks_whole() {
            self.heal_due = Instant::now() + RETRY_MAX;
        }
        // A log that is too large, or a disk that is full, keeps nothing for followers that are behind.
        let keeps_none =
            self.frees_full_log() || self.pins_too_much(appended_bytes.saturating_sub(self.included_bytes));
        let taken = if keeps_none {
            self.group.snapshot_keeping(turn, 0).await
        } else {
            self.group.snapshot(turn).await
        };
        // It is there, whatever failed behind it.
        if taken.is_ok() || number(&self.group) != known {
            self.included_bytes = appended_bytes;
            self.wrote_bytes = written(&self.group) - before;
        }
        taken.map(drop)
    }

    fn is_snapshot_due(&self) -> bool {
        let new_bytes = self.new_bytes();
        new_bytes > self.most_new_bytes()
            || self.frees_full_log()
            || self.pins_too_much(new_bytes)
            || self.pins_others()
            || self.has_rested()
            || self.heals()
            || self.frees_much()
    }

    /// Notes when more than next to nothing was last appended.
    fn note_work(&mut self) {
        let (appended_bytes, _) = self.means.log.appended(self.group.id(), 0);
        if appended_bytes > self.worked.0 + self.most_new_bytes() / RESTING_PART {
            self.worked = (appended_bytes, Instant::now());
        }
    }

    /// Whether this group has rested for a while behind much that a start would replay.
    fn has_rested(&self) -> bool {
        self.worked.1.elapsed() >= REST && self.new_bytes() > self.most_new_bytes() / RESTED_PART
    }

    /// Whether a snapshot was found damaged, so that too few are whole. What cannot be healed is tried now and then.
    fn heals(&self) -> bool {
        self.heal_due <= Instant::now() && self.group.files().snapshots.lacks_whole()
    }

    /// Bytes of the log behind the newest snapshot.
    fn new_bytes(&self) -> u64 {
        let (appended_bytes, _) = self.means.log.appended(self.group.id(), 0);
        appended_bytes.saturating_sub(self.included_bytes)
    }

    /// How many of them make the next one due.
    fn most_new_bytes(&self) -> u64 {
        self.means.options.snapshot_log_bytes.max((self.wrote_bytes / 2).min(REPLAYED_BYTES_MAX))
    }

    /// Whether the log is too large, and this group keeps its oldest part and can let go of it.
    fn pins_too_much(&self, new_bytes: u64) -> bool {
        let Some(usage) = self.pins(self.means.options.log_bytes_max) else { return false };
        // What the newest snapshot includes goes when there is another one, also of the same state.
        let newest = self.group.newest_snapshot().map(|newest| newest.manifest.index);
        new_bytes > 0 || newest >= Some(usage.first)
    }

    /// Whether this group keeps far more of the log than the others leave of it, and snapshots let go of that.
    fn pins_others(&self) -> bool {
        let all_bytes = u64::from(self.means.partitions).saturating_mul(self.most_new_bytes());
        let Some(usage) = self.pins(all_bytes.saturating_mul(PINNED)) else { return false };
        // What the second newest includes and is there is for somebody who is behind.
        self.group.files().snapshots.previous().is_none_or(|previous| previous.index < usage.first)
    }

    /// What this group has in the log, if that is larger than `most_bytes` and the group keeps more than that by its oldest entry.
    fn pins(&self, most_bytes: u64) -> Option<GroupUsage> {
        let status = self.means.log.status();
        if status.bytes <= most_bytes {
            return None;
        }
        let held = self.means.log.usage();
        // Who takes no snapshots any more is passed over: the others keep to the bound by themselves.
        let can_work =
            |usage: &GroupUsage| usage.position.is_some() && !self.means.ended.contains(usage.group);
        let oldest = held.into_iter().filter(can_work).min_by_key(|usage| usage.position)?;
        // Segments that are kept for another reason do not go either way.
        let pinned_bytes = status.durable_position.saturating_sub(oldest.position.unwrap_or_default());
        (oldest.group == self.group.id() && pinned_bytes > most_bytes).then_some(oldest)
    }

    /// Whether the log refuses entries until the disk has room, and this group holds some of it. Nothing is appended meanwhile,
    /// so two snapshots let go of all.
    fn frees_full_log(&self) -> bool {
        self.means.log.status().full
            && self.means.log.usage().iter().any(|usage| usage.group == self.group.id())
    }

    /// Whether old snapshots keep much on the disk that the state does not need any more.
    fn frees_much(&self) -> bool {
        let in_use: BTreeMap<_, _> = self.group.read(Machine::files_in_use).into_iter().collect();
        let needed: u64 = in_use.values().sum();
        let snapshots = &self.group.files().snapshots;
        let listed = [snapshots.newest(), snapshots.previous()];
        let segments = listed.iter().flatten().flat_map(|manifest| &manifest.segments);
        let kept = segments.filter(|segment| !in_use.contains_key(&segment.name));
        let kept: BTreeMap<_, _> = kept.map(|segment| (&segment.name, segment.bytes)).collect();
        let kept: u64 = kept.values().sum();
        // Not at the price of writing far more.
        kept > FREED_BYTES_MIN.max(needed.max(self.wrote_bytes) / FREED_PART)
    }
}

#[cfg(test)]
mod tests;
