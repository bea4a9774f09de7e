//! Owns what a replicated machine is to its group, and the lock that applies and reads share.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use fanfold_storage::snapshot::{Listed, Manifest, SnapshotError};
use tokio::sync::{Notify, watch};

use super::files::{FileError, FileSettings, FileWork, Garbage, GroupFiles, Installed, Pace, RestoreWork};
use super::keep::beside;
use super::state_lock::{Reading, StateLock};
use super::times::{ApplyClock, Hold};
use super::types::{LogId, SnapshotMeta, StoredMembership};
use crate::blocking::FreedBeside;

/// A deterministic state machine that a group replicates.
///
/// Its state is a function of the batches applied to it and nothing else: no clock, no randomness.
pub trait Machine: Send + Sync + 'static {
    /// What one batch answers: everything its commands' senders wait for.
    type Outcome: Send + Sync + 'static;

    /// A batch that is being applied.
    type Work<'b>: Send;

    /// Begins to apply the batch of the Raft entry at `index`. Runs under the write lock; must not wait for anything.
    fn begin<'b>(&mut self, index: u64, batch: &'b [u8]) -> Self::Work<'b>;

    /// Does a piece of the work, well below a millisecond of it; false when it is done. Runs under the write lock,
    /// which readers get between two pieces, as other tasks get the thread.
    fn go_on(&mut self, work: &mut Self::Work<'_>) -> bool;

    /// What came of work that is done.
    fn finish(work: Self::Work<'_>) -> Self::Outcome;

    /// Applies a batch in one go.
    #[cfg(test)]
    fn apply(&mut self, index: u64, batch: &[u8]) -> Self::Outcome {
        let mut work = self.begin(index, batch);
        while self.go_on(&mut work) {}
        Self::finish(work)
    }

    /// Begins to cut the state as it is now into buckets, for a snapshot. Runs under the write lock, between two Raft
    /// entries, and takes well below a millisecond.
    fn begin_cut(&mut self);

    /// The next step of the cut: a bucket, as the state was when it began, or that it is as in the snapshot before; `must_write`
    /// says of which buckets that is not enough. Runs under the write lock, between pieces of work on later entries.
    fn next_bucket(&mut self, must_write: &dyn Fn(u8, u64) -> bool) -> Option<Bucket>;

    /// Whether the cut holds as much as it may of what changed since it began: nothing is to be applied before it took further
    /// steps. Runs under the write lock.
    fn cut_holds_too_much(&mut self) -> bool {
        false
    }

    /// Work that has to be done and installed before the last bucket; none when there is no more.
    fn cut_work(&mut self) -> Option<FileWork<Self>>
    where
        Self: Sized,
    {
        None
    }

    /// What makes the bucket that is written after all others, off the lock; none if the state must not be kept.
    fn last_bucket(&mut self) -> Option<LastWork>;

    /// Ends the cut; if it was not taken, what it would have held counts as changed again.
    fn end_cut(&mut self, taken: bool) -> Garbage;

    /// Reads the state of a snapshot, beside the state that is there, and replaces that as a whole. On an error it is as it was.
    fn restoring(&self, manifest: Arc<Manifest>) -> RestoreWork<Self>
    where
        Self: Sized;

    /// The same at once, where nobody else knows of the machine.
    fn restore(&mut self, files: &GroupFiles, manifest: &Arc<Manifest>) -> Result<(), FileError>
    where
        Self: Sized,
    {
        let install = self.restoring(manifest.clone())(files)?;
        drop(install(self));
        Ok(())
    }

    /// Says that the Raft entries up to `index` are replayed from the log: they were applied before, by a run that ended.
    fn replay_until(&mut self, _index: u64) {}

    /// Gives the file of a segment that a peer's snapshot lists, written but without its name, another number; what is
    /// listed then. By itself a machine has no segments.
    fn renumber(
        files: &GroupFiles,
        path: &Path,
        listed: &Listed,
        number: u64,
    ) -> Result<Listed, SnapshotError> {
        let _ = (files, number, listed);
        Err(SnapshotError::Foreign { path: path.to_owned() })
    }

    /// How much of the state is in memory until it is flushed. Asked between pieces of applying, under the write lock.
    fn unflushed(&self) -> Unflushed {
        Unflushed::Little
    }

    /// The next work of bringing that to disk, if it is due by these settings, which count from now on.
    fn flush_work(&mut self, _settings: &FileSettings) -> Option<FileWork<Self>>
    where
        Self: Sized,
    {
        None
    }

    /// Other work on files that is due, beside snapshots.
    fn file_work(&mut self, _settings: &FileSettings) -> Option<FileWork<Self>>
    where
        Self: Sized,
    {
        None
    }

    /// Whether the state is not to be trusted any more: this replica answers nothing, and is to lead nothing.
    fn is_damaged(&self) -> bool {
        false
    }

    /// Takes note that such work failed.
    fn note_failed(&mut self, _error: &FileError) {}

    /// Which files of the group's directory the state uses now, with their bytes.
    fn files_in_use(&self) -> Vec<(String, u64)> {
        Vec::new()
    }

    /// The same, with what is known of their content.
    fn segments_in_use(&self) -> Vec<Listed> {
        Vec::new()
    }

    /// Why the state is not to be trusted, if it is not.
    fn damage(&self) -> Option<Damage> {
        None
    }
}

/// How much is to be flushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unflushed {
    /// Nothing has to be done.
    Little,
    /// So much that it is to be flushed.
    Due,
    /// So much that nothing is to be applied before some of it was.
    TooMuch,
}

/// Why a state is not to be trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file that told, if it was one.
    pub path: Option<PathBuf>,
    /// Where in it, in bytes, if that can be said.
    pub offset: Option<u64>,
    /// What is wrong, for people.
    pub what: String,
    /// Whether the file could not be read at all: what it holds may be as it was written.
    pub is_unread: bool,
}

/// A step of a cut.
#[derive(Debug)]
pub enum Bucket {
    /// A bucket is not done; the next step goes on with it.
    Unfinished,
    /// It changed since the snapshot before.
    Changed {
        /// Its section.
        section: u8,
        /// Its number in the section.
        number: u64,
        /// What it holds.
        bytes: Vec<u8>,
    },
    /// It is as in the snapshot before.
    Unchanged {
        /// Its section.
        section: u8,
        /// Its number in the section.
        number: u64,
    },
}

impl Bucket {
    /// Bytes to be written.
    pub(super) fn bytes(&self) -> usize {
        if let Self::Changed { bytes, .. } = self { bytes.len() } else { 0 }
    }
}

/// Makes the last bucket.
pub type LastWork = Box<dyn FnOnce() -> LastBucket + Send>;

/// The bucket that names the segments.
#[derive(Debug)]
pub struct LastBucket {
    /// Its section.
    pub section: u8,
    /// Its number in the section.
    pub number: u64,
    /// What it holds.
    pub bytes: Vec<u8>,
    /// The segments that the state needs.
    pub segments: Vec<Listed>,
}

/// Bytes of buckets after which no further step of a cut is taken under one lock …
const STEP_BYTES: usize = 64 << 10;

/// … and steps, most of which find a bucket as it was.
const STEPS_AT_ONCE: usize = 64;

/// A machine with the position it has applied up to, shared by Raft and by readers.
pub(super) struct Shared<M: Machine> {
    state: FreedBeside<StateLock<Applied<M>>>,
    index: watch::Sender<u64>,
    /// What applying takes.
    pub times: ApplyClock,
    /// A panic left half a state.
    is_broken: AtomicBool,
    /// Held by those who apply while they give way.
    filling: tokio::sync::Mutex<()>,
    /// Tells who applies that a cut took a step or ended, that something was flushed, or that nobody flushes any more.
    steps: Notify,
    /// Whether who applies waits for a cut.
    is_cut_waited_for: Arc<AtomicBool>,
    /// Tells who flushes that there is something.
    flush_due: Notify,
    /// Whether somebody flushes what is due, so that who applies may wait for that.
    is_flushed: AtomicBool,
    /// Held by who flushes, and by who must not meet files that are nobody's yet.
    pub flushing: tokio::sync::Mutex<()>,
}

/// Marks a state as broken that is left by a panic. One that is changed while a panic elsewhere unwinds is whole.
struct Broken<'a> {
    is_broken: &'a AtomicBool,
    was_panicking: bool,
}

impl Drop for Broken<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.was_panicking {
            self.is_broken.store(true, Ordering::Relaxed);
        }
    }
}

/// A machine and where in the log it stands; under one lock, so that a snapshot is of one moment.
pub(super) struct Applied<M> {
    pub machine: M,
    pub log_id: Option<LogId>,
    pub membership: StoredMembership,
}

impl<M: Machine> Shared<M> {
    pub fn new(machine: M) -> Self {
        let state = Applied { machine, log_id: None, membership: StoredMembership::default() };
        let (index, is_broken) = (watch::Sender::new(0), AtomicBool::new(false));
        Self {
            state: FreedBeside::new(StateLock::new(state)),
            index,
            times: ApplyClock::default(),
            is_broken,
            filling: tokio::sync::Mutex::default(),
            steps: Notify::new(),
            is_cut_waited_for: Arc::default(),
            flush_due: Notify::new(),
            is_flushed: AtomicBool::new(false),
            flushing: tokio::sync::Mutex::default(),
        }
    }

    /// Notes that the machine was restored to where a snapshot was taken.
    pub fn begin_at(&self, meta: &SnapshotMeta) {
        let mut state = self.state.write();
        (state.log_id, state.membership) = (meta.last_log_id, meta.last_membership.clone());
        self.announce(meta.last_log_id.map_or(0, |log_id| log_id.index));
    }

    fn check_whole(&self) {
        let is_broken = self.is_broken.load(Ordering::Relaxed);
        assert!(!is_broken, "a panic while applying leaves half a state, which nobody may use");
    }

    /// Locks for reading. The guard must not be held across an await.
    pub fn read(&self) -> Reading<'_, Applied<M>> {
        let state = self.state.read();
        self.check_whole();
        state
    }

    /// Locks for reading unless a batch is being applied right now.
    pub fn try_read(&self) -> Option<Reading<'_, Applied<M>>> {
        let state = self.state.try_read()?;
        self.check_whole();
        Some(state)
    }

    /// Changes the state under the write lock. Whoever waits for the lock meanwhile gets it next.
    pub fn change<T>(&self, change: impl FnOnce(&mut Applied<M>) -> T) -> T {
        let mut state = self.state.write();
        self.check_whole();
        // Declared after the guard, so that the mark is made before the lock is given back.
        let broken = Broken { is_broken: &self.is_broken, was_panicking: std::thread::panicking() };
        let changed = change(&mut state);
        drop(broken);
        drop(state);
        changed
    }

    /// Changes the state for a piece of applying, whose time is counted.
    pub fn apply<T>(&self, piece: impl FnOnce(&mut Applied<M>) -> T) -> T {
        let begun = Instant::now();
        let (done, wait) = self.change(|state| {
            let wait = begun.elapsed();
            (piece(state), wait)
        });
        self.times.count(wait, begun.elapsed());
        done
    }

    /// Changes the state for what is done beside applying, which has to wait meanwhile: that time is counted. To be called
    /// where the group is applied, never on a thread that gives way.
    pub async fn keep_up<T>(&self, work: &'static str, change: impl FnOnce(&mut Applied<M>) -> T) -> T {
        let _turn = self.filling.lock().await;
        self.keep_up_at_once(work, change)
    }

    /// The same where nothing can be waited for.
    pub fn keep_up_at_once<T>(&self, work: &'static str, change: impl FnOnce(&mut Applied<M>) -> T) -> T {
        let (changed, held) = self.change(|state| {
            let hold = Hold::begin();
            (change(state), hold.end())
        });
        self.times.count_held(held);
        if held.is_long() {
            tracing::debug!(work, ?held, "upkeep kept the state for long");
        }
        self.steps.notify_waiters();
        changed
    }

    /// To be held while a thread that gives way applies: whoever keeps the state up waits for that without a thread, which would
    /// serve nobody meanwhile.
    pub async fn fill(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.filling.lock().await
    }

    /// Whether nothing more is to be applied before [`catches_up`](Self::catches_up). Tells who flushes what there is for that.
    pub fn must_wait(&self, machine: &mut M) -> bool
    where
        M: Machine,
    {
        let unflushed = machine.unflushed();
        if unflushed != Unflushed::Little {
            self.flush_due.notify_one();
        }
        let is_flushed = || self.is_flushed.load(Ordering::Relaxed);
        machine.cut_holds_too_much() || unflushed == Unflushed::TooMuch && is_flushed()
    }

    /// Waits, before anything more is applied, until the cut under way, if there is one, holds less than it may, and what is to be
    /// flushed is less than it may be. Neither waits for what is applied, so this ends.
    pub async fn catches_up(&self)
    where
        M: Machine,
    {
        let mut begun = None;
        loop {
            let stepped = self.steps.notified();
            let look = |state: &mut Applied<M>| {
                (self.must_wait(&mut state.machine), state.machine.cut_holds_too_much())
            };
            let (waits, is_for_cut) = self.change(look);
            self.is_cut_waited_for.store(is_for_cut, Ordering::Relaxed);
            if !waits {
                if let Some(waited) = begun.map(|begun: Instant| begun.elapsed()) {
                    self.times.count_caught_up(waited);
                    tracing::debug!(?waited, "applying waited for upkeep");
                }
                return;
            }
            begun.get_or_insert_with(Instant::now);
            stepped.await;
        }
    }

    /// The pace of a cut, which is none while who applies waits for it: to wait longer for the sake of other writes would help nobody.
    pub fn pace(&self, files: &GroupFiles) -> Pace {
        let (pace, is_cut_waited_for) = (files.pace.clone(), self.is_cut_waited_for.clone());
        Arc::new(move |bytes| {
            if !is_cut_waited_for.load(Ordering::Relaxed) {
                pace(bytes);
            }
        })
    }

    /// Waits until something is to be flushed.
    pub async fn wait_flush_due(&self) {
        self.flush_due.notified().await;
    }

    /// Says whether somebody flushes from now on.
    pub fn set_flushed(&self, is_flushed: bool) {
        self.is_flushed.store(is_flushed, Ordering::Relaxed);
        // Whoever looked before is waiting now.
        let _looked = self.state.write();
        self.steps.notify_waiters();
    }

    /// Does work on files on a thread that gives way, and installs what came of it on this one: in short steps, between which there
    /// may be more work.
    pub async fn work(&self, files: &GroupFiles, mut work: FileWork<M>) -> Result<(), FileError>
    where
        M: Machine,
    {
        let garbage = loop {
            let files = files.clone();
            let install = beside(move || work(&files)).await?;
            match self.keep_up("install", |state| install(&mut state.machine)).await {
                Installed::Done(garbage) => break garbage,
                Installed::Behind(more) => work = more,
            }
        };
        // Nothing waits for that, and it cannot fail.
        let free = move || {
            drop(garbage);
            Ok(())
        };
        let _freed = beside(free).await;
        Ok(())
    }

    /// Takes the next steps of the cut, together about one that writes; false: there are no more.
    pub async fn next_buckets(
        &self,
        must_write: &(dyn Fn(u8, u64) -> bool + Sync),
        mut found: impl FnMut(Bucket),
    ) -> bool
    where
        M: Machine,
    {
        let step = |state: &mut Applied<M>| {
            let mut bytes_left = STEP_BYTES;
            for _ in 0..STEPS_AT_ONCE {
                let Some(bucket) = state.machine.next_bucket(must_write) else { return false };
                bytes_left = bytes_left.saturating_sub(bucket.bytes());
                let is_enough = bytes_left == 0 || matches!(bucket, Bucket::Unfinished);
                found(bucket);
                if is_enough {
                    break;
                }
            }
            true
        };
        self.keep_up("buckets", step).await
    }

    /// Begins a cut of the state, which must be between two Raft entries; what Raft notes with its snapshot. None before
    /// the first entry.
    pub fn begin_cut(&self) -> Option<SnapshotMeta>
    where
        M: Machine,
    {
        self.keep_up_at_once("begin cut", |state| {
            let last_log_id = Some(state.log_id?);
            state.machine.begin_cut();
            Some(SnapshotMeta { last_log_id, last_membership: state.membership.clone() })
        })
    }

    /// Tells those who wait that everything up to `index` is applied.
    pub fn announce(&self, index: u64) {
        self.index.send_replace(index);
    }

    /// The applied index; 0 before the first batch, since index 0 never holds one.
    pub fn applied_index(&self) -> u64 {
        *self.index.borrow()
    }

    /// Follows the applied index.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.index.subscribe()
    }
}
