//! Owns the first bytes of a connection: the client's hello, the server's hello, and the limits it announces.
//!
//! Format: `PROTOCOL.md`, "Handshake".

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::error::DecodeError;
use crate::frame::{Frame, HANDSHAKE_FRAME_BYTES_MAX};
use crate::status::Status;

/// The first four bytes that each side sends.
pub const MAGIC: [u8; 4] = *b"FNFD";

/// The lowest protocol version that this crate speaks.
pub const VERSION_MIN: u16 = 1;
/// The highest protocol version that this crate speaks.
pub const VERSION_MAX: u16 = 1;
/// The feature level of this crate.
pub const FEATURE_LEVEL: u32 = 1;

const CHECKSUM_BYTES: usize = 4;
// Read as a frame's length, the magic must be refused by every limit.
const _: () = assert!(u32::from_le_bytes(MAGIC) > HANDSHAKE_FRAME_BYTES_MAX);

/// What the client sends first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// Lowest protocol version the client speaks.
    pub version_min: u16,
    /// Highest protocol version the client speaks.
    pub version_max: u16,
    /// The client's feature level.
    pub feature_level: u32,
}

/// What the server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerHello {
    /// The version that both sides use from here on.
    pub version: u16,
    /// The feature level that both sides use from here on: the lower of the two.
    pub feature_level: u32,
    /// What the server accepts.
    pub limits: Limits,
}

/// What a server accepts on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest value of a frame's length field, in bytes.
    pub frame_bytes_max: u32,
    /// Requests in flight on one connection, counting each item of a batch.
    pub pipelined_max: u32,
    /// Entries or users on one page.
    pub page_entries_max: u32,
    /// Bytes of one payload, whatever the space allows.
    pub payload_bytes_max: u32,
    /// Items of one batch frame.
    pub batch_items_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame_bytes_max: 4 * 1024 * 1024,
            pipelined_max: 1_024,
            page_entries_max: 1_000,
            payload_bytes_max: 64 * 1024,
            batch_items_max: 1_024,
        }
    }
}

impl Hello {
    /// Bytes of a hello.
    pub const BYTES: usize = 16;

    /// The hello of this crate.
    pub fn current() -> Self {
        Self { version_min: VERSION_MIN, version_max: VERSION_MAX, feature_level: FEATURE_LEVEL }
    }

    /// The hello as it is sent.
    pub fn to_bytes(&self) -> Bytes {
        let mut buffer = BytesMut::with_capacity(Self::BYTES);
        buffer.put_slice(&MAGIC);
        buffer.put_u16_le(self.version_min);
        buffer.put_u16_le(self.version_max);
        buffer.put_u32_le(self.feature_level);
        sign(buffer)
    }

    /// Takes a hello from the front of a buffer; `None` if it is not complete yet. A wrong first byte is
    /// enough to refuse.
    pub fn decode_from(buffer: &mut BytesMut) -> Result<Option<Self>, DecodeError> {
        check_magic(buffer)?;
        let Some(mut signed) = take_signed(buffer, Self::BYTES)? else {
            return Ok(None);
        };
        Ok(Some(Self {
            version_min: signed.get_u16_le(),
            version_max: signed.get_u16_le(),
            feature_level: signed.get_u32_le(),
        }))
    }

    /// What a server of this crate answers: the highest version that both speak and the lower feature level.
    pub fn negotiate(&self, limits: Limits) -> Result<ServerHello, Status> {
        let version = self.version_max.min(VERSION_MAX);
        if version < self.version_min.max(VERSION_MIN) {
            return Err(Status::UnsupportedVersion { min: VERSION_MIN, max: VERSION_MAX });
        }
        Ok(ServerHello { version, feature_level: self.feature_level.min(FEATURE_LEVEL), limits })
    }
}

impl ServerHello {
    /// Bytes of a server's hello.
    pub const BYTES: usize = 36;

    /// The hello as it is sent.
    pub fn to_bytes(&self) -> Bytes {
        let mut buffer = BytesMut::with_capacity(Self::BYTES);
        buffer.put_slice(&MAGIC);
        buffer.put_u16_le(self.version);
        buffer.put_u16_le(0);
        buffer.put_u32_le(self.feature_level);
        buffer.put_u32_le(self.limits.frame_bytes_max);
        buffer.put_u32_le(self.limits.pipelined_max);
        buffer.put_u32_le(self.limits.page_entries_max);
        buffer.put_u32_le(self.limits.payload_bytes_max);
        buffer.put_u32_le(self.limits.batch_items_max);
        sign(buffer)
    }
}

/// What a client receives first: the server's hello, or a frame that refuses the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandshakeReply {
    /// The connection is open.
    Accepted(ServerHello),
    /// The connection is refused and will be closed.
    Refused(Status),
}

impl HandshakeReply {
    /// Takes the reply from the front of a buffer; `None` if it is not complete yet.
    ///
    /// The magic read as a length is above every limit, so that the first four bytes tell the two apart.
    pub fn decode_from(buffer: &mut BytesMut) -> Result<Option<Self>, DecodeError> {
        if buffer.len() < MAGIC.len() {
            return Ok(None);
        }
        if !buffer.starts_with(&MAGIC) {
            return decode_refusal(buffer);
        }
        let Some(mut signed) = take_signed(buffer, ServerHello::BYTES)? else {
            return Ok(None);
        };
        let version = signed.get_u16_le();
        signed.advance(2);
        Ok(Some(Self::Accepted(ServerHello {
            version,
            feature_level: signed.get_u32_le(),
            limits: Limits {
                frame_bytes_max: signed.get_u32_le(),
                pipelined_max: signed.get_u32_le(),
                page_entries_max: signed.get_u32_le(),
                payload_bytes_max: signed.get_u32_le(),
                batch_items_max: signed.get_u32_le(),
            },
        })))
    }
}

fn decode_refusal(buffer: &mut BytesMut) -> Result<Option<HandshakeReply>, DecodeError> {
    let frame = match Frame::decode_from(buffer, HANDSHAKE_FRAME_BYTES_MAX) {
        Ok(Some(frame)) => frame,
        Ok(None) => return Ok(None),
        // Whatever answered does not speak this protocol.
        Err(DecodeError::FrameTooLarge { .. } | DecodeError::FrameTooShort { .. }) => {
            return Err(DecodeError::BadMagic);
        }
        Err(other) => return Err(other),
    };
    frame.decode_status().map(|status| Some(HandshakeReply::Refused(status)))
}

fn check_magic(buffer: &[u8]) -> Result<(), DecodeError> {
    let seen = buffer.len().min(MAGIC.len());
    if buffer[..seen] == MAGIC[..seen] { Ok(()) } else { Err(DecodeError::BadMagic) }
}

fn sign(mut buffer: BytesMut) -> Bytes {
    let checksum = crc32fast::hash(&buffer);
    buffer.put_u32_le(checksum);
    buffer.freeze()
}

/// Takes `count` bytes, checks their checksum, and hands out what lies between magic and checksum.
fn take_signed(buffer: &mut BytesMut, count: usize) -> Result<Option<Bytes>, DecodeError> {
    if buffer.len() < count {
        return Ok(None);
    }
    let mut signed = buffer.split_to(count).freeze();
    let mut checksum = signed.split_off(count - CHECKSUM_BYTES);
    if crc32fast::hash(&signed) != checksum.get_u32_le() {
        return Err(DecodeError::BadChecksum);
    }
    signed.advance(MAGIC.len());
    Ok(Some(signed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_protocols_are_refused_at_their_first_byte() {
        for first in [&b"GET / HTTP/1.1\r\n"[..], &[0x16, 0x03, 0x01], b"F", b"FNF", b"FNFX"] {
            let mut buffer = BytesMut::from(first);
            let expected = if MAGIC.starts_with(first) { Ok(None) } else { Err(DecodeError::BadMagic) };
            assert_eq!(Hello::decode_from(&mut buffer), expected, "{first:?}");
        }
    }

    #[test]
    fn unknown_version_is_answered_with_the_supported_ones() {
        let hello = Hello { version_min: 7, version_max: 9, feature_level: 1 };
        assert_eq!(
            hello.negotiate(Limits::default()),
            Err(Status::UnsupportedVersion { min: VERSION_MIN, max: VERSION_MAX })
        );
    }

    #[test]
    fn highest_common_version_and_lowest_level_are_chosen() {
        let hello = Hello { version_min: 0, version_max: 9, feature_level: u32::MAX };
        let answer = hello.negotiate(Limits::default()).expect("one is supported");
        assert_eq!((answer.version, answer.feature_level), (VERSION_MAX, FEATURE_LEVEL));
    }

    #[test]
    fn both_hellos_round_trip_in_pieces() {
        let hello = Hello::current();
        let answer = hello.negotiate(Limits::default()).expect("supported");
        let mut buffer = BytesMut::new();
        for byte in hello.to_bytes() {
            assert_eq!(Hello::decode_from(&mut buffer), Ok(None));
            buffer.put_u8(byte);
        }
        assert_eq!(Hello::decode_from(&mut buffer), Ok(Some(hello)));
        for byte in answer.to_bytes() {
            assert_eq!(HandshakeReply::decode_from(&mut buffer), Ok(None));
            buffer.put_u8(byte);
        }
        assert_eq!(HandshakeReply::decode_from(&mut buffer), Ok(Some(HandshakeReply::Accepted(answer))));
    }

    #[test]
    fn refusal_is_told_from_a_hello() {
        let status = Status::UnsupportedVersion { min: 1, max: 1 };
        let mut buffer = BytesMut::new();
        Frame::connection_refusal(&status).encode_into(&mut buffer, HANDSHAKE_FRAME_BYTES_MAX).expect("fits");
        assert_eq!(HandshakeReply::decode_from(&mut buffer), Ok(Some(HandshakeReply::Refused(status))));
    }

    #[test]
    fn flipped_bit_in_a_hello_is_noticed() {
        let good = Hello::current().to_bytes();
        for bit in 0..good.len() * 8 {
            let mut bad = BytesMut::from(&good[..]);
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Hello::decode_from(&mut bad).is_err(), "bit {bit}");
        }
    }
}
