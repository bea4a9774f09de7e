//! Owns the reserve: room on the disk for the time when there is none.
//!
//! - It is a file of zeros, made only while there is far more room than it takes.
//! - When background work finds the disk full, the file is given up, so that a snapshot can be written; that lets the log go, and writes are
//!   taken again. It is made anew once there is room.
//! - Without one, an operator has to make room; nothing is lost either way.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use fanfold_storage::fs::{FileSystem, fill_with_zeros};

/// It is made when the disk has room for so many of it.
const ROOM: u64 = 4;

/// The name of the file in the data directory.
const FILE: &str = "RESERVE";

/// The name of the file while it is being made.
const UNFINISHED: &str = "RESERVE.new";

/// The reserve of a node.
#[derive(Debug)]
pub(crate) struct Reserve {
    fs: Arc<dyn FileSystem>,
    dir: PathBuf,
    bytes: u64,
    /// Whether the file is there; none before it was looked for.
    is_held: Mutex<Option<bool>>,
}

impl Reserve {
    /// A reserve of so many bytes in a data directory; 0 is none.
    pub fn new(fs: Arc<dyn FileSystem>, dir: &Path, bytes: u64) -> Self {
        Self { fs, dir: dir.to_owned(), bytes, is_held: Mutex::new(None) }
    }

    /// Gives the room up; whether there was any. Blocks.
    pub fn give_up(&self) -> bool {
        let mut is_held = self.is_held.lock().unwrap_or_else(PoisonError::into_inner);
        let there = *is_held != Some(false) && self.fs.remove(&self.dir.join(FILE)).is_ok();
        *is_held = Some(false);
        // What a process left that was killed while it made the file.
        self.fs.remove(&self.dir.join(UNFINISHED)).is_ok() || there
    }

    /// Whether the file is to be made.
    pub fn is_wanted(&self) -> bool {
        self.bytes > 0 && *self.is_held.lock().unwrap_or_else(PoisonError::into_inner) != Some(true)
    }

    /// Makes the file if it is not there and the disk has much room. Blocks.
    pub fn take(&self) -> io::Result<()> {
        let mut is_held = self.is_held.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.dir.join(FILE);
        let whole = |file: Arc<dyn fanfold_storage::fs::File>| file.len().is_ok_and(|len| len == self.bytes);
        if is_held.is_none() && self.fs.open_read(&path).is_ok_and(whole) {
            *is_held = Some(true);
            return Ok(());
        }
        self.fs.create_dir_all(&self.dir)?;
        // What a process left that was killed while it made the file takes room, and helps nobody.
        let _ = self.fs.remove(&self.dir.join(UNFINISHED));
        if self.fs.free_bytes(&self.dir)? < ROOM * self.bytes {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let made = self.make(&path);
        if made.is_err() {
            // A part of it helps nobody.
            let _ = self.fs.remove(&self.dir.join(UNFINISHED));
        }
        *is_held = Some(made.is_ok());
        made
    }

    fn make(&self, path: &Path) -> io::Result<()> {
        let unfinished = self.dir.join(UNFINISHED);
        let file = self.fs.create(&unfinished)?;
        fill_with_zeros(&*file, 0, self.bytes)?;
        file.sync_data()?;
        self.fs.rename(&unfinished, path)?;
        self.fs.sync_dir(&self.dir)
    }
}

#[cfg(test)]
mod tests {
    use fanfold_storage::fs::FaultFs;

    use super::*;

    #[test]
    fn the_room_is_there_until_it_is_given_up() {
        let disk = FaultFs::new();
        let dir = Path::new("/data");
        let reserve = |disk: &FaultFs| Reserve::new(Arc::new(disk.clone()), dir, 10_000);
        let first = reserve(&disk);
        first.take().unwrap();
        assert_eq!(disk.content(&dir.join(FILE)).unwrap().len(), 10_000);
        // The next start finds it.
        let next = reserve(&disk);
        let before = disk.operations();
        next.take().unwrap();
        assert!(disk.operations() == before && !next.is_wanted());
        assert!(next.give_up() && !next.give_up());
        assert!(disk.paths().is_empty());
        disk.set_room_bytes(Some(39_000));
        assert!(next.take().is_err() && next.is_wanted());
        assert!(disk.paths().is_empty(), "what room there is is not for it");
        disk.set_room_bytes(None);
        next.take().unwrap();
        assert!(reserve(&disk).give_up(), "also by a process that never looked");
    }

    #[test]
    fn what_a_killed_process_had_made_of_it_takes_no_room_for_good() {
        for taken in [true, false] {
            let disk = FaultFs::new();
            let dir = Path::new("/data");
            let reserve = |disk: &FaultFs| Reserve::new(Arc::new(disk.clone()), dir, 10_000);
            // The file is there, and written in part or whole, without its name.
            disk.stop_after(2);
            assert!(reserve(&disk).take().is_err());
            let disk = disk.kill();
            assert_eq!(disk.paths(), [dir.join(UNFINISHED)]);
            disk.set_room_bytes(Some(10_000));
            let next = reserve(&disk);
            if taken {
                assert!(next.take().is_err());
            } else {
                assert!(next.give_up());
            }
            assert!(disk.paths().is_empty(), "{:?}", disk.paths());
            disk.set_room_bytes(None);
            next.take().unwrap();
        }
    }

    #[test]
    fn it_is_given_up_each_time_that_there_is_room_for_it_in_between() {
        let disk = FaultFs::new();
        let reserve = Reserve::new(Arc::new(disk.clone()), Path::new("/data"), 10_000);
        for _ in 0..3 {
            disk.set_room_bytes(None);
            reserve.take().unwrap();
            disk.set_room_bytes(Some(10_000));
            assert!(reserve.give_up() && !reserve.give_up() && reserve.is_wanted());
        }
    }
}
