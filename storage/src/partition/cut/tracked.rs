//! Owns what is known of a part of the state for the sake of snapshots: which buckets changed since the last one, and,
//! while a cut runs, what it has yet to write as it was when the cut began.
//!
//! - A part is records with ascending numbers; a bucket is a power of two of them. Where the numbers move along (rows,
//!   events, keys), the cut has its own first and last.
//! - Whoever changes a record says so before, with [`Tracked::touch`]; without a cut that sets a bit. With one, the record is
//!   saved as it is, unless the cut has passed it: so a cut stops nobody, and what changes after it is not in it.
//! - A record that only leaves the front of its part is saved, but its bucket has not changed: readers of a bucket skip what
//!   is before the part's first record.
//! - A call of [`Cut::piece`] writes about [`PIECE_BYTES`], a record at least, and at most one bucket, so the parts that
//!   change at every entry are best written first: the less is saved. When too much is saved all the same, the bucket of which
//!   most is goes before its turn.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;

use super::bits::Bits;
use crate::codec::put_u64;
use crate::partition::heap::allocated;

/// Bytes after which a piece of a bucket ends.
pub(in crate::partition) const PIECE_BYTES: usize = 64 << 10;

/// What a node of the standard tree takes for one saved record, about.
const SAVED_BYTES: usize = 48;

/// What changed of one part of the state.
#[derive(Debug)]
pub(in crate::partition) struct Tracked {
    /// A bucket is 2^`shift` records.
    shift: u32,
    changed: Bits,
    cut: Option<Box<Cut>>,
}

/// What a cut has yet to write of a part.
#[derive(Debug)]
pub(in crate::partition) struct Cut {
    shift: u32,
    /// The buckets that had changed since the last finished cut.
    changed: Bits,
    /// The records that are not passed yet, but for the buckets `ahead`.
    left: Range<u64>,
    /// Buckets that were passed before their turn.
    ahead: Bits,
    /// By bucket, the records that are not passed and changed since, as they were.
    saved: BTreeMap<u64, Saved>,
    saved_bytes: usize,
    /// The bucket that is being written.
    open: Option<Open>,
}

/// What is saved of a bucket.
#[derive(Debug, Default)]
struct Saved {
    records: BTreeMap<u64, Box<[u8]>>,
    bytes: usize,
}

/// A bucket of which a part is written.
#[derive(Debug)]
struct Open {
    number: u64,
    /// The records that are not written.
    left: Range<u64>,
    bytes: Vec<u8>,
}

/// What a step of a cut came to.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::partition) enum Piece {
    /// The part is done.
    End,
    /// There is more of the bucket.
    More,
    Written {
        number: u64,
        bytes: Vec<u8>,
    },
    Unchanged {
        number: u64,
    },
}

impl Tracked {
    /// Nothing has changed of a part with buckets of 2^`shift` records.
    pub(in crate::partition) fn new(shift: u32) -> Self {
        Self { shift, changed: Bits::default(), cut: None }
    }

    /// Says that a record is about to change; `encode` writes it as it is.
    #[inline]
    pub(in crate::partition) fn touch(&mut self, record: u64, encode: impl FnOnce(&mut Vec<u8>)) {
        self.changed.add(record >> self.shift);
        self.save(record, encode);
    }

    /// Says that a record is made behind all others.
    #[inline]
    pub(in crate::partition) fn add(&mut self, record: u64) {
        self.changed.add(record >> self.shift);
    }

    /// Says that the first record of a part is about to leave.
    #[inline]
    pub(in crate::partition) fn save(&mut self, record: u64, encode: impl FnOnce(&mut Vec<u8>)) {
        if let Some(cut) = &mut self.cut {
            cut.save(record, encode);
        }
    }

    /// Begins a cut at the state as it is: these records.
    pub(in crate::partition) fn begin(&mut self, records: Range<u64>) {
        assert!(self.cut.is_none(), "one cut at a time");
        self.cut = Some(Box::new(Cut {
            shift: self.shift,
            changed: std::mem::take(&mut self.changed),
            left: records,
            ahead: Bits::default(),
            saved: BTreeMap::new(),
            saved_bytes: 0,
            open: None,
        }));
    }

    /// The cut that runs, to be put back after a step.
    pub(in crate::partition) fn take_cut(&mut self) -> Option<Box<Cut>> {
        self.cut.take()
    }

    /// Puts a cut back.
    pub(in crate::partition) fn put_back(&mut self, cut: Box<Cut>) {
        self.cut = Some(cut);
    }

    /// Ends a cut that was not finished: all it had taken counts as changed again. Answers what it held.
    pub(in crate::partition) fn abandon(&mut self) -> Option<Cut> {
        let cut = self.cut.take()?;
        self.changed.add_all(&cut.changed);
        Some(*cut)
    }

    /// Counts everything as unchanged.
    pub(in crate::partition) fn forget(&mut self) {
        self.changed = Bits::default();
    }

    /// Bytes of memory that what is saved takes.
    pub(in crate::partition) fn saved_bytes(&self) -> usize {
        self.cut.as_ref().map_or(0, |cut| cut.saved_bytes)
    }

    /// Bytes of memory it holds.
    pub(in crate::partition) fn memory(&self) -> usize {
        let open = self.cut.as_ref().and_then(|cut| cut.open.as_ref());
        self.changed.memory() + self.saved_bytes() + open.map_or(0, |open| open.bytes.capacity())
    }
}

/// What a record of so many bytes takes while it is saved, about.
fn saved_memory(bytes: &[u8]) -> usize {
    allocated(bytes.len()) + SAVED_BYTES
}

impl Cut {
    #[cold]
    fn save(&mut self, record: u64, encode: impl FnOnce(&mut Vec<u8>)) {
        let number = record >> self.shift;
        let is_written = |open: &Open| open.number == number && record < open.left.start;
        if !self.left.contains(&record)
            || self.ahead.contains(number)
            || self.open.as_ref().is_some_and(is_written)
        {
            return;
        }
        let saved = self.saved.entry(number).or_default();
        if let Entry::Vacant(vacant) = saved.records.entry(record) {
            let mut bytes = Vec::new();
            encode(&mut bytes);
            let bytes = bytes.into_boxed_slice();
            saved.bytes += saved_memory(&bytes);
            self.saved_bytes += saved_memory(&bytes);
            vacant.insert(bytes);
        }
    }

    /// Takes the next step. `next` answers the first record there is at or behind a number, and `encode` writes a record
    /// as it is; `must_write` names buckets that are to be written although they did not change. If it `is_urgent`, the bucket of
    /// which most is saved goes first.
    pub(in crate::partition) fn piece(
        &mut self,
        is_urgent: bool,
        must_write: impl Fn(u64) -> bool,
        next: impl Fn(u64) -> Option<u64>,
        encode: impl Fn(u64, &mut Vec<u8>),
    ) -> Piece {
        if let Some(open) = self.open.take() {
            return self.write(open, encode);
        }
        let Some((number, left)) = self.turn(is_urgent, next) else { return Piece::End };
        if !self.changed.contains(number) && !must_write(number) {
            self.saved_bytes -= self.saved.remove(&number).unwrap_or_default().bytes;
            self.pass(number, left.end);
            return Piece::Unchanged { number };
        }
        let mut bytes = Vec::new();
        put_u64(&mut bytes, left.start);
        let open = Open { number, left, bytes };
        self.write(open, encode)
    }

    /// The bucket that is next, and its records; none if all are passed.
    fn turn(&mut self, is_urgent: bool, next: impl Fn(u64) -> Option<u64>) -> Option<(u64, Range<u64>)> {
        if is_urgent && let Some((number, saved)) = self.saved.iter().max_by_key(|(_, saved)| saved.bytes) {
            let saved = saved.records.keys().next().copied();
            let first = next(self.left.start.max(number << self.shift)).into_iter().chain(saved).min();
            return Some((*number, first.unwrap_or(self.left.end)..self.end_of(*number)));
        }
        while !self.left.is_empty() {
            let saved = self.saved.values().next().and_then(|saved| saved.records.keys().next());
            let first = next(self.left.start).into_iter().chain(saved.copied()).min();
            self.left.start = first.map_or(self.left.end, |first| first.min(self.left.end));
            let number = self.left.start >> self.shift;
            let records = self.left.start..self.end_of(number);
            if !self.left.is_empty() && !self.ahead.contains(number) {
                return Some((number, records));
            }
            self.left.start = records.end;
        }
        None
    }

    /// Where a bucket ends that is not passed.
    fn end_of(&self, number: u64) -> u64 {
        ((number + 1) << self.shift).min(self.left.end)
    }

    /// Notes that a bucket is done.
    fn pass(&mut self, number: u64, end: u64) {
        if self.left.start >> self.shift == number {
            self.left.start = end;
        } else {
            self.ahead.add(number);
        }
    }

    /// Writes a piece of a bucket.
    fn write(&mut self, mut open: Open, encode: impl Fn(u64, &mut Vec<u8>)) -> Piece {
        let end = open.left.end;
        let mut saved = self.saved.remove(&open.number).unwrap_or_default();
        self.saved_bytes -= saved.bytes;
        let mut next_saved = saved.records.keys().next().copied().unwrap_or(end);
        let enough = open.bytes.len() + PIECE_BYTES;
        while open.left.start < end && open.bytes.len() < enough {
            let record = open.left.start;
            if record == next_saved {
                let bytes = saved.records.pop_first().map(|(_, bytes)| bytes).unwrap_or_default();
                saved.bytes -= saved_memory(&bytes);
                open.bytes.extend_from_slice(&bytes);
                next_saved = saved.records.keys().next().copied().unwrap_or(end);
            } else {
                encode(record, &mut open.bytes);
            }
            open.left.start += 1;
        }
        if open.left.is_empty() {
            self.pass(open.number, end);
            return Piece::Written { number: open.number, bytes: open.bytes };
        }
        self.saved_bytes += saved.bytes;
        if !saved.records.is_empty() {
            self.saved.insert(open.number, saved);
        }
        self.open = Some(open);
        Piece::More
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    const SHIFT: u32 = 2;

    /// A queue of values whose numbers move along.
    struct Part {
        tracked: Tracked,
        values: VecDeque<u8>,
        first: u64,
        kept: BTreeMap<u64, Vec<u8>>,
    }

    impl Part {
        fn range(&self) -> Range<u64> {
            self.first..self.first + self.values.len() as u64
        }

        fn change(&mut self, at: usize, value: u8) {
            if let Some(known) = self.values.get_mut(at) {
                self.tracked.touch(self.first + at as u64, |out| out.push(*known));
                *known = value;
            }
        }

        fn push(&mut self, value: u8) {
            self.tracked.add(self.range().end);
            self.values.push_back(value);
        }

        fn pop(&mut self) {
            if let Some(value) = self.values.pop_front() {
                self.tracked.save(self.first, |out| out.push(value));
                self.first += 1;
            }
        }

        fn step(&mut self, forced: u64, is_urgent: bool) -> Piece {
            let mut cut = self.tracked.take_cut().unwrap();
            let fullest = cut.saved.values().map(|saved| saved.bytes).max().unwrap_or_default();
            let before = cut.saved_bytes;
            let encode =
                |record: u64, out: &mut Vec<u8>| out.push(self.values[(record - self.first) as usize]);
            let piece = cut.piece(is_urgent, |number| number % 5 == forced, Some, encode);
            assert!(!is_urgent || cut.saved_bytes == before - fullest, "the fullest is written, and freed");
            let saved = cut
                .saved
                .values()
                .map(|saved| saved.records.values().map(|b| saved_memory(b)).sum::<usize>());
            assert_eq!(saved.sum::<usize>(), cut.saved_bytes);
            self.tracked.put_back(cut);
            piece
        }
    }

    proptest! {
        #[test]
        fn a_cut_holds_what_was_there_when_it_began(
            base in prop_oneof![Just(0u64), 0..1u64 << 40],
            rounds in prop::collection::vec((prop::collection::vec((0u8..7, 0usize..40, any::<u8>()), 0..60), 0u64..9, any::<bool>()), 1..6),
        ) {
            let tracked = Tracked::new(SHIFT);
            let mut part = Part { tracked, values: VecDeque::new(), first: base, kept: BTreeMap::new() };
            for (changes, forced, finish) in rounds {
                part.tracked.begin(part.range());
                let (mut left, mut cut, mut done) = (part.range(), BTreeMap::new(), false);
                let expected: Vec<u8> = part.values.iter().copied().collect();
                let step = |part: &mut Part, cut: &mut BTreeMap<u64, Vec<u8>>, is_urgent: bool| {
                    match part.step(forced, is_urgent) {
                        Piece::End => return true,
                        Piece::More => unreachable!("the records are small"),
                        Piece::Written { number, bytes } => _ = cut.insert(number, bytes),
                        Piece::Unchanged { number } => _ = cut.insert(number, part.kept[&number].clone()),
                    }
                    false
                };
                for (what, at, value) in changes {
                    match what {
                        0 => part.pop(),
                        1 => part.change(at, value),
                        2..4 => part.push(value),
                        what => done |= step(&mut part, &mut cut, what == 6),
                    }
                }
                if !finish {
                    drop(part.tracked.abandon());
                    continue;
                }
                while !done {
                    done = step(&mut part, &mut cut, false);
                }
                let ended = part.tracked.take_cut().unwrap();
                prop_assert_eq!((ended.saved.len(), ended.saved_bytes), (0, 0));
                let mut found = Vec::new();
                for (number, bytes) in &cut {
                    let mut from = crate::codec::Reader::new(bytes);
                    let first = from.u64().unwrap();
                    prop_assert_eq!(first >> SHIFT, *number);
                    let records = from.raw(from.left()).unwrap();
                    // What left since the bucket was written is before the first record.
                    found.extend_from_slice(&records[left.start.saturating_sub(first) as usize..]);
                    left.start = first + records.len() as u64;
                }
                prop_assert_eq!(left.end - left.start, 0);
                prop_assert_eq!(found, expected);
                part.kept = cut;
            }
        }
    }

    #[test]
    fn a_large_bucket_is_written_in_pieces_and_changes_between_them_wait() {
        let mut values = [1u8; 4];
        let mut tracked = Tracked::new(SHIFT);
        (0..4).for_each(|record| tracked.add(record));
        tracked.begin(0..4);
        let encode = |value: u8, out: &mut Vec<u8>| out.resize(out.len() + PIECE_BYTES / 2, value);
        let mut pieces = Vec::new();
        loop {
            let mut cut = tracked.take_cut().unwrap();
            pieces.push(cut.piece(
                false,
                |_| false,
                Some,
                |record, out| encode(values[record as usize], out),
            ));
            tracked.put_back(cut);
            for record in 0..4 {
                tracked.touch(record, |out| encode(values[record as usize], out));
                values[record as usize] += 1;
            }
            if pieces.last() == Some(&Piece::End) {
                break;
            }
        }
        let [Piece::More, Piece::Written { number: 0, bytes }, Piece::End] = &pieces[..] else {
            panic!("{} pieces", pieces.len())
        };
        assert_eq!(bytes.len(), 1 + 2 * PIECE_BYTES);
        assert!(bytes[1..].iter().all(|byte| *byte == 1));
    }

    #[test]
    fn numbers_without_records_are_passed_over() {
        let mut tracked = Tracked::new(6);
        let present = [70u64, 5_000];
        present.iter().for_each(|record| tracked.add(*record));
        tracked.begin(1..10_000);
        tracked.touch(70, |out| out.push(7));
        let next = |from: u64| [5_000u64].into_iter().find(|record| *record >= from);
        let mut cut = tracked.take_cut().unwrap();
        let mut step = || {
            cut.piece(
                false,
                |_| false,
                next,
                |record, out| {
                    if record == 5_000 {
                        out.push(50);
                    }
                },
            )
        };
        assert_eq!(step(), Piece::Written { number: 1, bytes: vec![70, 7] });
        let mut second = Vec::new();
        put_u64(&mut second, 5_000);
        second.push(50);
        assert_eq!(step(), Piece::Written { number: 78, bytes: second });
        assert_eq!(step(), Piece::End);
    }
}
