//! Owns the upkeep of a group's files beside its applies: segments are written and merged, snapshots taken, and the log let
//! go behind them.
//!
//! - One task does the work of a group, one piece after the other.
//! - A snapshot is due when the log behind the newest has become larger than the threshold and than what that snapshot
//!   wrote, when this group is who pins the oldest part of a log that is too large, or when it would free much of the disk.
//! - A full disk is no failure: the work is tried again later, and nothing that was there is touched before.

use std::sync::Arc;
use std::time::Duration;

use fanfold_storage::log::Log;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::options::DiskOptions;
use crate::raft::{FileError, Group, Machine};

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
    /// Bytes of the log that the newest snapshot includes.
    included_bytes: u64,
    /// Bytes that snapshot wrote.
    wrote_bytes: u64,
}

impl<M: Machine> Upkeep<M> {
    /// The upkeep of `group`, whose entries are in `log`.
    pub fn new(group: Group<M>, log: Log, options: Arc<DiskOptions>) -> Self {
        let index = group.newest_snapshot().map_or(0, |newest| newest.manifest.index);
        let included_bytes = log.appended(group.id(), index).1;
        Self { group, log, options, included_bytes, wrote_bytes: 0 }
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
            let Err(error) = self.step(&stop).await else {
                retry = RETRY_MIN;
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

    /// Does everything that is due.
    async fn step(&mut self, stop: &CancellationToken) -> Result<(), FileError> {
        let settings = self.options.files;
        while let Some(work) = self.group.change(|machine| machine.file_work(&settings)) {
            self.group.work(work).await?;
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
            || new_bytes > 0 && self.pins_too_much()
            || self.frees_much()
    }

    /// Whether the log is too large, and this group is who keeps its oldest part.
    fn pins_too_much(&self) -> bool {
        self.log.status().bytes > self.options.log_bytes_max
            && self
                .log
                .usage()
                .iter()
                .min_by_key(|usage| usage.position)
                .is_some_and(|usage| usage.group == self.group.id())
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
