//! Owns what a group keeps on disk beside the log while it runs: snapshots, work on files, and the turns to do either.
//!
//! - Whoever works on the files, takes a snapshot or installs one holds the turn. Who flushes does not, for applying may wait for that,
//!   and whoever has the turn for applying.
//! - Nobody removes files while something is flushed.
//! - What is done under the machine's lock is done on the group's own tasks; threads that give way to others never take it.
//! - What was begun is finished, whoever stops waiting for it.

use std::sync::Arc;

use fanfold_storage::segment::SegmentError;
use fanfold_storage::snapshot::{FileHold, Listed, SnapshotError};

use super::files::{FileError, FileWork, GroupFiles};
use super::group::{Group, Inner};
use super::machine::Machine;
use super::snapshot::{StoredSnapshot, write_cut};
use super::types::{ReplicaAddress, ReplicaId};
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

    /// The segments that the state uses, in a snapshot or not, kept there while the hold lives.
    pub fn kept_segments(&self) -> (Vec<Listed>, FileHold) {
        let before = self.read(Machine::segments_in_use);
        let hold = self.inner.files.snapshots.hold(before.iter().map(|segment| segment.name.clone()));
        // What is used still was there when it was held, and nobody removes it from then on.
        let mut now = self.read(Machine::segments_in_use);
        now.retain(|segment| before.contains(segment));
        (now, hold)
    }

    /// Whether a snapshot on disk needs the file of this name, or may: one that is damaged does not say.
    pub fn is_in_snapshot(&self, name: &str) -> bool {
        let files = &self.inner.files;
        let named = |stored: &StoredSnapshot| stored.manifest.names().any(|named| named == name);
        !files.snapshots.damaged().is_empty() || self.kept_snapshots().iter().any(named)
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
        assert!(Arc::ptr_eq(mutex, &self.inner.turn), "the turn of another group");
    }

    /// Changes the machine beside its log: only what does not show. Runs under the write lock.
    pub async fn change<T>(&self, change: impl FnOnce(&mut M) -> T) -> T {
        self.inner.shared.keep_up("look", |state| change(&mut state.machine)).await
    }

    /// Does work on the machine's files on a thread for that, and installs what came of it, in as many rounds as that takes.
    pub async fn work(&self, turn: &Turn, work: FileWork<M>) -> Result<(), FileError> {
        self.check(turn);
        let inner = self.inner.clone();
        let done = finished(async move { inner.shared.work(&inner.files, work).await }).await;
        if done.is_err() {
            self.remove_failed(turn).await;
        }
        done
    }

    /// Removes what work wrote that failed: it is nobody's, and the disk may be full. Why the work failed is what counts.
    pub async fn remove_failed(&self, turn: &Turn) {
        if let Err(error) = self.prune(turn).await {
            tracing::warn!(group = self.inner.spec.group.0, %error, "what failed work left could not be removed");
        }
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
        let inner = self.inner.clone();
        // From its beginning on a cut is gone on with whatever becomes of the caller: applying may wait for it.
        let written = finished(async move {
            let begun =
                inner.raft.with_state_machine(|machine| Box::pin(async { machine.begin_cut() })).await;
            let Some(meta) = begun.map_err(|_| FileError::Stopped)? else { return Ok(None) };
            let before = inner.current.get();
            let base = before.as_ref().map(|(stored, _)| stored.manifest.clone());
            let manifest = write_cut(&inner.shared, &inner.files, base, &meta).await?;
            inner.current.set(StoredSnapshot::new(&inner.files, manifest), meta);
            // What the log is let go behind is a snapshot that could take the newest one's place.
            Ok(Some(inner.files.snapshots.previous().map(|previous| previous.index)))
        });
        let Some(purge) = written.await? else { return Ok(false) };
        let purge = if purge.is_some() { self.read_back().await? } else { None };
        let trigger = self.inner.raft.trigger();
        trigger.snapshot().await.map_err(|_| FileError::Stopped)?;
        if let Some(index) = purge.and_then(|index| self.purgeable(index, lagging_bytes_max)) {
            trigger.purge_log(index).await.map_err(|_| FileError::Stopped)?;
            self.let_go_if_full(index);
        }
        self.prune(turn).await?;
        Ok(true)
    }

    /// Reads back what is new in the second newest snapshot, so that the log may go behind it; up to which index. If it is damaged
    /// nothing goes: with the log, the one before holds the same.
    async fn read_back(&self) -> Result<Option<u64>, FileError> {
        let inner = self.inner.clone();
        let read = beside(move || {
            let Some(previous) = inner.files.snapshots.previous() else { return Ok(None) };
            let verified = inner.current.verified();
            if verified.as_ref().is_none_or(|verified| verified.number != previous.number) {
                let snapshots = &inner.files.snapshots;
                snapshots.verify(&previous, verified.as_deref(), &*inner.files.pace)?;
                let (group, all_bytes) = (inner.spec.group.0, snapshots.status().read_back_bytes);
                tracing::debug!(group, number = previous.number, all_bytes, "read a snapshot back");
                inner.current.set_verified(previous.clone());
            }
            Ok(Some(previous.index))
        });
        match read.await {
            Err(FileError::Snapshot(error)) if error.place().is_some() => {
                let group = self.inner.spec.group.0;
                tracing::error!(group, %error, "a snapshot is not on disk as it was written; the log behind the one before it stays");
                self.note_unreadable(error).await;
                Ok(None)
            }
            read => read,
        }
    }

    /// What the state reads now is damaged as well, if it is a segment that it uses.
    async fn note_unreadable(&self, error: SnapshotError) {
        let SnapshotError::Damaged { path, offset, what } = error else { return };
        let is_it = |used: &(String, u64)| path.file_name().is_some_and(|name| name == used.0.as_str());
        if self.read(Machine::files_in_use).iter().any(is_it) {
            let error = FileError::Segment(SegmentError::Damaged { path, offset, what });
            self.change(|machine| machine.note_failed(&error)).await;
        }
    }

    /// A replica whose entries wait for room does not hear that the log may go, which would make the room. A leader with
    /// followers may be reading what would go; others succeed it while it waits.
    pub(super) fn let_go_if_full(&self, index: u64) {
        let members = self.members();
        let is_read = self.is_leader() && members.voters.len() + members.learners.len() > 1;
        if self.inner.log.accepts_appends() || is_read {
            return;
        }
        if let Err(error) = self.inner.store.let_go(index) {
            tracing::warn!(group = self.inner.spec.group.0, %error, "the full log could not be let go");
        }
    }

    /// Up to where the log may go, if it could go up to `index`; none if it may not at all.
    pub(super) fn purgeable(&self, index: u64, lagging_bytes_max: u64) -> Option<u64> {
        let Inner { log, spec, .. } = &*self.inner;
        let (appended_bytes, _) = log.appended(spec.group, 0);
        let is_kept = |held: &u64| {
            let (_, through_bytes) = log.appended(spec.group, *held);
            appended_bytes - through_bytes.min(appended_bytes) <= lagging_bytes_max
        };
        let held = self.held_by_followers().map(|(_, held)| held);
        held.filter(|held| *held < index && is_kept(held)).chain([index]).min().filter(|index| *index > 0)
    }

    /// Up to where each follower has the log. One that has not answered yet is sent a snapshot, and that one counts.
    fn held_by_followers(&self) -> impl Iterator<Item = (ReplicaId, u64)> {
        let replication = self.replication().unwrap_or_default().into_iter();
        let answered = replication.filter_map(|(replica, held)| Some((replica, held?)));
        answered.chain(self.inner.outgoing.all())
    }

    /// The follower whom the log's first entries are kept for, if those are in both snapshots.
    pub fn log_kept_for(&self) -> Option<ReplicaAddress> {
        let Inner { log, spec, files, .. } = &*self.inner;
        let included = files.snapshots.previous()?.index;
        let first = log.group_state(spec.group).ok()?.first;
        let members = self.members();
        let address = |replica| members.voters.get(&replica).or_else(|| members.learners.get(&replica));
        // Who needs what is gone already is sent a snapshot.
        let behind = self.held_by_followers().filter(|(_, held)| first <= held + 1 && *held < included);
        let behind = behind.filter_map(|(replica, held)| Some((held, address(replica)?.clone())));
        behind.min_by_key(|(held, _)| *held).map(|(_, address)| address)
    }

    /// Removes the files that nothing needs.
    pub async fn prune(&self, turn: &Turn) -> Result<(), FileError> {
        self.check(turn);
        let inner = self.inner.clone();
        let pruned = async move {
            let _flushing = inner.shared.flushing.lock().await;
            // Whoever could make other files has no turn.
            let in_use = inner.shared.read().machine.files_in_use();
            let snapshots = inner.files.snapshots.clone();
            let needed_from = inner.current.needed_from(snapshots.previous().as_deref());
            let is_used = move |name: &str| in_use.iter().any(|(used, _)| used == name);
            beside(move || Ok(snapshots.prune_before(needed_from, &is_used)?)).await
        };
        finished(pruned).await.map(drop)
    }
}

/// Does work on files on a thread that gives way to others.
pub(super) async fn beside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FileError> + Send + 'static,
) -> Result<T, FileError> {
    in_background(work).await.unwrap_or_else(|error| Err(failed_task(&error)))
}

/// Does work to its end, even if nobody waits for it any more.
pub(super) async fn finished<T: Send + 'static>(
    work: impl Future<Output = Result<T, FileError>> + Send + 'static,
) -> Result<T, FileError> {
    tokio::spawn(work).await.unwrap_or_else(|error| Err(failed_task(&error)))
}

/// Why a task of this group has no result.
fn failed_task(error: &tokio::task::JoinError) -> FileError {
    if error.is_panic() { FileError::Panicked } else { FileError::Stopped }
}
