//! Owns the filter of timelines: a blocked Bloom filter (Putze, Sanders and Singler, 2007).
//!
//! - All bits of a timeline are in one block of 512 bits, so that an answer touches one place.

use xxhash_rust::xxh3::xxh3_128;

use super::layout::FILTER_BLOCK_BYTES;
use crate::ids::{SpaceId, UserId};

/// Bits per timeline; with these and seven bits set the filter says yes for about one in 200 others.
const BITS: u64 = 12;

/// Bits that a timeline sets, of nine bits of hash each.
const BITS_SET: u32 = 7;

/// How many blocks the filter of so many timelines has.
pub(super) fn blocks(timelines: u64) -> u64 {
    (timelines * BITS).div_ceil(8 * FILTER_BLOCK_BYTES as u64).max(1)
}

/// Where the block of a timeline starts, and which of its bits are meant.
fn place(blocks: u64, space: SpaceId, owner: UserId) -> (usize, impl Iterator<Item = usize>) {
    let mut key = [0; 10];
    key[..2].copy_from_slice(&space.0.to_le_bytes());
    key[2..].copy_from_slice(&owner.0.to_le_bytes());
    let hash = xxh3_128(&key);
    let block = (u128::from((hash >> 64) as u64) * u128::from(blocks)) >> 64;
    let bits = (0..BITS_SET).map(move |bit| (hash >> (9 * bit)) as usize & 511);
    (block as usize * FILTER_BLOCK_BYTES, bits)
}

pub(super) fn insert(filter: &mut [u8], space: SpaceId, owner: UserId) {
    let (at, bits) = place((filter.len() / FILTER_BLOCK_BYTES) as u64, space, owner);
    bits.for_each(|bit| filter[at + bit / 8] |= 1 << (bit % 8));
}

pub(super) fn may_hold(filter: &[u8], space: SpaceId, owner: UserId) -> bool {
    let (at, mut bits) = place((filter.len() / FILTER_BLOCK_BYTES) as u64, space, owner);
    bits.all(|bit| filter[at + bit / 8] & 1 << (bit % 8) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_forgets_nobody_and_says_no_for_99_of_100_others() {
        for timelines in [1u64, 40, 1_000, 50_000] {
            let mut filter = vec![0; blocks(timelines) as usize * FILTER_BLOCK_BYTES];
            (0..timelines).for_each(|owner| insert(&mut filter, SpaceId(1), UserId(owner)));
            assert!((0..timelines).all(|owner| may_hold(&filter, SpaceId(1), UserId(owner))));
            let wrong = (0..100_000).filter(|owner| may_hold(&filter, SpaceId(2), UserId(*owner))).count();
            assert!(wrong < 1_000, "{timelines} timelines: {wrong} of 100,000");
        }
    }
}
