//! Owns the lock on a data directory: one process at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
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
}

impl Drop for DirLock {
    fn drop(&mut self) {
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
        let mut file = opened.map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(OpenError::Locked { data_dir: data_dir.to_owned(), pid: holder(&mut file) });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        file.set_len(0).map_err(failed)?;
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        write!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(Self { file })
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
}
