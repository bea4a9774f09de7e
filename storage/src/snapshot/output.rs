//! Owns a file that is being written, in blocks beside the page cache: it has the name of an unfinished one until it is renamed.
//!
//! - What was not renamed is removed when it is dropped, and at the latest at the next open.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::error::OrFail;
use super::name::Kind;
use super::shared::Shared;
use super::{Pace, SnapshotError};
use crate::fs::{File, Filling};
use crate::log::Operation;

/// Bytes after which what was written is synced, so that other files' syncs never wait for much of this one.
const SYNC_EVERY_BYTES: u64 = 16 << 20;

/// A file that is being written, from its start to its end.
#[derive(Debug)]
pub(super) struct Output {
    shared: Arc<Shared>,
    pub(super) number: u64,
    path: PathBuf,
    file: Arc<dyn File>,
    /// What is written next.
    next: Filling,
    written_bytes: u64,
    synced_bytes: u64,
    renamed: bool,
}

impl Output {
    /// Makes the file with a number that is its own.
    pub(super) fn create(shared: &Arc<Shared>, number: u64) -> Result<Self, SnapshotError> {
        let path = shared.dir.join(Kind::Unfinished.name(number));
        let file = shared.fs.create(&path).or_fail(Operation::Create, &path)?;
        let next = Filling::new().or_fail(Operation::Create, &path)?;
        let shared = Arc::clone(shared);
        Ok(Self { shared, number, path, file, next, written_bytes: 0, synced_bytes: 0, renamed: false })
    }

    /// The file while it has no name of its own.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes appended so far.
    pub(super) fn bytes(&self) -> u64 {
        self.written_bytes + self.next.bytes().len() as u64
    }

    pub(super) fn append(&mut self, mut bytes: &[u8], pace: Pace<'_>) -> Result<(), SnapshotError> {
        while !bytes.is_empty() {
            bytes = self.next.fill(bytes);
            if self.next.is_full() {
                self.write(pace)?;
            }
        }
        Ok(())
    }

    /// Makes what was appended durable.
    pub(super) fn sync(&mut self, pace: Pace<'_>) -> Result<(), SnapshotError> {
        self.write(pace)?;
        self.file.sync_data().or_fail(Operation::Sync, &self.path)?;
        self.synced_bytes = self.written_bytes;
        Ok(())
    }

    fn write(&mut self, pace: Pace<'_>) -> Result<(), SnapshotError> {
        let bytes = self.next.bytes().len() as u64;
        if bytes == 0 {
            return Ok(());
        }
        pace(bytes);
        self.file.write_aside(self.written_bytes, self.next.bytes()).or_fail(Operation::Write, &self.path)?;
        self.next.clear();
        self.written_bytes += bytes;
        self.shared.written_bytes.fetch_add(bytes, Ordering::Relaxed);
        if self.written_bytes - self.synced_bytes >= SYNC_EVERY_BYTES {
            self.file.sync_data().or_fail(Operation::Sync, &self.path)?;
            self.synced_bytes = self.written_bytes;
        }
        Ok(())
    }

    /// Gives the synced file its name, and makes that durable.
    pub(super) fn rename(mut self, kind: Kind) -> Result<(), SnapshotError> {
        assert!(self.synced_bytes == self.bytes(), "a file is durable before it has its name");
        let path = self.shared.dir.join(kind.name(self.number));
        self.shared.fs.rename(&self.path, &path).or_fail(Operation::Rename, &path)?;
        self.renamed = true;
        self.shared.sync_dir()
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if !self.renamed {
            // If it cannot be removed now, the next open does it.
            let _ = self.shared.fs.remove(&self.path);
        }
    }
}
