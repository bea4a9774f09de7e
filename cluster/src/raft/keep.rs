//! Owns what a group keeps on disk beside the log while it runs: snapshots, work on files, and the turns to do either.
//!
//! - Whoever works on the files, takes a snapshot or installs one holds the turn.

use super::files::{FileError, FileWork, GroupFiles};
use super::group::{Group, Inner};
use super::machine::Machine;
use super::snapshot::{StoredSnapshot, write_cut};
use crate::blocking::in_background;

/// Held by whoever works on the files of a group.
#[derive(Debug)]
pub struct Turn {
    guard: tokio::sync::OwnedMutexGuard<()>,
}

impl<M: Machine> Group<M> {
    /// The newest snapshot on disk.
    pub fn newest_snapshot(&self) -> Option<StoredSnapshot> {
        self.inner.current.get().map(|(stored, _)| stored)
    }

    /// The two newest snapshots on disk that are whole, the newest first.
    pub fn kept_snapshots(&self) -> Vec<StoredSnapshot> {
        let files = &self.inner.files;
        let two = [files.snapshots.newest(), files.snapshots.previous()];
        two.into_iter().flatten().map(|manifest| StoredSnapshot::new(files, manifest)).collect()
    }

    /// The directory of its snapshots.
    pub fn files(&self) -> &GroupFiles {
        &self.inner.files
    }

    /// Waits until nobody else works on the files, takes snapshots or purges the log, and keeps it so while the turn is held.
    pub async fn turn(&self) -> Turn {
        Turn { guard: self.inner.turn.clone().lock_owned().await }
    }

    /// A turn counts for its own group.
    fn check(&self, turn: &Turn) {
        let mutex = tokio::sync::OwnedMutexGuard::mutex(&turn.guard);
        assert!(std::sync::Arc::ptr_eq(mutex, &self.inner.turn), "the turn of another group");
    }

    /// Changes the machine beside its log: only what does not show. Runs under the write lock.
    pub fn change<T>(&self, change: impl FnOnce(&mut M) -> T) -> T {
        self.inner.shared.change(|state| change(&mut state.machine))
    }

    /// Does work on the machine's files on a blocking thread, and installs what came of it.
    pub async fn work(&self, turn: &Turn, work: FileWork<M>) -> Result<(), FileError> {
        self.check(turn);
        let inner = self.inner.clone();
        let done = in_background(move || {
            let install = work(&inner.files)?;
            drop(inner.shared.change(|state| install(&mut state.machine)));
            Ok(())
        });
        let done = done.await.unwrap_or_else(|error| Err(failed_task(&error)));
        if done.is_err() {
            // What was written until then is nobody's, and the disk may be full. Why the work failed is what counts.
            if let Err(error) = self.prune(turn).await {
                tracing::warn!(group = self.inner.spec.group.0, %error, "what failed work left could not be removed");
            }
        }
        done
    }

    /// Takes a snapshot beside the applies; when it is durable, the log goes up to the one before, and then the files
    /// that neither of the two names. False if there is nothing to take one of. Followers that are behind keep the log
    /// that they need, within a bound.
    pub async fn snapshot(&self, turn: &Turn) -> Result<bool, FileError> {
        self.snapshot_keeping(turn, self.inner.settings.lagging_log_bytes_max).await
    }

    /// Like [`Group::snapshot`], and keeps at most so many bytes of log for followers.
    pub async fn snapshot_keeping(&self, turn: &Turn, lagging_bytes_max: u64) -> Result<bool, FileError> {
        self.check(turn);
        let begun =
            self.inner.raft.with_state_machine(|machine| Box::pin(async { machine.begin_cut() })).await;
        let Some(meta) = begun.map_err(|_| FileError::Stopped)? else { return Ok(false) };
        let inner = self.inner.clone();
        let written = in_background(move || {
            let before = inner.current.get();
            let base = before.as_ref().map(|(stored, _)| &*stored.manifest);
            let manifest = write_cut(&inner.shared, &inner.files, base, &meta)?;
            inner.current.set(StoredSnapshot::new(&inner.files, manifest), meta);
            // What the log is let go behind is a snapshot that could take the newest one's place.
            Ok(inner.files.snapshots.previous().map(|previous| previous.index))
        });
        let purge = written.await.unwrap_or_else(|error| Err(failed_task(&error)))?;
        let trigger = self.inner.raft.trigger();
        trigger.snapshot().await.map_err(|_| FileError::Stopped)?;
        if let Some(index) = purge.and_then(|index| self.purgeable(index, lagging_bytes_max)) {
            trigger.purge_log(index).await.map_err(|_| FileError::Stopped)?;
            self.let_go_if_full(index);
        }
        self.prune(turn).await?;
        Ok(true)
    }

    /// A follower whose entries wait for room does not hear that the log may go, which would make the room.
    pub(super) fn let_go_if_full(&self, index: u64) {
        if self.inner.log.accepts_appends() || self.is_leader() {
            return;
        }
        if let Err(error) = self.inner.store.let_go(index) {
            tracing::warn!(group = self.inner.spec.group.0, %error, "the full log could not be let go");
        }
    }

    /// Up to where the log may go, if it could go up to `index`; none if it may not at all.
    pub(super) fn purgeable(&self, index: u64, lagging_bytes_max: u64) -> Option<u64> {
        let Inner { log, spec, outgoing, .. } = &*self.inner;
        let (appended_bytes, _) = log.appended(spec.group, 0);
        let is_kept = |held: &u64| {
            let (_, through_bytes) = log.appended(spec.group, *held);
            appended_bytes - through_bytes.min(appended_bytes) <= lagging_bytes_max
        };
        // A follower that has not answered yet is sent a snapshot, and that one counts.
        let replication = self.replication().unwrap_or_default();
        let held = replication.values().flatten().copied().chain(outgoing.lowest());
        held.filter(|held| *held < index && is_kept(held)).chain([index]).min().filter(|index| *index > 0)
    }

    /// Removes the files that nothing needs.
    pub async fn prune(&self, turn: &Turn) -> Result<(), FileError> {
        self.check(turn);
        let inner = self.inner.clone();
        let pruned = in_background(move || {
            let in_use = inner.shared.read().machine.files_in_use();
            inner.files.snapshots.prune(&|name| in_use.iter().any(|(used, _)| used == name))
        });
        pruned.await.map_err(|error| failed_task(&error))??;
        Ok(())
    }
}

/// Why a task of this group has no result.
fn failed_task(error: &tokio::task::JoinError) -> FileError {
    if error.is_panic() { FileError::Panicked } else { FileError::Stopped }
}
