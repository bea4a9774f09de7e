//! Owns a server for tests: it speaks the protocol over a real socket and answers what the test tells it to.

use bytes::BytesMut;
use fanfold_protocol::message::{
    FanOut, Map, NodeAddress, Page, SpaceInfo, SpacePolicy, Write, WriteResult, Written,
};
use fanfold_protocol::{
    Call, ClusterId, EntryId, Frame, FrameCodec, FrameError, GraphId, Hello, Limits, NodeId, PartitionId,
    Request, RequestId, Response, SessionId, SpaceId, Status, Token,
};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::codec::Framed;

use crate::client::{Client, ClientBuilder};

/// A listening server.
pub(crate) struct Server {
    listener: TcpListener,
    limits: Limits,
    partitions: u16,
}

/// One connection of the client under test.
pub(crate) struct Peer {
    frames: Framed<TcpStream, FrameCodec>,
    waiting: Vec<Ask>,
    partitions: u16,
    sessions: u64,
    /// The map that is answered, if it is not that of one node.
    pub map: Option<Map>,
    /// The cluster that the map names.
    pub cluster: ClusterId,
    /// Items of each frame that came.
    pub frame_items: Vec<usize>,
    /// How often the map was asked for.
    pub maps: usize,
    /// How often the spaces were listed.
    pub lists: usize,
}

/// A request that waits for the test's answer.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub id: RequestId,
    pub opcode: u16,
    pub call: Call,
}

impl Ask {
    /// The write that this is.
    pub fn write(&self) -> &Write {
        match &self.call.request {
            Request::Write(write) => write,
            other => panic!("not a write: {other:?}"),
        }
    }
}

impl Server {
    pub async fn start() -> Self {
        Self::with(Limits::default(), 1).await
    }

    pub async fn with(limits: Limits, partitions: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        Self { listener, limits, partitions }
    }

    pub fn address(&self) -> String {
        self.listener.local_addr().expect("bound").to_string()
    }

    /// A client that is connected, and the server's side of its connection.
    pub async fn connect(&self) -> (Client, Peer) {
        self.connect_as(Client::builder(self.address())).await
    }

    pub async fn connect_as(&self, builder: ClientBuilder) -> (Client, Peer) {
        let (client, mut peer) = tokio::join!(builder.connect(), async {
            let mut peer = self.accept().await;
            while peer.maps == 0 {
                peer.receive().await.expect("the client asks for the map first");
                assert!(!peer.settle().await, "the map comes first");
            }
            peer
        });
        peer.frame_items.clear();
        (client.expect("connected"), peer)
    }

    /// The next connection, its hello answered.
    pub async fn accept(&self) -> Peer {
        let (mut stream, _) = self.listener.accept().await.expect("accepted");
        let mut received = BytesMut::new();
        let hello = loop {
            if let Some(hello) = Hello::decode_from(&mut received).expect("a hello") {
                break hello;
            }
            assert_ne!(stream.read_buf(&mut received).await.expect("read"), 0, "closed before the hello");
        };
        let answer = hello.negotiate(self.limits).expect("same version").to_bytes();
        stream.write_all(&answer).await.expect("written");
        let frames = Framed::new(stream, FrameCodec::new(self.limits.frame_bytes_max));
        Peer {
            frames,
            waiting: Vec::new(),
            partitions: self.partitions,
            sessions: 0,
            map: None,
            cluster: ClusterId(7),
            frame_items: Vec::new(),
            maps: 0,
            lists: 0,
        }
    }

    /// The next connection as it comes, without any answer.
    pub async fn accept_raw(&self) -> TcpStream {
        self.listener.accept().await.expect("accepted").0
    }
}

impl Peer {
    /// The next request that the test must answer; requests for map, spaces and sessions are answered here.
    pub async fn next(&mut self) -> Ask {
        loop {
            if self.settle().await {
                return self.waiting.remove(0);
            }
            self.receive().await.expect("the client sends one more request");
        }
    }

    /// The next request of any kind, which the test must answer; `None` when the client has closed.
    pub async fn next_of_any_kind(&mut self) -> Option<Ask> {
        while self.waiting.is_empty() {
            self.receive().await?;
        }
        Some(self.waiting.remove(0))
    }

    /// The next write, any partition.
    pub async fn next_write(&mut self) -> Ask {
        let ask = self.next().await;
        ask.write();
        ask
    }

    /// Answers the requests at the front that need no test; whether one that does is left.
    async fn settle(&mut self) -> bool {
        while let Some(ask) = self.waiting.first().cloned() {
            let response = match &ask.call.request {
                Request::GetMap => {
                    self.maps += 1;
                    let one_node = || map(self.cluster, self.partitions);
                    Response::Map(self.map.clone().unwrap_or_else(one_node))
                }
                Request::ListSpaces => {
                    self.lists += 1;
                    Response::Spaces(spaces())
                }
                Request::OpenSession(_) => {
                    self.sessions += 1;
                    Response::SessionOpened(SessionId(100 + self.sessions))
                }
                _ => return true,
            };
            self.waiting.remove(0);
            self.answer(&ask, &response).await;
        }
        false
    }

    /// Takes in one frame; `None` when the client has closed.
    async fn receive(&mut self) -> Option<()> {
        let frame = match self.frames.next().await? {
            Ok(frame) => frame,
            // A connection that is torn down is closed too.
            Err(FrameError::Io(_)) => return None,
            Err(error) => panic!("not a sound frame: {error}"),
        };
        let items = frame.into_items(u32::MAX).expect("a sound batch");
        self.frame_items.push(items.len());
        for item in items {
            let call = item.decode_call().expect("a sound request");
            self.waiting.push(Ask { id: item.request_id, opcode: item.opcode, call });
        }
        Some(())
    }

    /// Answers what needs no test until a call has ended.
    pub async fn serve_until_idle<T>(&mut self, call: &tokio::task::JoinHandle<T>) {
        while !call.is_finished() {
            assert!(!self.settle().await, "a request that the test does not expect: {:?}", self.waiting);
            tokio::select! {
                received = self.receive() => received.expect("the client stays connected"),
                () = tokio::task::yield_now() => {}
            }
        }
    }

    /// Whether the client closes the connection without another request.
    pub async fn closes(&mut self) -> bool {
        self.frames.next().await.is_none()
    }

    /// Sends an answer; whether the client is still there to take it.
    pub async fn try_answer(&mut self, ask: &Ask, reply: &Result<Response, Status>) -> bool {
        let frame = match reply {
            Ok(response) => Frame::response(ask.opcode, ask.id, response),
            Err(status) => Frame::refusal(ask.opcode, ask.id, status),
        };
        self.frames.send(frame).await.is_ok()
    }

    pub async fn answer(&mut self, ask: &Ask, response: &Response) {
        self.send(Frame::response(ask.opcode, ask.id, response)).await;
    }

    pub async fn refuse(&mut self, ask: &Ask, status: &Status) {
        self.send(Frame::refusal(ask.opcode, ask.id, status)).await;
    }

    pub async fn send(&mut self, frame: Frame) {
        self.frames.send(frame).await.expect("sent");
    }
}

fn map(cluster: ClusterId, partitions: u16) -> Map {
    Map {
        cluster,
        epoch: 1,
        partitions,
        nodes: vec![NodeAddress { node: NodeId(1), address: "nowhere.invalid:1".to_owned() }],
        leaders: vec![NodeId(1); usize::from(partitions)],
    }
}

fn spaces() -> Vec<SpaceInfo> {
    let policy = SpacePolicy {
        default_ttl_ms: None,
        feed_cap: 800,
        horizon_ms: None,
        fan_out: FanOut::Auto,
        pull_threshold: 1_000,
        payload_bytes_max: 4_096,
        is_read_only: false,
    };
    let space = |id, name: &str| SpaceInfo {
        id: SpaceId(id),
        name: name.to_owned(),
        graph: GraphId(1),
        graph_name: "follows".to_owned(),
        version: 1,
        policy: policy.clone(),
    };
    vec![space(1, "posts"), space(2, "stories")]
}

/// The answer to the list of spaces.
pub(crate) fn list_of_spaces() -> Response {
    Response::Spaces(spaces())
}

pub(crate) fn token() -> Token {
    Token { partition: PartitionId(0), incarnation: 1, log_index: 9, journal_position: None }
}

/// The answer to a write.
pub(crate) fn written(result: WriteResult) -> Response {
    Response::Written(Written { token: token(), result })
}

/// The answer to an append of one entry.
pub(crate) fn appended(id: u64) -> Response {
    use fanfold_protocol::message::AppendOutcome;
    written(WriteResult::Appended(vec![AppendOutcome::Ok { id: EntryId(id), duplicate: false }]))
}

/// A page without entries; `complete_to` tells pages apart.
pub(crate) fn page(complete_to: u64) -> Page {
    Page {
        entries: Vec::new(),
        next: None,
        complete_to: EntryId(complete_to),
        short_of: Vec::new(),
        mark: None,
        new_count: None,
        token: token(),
    }
}
