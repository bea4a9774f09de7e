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
}
