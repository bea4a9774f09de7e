//! Owns the requests that come in on one connection, and the answers that go out on it.
//!
//! - A request counts until its answer is on its way: a peer that does not read is cut, and what waits for it is bounded.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fanfold_storage::log::GroupId;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::call::PeerCall;
use super::error::Cut;
use super::frame::{Frame, FrameKind, HEAD_BYTES};
use super::handler::PeerHandler;
use super::network::{DONE, PeerNetwork, REFUSED};
use super::options::PeerOptions;
use super::ping::Ping;
use super::refusal::PeerRefusal;
use super::socket::Socket;
use super::transport::take_replicas;
use super::wire::{Body, FrameReader, Pieces};
use crate::raft::MessageKind;

/// What is written at once, about.
const WRITE_BYTES: usize = 256 << 10;

/// Answers up to this go out before larger ones, so that those of heartbeats do not wait.
const SMALL_BYTES_MAX: usize = 4 << 10;

/// When a request that found too much waiting may be tried again.
const BUSY_DELAY_MS: u64 = 50;

/// A connection that another node dialled.
pub(super) struct Connection {
    /// Which node; 0 for one that has not joined.
    from: u64,
    network: PeerNetwork,
    handler: Arc<dyn PeerHandler>,
    options: PeerOptions,
    /// How long its first request may take to come; none: as long as any.
    first_within: Option<Duration>,
    answers: Arc<Answers>,
}

/// An answer that waits to be written.
#[derive(Debug)]
struct Waiting {
    number: u64,
    /// What its request counts for.
    request_bytes: usize,
    status: u8,
    body: Body,
}

/// What waits to be written.
#[derive(Debug, Default)]
struct Queues {
    small: VecDeque<Waiting>,
    large: VecDeque<Waiting>,
    bytes: usize,
}

/// The answers of a connection.
#[derive(Debug)]
struct Answers {
    queues: Mutex<Queues>,
    ready: Notify,
    /// Requests whose answers are not on their way yet, and their bytes.
    requests: AtomicUsize,
    bytes: AtomicUsize,
    limit_bytes: usize,
    frame_bytes_max: usize,
}

/// A request that was read; it counts until its answer is on its way, or it is dropped.
struct Taken {
    number: u64,
    bytes: usize,
    is_answered: bool,
    answers: Arc<Answers>,
}

impl Connection {
    pub fn new(from: u64, network: PeerNetwork, handler: Arc<dyn PeerHandler>, options: PeerOptions) -> Self {
        let answers = Arc::new(Answers {
            queues: Mutex::default(),
            ready: Notify::new(),
            requests: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            limit_bytes: options.connection_bytes_max,
            frame_bytes_max: network.shared.options.frame_bytes_max,
        });
        Self { from, network, handler, options, first_within: None, answers }
    }

    /// The same, but a first request has to come within so long.
    pub fn asked_within(self, first: Duration) -> Self {
        Self { first_within: Some(first), ..self }
    }

    /// Serves until the connection ends, or is to end; what is not answered is dropped before this returns.
    pub async fn run(self, socket: Socket, ended: impl Future<Output = Cut>) -> Cut {
        let mut tasks = JoinSet::new();
        let cut = tokio::select! {
            cut = self.exchange(socket, &mut tasks) => cut,
            cut = ended => cut,
        };
        tasks.shutdown().await;
        cut
    }

    async fn exchange(&self, socket: Socket, tasks: &mut JoinSet<()>) -> Cut {
        let (read, mut write) = socket.into_split();
        let answers = self.answers.clone();
        let stall = self.options.stall();
        let writes = async {
            let mut pieces = Pieces::default();
            loop {
                answers.take(&mut pieces);
                if pieces.bytes() == 0 {
                    answers.ready.notified().await;
                } else if let Err(cut) = pieces.write(&mut write, stall).await {
                    return cut;
                }
            }
        };
        let mut frames = FrameReader::new(read, &self.options);
        let reads = async {
            let mut number = 0;
            loop {
                let next = match self.first_within.filter(|_| number == 0) {
                    Some(first) => timeout(first, frames.next()).await.unwrap_or(Err(Cut::Silent)),
                    None => frames.next().await,
                };
                let frame = match next {
                    Ok(frame) => frame,
                    Err(cut) => return cut,
                };
                number += 1;
                if frame.number != number {
                    return Cut::Sequence { expected: number, got: frame.number };
                }
                while tasks.try_join_next().is_some() {}
                if let Err(cut) = self.take(frame, tasks) {
                    return cut;
                }
            }
        };
        tokio::select! {
            cut = writes => cut,
            cut = reads => cut,
        }
    }

    /// Takes a request in.
    fn take(&self, frame: Frame, tasks: &mut JoinSet<()>) -> Result<(), Cut> {
        let taken = self.answers.begin(frame.number, HEAD_BYTES + frame.body.len());
        if self.answers.requests.load(Ordering::Relaxed) > self.options.connection_requests_max
            || self.answers.bytes.load(Ordering::Relaxed) > self.options.connection_bytes_max
        {
            return Err(Cut::TooMuch);
        }
        let is_stranger = self.from == 0;
        match frame.kind {
            FrameKind::Ping if !is_stranger => self.pinged(&frame.body, taken),
            FrameKind::Raft if !is_stranger => {
                let mut handled = self.raft(frame, taken);
                // The first part runs here, so that messages are handed over in order.
                if (&mut handled).now_or_never().is_none() {
                    tasks.spawn(handled);
                }
                Ok(())
            }
            FrameKind::Call => {
                let call = PeerCall::decode(frame.code, &frame.body);
                if is_stranger && !matches!(call, Ok(PeerCall::Join(_))) {
                    return Err(Cut::Unexpected);
                }
                let is_ordered = matches!(call, Ok(PeerCall::Stream { .. }));
                let (handler, from) = (self.handler.clone(), self.from);
                let mut handled: BoxFuture<'static, ()> = Box::pin(async move {
                    let answer = match call {
                        Ok(call) => handler.call(from, call).await,
                        Err(_) => Err(PeerRefusal::Malformed),
                    };
                    taken.answer(answer.map(|answer| answer.to_bytes()));
                });
                // Each message of a stream goes behind the one before; other calls have no order.
                if !is_ordered || (&mut handled).now_or_never().is_none() {
                    tasks.spawn(handled);
                }
                Ok(())
            }
            _ => Err(Cut::Unexpected),
        }
    }

    fn pinged(&self, body: &[u8], taken: Taken) -> Result<(), Cut> {
        let Ok(ping) = Ping::from_bytes(body) else { return Err(Cut::Unexpected) };
        self.handler.admit(self.from).map_err(Cut::Refused)?;
        self.network.shared.heard(self.from, None);
        self.handler.pinged(self.from, &ping);
        taken.answer(Ok(self.handler.pong().to_bytes()));
        Ok(())
    }

    fn raft(&self, frame: Frame, taken: Taken) -> BoxFuture<'static, ()> {
        let (handler, from) = (self.handler.clone(), self.from);
        Box::pin(async move {
            let group = GroupId(frame.group);
            let answer = match (MessageKind::from_number(frame.code), take_replicas(frame.body)) {
                (Some(kind), Some((_, target, body))) => handler.raft(from, group, target, kind, body).await,
                _ => Err(PeerRefusal::Malformed),
            };
            taken.answer(answer);
        })
    }
}

impl Answers {
    fn begin(self: &Arc<Self>, number: u64, bytes: usize) -> Taken {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Taken { number, bytes, is_answered: false, answers: self.clone() }
    }

    /// A request of so many bytes counts no more.
    fn end(&self, bytes: usize) {
        self.requests.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn push(&self, waiting: Waiting) {
        let mut queues = self.queues.lock();
        let body = &waiting.body;
        let is_small = body.len() <= SMALL_BYTES_MAX;
        let is_too_much = body.frame_bytes() > self.frame_bytes_max
            || (!is_small && queues.bytes > 0 && queues.bytes + body.len() > self.limit_bytes);
        if is_too_much {
            let body = Body::new(PeerRefusal::Busy { delay_ms: BUSY_DELAY_MS }.to_bytes());
            queues.small.push_back(Waiting { status: REFUSED, body, ..waiting });
        } else if is_small {
            queues.small.push_back(waiting);
        } else {
            queues.bytes += body.len();
            queues.large.push_back(waiting);
        }
        drop(queues);
        self.ready.notify_one();
    }

    fn take(&self, pieces: &mut Pieces) {
        let mut queues = self.queues.lock();
        while pieces.bytes() < WRITE_BYTES {
            let next = queues.small.pop_front().or_else(|| {
                let large = queues.large.pop_front()?;
                queues.bytes -= large.body.len();
                Some(large)
            });
            let Some(Waiting { number, request_bytes, status, body }) = next else { return };
            // It no longer counts before its answer can arrive, as the other side reckons.
            self.end(request_bytes);
            pieces.push(FrameKind::Answer, status, 0, number, body);
        }
    }
}

impl Taken {
    fn answer(mut self, answer: Result<Bytes, PeerRefusal>) {
        let (status, body) = match answer {
            Ok(body) => (DONE, body),
            Err(refusal) => (REFUSED, refusal.to_bytes()),
        };
        self.is_answered = true;
        let (number, request_bytes) = (self.number, self.bytes);
        self.answers.push(Waiting { number, request_bytes, status, body: Body::new(body) });
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if !self.is_answered {
            self.answers.end(self.bytes);
        }
    }
}
