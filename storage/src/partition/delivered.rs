//! Owns the delivered table: one row per entry that reached this partition, in order of arrival.
//!
//! - Positions are 64-bit and never reused; the window holds at most 2^31 of them (R6).
//! - Rows of one owner and space form a chain, largest id first (R5).
//! - Rows of a chain arrived in the order of their ids, so what leaves the window leaves the end of its chain.

use std::collections::VecDeque;

use super::map::IdMap;
use super::owners::OwnerIndex;
use crate::entry::{Audience, Delivery};
use crate::ids::{EntryId, RowPosition, SpaceId, Stamp, UserId};

/// The largest window, so that the low half of a position tells its place (R6).
pub(super) const WINDOW_ROWS_MAX: u32 = 1 << 31;

/// Why a row is not shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowState {
    Live,
    /// Its expiry has passed; an update puts it back (R13).
    Expired,
    /// Deleted by its owner, or its subscription ended; for ever.
    Dead,
}

/// What the partition knows of one entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) id: EntryId,
    pub(super) owner: OwnerIndex,
    pub(super) space: SpaceId,
    pub(super) state: RowState,
    pub(super) audience: Audience,
    /// It came by backfill, so its arrival says nothing of when it was new.
    pub(super) backfill: bool,
    pub(super) version: u32,
    pub(super) expiry: Option<Stamp>,
    /// The row of the same owner and space with the next smaller id.
    pub(super) previous: Option<RowPosition>,
}

/// Author and referenced owner, where they are not the usual ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Involved {
    pub(super) author: Option<UserId>,
    pub(super) referenced_owner: Option<UserId>,
}

#[derive(Debug, Default)]
pub(super) struct Delivered {
    pub(super) rows: VecDeque<Row>,
    /// The position of the first row of the window.
    pub(super) base: u64,
    pub(super) involved: IdMap<RowPosition, Involved>,
}

impl Delivered {
    pub(super) fn next(&self) -> RowPosition {
        RowPosition(self.base + self.rows.len() as u64)
    }

    pub(super) fn get(&self, position: RowPosition) -> Option<&Row> {
        let offset = position.0.checked_sub(self.base)?;
        self.rows.get(usize::try_from(offset).ok()?)
    }

    pub(super) fn get_mut(&mut self, position: RowPosition) -> Option<&mut Row> {
        let offset = position.0.checked_sub(self.base)?;
        self.rows.get_mut(usize::try_from(offset).ok()?)
    }

    /// Adds a row behind all others.
    pub(super) fn push(&mut self, row: Row, involved: Involved) -> RowPosition {
        let position = self.next();
        if involved != (Involved { author: None, referenced_owner: None }) {
            self.involved.insert(position, involved);
        }
        self.rows.push_back(row);
        position
    }

    /// Takes the oldest row out of the window.
    pub(super) fn pop(&mut self) -> Option<(RowPosition, Row)> {
        let row = self.rows.pop_front()?;
        let position = RowPosition(self.base);
        self.base += 1;
        self.involved.remove(&position);
        Some((position, row))
    }

    /// Author and referenced owner of a row.
    pub(super) fn involved(&self, position: RowPosition) -> Involved {
        let usual = Involved { author: None, referenced_owner: None };
        self.involved.get(&position).copied().unwrap_or(usual)
    }

    /// The rows of a chain from `head` on, largest id first.
    pub(super) fn chain(&self, head: Option<RowPosition>) -> Chain<'_> {
        Chain { table: self, at: head }
    }

    /// What a reader is shown of a row.
    pub(super) fn delivery(&self, position: RowPosition, row: &Row, owner: UserId) -> Delivery {
        let involved = self.involved(position);
        Delivery {
            id: row.id,
            owner,
            author: involved.author.unwrap_or(owner),
            audience: row.audience,
            referenced_owner: involved.referenced_owner,
            version: row.version,
            expiry: row.expiry,
        }
    }

    /// Bytes of memory it holds.
    pub(super) fn memory(&self) -> usize {
        self.rows.capacity() * size_of::<Row>()
            + self.involved.capacity() * (size_of::<(RowPosition, Involved)>() + 1)
    }
}

/// Walks a chain; ends where it leaves the window.
#[derive(Clone)]
pub(super) struct Chain<'a> {
    table: &'a Delivered,
    at: Option<RowPosition>,
}

impl<'a> Iterator for Chain<'a> {
    type Item = (RowPosition, &'a Row);

    fn next(&mut self) -> Option<Self::Item> {
        let position = self.at?;
        let row = self.table.get(position)?;
        self.at = row.previous;
        Some((position, row))
    }
}
