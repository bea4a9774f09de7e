//! Owns the lock on a data directory: one process at a time.
//!
//! - Whoever only looks makes no lock file, and leaves the one that is there as it was.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::Path;

use crate::error::OpenError;

/// The name of the lock file.
pub(crate) const LOCK_FILE: &str = "LOCK";

/// The most bytes read of a lock file: a process id in decimal.
const PID_BYTES_MAX: u64 = 16;

/// A held lock; given back when dropped, or by the operating system when the process ends.
#[derive(Debug)]
pub(crate) struct DirLock {
    file: File,
    /// What the file said before, if that is to be put back.
    before: Option<Vec<u8>>,
}

impl Drop for DirLock {
    fn drop(&mut self) {
        if let Some(before) = &mut self.before {
            let before = std::mem::take(before);
            // Who had the lock last is for people, and nothing depends on it.
            let _ = self.write(&before);
        }
        // Closing the file is not enough while a process that is being started still has a copy of it.
        let _ = self.file.unlock();
    }
}

impl DirLock {
    /// Takes the lock and leaves this process's id in the file.
    pub fn take(data_dir: &Path) -> Result<Self, OpenError> {
        let path = data_dir.join(LOCK_FILE);
        let failed = |source| OpenError::Io { path: path.clone(), source };
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut lock = Self::of(data_dir, opened.map_err(failed)?)?;
        lock.write(std::process::id().to_string().as_bytes()).map_err(failed)?;
        Ok(lock)
    }

    /// Takes the lock as long as somebody looks; none if there is no lock file, as in a copy of a data directory. Nothing is different
    /// afterwards.
    pub fn hold(data_dir: &Path) -> Result<Option<Self>, OpenError> {
        let path = data_dir.join(LOCK_FILE);
        let failed = |source| OpenError::Io { path: path.clone(), source };
        let may_not_write = [ErrorKind::PermissionDenied, ErrorKind::ReadOnlyFilesystem];
        match OpenOptions::new().read(true).write(true).open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) if may_not_write.contains(&error.kind()) => {
                Self::of(data_dir, File::open(&path).map_err(failed)?).map(Some)
            }
            opened => {
                let mut lock = Self::of(data_dir, opened.map_err(failed)?)?;
                let mut before = Vec::new();
                (&lock.file).take(PID_BYTES_MAX).read_to_end(&mut before).map_err(failed)?;
                lock.before = Some(before);
                lock.write(std::process::id().to_string().as_bytes()).map_err(failed)?;
                Ok(Some(lock))
            }
        }
    }

    fn of(data_dir: &Path, mut file: File) -> Result<Self, OpenError> {
        match file.try_lock() {
            Ok(()) => Ok(Self { file, before: None }),
            Err(TryLockError::WouldBlock) => {
                Err(OpenError::Locked { data_dir: data_dir.to_owned(), pid: holder(&mut file) })
            }
            Err(TryLockError::Error(source)) => Err(OpenError::Io { path: data_dir.join(LOCK_FILE), source }),
        }
    }

    fn write(&mut self, content: &[u8]) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(content)
    }
}

/// The process id in a lock file, if it is one.
fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(PID_BYTES_MAX).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_told_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let first = DirLock::take(dir.path()).unwrap();
        let second = DirLock::take(dir.path()).unwrap_err();
        let pid = std::process::id();
        assert!(matches!(second, OpenError::Locked { pid: Some(holder), .. } if holder == pid), "{second}");
        drop(first);
        DirLock::take(dir.path()).unwrap();
    }

    #[test]
    fn whoever_only_looks_leaves_the_file_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        assert!(DirLock::hold(dir.path()).unwrap().is_none());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let path = dir.path().join(LOCK_FILE);
        std::fs::write(&path, "7").unwrap();
        let held = DirLock::hold(dir.path()).unwrap();
        let pid = std::process::id();
        for refused in [DirLock::take(dir.path()).unwrap_err(), DirLock::hold(dir.path()).unwrap_err()] {
            assert!(matches!(refused, OpenError::Locked { pid: Some(holder), .. } if holder == pid));
        }
        drop(held);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "7");
        DirLock::take(dir.path()).unwrap();
    }
}
