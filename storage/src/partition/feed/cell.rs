//! Owns the sealed cell: about fifty references as byte deltas in 128 bytes.
//!
//! - A cell is written at its end and read from its end, newest reference first, so that a reader stops where it likes.
//! - The newest position stands in full (R6); each byte delta leads to the next older one.
//! - A delta is a varint whose groups of 7 bits stand with the lowest last; the high bit says that another stands
//!   before it. A delta of 0 never occurs, so 0 announces one that leads upwards, as slices make them.

use crate::codec::{Malformed, Reader, put_bytes, put_u64};
use crate::ids::{EntryId, RowPosition};
use crate::partition::prefetch::prefetch;

/// Bytes of deltas in a cell.
pub(super) const CELL_BYTES: usize = 102;

/// A run of references of one feed.
#[derive(Clone, Debug)]
#[repr(C, align(128))]
pub(super) struct Cell {
    /// The next newer cell; of the newest, the oldest one.
    pub(super) next: u32,
    /// The next older cell; means nothing in the oldest one.
    pub(super) previous: u32,
    /// The position of the newest reference.
    last: u64,
    /// At least the largest id of everything that was ever older than this cell, evicted and refused ids included.
    pub(super) before: EntryId,
    count: u8,
    used: u8,
    bytes: [u8; CELL_BYTES],
}

const _: () = assert!(size_of::<Cell>() == 128);

impl Cell {
    pub(super) fn new(before: EntryId) -> Self {
        Self { next: 0, previous: 0, last: 0, before, count: 0, used: 0, bytes: [0; CELL_BYTES] }
    }

    /// Makes it an empty cell; the bytes behind `used` mean nothing, and are in no image.
    pub(super) fn clear(&mut self, before: EntryId) {
        (self.next, self.previous, self.last, self.before) = (0, 0, 0, before);
        (self.count, self.used) = (0, 0);
    }

    pub(super) fn count(&self) -> u32 {
        u32::from(self.count)
    }

    /// Whether there may be room for one more reference.
    pub(super) fn has_room(&self) -> bool {
        usize::from(self.used) + 2 <= CELL_BYTES
    }

    /// Asks for both cache lines of a cell that is about to be written.
    #[inline]
    pub(super) fn prefetch(&self) {
        prefetch(self);
        prefetch(&self.bytes[CELL_BYTES - 1]);
    }

    /// Adds references that share the high half of their positions, oldest arrival first, as far as there is room;
    /// answers how many.
    pub(super) fn extend(&mut self, high: u64, references: &[u32]) -> usize {
        let full = references.iter().position(|low| !self.append(high | u64::from(*low)));
        full.unwrap_or(references.len())
    }

    /// Adds a reference; false if there is no room.
    #[inline]
    pub(super) fn append(&mut self, position: u64) -> bool {
        if self.count > 0 {
            let step = position.wrapping_sub(self.last);
            let at = usize::from(self.used);
            if (1 << 7..1 << 14).contains(&step) {
                // Nearly all steps are of two groups.
                let Some(room) = self.bytes.get_mut(at..at + 2) else { return false };
                room.copy_from_slice(&[(step >> 7) as u8, step as u8 | 0x80]);
                self.used += 2;
            } else if !self.append_step(step) {
                return false;
            }
        }
        self.last = position;
        self.count += 1;
        true
    }

    fn append_step(&mut self, step: u64) -> bool {
        let upwards = step as i64 > 0;
        let (magnitude, escape) = if upwards { (step, 0) } else { (step.wrapping_neg(), 1) };
        let groups = groups_of(magnitude);
        let at = usize::from(self.used);
        let Some(room) = self.bytes.get_mut(at..at + groups + escape) else { return false };
        let mut rest = magnitude;
        for (n, byte) in room[..groups].iter_mut().rev().enumerate() {
            *byte = rest as u8 & 0x7F | if n + 1 < groups { 0x80 } else { 0 };
            rest >>= 7;
        }
        if escape == 1 {
            room[groups] = 0;
        }
        self.used += (groups + escape) as u8;
        true
    }

    /// The positions, newest arrival first.
    #[inline]
    pub(super) fn positions(&self) -> Positions<'_> {
        let bytes = &self.bytes[..usize::from(self.used)];
        Positions { bytes, position: self.last, left: self.count }
    }

    /// Takes over what another cell holds, but not its place in a ring.
    pub(super) fn take_content(&mut self, other: &Self) {
        (self.last, self.before, self.count, self.used, self.bytes) =
            (other.last, other.before, other.count, other.used, other.bytes);
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_u64(out, self.before.0);
        put_u64(out, self.last);
        out.push(self.count);
        put_bytes(out, &self.bytes[..usize::from(self.used)]);
    }

    pub(super) fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut cell = Self::new(EntryId(from.u64()?));
        cell.last = from.u64()?;
        cell.count = from.byte()?;
        let bytes = from.bytes()?;
        let room = cell.bytes.get_mut(..bytes.len()).ok_or(from.malformed("cell"))?;
        room.copy_from_slice(bytes);
        cell.used = bytes.len() as u8;
        let mut positions = cell.positions();
        let found = positions.by_ref().count();
        if found != usize::from(cell.count) || !positions.bytes.is_empty() {
            return Err(from.malformed("references of a cell"));
        }
        Ok(cell)
    }
}

#[inline]
fn groups_of(magnitude: u64) -> usize {
    (64 - (magnitude | 1).leading_zeros()).div_ceil(7) as usize
}

/// Reads a cell from its end.
#[derive(Clone)]
pub(super) struct Positions<'a> {
    bytes: &'a [u8],
    position: u64,
    left: u8,
}

impl Positions<'_> {
    /// The varint that ends here; none at the start of the bytes.
    #[inline]
    fn varint(&mut self) -> Option<u64> {
        let (mut value, mut shift) = (0u64, 0u32);
        loop {
            let (byte, before) = self.bytes.split_last()?;
            self.bytes = before;
            value |= u64::from(byte & 0x7F).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(value);
            }
            shift += 7;
        }
    }

    #[inline]
    fn step(&mut self) -> Option<u64> {
        match self.varint()? {
            0 => self.varint().map(u64::wrapping_neg),
            magnitude => Some(magnitude),
        }
    }
}

impl Iterator for Positions<'_> {
    type Item = RowPosition;

    #[inline]
    fn next(&mut self) -> Option<RowPosition> {
        self.left = self.left.checked_sub(1)?;
        let position = RowPosition(self.position);
        if self.left > 0 {
            match self.step() {
                Some(step) => self.position = self.position.wrapping_sub(step),
                // Bytes that say less than the count end the cell; only an image that is malformed has them.
                None => self.left = 0,
            }
        }
        Some(position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn positions() -> impl Strategy<Value = Vec<u64>> {
        let near = (1u64 << 32) - 20_000..(1u64 << 32) + 20_000;
        prop::collection::vec(prop_oneof![5 => near, 1 => any::<u64>()], 1..120)
    }

    proptest! {
        #[test]
        fn a_cell_returns_what_it_took_newest_first(positions in positions()) {
            let mut cell = Cell::new(EntryId(7));
            let mut taken = Vec::new();
            for position in positions {
                if taken.last() == Some(&position) {
                    continue;
                }
                if !cell.append(position) {
                    break;
                }
                taken.push(position);
            }
            taken.reverse();
            prop_assert!(cell.positions().map(|p| p.0).eq(taken.iter().copied()));
            let mut image = Vec::new();
            cell.encode(&mut image);
            let again = Cell::decode(&mut Reader::new(&image)).unwrap();
            prop_assert!(again.positions().map(|p| p.0).eq(taken));
            prop_assert_eq!(again.before, EntryId(7));
        }

        #[test]
        fn an_arbitrary_image_never_panics(bytes: Vec<u8>) {
            if let Ok(cell) = Cell::decode(&mut Reader::new(&bytes)) {
                prop_assert_eq!(cell.positions().count(), cell.count() as usize);
            }
        }
    }

    #[test]
    fn fifty_references_fit_at_steps_of_five_thousand() {
        let mut cell = Cell::new(EntryId::ZERO);
        assert!((0..50).all(|n| cell.append(n * 5_000)));
    }
}
