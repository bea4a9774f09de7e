//! Owns the lock on an import: one process at a time goes on with a state file.
//!
//! - The state file is replaced while an import runs, so the lock is on a file beside it, which goes with the import. One that a
//!   killed import has left is nobody's.

use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::ImportError;

/// The most bytes read of a lock file: a process id in decimal.
const PID_BYTES_MAX: u64 = 16;

/// A held lock; given back when dropped, or by the operating system when the process ends.
#[derive(Debug)]
pub(crate) struct Held {
    path: PathBuf,
    file: File,
}

impl Drop for Held {
    fn drop(&mut self) {
        // Removed while it is held: who opened it before sees that it is not there any more. One that stays does no harm, and one
        // that somebody put in its place is another's.
        if self.is_there() {
            let _ = std::fs::remove_file(&self.path);
        }
        let _ = self.file.unlock();
    }
}

impl Held {
    /// Takes the lock of a state file, and leaves this process's id in it.
    pub(crate) fn take(state: &Path) -> Result<Self, ImportError> {
        let mut path = state.as_os_str().to_owned();
        path.push(".lock");
        let path = PathBuf::from(path);
        let failed = |source| ImportError::State { path: state.to_owned(), source };
        loop {
            let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
            let mut file = opened.map_err(failed)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(ImportError::Held { path: state.to_owned(), pid: holder(&mut file) });
                }
                Err(TryLockError::Error(source)) => return Err(failed(source)),
            }
            // Whoever had it may have removed it before it was locked here.
            let mut held = Self { path: path.clone(), file };
            if held.is_there() {
                leave_pid(&mut held.file).map_err(failed)?;
                return Ok(held);
            }
        }
    }

    /// Whether the file that is locked is the one of that name.
    fn is_there(&self) -> bool {
        let (there, mine) = (self.path.metadata(), self.file.metadata());
        there.is_ok_and(|there| mine.is_ok_and(|mine| is_same(&there, &mine)))
    }
}

/// Whether somebody holds a lock on a file.
pub(super) fn is_held(file: &File) -> bool {
    matches!(file.try_lock(), Err(TryLockError::WouldBlock))
}

/// Whether it is one file.
pub(super) fn is_same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

fn leave_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.write_all(std::process::id().to_string().as_bytes())
}

/// The process id in a lock file, if it is one.
fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(PID_BYTES_MAX).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn an_import_is_held_by_one_process_and_leaves_no_lock() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("posts.tsv.import");
        let lock = dir.path().join("posts.tsv.import.lock");
        // What a killed import left is nobody's.
        std::fs::write(&lock, "4194303, and more").unwrap();
        let first = Held::take(&state).unwrap();
        let refused = Held::take(&state).unwrap_err();
        let pid = std::process::id();
        assert!(matches!(&refused, ImportError::Held { pid: Some(by), .. } if *by == pid), "{refused}");
        let said = refused.to_string();
        assert!(said.contains(&pid.to_string()) && said.contains("run the same command again"), "{said}");
        drop(first);
        assert!(!lock.exists());
        // One that was put in the place of the lock by hand is another's.
        let first = Held::take(&state).unwrap();
        std::fs::remove_file(&lock).unwrap();
        let other = Held::take(&state).unwrap();
        drop(first);
        assert!(lock.exists());
        drop(other);
    }

    #[test]
    fn a_lock_that_is_removed_while_it_is_taken_is_taken_anew() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        // Each thread counts alone what all count, which comes out right only if no two hold it at once.
        let counted = dir.path().join("count");
        std::fs::write(&counted, "0").unwrap();
        let count = || {
            for _ in 0..50 {
                let _held = loop {
                    match Held::take(&state) {
                        Err(ImportError::Held { .. }) => std::thread::yield_now(),
                        taken => break taken.unwrap(),
                    }
                };
                let before: u32 = std::fs::read_to_string(&counted).unwrap().parse().unwrap();
                std::fs::write(&counted, (before + 1).to_string()).unwrap();
            }
        };
        std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(count))));
        assert_eq!(std::fs::read_to_string(&counted).unwrap(), "200");
    }
}
