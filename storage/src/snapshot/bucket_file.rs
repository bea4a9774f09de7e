//! Owns the reading of one bucket file: through a window that moves forward in large pieces.
//!
//! Format: `storage/FORMAT.md`, "Bucket file".

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::error::OrFail;
use super::header::{self, HEADER_BYTES};
use super::output::Output;
use super::shared::Shared;
use super::{BucketFile, Pace, SnapshotError};
use crate::fs::File;
use crate::log::{GroupId, Operation};

const MAGIC: [u8; 4] = *b"FFSB";

/// What a bucket file begins with.
pub(super) fn header(group: GroupId, number: u64) -> Vec<u8> {
    let mut header = header::begin(MAGIC, group, number);
    header::seal(&mut header);
    header
}

/// What a manifest says about a bucket file that was written.
pub(super) fn file(output: &Output) -> BucketFile {
    BucketFile { number: output.number, bytes: output.bytes() }
}

/// Whether readers want the disk's own bytes, or what the operating system remembers of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cache {
    Use,
    Bypass,
}

/// An open file, of which a piece is in memory.
#[derive(Debug)]
pub(super) struct Window {
    pub(super) path: PathBuf,
    file: Arc<dyn File>,
    file_bytes: u64,
    piece_bytes: u64,
    cache: Cache,
    start: u64,
    piece: Bytes,
}

impl Window {
    /// Opens a file that must have a length.
    pub(super) fn open(
        shared: &Shared,
        name: &str,
        file_bytes: u64,
        piece_bytes: u64,
        cache: Cache,
    ) -> Result<Self, SnapshotError> {
        let path = shared.dir.join(name);
        let file = shared.fs.open_read(&path).or_fail(Operation::Open, &path)?;
        let bytes = file.len().or_fail(Operation::Read, &path)?;
        if bytes != file_bytes {
            return Err(SnapshotError::Length { path, bytes, expected_bytes: file_bytes });
        }
        if cache == Cache::Bypass {
            file.drop_cache().or_fail(Operation::Read, &path)?;
        }
        Ok(Self { path, file, file_bytes, piece_bytes, cache, start: 0, piece: Bytes::new() })
    }

    /// Opens a bucket file and checks its header.
    pub(super) fn open_buckets(
        shared: &Shared,
        file: &BucketFile,
        piece_bytes: u64,
        cache: Cache,
        pace: Pace<'_>,
    ) -> Result<Self, SnapshotError> {
        let mut window = Self::open(shared, &file.name(), file.bytes, piece_bytes, cache)?;
        let mut header = Vec::new();
        window.read(0, HEADER_BYTES as u64, &mut header, pace)?;
        header::check(&header, MAGIC, shared.group, file.number).map_err(|fault| fault.of(&window.path))?;
        Ok(window)
    }

    /// Appends a part of the file to `out`; it must lie inside the file.
    pub(super) fn read(
        &mut self,
        offset: u64,
        bytes: u64,
        out: &mut Vec<u8>,
        pace: Pace<'_>,
    ) -> Result<(), SnapshotError> {
        let (mut offset, end) = (offset, offset + bytes);
        assert!(end <= self.file_bytes, "what a manifest names lies inside its file");
        while offset < end {
            if offset < self.start || offset >= self.end() {
                // What is skipped is read too if it is little: the operating system reads ahead of whoever goes on
                // where they stopped.
                let goes_on = self.end() <= offset && offset < self.end() + self.piece_bytes / 2;
                self.fill(if goes_on { self.end() } else { offset }, pace)?;
            }
            let from = (offset - self.start) as usize;
            let to = self.piece.len().min((end - self.start) as usize);
            out.extend_from_slice(&self.piece[from..to]);
            offset = self.start + to as u64;
        }
        Ok(())
    }

    /// The bytes from an offset inside the file on, as many as are read at a time.
    pub(super) fn piece_at(&mut self, offset: u64, pace: Pace<'_>) -> Result<&[u8], SnapshotError> {
        self.fill(offset, pace)?;
        Ok(&self.piece)
    }

    fn end(&self) -> u64 {
        self.start + self.piece.len() as u64
    }

    fn fill(&mut self, offset: u64, pace: Pace<'_>) -> Result<(), SnapshotError> {
        let bytes = self.piece_bytes.min(self.file_bytes - offset);
        pace(bytes);
        self.start = offset;
        let before = std::mem::take(&mut self.piece);
        let read = match self.cache {
            Cache::Bypass => self.file.read_once(offset..offset + bytes),
            Cache::Use => {
                // Nobody else has the last piece, so its memory is used again.
                let mut piece = before.try_into_mut().unwrap_or_default();
                piece.resize(bytes as usize, 0);
                self.file.read_at(offset, &mut piece).map(|()| piece.freeze())
            }
        };
        let failed = |source| SnapshotError::Read { path: self.path.clone(), offset, bytes, source };
        self.piece = read.map_err(failed)?;
        Ok(())
    }
}
