//! Owns the heads of the feeds of a space, by local user index, in regions that are never moved.
//!
//! - A head of zeros is that of an empty feed, so a region needs no preparation.
//! - Memory is counted up to the largest index that was stored something: local indexes are dense, and followers are spread
//!   over all of them.

use super::head::Head;
use super::region::Region;

/// Heads of a region.
const REGION_HEADS: usize = Region::<Head>::ITEMS;

#[derive(Debug, Default)]
pub(super) struct Heads {
    /// Made when the first of their users is stored something.
    regions: Vec<Option<Region<Head>>>,
    /// One above the largest index that was made.
    end: u32,
}

impl Heads {
    /// The head of a user, if one was made for this or a larger index.
    #[inline]
    pub(super) fn get(&self, user: u32) -> Option<&Head> {
        let region = self.regions.get(user as usize / REGION_HEADS)?.as_ref()?;
        (user < self.end).then(|| &region.items()[user as usize % REGION_HEADS])
    }

    #[inline]
    pub(super) fn get_mut(&mut self, user: u32) -> Option<&mut Head> {
        let region = self.regions.get_mut(user as usize / REGION_HEADS)?.as_mut()?;
        Some(&mut region.items_mut()[user as usize % REGION_HEADS])
    }

    /// The head of a user, made if there is none.
    pub(super) fn make(&mut self, user: u32) -> &mut Head {
        let n = user as usize / REGION_HEADS;
        if self.regions.len() <= n {
            self.regions.resize_with(n + 1, || None);
        }
        self.end = self.end.max(user + 1);
        let region = self.regions[n].get_or_insert_with(|| Region::new(n == 0));
        &mut region.items_mut()[user as usize % REGION_HEADS]
    }

    /// Bytes of memory they hold.
    pub(super) fn memory(&self) -> usize {
        let made = self.regions.iter().enumerate().filter(|(_, region)| region.is_some());
        let touched = |n: usize| (self.end as usize - n * REGION_HEADS).min(REGION_HEADS);
        made.map(|(n, _)| Region::<Head>::memory(touched(n), n == 0)).sum::<usize>()
            + self.regions.capacity() * size_of::<Option<Region<Head>>>()
    }
}
