//! Owns the packing of many small messages into few frames, straight into the buffer that is sent.
//!
//! Invariants:
//! - What goes in comes out in the same order; a batch is closed at [`BATCH_ITEMS_MAX`] items or [`BATCH_BYTES`].
//! - A single message becomes a frame of its own, as does a large one; a batch never holds one item.
//! - A message that fits no frame is replaced by its refusal, so that every request is answered.

use bytes::{BufMut, BytesMut};

use crate::call::{BATCH_ITEMS_MAX, Call, Reply};
use crate::frame::{Flags, HEADER_BYTES, LENGTH_BYTES, put_checksum, put_header};
use crate::ids::RequestId;
use crate::message::{EntryParts, Page};
use crate::opcode::Opcode;
use crate::status::Status;
use crate::wire::Writer;

/// A batch that has this many bytes takes no further item.
pub const BATCH_BYTES: usize = 64 << 10;

/// Memory kept for the body of the next message; that of a larger one is given back.
const BODY_BYTES_KEPT: usize = 64 << 10;

/// A message of this size gets a frame of its own: its header is nothing beside it, and it is copied once less.
const ALONE_BYTES: usize = 1 << 10;

/// What a batch takes besides its items, at most: the rest of its header and the number of items.
const BATCH_HEAD_BYTES: usize = HEADER_BYTES - LENGTH_BYTES + 3;

/// What an item takes besides its body, at most.
const ITEM_HEAD_BYTES: usize = 3 + 3 + 10 + 5;

/// Packs requests, or answers.
#[derive(Debug)]
pub struct Packer {
    /// Whole frames.
    packed: BytesMut,
    /// The items of the batch that is still open.
    items: Writer,
    count: usize,
    /// The first item of the open batch, and where its body starts: alone it becomes a plain frame.
    first: (Head, usize),
    /// The body of the message that is being put in.
    body: Writer,
    /// The number of items, as a batch begins with it.
    items_count: Writer,
    frame_bytes_max: u32,
}

/// What a message says of itself besides its body.
#[derive(Debug, Clone, Copy)]
struct Head {
    opcode: u16,
    flags: Flags,
    id: RequestId,
}

impl Packer {
    /// A packer for frames whose length field is at most `frame_bytes_max`.
    pub fn new(frame_bytes_max: u32) -> Self {
        let head = Head { opcode: 0, flags: Flags::REQUEST, id: RequestId(0) };
        Self {
            packed: BytesMut::new(),
            items: Writer::default(),
            count: 0,
            first: (head, 0),
            body: Writer::default(),
            items_count: Writer::default(),
            frame_bytes_max,
        }
    }

    /// Whether nothing was put in since the last [`Packer::take_into`].
    pub fn is_empty(&self) -> bool {
        self.count == 0 && self.packed.is_empty()
    }

    /// Puts a request in; false, and nothing done, if it fits no frame.
    pub fn call(&mut self, call: &Call, id: RequestId) -> bool {
        self.body.clear();
        call.encode(&mut self.body);
        let fits = self.body.len() + HEADER_BYTES - LENGTH_BYTES <= self.frame_bytes_max as usize;
        if fits {
            self.put(Head { opcode: call.request.opcode().code(), flags: Flags::REQUEST, id });
        }
        fits
    }

    /// Puts an answer in and returns the bytes of its body, if it fits a frame and `admits` its bytes; else the status
    /// that `admits` gives is answered.
    pub fn reply(
        &mut self,
        opcode: u16,
        id: RequestId,
        reply: &Reply,
        admits: impl FnOnce(usize) -> Result<(), Status>,
    ) -> Result<usize, Status> {
        self.body.clear();
        let encoded = match reply {
            Ok(response) => {
                response.encode(&mut self.body);
                self.admit(admits)
            }
            Err(status) => Err(status.clone()),
        };
        self.answer(opcode, id, encoded)
    }

    /// Like [`Packer::reply`] with a page of `entries`, newest first, and everything else as in `page`; so nobody has
    /// to gather the entries of a page first.
    pub fn page<'a>(
        &mut self,
        opcode: u16,
        id: RequestId,
        page: &Page,
        entries: impl ExactSizeIterator<Item = EntryParts<'a>>,
        admits: impl FnOnce(usize) -> Result<(), Status>,
    ) -> Result<usize, Status> {
        self.body.clear();
        page.encode_with(&mut self.body, entries);
        let encoded = self.admit(admits);
        self.answer(opcode, id, encoded)
    }

    /// The bytes of the body, if it fits a frame and is admitted.
    fn admit(&self, admits: impl FnOnce(usize) -> Result<(), Status>) -> Result<usize, Status> {
        let bytes = self.body.len();
        let fits = bytes + HEADER_BYTES - LENGTH_BYTES <= self.frame_bytes_max as usize;
        let admitted = if fits { admits(bytes) } else { Err(Status::Internal) };
        admitted.map(|()| bytes)
    }

    /// Puts the body in as an answer, or the status in its place.
    fn answer(
        &mut self,
        opcode: u16,
        id: RequestId,
        encoded: Result<usize, Status>,
    ) -> Result<usize, Status> {
        let flags = match &encoded {
            Ok(_) => Flags::RESPONSE,
            Err(status) => {
                self.body.clear();
                status.encode(&mut self.body);
                Flags::ERROR
            }
        };
        self.put(Head { opcode, flags, id });
        encoded
    }

    /// Puts the refusal of the whole connection behind everything else, in a frame of its own.
    pub fn refuse_connection(&mut self, status: &Status) {
        self.close();
        self.body.clear();
        status.encode(&mut self.body);
        let head = Head { opcode: 0, flags: Flags::ERROR, id: RequestId(0) };
        put_frame(&mut self.packed, head, &[self.body.as_slice()]);
    }

    /// Moves everything to the end of `out`, as whole frames.
    pub fn take_into(&mut self, out: &mut BytesMut) {
        self.close();
        if out.is_empty() {
            std::mem::swap(out, &mut self.packed);
        } else {
            out.extend_from_slice(&self.packed);
        }
        self.packed.clear();
    }

    /// Puts what stands in `body` in as an item.
    fn put(&mut self, head: Head) {
        self.put_body(head);
        if self.body.capacity() > BODY_BYTES_KEPT {
            self.body = Writer::default();
        }
    }

    fn put_body(&mut self, head: Head) {
        let item_bytes = ITEM_HEAD_BYTES + self.body.len();
        let batch_bytes_max = BATCH_BYTES.min(self.frame_bytes_max as usize - BATCH_HEAD_BYTES);
        if self.items.len() + item_bytes > batch_bytes_max {
            self.close();
        }
        if item_bytes > batch_bytes_max || self.body.len() >= ALONE_BYTES {
            self.close();
            put_frame(&mut self.packed, head, &[self.body.as_slice()]);
            return;
        }
        self.items.number(head.opcode);
        self.items.number(head.flags.0);
        self.items.number(head.id.0);
        self.items.count(self.body.len());
        if self.count == 0 {
            self.first = (head, self.items.len());
        }
        self.items.append(self.body.as_slice());
        self.count += 1;
        if self.count == BATCH_ITEMS_MAX {
            self.close();
        }
    }

    /// Makes a frame of the open batch.
    fn close(&mut self) {
        let (first, body_at) = self.first;
        match self.count {
            0 => return,
            1 => put_frame(&mut self.packed, first, &[&self.items.as_slice()[body_at..]]),
            many => {
                let is_answer = first.flags.is_response();
                let flags = if is_answer { Flags::RESPONSE } else { Flags::REQUEST };
                let head = Head { opcode: Opcode::Batch.code(), flags, id: RequestId(0) };
                self.items_count.clear();
                self.items_count.count(many);
                put_frame(&mut self.packed, head, &[self.items_count.as_slice(), self.items.as_slice()]);
            }
        }
        self.items.clear();
        self.count = 0;
    }
}

fn put_frame(out: &mut BytesMut, head: Head, body: &[&[u8]]) {
    let start = out.len();
    let body_bytes: usize = body.iter().map(|part| part.len()).sum();
    out.reserve(HEADER_BYTES + body_bytes);
    put_header(out, body_bytes, head.opcode, head.flags, head.id);
    for part in body {
        out.put_slice(part);
    }
    put_checksum(&mut out[start..]);
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::frame::Frame;
    use crate::message::Response;

    /// A refusal whose body has about so many bytes.
    fn put_raw(packer: &mut Packer, id: u64, body: &[u8]) {
        packer.body.clear();
        packer.body.append(body);
        packer.put(Head { opcode: 7, flags: Flags::RESPONSE, id: RequestId(id) });
    }

    fn unpacked(packer: &mut Packer, frame_bytes_max: u32) -> Vec<(u64, Bytes)> {
        let mut out = BytesMut::new();
        packer.take_into(&mut out);
        assert!(packer.is_empty());
        let mut items = Vec::new();
        while let Some(frame) = Frame::decode_from(&mut out, frame_bytes_max).expect("whole frames") {
            items.extend(frame.into_items(BATCH_ITEMS_MAX as u32).expect("a batch"));
        }
        assert!(out.is_empty());
        items.into_iter().map(|item| (item.request_id.0, item.body)).collect()
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_reordered_whatever_the_sizes(
            sizes in prop::collection::vec(0usize..4_000, 0..100),
            frame_bytes_max in 4_096u32..6_000,
        ) {
            let mut packer = Packer::new(frame_bytes_max);
            for (n, bytes) in sizes.iter().enumerate() {
                put_raw(&mut packer, u64::MAX - n as u64, &vec![n as u8; *bytes]);
            }
            let sent = sizes.iter().enumerate();
            let sent: Vec<_> = sent.map(|(n, bytes)| (u64::MAX - n as u64, Bytes::from(vec![n as u8; *bytes]))).collect();
            prop_assert_eq!(unpacked(&mut packer, frame_bytes_max), sent);
        }
    }

    #[test]
    fn sizes_around_the_limit_of_a_batch_fit() {
        for bytes in 1_960..2_080 {
            let mut packer = Packer::new(4_096);
            (0..3).for_each(|n| put_raw(&mut packer, n, &vec![1; bytes]));
            assert_eq!(unpacked(&mut packer, 4_096).len(), 3, "{bytes}");
        }
    }

    #[test]
    fn more_items_than_a_batch_holds_make_more_batches() {
        let mut packer = Packer::new(1 << 20);
        (0..2_500).for_each(|n| put_raw(&mut packer, n, b""));
        assert_eq!(unpacked(&mut packer, 1 << 20).len(), 2_500);
    }

    #[test]
    fn an_answer_that_is_not_admitted_is_refused() {
        let mut packer = Packer::new(4_096);
        let busy = Status::Busy { delay_ms: 20 };
        let answered = packer.reply(1, RequestId(5), &Ok(Response::Pong), |_| Err(busy.clone()));
        assert_eq!(answered, Err(busy.clone()));
        let mut out = BytesMut::new();
        packer.take_into(&mut out);
        let frame = Frame::decode_from(&mut out, 4_096).expect("whole").expect("one");
        assert_eq!(frame.decode_status(), Ok(busy));
        assert_eq!(frame.request_id, RequestId(5));
    }
}
