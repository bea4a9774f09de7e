//! Owns the making of segment files: a new or reused file becomes a segment in one step, by its name.
//!
//! - A file gets a segment's name only after its header and first batches are durable; until then it counts for nothing.
//! - What a full disk took of a file is removed: its room is for what lets the log go.
//! - A new file is written in pieces, and the caller may rest between them: whoever else uses disk and processors notices less.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Operation;
use super::failure::{Failure, OrFail, is_full};
use super::options::BLOCK_BYTES;
use super::segment::{Segment, SegmentHeader, path_of, spare_path_of, unfinished_path_of};
use crate::fs::{File, FileSystem, fill_with_zeros};

/// What a new file is written in.
const PIECE_BYTES: u64 = 1 << 20;

/// Called between two pieces of a new file.
pub(super) trait Pace {
    /// Whether there is time when so many of so many bytes are done. What is done is synced then, so that syncs stay short.
    fn has_time(&self, done: u64, bytes: u64) -> bool;

    /// Rests.
    fn rest(&self);
}

/// Somebody waits for the segment.
pub(super) struct AtOnce;

impl Pace for AtOnce {
    fn has_time(&self, _: u64, _: u64) -> bool {
        false
    }

    fn rest(&self) {}
}

/// Makes a segment with the given header and first batches, from a spare file if one is given. An older file of the
/// same name is replaced.
pub(super) fn make_segment(
    fs: &dyn FileSystem,
    dir: &Path,
    header: SegmentHeader,
    spare: Option<&Path>,
    first_batches: &[u8],
    pace: &dyn Pace,
) -> Result<Segment, Failure> {
    let made = try_make(fs, dir, header, spare, first_batches, pace);
    if made.as_ref().is_err_and(|failure| is_full(&failure.source)) {
        // If it cannot be removed now, the next attempt or the next open does it.
        let _ = fs.remove(&unfinished_path_of(dir, header.sequence));
    }
    made
}

fn try_make(
    fs: &dyn FileSystem,
    dir: &Path,
    mut header: SegmentHeader,
    spare: Option<&Path>,
    first_batches: &[u8],
    pace: &dyn Pace,
) -> Result<Segment, Failure> {
    let unfinished = unfinished_path_of(dir, header.sequence);
    let path = path_of(dir, header.sequence);
    let reused = match spare {
        Some(spare) => take_spare(fs, spare, &unfinished, header.bytes)?,
        None => None,
    };
    header.reused = reused.is_some();
    let file = match reused {
        Some(file) => file,
        None => make_file(fs, &unfinished, header.bytes, pace)?,
    };
    assert!(BLOCK_BYTES + first_batches.len() as u64 <= header.bytes, "a segment holds what it starts with");
    file.write_at(0, &header.encode()).or_fail(Operation::Write, &unfinished)?;
    file.write_at(BLOCK_BYTES, first_batches).or_fail(Operation::Write, &unfinished)?;
    file.sync_data().or_fail(Operation::Sync, &unfinished)?;
    fs.rename(&unfinished, &path).or_fail(Operation::Rename, &path)?;
    fs.sync_dir(dir).or_fail(Operation::SyncDirectory, dir)?;
    Ok(Segment { header, path, file })
}

/// A new file full of zeros, written out: a file that only has its length set would still grow with each sync.
fn make_file(
    fs: &dyn FileSystem,
    path: &Path,
    bytes: u64,
    pace: &dyn Pace,
) -> Result<Arc<dyn File>, Failure> {
    match fs.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).or_fail(Operation::Remove, path);
        }
        _ => {}
    }
    let file = fs.create(path).or_fail(Operation::Create, path)?;
    let mut done = 0;
    loop {
        let piece = done..bytes.min(done + PIECE_BYTES);
        fill_with_zeros(&*file, piece.start, piece.end).or_fail(Operation::Write, path)?;
        done = piece.end;
        if done == bytes {
            return Ok(file);
        }
        if pace.has_time(done, bytes) {
            file.sync_data().or_fail(Operation::Sync, path)?;
            pace.rest();
        }
    }
}

/// Takes a spare file if it has the right length; otherwise it is removed.
fn take_spare(
    fs: &dyn FileSystem,
    spare: &Path,
    unfinished: &Path,
    bytes: u64,
) -> Result<Option<Arc<dyn File>>, Failure> {
    let file = fs.open_rw(spare).or_fail(Operation::Open, spare)?;
    if file.len().or_fail(Operation::Read, spare)? != bytes {
        fs.remove(spare).or_fail(Operation::Remove, spare)?;
        return Ok(None);
    }
    fs.rename(spare, unfinished).or_fail(Operation::Rename, unfinished)?;
    Ok(Some(file))
}

/// Gives a segment's file back: for reuse, or removed if there are enough. The directory is synced, so that segments
/// never vanish out of order.
pub(super) fn give_back(
    fs: &dyn FileSystem,
    dir: &Path,
    sequence: u64,
    keep: bool,
) -> Result<Option<PathBuf>, Failure> {
    let path = path_of(dir, sequence);
    let spare = spare_path_of(dir, sequence);
    if keep {
        fs.rename(&path, &spare).or_fail(Operation::Rename, &spare)?;
    } else {
        fs.remove(&path).or_fail(Operation::Remove, &path)?;
    }
    fs.sync_dir(dir).or_fail(Operation::SyncDirectory, dir)?;
    Ok(keep.then_some(spare))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::fs::FaultFs;

    fn header(bytes: u64) -> SegmentHeader {
        SegmentHeader {
            sequence: 1,
            start: 0,
            bytes,
            incarnation: 1,
            salt: 7,
            durable_number: 0,
            reused: false,
            made_at_open: false,
        }
    }

    #[test]
    fn what_a_full_disk_took_of_a_segment_is_given_back() {
        let (fs, dir) = (FaultFs::new(), Path::new("/log"));
        fs.create_dir_all(dir).unwrap();
        let header = header(3 << 20);
        // A part of it has room.
        fs.set_room_bytes(Some(2 << 20));
        let failure = make_segment(&fs, dir, header, None, &[], &AtOnce).unwrap_err();
        assert!(is_full(&failure.source), "{failure:?}");
        assert_eq!((fs.paths(), fs.free_bytes(dir).unwrap()), (Vec::new(), 2 << 20));
        fs.set_room_bytes(Some(3 << 20));
        make_segment(&fs, dir, header, None, &[], &AtOnce).unwrap();
    }

    #[test]
    fn a_new_segment_is_written_with_rests_while_there_is_time() {
        /// There is time for some rests.
        struct Rests(AtomicU32);

        impl Pace for Rests {
            fn has_time(&self, _: u64, _: u64) -> bool {
                self.0.load(Ordering::Relaxed) > 0
            }

            fn rest(&self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }

        let (fs, dir) = (FaultFs::new(), Path::new("/log"));
        fs.create_dir_all(dir).unwrap();
        for (given, left) in [(9, 5), (2, 0)] {
            let rests = Rests(AtomicU32::new(given));
            let made = make_segment(&fs, dir, header(5 << 20), None, &[], &rests).unwrap();
            assert_eq!((rests.0.into_inner(), made.file.len().unwrap()), (left, 5 << 20));
        }
    }
}
