//! Owns the start of a log: it reads the files back, cuts a torn tail, and makes the segment that goes on.
//!
//! - Nothing is reported before the last batch stands, synced, in a segment of this run: what was read could have
//!   been in the page cache only.
//! - A segment that is small is replaced as a whole, so that restarts do not use up a segment each.
//! - No file is removed that holds a batch that counts, or damage.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{channel, sync_channel};
use std::thread;

use bytes::Bytes;

use super::batch::{self, BatchHeader};
use super::failure::{OrFail, is_full};
use super::ledger::Ledger;
use super::make::{AtOnce, give_back, make_segment};
use super::options::{BLOCK_BYTES, LogOptions, SEGMENT_BYTES_MIN};
use super::recover::Recovery;
use super::scan::{Batch, Scanned};
use super::segment::{Name, Segment, SegmentHeader, path_of, spare_path_of};
use super::{OpenError, Operation, Record};
use crate::fs::FileSystem;

/// What the first segment has room for besides what it starts with, on a full disk: votes, marks and purges.
const FIRST_ROOM_BYTES: u64 = 256 << 10;

/// A log that was read back and can be written.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) recovery: Recovery,
    pub(super) active: Segment,
    /// Where the next batch goes, in the active segment's file.
    pub(super) offset: u64,
    /// Files to be used for new segments.
    pub(super) spares: BTreeSet<PathBuf>,
}

/// A log that was read back, and how it is to go on.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) recovery: Recovery,
    start: Start,
    spares: BTreeSet<PathBuf>,
}

/// Reads the log in a directory and makes it ready for writing.
pub(super) fn open(fs: &dyn FileSystem, dir: &Path, options: &LogOptions) -> Result<Opened, OpenError> {
    fs.create_dir_all(dir).or_fail(Operation::CreateDirectory, dir)?;
    let Read { mut recovery, start, mut spares } = read(fs, dir, options)?;
    for empty in std::mem::take(&mut recovery.empty).into_iter().rev() {
        spares.extend(give_back(fs, dir, empty.header.sequence, true)?);
    }
    let active = make_first(fs, dir, &start, &mut spares)?;
    recovery.recovered.incarnation = start.header.incarnation;
    let offset = BLOCK_BYTES + start.first_batches.len() as u64;
    Ok(Opened { recovery, active, offset, spares })
}

/// Makes the segment that this run starts with. On a full disk it is as small as has to be, and spare files give way to it: a log
/// must open to be let go of.
fn make_first(
    fs: &dyn FileSystem,
    dir: &Path,
    start: &Start,
    spares: &mut BTreeSet<PathBuf>,
) -> Result<Segment, OpenError> {
    let smallest = (BLOCK_BYTES + start.first_batches.len() as u64 + FIRST_ROOM_BYTES).max(SEGMENT_BYTES_MIN);
    let (mut header, mut spare) = (start.header, spares.pop_last());
    loop {
        match make_segment(fs, dir, header, spare.as_deref(), &start.first_batches, &AtOnce) {
            Err(failure) if is_full(&failure.source) && header.bytes > smallest => {
                for unused in std::mem::take(spares) {
                    fs.remove(&unused).or_fail(Operation::Remove, &unused)?;
                }
                spare = None;
                header.bytes = (header.bytes / 2).max(smallest).next_multiple_of(BLOCK_BYTES);
            }
            made => return Ok(made?),
        }
    }
}

/// Reads the log in a directory; of the files, only unfinished ones are removed.
pub(super) fn read(fs: &dyn FileSystem, dir: &Path, options: &LogOptions) -> Result<Read, OpenError> {
    let (sequences, spares) = list(fs, dir)?;
    let mut recovery = Recovery::new(options.recent_bytes_max);
    recovery.ledger = Ledger::of_groups(options.groups);
    let mut run = Run { salt: options.salt, incarnation: 1, bytes_min: options.segment_bytes() };
    let (Some(oldest), Some(newest)) = (sequences.first(), sequences.last()) else {
        if !options.create {
            return Err(OpenError::MissingLog { path: dir.to_path_buf() });
        }
        let start = run.start_with_mark(&mut recovery);
        return Ok(Read { recovery, start, spares });
    };
    // The end of the log is in one of the last segments; only there the page cache may know more than the disk.
    let scan = |sequence, path: &Path, buffer| Scanned::read(fs, path, sequence + 3 > *newest, buffer);
    let before = thread::scope(|scope| {
        // Each is read while the one before is applied.
        let (give, buffers) = channel::<Vec<u8>>();
        let (send, scans) = sync_channel(0);
        let all = sequences.as_slice();
        let ahead = move || {
            for sequence in all {
                let buffer = buffers.try_recv().unwrap_or_default();
                let scanned = scan(*sequence, &path_of(dir, *sequence), buffer);
                if send.send(scanned).is_err() {
                    return;
                }
            }
        };
        let reader = thread::Builder::new().name("log-reader".to_owned());
        reader.spawn_scoped(scope, ahead).or_fail(Operation::StartThread, dir)?;
        let mut next = |sequence, path: &Path, buffer| {
            // Nobody misses it at the end.
            let _ = give.send(buffer);
            // A reader that is gone has read all, or panicked, which goes on when the scope ends.
            scans.recv().unwrap_or_else(|_| scan(sequence, path, Vec::new()))
        };
        read_segments(dir, &sequences, &mut recovery, &mut next)
    })?;
    let last = recovery.end();
    check_oldest(dir, &recovery, last.as_ref(), *oldest)?;
    if let Some(newest) = before {
        run.salt = newest.salt;
        run.incarnation = newest.incarnation + 1;
    }
    let start = run.start(&mut recovery, last);
    recovery.finish();
    Ok(Read { recovery, start, spares })
}

/// Reads the segment of this number into a buffer.
type Scan<'a> = dyn FnMut(u64, &Path, Vec<u8>) -> Result<Scanned, OpenError> + 'a;

/// Hands the segments of a log to its recovery, oldest first; the header of the newest. `scan` reads one, into a buffer that was
/// used before.
pub(super) fn read_segments(
    dir: &Path,
    sequences: &[u64],
    recovery: &mut Recovery,
    scan: &mut Scan<'_>,
) -> Result<Option<SegmentHeader>, OpenError> {
    let (mut before, mut buffer): (Option<SegmentHeader>, _) = (None, Vec::new());
    let (Some(oldest), Some(newest)) = (sequences.first(), sequences.last()) else { return Ok(before) };
    for sequence in *oldest..=*newest {
        let path = path_of(dir, sequence);
        if sequences.binary_search(&sequence).is_err() {
            return Err(OpenError::MissingSegment { path });
        }
        let segment = scan(sequence, &path, std::mem::take(&mut buffer))?;
        check_neighbours(&segment, sequence, before.as_ref())?;
        before = Some(segment.header);
        buffer = recovery.segment(segment);
    }
    Ok(before)
}

type Names = (Vec<u64>, BTreeSet<PathBuf>);

/// The sequence numbers of all segments, sorted, and the spare files. Unfinished files are removed.
fn list(fs: &dyn FileSystem, dir: &Path) -> Result<Names, OpenError> {
    let mut sequences = Vec::new();
    let mut spares = BTreeSet::new();
    for name in fs.list(dir).or_fail(Operation::ListDirectory, dir)? {
        match Name::parse(&name) {
            Some(Name::Segment(sequence)) => sequences.push(sequence),
            Some(Name::Spare(sequence)) => {
                spares.insert(spare_path_of(dir, sequence));
            }
            Some(Name::Unfinished) => {
                let path = dir.join(name);
                fs.remove(&path).or_fail(Operation::Remove, &path)?;
            }
            None => {}
        }
    }
    sequences.sort_unstable();
    Ok((sequences, spares))
}

fn check_neighbours(
    segment: &Scanned,
    sequence: u64,
    before: Option<&SegmentHeader>,
) -> Result<(), OpenError> {
    let header = &segment.header;
    let follows = before.is_none_or(|before| {
        before.end() == header.start && before.salt == header.salt && before.incarnation <= header.incarnation
    });
    if header.sequence == sequence && follows {
        return Ok(());
    }
    Err(OpenError::ForeignSegment { path: segment.path.clone() })
}

pub(super) fn check_oldest(
    dir: &Path,
    recovery: &Recovery,
    last: Option<&Scanned>,
    oldest: u64,
) -> Result<(), OpenError> {
    let last = last.and_then(|last| last.batches.last()).map_or(0, |batch| batch.head.header.keep_from);
    let keep_from = recovery.keep_from.max(last);
    if keep_from > 0 && keep_from < oldest {
        return Err(OpenError::MissingSegment { path: path_of(dir, keep_from) });
    }
    Ok(())
}

/// What is the same for all that this run of the log writes.
#[derive(Debug, Clone, Copy)]
struct Run {
    salt: u64,
    incarnation: u64,
    bytes_min: u64,
}

/// The segment that this run starts with.
#[derive(Debug)]
struct Start {
    header: SegmentHeader,
    first_batches: Vec<u8>,
}

impl Run {
    /// Decides what the first segment of this run holds, and applies what was not applied yet.
    fn start(&self, recovery: &mut Recovery, last: Option<Scanned>) -> Start {
        let Some(segment) = last else { return self.start_with_mark(recovery) };
        let last_number = segment.batches.last().map_or(0, |batch| batch.head.header.number);
        let small = segment.end_offset() <= self.bytes_min / 4;
        let whole = last_number >= recovery.durable_number;
        if small && whole && recovery.is_clean(&segment) {
            let (sequence, at) = (segment.header.sequence, segment.header.start);
            return self.start_with(recovery, &segment, &segment.batches, sequence, at);
        }
        let intact = segment.batches.last().is_some_and(|batch| segment.is_intact(batch));
        if !whole || !intact {
            // A copy would leave out what is damaged, and hide that it was there.
            recovery.apply_batches(&segment, segment.batches.len());
            recovery.segments.push(segment.into_segment());
            return self.start_with_mark(recovery);
        }
        let before_last = segment.batches.len() - 1;
        recovery.apply_batches(&segment, before_last);
        let rewritten = &segment.batches[before_last..];
        recovery.find_missing(&segment, &rewritten[0]);
        let start =
            self.start_with(recovery, &segment, rewritten, segment.header.sequence + 1, segment.header.end());
        recovery.segments.push(segment.into_segment());
        start
    }

    /// A segment that starts with copies of batches, which are applied at their new places.
    fn start_with(
        &self,
        recovery: &mut Recovery,
        segment: &Scanned,
        batches: &[Batch],
        sequence: u64,
        start: u64,
    ) -> Start {
        let mut first_batches = Vec::new();
        for batch in batches {
            let position = start + BLOCK_BYTES + first_batches.len() as u64;
            let bytes = segment.bytes_of(batch);
            let records: Vec<Record> = batch
                .head
                .lines
                .iter()
                .filter_map(|line| Some(line.record(Bytes::copy_from_slice(line.payload(bytes)?))))
                .collect();
            let header = BatchHeader {
                position,
                incarnation: self.incarnation,
                durable: position,
                ..batch.head.header
            };
            first_batches.extend_from_slice(&batch::encode(self.salt, &header, records.iter()).bytes);
            recovery.apply_batch(segment, batch, position, sequence);
        }
        let durable_number = recovery.last_number;
        Start { header: self.header(sequence, start, durable_number, first_batches.len()), first_batches }
    }

    /// A segment that starts with a mark: there is nothing to copy, or something is missing at the end.
    fn start_with_mark(&self, recovery: &mut Recovery) -> Start {
        let missing = recovery.last_number < recovery.durable_number;
        recovery.find_missing_at_end();
        let durable_number = recovery.last_number.max(recovery.durable_number);
        let number = durable_number + 1;
        // The place where batches are missing stays known as a gap in the numbers, for all groups.
        let previous_groups = if missing { u64::MAX } else { recovery.last_groups };
        let newest = recovery.segments.last().map(|segment| segment.header);
        let (sequence, start) = newest.map_or((1, 0), |newest| (newest.sequence + 1, newest.end()));
        let position = start + BLOCK_BYTES;
        let keep_from = recovery.ledger.keep_from(sequence);
        let header = BatchHeader {
            mark: true,
            position,
            incarnation: self.incarnation,
            number,
            durable: position,
            previous_groups,
            keep_from,
        };
        let first_batches = batch::encode(self.salt, &header, [].iter()).bytes;
        recovery.last_number = number;
        recovery.last_groups = 0;
        Start { header: self.header(sequence, start, durable_number, first_batches.len()), first_batches }
    }

    fn header(&self, sequence: u64, start: u64, durable_number: u64, first_bytes: usize) -> SegmentHeader {
        SegmentHeader {
            sequence,
            start,
            bytes: self.bytes_min.max(BLOCK_BYTES + first_bytes as u64),
            incarnation: self.incarnation,
            salt: self.salt,
            durable_number,
            reused: false,
            made_at_open: true,
        }
    }
}
