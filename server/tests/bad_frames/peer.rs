//! Owns the client of these tests: raw bytes out, frames in.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use fanfold_protocol::call::{BATCH_ITEMS_MAX, Call, Reply};
use fanfold_protocol::message::{
    AppendItem, AppendOutcome, Audience, Map, OpenSession, ReadTimeline, Request, Response, TtlChoice, Write,
    WriteOp, WriteResult, WriteTag, Written,
};
use fanfold_protocol::{
    Flags, Frame, HandshakeReply, Hello, PartitionId, RequestId, Sequence, SessionId, SpaceId, Status, UserId,
};
use fanfold_server::TestNode;
pub use fanfold_server::config::Config;
use fanfold_server::server::Server;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};

/// How long anything may take before the test fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(60);

/// The largest frame that these tests accept.
pub const FRAME_BYTES_MAX: u32 = 64 << 20;

/// The settings that these tests start from: deadlines that no test runs into unless it sets them itself.
pub fn config() -> Config {
    Config { partitions: Some(4), ..Config::default() }
}

pub async fn node(config: Config) -> TestNode {
    TestNode::start_with(config).await.unwrap()
}

/// A node with an HTTP port, which a test node does not have.
pub async fn server(config: Config) -> (Server, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        data_dir: dir.path().join("data"),
        listen: "127.0.0.1:0".to_owned(),
        http: "127.0.0.1:0".to_owned(),
        log_segment_bytes: 8 << 20,
        ..config
    };
    (Server::start(config).await.unwrap(), dir)
}

/// What comes, or a failed test.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it comes in time")
}

/// The body of the answer to a plain GET.
pub async fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: fanfold\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer
}

/// The value of a metric with these labels; 0 if it is not there yet.
pub async fn metric(address: SocketAddr, name_and_labels: &str) -> u64 {
    let text = get(address, "/metrics").await;
    let line = text.lines().find_map(|line| line.strip_prefix(name_and_labels));
    line.map_or(0, |value| value.trim().parse().unwrap())
}

pub struct Peer {
    pub incoming: Incoming,
    pub outgoing: OwnedWriteHalf,
    next_id: u64,
}

pub struct Incoming {
    pub stream: OwnedReadHalf,
    buffer: BytesMut,
    unpacked: VecDeque<Frame>,
}

impl Peer {
    /// Connects and says nothing.
    pub async fn silent(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap())
    }

    /// Connects with a small buffer for what it receives, and shakes hands.
    pub async fn with_small_buffer(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4_096).unwrap();
        let mut peer = Self::over(socket.connect(address).await.unwrap());
        peer.shake_hands().await.unwrap();
        peer
    }

    /// Connects and shakes hands.
    pub async fn connect(address: SocketAddr) -> Self {
        let mut peer = Self::silent(address).await;
        peer.shake_hands().await.unwrap();
        peer
    }

    fn over(stream: TcpStream) -> Self {
        let (incoming, outgoing) = stream.into_split();
        let incoming = Incoming { stream: incoming, buffer: BytesMut::new(), unpacked: VecDeque::new() };
        Self { incoming, outgoing, next_id: 1 }
    }

    /// The handshake; the refusal if there is one.
    pub async fn shake_hands(&mut self) -> Result<(), Status> {
        self.send(&Hello::current().to_bytes()).await;
        loop {
            match HandshakeReply::decode_from(&mut self.incoming.buffer).unwrap() {
                Some(HandshakeReply::Accepted(_)) => return Ok(()),
                Some(HandshakeReply::Refused(status)) => return Err(status),
                None => assert!(self.incoming.fill().await, "closed within the handshake"),
            }
        }
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        soon(self.outgoing.write_all(bytes)).await.unwrap();
    }

    pub async fn send_frame(&mut self, frame: &Frame) {
        self.send(&encoded(frame)).await;
    }

    /// Sends a frame and takes the answer to its number.
    pub async fn exchange(&mut self, frame: Frame) -> Reply {
        self.send_frame(&frame).await;
        let answer = self.incoming.next().await.expect("the connection goes on");
        assert_eq!(answer.request_id, frame.request_id);
        answer.decode_reply().unwrap()
    }

    /// Numbers a request.
    pub fn frame(&mut self, request: Request) -> Frame {
        let id = RequestId(self.next_id);
        self.next_id += 1;
        Call { deadline_ms: None, request }.to_frame(id)
    }

    pub async fn call(&mut self, request: Request) -> Reply {
        let frame = self.frame(request);
        self.exchange(frame).await
    }

    pub async fn assert_serves(&mut self) {
        assert_eq!(self.call(Request::Ping).await, Ok(Response::Pong));
    }

    /// The typed refusal of the connection, behind which it is closed.
    pub async fn refusal_and_close(&mut self) -> Status {
        let frame = self.incoming.next().await.expect("a refusal comes before the close");
        assert!(frame.is_connection_refusal(), "{frame:?}");
        let status = frame.decode_status().unwrap();
        assert_eq!(self.incoming.next().await, None, "the connection is closed behind the refusal");
        status
    }

    pub async fn map(&mut self) -> Map {
        match self.call(Request::GetMap).await {
            Ok(Response::Map(map)) => map,
            other => panic!("{other:?}"),
        }
    }

    /// Opens a session where this user is homed.
    pub async fn session(&mut self, user: UserId) -> Home {
        let map = self.map().await;
        let partition = PartitionId::of_user(user, map.partitions);
        match self.call(Request::OpenSession(OpenSession { partition })).await {
            Ok(Response::SessionOpened(session)) => {
                Home { partition, epoch: map.epoch, session, user, sequence: 1 }
            }
            other => panic!("{other:?}"),
        }
    }

    /// Appends and answers what came of it; a refusal of the whole write or of its one item.
    pub async fn append(&mut self, request: Request) -> AppendOutcome {
        match self.call(request).await {
            Ok(Response::Written(Written { result: WriteResult::Appended(outcomes), .. })) => {
                outcomes.into_iter().next().unwrap()
            }
            Ok(other) => panic!("{other:?}"),
            Err(status) => AppendOutcome::Refused(status),
        }
    }

    /// How many entries the timeline of a user holds.
    pub async fn timeline_len(&mut self, owner: UserId) -> usize {
        match self.call(Request::ReadTimeline(read_timeline(owner))).await {
            Ok(Response::Page(page)) => page.entries.len(),
            other => panic!("{other:?}"),
        }
    }
}

impl Incoming {
    /// The next frame, unpacked from batches; `None` when the connection is closed.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.unpacked.pop_front() {
                return Some(frame);
            }
            match Frame::decode_from(&mut self.buffer, FRAME_BYTES_MAX).unwrap() {
                // The refusal of a batch as a whole has its opcode and is none.
                Some(frame) if frame.flags == Flags::ERROR => return Some(frame),
                Some(frame) => self.unpacked.extend(frame.into_items(BATCH_ITEMS_MAX as u32).unwrap()),
                None if self.fill().await => {}
                None => {
                    assert!(self.buffer.is_empty(), "closed within a frame");
                    return None;
                }
            }
        }
    }

    async fn fill(&mut self) -> bool {
        soon(self.stream.read_buf(&mut self.buffer)).await.expect("closed in order, not reset") > 0
    }
}

/// A user's partition and a session there.
#[derive(Debug, Clone, Copy)]
pub struct Home {
    partition: PartitionId,
    epoch: u64,
    session: SessionId,
    user: UserId,
    sequence: u64,
}

impl Home {
    /// A write under the next number.
    pub fn write(&mut self, op: WriteOp) -> Request {
        let sequence = Sequence(self.sequence);
        self.sequence += 1;
        let tag = WriteTag { session: self.session, sequence, lowest_unanswered: sequence };
        Request::Write(Write { partition: self.partition, epoch: self.epoch, tag, op })
    }

    /// An append of the user's own.
    pub fn append(&mut self, ttl: TtlChoice, payload: impl Into<Bytes>) -> Request {
        let item = AppendItem {
            space: POSTS,
            owner: self.user,
            author: None,
            audience: Audience::Public,
            ttl,
            key: None,
            reference: None,
            payload: payload.into(),
        };
        self.write(WriteOp::Append(vec![item]))
    }
}

/// The space that every node starts with.
pub const POSTS: SpaceId = SpaceId(1);

pub fn read_timeline(owner: UserId) -> ReadTimeline {
    ReadTimeline {
        space: POSTS,
        owner,
        viewer: None,
        limit: 1_000,
        cursor: None,
        at_least: None,
        consistency: fanfold_protocol::message::Consistency::Leader,
        hydrate: false,
    }
}

pub fn encoded(frame: &Frame) -> BytesMut {
    let mut out = BytesMut::new();
    frame.encode_into(&mut out, FRAME_BYTES_MAX).unwrap();
    out
}
