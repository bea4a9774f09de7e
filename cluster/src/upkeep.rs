//! Owns the upkeep of a group's files beside its applies: segments are written and merged, snapshots taken, and the log let
//! go behind them.
//!
//! - One task does the work of a group, one piece after the other.
//! - A snapshot is due when the log behind the newest has become larger than the threshold and than what that snapshot
//!   wrote, when this group is who pins the oldest part of a log that is too large, or when it would free much of the disk.
//! - A full disk is no failure: the reserve is given up for two snapshots, which let the log go; else the work is tried again
//!   later, and nothing that was there is touched before.

use std::sync::Arc;
use std::time::Duration;

use fanfold_storage::log::Log;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

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
const FREED_BYTES_MIN: u64 = 4 << 20;

/// The upkeep of one group.
pub(crate) struct Upkeep<M: Machine> {
    group: Group<M>,
    log: Log,
    options: Arc<DiskOptions>,
    reserve: Arc<Reserve>,
    /// When the reserve is looked after next.
    reserve_due: Instant,
    /// Bytes of the log that the newest snapshot includes.
    included_bytes: u64,
    /// Bytes that snapshot wrote.
    wrote_bytes: u64,
}

impl<M: Machine> Upkeep<M> {
    /// The upkeep of `group`, whose entries are in `log`.
    pub fn new(group: Group<M>, log: Log, options: Arc<DiskOptions>, reserve: Arc<Reserve>) -> Self {
        let index = group.newest_snapshot().map_or(0, |newest| newest.manifest.index);
        let included_bytes = log.appended(group.id(), index).1;
        let reserve_due = Instant::now();
        Self { group, log, options, reserve, reserve_due, included_bytes, wrote_bytes: 0 }
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
                done = match self.snapshot().await {
                    Ok(()) => self.snapshot().await,
                    failed => failed,
                };
            }
            let Err(error) = done else {
                retry = RETRY_MIN;
                if self.reserve.is_wanted() && self.reserve_due <= Instant::now() {
                    self.reserve_due = Instant::now() + RETRY_MAX;
                    self.take_reserve().await;
                }
                continue;
            };
            let group = self.group.id().0;
            if matches!(error, FileError::Stopped | FileError::Damaged) {
                tracing::debug!(group, %error, "the upkeep of the group ends");
                return;
            }
            tracing::warn!(group, %error, retry_ms = retry.as_millis() as u64, "the upkeep of the group is tried again");
            looks.reset_after(retry);
            retry = (2 * retry).min(RETRY_MAX);
        }
    }

    /// Gives the reserve up; whether there was any.
    async fn give_up_reserve(&self) -> bool {
        let reserve = self.reserve.clone();
        tokio::task::spawn_blocking(move || reserve.give_up()).await.unwrap_or(false)
    }

    /// Makes the reserve if it is not there.
    async fn take_reserve(&self) {
        let reserve = self.reserve.clone();
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || reserve.take()).await {
            tracing::debug!(%error, "no room for the reserve");
        }
    }

    /// Does everything that is due.
    async fn step(&mut self, stop: &CancellationToken) -> Result<(), FileError> {
        let _turn = self.group.turn().await;
        let settings = self.options.files;
        while let Some(work) = self.group.change(|machine| machine.file_work(&settings)) {
            let done = self.group.work(work).await;
            done.inspect_err(|error| self.group.change(|machine| machine.note_failed(error)))?;
            if stop.is_cancelled() {
                return Ok(());
            }
        }
        while self.is_snapshot_due() && !stop.is_cancelled() {
            self.snapshot().await?;
        }
        Ok(())
    }

    /// Takes a snapshot.
    async fn snapshot(&mut self) -> Result<(), FileError> {
        let (appended_bytes, _) = self.log.appended(self.group.id(), 0);
        let written = |group: &Group<M>| group.files().snapshots.status().written_bytes;
        let before = written(&self.group);
        self.group.snapshot().await?;
        self.included_bytes = appended_bytes;
        self.wrote_bytes = written(&self.group) - before;
        Ok(())
    }

    fn is_snapshot_due(&self) -> bool {
        let (appended_bytes, _) = self.log.appended(self.group.id(), 0);
        let new_bytes = appended_bytes - self.included_bytes;
        new_bytes > self.options.snapshot_log_bytes.max(self.wrote_bytes)
            || self.pins_too_much(new_bytes)
            || self.frees_much()
    }

    /// Whether the log is too large, and this group keeps its oldest part and can let go of it.
    fn pins_too_much(&self, new_bytes: u64) -> bool {
        if self.log.status().bytes <= self.options.log_bytes_max {
            return false;
        }
        let held = self.log.usage();
        let oldest = held.iter().filter(|usage| usage.position.is_some()).min_by_key(|usage| usage.position);
        // What the newest snapshot includes goes when there is another one, also of the same state.
        let newest = self.group.newest_snapshot().map(|newest| newest.manifest.index);
        oldest.is_some_and(|usage| {
            usage.group == self.group.id() && (new_bytes > 0 || newest >= Some(usage.first))
        })
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
        kept > FREED_BYTES_MIN.max(needed / FREED_PART)
    }
}
