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
