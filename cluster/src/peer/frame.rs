//! Owns the frames between nodes: their head, their checksum, and taking them out of a stream of bytes.
//!
//! - A length is checked against its limit before anything is allocated for it.
//! - The checksum covers everything behind it, so that a damaged frame is never taken for another one.
//!
//! Format: `PEER.md`, "Frames".

use bytes::{Bytes, BytesMut};
use thiserror::Error;

/// Bytes before the body.
pub const HEAD_BYTES: usize = 24;

/// Bytes of the length itself, which it does not count.
const LENGTH_BYTES: usize = 4;

/// Bytes of length and checksum.
const SUM_BYTES: usize = 8;

const _: () = assert!(SUM_BYTES + 4 + 4 + 8 == HEAD_BYTES);

/// What a frame is. The numbers are on the wire and never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameKind {
    /// A message to a Raft replica; the code is the kind of message.
    Raft = 1,
    /// A call; the code says which.
    Call = 2,
    /// A ping.
    Ping = 3,
    /// The answer to the request of the same number; the code is its status.
    Answer = 4,
}

/// A frame without its length and checksum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub kind: FrameKind,
    /// Which message or call, or the status of an answer.
    pub code: u8,
    /// The group whose credit it takes; in an answer 0.
    pub group: u32,
    /// The number of the request on its connection, from 1.
    pub number: u64,
    /// The body.
    pub body: Bytes,
}

/// Why bytes are not a frame; the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The length passes the limit.
    #[error("a frame of {bytes} bytes is above the limit of {limit_bytes}")]
    TooLarge {
        /// What it says.
        bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// The length does not even hold the head.
    #[error("a frame of {bytes} bytes cannot hold its head")]
    TooShort {
        /// What it says.
        bytes: u64,
    },
    /// The checksum does not match.
    #[error("the checksum of a frame is wrong")]
    Checksum,
    /// There is no such kind of frame.
    #[error("there is no frame of kind {number}")]
    Kind {
        /// What it says.
        number: u8,
    },
    /// Bytes that must be zero are not.
    #[error("reserved bytes of a frame are not zero")]
    Reserved,
}

/// The bytes at a place; the caller knows that they are there.
pub(super) fn take<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut taken = [0; N];
    taken.copy_from_slice(&bytes[at..at + N]);
    taken
}

/// The first bytes of a frame whose body consists of these pieces; `body` is their checksum.
pub(super) fn head(
    kind: FrameKind,
    code: u8,
    group: u32,
    number: u64,
    (body_bytes, body): (usize, &crc32fast::Hasher),
) -> [u8; HEAD_BYTES] {
    let mut bytes = [0; HEAD_BYTES];
    bytes[0..4].copy_from_slice(&((HEAD_BYTES - LENGTH_BYTES + body_bytes) as u32).to_le_bytes());
    bytes[8] = kind as u8;
    bytes[9] = code;
    bytes[12..16].copy_from_slice(&group.to_le_bytes());
    bytes[16..24].copy_from_slice(&number.to_le_bytes());
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[SUM_BYTES..]);
    hasher.combine(body);
    bytes[4..8].copy_from_slice(&hasher.finalize().to_le_bytes());
    bytes
}

/// Takes the first frame out of what was read, if it is whole. Otherwise says how many bytes it has in all, as far as
/// that is known.
pub(super) fn split(buffer: &mut BytesMut, limit: usize) -> Result<Result<Frame, usize>, FrameError> {
    if buffer.len() < LENGTH_BYTES {
        return Ok(Err(HEAD_BYTES));
    }
    let length = u32::from_le_bytes(take(buffer, 0)) as usize;
    if length + LENGTH_BYTES > limit {
        let bytes = (length + LENGTH_BYTES) as u64;
        return Err(FrameError::TooLarge { bytes, limit_bytes: limit as u64 });
    }
    if length + LENGTH_BYTES < HEAD_BYTES {
        return Err(FrameError::TooShort { bytes: (length + LENGTH_BYTES) as u64 });
    }
    if buffer.len() < length + LENGTH_BYTES {
        return Ok(Err(length + LENGTH_BYTES));
    }
    let mut whole = buffer.split_to(length + LENGTH_BYTES).freeze();
    if crc32fast::hash(&whole[SUM_BYTES..]) != u32::from_le_bytes(take(&whole, 4)) {
        return Err(FrameError::Checksum);
    }
    let number = whole[8];
    let kind = [FrameKind::Raft, FrameKind::Call, FrameKind::Ping, FrameKind::Answer]
        .into_iter()
        .find(|kind| *kind as u8 == number)
        .ok_or(FrameError::Kind { number })?;
    if whole[10..12] != [0; 2] {
        return Err(FrameError::Reserved);
    }
    Ok(Ok(Frame {
        kind,
        code: whole[9],
        group: u32::from_le_bytes(take(&whole, 12)),
        number: u64::from_le_bytes(take(&whole, 16)),
        body: whole.split_off(HEAD_BYTES),
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(frame: &Frame) -> BytesMut {
        let mut body = crc32fast::Hasher::new();
        body.update(&frame.body);
        let head = head(frame.kind, frame.code, frame.group, frame.number, (frame.body.len(), &body));
        let mut bytes = BytesMut::from(&head[..]);
        bytes.extend_from_slice(&frame.body);
        bytes
    }

    fn sample() -> Frame {
        let body = Bytes::from_static(b"entries");
        Frame { kind: FrameKind::Raft, code: 1, group: 3, number: 9, body }
    }

    #[test]
    fn a_length_above_the_limit_is_refused_with_four_bytes() {
        let mut bytes = BytesMut::from(&u32::MAX.to_le_bytes()[..]);
        let error = split(&mut bytes, 1 << 20).unwrap_err();
        assert_eq!(error, FrameError::TooLarge { bytes: (1 << 32) + 3, limit_bytes: 1 << 20 });
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_or_refused(bytes: Vec<u8>) {
            let _ = split(&mut BytesMut::from(&bytes[..]), 1 << 10);
        }

        #[test]
        fn a_changed_byte_is_never_taken_for_another_frame(at in 0..HEAD_BYTES + 7, to: u8) {
            let mut bytes = encode(&sample());
            let same = bytes[at] == to;
            bytes[at] = to;
            let taken = split(&mut bytes, 1 << 10);
            prop_assert_eq!(taken == Ok(Ok(sample())), same);
            prop_assert!(same || !matches!(taken, Ok(Ok(_))));
        }

        #[test]
        fn a_frame_comes_out_of_any_pieces(cut in 0..HEAD_BYTES + 7) {
            let bytes = encode(&sample());
            let mut buffer = BytesMut::from(&bytes[..cut]);
            prop_assert!(matches!(split(&mut buffer, 1 << 10), Ok(Err(_))));
            buffer.extend_from_slice(&bytes[cut..]);
            prop_assert_eq!(split(&mut buffer, 1 << 10), Ok(Ok(sample())));
            prop_assert!(buffer.is_empty());
        }
    }
}
