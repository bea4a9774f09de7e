//! Owns what the handles and the two threads of a log share, behind one lock that is never held across I/O.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::ThreadId;

use super::batch::{self, padded_bytes, record_bytes};
use super::hold::Holds;
use super::index::Index;
use super::options::{BLOCK_BYTES, LogOptions};
use super::quarantine::Quarantine;
use super::segment::Segment;
use super::{CONTROL_BYTES_MAX, Completion, LogError, LogStatus, Record};
use crate::fs::FileSystem;

/// Room that entries leave to votes, marks and purges when the disk is full.
const RESERVE_BLOCKS: u64 = 16;

/// Records that were taken and are to be written.
pub(super) struct Submission {
    pub(super) records: Vec<Record>,
    /// The ticket of the first record; the others follow.
    pub(super) ticket: u64,
    /// What the records take in a batch.
    pub(super) bytes: u64,
    /// Whether somebody waits for it, or needs it durable soon.
    pub(super) urgent: bool,
    pub(super) done: Option<Completion>,
}

/// Whether the log still takes records.
#[derive(Debug, Clone)]
pub(super) enum Phase {
    Running,
    Closing,
    Ended(LogError),
}

/// The segment that comes after the active one.
#[derive(Debug)]
pub(super) enum Next {
    Wanted,
    Ready(Arc<Segment>),
    /// There was no room for it.
    Full(Arc<io::Error>),
}

/// Everything behind the lock.
pub(super) struct Inner {
    pub(super) index: Index,
    pub(super) quarantine: Quarantine,
    pub(super) queue: VecDeque<Submission>,
    /// Submissions in the queue that must not wait for others.
    pub(super) urgent: usize,
    /// What is queued or being written, in bytes of records.
    pub(super) queued_bytes: u64,
    /// The same in bytes on disk, if each submission made a batch of its own.
    pub(super) queued_padded_bytes: u64,
    pub(super) tickets: u64,
    /// All segments by the position of their first byte.
    pub(super) segments: BTreeMap<u64, Arc<Segment>>,
    pub(super) phase: Phase,
    pub(super) next: Next,
    pub(super) active: Arc<Segment>,
    /// Room in the active segment.
    pub(super) active_left_bytes: u64,
    /// What was promised to entries that are not queued yet, and to some that are, in bytes on disk.
    pub(super) promised_bytes: u64,
    /// The number of the last durable batch.
    pub(super) durable_number: u64,
    /// Segments before this one are not needed any more.
    pub(super) keep_from: u64,
    /// Who keeps segments that are not needed.
    pub(super) holds: Holds,
    pub(super) status: LogStatus,
}

/// The shared part of a log.
pub(super) struct Shared {
    pub(super) fs: Arc<dyn FileSystem>,
    pub(super) dir: PathBuf,
    pub(super) options: LogOptions,
    pub(super) writer: OnceLock<ThreadId>,
    inner: Mutex<Inner>,
    /// The writer has work.
    pub(super) work: Condvar,
    /// The queue has room, or the log ended.
    pub(super) room: Condvar,
    /// The keeper has work.
    pub(super) keeper: Condvar,
    /// The next segment is ready, or the log ended.
    pub(super) ready: Condvar,
    /// Called when the log has work, if it has no threads of its own.
    wake: Option<Wake>,
}

/// Told that a log without threads has work.
pub(super) type Wake = Box<dyn Fn() + Send + Sync>;

impl Shared {
    pub(super) fn new(
        fs: Arc<dyn FileSystem>,
        dir: PathBuf,
        options: LogOptions,
        inner: Inner,
        wake: Option<Wake>,
    ) -> Self {
        Self {
            fs,
            dir,
            options,
            writer: OnceLock::new(),
            inner: Mutex::new(inner),
            work: Condvar::new(),
            room: Condvar::new(),
            keeper: Condvar::new(),
            ready: Condvar::new(),
            wake,
        }
    }

    /// Whether the log has no threads of its own.
    pub(super) fn is_driven(&self) -> bool {
        self.wake.is_some()
    }

    /// Tells the writer that it has work.
    pub(super) fn wake_writer(&self) {
        self.work.notify_all();
        self.wake.iter().for_each(|wake| wake());
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        // Sections under the lock are short and end with the state whole; a panic in one is our own error, and the
        // writer's assertions still hold the disk to what was promised.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The most bytes of records in one batch, so that it fits into every new segment.
    fn batch_bytes_max(&self) -> u64 {
        self.options.segment_bytes() - BLOCK_BYTES - batch::HEADER_BYTES as u64
    }

    /// What one batch gathers at most.
    pub(super) fn gather_bytes_max(&self) -> u64 {
        self.options.gather_bytes_max.min(self.batch_bytes_max())
    }

    /// Takes records, all or none.
    pub(super) fn submit(&self, records: Vec<Record>, done: Option<Completion>) -> Result<(), LogError> {
        let bytes: u64 = records.iter().map(record_bytes).sum();
        self.check_sizes(&records)?;
        let pieces = self.split(records, done);
        let on_writer = self.writer.get() == Some(&std::thread::current().id());
        let mut inner = self.lock();
        loop {
            inner.check_running()?;
            let after_bytes = inner.queued_bytes + bytes;
            let queue_has_room = inner.queued_bytes == 0 || after_bytes <= self.options.queue_bytes_max;
            if on_writer || (queue_has_room || self.is_driven()) && inner.has_room_for(&pieces)? {
                break;
            }
            assert!(
                !self.is_driven(),
                "between two steps of a driver a segment is ready or the disk is full"
            );
            inner = self.room.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        inner.check_records(pieces.iter().flat_map(|piece| &piece.records))?;
        for piece in pieces {
            inner.push(piece, self.options.recent_bytes_max);
        }
        // A submission that waits for others still has to restart the wait that ends in an idle mark.
        drop(inner);
        self.wake_writer();
        Ok(())
    }

    /// Whether entries of so many bytes would be taken now, beside those that room was promised to.
    pub(super) fn accepts(&self, bytes: u64) -> bool {
        let inner = self.lock();
        matches!(inner.phase, Phase::Running)
            && inner.has_room(inner.promised_bytes + self.padded_entries(&inner, bytes), true).is_ok()
    }

    /// What entries of so many bytes take on disk; at least what one batch usually gathers.
    fn padded_entries(&self, inner: &Inner, bytes: u64) -> u64 {
        let usual = self.gather_bytes_max().min(inner.active.header.bytes / 8);
        padded_bytes(bytes + batch::LINE_BYTES as u64).max(usual)
    }

    fn check_sizes(&self, records: &[Record]) -> Result<(), LogError> {
        for record in records {
            let bytes = record.data().len() as u64;
            let limit_bytes = match record {
                Record::Append { .. } => self.batch_bytes_max() - batch::LINE_BYTES as u64,
                _ => CONTROL_BYTES_MAX,
            };
            if bytes > limit_bytes {
                return Err(LogError::RecordTooLarge { bytes, limit_bytes });
            }
        }
        Ok(())
    }

    /// Cuts a submission into parts that fit into a batch; the last one completes it.
    fn split(&self, records: Vec<Record>, done: Option<Completion>) -> Vec<Submission> {
        let urgent = done.is_some() || records.iter().any(|r| !matches!(r, Record::Committed { .. }));
        let empty = || Submission { records: Vec::new(), ticket: 0, bytes: 0, urgent, done: None };
        let mut pieces = Vec::new();
        let mut piece = empty();
        for record in records {
            let bytes = record_bytes(&record);
            if piece.bytes > 0 && piece.bytes + bytes > self.gather_bytes_max() {
                pieces.push(std::mem::replace(&mut piece, empty()));
            }
            piece.bytes += bytes;
            piece.records.push(record);
        }
        piece.done = done;
        pieces.push(piece);
        pieces
    }
}

/// Room in the log that entries were promised, until it is dropped.
///
/// - It matters only while the disk has no room for a next segment: then the active one takes no more promises than it has room
///   for. A promise from before may be one too many, and what was promised room waits then.
pub struct Room {
    shared: Arc<Shared>,
    bytes: u64,
}

impl std::fmt::Debug for Room {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Room").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Room {
    /// Room for entries of so many bytes; none if they would not be taken now.
    pub(super) fn promised(shared: &Arc<Shared>, entries_bytes: u64) -> Option<Self> {
        let mut inner = shared.lock();
        // What is promised exactly is less than what has to be there, so that promises do not add up to more than a segment.
        let usual = shared.padded_entries(&inner, entries_bytes);
        if !matches!(inner.phase, Phase::Running)
            || inner.has_room(inner.promised_bytes + usual, true).is_err()
        {
            return None;
        }
        let bytes = padded_bytes(entries_bytes + batch::LINE_BYTES as u64);
        inner.promised_bytes += bytes;
        drop(inner);
        Some(Self { shared: Arc::clone(shared), bytes })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.shared.lock().promised_bytes -= self.bytes;
    }
}

impl Inner {
    fn check_running(&self) -> Result<(), LogError> {
        match &self.phase {
            Phase::Running => Ok(()),
            Phase::Closing => Err(LogError::Closed),
            Phase::Ended(error) => Err(error.clone()),
        }
    }

    /// Whether the group may be used at all.
    pub(super) fn check_quarantine(&self, group: super::GroupId) -> Result<(), LogError> {
        self.quarantine.of(group).map_or(Ok(()), |damage| {
            Err(LogError::Quarantined { group, path: damage.path.clone(), offset: damage.offset })
        })
    }

    fn check_records<'a>(&self, records: impl Iterator<Item = &'a Record> + Clone) -> Result<(), LogError> {
        let mut forgotten = Vec::new();
        for record in records.clone() {
            if matches!(record, Record::Forget { .. }) {
                forgotten.push(record.group());
            } else if !forgotten.contains(&record.group()) {
                self.check_quarantine(record.group())?;
            }
        }
        self.index.check(records).map_err(|(record, next)| {
            let index = if let Record::Append { index, .. } = record { *index } else { 0 };
            LogError::Gap { group: record.group(), index, expected: next.expected }
        })
    }

    /// Bytes of segments that are kept for nobody but those who hold the log.
    pub(super) fn unneeded_bytes(&self) -> u64 {
        let segments = self.segments.values().map(|segment| &segment.header);
        segments.take_while(|header| header.sequence < self.keep_from).map(|header| header.bytes).sum()
    }

    /// Room in the active segment that is not spoken for.
    pub(super) fn free_bytes(&self) -> u64 {
        self.active_left_bytes.saturating_sub(self.queued_padded_bytes)
    }

    fn reserve_bytes(&self) -> u64 {
        (RESERVE_BLOCKS * BLOCK_BYTES).min(self.active.header.bytes / 4)
    }

    /// Whether submissions of so many bytes on disk fit; entries have to leave a reserve. False as long as the next
    /// segment is being made and may decide it; an error if there is no room for one.
    pub(super) fn has_room(&self, padded: u64, entries: bool) -> Result<bool, LogError> {
        let reserve_bytes = if entries { self.reserve_bytes() } else { 0 };
        let fits = padded + reserve_bytes <= self.free_bytes();
        match &self.next {
            Next::Ready(_) => Ok(true),
            Next::Wanted => Ok(fits),
            Next::Full(_) if fits => Ok(true),
            Next::Full(source) => Err(LogError::DiskFull { source: Arc::clone(source) }),
        }
    }

    fn has_room_for(&self, pieces: &[Submission]) -> Result<bool, LogError> {
        let padded = pieces.iter().map(|piece| padded_bytes(piece.bytes)).sum();
        let entry = |record: &Record| matches!(record, Record::Append { .. });
        self.has_room(padded, pieces.iter().any(|piece| piece.records.iter().any(entry)))
    }

    /// Whether a mark can be written without taking room that is needed for something else.
    pub(super) fn has_room_for_mark(&self) -> bool {
        let reserve_bytes = if matches!(self.phase, Phase::Closing) { 0 } else { self.reserve_bytes() };
        matches!(self.next, Next::Ready(_)) || BLOCK_BYTES + reserve_bytes <= self.free_bytes()
    }

    fn push(&mut self, mut piece: Submission, recent_bytes_max: u64) {
        piece.ticket = self.tickets;
        for record in &piece.records {
            let taken = self.index.submit(record, self.tickets);
            assert!(taken.is_ok(), "the whole submission was checked before");
            self.tickets += 1;
            if let Record::Forget { group } = record {
                self.quarantine.forget(*group);
            }
            if let Some(state) = self.index.get_mut(record.group()) {
                state.shrink(recent_bytes_max);
            }
        }
        self.queued_bytes += piece.bytes;
        self.queued_padded_bytes += padded_bytes(piece.bytes);
        self.urgent += usize::from(piece.urgent);
        self.queue.push_back(piece);
    }

    /// Takes from the queue what one batch may hold.
    pub(super) fn gather(&mut self, bytes_max: u64) -> Vec<Submission> {
        let mut gathered: Vec<Submission> = Vec::new();
        let mut bytes = 0;
        while let Some(first) = self.queue.front() {
            bytes += first.bytes;
            if !gathered.is_empty() && bytes > bytes_max {
                break;
            }
            self.urgent -= usize::from(first.urgent);
            gathered.extend(self.queue.pop_front());
        }
        gathered
    }
}
