//! Owns the region: a piece of memory for heads or cells that lies in large pages.
//!
//! - Feeds are touched in no order, so with pages of 4 KiB nearly every touch would wait for the page tables too: with
//!   large pages a partition of a million users stored half as many references again in the same time.
//! - It takes memory page by page as it is first touched, and what was never touched is zero: making one costs nothing, and
//!   nothing is ever copied.
//! - The first part of the first region stays in small pages, so that a small partition stays small.
//! - The only unsafe code is the view of the mapping as items, and the promise of [`Plain`] by what lies in it.

use std::marker::PhantomData;

use memmap2::{MmapMut, MmapOptions};

/// Bytes of a region.
pub(super) const REGION_BYTES: usize = 8 << 20;

/// Bytes of a large page.
const LARGE_PAGE: usize = 2 << 20;

/// What a region may hold.
///
/// # Safety
/// All bits zero are a value of it, it has no padding, its alignment is at most a small page, and it has nothing to drop.
#[expect(unsafe_code, reason = "only whoever knows the type's layout can promise this")]
pub(super) unsafe trait Plain: Copy {}

/// Zeroed items in one mapping.
#[derive(Debug)]
pub(super) struct Region<T> {
    map: MmapMut,
    /// Where the first large page begins.
    start: usize,
    items: PhantomData<T>,
}

impl<T: Plain> Region<T> {
    /// How many items a region has.
    pub(super) const ITEMS: usize = REGION_BYTES / size_of::<T>();

    /// A region of zeroed items, the first one of its space or a later one.
    pub(super) fn new(first: bool) -> Self {
        let mapped = MmapOptions::new().len(REGION_BYTES + LARGE_PAGE).no_reserve_swap().map_anon();
        // As for any other allocation, there is no going on without it.
        let map = mapped.expect("the system has address space left");
        let start = map.as_ptr().align_offset(LARGE_PAGE);
        let small = if first { LARGE_PAGE } else { 0 };
        // Without large pages all is as before, only slower.
        #[cfg(target_os = "linux")]
        let _refused = map.advise_range(memmap2::Advice::HugePage, start + small, REGION_BYTES - small);
        Self { map, start, items: PhantomData }
    }

    #[expect(
        unsafe_code,
        reason = "a mapping is bytes, and its items are asked for far too often to be decoded"
    )]
    #[inline]
    pub(super) fn items(&self) -> &[T] {
        let first = self.map[self.start..].as_ptr().cast::<T>();
        // SAFETY: the mapping has `REGION_BYTES` behind `start`, which is aligned to a large page and so to `T`; its bytes are
        // zero or were written as a `T` by `items_mut`, and `Plain` says that zero is one; the borrow is that of the mapping.
        unsafe { std::slice::from_raw_parts(first, Self::ITEMS) }
    }

    #[expect(unsafe_code, reason = "as for `items`")]
    #[inline]
    pub(super) fn items_mut(&mut self) -> &mut [T] {
        let first = self.map[self.start..].as_mut_ptr().cast::<T>();
        // SAFETY: as in `items`; the mapping is borrowed mutably, so nobody else looks at it.
        unsafe { std::slice::from_raw_parts_mut(first, Self::ITEMS) }
    }

    /// Bytes of memory that `touched` items from the start take, in the first region of a space or a later one.
    pub(super) fn memory(touched: usize, first: bool) -> usize {
        let bytes = touched * size_of::<T>();
        if first && bytes <= LARGE_PAGE { bytes } else { bytes.next_multiple_of(LARGE_PAGE) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq)]
    #[repr(C, align(128))]
    struct Item([u64; 16]);

    // SAFETY: it is integers only.
    #[expect(unsafe_code, reason = "a test of the trait")]
    unsafe impl Plain for Item {}

    #[test]
    fn items_are_zero_until_written() {
        for first in [true, false] {
            let mut region = Region::<Item>::new(first);
            let (len, last) = (region.items().len(), Region::<Item>::ITEMS - 1);
            assert_eq!(len * size_of::<Item>(), REGION_BYTES);
            region.items_mut()[last] = Item([7; 16]);
            assert_eq!((region.items()[0], region.items()[last]), (Item([0; 16]), Item([7; 16])));
        }
    }

    #[test]
    fn large_pages_are_counted_whole() {
        assert_eq!(Region::<Item>::memory(3, true), 3 * 128);
        assert_eq!(Region::<Item>::memory(3, false), LARGE_PAGE);
        assert_eq!(Region::<Item>::memory(LARGE_PAGE / 128 + 1, true), 2 * LARGE_PAGE);
    }
}
