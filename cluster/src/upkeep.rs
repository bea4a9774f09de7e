//! Owns the upkeep of a group's files beside its applies: segments are written and merged, snapshots taken, and the log let
//! go behind them.
//!
//! - One task does the work of a group, one piece after the other.
//! - A snapshot is due when the log behind the newest has become larger than the threshold and than half of what that
//!   snapshot wrote, when this group is who pins the oldest part of a log that is too large, or when it would free much of the disk.
//! - A full disk is no failure: the reserve is given up for two snapshots, which let the log go; else the work is tried again
//!   later, and nothing that was there is touched before.

use std::sync::Arc;
use std::time::Duration;

use fanfold_storage::log::Log;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::memory::Pressure;
use crate::options::DiskOptions;
use crate::raft::{FileError, Group, Machine};
use crate::reserve::Reserve;

/// How often it is looked whether something is due.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// After a failure the next attempt waits so long, and twice as long each time …
const RETRY_MIN: Duration = Duration::from_millis(500);

/// … up to this.
const RETRY_MAX: Duration = Duration::from_secs(30);

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
}

/// The upkeep of one group.
pub(crate) struct Upkeep<M: Machine> {
    group: Group<M>,
    means: UpkeepMeans,
    /// The index that had been applied when all that was due had been done.
    looked_at: Option<u64>,
    /// When the reserve is looked after next.
    reserve_due: Instant,
    /// Bytes of the log that the newest snapshot includes.
    included_bytes: u64,
    /// Bytes that snapshot wrote.
    wrote_bytes: u64,
}

impl<M: Machine> Upkeep<M> {
    /// The upkeep of `group`.
    pub fn new(group: Group<M>, means: UpkeepMeans) -> Self {
        let index = group.newest_snapshot().map_or(0, |newest| newest.manifest.index);
        let included_bytes = means.log.appended(group.id(), index).1;
        Self { group, means, looked_at: None, reserve_due: Instant::now(), included_bytes, wrote_bytes: 0 }
    }

    /// Works until it is stopped; what is under way then is finished first.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut retry = RETRY_MIN;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = looks.tick() => {}
            }
            let mut done = self.step(&stop).await;
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
            if matches!(error, FileError::Stopped | FileError::Damaged) {
                if !stop.is_cancelled() {
                    tracing::error!(
                        group,
                        %error,
                        "the upkeep of the group ends: nothing of it goes to disk any more, and its log stays; restart the node"
                    );
                }
                return;
            }
            tracing::warn!(group, %error, retry_ms = retry.as_millis() as u64, "the upkeep of the group is tried again");
            looks.reset_after(retry);
            retry = (2 * retry).min(RETRY_MAX);
        }
    }

    /// Takes two snapshots, behind the first of which the log goes.
    async fn let_log_go(&mut self) -> Result<(), FileError> {
        let _turn = self.group.turn().await;
        self.snapshot().await?;
        self.snapshot().await
    }

    /// Gives the reserve up; whether there was any.
    async fn give_up_reserve(&self) -> bool {
        let reserve = self.means.reserve.clone();
        tokio::task::spawn_blocking(move || reserve.give_up()).await.unwrap_or(false)
    }

    /// Makes the reserve if it is not there.
    async fn take_reserve(&self) {
        let reserve = self.means.reserve.clone();
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || reserve.take()).await {
            tracing::debug!(%error, "no room for the reserve");
        }
    }

    /// Does everything that is due.
    async fn step(&mut self, stop: &CancellationToken) -> Result<(), FileError> {
        let _turn = self.group.turn().await;
        let settings = self.means.pressure.settings(self.means.options.files);
        // Nothing becomes due by itself in a group to which nothing was applied, but to give memory back and to let go of the log.
        let applied = Some(self.group.applied_index());
        let is_quiet = std::mem::replace(&mut self.looked_at, applied) == applied;
        let (appended_bytes, _) = self.means.log.appended(self.group.id(), 0);
        let lets_go =
            self.frees_full_log() || self.pins_too_much(appended_bytes.saturating_sub(self.included_bytes));
        if is_quiet && settings == self.means.options.files && !lets_go {
            return Ok(());
        }
        // Until all that is due now was done.
        self.looked_at = None;
        let mut worked = false;
        while let Some(work) = self.group.change(|machine| machine.file_work(&settings)) {
            worked = true;
            let done = self.group.work(work).await;
            done.inspect_err(|error| self.group.change(|machine| machine.note_failed(error)))?;
            if stop.is_cancelled() {
                return Ok(());
            }
        }
        if worked {
            // What was merged or has expired since the newest snapshot is named by none.
            self.group.prune().await?;
        }
        // One at a time: the next look does the work on files first.
        if !stop.is_cancelled() && self.is_snapshot_due() {
            return self.snapshot().await;
        }
        self.looked_at = applied;
        Ok(())
    }

    /// Takes a snapshot.
    async fn snapshot(&mut self) -> Result<(), FileError> {
        let (appended_bytes, _) = self.means.log.appended(self.group.id(), 0);
        let written = |group: &Group<M>| group.files().snapshots.status().written_bytes;
        let before = written(&self.group);
        self.group.snapshot().await?;
        self.included_bytes = appended_bytes;
        self.wrote_bytes = written(&self.group) - before;
        Ok(())
    }

    fn is_snapshot_due(&self) -> bool {
        let (appended_bytes, _) = self.means.log.appended(self.group.id(), 0);
        let new_bytes = appended_bytes.saturating_sub(self.included_bytes);
        new_bytes > self.means.options.snapshot_log_bytes.max(self.wrote_bytes / 2)
            || self.frees_full_log()
            || self.pins_too_much(new_bytes)
            || self.frees_much()
    }

    /// Whether the log is too large, and this group keeps its oldest part and can let go of it.
    fn pins_too_much(&self, new_bytes: u64) -> bool {
        let status = self.means.log.status();
        if status.bytes <= self.means.options.log_bytes_max {
            return false;
        }
        let held = self.means.log.usage();
        let oldest = held.iter().filter(|usage| usage.position.is_some()).min_by_key(|usage| usage.position);
        // What the newest snapshot includes goes when there is another one, also of the same state.
        let newest = self.group.newest_snapshot().map(|newest| newest.manifest.index);
        oldest.is_some_and(|usage| {
            // Segments that are kept for another reason do not go either way.
            let pinned_bytes = status.durable_position.saturating_sub(usage.position.unwrap_or_default());
            let can_let_go = new_bytes > 0 || newest >= Some(usage.first);
            usage.group == self.group.id() && can_let_go && pinned_bytes > self.means.options.log_bytes_max
        })
    }

    /// Whether the log refuses entries until the disk has room, and this group holds some of it. Nothing is appended meanwhile,
    /// so two snapshots let go of all.
    fn frees_full_log(&self) -> bool {
        self.means.log.status().full
            && self.means.log.usage().iter().any(|usage| usage.group == self.group.id())
    }

    /// Whether old snapshots keep much on the disk that the state does not need any more.
    fn frees_much(&self) -> bool {
        let (needed, kept) = self.group.read(|machine| {
            let in_use = machine.files_in_use();
            let snapshots = &self.group.files().snapshots;
            let listed = [snapshots.newest(), snapshots.previous()];
            let kept = listed.iter().flatten().flat_map(|manifest| &manifest.segments);
            let kept = kept.filter(|segment| !in_use.iter().any(|(name, _)| *name == segment.name));
            let kept: std::collections::BTreeMap<_, _> =
                kept.map(|segment| (segment.name.clone(), segment.bytes)).collect();
            (in_use.iter().map(|(_, bytes)| bytes).sum::<u64>(), kept.values().sum::<u64>())
        });
        // Not at the price of writing far more.
        kept > FREED_BYTES_MIN.max(needed.max(self.wrote_bytes) / FREED_PART)
    }
}
