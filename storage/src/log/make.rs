//! Owns the making of segment files: a new or reused file becomes a segment in one step, by its name.
//!
//! - A file gets a segment's name only after its header and first batches are durable; until then it counts for nothing.
//! - What a full disk took of a file is removed: its room is for what lets the log go.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Operation;
use super::failure::{Failure, OrFail, is_full};
use super::options::BLOCK_BYTES;
use super::segment::{Segment, SegmentHeader, path_of, spare_path_of, unfinished_path_of};
use crate::fs::{File, FileSystem, fill_with_zeros};

/// Makes a segment with the given header and first batches, from a spare file if one is given. An older file of the
/// same name is replaced.
pub(super) fn make_segment(
    fs: &dyn FileSystem,
    dir: &Path,
    header: SegmentHeader,
    spare: Option<&Path>,
    first_batches: &[u8],
) -> Result<Segment, Failure> {
    let made = try_make(fs, dir, header, spare, first_batches);
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
        None => make_file(fs, &unfinished, header.bytes)?,
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
fn make_file(fs: &dyn FileSystem, path: &Path, bytes: u64) -> Result<Arc<dyn File>, Failure> {
    match fs.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).or_fail(Operation::Remove, path);
        }
        _ => {}
    }
    let file = fs.create(path).or_fail(Operation::Create, path)?;
    fill_with_zeros(&*file, 0, bytes).or_fail(Operation::Write, path)?;
    Ok(file)
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
    use super::*;
    use crate::fs::FaultFs;

    #[test]
    fn what_a_full_disk_took_of_a_segment_is_given_back() {
        let (fs, dir) = (FaultFs::new(), Path::new("/log"));
        fs.create_dir_all(dir).unwrap();
        let header = SegmentHeader {
            sequence: 1,
            start: 0,
            bytes: 3 << 20,
            incarnation: 1,
            salt: 7,
            durable_number: 0,
            reused: false,
            made_at_open: false,
        };
        // A part of it has room.
        fs.set_room_bytes(Some(2 << 20));
        let failure = make_segment(&fs, dir, header, None, &[]).unwrap_err();
        assert!(is_full(&failure.source), "{failure:?}");
        assert_eq!((fs.paths(), fs.free_bytes(dir).unwrap()), (Vec::new(), 2 << 20));
        fs.set_room_bytes(Some(3 << 20));
        make_segment(&fs, dir, header, None, &[]).unwrap();
    }
}
