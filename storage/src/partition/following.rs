//! Owns the list of owners that one user follows in one graph, with the time of each follow, as bytes.
//!
//! - Owners are kept as distances between their ascending local indexes, about two bytes each; the times as runs of
//!   equal stamps in the same order, so that what one command followed shares one.
//! - One allocation of exactly its size: lists change seldom and are read at every page.
//!
//! Layout: `[count u32][last owner u32][bytes of owners u32][distances][runs: length, stamp]`, a run's stamp as the
//! zigzag of its difference to the one before.

use super::heap::HeapBytes;
use super::owners::OwnerIndex;
use super::prefetch::{LINE_BYTES, prefetch};
use super::users::Edge;
use super::varint;
use crate::codec::Reader;
use crate::ids::Stamp;

const HEAD_BYTES: usize = 12;

/// Cache lines of a list that are asked for ahead; the processor sees by itself that more are wanted.
const LINES_AHEAD: usize = 4;

/// Owners with the times of their follows; nothing is allocated while it is empty.
#[derive(Clone, Debug, Default)]
pub(super) struct Following(Box<[u8]>);

/// Where an owner is in the list, or would be.
struct Place {
    index: usize,
    /// The offset of its distance among the owners' bytes.
    at: usize,
    before: u32,
    /// The first owner that is not smaller, and the size of its distance.
    next: Option<(u32, usize)>,
}

impl Following {
    /// The list of `edges`, owners ascending.
    pub(super) fn of(edges: &[Edge], heap: &mut HeapBytes) -> Self {
        let mut following = Self::default();
        if let Some(last) = edges.last() {
            let mut list = Writer::new(32 + 3 * edges.len());
            list.edges(edges.iter().copied(), edges.len(), last.owner.0);
            following.replace(list, heap);
        }
        following
    }

    /// Its bytes, as an image holds them.
    pub(super) fn raw(&self) -> &[u8] {
        &self.0
    }

    /// The list that an image holds; none if the bytes are not of one.
    pub(super) fn from_raw(raw: &[u8]) -> Option<Self> {
        let list = Self(raw.into());
        if raw.is_empty() {
            return Some(list);
        }
        let owners = raw.get(HEAD_BYTES..HEAD_BYTES + list.word(2) as usize)?;
        let sound = varint::check(owners, true)? == (list.word(0), u64::from(list.word(1)));
        let mut runs = Reader::new(&raw[HEAD_BYTES + owners.len()..]);
        let mut edges = 0u64;
        while runs.left() > 0 {
            edges = edges.checked_add(runs.u64().ok()?)?;
            runs.u64().ok()?;
        }
        (sound && list.len() > 0 && edges == list.len() as u64).then_some(list)
    }

    /// The largest owner, if there is any.
    pub(super) fn last(&self) -> Option<OwnerIndex> {
        (self.len() > 0).then(|| OwnerIndex(self.word(1)))
    }

    fn word(&self, n: usize) -> u32 {
        let raw = self.0.get(4 * n..4 * n + 4);
        raw.map_or(0, |raw| u32::from_le_bytes(raw.try_into().expect("four bytes were asked for")))
    }

    /// How many.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.word(0) as usize
    }

    fn distances(&self) -> &[u8] {
        if self.0.is_empty() { &[] } else { &self.0[HEAD_BYTES..HEAD_BYTES + self.word(2) as usize] }
    }

    fn runs(&self) -> Runs<'_> {
        let from = HEAD_BYTES + self.word(2) as usize;
        Runs { bytes: self.0.get(from..).unwrap_or(&[]), at: 0, stamp: 0 }
    }

    /// The owners, ascending.
    #[inline]
    pub(super) fn owners(&self) -> impl Iterator<Item = OwnerIndex> {
        let (bytes, mut at, mut owner) = (self.distances(), 0, 0);
        std::iter::from_fn(move || {
            if at >= bytes.len() {
                return None;
            }
            owner += varint::read(bytes, &mut at);
            Some(OwnerIndex(owner))
        })
    }

    /// Asks for the beginning of the list.
    #[inline]
    pub(super) fn prefetch(&self) {
        self.0.iter().step_by(LINE_BYTES).take(LINES_AHEAD).for_each(prefetch);
    }

    /// The edges, owners ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = Edge> {
        let (bytes, mut at, mut owner) = (self.distances(), 0, 0);
        let (mut runs, mut left, mut since) = (self.runs(), 0, 0);
        std::iter::from_fn(move || {
            if at >= bytes.len() {
                return None;
            }
            owner += varint::read(bytes, &mut at);
            if left == 0 {
                (left, since) = runs.next()?;
            }
            left -= 1;
            Some(Edge { owner: OwnerIndex(owner), since: Stamp(since) })
        })
    }

    fn place(&self, owner: u32) -> Place {
        let bytes = self.distances();
        let last = self.word(1);
        if owner > last || bytes.is_empty() {
            return Place { index: self.len(), at: bytes.len(), before: last, next: None };
        }
        let (mut index, mut at, mut before) = (0, 0, 0);
        while at < bytes.len() {
            let start = at;
            let here = before + varint::read(bytes, &mut at);
            if here >= owner {
                return Place { index, at: start, before, next: Some((here, at - start)) };
            }
            (before, index) = (here, index + 1);
        }
        Place { index, at, before, next: None }
    }

    /// Whether `owner` is followed.
    pub(super) fn contains(&self, owner: OwnerIndex) -> bool {
        self.place(owner.0).next.is_some_and(|(here, _)| here == owner.0)
    }

    /// The edge to `owner`.
    pub(super) fn edge(&self, owner: OwnerIndex) -> Option<Edge> {
        let place = self.place(owner.0);
        place.next.filter(|(here, _)| *here == owner.0)?;
        let mut passed = 0;
        let run = self.runs().find(|(length, _)| {
            passed += length;
            passed > place.index as u64
        });
        run.map(|(_, since)| Edge { owner, since: Stamp(since) })
    }

    /// Adds edges that are not there, owners ascending.
    pub(super) fn add(&mut self, edges: &[Edge], heap: &mut HeapBytes) {
        match edges {
            [] => {}
            [edge] => self.add_one(*edge, heap),
            edges => self.merge(edges, heap),
        }
    }

    fn add_one(&mut self, Edge { owner: OwnerIndex(owner), since }: Edge, heap: &mut HeapBytes) {
        let place = self.place(owner);
        let mut list = Writer::new(self.0.len() + 24);
        list.out.extend_from_slice(&self.distances()[..place.at]);
        varint::put(&mut list.out, owner - place.before);
        if let Some((next, size)) = place.next {
            varint::put(&mut list.out, next - owner);
            list.out.extend_from_slice(&self.distances()[place.at + size..]);
        }
        list.end_owners(self.len() + 1, self.word(1).max(owner));
        let mut ahead = place.index as u64;
        let mut added = false;
        for (length, stamp) in self.runs() {
            let head = length.min(ahead);
            list.run(head, stamp);
            ahead -= head;
            if ahead == 0 && !added {
                list.run(1, since.0);
                added = true;
            }
            list.run(length - head, stamp);
        }
        if !added {
            list.run(1, since.0);
        }
        self.replace(list, heap);
    }

    fn merge(&mut self, edges: &[Edge], heap: &mut HeapBytes) {
        let mut list = Writer::new(self.0.len() + 32 + 3 * edges.len());
        let (mut old, mut new) = (self.iter().peekable(), edges.iter().copied().peekable());
        let merged = std::iter::from_fn(|| {
            let is_new = new.peek().is_some_and(|new| old.peek().is_none_or(|old| old.owner > new.owner));
            if is_new { new.next() } else { old.next() }
        });
        let last = edges.last().map_or(0, |edge| edge.owner.0).max(self.word(1));
        list.edges(merged, self.len() + edges.len(), last);
        drop((old, new));
        self.replace(list, heap);
    }

    /// Takes an edge away; false if it was not there.
    pub(super) fn remove(&mut self, owner: OwnerIndex, heap: &mut HeapBytes) -> bool {
        let place = self.place(owner.0);
        let Some((here, size)) = place.next.filter(|(here, _)| *here == owner.0) else { return false };
        if self.len() == 1 {
            heap.resize(self.0.len(), 0);
            self.0 = Box::default();
            return true;
        }
        let (bytes, mut at) = (self.distances(), place.at + size);
        let mut list = Writer::new(self.0.len() + 8);
        list.out.extend_from_slice(&bytes[..place.at]);
        let mut last = place.before;
        if at < bytes.len() {
            let next = here + varint::read(bytes, &mut at);
            varint::put(&mut list.out, next - place.before);
            list.out.extend_from_slice(&bytes[at..]);
            last = self.word(1);
        }
        list.end_owners(self.len() - 1, last);
        let mut ahead = place.index as u64;
        let mut gone = false;
        for (length, stamp) in self.runs() {
            let drop = !gone && ahead < length;
            gone |= drop;
            ahead = ahead.saturating_sub(length);
            list.run(length - u64::from(drop), stamp);
        }
        self.replace(list, heap);
        true
    }

    /// Takes many edges away at once; `owners` ascending, each once. Answers those that were there.
    pub(super) fn remove_all(&mut self, owners: &[OwnerIndex], heap: &mut HeapBytes) -> Vec<OwnerIndex> {
        if let [owner] = owners {
            return if self.remove(*owner, heap) { vec![*owner] } else { Vec::new() };
        }
        let mut wanted = owners.iter().copied().peekable();
        let (mut removed, mut kept) = (Vec::new(), Vec::with_capacity(self.len()));
        for edge in self.iter() {
            while wanted.next_if(|owner| *owner < edge.owner).is_some() {}
            match wanted.next_if_eq(&edge.owner) {
                Some(owner) => removed.push(owner),
                None => kept.push(edge),
            }
        }
        if !removed.is_empty() {
            heap.resize(self.0.len(), 0);
            *self = Self::of(&kept, heap);
        }
        removed
    }

    fn replace(&mut self, mut list: Writer, heap: &mut HeapBytes) {
        list.flush();
        heap.resize(self.0.len(), list.out.len());
        self.0 = list.out.into_boxed_slice();
    }

    /// Bytes that its allocation was asked for.
    pub(super) fn bytes(&self) -> usize {
        self.0.len()
    }
}

/// Reads runs: how many edges, and their stamp.
struct Runs<'a> {
    bytes: &'a [u8],
    at: usize,
    stamp: u64,
}

impl Runs<'_> {
    fn number(&mut self) -> u64 {
        let (mut number, mut shift) = (0, 0);
        loop {
            let byte = self.bytes[self.at];
            self.at += 1;
            number |= u64::from(byte & 0x7F) << shift;
            shift += 7;
            if byte < 0x80 {
                return number;
            }
        }
    }
}

impl Iterator for Runs<'_> {
    type Item = (u64, u64);

    fn next(&mut self) -> Option<(u64, u64)> {
        if self.at >= self.bytes.len() {
            return None;
        }
        let length = self.number();
        let zigzag = self.number();
        self.stamp = self.stamp.wrapping_add((zigzag >> 1) ^ (zigzag & 1).wrapping_neg());
        Some((length, self.stamp))
    }
}

/// Writes a list; runs of the same stamp become one.
struct Writer {
    out: Vec<u8>,
    pending: (u64, u64),
    before: u64,
}

impl Writer {
    fn new(capacity: usize) -> Self {
        let mut out = Vec::with_capacity(capacity);
        out.resize(HEAD_BYTES, 0);
        Self { out, pending: (0, 0), before: 0 }
    }

    /// Writes a whole list of `count` edges, owners ascending up to `last`.
    fn edges(&mut self, edges: impl Iterator<Item = Edge>, count: usize, last: u32) {
        let mut before = 0;
        let mut times = Self { out: Vec::new(), pending: (0, 0), before: 0 };
        for edge in edges {
            varint::put(&mut self.out, edge.owner.0 - before);
            before = edge.owner.0;
            times.run(1, edge.since.0);
        }
        self.end_owners(count, last);
        times.flush();
        self.out.append(&mut times.out);
    }

    fn end_owners(&mut self, count: usize, last: u32) {
        let owners = self.out.len() - HEAD_BYTES;
        for (n, word) in [count as u32, last, owners as u32].into_iter().enumerate() {
            self.out[4 * n..4 * n + 4].copy_from_slice(&word.to_le_bytes());
        }
    }

    fn run(&mut self, length: u64, stamp: u64) {
        if self.pending.0 > 0 && self.pending.1 == stamp {
            self.pending.0 += length;
        } else if length > 0 {
            self.flush();
            self.pending = (length, stamp);
        }
    }

    fn flush(&mut self) {
        let (length, stamp) = std::mem::take(&mut self.pending);
        if length > 0 {
            let difference = stamp.wrapping_sub(self.before);
            crate::codec::put_u64(&mut self.out, length);
            crate::codec::put_u64(&mut self.out, (difference << 1) ^ (difference >> 63).wrapping_neg());
            self.before = stamp;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::heap::allocated;
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn check(list: &Following, model: &BTreeMap<u32, u64>, heap: HeapBytes) {
        assert_eq!(list.len(), model.len());
        assert!(list.iter().map(|e| (e.owner.0, e.since.0)).eq(model.iter().map(|(o, s)| (*o, *s))));
        let mut owners = Vec::new();
        owners.extend(list.owners());
        assert!(owners.iter().map(|o| o.0).eq(model.keys().copied()));
        assert_eq!(heap.get(), allocated(list.bytes()));
    }

    proptest! {
        #[test]
        fn equals_an_ordered_map(
            changes in prop::collection::vec(
                (0u8..3, prop::collection::btree_set(0u32..400, 1..20), 0u64..4), 0..60),
            stride in prop::sample::select(vec![1u32, 300, 10_000_000]),
        ) {
            let (mut list, mut model) = (Following::default(), BTreeMap::new());
            let mut heap = HeapBytes::default();
            for (what, owners, since) in changes {
                // The follows of one command share a time, those of an import have their own.
                let times = [0, 850_000_000_000, 850_000_000_007, u64::MAX];
                let time = |owner: u32| times[(since as usize + what as usize / 2 * owner as usize) % 4];
                let owners: Vec<u32> = owners.into_iter().map(|owner| owner * stride).collect();
                if what == 0 {
                    for owner in owners {
                        prop_assert_eq!(list.remove(OwnerIndex(owner), &mut heap), model.remove(&owner).is_some());
                    }
                } else {
                    let new: Vec<_> = owners.into_iter().filter(|o| !model.contains_key(o)).collect();
                    model.extend(new.iter().map(|owner| (*owner, time(*owner))));
                    let edge = |owner| Edge { owner: OwnerIndex(owner), since: Stamp(time(owner)) };
                    list.add(&new.into_iter().map(edge).collect::<Vec<_>>(), &mut heap);
                }
            }
            check(&list, &model, heap);
            let restored = Following::from_raw(list.raw()).unwrap();
            check(&restored, &model, heap);
            prop_assert_eq!(restored.last().map(|owner| owner.0), model.keys().last().copied());
            for owner in (0..400).map(|owner| owner * stride) {
                let found = list.edge(OwnerIndex(owner)).map(|edge| edge.since.0);
                prop_assert_eq!(found, model.get(&owner).copied());
                prop_assert_eq!(list.contains(OwnerIndex(owner)), found.is_some());
            }
        }
    }

    #[test]
    fn one_command_shares_one_stamp() {
        let (mut list, mut heap) = (Following::default(), HeapBytes::default());
        let since = Stamp(850_000_000_000);
        let edges: Vec<_> = (0..200).map(|n| Edge { owner: OwnerIndex(n * 5_000), since }).collect();
        list.add(&edges, &mut heap);
        assert!(list.bytes() <= 430, "{}", list.bytes());
    }

    proptest! {
        #[test]
        fn what_is_no_list_is_refused_and_never_panics(
            owners in prop::collection::btree_set(0u32..400, 1..60), at: prop::sample::Index, byte: u8, bytes: Vec<u8>,
        ) {
            let edges: Vec<_> = owners.iter().map(|o| Edge { owner: OwnerIndex(*o), since: Stamp(7) }).collect();
            let mut raw = Following::of(&edges, &mut HeapBytes::default()).raw().to_vec();
            prop_assert!(Following::from_raw(&raw[..raw.len() - 1]).is_none());
            let at = at.index(raw.len());
            raw[at] = byte;
            for raw in [raw, bytes] {
                if let Some(list) = Following::from_raw(&raw) {
                    prop_assert_eq!(list.iter().count(), list.len());
                    prop_assert!(list.owners().is_sorted_by(|a, b| a < b));
                }
            }
        }

        #[test]
        fn taking_many_out_is_taking_each_out(
            owners in prop::collection::btree_set(0u32..400, 0..120),
            gone in prop::collection::btree_set(0u32..400, 0..80),
        ) {
            let edges = owners.iter().map(|owner| Edge { owner: OwnerIndex(*owner), since: Stamp(u64::from(owner % 3)) });
            let edges: Vec<Edge> = edges.collect();
            let gone: Vec<OwnerIndex> = gone.into_iter().map(OwnerIndex).collect();
            let (mut heap, mut other_heap) = (HeapBytes::default(), HeapBytes::default());
            let mut at_once = Following::of(&edges, &mut heap);
            let mut one_by_one = Following::of(&edges, &mut other_heap);
            let removed = at_once.remove_all(&gone, &mut heap);
            let each: Vec<OwnerIndex> =
                gone.iter().copied().filter(|owner| one_by_one.remove(*owner, &mut other_heap)).collect();
            prop_assert_eq!(removed, each);
            prop_assert_eq!(&at_once.0, &one_by_one.0);
            prop_assert_eq!(heap.get(), other_heap.get());
        }
    }
}
