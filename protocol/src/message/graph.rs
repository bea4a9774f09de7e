//! Owns the requests about edges: counts and scans.

use crate::cursor::Cursor;
use crate::error::BodyError;
use crate::field::Field;
use crate::ids::{GraphId, Stamp, UserId};
use crate::wire::{Reader, Writer, bitmap};

/// Asks how many follow a user and how many the user follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GetCounts {
    /// The graph.
    pub graph: GraphId,
    /// The user.
    pub user: UserId,
}

/// How many follow a user and how many the user follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Readers who follow the user.
    pub followers: u64,
    /// Owners whom the user follows.
    pub followees: u64,
}

/// Scans the owners whom a reader follows, or the readers who follow an owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanEdges {
    /// The graph.
    pub graph: GraphId,
    /// The reader (followees) or owner (followers).
    pub user: UserId,
    /// Users wanted, 1 to 1,000.
    pub limit: u32,
    /// Where to go on.
    pub cursor: Option<Cursor>,
}

/// One edge of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Edge {
    /// The other user.
    pub user: UserId,
    /// Since when.
    pub since: Stamp,
}

/// A page of a scan of edges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EdgePage {
    /// The edges.
    pub users: Vec<Edge>,
    /// Where to go on; `None` at the end.
    pub next: Option<Cursor>,
}

/// Most users of one page of a scan.
pub const PAGE_USERS_MAX: usize = 1_000;

impl GetCounts {
    pub(crate) fn encode(self, w: &mut Writer) {
        w.number(self.graph.0);
        w.number(self.user.0);
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        Ok(Self { graph: GraphId(r.number16(Field::Graph)?), user: r.user(Field::User)? })
    }
}

impl Counts {
    pub(crate) fn encode(self, w: &mut Writer) {
        w.number(self.followers);
        w.number(self.followees);
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        Ok(Self { followers: r.number(Field::Users)?, followees: r.number(Field::Users)? })
    }
}

impl ScanEdges {
    pub(crate) fn encode(&self, w: &mut Writer) {
        w.byte(bitmap([self.cursor.is_some()]));
        w.number(self.graph.0);
        w.number(self.user.0);
        w.number(self.limit);
        if let Some(cursor) = &self.cursor {
            cursor.encode(w);
        }
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        let present = r.presence(0b1)?;
        Ok(Self {
            graph: GraphId(r.number16(Field::Graph)?),
            user: r.user(Field::User)?,
            limit: r.number32(Field::Limit)?,
            cursor: r.optional(present, 0, Cursor::decode)?,
        })
    }
}

impl EdgePage {
    pub(crate) fn encode(&self, w: &mut Writer) {
        let sorted = self.users.is_sorted_by_key(|edge| edge.user);
        w.byte(bitmap([self.next.is_some()]));
        if let Some(next) = &self.next {
            next.encode(w);
        }
        w.list_header(self.users.len(), sorted);
        let mut previous = 0;
        for edge in &self.users {
            w.number(edge.user.0 - if sorted { previous } else { 0 });
            w.number(edge.since.0);
            previous = edge.user.0;
        }
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        let present = r.presence(0b1)?;
        let next = r.optional(present, 0, Cursor::decode)?;
        let (count, sorted) = r.list_header(Field::Users, 2, PAGE_USERS_MAX)?;
        let mut users = Vec::with_capacity(count);
        let mut previous = 0u64;
        for _ in 0..count {
            let base = if sorted { previous } else { 0 };
            let number = r.number(Field::Users)?;
            previous = base.checked_add(number).ok_or(BodyError::Malformed { field: Field::Users })?;
            users.push(Edge { user: UserId(previous), since: Stamp(r.number(Field::Users)?) });
        }
        Ok(Self { users, next })
    }
}
