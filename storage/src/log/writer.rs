//! Owns the writer thread: it gathers what is queued, writes one batch, syncs once and completes in order.
//!
//! - A batch is written only after the sync of the one before; so a batch on disk shows that the others are durable.
//! - The first error of a write or sync ends the thread: everything queued fails with it, and nothing is retried.
//! - When nothing was submitted for a while, one mark is written, and then nothing until there is something new.

use std::sync::{Arc, PoisonError};

use super::batch::{self, BatchHeader, Encoded, padded_bytes};
use super::failure::{Failure, OrFail};
use super::index::Place;
use super::ledger::Ledger;
use super::options::BLOCK_BYTES;
use super::segment::Segment;
use super::shared::{Inner, Next, Phase, Shared, Submission};
use super::{LogError, Operation, Record};

/// Bytes of votes and marks that one batch copies forward at most.
const COPY_BYTES_MAX: u64 = 256 << 10;

/// The state of the writer thread.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) ledger: Ledger,
    pub(super) active: Arc<Segment>,
    /// Where the next batch goes, in the active segment's file.
    pub(super) offset: u64,
    pub(super) incarnation: u64,
    /// The number of the last batch.
    pub(super) number: u64,
    /// The groups in the last batch.
    pub(super) last_groups: u64,
    /// Whether the last batch is durable by itself: a mark, or made at open.
    pub(super) marked: bool,
}

/// What to do next.
enum Job {
    Batch(Vec<Submission>),
    Mark(Vec<Submission>),
    Stop(LogError),
}

/// What there is to do.
pub(super) enum Plan {
    /// A batch is to be written now.
    Batch,
    /// A mark, once nothing was submitted for a while.
    MarkWhenQuiet,
    /// The last mark.
    Mark,
    /// Nothing.
    Rest,
    Stop(LogError),
}

/// Why the writer stopped early.
enum Stopped {
    Failed(Failure),
    /// The log was closed while there was no room for another segment.
    Full(LogError),
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Writer {
    /// Works until the log is closed or fails.
    pub(super) fn run(mut self) {
        // Only the first call can set it, and this is the only one.
        let _ = self.shared.writer.set(std::thread::current().id());
        loop {
            let job = self.next_job();
            if !self.do_job(job) {
                return;
            }
        }
    }

    /// Writes the next batch, if there is one; false once the log has ended. `quiet`: nothing was submitted for a while.
    pub(super) fn step(&mut self, quiet: bool) -> bool {
        let mut inner = self.shared.lock();
        let job = match self.plan(&inner) {
            Plan::Batch => Job::Batch(inner.gather(self.shared.gather_bytes_max())),
            Plan::MarkWhenQuiet if quiet => Job::Mark(inner.gather(self.shared.gather_bytes_max())),
            Plan::MarkWhenQuiet | Plan::Rest => return true,
            Plan::Mark => Job::Mark(inner.gather(self.shared.gather_bytes_max())),
            Plan::Stop(error) => Job::Stop(error),
        };
        drop(inner);
        self.do_job(job)
    }

    /// False once the log has ended.
    fn do_job(&mut self, job: Job) -> bool {
        let (submissions, mark) = match job {
            Job::Batch(submissions) => (submissions, false),
            Job::Mark(submissions) => (submissions, true),
            Job::Stop(error) => {
                self.end(error, Vec::new());
                return false;
            }
        };
        match self.write(&submissions, mark) {
            Ok(()) => {
                complete(submissions, &Ok(()));
                // Whether the keeper ended the log meanwhile, the next plan says, which also fails what is queued.
                return true;
            }
            Err(Stopped::Failed(failure)) => self.end(failure.into(), submissions),
            Err(Stopped::Full(error)) => self.end(error, submissions),
        }
        false
    }

    /// What there is to do now.
    pub(super) fn plan(&self, inner: &Inner) -> Plan {
        if let Phase::Ended(error) = &inner.phase {
            return Plan::Stop(error.clone());
        }
        let pressed = inner.queued_bytes >= self.shared.options.queue_bytes_max / 2;
        if inner.urgent > 0 || pressed && !inner.queue.is_empty() {
            return Plan::Batch;
        }
        // Near a full disk marks would use up what is left for purges.
        let quiet = inner.queue.is_empty() && (self.marked || !inner.has_room_for_mark());
        match (&inner.phase, quiet) {
            (Phase::Running, true) => Plan::Rest,
            (Phase::Running, false) => Plan::MarkWhenQuiet,
            (Phase::Closing, false) => Plan::Mark,
            (Phase::Closing | Phase::Ended(_), _) => Plan::Stop(LogError::Closed),
        }
    }

    fn next_job(&self) -> Job {
        let shared = &self.shared;
        let mut inner = shared.lock();
        loop {
            match self.plan(&inner) {
                Plan::Batch => return Job::Batch(inner.gather(shared.gather_bytes_max())),
                Plan::Rest => {
                    inner = shared.work.wait(inner).unwrap_or_else(PoisonError::into_inner);
                }
                Plan::MarkWhenQuiet => {
                    let wait = shared.options.idle_mark_after;
                    let tickets = inner.tickets;
                    let (after, timeout) = shared
                        .work
                        .wait_timeout_while(inner, wait, |inner| {
                            inner.urgent == 0
                                && inner.tickets == tickets
                                && matches!(inner.phase, Phase::Running)
                        })
                        .unwrap_or_else(PoisonError::into_inner);
                    inner = after;
                    if timeout.timed_out() && inner.urgent == 0 {
                        return Job::Mark(inner.gather(shared.gather_bytes_max()));
                    }
                }
                Plan::Mark => return Job::Mark(inner.gather(shared.gather_bytes_max())),
                Plan::Stop(error) => return Job::Stop(error),
            }
        }
    }

    /// Writes one batch and makes it durable.
    fn write(&mut self, submissions: &[Submission], mark: bool) -> Result<(), Stopped> {
        let records_bytes: u64 = submissions.iter().map(|submission| submission.bytes).sum();
        if self.offset + padded_bytes(records_bytes) > self.active.header.bytes {
            self.roll()?;
        }
        let segment = self.active.header.sequence;
        let records = submissions.iter().flat_map(|submission| &submission.records);
        for record in records.clone() {
            self.ledger.apply(record, segment);
        }
        let copies = self.ledger.copies(segment, self.copy_bytes_max(records_bytes));
        for record in &copies {
            self.ledger.apply(record, segment);
        }
        let header = BatchHeader {
            mark,
            position: self.active.header.start + self.offset,
            incarnation: self.incarnation,
            number: self.number + 1,
            durable: self.active.header.start + self.offset,
            previous_groups: self.last_groups,
            keep_from: self.ledger.keep_from(segment),
        };
        let encoded = batch::encode(self.active.header.salt, &header, records.chain(&copies));
        let bytes = encoded.bytes.len() as u64;
        assert!(self.offset.is_multiple_of(BLOCK_BYTES) && bytes.is_multiple_of(BLOCK_BYTES));
        assert!(self.offset + bytes <= self.active.header.bytes, "a batch never crosses its segment's end");
        let (file, path) = (&self.active.file, &self.active.path);
        file.write_at(self.offset, &encoded.bytes).or_fail(Operation::Write, path)?;
        file.sync_data().or_fail(Operation::Sync, path)?;
        self.offset += bytes;
        self.number += 1;
        self.last_groups = encoded.lines.iter().fold(0, |mask, line| mask | batch::group_bit(line.group));
        self.marked = mark;
        self.publish(&header, &encoded, submissions);
        Ok(())
    }

    /// How many bytes of copies go along with records of that many bytes.
    fn copy_bytes_max(&self, records_bytes: u64) -> u64 {
        let inner = self.shared.lock();
        let used = padded_bytes(records_bytes);
        // Without a next segment, all that is queued, this batch included, needs its room in this one.
        let ready = matches!(inner.next, Next::Ready(_));
        let needed = if ready { used } else { inner.queued_padded_bytes.max(used) };
        let left = (self.active.header.bytes - self.offset).saturating_sub(needed);
        // The padding that the batch has anyway is free.
        let padding = used - batch::HEADER_BYTES as u64 - records_bytes;
        COPY_BYTES_MAX.min(left + padding)
    }

    /// Makes the next segment the active one; waits for it if it is not ready.
    fn roll(&mut self) -> Result<(), Stopped> {
        let shared = &self.shared;
        let mut inner = shared.lock();
        loop {
            match (&inner.next, &inner.phase) {
                (Next::Ready(_), _) => break,
                (Next::Full(source), Phase::Closing) => {
                    return Err(Stopped::Full(LogError::DiskFull { source: Arc::clone(source) }));
                }
                (_, Phase::Ended(error)) => return Err(Stopped::Full(error.clone())),
                _ => inner = shared.ready.wait(inner).unwrap_or_else(PoisonError::into_inner),
            }
        }
        if let Next::Ready(next) = std::mem::replace(&mut inner.next, Next::Wanted) {
            inner.segments.insert(next.header.start, Arc::clone(&next));
            inner.active = Arc::clone(&next);
            inner.active_left_bytes = next.header.bytes - BLOCK_BYTES;
            self.active = next;
            self.offset = BLOCK_BYTES;
        }
        shared.keeper.notify_one();
        Ok(())
    }

    /// Tells the other side what is durable now.
    fn publish(&self, header: &BatchHeader, encoded: &Encoded, submissions: &[Submission]) {
        let shared = &self.shared;
        let mut inner = shared.lock();
        let mut lines = encoded.lines.iter();
        for submission in submissions {
            inner.queued_bytes -= submission.bytes;
            inner.queued_padded_bytes -= padded_bytes(submission.bytes);
            for (number, (record, line)) in submission.records.iter().zip(&mut lines).enumerate() {
                let Record::Append { group, index, .. } = record else { continue };
                let Some(state) = inner.index.get_mut(*group) else { continue };
                let position = header.position + line.offset;
                let place = Place { position, bytes: line.bytes, crc: line.crc };
                state.written(*index, submission.ticket + number as u64, place);
                state.shrink(shared.options.recent_bytes_max);
            }
        }
        inner.active_left_bytes = self.active.header.bytes - self.offset;
        inner.durable_number = header.number;
        inner.status.durable_position = header.position + encoded.bytes.len() as u64;
        inner.status.batches += 1;
        inner.status.syncs += 1;
        inner.status.records += encoded.lines.len() as u64;
        inner.status.written_bytes += encoded.bytes.len() as u64;
        if header.keep_from > inner.keep_from {
            inner.keep_from = header.keep_from;
            shared.keeper.notify_one();
        }
        shared.room.notify_all();
    }

    /// Ends the log: everything that was not completed gets the error.
    fn end(&self, error: LogError, submissions: Vec<Submission>) {
        let mut inner = self.shared.lock();
        let queued: Vec<Submission> = inner.queue.drain(..).collect();
        inner.urgent = 0;
        if !matches!(inner.phase, Phase::Ended(_)) {
            inner.phase = Phase::Ended(error.clone());
        }
        drop(inner);
        self.shared.room.notify_all();
        self.shared.keeper.notify_all();
        complete(submissions, &Err(error.clone()));
        complete(queued, &Err(error));
    }
}

fn complete(submissions: Vec<Submission>, result: &Result<(), LogError>) {
    for done in submissions.into_iter().filter_map(|submission| submission.done) {
        done(result.clone());
    }
}
