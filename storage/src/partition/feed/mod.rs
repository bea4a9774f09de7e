//! Owns the feeds of a space: for each local user references to rows of the delivered table, in order of arrival.
//!
//! - The newest references stand in one cache line per user, the [`Head`]; a full head is sealed into the user's newest
//!   [`Cell`]. Nothing is allocated per user or reference.
//! - The cells of a feed are a ring: the newest names the oldest, so that eviction drops a whole cell without a walk.
//! - The floor is at least the largest id ever evicted or refused; the feed answers only above it (R7). It stands in
//!   the oldest cell as what was before it, so a feed without cells has none of its own.
//! - No image holds feeds. Those of a restored partition begin empty above one floor that all of them share, the largest id
//!   that was in the window; what they would have held is read from the chains, and they fill again as entries come. While a log is
//!   replayed that floor rises with each entry, and nothing is stored.
//! - The feed of a reader who stays away is freed: it has no cell and takes no reference, and its floor is the largest id that
//!   was ever pushed to it. On return it is made anew from the chains.
//! - Neither a push nor an eviction looks at a row: an id above the running maximum is above the floor, as is one about a
//!   second newer than it, and every cell knows a bound of all that is older.
//! - Between `cap` references and about a cell more are kept; below a cap of 17 heads and cells are cut to the cap.
//! - Pushes wait in a short queue, and full heads in another, so that the cache misses of many followers overlap;
//!   everything else drains both first. A head that is full and not sealed yet is sealed before it takes another reference,
//!   so the waiting changes nothing.

mod ahead;
mod arena;
mod cell;
mod head;
mod heads;
mod region;
mod steps;
mod walk;

pub(super) use ahead::Store;
pub(super) use walk::Walk;

use ahead::{Ahead, FULL_STEP, Full, LOOKAHEAD, STEPS};
use arena::Arena;
use head::{HEAD_WORDS, Head};
use heads::Heads;

use super::delivered::{Delivered, RowState};
use super::prefetch::prefetch;
use crate::ids::{EntryId, RowPosition};

/// The feeds of one space.
#[derive(Debug, Default)]
pub(super) struct Feeds {
    heads: Heads,
    cells: Arena,
    ahead: Box<Ahead>,
    /// The floor of a feed that has no cell.
    floor: EntryId,
    filled: u64,
    references: u64,
    stored: u64,
}

impl Feeds {
    /// Empty feeds, all with the same floor, after `stored` references.
    pub(super) fn above(floor: EntryId, stored: u64) -> Self {
        Self { floor, stored, ..Self::default() }
    }

    /// Refuses an entry for all feeds, which hold nothing: their floor is at or above it from now on.
    pub(super) fn refuse(&mut self, id: EntryId) {
        assert!(self.references == 0, "a floor that rises past what is stored");
        self.floor = self.floor.max(id);
    }

    /// Stores a reference in the feeds of some users soon, in the order of the calls; [`Feeds::drain`] ends the wait.
    #[inline]
    pub(super) fn push_later(&mut self, store: Store, users: &[u32]) {
        if users.is_empty() {
            return;
        }
        self.ahead.begin(store);
        for part in users.chunks(LOOKAHEAD as usize) {
            for user in part {
                match self.heads.get(*user) {
                    Some(head) => prefetch(head),
                    None => _ = self.heads.make(*user),
                }
                self.ahead.add(*user);
            }
            while self.push_next(LOOKAHEAD) {}
            if self.ahead.new_full() >= FULL_STEP {
                self.step_full();
            }
        }
    }

    /// Stores everything that waits.
    pub(super) fn drain(&mut self) {
        while self.push_next(0) {}
        // Each round is the next step of those that are left.
        while !self.ahead.is_empty() {
            self.step_full();
        }
    }

    /// Stores what has waited longest, if more than `most` wait.
    #[inline]
    fn push_next(&mut self, most: u32) -> bool {
        let Some((user, store)) = self.ahead.next(most) else { return false };
        let Some(head) = self.heads.get_mut(user) else { return true };
        let above = store.id > head.max || head.is_surely_above_floor(store.id);
        let usual = above && store.cap >= HEAD_WORDS as u32 && head.len() > 0;
        if !usual || !head.add_near(store.position) {
            let store = *store;
            let full = self.push_slowly(user, store);
            self.ahead.note_if(full, Full { user, cap: store.cap });
            return true;
        }
        head.max = head.max.max(store.id);
        self.references += 1;
        self.stored += 1;
        let (full, cap) = (head.is_full(), store.cap);
        self.ahead.note_if(full, Full { user, cap });
        true
    }

    /// Stores a reference unless its id is at or below the floor, and evicts the oldest beyond the cap; answers whether its head
    /// should be sealed soon.
    #[cold]
    fn push_slowly(&mut self, user: u32, store: Store) -> bool {
        let Store { cap, position, id } = store;
        let head = self.heads.make(user);
        if head.is_freed() {
            head.max = head.max.max(id);
            return false;
        }
        if head.is_full() {
            // It would have been sealed soon.
            self.references -= seal(head, &mut self.cells, self.floor, cap);
        }
        if head.newest == 0 && head.max < self.floor {
            head.max = self.floor;
            head.note_floor(self.floor);
        }
        if id <= head.max && !head.is_surely_above_floor(id) && id <= floor_of(head, &self.cells, self.floor)
        {
            return false;
        }
        self.filled += u64::from(head.len() == 0);
        if !head.add(position) {
            self.references -= seal(head, &mut self.cells, self.floor, cap);
            let added = head.add(position);
            assert!(added, "an empty head has room for any reference");
        }
        head.max = head.max.max(id);
        self.references += 1;
        self.stored += 1;
        if head.count() >= cap {
            self.references -= seal(head, &mut self.cells, self.floor, cap);
        }
        head.is_full()
    }

    /// Brings the full heads that wait one step further: first their newest cell is asked for, then the cells that may
    /// be evicted, one after the other because each names the next, and at last they are sealed.
    fn step_full(&mut self) {
        let until = self.ahead.steps();
        for step in (0..STEPS).rev() {
            while let Some(Full { user, cap }) = self.ahead.step(step, until[step]) {
                let Some(head) = self.heads.get_mut(user) else { continue };
                if step + 1 == STEPS {
                    // It may have been sealed already, for another reference that came meanwhile.
                    if head.is_full() {
                        self.references -= seal(head, &mut self.cells, self.floor, cap);
                    }
                } else if head.newest != 0 {
                    look_ahead(head.newest, &self.cells, step);
                }
            }
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
        let head = self.heads.make(user);
        if head.is_freed() {
            head.max = rows.iter().map(|(_, id)| *id).fold(head.max.max(refused), EntryId::max);
            return;
        }
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
        self.replace(user, kept, floor, cap);
    }

    /// Makes a feed anew, freed or not: of these rows, at most `cap`, all with ids above `floor`. At or below it they are not all.
    pub(super) fn replace(
        &mut self,
        user: u32,
        mut rows: Vec<(EntryId, RowPosition)>,
        floor: EntryId,
        cap: u32,
    ) {
        rows.sort_unstable_by_key(|(_, position)| *position);
        self.clear(user);
        self.set_floor(user, floor);
        let stored = self.stored;
        for (id, position) in rows {
            self.push_slowly(user, Store { cap, position, id });
        }
        self.stored = stored;
    }

    /// Frees a feed: until it is made anew it takes no reference, and its floor is at least every id that is refused.
    pub(super) fn free(&mut self, user: u32) {
        self.drain();
        let floor = self.floor(user);
        let newest = self.heads.make(user).max;
        self.clear(user);
        self.heads.make(user).set_freed(newest.max(floor));
    }

    /// Whether memory can be given back by closing gaps.
    pub(super) fn has_gaps(&self) -> bool {
        self.cells.has_gaps()
    }

    /// Moves the cells of a feed to where there is room before them; answers how many.
    pub(super) fn close_gaps(&mut self, user: u32) -> u64 {
        self.drain();
        let Self { heads, cells, .. } = self;
        let Some(head) = heads.get_mut(user).filter(|head| head.newest != 0) else { return 0 };
        let (mut at, mut newer, mut moves) = (head.newest, 0, 0);
        let oldest = cells.get(at).next;
        loop {
            let older = if at == oldest { 0 } else { cells.get(at).previous };
            let moved = cells.move_down(at);
            moves += u64::from(moved.is_some());
            let now = moved.unwrap_or(at);
            if newer == 0 {
                head.newest = now;
            } else {
                cells.get_mut(newer).previous = now;
            }
            if older == 0 {
                cells.get_mut(head.newest).next = now;
                return moves;
            }
            cells.get_mut(older).next = now;
            (newer, at) = (now, older);
        }
    }

    /// Gives a feed that holds nothing a floor of its own: an empty cell.
    fn set_floor(&mut self, user: u32, floor: EntryId) {
        let head = self.heads.make(user);
        assert!(head.newest == 0 && head.len() == 0, "only an empty feed is given a floor");
        if floor != self.floor {
            head.newest = begin(0, &mut self.cells, floor);
            head.note_floor(floor);
            head.max = floor;
        }
    }

    /// Forgets a feed, and the floor of its own.
    pub(super) fn clear(&mut self, user: u32) {
        self.drain();
        let Some(head) = self.heads.get_mut(user) else { return };
        let head = std::mem::take(head);
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
        self.heads.get(user).map_or(self.floor, |head| floor_of(head, &self.cells, self.floor))
    }

    /// The least and the largest that it can be, without a look at a cell.
    #[inline]
    pub(super) fn floor_range(&self, user: u32) -> (EntryId, EntryId) {
        match self.heads.get(user) {
            Some(head) if head.newest != 0 => head.floor_range(),
            _ => (self.floor(user), self.floor(user)),
        }
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
        Walk::new(self.heads.get(user), &self.cells)
    }

    /// Asks for the head of a feed that is about to be read.
    #[inline]
    pub(super) fn prefetch_head(&self, user: u32) {
        if let Some(head) = self.heads.get(user) {
            prefetch(head);
        }
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
        self.heads.memory() + self.cells.memory() + size_of::<Ahead>()
    }
}

#[inline]
fn floor_of(head: &Head, cells: &Arena, least: EntryId) -> EntryId {
    if head.newest == 0 {
        return if head.is_freed() { head.max.max(least) } else { least };
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

/// Asks for a cell that sealing is about to touch: at step 0 the newest, then, if that is nearly full, the oldest and the
/// one behind it.
#[inline]
fn look_ahead(newest: u32, cells: &Arena, step: usize) {
    let cell = cells.get(newest);
    if step == 0 {
        cell.prefetch();
    } else if cell.is_nearly_full() {
        let oldest = cells.get(cell.next);
        match step {
            1 => prefetch(oldest),
            _ if cell.next != newest => prefetch(cells.get(oldest.next)),
            _ => {}
        }
    }
}

/// Moves the references of a head into its cells, before the first of which is the floor that all feeds have; answers how many
/// the feed holds less.
fn seal(head: &mut Head, cells: &mut Arena, least: EntryId, cap: u32) -> u64 {
    let first = head.newest;
    if first == 0 {
        head.newest = begin(0, cells, least);
    }
    cells.get_mut(head.newest).take(head);
    head.note_sealed();
    // The next one begins at once, so that the bound behind a cell is exact; a small cap is not overshot by a whole cell.
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
