//! Owns the error of the snapshot store.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::header::VERSION;
use crate::codec::Malformed;
use crate::log::Operation;

/// Why a snapshot was not written, or cannot be used. Nothing that was there before is lost by it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The operating system refused an operation on a file or directory.
    #[error("{operation} {path:?} failed: {source}")]
    Io {
        /// What was done.
        operation: Operation,
        /// On which file or directory.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A part of a file could not be read.
    #[error("reading {bytes} bytes of {path:?} at offset {offset} failed: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Where, in bytes.
        offset: u64,
        /// How much.
        bytes: u64,
        /// Why it failed.
        source: io::Error,
    },
    /// A file that a snapshot names is not there.
    #[error("{path:?} is missing; put it back")]
    Missing {
        /// The file that should be there.
        path: PathBuf,
    },
    /// A file has another length than the snapshot says.
    #[error("{path:?} has {bytes} bytes where {expected_bytes} were written; put it back as it was")]
    Length {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
        /// What the manifest says.
        expected_bytes: u64,
    },
    /// Bytes are not those that were written.
    #[error("{path:?} is damaged at offset {offset}: wrong {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the damaged part starts, in bytes.
        offset: u64,
        /// What does not fit.
        what: &'static str,
    },
    /// A bucket holds what it was given, but whoever reads it does not understand it.
    #[error("bucket {number} of section {section} in {path:?} at offset {offset} cannot be read: {source}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where the bucket starts, in bytes.
        offset: u64,
        /// Its section.
        section: u8,
        /// Its number in the section.
        number: u64,
        /// What was found.
        source: Malformed,
    },
    /// A file carries another version of the format.
    #[error("{path:?} has format version {version}, this program reads version {supported}")]
    Version {
        /// The file.
        path: PathBuf,
        /// What it says.
        version: u16,
        /// What this program reads.
        supported: u16,
    },
    /// A file belongs to another group, or has another file's name.
    #[error("{path:?} does not belong where it is; was it copied from another directory?")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A part of a snapshot is larger than the format allows.
    #[error("the {what} of a snapshot has {bytes} bytes, above the limit of {limit_bytes}")]
    TooLarge {
        /// Which part.
        what: &'static str,
        /// Its size.
        bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// The snapshot that unchanged buckets were to be taken from was found damaged meanwhile.
    #[error(
        "snapshot {number:016x}, which this one was to build on, is damaged; the next one is written in full"
    )]
    DamagedBase {
        /// The number of that snapshot.
        number: u64,
    },
}

impl SnapshotError {
    /// Whether the disk has no room. Nothing is lost; try again when there is.
    pub fn is_full(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded))
    }

    /// Whether the snapshot cannot be used; otherwise only this attempt failed.
    pub fn is_damage(&self) -> bool {
        self.place().is_some()
    }

    /// Whether the disk did not give what was asked of it: what it holds may be as it was written.
    pub fn is_unread(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::Read { .. })
    }

    /// The damaged file, and where in it; none if no file is to blame.
    pub fn place(&self) -> Option<(&Path, Option<u64>)> {
        match self {
            Self::Missing { path }
            | Self::Length { path, .. }
            | Self::Version { path, .. }
            | Self::Foreign { path } => Some((path, None)),
            Self::Read { path, offset, .. }
            | Self::Damaged { path, offset, .. }
            | Self::Malformed { path, offset, .. } => Some((path, Some(*offset))),
            Self::Io { .. } | Self::TooLarge { .. } | Self::DamagedBase { .. } => None,
        }
    }
}

/// What is wrong with the bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Damaged { offset: u64, what: &'static str },
    Version(u16),
    Foreign,
}

impl Fault {
    /// The error that says in which file it is.
    pub(super) fn of(self, path: &Path) -> SnapshotError {
        let path = path.to_path_buf();
        match self {
            Self::Damaged { offset, what } => SnapshotError::Damaged { path, offset, what },
            Self::Version(version) => SnapshotError::Version { path, version, supported: VERSION },
            Self::Foreign => SnapshotError::Foreign { path },
        }
    }
}

/// Adds to an error what was done, and on which file.
pub(super) trait OrFail<T> {
    fn or_fail(self, operation: Operation, path: &Path) -> Result<T, SnapshotError>;
}

impl<T> OrFail<T> for io::Result<T> {
    fn or_fail(self, operation: Operation, path: &Path) -> Result<T, SnapshotError> {
        self.map_err(|source| match (operation, source.kind()) {
            (Operation::Open, io::ErrorKind::NotFound) => SnapshotError::Missing { path: path.to_path_buf() },
            _ => SnapshotError::Io { operation, path: path.to_path_buf(), source },
        })
    }
}
