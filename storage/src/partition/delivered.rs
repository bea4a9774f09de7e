//! Owns the delivered table: one row per entry that reached this partition, in order of arrival.
//!
//! - Positions are 64-bit and never reused; the window holds at most 2^31 of them (R6).
//! - Rows of one owner and space form a chain, largest id first (R5).
//! - Rows of a chain arrived in the order of their ids, so what leaves the window leaves the end of its chain.
//! - Whoever changes a row tells a cut before. One that leaves the window leaves its bucket as it is: a bucket's rows before
//!   the window are ignored.
//! - Rows lie in chunks that are reserved at once; growth never moves one. What is rare of a row stands aside.

use std::collections::VecDeque;

use super::cut::Tracked;
use super::map::IdMap;
use super::owners::OwnerIndex;
use super::prefetch::prefetch_whole;
use super::row::ROW_BYTES;
pub(super) use super::row::{Row, RowState};
use crate::codec::{Encoded, Malformed, Reader, encoded_struct};
use crate::entry::Delivery;
use crate::ids::{EntryId, RowPosition, SpaceId, Stamp, UserId};

/// The largest window, so that the low half of a position tells its place (R6).
pub(super) const WINDOW_ROWS_MAX: u32 = 1 << 31;

/// Rows of a chunk, and of a bucket, as a power of two.
pub(super) const CHUNK_SHIFT: u32 = 12;

/// Rows of a chunk: 96 KiB.
const CHUNK_ROWS: u64 = 1 << CHUNK_SHIFT;

/// Rows whose largest id is known: a reader of a few rows looks at few more.
const BLOCK_ROWS: u64 = 64;

/// What is rare of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Aside {
    /// The author, if it is not the owner.
    pub(super) author: Option<UserId>,
    pub(super) referenced_owner: Option<UserId>,
    /// The version, if it is not 1.
    pub(super) version: Option<u32>,
    /// The expiry, if the row cannot hold it.
    pub(super) expiry: Option<Stamp>,
}

encoded_struct!(Aside { author, referenced_owner, version, expiry });

impl Aside {
    const NOTHING: Self = Self { author: None, referenced_owner: None, version: None, expiry: None };
}

#[derive(Debug)]
pub(super) struct Delivered {
    /// Rows by position.
    pub(super) tracked: Tracked,
    /// Each covers the positions from a multiple of [`CHUNK_ROWS`] on. In the first, those below `base` are gone.
    chunks: VecDeque<Vec<Row>>,
    /// The position of the first row of the window.
    base: u64,
    len: u64,
    asides: IdMap<RowPosition, Aside>,
    /// For each block of positions that reaches into the window, at least the largest id up to its end.
    tops: VecDeque<EntryId>,
}

impl Default for Delivered {
    fn default() -> Self {
        Self::starting_at(0)
    }
}

/// Reads a row with what stands aside of it, as a bucket holds them.
pub(super) fn decode_row(from: &mut Reader<'_>) -> Result<(Row, Option<Aside>), Malformed> {
    let raw = from.raw(ROW_BYTES)?.first_chunk();
    let row = raw.and_then(Row::from_raw).ok_or(from.malformed("row"))?;
    let aside = if row.has_aside() { Some(Aside::decode(from)?) } else { None };
    Ok((row, aside))
}

impl Delivered {
    /// A table without rows whose first one will have the position `base`.
    pub(super) fn starting_at(base: u64) -> Self {
        Self {
            tracked: Tracked::new(CHUNK_SHIFT),
            chunks: VecDeque::new(),
            base,
            len: 0,
            asides: IdMap::default(),
            tops: VecDeque::new(),
        }
    }

    pub(super) fn base(&self) -> u64 {
        self.base
    }

    /// Rows in the window.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn next(&self) -> RowPosition {
        RowPosition(self.base + self.len)
    }

    /// The chunk of a position, and the place in it.
    #[inline]
    fn place(&self, position: RowPosition) -> Option<(usize, usize)> {
        let inside = position.0.wrapping_sub(self.base) < self.len;
        let chunk = (position.0 / CHUNK_ROWS).wrapping_sub(self.base / CHUNK_ROWS) as usize;
        inside.then_some((chunk, (position.0 % CHUNK_ROWS) as usize))
    }

    #[inline]
    pub(super) fn get(&self, position: RowPosition) -> Option<&Row> {
        let (chunk, place) = self.place(position)?;
        self.chunks.get(chunk)?.get(place)
    }

    /// A row that is about to change.
    pub(super) fn get_mut(&mut self, position: RowPosition) -> Option<&mut Row> {
        let (chunk, place) = self.place(position)?;
        let row = self.chunks.get_mut(chunk)?.get_mut(place)?;
        self.tracked.touch(position.0, |out| encode_row(row, &self.asides, position, out));
        Some(row)
    }

    /// Writes a row as a bucket holds it.
    pub(super) fn encode_row(&self, position: RowPosition, out: &mut Vec<u8>) {
        if let Some(row) = self.get(position) {
            encode_row(row, &self.asides, position, out);
        }
    }

    /// Adds a row of an image behind all others.
    pub(super) fn restore(&mut self, row: Row, aside: Option<Aside>) {
        if let Some(aside) = aside {
            self.asides.insert(self.next(), aside);
        }
        self.append(row);
    }

    /// Asks for a row that is about to be read.
    #[inline]
    pub(super) fn prefetch(&self, position: RowPosition) {
        if let Some(row) = self.get(position) {
            prefetch_whole(row);
        }
    }

    /// No row up to this position has a larger id.
    #[inline]
    pub(super) fn top(&self, position: RowPosition) -> EntryId {
        let block = (position.0 / BLOCK_ROWS).checked_sub(self.base / BLOCK_ROWS);
        // What is before the window is gone.
        block.map_or(EntryId::ZERO, |block| self.tops.get(block as usize).copied().unwrap_or(EntryId::MAX))
    }

    /// Adds a row of an entry behind all others; `previous` is the next older one of its chain.
    pub(super) fn push(
        &mut self,
        (owner, space): (OwnerIndex, SpaceId),
        delivery: &Delivery,
        previous: Option<RowPosition>,
        backfill: bool,
    ) -> RowPosition {
        let position = self.next();
        let mut row = Row::new(delivery.id, owner, space, delivery.audience);
        row.set_backfill(backfill);
        row.set_previous(position, previous);
        self.append(row);
        self.update(position, delivery);
        position
    }

    /// Adds a row as it is behind all others.
    pub(super) fn append(&mut self, row: Row) {
        let position = self.next();
        self.tracked.add(position.0);
        if self.chunks.is_empty() || position.0.is_multiple_of(CHUNK_ROWS) {
            let mut chunk = Vec::with_capacity(CHUNK_ROWS as usize);
            // What a first chunk would hold below the base is never looked at.
            chunk.resize((position.0 % CHUNK_ROWS) as usize, row);
            self.chunks.push_back(chunk);
        }
        let chunk = self.chunks.back_mut().expect("a chunk that was there or was made");
        chunk.push(row);
        self.len += 1;
        let top = self.tops.back().copied().unwrap_or_default().max(row.id);
        if self.tops.is_empty() || position.0.is_multiple_of(BLOCK_ROWS) {
            self.tops.push_back(top);
        } else if let Some(last) = self.tops.back_mut() {
            *last = top;
        }
    }

    /// Brings version, expiry, author and reference of a row up to its entry.
    pub(super) fn update(&mut self, position: RowPosition, delivery: &Delivery) {
        let Some(row) = self.get_mut(position) else { return };
        let near = row.set_near_expiry(delivery.expiry);
        let aside = Aside {
            author: Some(delivery.author).filter(|author| *author != delivery.owner),
            referenced_owner: delivery.referenced_owner,
            version: Some(delivery.version).filter(|version| *version != 1),
            expiry: delivery.expiry.filter(|_| !near),
        };
        let (had, has) = (row.has_aside(), aside != Aside::NOTHING);
        row.set_aside(has);
        if has {
            self.asides.insert(position, aside);
        } else if had {
            self.asides.remove(&position);
        }
    }

    /// Takes the oldest row out of the window, and answers its expiry with it.
    pub(super) fn pop(&mut self) -> Option<(RowPosition, Row, Option<Stamp>)> {
        let position = RowPosition(self.base);
        let row = *self.get(position)?;
        let expiry = self.expiry(position, &row);
        self.tracked.save(position.0, |out| encode_row(&row, &self.asides, position, out));
        if row.has_aside() {
            self.asides.remove(&position);
        }
        self.base += 1;
        self.len -= 1;
        if self.base.is_multiple_of(CHUNK_ROWS) || self.len == 0 {
            self.chunks.pop_front();
        }
        if self.base.is_multiple_of(BLOCK_ROWS) {
            self.tops.pop_front();
        }
        Some((position, row, expiry))
    }

    #[inline]
    fn aside(&self, position: RowPosition, row: &Row) -> Aside {
        if !row.has_aside() {
            return Aside::NOTHING;
        }
        self.asides.get(&position).copied().unwrap_or(Aside::NOTHING)
    }

    /// When a row expires.
    pub(super) fn expiry(&self, position: RowPosition, row: &Row) -> Option<Stamp> {
        row.near_expiry().or_else(|| self.aside(position, row).expiry)
    }

    /// All rows with their positions, oldest arrival first.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (RowPosition, &Row)> {
        let positions = (self.base..self.base + self.len).map(RowPosition);
        positions.filter_map(|position| Some((position, self.get(position)?)))
    }

    /// The rows of a chain from `head` on, largest id first.
    #[inline]
    pub(super) fn chain(&self, head: Option<RowPosition>) -> Chain<'_> {
        Chain { table: self, at: head }
    }

    /// What a reader is shown of a row.
    #[inline]
    pub(super) fn delivery(&self, position: RowPosition, row: &Row, owner: UserId) -> Delivery {
        let aside = self.aside(position, row);
        Delivery {
            id: row.id,
            owner,
            author: aside.author.unwrap_or(owner),
            audience: row.audience(),
            referenced_owner: aside.referenced_owner,
            version: aside.version.unwrap_or(1),
            expiry: row.near_expiry().or(aside.expiry),
        }
    }

    /// Bytes of memory it holds.
    pub(super) fn memory(&self) -> usize {
        // A chunk takes memory as far as it was filled.
        (self.base % CHUNK_ROWS + self.len) as usize * size_of::<Row>()
            + self.chunks.capacity() * size_of::<Vec<Row>>()
            + self.tops.capacity() * size_of::<EntryId>()
            + self.asides.memory()
            + self.tracked.memory()
    }
}

fn encode_row(row: &Row, asides: &IdMap<RowPosition, Aside>, position: RowPosition, out: &mut Vec<u8>) {
    out.extend_from_slice(&row.raw());
    if row.has_aside() {
        asides.get(&position).copied().unwrap_or(Aside::NOTHING).encode(out);
    }
}

/// Walks a chain; ends where it leaves the window.
#[derive(Clone, Debug)]
pub(super) struct Chain<'a> {
    table: &'a Delivered,
    at: Option<RowPosition>,
}

impl<'a> Iterator for Chain<'a> {
    type Item = (RowPosition, &'a Row);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let position = self.at?;
        let row = self.table.get(position)?;
        self.at = row.previous(position);
        if let Some(previous) = self.at {
            self.table.prefetch(previous);
        }
        Some((position, row))
    }
}
