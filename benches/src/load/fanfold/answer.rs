//! Owns taking received bytes apart: frames, batches, and the few fields of an answer that the load generator needs.
//!
//! - Checksums are checked, as every client does.
//! - What is not the expected answer is decoded by the protocol crate, so that errors have their words.

use bytes::Bytes;
use fanfold_protocol::frame::{Flags, HEADER_BYTES};
use fanfold_protocol::{EntryId, Frame, Opcode, RequestId, Status};

use super::error::FanfoldError;
use super::job::Heard;

/// Largest frame that is taken.
const FRAME_BYTES_MAX: usize = 64 << 20;

/// One answer in the receive buffer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer<'a> {
    pub(super) id: u64,
    opcode: u16,
    flags: Flags,
    pub(super) body: &'a [u8],
}

/// Hands out each answer of the complete frames at the front of a buffer; says how many bytes they took.
pub(super) fn each(
    buffer: &[u8],
    mut take: impl FnMut(Answer<'_>) -> Result<(), FanfoldError>,
) -> Result<usize, FanfoldError> {
    let mut at = 0;
    while let Some(length) = buffer[at..].first_chunk::<4>() {
        let total = u32::from_le_bytes(*length) as usize + 4;
        if !(HEADER_BYTES..=FRAME_BYTES_MAX).contains(&total) {
            return Err(FanfoldError::Unexpected { request: 0 });
        }
        let Some(frame) = buffer.get(at..at + total) else { break };
        let answer = open(frame)?;
        if answer.opcode == Opcode::Batch.code() {
            each_item(answer, &mut take)?;
        } else {
            take(answer)?;
        }
        at += total;
    }
    Ok(at)
}

fn open(frame: &[u8]) -> Result<Answer<'_>, FanfoldError> {
    let mut fields = Fields(frame);
    let _length = fields.array::<4>();
    let opcode = fields.array().map_or(0, u16::from_le_bytes);
    let flags = Flags(fields.array().map_or(0, u16::from_le_bytes));
    let id = fields.array().map_or(0, u64::from_le_bytes);
    let expected = fields.array().map_or(0, u32::from_le_bytes);
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&frame[..HEADER_BYTES - 4]);
    hasher.update(fields.0);
    if hasher.finalize() != expected {
        return Err(fanfold_protocol::error::DecodeError::BadChecksum.into());
    }
    Ok(Answer { id, opcode, flags, body: fields.0 })
}

fn each_item(
    batch: Answer<'_>,
    take: &mut impl FnMut(Answer<'_>) -> Result<(), FanfoldError>,
) -> Result<(), FanfoldError> {
    let mut fields = Fields(batch.body);
    let malformed = || FanfoldError::Unexpected { request: 0 };
    let count = fields.number().ok_or_else(malformed)?;
    for _ in 0..count {
        let opcode = fields.number().ok_or_else(malformed)? as u16;
        let flags = Flags(fields.number().ok_or_else(malformed)? as u16);
        let id = fields.number().ok_or_else(malformed)?;
        let body = fields.bytes().ok_or_else(malformed)?;
        take(Answer { id, opcode, flags, body })?;
    }
    Ok(())
}

impl<'a> Answer<'a> {
    /// What the node said; `Ok(Err(…))` if it refused.
    pub(super) fn heard(&self) -> Result<Result<Heard<'a>, Status>, FanfoldError> {
        let unexpected = || FanfoldError::Unexpected { request: self.id };
        if self.flags == Flags::ERROR {
            return Ok(Err(self.frame().decode_status()?));
        }
        if self.flags != Flags::RESPONSE {
            return Err(unexpected());
        }
        match Opcode::from_code(self.opcode) {
            Some(Opcode::Write) => self.written(),
            Some(Opcode::ReadFeed) => Ok(Ok(Heard::Page(self.body))),
            Some(Opcode::WaitDelivered) => Ok(Ok(Heard::Delivered)),
            _ => Err(unexpected()),
        }
    }

    fn written(&self) -> Result<Result<Heard<'a>, Status>, FanfoldError> {
        let unexpected = || FanfoldError::Unexpected { request: self.id };
        let mut fields = Fields(self.body);
        let token = fields.bytes().ok_or_else(unexpected)?;
        match fields.byte().ok_or_else(unexpected)? {
            // One outcome of an append, made by this or an earlier request.
            1 if fields.number() == Some(1) => match fields.byte() {
                Some(0 | 1) => {
                    let id = fields.array().map(u64::from_le_bytes).ok_or_else(unexpected)?;
                    Ok(Ok(Heard::Appended { id: EntryId(id), token }))
                }
                _ => self.refused_item(),
            },
            5 => {
                let changed = fields.number().ok_or_else(unexpected)? as u32;
                Ok(Ok(Heard::Followed { changed }))
            }
            _ => Err(unexpected()),
        }
    }

    /// The status of an item that was refused alone.
    fn refused_item(&self) -> Result<Result<Heard<'a>, Status>, FanfoldError> {
        use fanfold_protocol::Response;
        use fanfold_protocol::message::{AppendOutcome, WriteResult};
        if let Ok(Response::Written(written)) = self.frame().decode_reply()?
            && let WriteResult::Appended(outcomes) = written.result
            && let Some(AppendOutcome::Refused(status)) = outcomes.into_iter().next()
        {
            return Ok(Err(status));
        }
        Err(FanfoldError::Unexpected { request: self.id })
    }

    /// The answer as the protocol crate has it; copies the body.
    pub(super) fn frame(&self) -> Frame {
        Frame {
            opcode: self.opcode,
            flags: self.flags,
            request_id: RequestId(self.id),
            body: Bytes::copy_from_slice(self.body),
        }
    }
}

/// Fields at the front of a body.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*array)
    }

    pub(super) fn number(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        let count = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use fanfold_protocol::message::{AppendOutcome, WriteResult, Written};
    use fanfold_protocol::{PartitionId, Response, Token};

    use super::*;

    const TOKEN: Token =
        Token { partition: PartitionId(3), incarnation: 77, log_index: 1_000, journal_position: Some(5) };

    fn written(result: WriteResult) -> Response {
        Response::Written(Written { token: TOKEN, result })
    }

    fn appended(outcome: AppendOutcome) -> Response {
        written(WriteResult::Appended(vec![outcome]))
    }

    fn heard(frames: &[Frame], batched: bool) -> Vec<String> {
        let mut bytes = BytesMut::new();
        if batched {
            Frame::batch(frames).encode_into(&mut bytes, u32::MAX).unwrap();
        } else {
            frames.iter().for_each(|frame| frame.encode_into(&mut bytes, u32::MAX).unwrap());
        }
        let whole = bytes.len();
        // The beginning of another frame stays.
        bytes.extend_from_slice(&[200, 0, 0, 0, 1]);
        let mut heard = Vec::new();
        let taken = each(&bytes, |answer| {
            heard.push(format!("{} {:?}", answer.id, answer.heard()?));
            Ok(())
        });
        assert_eq!(taken.unwrap(), whole);
        heard
    }

    #[test]
    fn answers_are_read_as_the_protocol_crate_writes_them() {
        let opcode = Opcode::Write.code();
        let ok = AppendOutcome::Ok { id: EntryId(99), duplicate: false };
        let refused = AppendOutcome::Refused(Status::NotFound);
        let related = WriteResult::Related { changed: 200, refused: Vec::new() };
        let frames = [
            Frame::response(opcode, RequestId(1), &appended(ok)),
            Frame::response(opcode, RequestId(2), &appended(refused)),
            Frame::response(opcode, RequestId(3), &written(related)),
            Frame::response(Opcode::WaitDelivered.code(), RequestId(4), &Response::Done),
            Frame::refusal(opcode, RequestId(500), &Status::Busy { delay_ms: 7 }),
        ];
        let token = format!("{:?}", &TOKEN.to_bytes()[..]);
        let expected = vec![
            format!("1 Ok(Appended {{ id: EntryId(99), token: {token} }})"),
            "2 Err(NotFound)".to_owned(),
            "3 Ok(Followed { changed: 200 })".to_owned(),
            "4 Ok(Delivered)".to_owned(),
            "500 Err(Busy { delay_ms: 7 })".to_owned(),
        ];
        assert_eq!(heard(&frames, false), expected);
        assert_eq!(heard(&frames, true), expected);
    }

    #[test]
    fn a_flipped_bit_is_noticed() {
        let mut bytes = BytesMut::new();
        let frame = Frame::response(Opcode::WaitDelivered.code(), RequestId(4), &Response::Done);
        frame.encode_into(&mut bytes, u32::MAX).unwrap();
        for bit in 32..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(each(&bytes, |_| Ok(())).is_err(), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        assert!(each(&bytes, |_| Ok(())).is_ok());
    }
}
