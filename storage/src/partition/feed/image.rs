//! Owns the image of the feeds of a space: their references and the cuts between their cells.
//!
//! - Where the cells end decides what is evicted next, so it is part of the state; where they lie in memory is not.

use super::{Feeds, begin, floor_of};
use crate::codec::{Encoded, Malformed, Reader, put_u64};
use crate::partition::feed::cell::Cell;
use crate::partition::feed::head::Head;

/// The largest local index that an image may name, so that a damaged one does not ask for all the memory.
const USER_INDEX_MAX: u32 = 1 << 28;

impl Feeds {
    fn known(&self) -> impl Iterator<Item = (u32, &Head)> {
        self.heads.iter().filter(|(_, head)| head.len() > 0 || head.newest != 0)
    }

    fn encode_head(&self, head: &Head, out: &mut Vec<u8>) {
        head.encode(out);
        if head.newest == 0 {
            put_u64(out, 0);
            return;
        }
        let oldest = self.cells.get(head.newest).next;
        let ring = std::iter::successors(Some(oldest), |cell| Some(self.cells.get(*cell).next));
        let cells: Vec<u32> = ring.take_while(|cell| *cell != head.newest).chain([head.newest]).collect();
        put_u64(out, cells.len() as u64);
        cells.iter().for_each(|cell| self.cells.get(*cell).encode(out));
    }

    fn decode_head(&mut self, user: u32, from: &mut Reader<'_>) -> Result<(), Malformed> {
        let mut head = Head::decode(from)?;
        let mut sealed = 0;
        for _ in 0..from.count()? {
            let cell = Cell::decode(from)?;
            sealed += cell.count();
            head.newest = begin(head.newest, &mut self.cells, cell.before);
            self.cells.get_mut(head.newest).take_content(&cell);
        }
        let floor = floor_of(&head, &self.cells);
        head.note_floor(floor);
        // The newest cell has room for a head at any time.
        let room = head.newest == 0 || self.cells.get(head.newest).has_room();
        if floor > head.max || sealed >= 1 << 28 || !room {
            return Err(from.malformed("a feed's floor, length and room"));
        }
        head.set_sealed(sealed);
        self.filled += u64::from(head.len() > 0);
        self.references += u64::from(head.len());
        *self.heads.make(user) = head;
        Ok(())
    }
}

impl Encoded for Feeds {
    fn encode(&self, out: &mut Vec<u8>) {
        assert!(self.ahead.is_empty(), "what waits is stored before an image is made");
        put_u64(out, self.stored);
        put_u64(out, self.known().count() as u64);
        for (user, head) in self.known() {
            user.encode(out);
            self.encode_head(head, out);
        }
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut feeds = Self { stored: from.u64()?, ..Self::default() };
        let mut next = 0;
        for _ in 0..from.count()? {
            let user = from.u32()?;
            if user < next || user >= USER_INDEX_MAX {
                return Err(from.malformed("ascending local indexes"));
            }
            next = user + 1;
            feeds.decode_head(user, from)?;
        }
        Ok(feeds)
    }
}
