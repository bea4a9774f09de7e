//! Owns the write-ahead log of a node: one sequence of records for all groups, durable in the caller's order.
//!
//! - Records become durable in the order of [`Log::submit`]; completions run in that order, after one fdatasync for
//!   everything that gathered.
//! - A record is readable at once, and durable when its completion ran without an error.
//! - After an error of a write or sync nothing completes any more; the process has to end.
//! - A group whose records may be damaged is quarantined; the others go on.
//!
//! The bytes on disk are specified in `storage/FORMAT.md`.

mod batch;
mod driver;
mod error;
mod failure;
mod hold;
mod image;
mod index;
mod inspect;
mod keeper;
mod ledger;
mod make;
mod open;
mod options;
mod quarantine;
mod record;
mod recover;
mod scan;
mod segment;
mod shared;
mod status;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};

use bytes::Bytes;

pub use driver::{Driver, Due};
pub use error::{LogError, OpenError, Operation};
pub use hold::{HeldSegment, LetGo, LogHold};
pub use image::{Image, ReadPace};
pub use inspect::{Inspected, InspectedBatch, InspectedRecord, InspectedSegment, inspect};
pub use options::{BLOCK_BYTES, LogOptions, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
pub use quarantine::{AffectedGroups, Damage};
pub use record::{CONTROL_BYTES_MAX, Record};
pub use shared::Room;
pub use status::{GroupState, GroupUsage, LogStatus, Recovered, TornTail};

use crate::fs::FileSystem;
use failure::OrFail;
use hold::Holds;
use index::{Found, Place};
use keeper::Keeper;
use open::Opened;
use segment::Segment;
use shared::{Inner, Next, Phase, Shared, Wake};
use writer::Writer;

/// The number of a group in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u32);

/// Runs once, on the log's writer thread, when the records of a submission are durable or have failed. It must be
/// short and must not wait.
pub type Completion = Box<dyn FnOnce(Result<(), LogError>) + Send>;

/// A handle to an open log. Clones share it; when the last one goes, the log is closed.
#[derive(Clone)]
pub struct Log {
    handle: Arc<Handle>,
}

/// The log's threads end with it.
struct Handle {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("dir", &self.handle.shared.dir).finish_non_exhaustive()
    }
}

impl Log {
    /// Opens or makes the log in a directory and starts its threads. Blocks while the log is read; returns when the
    /// last batch stands in a segment of this run. Nobody else may use the directory meanwhile.
    pub fn open(
        fs: Arc<dyn FileSystem>,
        dir: &Path,
        options: LogOptions,
    ) -> Result<(Self, Recovered), OpenError> {
        let (handle, Driver { writer, keeper }, recovered) = Self::begin(fs, dir, options, None)?;
        handle.start("log-writer", move || writer.run())?;
        handle.start("log-keeper", move || keeper.run())?;
        Ok((Self { handle: Arc::new(handle) }, recovered))
    }

    /// Like [`Log::open`], without threads: the caller does the log's work with the driver, on one thread with everybody
    /// else, so that the order of all work is the caller's. `wake` is called whenever there may be something to do; it
    /// must not wait, nor call the log.
    ///
    /// Nothing of such a log ever blocks: the queue has no limit of its own. Behind [`Log::close`] the driver has to be run
    /// to its end.
    pub fn open_driven(
        fs: Arc<dyn FileSystem>,
        dir: &Path,
        options: LogOptions,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Result<(Self, Driver, Recovered), OpenError> {
        let (handle, mut driver, recovered) = Self::begin(fs, dir, options, Some(Box::new(wake)))?;
        driver.keeper.step(false);
        Ok((Self { handle: Arc::new(handle) }, driver, recovered))
    }

    /// Reads the log back and makes what works on it.
    fn begin(
        fs: Arc<dyn FileSystem>,
        dir: &Path,
        options: LogOptions,
        wake: Option<Wake>,
    ) -> Result<(Handle, Driver, Recovered), OpenError> {
        let Opened { recovery, active, offset, spares } = open::open(&*fs, dir, &options)?;
        let active = Arc::new(active);
        let incarnation = active.header.incarnation;
        let kept = recovery.segments.into_iter().map(Arc::new).chain([Arc::clone(&active)]);
        let status =
            LogStatus { incarnation, durable_position: active.header.start + offset, ..LogStatus::default() };
        let inner = Inner {
            index: recovery.index,
            quarantine: recovery.ledger.quarantine().clone(),
            queue: VecDeque::new(),
            urgent: 0,
            queued_bytes: 0,
            queued_padded_bytes: 0,
            tickets: 0,
            segments: kept.map(|segment| (segment.header.start, segment)).collect::<BTreeMap<_, _>>(),
            phase: Phase::Running,
            next: Next::Wanted,
            active: Arc::clone(&active),
            active_left_bytes: active.header.bytes - offset,
            promised_bytes: 0,
            durable_number: recovery.last_number,
            keep_from: recovery.keep_from,
            holds: Holds::default(),
            status,
        };
        let shared = Arc::new(Shared::new(fs, dir.to_path_buf(), options, inner, wake));
        let writer = Writer {
            shared: Arc::clone(&shared),
            ledger: recovery.ledger,
            active,
            offset,
            incarnation,
            number: recovery.last_number,
            last_groups: recovery.last_groups,
            marked: true,
        };
        let keeper = Keeper { shared: Arc::clone(&shared), incarnation, spares };
        let handle = Handle { shared, threads: Mutex::new(Vec::new()) };
        Ok((handle, Driver { writer, keeper }, recovery.recovered))
    }

    /// Takes records, in order, all or none. They are readable when this returns, and durable when `done` runs with
    /// `Ok`; completions run in the order of the submissions. Records without `done` that are all committed positions
    /// are written with the next ones, or before the log idles.
    ///
    /// On an error nothing was taken and `done` never runs. Blocks while the queue is above its limit, or while the
    /// segment is full and the next one is still being made; never on the writer thread itself, where completions run.
    pub fn submit(&self, records: Vec<Record>, done: Option<Completion>) -> Result<(), LogError> {
        self.handle.shared.submit(records, done)
    }

    /// Forgets everything about a group, its quarantine included, and returns when that is durable: the group is as if
    /// it had never been, and keeps no segment any more. Nobody may submit records of it meanwhile. Blocks; never to be
    /// called on the writer thread.
    pub fn forget(&self, group: GroupId) -> Result<(), LogError> {
        let (done, durable) = mpsc::sync_channel(1);
        let done: Completion = Box::new(move |result| {
            // Whoever asked waits.
            let _ = done.send(result);
        });
        self.forget_then(group, done)?;
        durable.recv().unwrap_or(Err(LogError::Closed))
    }

    /// Like [`Log::forget`], and returns before it is durable: `done` runs then, as of [`Log::submit`].
    pub fn forget_then(&self, group: GroupId, done: Completion) -> Result<(), LogError> {
        self.submit(vec![Record::Forget { group }], Some(done))
    }

    /// The entries of a group that there are in a range of indexes, in order, until `bytes_max` is reached; the first
    /// one is returned whatever its size.
    ///
    /// Older entries are read from their segments and their checksums verified. Damage found so quarantines the group.
    pub fn read(
        &self,
        group: GroupId,
        range: Range<u64>,
        bytes_max: u64,
    ) -> Result<Vec<(u64, Bytes)>, LogError> {
        let found = self.find(group, range, bytes_max)?;
        let mut entries = Vec::with_capacity(found.len());
        for (index, found) in found {
            let data = match found {
                (Found::InMemory(data), _) => Some(data),
                (Found::OnDisk(place), segment) => {
                    self.read_place(group, index, place, segment.as_deref())?
                }
            };
            // An entry that went meanwhile ends what can be read in one piece.
            let Some(data) = data else { break };
            entries.push((index, data));
        }
        Ok(entries)
    }

    /// Like [`Log::read`], as long as nothing of it has to be read from disk; none if something has.
    pub fn read_in_memory(
        &self,
        group: GroupId,
        range: Range<u64>,
        bytes_max: u64,
    ) -> Result<Option<Vec<(u64, Bytes)>>, LogError> {
        let found = self.find(group, range, bytes_max)?.into_iter().map(|(index, found)| match found {
            (Found::InMemory(data), _) => Some((index, data)),
            (Found::OnDisk(_), _) => None,
        });
        Ok(found.collect())
    }

    /// What the log knows of a group, durable or not; an unknown group has an empty state.
    pub fn group_state(&self, group: GroupId) -> Result<GroupState, LogError> {
        let inner = self.handle.shared.lock();
        inner.check_quarantine(group)?;
        Ok(inner.index.get(group).map(index::GroupIndex::state).unwrap_or_default())
    }

    /// Whether an entry would be taken now: false on a full disk, after a failure and when closed.
    pub fn accepts_appends(&self) -> bool {
        self.accepts(0)
    }

    /// The same for entries of so many bytes.
    pub fn accepts(&self, bytes: u64) -> bool {
        self.handle.shared.accepts(bytes)
    }

    /// Keeps room for entries of so many bytes until it is dropped; none if they would not be taken now. For proposers: what
    /// is refused is refused before Raft sees it, and when a disk becomes full, what Raft has already seen has its room.
    pub fn promise_room(&self, bytes: u64) -> Option<Room> {
        Room::promised(&self.handle.shared, bytes)
    }

    /// Keeps what is durable now in its files, to be read while the log goes on: as long as there is room on the disk, and no more
    /// than `unneeded_bytes_max` are kept for this alone. Else `let_go` is called, and the files are used again.
    pub fn hold(&self, unneeded_bytes_max: u64, let_go: LetGo) -> LogHold {
        LogHold::new(&self.handle.shared, unneeded_bytes_max, let_go)
    }

    /// Counters and sizes.
    pub fn status(&self) -> LogStatus {
        let inner = self.handle.shared.lock();
        LogStatus {
            segments: inner.segments.len() as u64,
            bytes: inner.segments.values().map(|segment| segment.header.bytes).sum(),
            held_bytes: if inner.holds.is_empty() { 0 } else { inner.unneeded_bytes() },
            queued_bytes: inner.queued_bytes,
            recent_bytes: inner.index.iter().map(|(_, state)| state.recent_bytes()).sum(),
            ..inner.status.clone()
        }
    }

    /// What each group with entries holds of the log; the one with the lowest position pins its oldest segment.
    pub fn usage(&self) -> Vec<GroupUsage> {
        let inner = self.handle.shared.lock();
        let usage = |(group, state): (GroupId, &index::GroupIndex)| {
            let (bytes, position) = state.held();
            let (first, last, appended_bytes) = (state.first(), state.last()?, state.appended());
            Some(GroupUsage { group, first, last, bytes, appended_bytes, position })
        };
        let mut all: Vec<_> = inner.index.iter().filter_map(usage).collect();
        all.sort_unstable_by_key(|usage| usage.group);
        all
    }

    /// Bytes of the log from the oldest place on that a group needs: its first entry, or damage that it is quarantined for.
    pub fn kept_bytes(&self, group: GroupId) -> u64 {
        let inner = self.handle.shared.lock();
        let entries = inner.index.get(group).filter(|state| state.last().is_some());
        let entries = entries.and_then(|state| state.held().1);
        let damaged = inner.quarantine.oldest_segment_of(group);
        let is_damaged = |segment: &&Arc<Segment>| Some(segment.header.sequence) == damaged;
        let damaged = inner.segments.values().find(is_damaged).map(|segment| segment.header.start);
        let oldest = entries.into_iter().chain(damaged).min();
        oldest.map_or(0, |oldest| inner.status.durable_position.saturating_sub(oldest))
    }

    /// Bytes of a group's entries ever appended, and of those up to `index`; as far as this run knows.
    pub fn appended(&self, group: GroupId, index: u64) -> (u64, u64) {
        let inner = self.handle.shared.lock();
        let state = inner.index.get(group);
        state.map_or((0, 0), |state| (state.appended(), state.appended_through(index)))
    }

    /// Writes everything queued and the mark of a clean stop, syncs, and ends the threads. Other handles get
    /// [`LogError::Closed`] from then on. An error if the log had failed before or fails now.
    pub fn close(self) -> Result<(), LogError> {
        self.handle.end();
        match &self.handle.shared.lock().phase {
            Phase::Ended(LogError::Closed) | Phase::Running | Phase::Closing => Ok(()),
            Phase::Ended(error) => Err(error.clone()),
        }
    }

    /// Looks up a range, with the segments of what is not in memory.
    #[expect(clippy::type_complexity, reason = "a list for one caller")]
    fn find(
        &self,
        group: GroupId,
        range: Range<u64>,
        bytes_max: u64,
    ) -> Result<Vec<(u64, (Found, Option<Arc<Segment>>))>, LogError> {
        let inner = self.handle.shared.lock();
        inner.check_quarantine(group)?;
        let Some(state) = inner.index.get(group) else { return Ok(Vec::new()) };
        let mut entries = Vec::new();
        let mut left_bytes = bytes_max;
        let start = range.start.max(state.first());
        for index in start..range.end.min(state.last().map_or(0, |last| last.saturating_add(1))) {
            let Some(found) = state.find(index) else { break };
            let (bytes, segment) = match &found {
                Found::InMemory(data) => (data.len() as u64, None),
                Found::OnDisk(place) => {
                    let segment = inner.segments.range(..=place.position).next_back();
                    (u64::from(place.bytes), segment.map(|(_, segment)| Arc::clone(segment)))
                }
            };
            if bytes > left_bytes && !entries.is_empty() {
                break;
            }
            left_bytes = left_bytes.saturating_sub(bytes);
            entries.push((index, (found, segment)));
        }
        Ok(entries)
    }

    /// Reads an entry from its segment; none if it was removed meanwhile.
    fn read_place(
        &self,
        group: GroupId,
        index: u64,
        place: Place,
        segment: Option<&Segment>,
    ) -> Result<Option<Bytes>, LogError> {
        let Some(segment) = segment else { return Ok(None) };
        let offset = place.position - segment.header.start;
        let mut buffer = vec![0; place.bytes as usize];
        let read = segment.file.read_at(offset, &mut buffer);
        if read.is_ok() && crc32fast::hash(&buffer) == place.crc {
            return Ok(Some(Bytes::from(buffer)));
        }
        let mut inner = self.handle.shared.lock();
        if inner.index.get(group).and_then(|state| state.find(index)) != Some(Found::OnDisk(place)) {
            // The file may have been reused, but only after the entry was purged.
            return Ok(None);
        }
        if let Err(source) = read {
            let (path, bytes) = (segment.path.clone(), u64::from(place.bytes));
            return Err(LogError::Read { path, offset, bytes, source: Arc::new(source) });
        }
        let groups = AffectedGroups::Listed([group].into());
        let damage = Damage::new(segment.path.clone(), offset, groups);
        inner.quarantine.add(damage, segment.header.sequence);
        inner.check_quarantine(group).map(|()| None)
    }
}

impl Handle {
    fn start(&self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), OpenError> {
        let started = thread::Builder::new().name(name.to_owned()).spawn(run);
        let thread = started.or_fail(Operation::StartThread, &self.shared.dir)?;
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        Ok(())
    }

    /// Lets the threads finish and waits for them, unless it is one of them that asks.
    fn end(&self) {
        let mut inner = self.shared.lock();
        if matches!(inner.phase, Phase::Running) {
            inner.phase = Phase::Closing;
        }
        drop(inner);
        self.shared.wake_writer();
        self.shared.ready.notify_all();
        self.shared.room.notify_all();
        if self.shared.writer.get() == Some(&thread::current().id()) {
            // The last handle went inside a completion: the writer ends by itself, and the keeper after it.
            return;
        }
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // A thread that panicked has said so already.
            let _ = thread.join();
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.end();
    }
}
