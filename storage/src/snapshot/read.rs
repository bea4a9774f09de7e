//! Owns the reading of a snapshot: handing its buckets over, and checking everything it refers to.
//!
//! - Buckets are read in the manifest's order. Each file is read through a window of its own, so that reads
//!   are large and go forward as long as its buckets were put in that order.
//! - Checking and decoding take most of the time, and are done on several threads.
//! - Nothing is handed over that its checksum does not fit.

use std::collections::hash_map::{Entry, HashMap};
use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use parking_lot::Mutex;

use super::bucket_file::{Cache, Window};
use super::error::OrFail;
use super::shared::Shared;
use super::{BucketFile, Listed, Manifest, Pace, Placed, SnapshotError};
use crate::codec::Malformed;
use crate::fs;
use crate::log::Operation;

/// Bytes of a window when there are few files, and bytes handed over at a time.
const PIECE_BYTES: u64 = 256 << 10;
/// Bytes of a window when there are many.
const PIECE_BYTES_MIN: u64 = 128 << 10;
/// Bytes of all windows together.
const WINDOWS_BYTES: u64 = 16 << 20;
/// Pieces read ahead of who takes them.
const PIECES_AHEAD: usize = 2;
/// Threads that decode, at most: what they make is put together by one.
const DECODERS_MAX: usize = 4;

/// Buckets that follow each other in a manifest, and their bytes one after the other.
struct Piece<'a> {
    buckets: &'a [Placed],
    bytes: Vec<u8>,
}

type Sender<'a> = SyncSender<Result<Piece<'a>, SnapshotError>>;

/// Reads every bucket, decodes it on one of some threads, and hands over what came of it, in any order.
pub(super) fn load<T>(
    shared: &Shared,
    manifest: &Manifest,
    decode: impl Fn(u8, u64, &[u8]) -> Result<T, Malformed> + Sync,
    take: impl FnMut(T) -> Result<(), Malformed> + Send,
) -> Result<(), SnapshotError> {
    let (send, pieces) = sync_channel(PIECES_AHEAD);
    let decoders = thread::available_parallelism().map_or(1, usize::from).min(DECODERS_MAX);
    let work = Decoding { shared, pieces: Mutex::new(Some(pieces)), decode, take: Mutex::new(take) };
    thread::scope(|scope| {
        let reader = thread::Builder::new().name("snapshot-reader".to_owned());
        reader
            .spawn_scoped(scope, move || read_ahead(shared, manifest, &send))
            .or_fail(Operation::StartThread, &shared.dir)?;
        let mut others = Vec::new();
        for _ in 1..decoders {
            let decoder = thread::Builder::new().name("snapshot-decode".to_owned());
            let started = decoder.spawn_scoped(scope, || work.run());
            // One is enough; with fewer it takes longer.
            others.extend(started.ok());
        }
        let done = work.run();
        let others = others.into_iter().map(thread::ScopedJoinHandle::join);
        // A panic goes on, as it would have here.
        let others: Vec<_> = others.map(|ended| ended.unwrap_or_else(|panic| resume_unwind(panic))).collect();
        others.into_iter().fold(done, Result::and)
    })
}

/// What the threads share that decode a snapshot.
struct Decoding<'a, D, T> {
    shared: &'a Shared,
    /// None once one of them failed, so that the reader ends.
    pieces: Mutex<Option<Receiver<Result<Piece<'a>, SnapshotError>>>>,
    decode: D,
    take: Mutex<T>,
}

impl<D, T> Decoding<'_, D, T> {
    /// Decodes pieces until there are no more, or an error.
    fn run<V>(&self) -> Result<(), SnapshotError>
    where
        D: Fn(u8, u64, &[u8]) -> Result<V, Malformed>,
        T: FnMut(V) -> Result<(), Malformed>,
    {
        // The lock is held while waiting: whoever waits for it has nothing else to do.
        let next = || self.pieces.lock().as_ref().and_then(|pieces| pieces.recv().ok());
        while let Some(piece) = next() {
            let done = piece.and_then(|piece| self.decode(&piece));
            if done.is_err() {
                self.pieces.lock().take();
                return done;
            }
        }
        Ok(())
    }

    fn decode<V>(&self, piece: &Piece<'_>) -> Result<(), SnapshotError>
    where
        D: Fn(u8, u64, &[u8]) -> Result<V, Malformed>,
        T: FnMut(V) -> Result<(), Malformed>,
    {
        let mut left = piece.bytes.as_slice();
        for placed in piece.buckets {
            let (bucket, rest) = left.split_at(placed.length as usize);
            left = rest;
            check(self.shared, placed, bucket)?;
            let decoded = (self.decode)(placed.section, placed.number, bucket);
            let taken = decoded.and_then(|decoded| (*self.take.lock())(decoded));
            taken.map_err(|source| {
                let &Placed { section, number, offset, .. } = placed;
                let path = self.shared.dir.join(placed.file_name());
                SnapshotError::Malformed { path, offset, section, number, source }
            })?;
        }
        Ok(())
    }
}

/// Reads all buckets until the end, an error, or until nobody wants them any more.
fn read_ahead<'a>(shared: &Shared, manifest: &'a Manifest, send: &Sender<'a>) {
    let mut windows = Windows::new(shared, manifest);
    let mut left = manifest.buckets.as_slice();
    while !left.is_empty() {
        let (buckets, rest) = left.split_at(piece_length(left));
        left = rest;
        let mut bytes = Vec::with_capacity(buckets.iter().map(|placed| placed.length as usize).sum());
        let read = buckets.iter().try_for_each(|placed| windows.read(placed, &mut bytes));
        let failed = read.is_err();
        if send.send(read.map(|()| Piece { buckets, bytes })).is_err() || failed {
            return;
        }
    }
}

/// How many of the buckets make a piece: one at least.
fn piece_length(buckets: &[Placed]) -> usize {
    let mut bytes = 0;
    let fits = |placed: &&Placed| {
        bytes += placed.length;
        bytes <= PIECE_BYTES
    };
    buckets.iter().take_while(fits).count().max(1)
}

/// The open bucket files of a manifest.
struct Windows<'a> {
    shared: &'a Shared,
    manifest: &'a Manifest,
    piece_bytes: u64,
    open: HashMap<u64, Window>,
}

impl<'a> Windows<'a> {
    fn new(shared: &'a Shared, manifest: &'a Manifest) -> Self {
        let share = WINDOWS_BYTES / (manifest.files.len() as u64).max(1);
        Self {
            shared,
            manifest,
            piece_bytes: share.clamp(PIECE_BYTES_MIN, PIECE_BYTES),
            open: HashMap::new(),
        }
    }

    fn read(&mut self, placed: &Placed, out: &mut Vec<u8>) -> Result<(), SnapshotError> {
        let window = match self.open.entry(placed.file) {
            Entry::Occupied(window) => window.into_mut(),
            Entry::Vacant(place) => {
                let file = self.manifest.file_of(placed);
                place.insert(Window::open_buckets(self.shared, file, self.piece_bytes, Cache::Use, &|_| {})?)
            }
        };
        window.read(placed.offset, placed.length, out, &|_| {})
    }
}

/// Reads everything that a snapshot refers to, except what another one refers to as well, and checks it.
pub(super) fn verify(
    shared: &Shared,
    manifest: &Manifest,
    verified: Option<&Manifest>,
    pace: Pace<'_>,
) -> Result<(), SnapshotError> {
    let known = |placed: &Placed| {
        verified.and_then(|verified| verified.bucket(placed.section, placed.number)) == Some(placed)
    };
    let mut buckets: Vec<&Placed> = manifest.buckets.iter().filter(|placed| !known(placed)).collect();
    buckets.sort_unstable_by_key(|placed| (placed.file, placed.offset));
    for buckets in buckets.chunk_by(|a, b| a.file == b.file) {
        check_buckets(shared, manifest.file_of(buckets[0]), buckets, pace, &mut Err)?;
    }
    let known = |segment: &Listed| verified.is_some_and(|verified| verified.segments.contains(segment));
    manifest
        .segments
        .iter()
        .filter(|segment| !known(segment))
        .try_for_each(|segment| check_segment(shared, segment, pace))
}

/// Reads what a snapshot refers to in one of its files, and says everything that is wrong with it.
pub(super) fn check_file(
    shared: &Shared,
    manifest: &Manifest,
    name: &str,
    pace: Pace<'_>,
    found: &mut dyn FnMut(SnapshotError),
) {
    let mut each = |error| {
        found(error);
        Ok(())
    };
    if let Some(file) = manifest.files.iter().find(|file| file.name() == name) {
        let mut buckets: Vec<_> =
            manifest.buckets.iter().filter(|placed| placed.file == file.number).collect();
        buckets.sort_unstable_by_key(|placed| placed.offset);
        // Nothing is left to be returned.
        let _ = check_buckets(shared, file, &buckets, pace, &mut each);
    }
    if let Some(segment) = manifest.segments.iter().find(|segment| segment.name == name)
        && let Err(error) = check_segment(shared, segment, pace)
    {
        found(error);
    }
}

/// Checks buckets of one file, in the order of their places, as long as `found` lets it.
fn check_buckets(
    shared: &Shared,
    file: &BucketFile,
    buckets: &[&Placed],
    pace: Pace<'_>,
    found: &mut dyn FnMut(SnapshotError) -> Result<(), SnapshotError>,
) -> Result<(), SnapshotError> {
    let mut window = match Window::open_buckets(shared, file, fs::ONCE_BYTES as u64, Cache::Bypass, pace) {
        Ok(window) => window,
        Err(error) => return found(error),
    };
    let mut bytes = Vec::new();
    for placed in buckets {
        bytes.clear();
        let read = window.read(placed.offset, placed.length, &mut bytes, pace);
        read.and_then(|()| check(shared, placed, &bytes)).or_else(&mut *found)?;
    }
    Ok(())
}

pub(super) fn check_segment(shared: &Shared, segment: &Listed, pace: Pace<'_>) -> Result<(), SnapshotError> {
    let mut window =
        Window::open(shared, &segment.name, segment.bytes, fs::ONCE_BYTES as u64, Cache::Bypass)?;
    let mut hasher = crc32fast::Hasher::new();
    let mut offset = 0;
    while offset < segment.bytes {
        let piece = window.piece_at(offset, pace)?;
        hasher.update(piece);
        offset += piece.len() as u64;
    }
    if hasher.finalize() == segment.checksum {
        Ok(())
    } else {
        Err(SnapshotError::Damaged { path: window.path, offset: 0, what: "checksum of the segment" })
    }
}

fn check(shared: &Shared, placed: &Placed, bytes: &[u8]) -> Result<(), SnapshotError> {
    if crc32fast::hash(bytes) == placed.crc {
        Ok(())
    } else {
        let path = shared.dir.join(placed.file_name());
        Err(SnapshotError::Damaged { path, offset: placed.offset, what: "checksum of a bucket" })
    }
}
