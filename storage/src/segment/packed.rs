//! Owns integers of one to eight bytes, little-endian, side by side.

/// The fewest bytes that hold `value`; at least one.
pub(super) fn width(value: u64) -> usize {
    (64 - value.leading_zeros()).div_ceil(8).max(1) as usize
}

/// Appends the lowest `width` bytes of `value`, which are all that it has.
pub(super) fn put(out: &mut Vec<u8>, value: u64, width: usize) {
    assert!(self::width(value) <= width, "the width was made for the largest value");
    out.extend_from_slice(&value.to_le_bytes()[..width]);
}

/// The integer of `width` bytes at `at`; what `bytes` does not have reads as zero.
#[inline]
pub(super) fn get(bytes: &[u8], at: usize, width: usize) -> u64 {
    let eight = bytes.get(at..).and_then(<[u8]>::first_chunk);
    let value = eight.map_or_else(|| get_at_the_end(bytes, at), |eight| u64::from_le_bytes(*eight));
    value & u64::MAX >> (64 - 8 * width.clamp(1, 8))
}

#[cold]
fn get_at_the_end(bytes: &[u8], at: usize) -> u64 {
    bytes.iter().skip(at).take(8).rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// The `u64` at `at`; what `bytes` does not have reads as zero.
#[inline]
pub(super) fn get_u64(bytes: &[u8], at: usize) -> u64 {
    get(bytes, at, 8)
}

/// The `u32` at `at`; what `bytes` does not have reads as zero.
#[inline]
pub(super) fn get_u32(bytes: &[u8], at: usize) -> u32 {
    get(bytes, at, 4) as u32
}

/// The first of `lines` for which `before` no longer holds; it holds for a first part of them.
pub(super) fn partition_point(lines: std::ops::Range<usize>, mut before: impl FnMut(usize) -> bool) -> usize {
    let (mut from, mut to) = (lines.start, lines.end);
    while from < to {
        let middle = from + (to - from) / 2;
        if before(middle) {
            from = middle + 1;
        } else {
            to = middle;
        }
    }
    from
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_put_is_got(values in prop::collection::vec((any::<u64>(), 0u32..64), 1..20)) {
            let values: Vec<u64> = values.into_iter().map(|(value, shift)| value >> shift).collect();
            let widest = values.iter().copied().map(width).max().unwrap();
            let mut out = Vec::new();
            values.iter().for_each(|value| put(&mut out, *value, widest));
            prop_assert_eq!(out.len(), values.len() * widest);
            for (at, value) in values.iter().enumerate() {
                prop_assert_eq!(get(&out, at * widest, widest), *value);
            }
        }
    }

    #[test]
    fn a_partition_point_is_that_of_a_slice() {
        for len in 0..20 {
            for point in 0..=len {
                assert_eq!(partition_point(0..len, |at| at < point), point);
            }
        }
    }
}
