//! Owns a run of ascending indexes as bytes: the first one, and the distances from each to the next.
//!
//! - It is never empty and never longer than [`CHUNK_BYTES_MAX`]; whoever holds it splits it before.
//! - Its buffer grows by an eighth, so that little of it is empty.

use super::heap::HeapBytes;
use super::varint;

/// The most bytes of a chunk; with the allocator's word a round number.
pub(super) const CHUNK_BYTES_MAX: usize = 1_016;

/// Ascending indexes.
#[derive(Clone, Debug, Default)]
pub(super) struct Chunk {
    pub(super) first: u32,
    used: u16,
    /// The distances, and room for more.
    bytes: Box<[u8]>,
}

/// Where an index is in a chunk, or would be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The offset of the distance that leads to it.
    at: usize,
    /// The index before it.
    before: u32,
    /// The first index that is not smaller, and the size of the distance that leads there.
    next: Option<(u32, usize)>,
}

impl Place {
    /// Whether `index` is there.
    pub(super) fn finds(&self, index: u32) -> bool {
        self.next.is_some_and(|(next, _)| next == index)
    }
}

impl Chunk {
    pub(super) fn new(first: u32) -> Self {
        Self { first, used: 0, bytes: Box::default() }
    }

    /// The chunk that an image holds, how many indexes it has, and the last of them; none if the distances are not of one.
    pub(super) fn from_raw(first: u32, distances: &[u8]) -> Option<(Self, u32, u32)> {
        let (count, sum) = varint::check(distances, false)?;
        let last = u32::try_from(u64::from(first) + sum).ok()?;
        let chunk = || Self { first, used: distances.len() as u16, bytes: distances.into() };
        (distances.len() <= CHUNK_BYTES_MAX).then(|| (chunk(), count + 1, last))
    }

    /// The distances behind the first index.
    #[inline]
    pub(super) fn distances(&self) -> &[u8] {
        &self.bytes[..usize::from(self.used)]
    }

    /// The byte that the next append goes to, or one near it.
    pub(super) fn end(&self) -> Option<&u8> {
        self.bytes.get(usize::from(self.used)).or(self.bytes.last())
    }

    /// Whether one more index surely fits.
    #[inline]
    pub(super) fn has_room(&self) -> bool {
        usize::from(self.used) + varint::DISTANCE_BYTES_MAX <= CHUNK_BYTES_MAX
    }

    /// Whether it holds only its first index.
    pub(super) fn is_single(&self) -> bool {
        self.used == 0
    }

    /// Bytes of its buffer.
    pub(super) fn capacity(&self) -> usize {
        self.bytes.len()
    }

    /// Adds the index that is `distance` above the last one.
    #[inline]
    pub(super) fn append(&mut self, distance: u32, heap: &mut HeapBytes) {
        let used = usize::from(self.used);
        if self.bytes.len() < used + varint::DISTANCE_BYTES_MAX
            && self.bytes.len() < used + varint::size(distance)
        {
            self.grow(used + varint::size(distance), heap);
        }
        self.used += varint::write(&mut self.bytes[used..], distance) as u16;
    }

    /// Makes room for `needed` bytes and an eighth more.
    fn grow(&mut self, needed: usize, heap: &mut HeapBytes) {
        let capacity = ((needed + needed / 8 + 8).next_multiple_of(16) - 8).clamp(24, CHUNK_BYTES_MAX);
        let mut bytes = std::mem::take(&mut self.bytes).into_vec();
        heap.resize(bytes.len(), capacity);
        bytes.reserve_exact(capacity - bytes.len());
        bytes.resize(capacity, 0);
        self.bytes = bytes.into_boxed_slice();
    }

    /// Gives back the room that is not used.
    pub(super) fn shrink(&mut self, heap: &mut HeapBytes) {
        let used = usize::from(self.used);
        if self.bytes.len() >= used + 16 {
            heap.resize(self.bytes.len(), used);
            let mut bytes = std::mem::take(&mut self.bytes).into_vec();
            bytes.truncate(used);
            self.bytes = bytes.into_boxed_slice();
        }
    }

    /// Gives room back once a half of it is not used.
    pub(super) fn shrink_if_sparse(&mut self, heap: &mut HeapBytes) {
        if self.bytes.len() > 2 * usize::from(self.used) + 24 {
            self.shrink(heap);
        }
    }

    /// Notes that it is dropped.
    pub(super) fn forget(&self, heap: &mut HeapBytes) {
        heap.resize(self.bytes.len(), 0);
    }

    /// Where `index`, larger than the first, is or would be.
    pub(super) fn place(&self, index: u32) -> Place {
        let bytes = self.distances();
        let (mut at, mut before) = (0, self.first);
        while at < bytes.len() {
            let start = at;
            let here = before + varint::read(bytes, &mut at);
            if here >= index {
                return Place { at: start, before, next: Some((here, at - start)) };
            }
            before = here;
        }
        Place { at, before, next: None }
    }

    /// The last index.
    pub(super) fn last(&self) -> u32 {
        let (bytes, mut at, mut last) = (self.distances(), 0, self.first);
        while at < bytes.len() {
            last += varint::read(bytes, &mut at);
        }
        last
    }

    /// Adds `index`, which is not there, at its place.
    pub(super) fn insert(&mut self, index: u32, place: Place, heap: &mut HeapBytes) {
        let mut raw = [0; 2 * varint::DISTANCE_BYTES_MAX];
        let mut size = varint::write(&mut raw, index - place.before);
        let taken = place.next.map_or(0, |(next, taken)| {
            size += varint::write(&mut raw[size..], next - index);
            taken
        });
        self.splice(place.at, taken, &raw[..size], heap);
    }

    /// Adds an index below the first.
    pub(super) fn insert_first(&mut self, index: u32, heap: &mut HeapBytes) {
        let mut raw = [0; varint::DISTANCE_BYTES_MAX];
        let size = varint::write(&mut raw, self.first - index);
        self.splice(0, 0, &raw[..size], heap);
        self.first = index;
    }

    /// Takes the index out that the place names; answers the one before if it was the last.
    pub(super) fn remove(&mut self, place: Place, heap: &mut HeapBytes) -> Option<u32> {
        let taken = place.next.map_or(0, |(_, taken)| taken);
        let mut end = place.at + taken;
        if end >= usize::from(self.used) {
            self.used = place.at as u16;
            return Some(place.before);
        }
        let index = place.next.map_or(place.before, |(index, _)| index);
        let after = index + varint::read(self.distances(), &mut end);
        let mut raw = [0; varint::DISTANCE_BYTES_MAX];
        let size = varint::write(&mut raw, after - place.before);
        self.splice(place.at, end - place.at, &raw[..size], heap);
        None
    }

    /// Takes the first index out of a chunk that holds more.
    pub(super) fn remove_first(&mut self, heap: &mut HeapBytes) {
        let mut end = 0;
        self.first += varint::read(self.distances(), &mut end);
        self.splice(0, end, &[], heap);
    }

    /// Replaces `taken` bytes from `at` on.
    fn splice(&mut self, at: usize, taken: usize, bytes: &[u8], heap: &mut HeapBytes) {
        let used = usize::from(self.used);
        let after = used + bytes.len() - taken;
        if after > self.bytes.len() {
            self.grow(after, heap);
        }
        self.bytes.copy_within(at + taken..used, at + bytes.len());
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        self.used = after as u16;
    }

    /// Takes the upper half off, if there are two indexes at least.
    pub(super) fn split(&mut self, heap: &mut HeapBytes) -> Option<Self> {
        let (bytes, mut at, mut last) = (self.distances(), 0, self.first);
        while at < bytes.len() {
            let start = at;
            last += varint::read(bytes, &mut at);
            if at >= bytes.len() / 2 {
                let rest: Box<[u8]> = bytes[at..].into();
                heap.resize(0, rest.len());
                let upper = Self { first: last, used: rest.len() as u16, bytes: rest };
                self.used = start as u16;
                self.shrink(heap);
                return Some(upper);
            }
        }
        None
    }
}
