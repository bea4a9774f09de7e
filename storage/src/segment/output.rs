//! Owns the file of a segment while it is written: from front to back, in large pieces, with the checksums on the way.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crc32fast::Hasher;

use super::error::OrFail;
use super::{Pace, SegmentError};
use crate::fs::{File, FileSystem};
use crate::log::Operation;

/// What is written at a time, at most.
const BUFFER_BYTES: usize = 1 << 20;

/// What the operating system may hold back: without a bound the last sync would be one long burst that others wait for.
const UNSYNCED_BYTES_MAX: u64 = 8 << 20;

pub(super) struct Output<'a> {
    file: Arc<dyn File>,
    path: PathBuf,
    pace: Pace<'a>,
    buffer: Vec<u8>,
    written_bytes: u64,
    synced_bytes: u64,
    checksum: Hasher,
    /// The first error; what follows it would leave a gap.
    failed: Option<SegmentError>,
}

impl<'a> Output<'a> {
    pub(super) fn create(fs: &dyn FileSystem, path: PathBuf, pace: Pace<'a>) -> Result<Self, SegmentError> {
        let file = fs.create(&path).or_fail(Operation::Create, &path)?;
        let buffer = Vec::with_capacity(BUFFER_BYTES);
        Ok(Self {
            file,
            path,
            pace,
            buffer,
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
        self.written_bytes + self.buffer.len() as u64
    }

    pub(super) fn append(&mut self, mut bytes: &[u8]) -> Result<(), SegmentError> {
        while self.buffer.len() + bytes.len() >= BUFFER_BYTES {
            let (now, rest) = bytes.split_at(BUFFER_BYTES - self.buffer.len());
            self.buffer.extend_from_slice(now);
            self.flush()?;
            bytes = rest;
        }
        self.buffer.extend_from_slice(bytes);
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
        (self.pace)(self.buffer.len() as u64);
        self.file.write_at(self.written_bytes, &self.buffer).or_fail(Operation::Write, &self.path)?;
        self.checksum.update(&self.buffer);
        self.written_bytes += self.buffer.len() as u64;
        self.buffer.clear();
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
