//! Owns the stored part of a feed: references to rows of the delivered table, in order of arrival.
//!
//! - A reference is the low half of a row's position; each block keeps a base that tells the rest (R6).
//! - The floor is the largest id ever evicted or refused; the feed answers only above it (R7).

use std::collections::{BTreeMap, VecDeque};

use super::delivered::{Delivered, RowState};
use crate::ids::{EntryId, RowPosition};

/// References of a block.
const BLOCK_REFERENCES: usize = 32;

/// References whose positions lie within 2^31 of the base.
#[derive(Clone, Debug)]
struct Block {
    base: u64,
    references: Vec<u32>,
}

impl Block {
    fn position(&self, reference: u32) -> RowPosition {
        let distance = reference.wrapping_sub(self.base as u32) as i32;
        RowPosition(self.base.wrapping_add_signed(i64::from(distance)))
    }

    fn reaches(&self, position: RowPosition) -> bool {
        i32::try_from(position.0.wrapping_sub(self.base) as i64).is_ok()
    }
}

/// The stored references of one reader in one space.
#[derive(Clone, Debug, Default)]
pub(super) struct Feed {
    blocks: VecDeque<Block>,
    /// References of the first block that were evicted.
    evicted: usize,
    len: usize,
    pub(super) floor: EntryId,
}

impl Feed {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Stores a reference unless its id is at or below the floor, and evicts the oldest beyond `cap`.
    pub(super) fn push(&mut self, position: RowPosition, id: EntryId, cap: u32, table: &Delivered) -> bool {
        if id <= self.floor {
            return false;
        }
        self.append(position);
        while self.len > cap as usize {
            self.evict(table);
        }
        true
    }

    fn append(&mut self, position: RowPosition) {
        let fits =
            self.blocks.back().is_some_and(|b| b.references.len() < BLOCK_REFERENCES && b.reaches(position));
        if !fits {
            self.blocks.push_back(Block { base: position.0, references: Vec::with_capacity(4) });
        }
        let block = self.blocks.back_mut().expect("a block that fits was found or made");
        block.references.push(position.0 as u32);
        self.len += 1;
    }

    fn evict(&mut self, table: &Delivered) {
        let Some(first) = self.blocks.front() else { return };
        let position = first.position(first.references[self.evicted]);
        self.evicted += 1;
        self.len -= 1;
        if self.evicted == first.references.len() {
            self.blocks.pop_front();
            self.evicted = 0;
        }
        // A dead row never returns, and one that left the window is below the floor of its chain.
        if let Some(row) = table.get(position).filter(|row| row.state != RowState::Dead) {
            self.floor = self.floor.max(row.id);
        }
    }

    /// The stored positions, oldest arrival first.
    pub(super) fn positions(&self) -> impl Iterator<Item = RowPosition> {
        let rows = self.blocks.iter().flat_map(|b| b.references.iter().map(|r| b.position(*r)));
        rows.skip(self.evicted)
    }

    /// Adds rows that were there before the reader came, keeping the largest ids of all up to `cap`.
    pub(super) fn fill(&mut self, rows: &[(RowPosition, EntryId)], cap: u32, table: &Delivered) {
        let mut kept: BTreeMap<EntryId, RowPosition> = rows.iter().map(|(p, id)| (*id, *p)).collect();
        kept = kept.split_off(&EntryId(self.floor.0 + 1));
        let stored = self.positions().filter_map(|p| table.get(p).map(|row| (row, p)));
        let stored: Vec<_> =
            stored.filter(|(row, _)| row.state != RowState::Dead).map(|(r, p)| (r.id, p)).collect();
        kept.extend(stored);
        while kept.len() > cap as usize {
            if let Some((id, _)) = kept.pop_first() {
                self.floor = self.floor.max(id);
            }
        }
        let mut positions: Vec<RowPosition> = kept.into_values().collect();
        positions.sort_unstable();
        self.replace(positions);
    }

    /// Stores exactly `positions`, oldest arrival first.
    pub(super) fn replace(&mut self, positions: Vec<RowPosition>) {
        (self.blocks, self.evicted, self.len) = (VecDeque::new(), 0, 0);
        for position in positions {
            self.append(position);
        }
    }

    /// Bytes of memory it holds.
    pub(super) fn memory(&self) -> usize {
        self.blocks.capacity() * size_of::<Block>()
            + self.blocks.iter().map(|b| b.references.capacity() * size_of::<u32>()).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::super::delivered::{Involved, Row};
    use super::super::owners::OwnerIndex;
    use super::*;
    use crate::ids::SpaceId;

    fn table(base: u64, rows: u64) -> Delivered {
        let mut table = Delivered { base, ..Delivered::default() };
        for n in 0..rows {
            let row = Row {
                id: EntryId(base + n),
                owner: OwnerIndex(0),
                space: SpaceId(1),
                state: RowState::Live,
                audience: crate::entry::Audience::Public,
                backfill: false,
                version: 1,
                expiry: None,
                previous: None,
            };
            table.push(row, Involved { author: None, referenced_owner: None });
        }
        table
    }

    #[test]
    fn positions_survive_the_wrap_of_the_low_half() {
        let base = (1u64 << 32) - 20;
        let (table, mut feed) = (table(base, 40), Feed::default());
        for n in 0..40 {
            assert!(feed.push(RowPosition(base + n), EntryId(base + n), 100, &table));
        }
        assert!(feed.positions().map(|p| p.0).eq(base..base + 40));
    }

    #[test]
    fn an_old_reference_never_names_a_new_row() {
        let (old, new) = (RowPosition(5), RowPosition(5 + (1u64 << 32)));
        let mut feed = Feed::default();
        feed.append(old);
        feed.append(new);
        assert!(feed.positions().eq([old, new]));
    }

    #[test]
    fn eviction_raises_the_floor_and_later_low_ids_are_refused() {
        let (table, mut feed) = (table(0, 10), Feed::default());
        for n in 2..6 {
            feed.push(RowPosition(n), EntryId(n), 2, &table);
        }
        assert_eq!((feed.len(), feed.floor), (2, EntryId(3)));
        assert!(!feed.push(RowPosition(9), EntryId(3), 2, &table));
    }

    #[test]
    fn filling_keeps_the_newest_ids_whatever_arrived_first() {
        let (table, mut feed) = (table(0, 20), Feed::default());
        for n in 10..14 {
            feed.push(RowPosition(n), EntryId(n), 5, &table);
        }
        let older: Vec<_> = (0..10).map(|n| (RowPosition(n), EntryId(n))).collect();
        feed.fill(&older, 5, &table);
        assert!(feed.positions().map(|p| p.0).eq(9..14));
        assert_eq!(feed.floor, EntryId(8));
    }
}
