//! Owns the way between frames and messages: requests with their deadline, answers, refusals and batches.
//!
//! Invariant: whatever fails here concerns one request; the stream stays in step and the connection goes on.
//!
//! Format: `PROTOCOL.md`, "Requests and answers" and "Batches".

use bytes::Bytes;

use crate::error::{BodyError, DecodeError};
use crate::field::Field;
use crate::frame::{Flags, Frame};
use crate::ids::RequestId;
use crate::message::{Request, Response};
use crate::opcode::Opcode;
use crate::status::Status;
use crate::wire::{Reader, Writer};

/// Most items of a batch, whatever the limits of the connection.
pub const BATCH_ITEMS_MAX: usize = 1_024;
/// Fewest bytes an item of a batch takes: opcode, flags, request id, length.
const BATCH_ITEM_BYTES_MIN: usize = 4;

/// A request and how long its sender waits for the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Milliseconds from the receipt of the frame; `None` leaves it to the server's default.
    pub deadline_ms: Option<u32>,
    /// What is asked.
    pub request: Request,
}

/// An answer: what was asked for, or why not.
pub type Reply = Result<Response, Status>;

impl Call {
    /// The frame that asks this under a number.
    pub fn to_frame(&self, request_id: RequestId) -> Frame {
        let mut w = Writer::default();
        self.encode(&mut w);
        let opcode = self.request.opcode().code();
        Frame { opcode, flags: Flags::REQUEST, request_id, body: w.into_bytes() }
    }

    pub(crate) fn encode(&self, w: &mut Writer) {
        w.number(self.deadline_ms.unwrap_or(0));
        self.request.encode(w);
    }
}

impl Frame {
    /// The answer to a request of this opcode and number.
    pub fn response(opcode: u16, request_id: RequestId, response: &Response) -> Self {
        let mut w = Writer::default();
        response.encode(&mut w);
        Self { opcode, flags: Flags::RESPONSE, request_id, body: w.into_bytes() }
    }

    /// The refusal of a request of this opcode and number.
    pub fn refusal(opcode: u16, request_id: RequestId, status: &Status) -> Self {
        let mut w = Writer::default();
        status.encode(&mut w);
        Self { opcode, flags: Flags::ERROR, request_id, body: w.into_bytes() }
    }

    /// The refusal of the whole connection, sent before it is closed.
    pub fn connection_refusal(status: &Status) -> Self {
        Self::refusal(0, RequestId(0), status)
    }

    /// Whether this refuses the connection, not one request.
    pub fn is_connection_refusal(&self) -> bool {
        self.opcode == 0 && self.request_id == RequestId(0) && self.flags == Flags::ERROR
    }

    /// Whether this holds many requests or many answers.
    pub fn is_batch(&self) -> bool {
        self.opcode == Opcode::Batch.code()
    }

    /// The request in this frame, which must not be a batch.
    pub fn decode_call(&self) -> Result<Call, DecodeError> {
        if self.flags != Flags::REQUEST {
            return Err(self.bad_flags());
        }
        let opcode = self.known_opcode()?;
        self.decode_body(|r| {
            let deadline_ms = r.number32(Field::Deadline)?;
            let request = Request::decode(opcode, r)?;
            Ok(Call { deadline_ms: (deadline_ms != 0).then_some(deadline_ms), request })
        })
    }

    /// The answer in this frame, which must not be a batch.
    pub fn decode_reply(&self) -> Result<Reply, DecodeError> {
        if self.flags == Flags::ERROR {
            return self.decode_status().map(Err);
        }
        if self.flags != Flags::RESPONSE {
            return Err(self.bad_flags());
        }
        let opcode = self.known_opcode()?;
        self.decode_body(|r| Response::decode(opcode, r)).map(Ok)
    }

    /// The status in this frame, which must be a refusal.
    pub fn decode_status(&self) -> Result<Status, DecodeError> {
        if self.flags != Flags::ERROR {
            return Err(self.bad_flags());
        }
        self.decode_body(Status::decode)
    }

    /// One frame for many: all requests, or all answers; at most `BATCH_ITEMS_MAX` and none a batch itself.
    pub fn batch(items: &[Self]) -> Self {
        assert!(items.len() <= BATCH_ITEMS_MAX, "the sender splits at the limit");
        assert!(items.iter().all(|item| !item.is_batch()), "batches do not nest");
        let answers = items.iter().filter(|item| item.flags.is_response()).count();
        assert!(answers == 0 || answers == items.len(), "a batch goes one way");
        let mut w = Writer::default();
        w.count(items.len());
        for item in items {
            w.number(item.opcode);
            w.number(item.flags.0);
            w.number(item.request_id.0);
            w.bytes(&item.body);
        }
        let flags = if answers == 0 { Flags::REQUEST } else { Flags::RESPONSE };
        Self { opcode: Opcode::Batch.code(), flags, request_id: RequestId(0), body: w.into_bytes() }
    }

    /// The frames of a batch; any other frame alone. At most `items_max`; their bodies are slices of this one.
    pub fn into_items(self, items_max: u32) -> Result<Vec<Self>, DecodeError> {
        if !self.is_batch() {
            return Ok(vec![self]);
        }
        if self.flags != Flags::REQUEST && self.flags != Flags::RESPONSE {
            return Err(self.bad_flags());
        }
        let limit = BATCH_ITEMS_MAX.min(items_max as usize);
        self.decode_body(|r| {
            let count = r.count(Field::BatchCount, BATCH_ITEM_BYTES_MIN, limit)?;
            r.items(count, |r| decode_item(r, self.flags))
        })
    }

    fn known_opcode(&self) -> Result<Opcode, DecodeError> {
        Opcode::from_code(self.opcode)
            .filter(|opcode| *opcode != Opcode::Batch)
            .ok_or(DecodeError::UnknownOpcode { request_id: self.request_id, opcode: self.opcode })
    }

    fn bad_flags(&self) -> DecodeError {
        DecodeError::BadFlags { request_id: self.request_id, flags: self.flags.0 }
    }

    fn decode_body<T>(
        &self,
        decode: impl FnOnce(&mut Reader) -> Result<T, BodyError>,
    ) -> Result<T, DecodeError> {
        let mut r = Reader::new(&self.body);
        decode(&mut r).and_then(|value| r.finish().map(|()| value)).map_err(|source| DecodeError::Body {
            request_id: self.request_id,
            opcode: self.opcode,
            source,
        })
    }
}

fn decode_item(r: &mut Reader, batch: Flags) -> Result<Frame, BodyError> {
    let item = Frame {
        opcode: r.number16(Field::BatchItem)?,
        flags: Flags(r.number16(Field::BatchItem)?),
        request_id: RequestId(r.number(Field::BatchItem)?),
        body: take_body(r)?,
    };
    let fits = !item.is_batch() && item.flags.is_response() == batch.is_response();
    if fits { Ok(item) } else { Err(BodyError::Malformed { field: Field::BatchItem }) }
}

fn take_body(r: &mut Reader) -> Result<Bytes, BodyError> {
    r.bytes(Field::BatchItem)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ping(request_id: u64) -> Frame {
        Call { deadline_ms: Some(300), request: Request::Ping }.to_frame(RequestId(request_id))
    }

    #[test]
    fn unknown_opcode_names_the_request_and_leaves_the_connection() {
        let frame = Frame { opcode: 999, ..ping(5) };
        let refused = frame.decode_call().expect_err("unknown");
        assert!(refused.connection_goes_on());
        assert_eq!(refused.request_id(), Some(RequestId(5)));
        assert_eq!(refused.to_status(), Status::UnknownOpcode { opcode: 999 });
    }

    #[test]
    fn trailing_byte_is_refused_and_leaves_the_connection() {
        let mut frame = ping(5);
        frame.body = [&frame.body[..], &[0]].concat().into();
        let refused = frame.decode_call().expect_err("trailing");
        assert_eq!(refused.to_status(), Status::Malformed { field: Field::Body });
        assert!(refused.connection_goes_on());
    }

    #[test]
    fn unknown_flag_is_refused() {
        for flags in [2, 4, 0x8000, 5] {
            let frame = Frame { flags: Flags(flags), ..ping(5) };
            assert!(matches!(frame.decode_call(), Err(DecodeError::BadFlags { .. })), "{flags}");
            assert!(matches!(frame.decode_reply(), Err(DecodeError::BadFlags { .. })), "{flags}");
        }
    }

    #[test]
    fn batch_round_trips_and_its_items_share_its_memory() {
        let items: Vec<Frame> = (1..=3).map(ping).collect();
        let batch = Frame::batch(&items);
        let range = batch.body.as_ptr_range();
        let unpacked = batch.clone().into_items(1_024).expect("well formed");
        assert_eq!(unpacked, items);
        assert!(unpacked.iter().all(|item| range.contains(&item.body.as_ptr())));
    }

    #[test]
    fn batch_in_a_batch_is_refused() {
        let inner = Frame::batch(&[ping(1)]);
        let mut outer = Frame::batch(&[Frame { opcode: 1, ..inner }]);
        let mut body = outer.body.to_vec();
        assert_eq!(body[1], 1);
        body[1] = Opcode::Batch.code() as u8;
        outer.body = body.into();
        let refused = outer.into_items(1_024).expect_err("nested");
        assert_eq!(refused.to_status(), Status::Malformed { field: Field::BatchItem });
    }

    #[test]
    fn batch_above_the_limit_is_refused_with_it() {
        let items: Vec<Frame> = (1..=3).map(ping).collect();
        let refused = Frame::batch(&items).into_items(2).expect_err("too many");
        assert_eq!(refused.to_status(), Status::TooLarge { field: Field::BatchCount, limit: 2 });
    }
}
