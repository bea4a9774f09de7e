//! Owns the translation of an operating system's error into the log's errors, with the file it concerns.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{LogError, OpenError, Operation};

/// An operation on a file or directory that failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) operation: Operation,
    pub(super) path: PathBuf,
    pub(super) source: io::Error,
}

/// Adds to an error what was done, and where.
pub(super) trait OrFail<T> {
    fn or_fail(self, operation: Operation, path: &Path) -> Result<T, Failure>;
}

impl<T> OrFail<T> for io::Result<T> {
    fn or_fail(self, operation: Operation, path: &Path) -> Result<T, Failure> {
        self.map_err(|source| Failure { operation, path: path.to_path_buf(), source })
    }
}

impl From<Failure> for OpenError {
    fn from(failure: Failure) -> Self {
        Self::Io { operation: failure.operation, path: failure.path, source: failure.source }
    }
}

impl From<Failure> for LogError {
    fn from(failure: Failure) -> Self {
        let source = Arc::new(failure.source);
        Self::Failed { operation: failure.operation, path: failure.path, source }
    }
}

/// Whether the disk has no room; it may have some later.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
