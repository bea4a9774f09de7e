//! Owns the packing of many small messages into few frames, straight into the buffer that is sent.
//!
//! Invariants:
//! - What goes in comes out in the same order; a batch is closed at [`BATCH_ITEMS_MAX`] items or [`BATCH_BYTES`].
//! - A single message becomes a frame of its own, as does a large one; a batch never holds one item.
//! - A body is written where it stands in a frame of its own, so that a large one is not copied.
//! - A message that fits no frame is replaced by its refusal, so that every request is answered.

use crate::call::{BATCH_ITEMS_MAX, Call, Reply};
use crate::frame::{Flags, HEADER_BYTES, LENGTH_BYTES, put_checksum, put_header};
use crate::ids::RequestId;
use crate::message::{EntryParts, Page, PageSeals};
use crate::opcode::Opcode;
use crate::status::Status;
use crate::wire::Writer;

/// A batch that has this many bytes takes no further item.
pub const BATCH_BYTES: usize = 64 << 10;

/// A message of this size gets a frame of its own: its header is nothing beside it, and it is copied less.
const ALONE_BYTES: usize = 1 << 10;

/// What a batch takes besides its items, at most: the rest of its header and the number of items.
const BATCH_HEAD_BYTES: usize = HEADER_BYTES - LENGTH_BYTES + 3;

/// What an item takes besides its body, at most.
const ITEM_HEAD_BYTES: usize = 3 + 3 + 10 + 5;

/// Packs requests, or answers.
#[derive(Debug)]
pub struct Packer {
    /// Whole frames; behind them the message that is being put in, with room for its header.
    packed: Writer,
    /// The items of the batch that is still open.
    items: Writer,
    count: usize,
    /// The first item of the open batch, and where its body starts: alone it becomes a plain frame.
    first: (Head, usize),
    /// The number of items, as a batch begins with it.
    items_count: Writer,
    seals: PageSeals,
    frame_bytes_max: u32,
}

/// What a message says of itself besides its body.
#[derive(Debug, Clone, Copy)]
struct Head {
    opcode: u16,
    flags: Flags,
    id: RequestId,
}

/// The head of what refuses a connection.
const REFUSAL: Head = Head { opcode: 0, flags: Flags::ERROR, id: RequestId(0) };

impl Packer {
    /// A packer for frames whose length field is at most `frame_bytes_max`.
    pub fn new(frame_bytes_max: u32) -> Self {
        let head = Head { opcode: 0, flags: Flags::REQUEST, id: RequestId(0) };
        Self {
            packed: Writer::default(),
            items: Writer::default(),
            count: 0,
            first: (head, 0),
            items_count: Writer::default(),
            seals: PageSeals::default(),
            frame_bytes_max,
        }
    }

    /// Whether nothing was put in since the last [`Packer::take_into`].
    pub fn is_empty(&self) -> bool {
        self.count == 0 && self.packed.len() == 0
    }

    /// Bytes of memory that it packs into.
    pub fn memory(&self) -> usize {
        self.packed.capacity()
    }

    /// Packs into other memory from now on, in place of its own; only before anything is put in.
    pub fn use_memory(&mut self, memory: Vec<u8>) {
        assert!(self.is_empty(), "what is packed stays where it is");
        self.packed = Writer::with_memory(memory);
    }

    /// Puts a request in; false, and nothing done, if it fits no frame.
    pub fn call(&mut self, call: &Call, id: RequestId) -> bool {
        let start = self.write(|body| call.encode(body));
        let fits = self.fits(start);
        if fits {
            self.put(Head { opcode: call.request.opcode().code(), flags: Flags::REQUEST, id }, start);
        } else {
            self.packed.truncate(start);
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
        match reply {
            Ok(response) => {
                let start = self.write(|body| response.encode(body));
                self.answer(opcode, id, start, admits)
            }
            Err(status) => {
                self.refuse(opcode, id, status);
                Err(status.clone())
            }
        }
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
        let start = begin(&mut self.packed);
        page.encode_with(&mut self.packed, &mut self.seals, entries);
        self.answer(opcode, id, start, admits)
    }

    /// Puts the refusal of the whole connection behind everything else, in a frame of its own.
    pub fn refuse_connection(&mut self, status: &Status) {
        self.close();
        let start = self.write(|body| status.encode(body));
        finish_frame(&mut self.packed.as_mut_slice()[start..], REFUSAL);
    }

    /// Moves everything to the end of `out`, as whole frames.
    pub fn take_into(&mut self, out: &mut Vec<u8>) {
        self.close();
        self.packed.move_into(out);
    }

    /// Writes the body of a message, with room for its header, and answers where the message starts. It is put in or
    /// taken back before anything else.
    fn write(&mut self, encode: impl FnOnce(&mut Writer)) -> usize {
        let start = begin(&mut self.packed);
        encode(&mut self.packed);
        start
    }

    /// The bytes of the body of the message that is being put in.
    fn body_bytes(&self, start: usize) -> usize {
        self.packed.len() - start - HEADER_BYTES
    }

    fn fits(&self, start: usize) -> bool {
        self.body_bytes(start) + HEADER_BYTES - LENGTH_BYTES <= self.frame_bytes_max as usize
    }

    /// Puts a message in as an answer if it fits a frame and is admitted, else the status in its place.
    fn answer(
        &mut self,
        opcode: u16,
        id: RequestId,
        start: usize,
        admits: impl FnOnce(usize) -> Result<(), Status>,
    ) -> Result<usize, Status> {
        let bytes = self.body_bytes(start);
        let admitted = if self.fits(start) { admits(bytes) } else { Err(Status::Internal) };
        if let Err(status) = admitted {
            self.packed.truncate(start);
            self.refuse(opcode, id, &status);
            return Err(status);
        }
        self.put(Head { opcode, flags: Flags::RESPONSE, id }, start);
        Ok(bytes)
    }

    fn refuse(&mut self, opcode: u16, id: RequestId, status: &Status) {
        let start = self.write(|body| status.encode(body));
        self.put(Head { opcode, flags: Flags::ERROR, id }, start);
    }

    /// Makes an item, or a frame, of the message that was written.
    fn put(&mut self, head: Head, start: usize) {
        let bytes = self.body_bytes(start);
        let item_bytes = ITEM_HEAD_BYTES + bytes;
        let batch_bytes_max = BATCH_BYTES.min(self.frame_bytes_max as usize - BATCH_HEAD_BYTES);
        let is_alone = item_bytes > batch_bytes_max || bytes >= ALONE_BYTES;
        let is_closed = is_alone || self.items.len() + item_bytes > batch_bytes_max;
        let start = if is_closed { self.close_before(start) } else { start };
        if is_alone {
            finish_frame(&mut self.packed.as_mut_slice()[start..], head);
            return;
        }
        self.items.number(head.opcode);
        self.items.number(head.flags.0);
        self.items.number(head.id.0);
        self.items.count(bytes);
        if self.count == 0 {
            self.first = (head, self.items.len());
        }
        self.items.append(&self.packed.as_slice()[start + HEADER_BYTES..]);
        self.packed.truncate(start);
        self.count += 1;
        if self.count == BATCH_ITEMS_MAX {
            self.close();
        }
    }

    /// Makes a frame of the open batch, before the message that was written; answers where that starts now.
    fn close_before(&mut self, start: usize) -> usize {
        if self.count == 0 {
            return start;
        }
        let message = self.packed.split_off(start);
        self.close();
        let start = self.packed.len();
        self.packed.append(&message);
        start
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

/// Leaves room for a header, and answers where it stands.
fn begin(out: &mut Writer) -> usize {
    let start = out.len();
    out.append(&[0; HEADER_BYTES]);
    start
}

fn put_frame(out: &mut Writer, head: Head, body: &[&[u8]]) {
    let start = begin(out);
    body.iter().for_each(|part| out.append(part));
    finish_frame(&mut out.as_mut_slice()[start..], head);
}

/// Puts its header into a frame whose body stands.
fn finish_frame(frame: &mut [u8], head: Head) {
    let (mut header, body) = frame.split_at_mut(HEADER_BYTES);
    put_header(&mut header, body.len(), head.opcode, head.flags, head.id);
    put_checksum(frame);
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};
    use proptest::prelude::*;

    use super::*;
    use crate::cursor::Mark;
    use crate::frame::Frame;
    use crate::ids::{EntryId, PartitionId};
    use crate::message::Response;
    use crate::token::Token;

    /// A refusal whose body has about so many bytes.
    fn put_raw(packer: &mut Packer, id: u64, body: &[u8]) {
        let start = packer.write(|out| out.append(body));
        packer.put(Head { opcode: 7, flags: Flags::RESPONSE, id: RequestId(id) }, start);
    }

    fn unpacked(packer: &mut Packer, frame_bytes_max: u32) -> Vec<(u64, Bytes)> {
        let mut out = Vec::new();
        packer.take_into(&mut out);
        let mut out = BytesMut::from(&out[..]);
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
    fn pages_of_one_moment_and_of_others_come_as_they_were_put() {
        let page = |(moment, marked): (u64, Option<u64>)| {
            let (partition, incarnation) = (PartitionId(3), moment / 2);
            let mark = |row_position| Mark { partition, incarnation, row_position, id_bound: EntryId(5) };
            let token = Token { partition, incarnation, log_index: moment, journal_position: marked };
            Page {
                entries: Vec::new(),
                next: None,
                complete_to: EntryId(moment),
                short_of: Vec::new(),
                mark: marked.map(mark),
                new_count: None,
                token,
            }
        };
        let moments = [(4, Some(1)), (4, Some(1)), (4, None), (5, Some(1)), (4, Some(1)), (4, Some(2))];
        let more = [(1 << 60, Some(1 << 60)); 2];
        let pages: Vec<_> = moments.into_iter().chain(more).map(page).collect();
        let mut packer = Packer::new(1 << 20);
        let busy = Status::Busy { delay_ms: 20 };
        let mut expected = Vec::new();
        for page in pages {
            // Each is refused once, and put in again.
            for admitted in [Err(busy.clone()), Ok(())] {
                let id = RequestId(expected.len() as u64);
                let answered = admitted.clone().map(|()| Response::Page(page.clone()));
                let packed =
                    packer.page(Opcode::ReadFeed.code(), id, &page, std::iter::empty(), |_| admitted.clone());
                assert_eq!(packed.map(|_| ()), admitted);
                expected.push(answered);
            }
        }
        let mut out = Vec::new();
        packer.take_into(&mut out);
        let mut out = BytesMut::from(&out[..]);
        let batch = Frame::decode_from(&mut out, 1 << 20).expect("whole").expect("one");
        let items = batch.into_items(BATCH_ITEMS_MAX as u32).expect("a batch");
        let came: Vec<_> = items.into_iter().map(|item| item.decode_reply().expect("an answer")).collect();
        assert_eq!(came, expected);
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
    fn what_is_taken_goes_behind_what_is_there() {
        let mut packer = Packer::new(4_096);
        let mut out = b"before".to_vec();
        put_raw(&mut packer, 1, b"one");
        packer.take_into(&mut out);
        assert!(packer.is_empty());
        let mut frames = BytesMut::from(out.strip_prefix(b"before").expect("it stays"));
        let frame = Frame::decode_from(&mut frames, 4_096).expect("whole").expect("one");
        assert_eq!((frame.request_id, &frame.body[..]), (RequestId(1), &b"one"[..]));
        assert!(frames.is_empty());
    }

    #[test]
    fn an_answer_that_is_not_admitted_is_refused() {
        let mut packer = Packer::new(4_096);
        let busy = Status::Busy { delay_ms: 20 };
        let answered = packer.reply(1, RequestId(5), &Ok(Response::Pong), |_| Err(busy.clone()));
        assert_eq!(answered, Err(busy.clone()));
        let mut out = Vec::new();
        packer.take_into(&mut out);
        let mut out = BytesMut::from(&out[..]);
        let frame = Frame::decode_from(&mut out, 4_096).expect("whole").expect("one");
        assert_eq!(frame.decode_status(), Ok(busy));
        assert_eq!(frame.request_id, RequestId(5));
    }
}
