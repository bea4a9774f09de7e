//! Owns the encoding of ascending 32-bit indexes: LEB128 of the distance to the one before.
//!
//! - What these lists hold was written here, so reading it needs no errors; reading past the end panics.

/// The most bytes of one distance.
pub(super) const DISTANCE_BYTES_MAX: usize = 5;

/// How many bytes a distance takes.
pub(super) fn size(distance: u32) -> usize {
    match distance {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        0x20_0000..0x1000_0000 => 4,
        _ => 5,
    }
}

/// Writes a distance at the start of `out`; answers its size.
#[inline]
pub(super) fn write(out: &mut [u8], mut distance: u32) -> usize {
    let mut at = 0;
    while distance >= 0x80 {
        out[at] = distance as u8 | 0x80;
        distance >>= 7;
        at += 1;
    }
    out[at] = distance as u8;
    at + 1
}

/// Appends a distance.
pub(super) fn put(out: &mut Vec<u8>, distance: u32) {
    let mut raw = [0; DISTANCE_BYTES_MAX];
    let size = write(&mut raw, distance);
    out.extend_from_slice(&raw[..size]);
}

/// Reads the distance at `at` and moves behind it.
#[inline]
pub(super) fn read(bytes: &[u8], at: &mut usize) -> u32 {
    let low = bytes[*at];
    *at += 1;
    if low < 0x80 {
        return u32::from(low);
    }
    let next = bytes[*at];
    *at += 1;
    let mut distance = u32::from(low & 0x7F) | u32::from(next & 0x7F) << 7;
    let (mut shift, mut more) = (14, next >= 0x80);
    while more {
        let byte = bytes[*at];
        *at += 1;
        distance |= u32::from(byte & 0x7F) << shift;
        shift += 7;
        more = byte >= 0x80;
    }
    distance
}

/// Checks what was not written here: that `bytes` are whole distances as [`put`] writes them, none of them 0 but perhaps
/// the first. Answers how many there are, and their sum.
///
/// It takes eight bytes at a time. A byte 0 only ever stands for the distance 0; the bits of a byte count 128-fold if the byte
/// before says that it goes on, and 128-fold again if the one before that does too.
pub(super) fn check(bytes: &[u8], zero_first: bool) -> Option<(u32, u64)> {
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return Some((0, 0)) };
    if *last >= 0x80 {
        return None;
    }
    // A first distance of 0, and what is missing at the end of the last word, are taken for distances of 1.
    let zero = zero_first && *first == 0;
    let added = u64::from(zero) + (bytes.len().next_multiple_of(8) - bytes.len()) as u64;
    let (mut going_on, mut sums) = (0, [0; 3]);
    // What the word before says of the first bytes of this one: the first, second and third to go on.
    let mut carry = [0; 3];
    for (n, block) in bytes.chunks(8 * LANES_WORDS).enumerate() {
        let (mut ends, mut lanes) = (0, [0; 3]);
        for (m, raw) in block.chunks(8).enumerate() {
            let mut padded = [1; 8];
            let word = raw.first_chunk().copied().unwrap_or_else(|| {
                padded[..raw.len()].copy_from_slice(raw);
                padded
            });
            let mut word = u64::from_le_bytes(word);
            if n == 0 && m == 0 {
                word |= u64::from(zero);
            }
            let more = word >> 7 & ONES;
            let second = more << 8 | carry[0];
            let third = second & (second << 8 | carry[1]);
            let fourth = third & (third << 8 | carry[2]);
            carry = [more >> 56, second >> 56, third >> 56];
            if fourth != 0 {
                return check_slowly(bytes, zero_first);
            }
            if word.wrapping_sub(ONES) & !word & ENDS != 0 {
                return None;
            }
            ends += more;
            let values = word & !ENDS;
            for (lane, among) in
                lanes.iter_mut().zip([values, values & (second * 0xFF), values & (third * 0xFF)])
            {
                *lane += (among & EVEN) + (among >> 8 & EVEN);
            }
        }
        going_on += join_lanes((ends & EVEN) + (ends >> 8 & EVEN));
        sums.iter_mut().zip(lanes).for_each(|(sum, lanes)| *sum += join_lanes(lanes));
    }
    let count = bytes.len() as u64 - going_on;
    let sum = sums[0] + 127 * sums[1] + (128 * 128 - 128) * sums[2] - added;
    Some((u32::try_from(count).ok()?, sum))
}

/// Words after which lanes of 16 bits, or bytes that count to one, might overflow.
const LANES_WORDS: usize = 128;

const ONES: u64 = 0x0101_0101_0101_0101;
const EVEN: u64 = 0x00FF_00FF_00FF_00FF;

fn join_lanes(lanes: u64) -> u64 {
    (0..4).map(|n| lanes >> (16 * n) & 0xFFFF).sum()
}

/// As [`check`], one by one: for distances of more than three bytes.
fn check_slowly(bytes: &[u8], zero_first: bool) -> Option<(u32, u64)> {
    let (mut at, mut count, mut sum) = (0, 0, 0);
    while at < bytes.len() {
        let start = at;
        let distance = check_one(bytes, &mut at)?;
        if bytes[at - 1] == 0 && !(zero_first && (start, at) == (0, 1)) {
            return None;
        }
        sum += u64::from(distance);
        count += 1;
    }
    Some((count, sum))
}

fn check_one(bytes: &[u8], at: &mut usize) -> Option<u32> {
    let mut distance = 0;
    for shift in (0..7 * DISTANCE_BYTES_MAX).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        distance |= u64::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            return u32::try_from(distance).ok();
        }
    }
    None
}

/// The bits that say where distances end.
const ENDS: u64 = 0x8080_8080_8080_8080;

/// Reads three distances at `at` and moves behind them, if they end within eight bytes; without a branch on their sizes,
/// which nobody could foretell.
#[inline]
pub(super) fn read_three(bytes: &[u8], at: &mut usize) -> Option<[u32; 3]> {
    let word = u64::from_le_bytes(*bytes.get(*at..)?.first_chunk()?);
    let first = !word & ENDS;
    let second = first & first.wrapping_sub(1);
    let third = second & second.wrapping_sub(1);
    if third == 0 {
        return None;
    }
    let (a, b, c) = (first.trailing_zeros(), second.trailing_zeros(), third.trailing_zeros());
    *at += c as usize / 8 + 1;
    Some([join(word, a), join(word >> (a + 1), b - a - 1), join(word >> (b + 1), c - b - 1)])
}

/// The distance in the lowest bits of a word, the last of which is numbered `last`.
#[inline]
fn join(word: u64, last: u32) -> u32 {
    let groups = word & (u64::MAX >> (63 - last));
    let joined = groups & 0x7F
        | groups >> 1 & 0x3F80
        | groups >> 2 & 0x1F_C000
        | groups >> 3 & 0xFE0_0000
        | groups >> 4 & 0x7_F000_0000;
    joined as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn distances_of_every_size_survive() {
        let edges =
            [0, 1, 0x7F, 0x80, 0x3FFF, 0x4000, 0x1F_FFFF, 0x20_0000, 0xFFF_FFFF, 0x1000_0000, u32::MAX];
        for distance in edges {
            let mut out = Vec::new();
            put(&mut out, distance);
            assert_eq!(out.len(), size(distance));
            let mut at = 0;
            assert_eq!((read(&out, &mut at), at), (distance, out.len()));
        }
    }

    #[test]
    fn a_check_counts_what_is_whole_and_refuses_the_rest() {
        let distances = [0, 1, 0x7F, 5_000, 9, u32::MAX, 300, 1 << 28, 2, 70, 70, 1];
        let mut out = Vec::new();
        distances.iter().for_each(|distance| put(&mut out, *distance));
        let sum: u64 = distances.iter().map(|distance| u64::from(*distance)).sum();
        assert_eq!(check(&out, true), Some((distances.len() as u32, sum)));
        assert_eq!((check(&out, false), check(&[], false)), (None, Some((0, 0))));
        for zero in [[0, 1, 1], [1, 0, 1], [1, 1, 0]] {
            assert_eq!(check(&[&[1][..], &zero, &[1; 8]].concat(), true), None);
        }
        for broken in [&[0x80][..], &[1, 0x80, 0x80], &[0x80, 0x80, 0x80, 0x80, 0x80, 1, 1, 1, 1, 1]] {
            assert_eq!(check(broken, true), None);
        }
        // A fifth byte with more than four bits.
        assert_eq!(check(&[0xFF, 0xFF, 0xFF, 0xFF, 0x1F, 1, 1, 1, 1], true), None);
    }

    proptest! {
        #[test]
        fn eight_bytes_at_a_time_are_what_one_by_one_are(
            distances in prop::collection::vec(prop_oneof![6 => 0..40_000u32, 1 => 1..3_000_000u32, 1 => 1..9u32], 0..900),
            at: prop::sample::Index,
            byte: u8,
            zero_first: bool,
        ) {
            let mut bytes = Vec::new();
            distances.iter().for_each(|distance| put(&mut bytes, *distance));
            prop_assert_eq!(check(&bytes, zero_first), check_slowly(&bytes, zero_first));
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
                prop_assert_eq!(check(&bytes, zero_first), check_slowly(&bytes, zero_first));
            }
        }
    }

    #[test]
    fn three_at_once_are_three_in_a_row() {
        let sizes =
            [0, 1, 0x7F, 0x80, 0x3FFF, 0x4000, 0x1F_FFFF, 0x20_0000, 0xFFF_FFFF, 0x1000_0000, u32::MAX];
        for n in 0..sizes.len().pow(3) {
            let three = [n, n / sizes.len(), n / sizes.len().pow(2)].map(|n| sizes[n % sizes.len()]);
            let mut out = vec![0xFF; 3];
            three.iter().for_each(|distance| put(&mut out, *distance));
            let end = out.len();
            let mut at = 3;
            assert_eq!(read_three(&out[..end.min(10)], &mut at), None, "eight bytes are read at once");
            out.extend_from_slice(&[0x80; 8]);
            let read = read_three(&out, &mut at);
            assert_eq!(read, (end <= 11).then_some(three));
            assert_eq!(at, if end <= 11 { end } else { 3 });
        }
    }
}
