//! Owns the posting list: an ordered set of 32-bit local indexes, about two bytes each.
//!
//! - Members are kept as the distances between them, in chunks of at most about a kilobyte, so that a change moves and
//!   reads few bytes. Byte distances were chosen over bit-packed blocks: a list of typical length is one open chunk
//!   anyway, and appending to it is one store.
//! - The last chunk is part of the list itself: adding a member above all others, as loading a graph does, looks at
//!   nothing else. It is empty only while the list is.

use super::chunk::Chunk;
use super::heap::{HeapBytes, allocated};
use super::prefetch::prefetch;
use super::varint;
use crate::codec::{Encoded, Malformed, Reader, put_bytes, put_u64};

/// An ordered set of local indexes.
#[derive(Clone, Debug, Default)]
pub(super) struct PostingList {
    len: u32,
    last: u32,
    tail: Chunk,
    /// The chunks below the tail, ascending.
    #[expect(clippy::box_collection, reason = "most have none, and a list is a word smaller so")]
    sealed: Option<Box<Vec<Chunk>>>,
}

impl PostingList {
    #[inline]
    pub(super) fn len(&self) -> u32 {
        self.len
    }

    /// Asks for the memory that adding a member above all others changes.
    #[inline]
    pub(super) fn prefetch_end(&self) {
        if let Some(end) = self.tail.end() {
            prefetch(end);
        }
    }

    /// Asks for the memory that a walk reads first.
    #[inline]
    pub(super) fn prefetch_start(&self) {
        let first = self.sealed().first().unwrap_or(&self.tail);
        first.distances().chunks(CACHE_LINE).take(PREFETCHED_LINES).for_each(|line| prefetch(&line[0]));
    }

    fn sealed(&self) -> &[Chunk] {
        self.sealed.as_ref().map_or(&[], |chunks| chunks.as_slice())
    }

    /// The sealed chunk that holds `member` or would; the tail if there is none.
    fn chunk_of(&self, member: u32) -> Option<usize> {
        if member >= self.tail.first {
            return None;
        }
        let sealed = self.sealed();
        (!sealed.is_empty()).then(|| sealed.partition_point(|chunk| chunk.first <= member).saturating_sub(1))
    }

    fn chunk_mut(&mut self, at: Option<usize>) -> &mut Chunk {
        match (at, &mut self.sealed) {
            (Some(at), Some(sealed)) => &mut sealed[at],
            _ => &mut self.tail,
        }
    }

    /// Whether it holds `member`.
    pub(super) fn contains(&self, member: u32) -> bool {
        if self.len == 0 || member > self.last {
            return false;
        }
        let chunk = self.chunk_of(member).map_or(&self.tail, |at| &self.sealed()[at]);
        chunk.first == member || member > chunk.first && chunk.place(member).finds(member)
    }

    /// Adds `member`; false if it was there.
    #[inline]
    pub(super) fn insert(&mut self, member: u32, heap: &mut HeapBytes) -> bool {
        if self.len > 0 && member <= self.last {
            return self.insert_below(member, heap);
        }
        if self.len == 0 {
            self.tail.first = member;
        } else if self.tail.has_room() {
            self.tail.append(member - self.last, heap);
        } else {
            let mut full = std::mem::replace(&mut self.tail, Chunk::new(member));
            full.shrink(heap);
            let sealed = self.sealed().len();
            self.seal(sealed, full, heap);
        }
        self.last = member;
        self.len += 1;
        true
    }

    fn insert_below(&mut self, member: u32, heap: &mut HeapBytes) -> bool {
        if member == self.last {
            return false;
        }
        let mut at = self.chunk_of(member);
        if !self.chunk_mut(at).has_room() {
            self.split(at, heap);
            at = self.chunk_of(member);
        }
        let chunk = self.chunk_mut(at);
        if member == chunk.first {
            return false;
        }
        if member < chunk.first {
            chunk.insert_first(member, heap);
        } else {
            let place = chunk.place(member);
            if place.finds(member) {
                return false;
            }
            chunk.insert(member, place, heap);
        }
        self.len += 1;
        true
    }

    /// Splits a full chunk in two.
    fn split(&mut self, at: Option<usize>, heap: &mut HeapBytes) {
        let Some(upper) = self.chunk_mut(at).split(heap) else { return };
        if let Some(at) = at {
            self.seal(at + 1, upper, heap);
        } else {
            let lower = std::mem::replace(&mut self.tail, upper);
            let sealed = self.sealed().len();
            self.seal(sealed, lower, heap);
        }
    }

    /// Puts a chunk among the sealed ones.
    fn seal(&mut self, at: usize, chunk: Chunk, heap: &mut HeapBytes) {
        let before = self.directory();
        let sealed = self.sealed.get_or_insert_default();
        if sealed.len() == sealed.capacity() {
            sealed.reserve_exact((sealed.len() / 4).max(1));
        }
        sealed.insert(at, chunk);
        heap.replace(before, self.directory());
    }

    /// Bytes of what lists the sealed chunks.
    fn directory(&self) -> usize {
        self.sealed.as_ref().map_or(0, |sealed| {
            allocated(size_of::<Vec<Chunk>>()) + allocated(sealed.capacity() * size_of::<Chunk>())
        })
    }

    /// Takes `member` out; false if it was not there.
    pub(super) fn remove(&mut self, member: u32, heap: &mut HeapBytes) -> bool {
        if self.len == 0 || member > self.last {
            return false;
        }
        let at = self.chunk_of(member);
        let chunk = self.chunk_mut(at);
        if member == chunk.first {
            if chunk.is_single() {
                self.drop_chunk(at, heap);
            } else {
                chunk.remove_first(heap);
            }
            self.len -= 1;
            return true;
        }
        if member < chunk.first {
            return false;
        }
        let place = chunk.place(member);
        if !place.finds(member) {
            return false;
        }
        let before = chunk.remove(place, heap);
        chunk.shrink_if_sparse(heap);
        if let (None, Some(before)) = (at, before) {
            self.last = before;
        }
        self.len -= 1;
        true
    }

    /// Takes a chunk away whose only member left.
    fn drop_chunk(&mut self, at: Option<usize>, heap: &mut HeapBytes) {
        let before = self.directory();
        match (at, &mut self.sealed) {
            (Some(at), Some(sealed)) => {
                sealed.remove(at).forget(heap);
            }
            (None, Some(sealed)) if !sealed.is_empty() => {
                self.tail.forget(heap);
                self.tail = sealed.pop().unwrap_or_default();
                self.last = self.tail.last();
            }
            _ => {
                self.tail.forget(heap);
                self.tail = Chunk::default();
            }
        }
        if self.sealed.as_ref().is_some_and(|sealed| sealed.is_empty()) {
            self.sealed = None;
        }
        heap.replace(before, self.directory());
    }

    /// Members from `from` on, ascending.
    pub(super) fn iter_from(&self, from: u32) -> Walk<'_> {
        let chunk = self.chunk_of(from).unwrap_or(self.sealed().len());
        let mut walk = Walk { list: self, chunk, at: 0, next: None };
        if self.len > 0 && from <= self.last {
            walk.enter(chunk);
            while walk.next.is_some_and(|next| next < from) {
                walk.next();
            }
        }
        walk
    }

    pub(super) fn iter(&self) -> Walk<'_> {
        self.iter_from(0)
    }

    /// Its largest member, if there is any.
    pub(super) fn last(&self) -> Option<u32> {
        (self.len > 0).then_some(self.last)
    }

    /// Bytes of memory it holds, by looking at every chunk.
    pub(super) fn memory(&self) -> usize {
        let chunks = self.sealed().iter().chain([&self.tail]);
        self.directory() + chunks.map(|chunk| allocated(chunk.capacity())).sum::<usize>()
    }
}

/// A list stands in an image as it is: where its chunks end decides where they are split.
impl Encoded for PostingList {
    fn encode(&self, out: &mut Vec<u8>) {
        if self.len == 0 {
            put_u64(out, 0);
            return;
        }
        put_u64(out, self.sealed().len() as u64 + 1);
        for chunk in self.sealed().iter().chain([&self.tail]) {
            chunk.first.encode(out);
            put_bytes(out, chunk.distances());
        }
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (mut list, mut sealed) = (Self::default(), Vec::new());
        let chunks = from.count()?;
        for n in 1..=chunks {
            let read = Chunk::from_raw(from.u32()?, from.bytes()?);
            let (chunk, count, last) = read.ok_or(from.malformed("chunk"))?;
            let len = list.len.checked_add(count);
            if len.is_none() || n > 1 && chunk.first <= list.last {
                return Err(from.malformed("larger local index"));
            }
            (list.len, list.last) = (len.unwrap_or_default(), last);
            if n < chunks {
                sealed.push(chunk);
            } else {
                list.tail = chunk;
            }
        }
        sealed.shrink_to_fit();
        list.sealed = (!sealed.is_empty()).then(|| Box::new(sealed));
        Ok(list)
    }
}

/// Bytes that come together.
const CACHE_LINE: usize = 64;

/// Lines of a list that are asked for ahead; the processor follows a longer walk by itself.
const PREFETCHED_LINES: usize = 4;

/// Members that [`Walk::fill`] decodes at a time.
pub(super) const WALK_MEMBERS: usize = 128;

/// Walks a posting list, member by member or in blocks for loops that prefetch what the members name.
#[derive(Clone, Debug)]
pub(super) struct Walk<'a> {
    list: &'a PostingList,
    /// The number of the chunk; behind the sealed ones comes the tail.
    chunk: usize,
    /// Where the distance to the member behind the next starts.
    at: usize,
    next: Option<u32>,
}

impl<'a> Walk<'a> {
    fn chunk(&self, n: usize) -> Option<&'a Chunk> {
        let sealed = self.list.sealed();
        if n == sealed.len() { Some(&self.list.tail) } else { sealed.get(n) }
    }

    /// Begins a chunk; none is left behind the tail.
    fn enter(&mut self, n: usize) {
        (self.chunk, self.at) = (n, 0);
        self.next = self.chunk(n).map(|chunk| chunk.first);
    }

    /// Fills `block` with the next members, ascending; answers how many, 0 at the end.
    pub(super) fn fill(&mut self, block: &mut [u32; WALK_MEMBERS]) -> usize {
        let mut count = 0;
        while let (Some(mut member), Some(chunk)) = (self.next, self.chunk(self.chunk)) {
            let (bytes, mut at) = (chunk.distances(), self.at);
            loop {
                while count + 3 <= WALK_MEMBERS
                    && let Some([first, second, third]) = varint::read_three(bytes, &mut at)
                {
                    let next = [member, member + first, member + first + second];
                    block[count..count + 3].copy_from_slice(&next);
                    member = next[2] + third;
                    count += 3;
                }
                if count == WALK_MEMBERS {
                    (self.at, self.next) = (at, Some(member));
                    return count;
                }
                block[count] = member;
                count += 1;
                if at >= bytes.len() {
                    break;
                }
                member += varint::read(bytes, &mut at);
            }
            self.enter(self.chunk + 1);
        }
        count
    }
}

impl Iterator for Walk<'_> {
    type Item = u32;

    #[inline]
    fn next(&mut self) -> Option<u32> {
        let member = self.next?;
        let bytes = self.chunk(self.chunk).map_or(&[][..], Chunk::distances);
        if self.at < bytes.len() {
            self.next = Some(member + varint::read(bytes, &mut self.at));
        } else {
            self.enter(self.chunk + 1);
        }
        Some(member)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn check(list: &PostingList, set: &BTreeSet<u32>, heap: HeapBytes, from: u32) {
        assert_eq!(list.len() as usize, set.len());
        assert!(list.iter().eq(set.iter().copied()));
        assert!(list.iter_from(from).eq(set.range(from..).copied()));
        let (mut walk, mut block, mut all) = (list.iter_from(from), [0; WALK_MEMBERS], Vec::new());
        loop {
            let count = walk.fill(&mut block);
            if count == 0 {
                break;
            }
            all.extend_from_slice(&block[..count]);
        }
        assert!(all.into_iter().eq(set.range(from..).copied()));
        assert_eq!(list.memory(), heap.get(), "the running count is what a look at all chunks says");
    }

    fn restore(list: &PostingList, set: &BTreeSet<u32>) {
        let (mut image, mut again) = (Vec::new(), Vec::new());
        list.encode(&mut image);
        let mut restored = PostingList::decode(&mut Reader::new(&image)).unwrap();
        restored.encode(&mut again);
        assert_eq!((&image, restored.last()), (&again, set.last().copied()));
        let mut heap = HeapBytes::default();
        heap.replace(0, restored.memory());
        check(&restored, set, heap, 0);
        // It goes on as the original does.
        let mut list = list.clone();
        for member in (0..40).map(|n| n * 77) {
            assert_eq!(list.insert(member, &mut heap), restored.insert(member, &mut heap));
        }
        image.clear();
        again.clear();
        list.encode(&mut image);
        restored.encode(&mut again);
        assert_eq!(image, again);
    }

    fn run(changes: Vec<(bool, u32)>, stride: u32, from: u32) {
        let (mut list, mut set, mut heap) = (PostingList::default(), BTreeSet::new(), HeapBytes::default());
        for (insert, member) in changes {
            let member = member * stride;
            if insert {
                assert_eq!(list.insert(member, &mut heap), set.insert(member));
            } else {
                assert_eq!(list.remove(member, &mut heap), set.remove(&member));
            }
            assert_eq!(list.contains(member), insert);
        }
        check(&list, &set, heap, from * stride);
        restore(&list, &set);
        while let Some(member) = set.pop_first() {
            assert!(list.remove(member, &mut heap));
        }
        check(&list, &set, heap, 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn equals_a_set(
            changes in prop::collection::vec((any::<bool>(), 0u32..3_000), 0..4_000),
            stride in prop::sample::select(vec![1u32, 50, 3_000, 1_000_000]),
            from in 0u32..3_000,
        ) {
            run(changes, stride, from);
        }

        #[test]
        fn equals_a_set_when_most_is_added(
            changes in prop::collection::vec((prop::bool::weighted(0.8), 0u32..20_000), 0..6_000),
            from in 0u32..20_000,
        ) {
            run(changes, 200, from);
        }
    }

    proptest! {
        #[test]
        fn what_is_no_list_is_refused_and_never_panics(
            members in prop::collection::btree_set(0u32..100_000, 1..900),
            at: prop::sample::Index,
            byte: u8,
            bytes: Vec<u8>,
        ) {
            let (mut list, mut image) = (PostingList::default(), Vec::new());
            members.iter().for_each(|member| _ = list.insert(*member, &mut HeapBytes::default()));
            list.encode(&mut image);
            prop_assert!(PostingList::decode(&mut Reader::new(&image[..image.len() - 1])).is_err());
            let at = at.index(image.len());
            image[at] = byte;
            for image in [image, bytes] {
                if let Ok(list) = PostingList::decode(&mut Reader::new(&image)) {
                    prop_assert_eq!(list.iter().count(), list.len() as usize);
                    prop_assert!(list.iter().is_sorted_by(|a, b| a < b));
                }
            }
        }
    }

    #[test]
    fn members_at_both_ends_of_the_range_are_kept() {
        let (mut list, mut heap) = (PostingList::default(), HeapBytes::default());
        for member in [u32::MAX, 0, 1, u32::MAX - 1] {
            assert!(list.insert(member, &mut heap));
        }
        assert!(list.iter().eq([0, 1, u32::MAX - 1, u32::MAX]));
        assert!(list.iter_from(u32::MAX).eq([u32::MAX]));
    }

    #[test]
    fn a_loaded_list_takes_about_two_bytes_a_member() {
        let (mut list, mut heap) = (PostingList::default(), HeapBytes::default());
        let mut member = 0;
        for n in 0..20_000u32 {
            member += 1 + n.wrapping_mul(2_654_435_761) % 10_000;
            list.insert(member, &mut heap);
        }
        assert!(heap.get() < 20_000 * 21 / 10, "{}", heap.get());
    }
}
