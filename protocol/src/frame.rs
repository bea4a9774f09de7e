//! Owns the frame: header, checksum and limits, and the codec that cuts a byte stream into frames.
//!
//! Invariants:
//! - A length is checked against the limit before anything is allocated for it.
//! - Nothing of a frame is handed out before its checksum matched; a body is a slice of the receive buffer.
//! - The codec fails only where the stream is out of step; everything else is found by decoding the body.
//!
//! Format: `PROTOCOL.md`, "Frames".

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use crate::error::{DecodeError, FrameError};
use crate::ids::RequestId;

/// Bytes of the length field.
pub const LENGTH_BYTES: usize = 4;
/// Bytes of the header, the length field included.
pub const HEADER_BYTES: usize = 20;
/// Largest frame before and at the handshake: only refusals are sent then.
pub const HANDSHAKE_FRAME_BYTES_MAX: u32 = 4 * 1024;

const CHECKSUM_AT: usize = 16;
const _: () = assert!(CHECKSUM_AT + 4 == HEADER_BYTES);

/// The flags of a frame or batch item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(pub u16);

impl Flags {
    /// A request.
    pub const REQUEST: Self = Self(0);
    /// A successful answer.
    pub const RESPONSE: Self = Self(1);
    /// A refusal: an answer whose body is a status.
    pub const ERROR: Self = Self(3);

    /// Whether the frame answers a request.
    pub fn is_response(self) -> bool {
        self.0 & 1 != 0
    }
}

/// One frame as it lies on the wire; its body is not decoded yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The opcode as it came, known or not.
    pub opcode: u16,
    /// The flags as they came, known or not.
    pub flags: Flags,
    /// The number that ties an answer to its request.
    pub request_id: RequestId,
    /// The body; a slice of the receive buffer, not a copy.
    pub body: Bytes,
}

impl Frame {
    /// Bytes on the wire, header included.
    pub fn encoded_len(&self) -> usize {
        HEADER_BYTES + self.body.len()
    }

    /// Appends the frame to a buffer, unless its length field would exceed `frame_bytes_max`.
    pub fn encode_into(&self, buffer: &mut BytesMut, frame_bytes_max: u32) -> Result<(), FrameError> {
        let length = self.encoded_len() - LENGTH_BYTES;
        if length > frame_bytes_max as usize {
            return Err(FrameError::TooLargeToSend { limit: frame_bytes_max, got: length });
        }
        let start = buffer.len();
        buffer.reserve(self.encoded_len());
        put_header(buffer, self.body.len(), self.opcode, self.flags, self.request_id);
        buffer.put_slice(&self.body);
        put_checksum(&mut buffer[start..]);
        Ok(())
    }

    /// Takes one frame from the front of a buffer; `None` if it is not complete yet.
    pub fn decode_from(buffer: &mut BytesMut, frame_bytes_max: u32) -> Result<Option<Self>, DecodeError> {
        let Some(length) = peek_length(buffer, frame_bytes_max)? else {
            return Ok(None);
        };
        let total = LENGTH_BYTES + length;
        if buffer.len() < total {
            // Nothing is reserved: a peer that only announces bytes costs nothing.
            return Ok(None);
        }
        let (header, body) = buffer[..total].split_at(HEADER_BYTES);
        let expected = checksum(&header[..CHECKSUM_AT], body);
        let mut fields = &header[LENGTH_BYTES..];
        let (opcode, flags) = (fields.get_u16_le(), Flags(fields.get_u16_le()));
        let request_id = RequestId(fields.get_u64_le());
        if fields.get_u32_le() != expected {
            return Err(DecodeError::BadChecksum);
        }
        buffer.advance(HEADER_BYTES);
        let body = buffer.split_to(total - HEADER_BYTES).freeze();
        Ok(Some(Self { opcode, flags, request_id, body }))
    }
}

/// The length field at the front of a buffer, checked; `None` if it is not complete yet.
fn peek_length(buffer: &BytesMut, frame_bytes_max: u32) -> Result<Option<usize>, DecodeError> {
    let Some(field) = buffer.first_chunk::<LENGTH_BYTES>() else {
        return Ok(None);
    };
    let length = u32::from_le_bytes(*field);
    if length > frame_bytes_max {
        return Err(DecodeError::FrameTooLarge { limit: frame_bytes_max, got: length });
    }
    if (length as usize) < HEADER_BYTES - LENGTH_BYTES {
        return Err(DecodeError::FrameTooShort { got: length });
    }
    Ok(Some(length as usize))
}

/// Appends a header whose checksum is still to be put.
pub(crate) fn put_header(
    buffer: &mut impl BufMut,
    body_bytes: usize,
    opcode: u16,
    flags: Flags,
    request_id: RequestId,
) {
    buffer.put_u32_le((HEADER_BYTES - LENGTH_BYTES + body_bytes) as u32);
    buffer.put_u16_le(opcode);
    buffer.put_u16_le(flags.0);
    buffer.put_u64_le(request_id.0);
    buffer.put_u32_le(0);
}

/// Puts the checksum into the header of a whole frame.
pub(crate) fn put_checksum(frame: &mut [u8]) {
    let checksum = checksum(&frame[..CHECKSUM_AT], &frame[HEADER_BYTES..]);
    frame[CHECKSUM_AT..HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
}

fn checksum(header: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(body);
    hasher.finalize()
}

/// Cuts a byte stream into frames, and puts frames onto one.
#[derive(Debug, Clone, Copy)]
pub struct FrameCodec {
    frame_bytes_max: u32,
}

impl FrameCodec {
    /// A codec for frames whose length field is at most `frame_bytes_max`, in both directions.
    pub fn new(frame_bytes_max: u32) -> Self {
        Self { frame_bytes_max }
    }
}

impl Decoder for FrameCodec {
    type Item = Frame;
    type Error = FrameError;

    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        Ok(Frame::decode_from(buffer, self.frame_bytes_max)?)
    }
}

impl Encoder<Frame> for FrameCodec {
    type Error = FrameError;

    fn encode(&mut self, frame: Frame, buffer: &mut BytesMut) -> Result<(), FrameError> {
        frame.encode_into(buffer, self.frame_bytes_max)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(body: &[u8]) -> Frame {
        Frame {
            opcode: 7,
            flags: Flags::REQUEST,
            request_id: RequestId(9),
            body: Bytes::copy_from_slice(body),
        }
    }

    fn encoded(frame: &Frame) -> BytesMut {
        let mut buffer = BytesMut::new();
        frame.encode_into(&mut buffer, 1 << 20).expect("fits");
        buffer
    }

    #[test]
    fn length_above_the_limit_is_refused_from_four_bytes_without_allocation() {
        let mut buffer = BytesMut::from(&u32::MAX.to_le_bytes()[..]);
        let capacity = buffer.capacity();
        let refused = Frame::decode_from(&mut buffer, 1 << 20);
        assert_eq!(refused, Err(DecodeError::FrameTooLarge { limit: 1 << 20, got: u32::MAX }));
        assert_eq!(buffer.capacity(), capacity);
    }

    #[test]
    fn length_below_the_header_is_refused() {
        let mut buffer = BytesMut::from(&15u32.to_le_bytes()[..]);
        assert_eq!(Frame::decode_from(&mut buffer, 1 << 20), Err(DecodeError::FrameTooShort { got: 15 }));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let good = encoded(&frame(b"body"));
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            // A longer length only makes the frame incomplete: the deadline for a frame ends that.
            assert!(!matches!(Frame::decode_from(&mut bad, 1 << 20), Ok(Some(_))), "bit {bit}");
        }
    }

    #[test]
    fn frame_too_large_to_send_leaves_the_buffer_alone() {
        let mut buffer = BytesMut::new();
        let refused = frame(&[0; 100]).encode_into(&mut buffer, 115);
        assert!(matches!(refused, Err(FrameError::TooLargeToSend { limit: 115, got: 116 })));
        assert!(buffer.is_empty());
    }

    proptest! {
        #[test]
        fn frames_survive_any_cut_of_the_stream(bodies: Vec<Vec<u8>>, chunk in 1usize..64) {
            let mut codec = FrameCodec::new(1 << 20);
            let frames: Vec<Frame> = bodies.iter().map(|body| frame(body)).collect();
            let mut stream = BytesMut::new();
            for frame in &frames {
                codec.encode(frame.clone(), &mut stream).expect("fits");
            }
            let mut buffer = BytesMut::new();
            let mut decoded = Vec::new();
            for piece in stream.chunks(chunk) {
                buffer.extend_from_slice(piece);
                while let Some(frame) = codec.decode(&mut buffer).expect("whole frames") {
                    decoded.push(frame);
                }
            }
            prop_assert_eq!(decoded, frames);
        }
    }
}
