//! Owns the meaning of log records: what a group writes into the log, in the caller's order.

use bytes::Bytes;

use super::GroupId;

/// The most bytes that `data` of a vote, a committed position or a purge mark may have.
///
/// These are copied forward when old segments are reused, so they are kept small.
pub const CONTROL_BYTES_MAX: u64 = 4096;

/// One record of the log. The bytes are the caller's; the log never looks inside.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Record {
    /// The group's vote; the last one counts. At most [`CONTROL_BYTES_MAX`] bytes.
    Vote {
        /// Whose vote.
        group: GroupId,
        /// The vote, as the caller encodes it.
        data: Bytes,
    },
    /// One Raft entry. Its index must follow the group's last one, or the purge mark if there is no entry; a group
    /// with neither may start at any index.
    Append {
        /// Whose entry.
        group: GroupId,
        /// The entry's index.
        index: u64,
        /// The entry, as the caller encodes it.
        data: Bytes,
    },
    /// Removes all entries after an index, or all entries.
    TruncateAfter {
        /// Whose entries.
        group: GroupId,
        /// The last index that stays; none removes everything.
        index: Option<u64>,
    },
    /// Removes all entries up to and including an index, which may lie beyond the last one.
    Purge {
        /// Whose entries.
        group: GroupId,
        /// The last index that goes.
        index: u64,
        /// The id of that Raft entry, as the caller encodes it. At most [`CONTROL_BYTES_MAX`] bytes.
        data: Bytes,
    },
    /// The last committed position the group knows of: a hint, which alone forces no fsync and may be lost.
    Committed {
        /// Whose position.
        group: GroupId,
        /// The position, as the caller encodes it. At most [`CONTROL_BYTES_MAX`] bytes.
        data: Bytes,
    },
    /// Forgets everything about a group, its quarantine included: the first step of rebuilding a replica.
    Forget {
        /// Which group.
        group: GroupId,
    },
}

impl Record {
    /// The group that this record belongs to.
    pub fn group(&self) -> GroupId {
        match self {
            Self::Vote { group, .. }
            | Self::Append { group, .. }
            | Self::TruncateAfter { group, .. }
            | Self::Purge { group, .. }
            | Self::Committed { group, .. }
            | Self::Forget { group } => *group,
        }
    }

    /// The caller's bytes; empty for records that have none.
    pub fn data(&self) -> &[u8] {
        match self {
            Self::Vote { data, .. }
            | Self::Append { data, .. }
            | Self::Purge { data, .. }
            | Self::Committed { data, .. } => data,
            Self::TruncateAfter { .. } | Self::Forget { .. } => &[],
        }
    }
}
