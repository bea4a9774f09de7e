//! Owns the thread that keeps segments ready: it makes the next one before it is needed and takes back old ones.
//!
//! - A segment is taken back only when a durable batch says that it is not needed, and nobody holds the log. Who keeps too much so, or
//!   anything on a full disk, holds it no more.
//! - No room for the next segment is not an error: the log refuses entries until there is room. Any other error ends
//!   the log. The disk is asked first, so that the attempts do not take the room that there is from others.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::Operation;
use super::failure::{Failure, is_full};
use super::make::{Pace, give_back, make_segment};
use super::segment::{Segment, SegmentHeader};
use super::shared::{Inner, Next, Phase, Shared};

/// How long to wait before the disk is asked again whether it has room.
pub(super) const FULL_RETRY_AFTER: Duration = Duration::from_millis(200);

/// How long the keeper rests between two pieces of a new segment.
const REST: Duration = Duration::from_millis(25);

/// More than comes while it rests: with less room left nobody may have to wait for the next segment, nor be promised room that there
/// is not.
const ROOM_TO_REST: u64 = 16 << 20;

/// The next segment is made twice as fast as the active one is filled, with rests between pieces if that is slow. Nobody rests while the
/// log is full, or ends.
impl Pace for Shared {
    fn has_time(&self, done: u64, bytes: u64) -> bool {
        let inner = self.lock();
        let is_usual = matches!((&inner.phase, &inner.next), (Phase::Running, Next::Wanted));
        let active_bytes = inner.active.header.bytes;
        let used_bytes = active_bytes - inner.free_bytes().min(active_bytes);
        let is_ahead =
            u128::from(done) * u128::from(active_bytes) > 2 * u128::from(used_bytes) * u128::from(bytes);
        !self.is_driven() && is_usual && is_ahead && inner.free_bytes() >= ROOM_TO_REST
    }

    fn rest(&self) {
        drop(self.keeper.wait_timeout(self.lock(), REST));
    }
}

/// The state of the keeper thread.
pub(super) struct Keeper {
    pub(super) shared: Arc<Shared>,
    pub(super) incarnation: u64,
    pub(super) spares: BTreeSet<PathBuf>,
}

enum Job {
    Make(SegmentHeader),
    TakeBack(u64),
    LetGo,
    Stop,
}

impl Keeper {
    /// Works until the log ends.
    pub(super) fn run(mut self) {
        loop {
            let job = self.next_job();
            if !self.do_job(&job) {
                return;
            }
        }
    }

    /// Does everything that can be done now; a full disk is asked again only if `retry` says so.
    pub(super) fn step(&mut self, mut retry: bool) {
        loop {
            let Some(job) = self.plan(&self.shared.lock(), retry) else { return };
            retry = false;
            if !self.do_job(&job) {
                return;
            }
        }
    }

    /// False once the log has ended.
    fn do_job(&mut self, job: &Job) -> bool {
        let result = match job {
            Job::Make(header) => self.make(*header),
            Job::TakeBack(start) => self.take_back(*start),
            Job::LetGo => {
                self.let_go();
                Ok(())
            }
            Job::Stop => return false,
        };
        let Err(failure) = result else { return true };
        let mut inner = self.shared.lock();
        if !matches!(inner.phase, Phase::Ended(_)) {
            inner.phase = Phase::Ended(failure.into());
        }
        drop(inner);
        self.shared.ready.notify_all();
        self.shared.work.notify_all();
        self.shared.room.notify_all();
        false
    }

    /// What is to be done now; nothing if the next segment is ready, or there was no room for it.
    fn plan(&self, inner: &Inner, retry: bool) -> Option<Job> {
        if matches!(inner.phase, Phase::Ended(_)) {
            return Some(Job::Stop);
        }
        let unneeded = |(_, oldest): &(_, &Arc<Segment>)| oldest.header.sequence < inner.keep_from;
        if let Some((start, _)) = inner.segments.iter().next().filter(unneeded) {
            if inner.holds.is_empty() {
                return Some(Job::TakeBack(*start));
            }
            if inner.holds.exceed(inner.unneeded_bytes(), matches!(inner.next, Next::Full(_))) {
                return Some(Job::LetGo);
            }
        }
        let wanted = matches!(inner.next, Next::Wanted) || retry && matches!(inner.next, Next::Full(_));
        wanted.then(|| Job::Make(self.next_header(inner)))
    }

    fn next_job(&self) -> Job {
        let shared = &self.shared;
        let mut inner = shared.lock();
        let mut retry = false;
        loop {
            if let Some(job) = self.plan(&inner, retry) {
                return job;
            }
            if matches!(inner.next, Next::Full(_)) {
                let waited = shared.keeper.wait_timeout(inner, FULL_RETRY_AFTER);
                inner = waited.unwrap_or_else(PoisonError::into_inner).0;
                retry = true;
            } else {
                inner = shared.keeper.wait(inner).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    fn next_header(&self, inner: &Inner) -> SegmentHeader {
        let active = &inner.active.header;
        SegmentHeader {
            sequence: active.sequence + 1,
            start: active.end(),
            bytes: self.shared.options.segment_bytes(),
            incarnation: self.incarnation,
            salt: active.salt,
            durable_number: inner.durable_number,
            reused: false,
            made_at_open: false,
        }
    }

    fn make(&mut self, header: SegmentHeader) -> Result<(), Failure> {
        let shared = Arc::clone(&self.shared);
        let spare = self.spares.pop_last();
        // One that does not say is tried.
        let free_bytes = shared.fs.free_bytes(&shared.dir).unwrap_or(u64::MAX);
        let made = if spare.is_none() && free_bytes < header.bytes {
            let (operation, path) = (Operation::Create, shared.dir.clone());
            Err(Failure { operation, path, source: io::ErrorKind::StorageFull.into() })
        } else {
            make_segment(&*shared.fs, &shared.dir, header, spare.as_deref(), &[], &*shared)
        };
        let next = match made {
            Ok(segment) => Next::Ready(Arc::new(segment)),
            Err(failure) if is_full(&failure.source) => Next::Full(Arc::new(failure.source)),
            Err(failure) => return Err(failure),
        };
        let mut inner = shared.lock();
        inner.status.full = matches!(next, Next::Full(_));
        inner.next = next;
        drop(inner);
        shared.ready.notify_all();
        shared.work.notify_all();
        shared.room.notify_all();
        Ok(())
    }

    fn let_go(&self) {
        let mut inner = self.shared.lock();
        let (bytes, is_full) = (inner.unneeded_bytes(), matches!(inner.next, Next::Full(_)));
        let told = inner.holds.let_go(bytes, is_full);
        drop(inner);
        told.iter().for_each(|let_go| let_go());
    }

    fn take_back(&mut self, start: u64) -> Result<(), Failure> {
        let shared = Arc::clone(&self.shared);
        // A reader may still hold the file; what it reads is checked, and it asks the index again if that fails.
        let Some(segment) = shared.lock().segments.remove(&start) else { return Ok(()) };
        let keep = self.spares.len() < shared.options.spare_segments_max;
        let spare = give_back(&*shared.fs, &shared.dir, segment.header.sequence, keep)?;
        self.spares.extend(spare);
        shared.lock().status.recycled_segments += 1;
        Ok(())
    }
}
