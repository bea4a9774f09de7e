//! Owns the file of a segment while it is written: from front to back, in blocks beside the page cache, with the checksums on the way.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crc32fast::Hasher;

use super::error::OrFail;
use super::{Pace, SegmentError};
use crate::fs::{File, FileSystem, Filling};
use crate::log::Operation;

/// What the disk may hold back, or the operating system where it does not let pages pass by its cache: without a bound the last sync
/// would be one long burst that others wait for.
const UNSYNCED_BYTES_MAX: u64 = 8 << 20;

pub(super) struct Output<'a> {
    file: Arc<dyn File>,
    path: PathBuf,
    pace: Pace<'a>,
    /// What is written next.
    next: Filling,
    written_bytes: u64,
    synced_bytes: u64,
    checksum: Hasher,
    /// The first error; what follows it would leave a gap.
    failed: Option<SegmentError>,
}

impl<'a> Output<'a> {
    pub(super) fn create(fs: &dyn FileSystem, path: PathBuf, pace: Pace<'a>) -> Result<Self, SegmentError> {
        let file = fs.create(&path).or_fail(Operation::Create, &path)?;
        let next = Filling::new().or_fail(Operation::Write, &path)?;
        Ok(Self {
            file,
            path,
            pace,
            next,
            written_bytes: 0,
            synced_bytes: 0,
            checksum: Hasher::new(),
            failed: None,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// How long the file is, with what is still to be written.
    pub(super) fn bytes(&self) -> u64 {
        self.written_bytes + self.next.bytes().len() as u64
    }

    pub(super) fn append(&mut self, mut bytes: &[u8]) -> Result<(), SegmentError> {
        while !bytes.is_empty() {
            bytes = self.next.fill(bytes);
            if self.next.is_full() {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SegmentError> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        let flushed = self.write_buffer();
        self.failed = flushed.clone().err();
        flushed
    }

    fn write_buffer(&mut self) -> Result<(), SegmentError> {
        let bytes = self.next.bytes();
        (self.pace)(bytes.len() as u64);
        self.file.write_aside(self.written_bytes, bytes).or_fail(Operation::Write, &self.path)?;
        self.checksum.update(bytes);
        self.written_bytes += bytes.len() as u64;
        self.next.clear();
        if self.written_bytes - self.synced_bytes >= UNSYNCED_BYTES_MAX {
            self.file.sync_data().or_fail(Operation::Sync, &self.path)?;
            self.synced_bytes = self.written_bytes;
        }
        Ok(())
    }

    /// Writes what is left and makes all of it durable; the CRC over the whole file.
    pub(super) fn sync(mut self) -> Result<u32, SegmentError> {
        self.flush()?;
        self.file.sync_data().or_fail(Operation::Sync, &self.path)?;
        Ok(self.checksum.finalize())
    }
}
