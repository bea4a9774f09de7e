//! Owns a client without manners: it sends writes as fast as its connection takes them, and minds neither `Busy` nor what is
//! under way.
//!
//! - Its session goes on as if all were answered that the node cannot have under way any more.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use fanfold_protocol::call::{BATCH_ITEMS_MAX, Call, Reply};
use fanfold_protocol::message::{
    AppendItem, Audience, Map, OpenSession, Request, Response, TtlChoice, Write, WriteOp, WriteTag,
};
use fanfold_protocol::{
    Flags, Frame, HandshakeReply, Hello, PartitionId, RequestId, Sequence, SessionId, SpaceId, Status, UserId,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// The largest frame that is taken.
const FRAME_BYTES_MAX: u32 = 64 << 20;

/// Requests that a node has under way for one connection, by default.
const IN_FLIGHT: u64 = 1_024;

/// A connection to a node.
pub struct Flood {
    pub incoming: Incoming,
    pub outgoing: OwnedWriteHalf,
}

pub struct Incoming {
    stream: OwnedReadHalf,
    buffer: BytesMut,
    unpacked: Vec<Frame>,
}

/// Where a user's writes go, and under which numbers.
#[derive(Debug, Clone, Copy)]
pub struct Lane {
    partition: PartitionId,
    epoch: u64,
    session: SessionId,
    user: UserId,
    sequence: u64,
}

impl Flood {
    /// Connects, with so large a buffer for what it receives.
    pub async fn connect(address: SocketAddr, receive_bytes: u32) -> Result<Self, Status> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(receive_bytes).unwrap();
        let (stream, mut outgoing) = socket.connect(address).await.unwrap().into_split();
        let mut incoming = Incoming { stream, buffer: BytesMut::new(), unpacked: Vec::new() };
        outgoing.write_all(&Hello::current().to_bytes()).await.unwrap();
        loop {
            match HandshakeReply::decode_from(&mut incoming.buffer).unwrap() {
                Some(HandshakeReply::Accepted(_)) => return Ok(Self { incoming, outgoing }),
                Some(HandshakeReply::Refused(status)) => return Err(status),
                None => assert!(incoming.fill().await, "closed within the handshake"),
            }
        }
    }

    /// One request and its answer; nothing else is under way.
    pub async fn ask(&mut self, request: Request) -> Reply {
        let frame = encoded(RequestId(u64::MAX), request);
        self.outgoing.write_all(&frame).await.unwrap();
        self.incoming.next().await.expect("the connection goes on").decode_reply().unwrap()
    }

    pub async fn map(&mut self) -> Map {
        match self.ask(Request::GetMap).await {
            Ok(Response::Map(map)) => map,
            other => panic!("{other:?}"),
        }
    }

    /// Opens a session for the writes of a user; none if its partition is led elsewhere by now.
    pub async fn lane(&mut self, user: UserId) -> Option<Lane> {
        let map = self.map().await;
        let partition = PartitionId::of_user(user, map.partitions);
        loop {
            match self.ask(Request::OpenSession(OpenSession { partition })).await {
                Ok(Response::SessionOpened(session)) => {
                    return Some(Lane { partition, epoch: map.epoch, session, user, sequence: 1 });
                }
                Err(Status::Busy { delay_ms }) => {
                    tokio::time::sleep(Duration::from_millis(u64::from(delay_ms))).await;
                }
                Err(Status::NotLeader { .. } | Status::Unavailable { .. }) => return None,
                other => panic!("{other:?}"),
            }
        }
    }
}

impl Lane {
    /// The next append; its number is that of the request too.
    pub fn append(&mut self, payload: &Bytes) -> BytesMut {
        let sequence = self.sequence;
        self.sequence += 1;
        let lowest_unanswered = Sequence(sequence.saturating_sub(IN_FLIGHT).max(1));
        let tag = WriteTag { session: self.session, sequence: Sequence(sequence), lowest_unanswered };
        let op = WriteOp::Append(vec![AppendItem {
            space: SpaceId(1),
            owner: self.user,
            author: None,
            audience: Audience::Public,
            ttl: TtlChoice::SpaceDefault,
            key: None,
            reference: None,
            payload: payload.clone(),
        }]);
        let write = Write { partition: self.partition, epoch: self.epoch, tag, op };
        encoded(RequestId(sequence), Request::Write(write))
    }
}

impl Incoming {
    /// The next answer; none when the connection is closed.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.unpacked.pop() {
                return Some(frame);
            }
            match Frame::decode_from(&mut self.buffer, FRAME_BYTES_MAX).unwrap() {
                Some(frame) if frame.flags == Flags::ERROR => return Some(frame),
                Some(frame) => {
                    self.unpacked.extend(frame.into_items(BATCH_ITEMS_MAX as u32).unwrap());
                    self.unpacked.reverse();
                }
                None if self.fill().await => {}
                None => return None,
            }
        }
    }

    async fn fill(&mut self) -> bool {
        self.stream.read_buf(&mut self.buffer).await.is_ok_and(|read| read > 0)
    }
}

pub fn encoded(id: RequestId, request: Request) -> BytesMut {
    let mut out = BytesMut::new();
    Call { deadline_ms: Some(60_000), request }.to_frame(id).encode_into(&mut out, FRAME_BYTES_MAX).unwrap();
    out
}
