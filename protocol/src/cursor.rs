//! Owns cursors and marks: where a scan goes on, and what "new since" counts from.
//!
//! Both are opaque to applications: versioned byte strings with a checksum (`PROTOCOL.md`, "Sealed strings").

use bytes::Bytes;

use crate::error::BodyError;
use crate::field::Field;
use crate::ids::{EntryId, GraphId, PartitionId, SpaceId, UserId};
use crate::sealed::{self, Kind, SealedError};
use crate::status::Status;
use crate::wire::{Reader, Writer};

/// Which scan a cursor belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CursorScope {
    /// The feed of the subject in a space.
    Feed(SpaceId),
    /// The timeline of the subject in a space.
    Timeline(SpaceId),
    /// The owners whom the subject follows in a graph.
    Followees(GraphId),
    /// The readers who follow the subject in a graph.
    Followers(GraphId),
}

/// The last edge a scan of a graph has shown; the scan goes on after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EdgePosition {
    /// The partition of the user; scans of followers go by partition, then user.
    pub partition: PartitionId,
    /// The user shown last.
    pub user: UserId,
}

/// Where a scan goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// The scan it belongs to.
    pub scope: CursorScope,
    /// Whose feed, timeline, followees or followers are scanned.
    pub subject: UserId,
    /// The next page shows entries with smaller ids only; zero for scans of a graph.
    pub below: EntryId,
    /// What the scan counts as delivered when its first page was read; zero when unused.
    pub as_of: u64,
    /// The last edge shown; only for scans of a graph.
    pub after: Option<EdgePosition>,
}

/// A point in the arrivals of one reader's feed; `newer_than` counts from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mark {
    /// The reader's partition.
    pub partition: PartitionId,
    /// The incarnation of that partition; a mark of another one counts from the id bound only.
    pub incarnation: u64,
    /// Rows at or above this position arrived after the mark.
    pub row_position: u64,
    /// The largest id shown when the mark was made.
    pub id_bound: EntryId,
}

impl CursorScope {
    fn parts(self) -> (u8, u16) {
        match self {
            Self::Feed(space) => (1, space.0),
            Self::Timeline(space) => (2, space.0),
            Self::Followees(graph) => (3, graph.0),
            Self::Followers(graph) => (4, graph.0),
        }
    }

    fn from_parts(kind: u8, number: u16) -> Option<Self> {
        Some(match kind {
            1 => Self::Feed(SpaceId(number)),
            2 => Self::Timeline(SpaceId(number)),
            3 => Self::Followees(GraphId(number)),
            4 => Self::Followers(GraphId(number)),
            _ => return None,
        })
    }
}

impl Cursor {
    /// Accepts the cursor for the scan it was made for, and for no other.
    pub fn check(&self, scope: CursorScope, subject: UserId) -> Result<(), Status> {
        if self.scope == scope && self.subject == subject { Ok(()) } else { Err(Status::BadCursor) }
    }

    /// The cursor as bytes to keep, at most 64.
    pub fn to_bytes(&self) -> Bytes {
        sealed::seal(Kind::Cursor, |w| self.content(w))
    }

    fn content(&self, w: &mut Writer) {
        let (kind, number) = self.scope.parts();
        w.byte(kind);
        w.number(number);
        w.number(self.subject.0);
        w.fixed64(self.below.0);
        w.number(self.as_of);
        w.boolean(self.after.is_some());
        if let Some(after) = self.after {
            w.number(after.partition.0);
            w.number(after.user.0);
        }
    }

    /// The cursor that `to_bytes` made these bytes of.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SealedError> {
        sealed::open(Kind::Cursor, bytes, |r| {
            let at = Field::Cursor;
            let scope = CursorScope::from_parts(r.byte(at)?, r.number16(at)?).ok_or(BodyError::BadCursor)?;
            Ok(Self {
                scope,
                subject: r.user(at)?,
                below: r.entry_id(at)?,
                as_of: r.number(at)?,
                after: if r.boolean(at)? {
                    Some(EdgePosition { partition: PartitionId(r.number16(at)?), user: r.user(at)? })
                } else {
                    None
                },
            })
        })
    }

    pub(crate) fn encode(&self, w: &mut Writer) {
        sealed::put_with_length(w, Kind::Cursor, |w| self.content(w));
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        let bytes = r.bytes(Field::Cursor)?;
        Self::from_bytes(&bytes).map_err(|_| BodyError::BadCursor)
    }
}

impl Mark {
    /// The mark as bytes to keep, at most 64.
    pub fn to_bytes(&self) -> Bytes {
        sealed::seal(Kind::Mark, |w| self.content(w))
    }

    fn content(&self, w: &mut Writer) {
        w.number(self.partition.0);
        w.number(self.incarnation);
        w.number(self.row_position);
        w.fixed64(self.id_bound.0);
    }

    /// The mark that `to_bytes` made these bytes of.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SealedError> {
        sealed::open(Kind::Mark, bytes, |r| {
            Ok(Self {
                partition: PartitionId(r.number16(Field::Mark)?),
                incarnation: r.number(Field::Mark)?,
                row_position: r.number(Field::Mark)?,
                id_bound: r.entry_id(Field::Mark)?,
            })
        })
    }

    pub(crate) fn encode(&self, w: &mut Writer) {
        sealed::put_with_length(w, Kind::Mark, |w| self.content(w));
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        let bytes = r.bytes(Field::Mark)?;
        Self::from_bytes(&bytes).map_err(|_| BodyError::Malformed { field: Field::Mark })
    }
}
