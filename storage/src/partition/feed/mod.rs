//! Owns the feeds of a space: for each local user references to rows of the delivered table, in order of arrival.
//!
//! - The newest references stand in one cache line per user, the [`Head`]; a full head is sealed into the user's newest
//!   [`Cell`]. Nothing is allocated per user or reference.
//! - The cells of a feed are a ring: the newest names the oldest, so that eviction drops a whole cell without a walk.
//! - The floor is at least the largest id ever evicted or refused; the feed answers only above it (R7). It stands in
//!   the oldest cell as what was before it, so a feed without cells has none.
//! - Neither a push nor an eviction looks at a row: an id above the running maximum is above the floor, as is one about a
//!   second newer than it, and every cell knows a bound of all that is older.
//! - Between `cap` references and one cell more are kept; below a cap of 10 heads and cells are cut to the cap.
//! - Pushes wait in a short queue, so that the cache misses of many followers overlap; everything else drains it first.

mod ahead;
mod arena;
mod cell;
mod head;
mod image;
mod walk;

pub(super) use ahead::Store;
pub(super) use walk::Walk;

use ahead::Ahead;
use arena::Arena;
use head::{HEAD_REFERENCES, Head};

use super::delivered::{Delivered, RowState};
use super::prefetch::prefetch;
use crate::ids::{EntryId, RowPosition};

/// Heads of a chunk: 256 KiB.
const CHUNK_HEADS: usize = 4_096;

/// The feeds of one space.
#[derive(Debug, Default)]
pub(super) struct Feeds {
    /// By local user index, in chunks made when the first of their users is stored something.
    heads: Vec<Option<Box<[Head]>>>,
    cells: Arena,
    ahead: Ahead,
    chunks_made: usize,
    filled: u64,
    references: u64,
    stored: u64,
}

impl Feeds {
    #[inline]
    fn head(&self, user: u32) -> Option<&Head> {
        let chunk = self.heads.get(user as usize / CHUNK_HEADS)?.as_ref()?;
        Some(&chunk[user as usize % CHUNK_HEADS])
    }

    fn make_chunk(&mut self, user: u32) {
        let chunk = user as usize / CHUNK_HEADS;
        if self.heads.len() <= chunk {
            self.heads.resize_with(chunk + 1, || None);
        }
        if self.heads[chunk].is_none() {
            self.heads[chunk] = Some(vec![Head::default(); CHUNK_HEADS].into_boxed_slice());
            self.chunks_made += 1;
        }
    }

    /// Stores a reference soon, in the order of the calls; [`Feeds::drain`] ends the wait.
    #[inline]
    pub(super) fn push_later(&mut self, store: Store) {
        match self.head(store.user) {
            Some(head) => prefetch(head),
            None => self.make_chunk(store.user),
        }
        if let Some(nearer) = self.ahead.half_way()
            && let Some(head) = self.head(nearer)
            && head.count() + 1 >= HEAD_REFERENCES as u32
            && head.newest != 0
        {
            self.cells.get(head.newest).prefetch();
        }
        if let Some(first) = self.ahead.exchange(store) {
            self.push(first);
        }
    }

    /// Stores everything that waits.
    pub(super) fn drain(&mut self) {
        while let Some(first) = self.ahead.pop() {
            self.push(first);
        }
    }

    /// Stores a reference unless its id is at or below the floor, and evicts the oldest beyond the cap.
    #[inline]
    fn push(&mut self, store: Store) {
        let Store { user, cap, position, id } = store;
        let Some(Some(chunk)) = self.heads.get_mut(user as usize / CHUNK_HEADS) else { return };
        let head = &mut chunk[user as usize % CHUNK_HEADS];
        if id <= head.max && !head.is_surely_above_floor(id) && id <= floor_of(head, &self.cells) {
            return;
        }
        if !head.fits(position) {
            self.references -= seal(head, &mut self.cells, cap);
        }
        self.filled += u64::from(head.len() == 0);
        head.add(position);
        head.max = head.max.max(id);
        self.references += 1;
        self.stored += 1;
        if head.count() >= cap.min(HEAD_REFERENCES as u32) {
            self.references -= seal(head, &mut self.cells, cap);
        }
    }

    /// Adds rows that were there before the reader came, keeping the largest ids of all up to `cap`; `refused` is the
    /// largest id that was left out of them.
    pub(super) fn fill(
        &mut self,
        user: u32,
        rows: &[(RowPosition, EntryId)],
        refused: EntryId,
        cap: u32,
        table: &Delivered,
    ) {
        self.drain();
        self.make_chunk(user);
        let mut floor = self.floor(user).max(refused);
        let live = |position: RowPosition| {
            let row = table.get(position).filter(|row| row.state() != RowState::Dead)?;
            Some((row.id, position))
        };
        let mut kept: Vec<(EntryId, RowPosition)> =
            self.positions(user).into_iter().filter_map(live).collect();
        kept.extend(rows.iter().map(|(position, id)| (*id, *position)));
        kept.retain(|(id, _)| *id > floor);
        kept.sort_unstable();
        kept.dedup();
        let excess = kept.len().saturating_sub(cap as usize);
        floor = kept[..excess].iter().map(|(id, _)| *id).fold(floor, EntryId::max);
        kept.drain(..excess);
        kept.sort_unstable_by_key(|(_, position)| *position);
        self.clear(user);
        self.raise_floor(user, floor);
        let stored = self.stored;
        for (id, position) in kept {
            self.push(Store { user, cap, position, id });
        }
        self.stored = stored;
    }

    /// Gives a feed that holds nothing a floor: an empty cell.
    fn raise_floor(&mut self, user: u32, floor: EntryId) {
        let Some(Some(chunk)) = self.heads.get_mut(user as usize / CHUNK_HEADS) else { return };
        let head = &mut chunk[user as usize % CHUNK_HEADS];
        assert!(head.newest == 0 && head.len() == 0, "only an empty feed is given a floor");
        if floor > EntryId::ZERO {
            head.newest = begin(0, &mut self.cells, floor);
            head.note_floor(floor);
            head.max = floor;
        }
    }

    /// Forgets a feed, floor and all.
    pub(super) fn clear(&mut self, user: u32) {
        self.drain();
        let Some(Some(chunk)) = self.heads.get_mut(user as usize / CHUNK_HEADS) else { return };
        let head = std::mem::take(&mut chunk[user as usize % CHUNK_HEADS]);
        self.filled -= u64::from(head.len() > 0);
        self.references -= u64::from(head.len());
        if head.newest != 0 {
            let mut cell = self.cells.get(head.newest).next;
            while cell != head.newest {
                let next = self.cells.get(cell).next;
                self.cells.free(cell);
                cell = next;
            }
            self.cells.free(cell);
        }
    }

    /// At or below it, the stored references are not all.
    #[inline]
    pub(super) fn floor(&self, user: u32) -> EntryId {
        self.head(user).map_or(EntryId::ZERO, |head| floor_of(head, &self.cells))
    }

    /// The stored positions, oldest arrival first.
    pub(super) fn positions(&self, user: u32) -> Vec<RowPosition> {
        let mut walk = self.walk(user);
        let mut positions = Vec::new();
        while walk.next_run(&mut positions).is_some() {}
        positions.reverse();
        positions
    }

    /// A walk over the stored references, newest arrival first.
    pub(super) fn walk(&self, user: u32) -> Walk<'_> {
        assert!(self.ahead.is_empty(), "what waits is stored before anything is read");
        Walk::new(self.head(user), &self.cells)
    }

    /// Asks for the head of a feed that is about to be read.
    #[inline]
    pub(super) fn prefetch_head(&self, user: u32) {
        if let Some(head) = self.head(user) {
            prefetch(head);
        }
    }

    /// Asks for the newest cell of such a feed, and tells the positions of its head, once that is there.
    #[inline]
    pub(super) fn prefetch_newest(&self, user: u32, position: impl FnMut(RowPosition)) {
        let Some(head) = self.head(user) else { return };
        if head.newest != 0 {
            self.cells.get(head.newest).prefetch();
        }
        head.positions().for_each(position);
    }

    /// Feeds that hold at least one reference.
    pub(super) fn count(&self) -> u64 {
        self.filled
    }

    /// References stored now.
    pub(super) fn references(&self) -> u64 {
        self.references
    }

    /// References ever stored by a push.
    pub(super) fn stored(&self) -> u64 {
        self.stored
    }

    /// Bytes of memory they hold.
    pub(super) fn memory(&self) -> usize {
        self.chunks_made * CHUNK_HEADS * size_of::<Head>()
            + self.heads.capacity() * size_of::<Option<Box<[Head]>>>()
            + self.cells.memory()
            + size_of::<Ahead>()
    }
}

#[inline]
fn floor_of(head: &Head, cells: &Arena) -> EntryId {
    if head.newest == 0 {
        return EntryId::ZERO;
    }
    cells.get(cells.get(head.newest).next).before
}

/// Begins a cell behind `newest` (0: the first one) and answers its handle.
fn begin(newest: u32, cells: &mut Arena, before: EntryId) -> u32 {
    let made = cells.make(before);
    let oldest = if newest == 0 { made } else { std::mem::replace(&mut cells.get_mut(newest).next, made) };
    let cell = cells.get_mut(made);
    (cell.next, cell.previous) = (oldest, newest);
    made
}

/// Moves the references of a head into its cells; answers how many the feed holds less.
fn seal(head: &mut Head, cells: &mut Arena, cap: u32) -> u64 {
    let (references, count, high) = head.take();
    let first = head.newest;
    if first == 0 {
        head.newest = begin(0, cells, EntryId::ZERO);
    }
    let mut rest = &references[..count as usize];
    loop {
        rest = &rest[cells.get_mut(head.newest).extend(high, rest)..];
        if rest.is_empty() {
            break;
        }
        // An empty cell takes at least one.
        head.newest = begin(head.newest, cells, head.max);
    }
    head.set_sealed(head.sealed() + count);
    // A cell that ends with its head has an exact bound behind it; and a small cap is not overshot by a whole cell.
    let cell = cells.get(head.newest);
    if !cell.has_room() || cell.count() >= cap {
        head.newest = begin(head.newest, cells, head.max);
    }
    if head.newest == first { 0 } else { evict(head, cells, cap) }
}

/// Drops the oldest cells while at least `cap` references remain; answers how many references went.
fn evict(head: &mut Head, cells: &mut Arena, cap: u32) -> u64 {
    let before = head.sealed();
    loop {
        let oldest = cells.get(head.newest).next;
        let cell = cells.get(oldest);
        let (next, count) = (cell.next, cell.count());
        head.note_floor(cell.before);
        if oldest == head.newest || head.sealed() - count < cap {
            return u64::from(before - head.sealed());
        }
        cells.get_mut(head.newest).next = next;
        cells.free(oldest);
        head.set_sealed(head.sealed() - count);
    }
}

#[cfg(test)]
mod tests;
