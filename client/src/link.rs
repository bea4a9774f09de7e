//! Owns the link to one node: a queue of requests, and the task that connects, sends them, and connects again.
//!
//! Invariants:
//! - At most `QUEUE_REQUESTS_MAX` requests wait; further ones wait for room in their callers, within their deadlines.
//! - At most as many are in flight as the server allows on a connection, a ping included.
//! - A request that was taken from the queue either gets its answer or is told why not; nothing is sent twice here:
//!   whether to repeat is the caller's decision.
//! - While nothing can be connected, all requests queued at an attempt are told so, and attempts are spaced.

use std::sync::Arc;

use fanfold_protocol::{Call, Frame, Limits, Request, RequestId};
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

use crate::backoff::Backoff;
use crate::batch::Gatherer;
use crate::claim::{Claim, WithdrawOnDrop};
use crate::connection::{Connection, read_answers};
use crate::defaults;
use crate::error::Loss;
use crate::pending::{Pending, Reply, Unanswered};

/// A way to send requests to one node. The connection closes when all clones are dropped.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    address: Arc<str>,
    queue: mpsc::Sender<Outgoing>,
}

/// A request in the queue.
#[derive(Debug)]
struct Outgoing {
    frame: Frame,
    claim: Claim,
    reply: Reply,
}

impl Link {
    /// A link that connects with its first request.
    pub fn new(address: &str) -> Self {
        let (queue, requests) = mpsc::channel(defaults::QUEUE_REQUESTS_MAX);
        let address: Arc<str> = address.into();
        tokio::spawn(run(address.clone(), requests));
        Self { address, queue }
    }

    /// The node's address.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Sends a request and waits for its answer. If the future is dropped while the request still waits in the queue,
    /// it is never sent; the claim tells.
    pub async fn exchange(&self, call: &Call, claim: Claim) -> Result<Frame, Unanswered> {
        let _withdraw = WithdrawOnDrop(claim.clone());
        let (reply, answer) = oneshot::channel();
        // The connection's writer numbers the frame.
        let frame = call.to_frame(RequestId(0));
        let closed = || Unanswered::Lost(Loss::ClosedByServer);
        self.queue.send(Outgoing { frame, claim, reply }).await.map_err(|_| closed())?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }
}

/// Connects whenever there is something to send, until all clones of the link are gone.
async fn run(address: Arc<str>, mut requests: mpsc::Receiver<Outgoing>) {
    let mut backoff = Backoff::up_to(defaults::RECONNECT_DELAY_MAX);
    while let Some(first) = requests.recv().await {
        match Connection::open(&address).await {
            Ok(connection) => {
                tracing::debug!(%address, "connected");
                backoff.reset();
                let loss = serve(connection, first, &mut requests).await;
                tracing::debug!(%address, %loss, "disconnected");
            }
            Err(error) => {
                tracing::debug!(%address, %error, "cannot connect");
                let error = Arc::new(error);
                let _ = first.reply.send(Err(Unanswered::NotConnected(error.clone())));
                while let Ok(queued) = requests.try_recv() {
                    let _ = queued.reply.send(Err(Unanswered::NotConnected(error.clone())));
                }
                backoff.pause().await;
            }
        }
    }
}

/// Sends requests and hands out answers until the connection is lost; answers how.
async fn serve(connection: Connection, first: Outgoing, requests: &mut mpsc::Receiver<Outgoing>) -> Loss {
    let Connection { stream, limits, received } = connection;
    let (read, write) = stream.into_split();
    let pending = Arc::new(Pending::default());
    let ping = Arc::new(Notify::new());
    let reader = tokio::spawn(read_answers(read, received, limits, pending.clone(), ping.clone()));
    let mut reader = AbortOnDropHandle::new(reader);
    let mut writer = Writer {
        write,
        limits,
        // One place is left for the ping that asks a silent server for a sign of life.
        places: Arc::new(Semaphore::new(limits.pipelined_max.saturating_sub(1).max(1) as usize)),
        pending: pending.clone(),
        gatherer: Gatherer::new(limits),
        next_id: 1,
    };
    let loss = tokio::select! {
        loss = &mut reader => loss.unwrap_or(Loss::ClosedByServer),
        loss = writer.run(first, requests, &ping) => loss,
    };
    pending.fail(&loss);
    loss
}

/// The sending side of a connection.
struct Writer {
    write: OwnedWriteHalf,
    limits: Limits,
    places: Arc<Semaphore>,
    pending: Arc<Pending>,
    gatherer: Gatherer,
    next_id: u64,
}

impl Writer {
    /// Sends what is queued: all that waits at one time with one write.
    async fn run(&mut self, first: Outgoing, requests: &mut mpsc::Receiver<Outgoing>, ping: &Notify) -> Loss {
        let place = free_place(&self.places).await;
        self.add(first, place);
        loop {
            // Callers that became ready together get to queue their requests before the frame is closed.
            tokio::task::yield_now().await;
            self.gather(requests);
            if let Err(error) = self.write.write_all(&self.gatherer.take()).await {
                return Loss::Io(Arc::new(error));
            }
            let next = async {
                let place = free_place(&self.places).await;
                requests.recv().await.map(|next| (next, place))
            };
            tokio::select! {
                next = next => match next {
                    Some((next, place)) => self.add(next, place),
                    None => return Loss::ClosedByServer,
                },
                () = ping.notified() => self.add_ping(),
            }
        }
    }

    /// Takes what waits in the queue, as far as there are places and the write is not too long.
    fn gather(&mut self, requests: &mut mpsc::Receiver<Outgoing>) {
        while self.gatherer.len() < defaults::BATCH_BYTES_MAX {
            let Ok(place) = self.places.clone().try_acquire_owned() else { return };
            let Ok(next) = requests.try_recv() else { return };
            self.add(next, place);
        }
    }

    /// Numbers a request and gathers it, unless its caller has given up.
    fn add(&mut self, outgoing: Outgoing, place: OwnedSemaphorePermit) {
        let Outgoing { mut frame, claim, reply } = outgoing;
        if reply.is_closed() || !claim.send() {
            return;
        }
        if let Some(bytes) = self.gatherer.oversize(&frame) {
            let limit = u64::from(self.limits.frame_bytes_max);
            let _ = reply.send(Err(Unanswered::TooLarge { bytes, limit }));
            return;
        }
        frame.request_id = self.take_id();
        self.pending.insert(frame.request_id, reply, place);
        self.gatherer.push(frame);
    }

    /// Asks for a sign of life; its answer has no caller, its arrival is enough.
    fn add_ping(&mut self) {
        let id = self.take_id();
        self.gatherer.push(Call { deadline_ms: None, request: Request::Ping }.to_frame(id));
    }

    fn take_id(&mut self) -> RequestId {
        let id = RequestId(self.next_id);
        self.next_id += 1;
        id
    }
}

/// A place among the requests in flight, waited for.
async fn free_place(places: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    places.clone().acquire_owned().await.expect("the semaphore is never closed")
}
