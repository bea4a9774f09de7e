//! Owns the bringing of files from one directory to another: a second name where the disk can give one, else a copy.
//!
//! - Files that somebody may write again later (the log's) are copied; those that never change are linked.
//! - A copy is durable, and so is its name, before it counts.

use std::io;
use std::path::Path;

use fanfold_storage::fs::{File, FileSystem};

use super::error::BackupError;
use crate::meter::{Cancelled, Meter};

/// Bytes read at a time.
const PIECE_BYTES: u64 = 1 << 20;

/// Why a file was not read or copied.
#[derive(Debug)]
pub(super) enum Failed {
    Io(io::Error),
    Cancelled(Cancelled),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Cancelled> for Failed {
    fn from(cancelled: Cancelled) -> Self {
        Self::Cancelled(cancelled)
    }
}

impl Failed {
    pub fn of(self, path: &Path) -> BackupError {
        match self {
            Self::Io(source) => BackupError::Io { path: path.to_owned(), source },
            Self::Cancelled(cancelled) => cancelled.into(),
        }
    }
}

/// Hands over the first `bytes` of a file piece by piece; CRC-32 over them.
fn read(
    file: &dyn File,
    bytes: u64,
    meter: &Meter,
    mut each: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> Result<u32, Failed> {
    let mut hasher = crc32fast::Hasher::new();
    let mut piece = vec![0; PIECE_BYTES.min(bytes) as usize];
    let mut offset = 0;
    while offset < bytes {
        meter.check()?;
        let piece = &mut piece[..PIECE_BYTES.min(bytes - offset) as usize];
        meter.take(piece.len() as u64);
        file.read_at(offset, piece)?;
        hasher.update(piece);
        each(offset, piece)?;
        offset += piece.len() as u64;
    }
    Ok(hasher.finalize())
}

/// CRC-32 over the first `bytes` of a file, read past the cache.
pub(super) fn checksum(file: &dyn File, bytes: u64, meter: &Meter) -> Result<u32, Failed> {
    file.drop_cache()?;
    read(file, bytes, meter, |_, _| Ok(()))
}

/// Copies the first `bytes` of a file; CRC-32 over them. The name is made durable with its directory.
pub(super) fn copy(
    fs: &dyn FileSystem,
    from: &dyn File,
    bytes: u64,
    to: &Path,
    meter: &Meter,
) -> Result<u32, Failed> {
    let copy = fs.create(to)?;
    let crc32 = read(from, bytes, meter, |offset, piece| copy.write_at(offset, piece))?;
    copy.sync_data()?;
    Ok(crc32)
}

/// Gives a file that never changes a second name, or copies it where that cannot be done.
pub(super) fn link(fs: &dyn FileSystem, from: &Path, to: &Path, meter: &Meter) -> Result<(), Failed> {
    match fs.link(from, to) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error.into()),
        Err(_) => {
            let file = fs.open_read(from)?;
            let bytes = file.len()?;
            meter.expect(bytes);
            copy(fs, &*file, bytes, to, meter).map(drop)
        }
    }
}
