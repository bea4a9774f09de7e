//! Owns the count of the heap bytes of a part, kept as its allocations come, grow and go.
//!
//! - A count is what the allocator takes, not what was asked for, so that the sum of the parts explains the process.

/// Bytes that the allocator takes for an allocation of `bytes`: a word of its own, rounded up to 16, at least 32.
///
/// That is what the C library does on 64-bit Linux; other allocators differ by a few percent.
pub(super) const fn allocated(bytes: usize) -> usize {
    match bytes {
        0 => 0,
        1..=24 => 32,
        _ => (bytes + 8).next_multiple_of(16),
    }
}

/// A running count of heap bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct HeapBytes(usize);

impl HeapBytes {
    /// Notes that an allocation of `before` bytes is now one of `after` bytes; none counts 0.
    pub(super) fn resize(&mut self, before: usize, after: usize) {
        self.replace(allocated(before), allocated(after));
    }

    /// Notes that what took `before` bytes, allocator included, now takes `after`.
    pub(super) fn replace(&mut self, before: usize, after: usize) {
        self.0 = (self.0 + after).saturating_sub(before);
    }

    /// The count.
    pub(super) fn get(self) -> usize {
        self.0
    }
}
