//! Owns the errors of the log: one enum for opening it, one for using it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

use super::GroupId;

/// Why a log was not opened. Nothing was changed that a later attempt would miss.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The operating system refused an operation on a file or directory.
    #[error("{operation} {path:?} failed: {source}; the log was not opened")]
    Io {
        /// What was done.
        operation: Operation,
        /// On which file or directory.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// There is no log, and none was to be made.
    #[error("there is no log in {path:?}; if it is lost, rebuild this node's replicas from their peers")]
    MissingLog {
        /// The directory.
        path: PathBuf,
    },
    /// A segment between the oldest and the newest is not there.
    #[error("segment {path:?} is missing; put it back, or rebuild this node's replicas from their peers")]
    MissingSegment {
        /// The file that should be there.
        path: PathBuf,
    },
    /// Both copies of a segment's header are unreadable.
    #[error(
        "the header of segment {path:?} at offset {offset} is damaged in both copies; rebuild this node's replicas from their peers"
    )]
    SegmentHeader {
        /// The segment.
        path: PathBuf,
        /// Where the header starts, in bytes.
        offset: u64,
    },
    /// A segment carries another version of the format.
    #[error("segment {path:?} has format version {version}, this program reads version {supported}")]
    Version {
        /// The segment.
        path: PathBuf,
        /// What it says.
        version: u16,
        /// What this program reads.
        supported: u16,
    },
    /// A segment does not fit to its name or its neighbours: it comes from another log or was renamed.
    #[error("segment {path:?} does not belong where it is; was it copied from another directory?")]
    ForeignSegment {
        /// The segment.
        path: PathBuf,
    },
    /// A segment file is longer than any segment may be.
    #[error("segment {path:?} has {bytes} bytes, above the limit of {limit_bytes}")]
    SegmentTooLarge {
        /// The segment.
        path: PathBuf,
        /// Its length.
        bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
}

impl OpenError {
    /// Whether the disk did not give what was asked of it: what it holds may be as it was written.
    pub fn is_unread(&self) -> bool {
        matches!(self, Self::Io { .. })
    }

    /// The file or directory that it is about.
    pub fn path(&self) -> &Path {
        match self {
            Self::Io { path, .. }
            | Self::MissingLog { path }
            | Self::MissingSegment { path }
            | Self::SegmentHeader { path, .. }
            | Self::Version { path, .. }
            | Self::ForeignSegment { path }
            | Self::SegmentTooLarge { path, .. } => path,
        }
    }
}

/// Why the log refused or failed something. Cheap to clone, since one failure answers everybody who waits.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum LogError {
    /// A write or sync failed. Nothing that was not completed before is durable; the process must end.
    #[error("{operation} {path:?} failed: {source}; stop this process and start it again")]
    Failed {
        /// What was done.
        operation: Operation,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: Arc<io::Error>,
    },
    /// The group may have lost records to damage on disk; it neither votes nor serves.
    #[error("group {group} is quarantined: damage in {path:?} at offset {offset}; rebuild this replica from its peers, or, if it has none, restore a backup", group = group.0)]
    Quarantined {
        /// The group.
        group: GroupId,
        /// The damaged file.
        path: PathBuf,
        /// Where the damage starts, in bytes.
        offset: u64,
    },
    /// A segment could not be read.
    #[error("reading {bytes} bytes of {path:?} at offset {offset} failed: {source}")]
    Read {
        /// The segment.
        path: PathBuf,
        /// Where, in bytes.
        offset: u64,
        /// How much.
        bytes: u64,
        /// Why it failed.
        source: Arc<io::Error>,
    },
    /// The record does not fit into a segment, or is a control record above its limit.
    #[error("a record of {bytes} bytes is above the limit of {limit_bytes}")]
    RecordTooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// An entry does not follow the one before.
    #[error("group {group}: entry {index} does not follow, {expected} was expected", group = group.0)]
    Gap {
        /// The group.
        group: GroupId,
        /// The index that came.
        index: u64,
        /// The index that would follow.
        expected: u64,
    },
    /// The disk has no room for another segment. Nothing was taken; try again when there is room.
    #[error("no room for another log segment: {source}; free disk space, then writes go on")]
    DiskFull {
        /// What making the segment failed with.
        source: Arc<io::Error>,
    },
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
}

impl LogError {
    /// Whether the process must end: what the log holds in memory may not be what the disk holds.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Failed { .. })
    }
}

/// What was being done when the operating system reported an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names say it")]
pub enum Operation {
    CreateDirectory,
    ListDirectory,
    SyncDirectory,
    Create,
    Open,
    Read,
    Map,
    Write,
    Sync,
    Rename,
    Remove,
    StartThread,
}

impl std::fmt::Display for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::CreateDirectory => "making the directory",
            Self::ListDirectory => "listing the directory",
            Self::SyncDirectory => "syncing the directory",
            Self::Create => "making the file",
            Self::Open => "opening",
            Self::Read => "reading",
            Self::Map => "mapping",
            Self::Write => "writing",
            Self::Sync => "syncing",
            Self::Rename => "renaming",
            Self::Remove => "removing",
            Self::StartThread => "starting the thread for",
        })
    }
}
