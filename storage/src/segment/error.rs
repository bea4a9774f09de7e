//! Owns the one error of segments.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

use crate::ids::EntryId;
use crate::log::Operation;

/// Why a segment could not be written, opened or read. Cheap to clone, since one damage answers everybody who reads.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum SegmentError {
    /// The operating system refused an operation. What was being written is no segment, unless the directory's sync alone failed.
    #[error("{operation} {path:?} failed: {source}")]
    Io {
        /// What was done.
        operation: Operation,
        /// On which file or directory.
        path: PathBuf,
        /// Why it failed.
        source: Arc<io::Error>,
    },
    /// A segment that should be there is not.
    #[error("segment {path:?} is missing; put it back")]
    Missing {
        /// The file that should be there.
        path: PathBuf,
    },
    /// Bytes of a segment are not what was written.
    #[error("segment {path:?} is damaged at offset {offset}: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the damaged piece starts, in bytes.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// A file is no segment at all.
    #[error("{path:?} is no segment: it neither begins nor ends as one does")]
    NotASegment {
        /// The file.
        path: PathBuf,
    },
    /// A segment carries another version of the format.
    #[error("segment {path:?} has format version {version}, this program reads version {supported}")]
    Version {
        /// The file.
        path: PathBuf,
        /// What it says.
        version: u16,
        /// What this program reads.
        supported: u16,
    },
    /// A whole segment, but not the expected one.
    #[error(
        "segment {path:?} is another one than expected: {what} differs; was it copied from another directory?"
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What differs first.
        what: &'static str,
    },
    /// There is a file of this number.
    #[error("segment {path:?} exists; numbers are never used twice")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// An entry does not follow the one before it, or its id was added before.
    #[error(
        "entry {id} cannot be added to segment {path:?}: entries come by space, owner and descending id, and ids are unique"
    )]
    OutOfOrder {
        /// The file that was being written.
        path: PathBuf,
        /// The entry.
        id: EntryId,
    },
    /// No entry was added.
    #[error("segment {path:?} would be empty")]
    Empty {
        /// The file that was being written.
        path: PathBuf,
    },
    /// More entries than a segment can hold.
    #[error("segment {path:?} holds {limit} entries, the most there can be")]
    TooMany {
        /// The file that was being written.
        path: PathBuf,
        /// The limit.
        limit: u64,
    },
}

impl SegmentError {
    /// Whether the disk is full: trying again when there is room may help.
    pub fn is_full(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded))
    }

    /// The file that it is about, and where in it if that can be said; none if nothing is wrong with a file.
    pub fn place(&self) -> Option<(&Path, Option<u64>)> {
        match self {
            Self::Damaged { path, offset, .. } => Some((path, Some(*offset))),
            Self::Io { path, .. }
            | Self::Missing { path }
            | Self::NotASegment { path }
            | Self::Version { path, .. }
            | Self::Foreign { path, .. } => Some((path, None)),
            _ => None,
        }
    }

    pub(super) fn damaged(path: &Path, offset: u64, what: &'static str) -> Self {
        Self::Damaged { path: path.to_path_buf(), offset, what }
    }
}

/// What is wrong with bytes whose file is not known here.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flaw {
    pub(super) offset: u64,
    pub(super) what: &'static str,
}

impl Flaw {
    pub(super) fn at(self, path: &Path) -> SegmentError {
        SegmentError::damaged(path, self.offset, self.what)
    }
}

/// Adds to an error what was done, and where.
pub(super) trait OrFail<T> {
    fn or_fail(self, operation: Operation, path: &Path) -> Result<T, SegmentError>;
}

impl<T> OrFail<T> for io::Result<T> {
    fn or_fail(self, operation: Operation, path: &Path) -> Result<T, SegmentError> {
        self.map_err(|source| SegmentError::Io {
            operation,
            path: path.to_path_buf(),
            source: Arc::new(source),
        })
    }
}
