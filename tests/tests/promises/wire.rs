//! Owns a connection that speaks the protocol by hand: the client hides sessions and sequences, these tests do not.

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use fanfold_protocol::message::{
    AppendItem, AppendOutcome, Audience, OpenSession, TtlChoice, Write, WriteOp, WriteResult, WriteTag,
    Written,
};
use fanfold_protocol::{
    Call, EntryId, Frame, HandshakeReply, Hello, Limits, PartitionId, Reply, Request, RequestId, Response,
    Sequence, SessionId, SpaceId, UserId,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::PARTITIONS;

/// An open connection.
pub struct Wire {
    stream: TcpStream,
    received: BytesMut,
    limits: Limits,
    /// Of the map that writes are routed by.
    pub epoch: u64,
    last_request: u64,
}

impl Wire {
    pub async fn connect(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&Hello::current().to_bytes()).await.unwrap();
        let mut received = BytesMut::new();
        let hello = loop {
            match HandshakeReply::decode_from(&mut received).unwrap() {
                Some(HandshakeReply::Accepted(hello)) => break hello,
                Some(HandshakeReply::Refused(status)) => panic!("{status}"),
                None => assert_ne!(stream.read_buf(&mut received).await.unwrap(), 0),
            }
        };
        let mut wire = Self { stream, received, limits: hello.limits, epoch: 0, last_request: 0 };
        match wire.ask(Request::GetMap).await {
            Ok(Response::Map(map)) => wire.epoch = map.epoch,
            other => panic!("{other:?}"),
        }
        wire
    }

    /// One request and its answer.
    pub async fn ask(&mut self, request: Request) -> Reply {
        self.last_request += 1;
        let request_id = RequestId(self.last_request);
        let frame = Call { deadline_ms: Some(60_000), request }.to_frame(request_id);
        let mut out = BytesMut::new();
        frame.encode_into(&mut out, self.limits.frame_bytes_max).unwrap();
        self.stream.write_all(&out).await.unwrap();
        loop {
            match Frame::decode_from(&mut self.received, self.limits.frame_bytes_max).unwrap() {
                Some(frame) => {
                    assert_eq!(frame.request_id, request_id);
                    return frame.decode_reply().unwrap();
                }
                None => assert_ne!(self.stream.read_buf(&mut self.received).await.unwrap(), 0),
            }
        }
    }

    pub async fn open_session(&mut self, home: UserId) -> SessionId {
        let partition = PartitionId::of_user(home, PARTITIONS);
        match self.ask(Request::OpenSession(OpenSession { partition })).await {
            Ok(Response::SessionOpened(session)) => session,
            other => panic!("{other:?}"),
        }
    }

    /// A write of `home`'s, under a session and sequence; all sequences from `lowest` on are unanswered.
    pub async fn write(&mut self, home: UserId, tag: WriteTag, op: WriteOp) -> Reply {
        let partition = PartitionId::of_user(home, PARTITIONS);
        self.ask(Request::Write(Write { partition, epoch: self.epoch, tag, op })).await
    }
}

/// The tag of a write whose answer, and all before it, nobody has seen.
pub fn tag(session: SessionId, sequence: u64) -> WriteTag {
    WriteTag { session, sequence: Sequence(sequence), lowest_unanswered: Sequence(1) }
}

/// An append to the space `posts`, which has the id 1.
pub fn append(owner: UserId, payload: &'static str, ttl: TtlChoice) -> WriteOp {
    WriteOp::Append(vec![AppendItem {
        space: SpaceId(1),
        owner,
        author: None,
        audience: Audience::Public,
        ttl,
        key: None,
        reference: None,
        payload: Bytes::from_static(payload.as_bytes()),
    }])
}

/// The answer to a write.
#[track_caller]
pub fn written(reply: Reply) -> Written {
    match reply {
        Ok(Response::Written(written)) => written,
        other => panic!("{other:?}"),
    }
}

/// The id of the only entry appended.
#[track_caller]
pub fn appended(written: &Written) -> EntryId {
    match &written.result {
        WriteResult::Appended(outcomes) => match outcomes[..] {
            [AppendOutcome::Ok { id, .. }] => id,
            _ => panic!("{outcomes:?}"),
        },
        other => panic!("{other:?}"),
    }
}
