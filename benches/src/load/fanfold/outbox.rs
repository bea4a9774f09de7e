//! Owns the requests of one connection on their way out, written down as they go onto the wire.
//!
//! - What is put in between two writes becomes one frame: a batch, or the request itself if it is alone.
//! - The layouts are those of `PROTOCOL.md`, written out here without the message types, so that a post costs no
//!   allocation; tests hold them to the protocol crate, byte for byte.

use fanfold_protocol::call::BATCH_ITEMS_MAX;
use fanfold_protocol::frame::HEADER_BYTES;
use fanfold_protocol::message::WriteTag;
use fanfold_protocol::{GraphId, Opcode, PartitionId, SpaceId};

use super::job::{Job, user};

/// A frame is closed when it holds about so many bytes.
const FRAME_BYTES: usize = 256 << 10;
/// Milliseconds that the node may take for a request: a wait for delivery may take as long as a backlog.
pub(super) const DEADLINE_MS: u64 = 120_000;

/// Where a request goes, and what it is written in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Route {
    pub(super) partition: PartitionId,
    pub(super) epoch: u64,
    pub(super) space: SpaceId,
    pub(super) graph: GraphId,
    /// Of a write.
    pub(super) tag: Option<WriteTag>,
}

/// Requests that were not written to the socket yet.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// Closed frames; the first `written` bytes are with the socket.
    frames: Vec<u8>,
    written: usize,
    /// Items of the frame that is gathered.
    items: Vec<u8>,
    count: usize,
    /// Where the first item's body begins, and its opcode and number, in case it stays alone.
    first: Option<(u16, u64, usize)>,
    body: Vec<u8>,
}

impl Outbox {
    /// Puts a request in.
    pub(super) fn push(&mut self, id: u64, job: &Job, route: Route, payload: &[u8]) {
        self.body.clear();
        let opcode = encode(&mut self.body, job, route, payload);
        if self.count == BATCH_ITEMS_MAX || self.items.len() + self.body.len() > FRAME_BYTES {
            self.close();
        }
        number(&mut self.items, u64::from(opcode.code()));
        number(&mut self.items, 0);
        number(&mut self.items, id);
        number(&mut self.items, self.body.len() as u64);
        if self.count == 0 {
            self.first = Some((opcode.code(), id, self.items.len()));
        }
        self.items.extend_from_slice(&self.body);
        self.count += 1;
    }

    /// What is to be written now.
    pub(super) fn bytes(&mut self) -> &[u8] {
        self.close();
        &self.frames[self.written..]
    }

    /// The socket took so many of them.
    pub(super) fn advance(&mut self, count: usize) {
        self.written += count;
        assert!(self.written <= self.frames.len(), "the socket takes what it is given");
        if self.written == self.frames.len() {
            self.frames.clear();
            self.written = 0;
        }
    }

    fn close(&mut self) {
        let Some((opcode, id, body_at)) = self.first.take() else { return };
        if self.count == 1 {
            frame(&mut self.frames, opcode, id, &[], &self.items[body_at..]);
        } else {
            let mut count = Vec::with_capacity(2);
            number(&mut count, self.count as u64);
            frame(&mut self.frames, Opcode::Batch.code(), 0, &count, &self.items);
        }
        self.items.clear();
        self.count = 0;
    }
}

/// Appends a frame whose body is `head` and `rest`.
fn frame(out: &mut Vec<u8>, opcode: u16, id: u64, head: &[u8], rest: &[u8]) {
    let mut header = [0; HEADER_BYTES];
    let length = HEADER_BYTES - 4 + head.len() + rest.len();
    header[0..4].copy_from_slice(&(length as u32).to_le_bytes());
    header[4..6].copy_from_slice(&opcode.to_le_bytes());
    header[8..16].copy_from_slice(&id.to_le_bytes());
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&header[..16]);
    hasher.update(head);
    hasher.update(rest);
    header[16..].copy_from_slice(&hasher.finalize().to_le_bytes());
    out.extend_from_slice(&header);
    out.extend_from_slice(head);
    out.extend_from_slice(rest);
}

/// Writes the body of a request, its deadline first.
fn encode(out: &mut Vec<u8>, job: &Job, route: Route, payload: &[u8]) -> Opcode {
    number(out, DEADLINE_MS);
    match job {
        Job::Append { owner, payload_bytes } => {
            write_head(out, route);
            // The operation, one item, and that nothing optional is present.
            out.extend_from_slice(&[1, 1, 0]);
            number(out, u64::from(route.space.0));
            number(out, user(*owner).0);
            number(out, u64::from(*payload_bytes));
            out.extend_from_slice(&payload[..*payload_bytes as usize]);
            Opcode::Write
        }
        Job::Follow { reader, owners } => {
            write_head(out, route);
            out.push(5);
            number(out, u64::from(route.graph.0));
            number(out, user(*reader).0);
            // Ascending users are written as differences, which the lowest bit of the count says.
            number(out, (owners.len() as u64) << 1 | 1);
            let mut previous = 0;
            for owner in owners {
                number(out, user(*owner).0 - previous);
                previous = user(*owner).0;
            }
            Opcode::Write
        }
        Job::Read { reader, limit, hydrate } => {
            out.push(u8::from(*hydrate));
            number(out, u64::from(route.space.0));
            number(out, user(*reader).0);
            number(out, u64::from(*limit));
            Opcode::ReadFeed
        }
        Job::Wait(waited) => {
            number(out, waited.token.len() as u64);
            out.extend_from_slice(&waited.token);
            Opcode::WaitDelivered
        }
    }
}

fn write_head(out: &mut Vec<u8>, route: Route) {
    number(out, u64::from(route.partition.0));
    number(out, route.epoch);
    let tag = route.tag.expect("writes are tagged");
    number(out, tag.session.0);
    number(out, tag.sequence.0);
    number(out, tag.lowest_unanswered.0);
}

/// LEB128: seven bits a byte, the lowest first.
fn number(out: &mut Vec<u8>, value: u64) {
    let mut rest = value;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use bytes::{Bytes, BytesMut};
    use fanfold_protocol::message::{
        AppendItem, Audience, Edges, ReadFeed, TtlChoice, WaitDelivered, Write, WriteOp,
    };
    use fanfold_protocol::{Call, Frame, Request, RequestId, Sequence, SessionId, Token, UserId};

    use super::super::job::Waited;
    use super::*;

    const TAG: WriteTag =
        WriteTag { session: SessionId(70_000), sequence: Sequence(300), lowest_unanswered: Sequence(129) };
    const ROUTE: Route =
        Route { partition: PartitionId(3), epoch: 200, space: SpaceId(1), graph: GraphId(2), tag: Some(TAG) };
    const TOKEN: Token =
        Token { partition: PartitionId(3), incarnation: 77, log_index: 1_000, journal_position: Some(5) };

    /// Each job with what the protocol crate makes of it.
    fn jobs() -> Vec<(Job, Request)> {
        let write =
            |op| Request::Write(Write { partition: ROUTE.partition, epoch: ROUTE.epoch, tag: TAG, op });
        let item = AppendItem {
            space: ROUTE.space,
            owner: UserId(1_000_000),
            author: None,
            audience: Audience::Public,
            ttl: TtlChoice::SpaceDefault,
            key: None,
            reference: None,
            payload: Bytes::from_static(&[7; 500]),
        };
        let edges = Edges {
            graph: ROUTE.graph,
            reader: UserId(9),
            owners: [2, 300, 301, 5_000_000].map(UserId).to_vec(),
        };
        let read = ReadFeed {
            space: ROUTE.space,
            reader: UserId(4_000),
            limit: 20,
            cursor: None,
            newer_than: None,
            hydrate: true,
            at_least: None,
            consistency: fanfold_protocol::message::Consistency::Leader,
        };
        let now = Instant::now();
        let waited = Waited { token: TOKEN.to_bytes(), owner: 1, due: now, answered: now };
        vec![
            (Job::Append { owner: 1_000_000, payload_bytes: 500 }, write(WriteOp::Append(vec![item]))),
            (Job::Follow { reader: 9, owners: vec![2, 300, 301, 5_000_000] }, write(WriteOp::Follow(edges))),
            (Job::Read { reader: 4_000, limit: 20, hydrate: true }, Request::ReadFeed(read)),
            (Job::Wait(waited), Request::WaitDelivered(WaitDelivered { token: TOKEN })),
        ]
    }

    #[test]
    fn requests_are_what_the_protocol_crate_writes() {
        let mut expected = Vec::new();
        let mut outbox = Outbox::default();
        for (n, (job, request)) in jobs().into_iter().enumerate() {
            let call = Call { deadline_ms: Some(DEADLINE_MS as u32), request };
            let id = n as u64 * 200;
            expected.push(call.to_frame(RequestId(id)));
            outbox.push(id, &job, ROUTE, &[7; 500]);
        }
        let mut batch = BytesMut::new();
        Frame::batch(&expected).encode_into(&mut batch, u32::MAX).unwrap();
        assert_eq!(outbox.bytes(), &batch[..]);
    }

    #[test]
    fn a_request_alone_is_its_own_frame_and_many_are_split_at_the_limit() {
        let mut outbox = Outbox::default();
        let (job, request) = jobs().remove(2);
        outbox.push(7, &job, ROUTE, &[]);
        let call = Call { deadline_ms: Some(DEADLINE_MS as u32), request };
        let mut alone = BytesMut::new();
        call.to_frame(RequestId(7)).encode_into(&mut alone, u32::MAX).unwrap();
        assert_eq!(outbox.bytes(), &alone[..]);
        let count = outbox.bytes().len();
        outbox.advance(count);

        (0..3_000).for_each(|id| outbox.push(id, &job, ROUTE, &[]));
        let mut received = BytesMut::from(outbox.bytes());
        let mut ids = Vec::new();
        while let Some(frame) = Frame::decode_from(&mut received, u32::MAX).unwrap() {
            ids.extend(frame.into_items(1_024).unwrap().iter().map(|item| item.request_id.0));
        }
        assert!(received.is_empty());
        assert_eq!(ids, (0..3_000).collect::<Vec<u64>>());
    }
}
