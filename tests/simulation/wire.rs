//! Owns the network of a run: requests and answers as datagrams of turmoil's, which lose, double, delay and reorder them.
//!
//! - A datagram carries the number of a message that stands in a table of the process; what it holds needs no encoding.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::Bytes;
use fanfold_cluster::dispatcher::{StreamError, StreamTransport};
use fanfold_cluster::raft::{MessageKind, PeerRequest, PeerTransport, ReplicaId, TransportError};
use fanfold_storage::command::{Command, Outcome};
use fanfold_storage::entry::Entry;
use fanfold_storage::event::{StreamAnswer, StreamMessage};
use fanfold_storage::ids::{PartitionId, UserId};
use fanfold_storage::log::GroupId;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;
use turmoil::net::UdpSocket;

use crate::broken;
use crate::plan::NODES;
use crate::world::{World, lock};

const PORT: u16 = 4_000;

/// Messages that may still be under way.
const KEPT_MESSAGES: usize = 20_000;

/// One message in so many is lost …
const LOSS: u64 = 2_000;

/// … and one in so many comes twice, …
const DOUBLING: u64 = 200;

/// … and one in so many comes late.
const LATENESS: u64 = 300;

/// How long a message of Raft or of a stream waits for its answer.
const PEER_DEADLINE: Duration = Duration::from_secs(2);

/// What one host asks another.
#[derive(Clone)]
pub enum Request {
    Raft { group: GroupId, source: ReplicaId, target: ReplicaId, kind: MessageKind, body: Bytes },
    Stream { destination: PartitionId, message: StreamMessage },
    Propose { partition: PartitionId, command: Command },
    Timeline { partition: PartitionId, owner: UserId },
}

/// What it answers; without one, it may have done it all the same.
#[derive(Clone, Debug)]
pub enum Answer {
    Raft(Bytes),
    Stream(Result<StreamAnswer, StreamError>),
    Proposed(Outcome),
    Timeline(Vec<Entry>),
    /// It does not lead, or cannot serve.
    Refused,
}

/// A message under way.
#[derive(Clone, Debug)]
pub enum Message {
    Ask { from: usize, number: u64, request: Request },
    Answer { number: u64, answer: Answer },
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Raft { group, source, target, kind, body } => {
                let hash = xxhash_rust::xxh3::xxh3_64(body);
                write!(f, "{kind:?} of {source} for {target} in {group:?}, {} bytes {hash:x}", body.len())
            }
            Self::Stream { destination, message } => write!(
                f,
                "stream {} to {} behind {}: {:?}",
                message.source.0, destination.0, message.previous.0, message.events
            ),
            Self::Propose { partition, command } => write!(f, "propose in {}: {command:?}", partition.0),
            Self::Timeline { partition, owner } => write!(f, "timeline of {} in {}", owner.0, partition.0),
        }
    }
}

/// The messages under way.
#[derive(Default)]
pub struct Table {
    messages: BTreeMap<u64, Message>,
    last: u64,
}

impl Table {
    fn put(&mut self, message: Message) -> u64 {
        self.last += 1;
        self.messages.insert(self.last, message);
        if self.messages.len() > KEPT_MESSAGES {
            self.messages.pop_first();
        }
        self.last
    }
}

/// The name of a host; behind the nodes comes the client.
pub fn name_of(host: usize) -> String {
    if host < NODES { format!("node{}", host + 1) } else { "client".to_owned() }
}

/// What a host does with a request.
pub type Service = Arc<dyn Fn(Request) -> BoxFuture<'static, Answer> + Send + Sync>;

/// One host's end of the network.
pub struct Wire {
    world: Arc<World>,
    host: usize,
    socket: Arc<UdpSocket>,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    last: u64,
    answers: BTreeMap<u64, oneshot::Sender<Answer>>,
}

/// Forgets who waits.
struct Forget<'a>(&'a Mutex<Waiting>, u64);

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        lock(self.0).answers.remove(&self.1);
    }
}

impl Wire {
    /// Begins to send, and to serve what comes.
    pub async fn start(world: Arc<World>, host: usize, service: Service) -> turmoil::Result<Arc<Self>> {
        let socket = Arc::new(UdpSocket::bind(("0.0.0.0", PORT)).await?);
        let wire = Arc::new(Self { world, host, socket, waiting: Mutex::default() });
        tokio::spawn(wire.clone().receive(service));
        Ok(wire)
    }

    async fn receive(self: Arc<Self>, service: Service) {
        let mut buffer = [0; 8];
        while self.socket.recv_from(&mut buffer).await.is_ok() {
            let Some(message) = lock(&self.world.table).messages.get(&u64::from_le_bytes(buffer)).cloned()
            else {
                continue;
            };
            self.world.note(format_args!("{} < {message:?}", name_of(self.host)));
            match message {
                Message::Ask { from, number, request } => {
                    let (this, answer) = (self.clone(), service(request));
                    tokio::spawn(async move {
                        let answer = answer.await;
                        this.send(from, Message::Answer { number, answer }, 0);
                    });
                }
                Message::Answer { number, answer } => {
                    if let Some(waiting) = lock(&self.waiting).answers.remove(&number) {
                        // Whoever asked may have given up.
                        let _ = waiting.send(answer);
                    }
                }
            }
        }
    }

    fn send(self: &Arc<Self>, to: usize, message: Message, delay_ms: u64) {
        let world = &self.world;
        if world.happens_once_in(LOSS) {
            return;
        }
        let copies = 1 + u64::from(world.happens_once_in(DOUBLING));
        let number = lock(&world.table).put(message);
        for copy in 0..copies {
            let late_ms = if copy > 0 || world.happens_once_in(LATENESS) { world.draw(1_500) } else { 0 };
            let wait = Duration::from_millis(delay_ms + late_ms);
            let socket = self.socket.clone();
            tokio::spawn(async move {
                if !wait.is_zero() {
                    tokio::time::sleep(wait).await;
                }
                // An unreachable host is one that does not answer.
                let _ = socket.send_to(&number.to_le_bytes(), (name_of(to), PORT)).await;
            });
        }
    }

    /// Asks and waits for the answer; none if there is none in time.
    pub async fn ask(self: &Arc<Self>, to: usize, request: Request, deadline: Duration) -> Option<Answer> {
        let (sender, answer) = oneshot::channel();
        let number = {
            let mut waiting = lock(&self.waiting);
            waiting.last += 1;
            let number = waiting.last;
            waiting.answers.insert(number, sender);
            number
        };
        let forget = Forget(&self.waiting, number);
        let delay_ms = match &request {
            Request::Stream { destination, message } => {
                broken::note_generations(&self.world, message);
                if self
                    .world
                    .happens_once_in(self.world.stream_loss.load(std::sync::atomic::Ordering::Relaxed))
                {
                    tokio::time::sleep(deadline / 8).await;
                    return None;
                }
                let delays = &self.world.stream_delay_ms;
                delays[usize::from(destination.0)].load(std::sync::atomic::Ordering::Relaxed)
            }
            _ => 0,
        };
        self.send(to, Message::Ask { from: self.host, number, request }, delay_ms);
        let answer = tokio::time::timeout(deadline, answer).await;
        drop(forget);
        answer.ok()?.ok()
    }
}

/// Carries Raft's messages.
pub struct Peers(pub Weak<Wire>);

impl PeerTransport for Peers {
    fn send(&self, request: PeerRequest) -> BoxFuture<'static, Result<Bytes, TransportError>> {
        let wire = self.0.upgrade();
        Box::pin(async move {
            // What overtakes is refused by Raft and sent again.
            let PeerRequest { group, source, target, address, kind, body, is_ordered: _ } = request;
            let broken = TransportError::Broken { target, address };
            let Some(wire) = wire else { return Err(broken) };
            let asked = Request::Raft { group, source, target, kind, body };
            match wire.ask(target.0 as usize - 1, asked, PEER_DEADLINE).await {
                Some(Answer::Raft(answer)) => Ok(answer),
                _ => Err(broken),
            }
        })
    }
}

/// Carries messages of streams to whoever leads the destination.
pub struct Streams {
    wire: Weak<Wire>,
    leaders: Arc<Mutex<BTreeMap<PartitionId, usize>>>,
}

impl Streams {
    /// Streams that leave from this end of the network.
    pub fn new(wire: Weak<Wire>) -> Self {
        Self { wire, leaders: Arc::default() }
    }
}

impl StreamTransport for Streams {
    fn send(
        &self,
        destination: PartitionId,
        message: StreamMessage,
    ) -> BoxFuture<'static, Result<StreamAnswer, StreamError>> {
        let (wire, leaders) = (self.wire.upgrade(), self.leaders.clone());
        Box::pin(async move {
            let unavailable = Err(StreamError::Unavailable { destination });
            let Some(wire) = wire else { return unavailable };
            let to = *lock(&leaders).entry(destination).or_default();
            let asked = wire.ask(to, Request::Stream { destination, message }, PEER_DEADLINE).await;
            if let Some(Answer::Stream(answer)) = asked {
                return answer;
            }
            // Another message may have found the leader meanwhile.
            let mut leaders = lock(&leaders);
            let known = leaders.entry(destination).or_default();
            if *known == to {
                *known = (to + 1) % NODES;
            }
            unavailable
        })
    }
}
