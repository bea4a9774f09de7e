//! Owns the connections that this node dials: one at a time to each node and for each purpose, made anew when it ends.
//!
//! - A connection is made when something is to be sent; after a failure requests fail at once until the next attempt,
//!   whose delay doubles up to a limit and is given up when the address changes, or the node says hello itself.
//! - When a connection for data is lost it is tried again at once, to learn whether there still is anybody.
//! - One task writes and reads; it writes everything that waits with one call.

use std::io::ErrorKind;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::error::{Cut, DialError};
use super::frame::FrameKind;
use super::hello::{Hello, HelloAnswer, Purpose, VERSION};
use super::identity::PeerIdentity;
use super::network::Shared;
use super::options::PeerOptions;
use super::outbox::{Answer, Outbox};
use super::socket::{Socket, dial};
use super::wire::{FrameReader, Pieces};

/// The way to one node for one purpose.
#[derive(Debug)]
pub(super) struct Link {
    pub node: u64,
    pub purpose: Purpose,
    pub outbox: Outbox,
    /// The address changed, or the node was heard.
    pub moved: Notify,
    pub stop: CancellationToken,
}

impl Link {
    pub fn new(node: u64, purpose: Purpose, options: &PeerOptions, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self { node, purpose, outbox: Outbox::new(options), moved: Notify::new(), stop })
    }

    /// Runs until it is stopped.
    pub async fn run(self: Arc<Self>, shared: Arc<Shared>) {
        let stop = self.stop.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.connect_again(&shared) => {}
        }
        self.outbox.disconnected(Cut::Ended);
        self.outbox.refuse("", DialError::Ended(Cut::Ended));
    }

    async fn connect_again(&self, shared: &Shared) {
        let options = &shared.options;
        let mut failures = 0;
        let mut is_lost = false;
        loop {
            while self.outbox.is_empty() && !is_lost {
                self.outbox.ready().await;
            }
            let Some(address) = shared.address(self.node) else {
                self.outbox.refuse("an unknown address", DialError::Unknown);
                self.wait(options, 1).await;
                continue;
            };
            let (began, ended) = match self.connect(shared, &address).await {
                Ok((socket, hello)) => {
                    tracing::debug!(node = self.node, %address, purpose = ?self.purpose, "connected");
                    self.outbox.connected(&hello);
                    let began = Instant::now();
                    let open = shared.gone.opened(self.node);
                    if self.purpose == Purpose::Data {
                        shared.note_reached(self.node);
                    }
                    let cut = exchange(socket, &self.outbox, options).await;
                    drop(open);
                    self.outbox.disconnected(cut);
                    tracing::info!(node = self.node, %address, purpose = ?self.purpose, %cut, "a connection to a node ended");
                    (Some(began), DialError::Ended(cut))
                }
                Err(reason) => {
                    if failures == 0 {
                        tracing::info!(node = self.node, %address, %reason, "a node cannot be reached");
                    }
                    shared.gone.missed(self.node, reason == DialError::Io(ErrorKind::ConnectionRefused));
                    (None, reason)
                }
            };
            is_lost = began.is_some() && self.purpose == Purpose::Data;
            if began.is_some_and(|began| began.elapsed().as_millis() as u64 > options.backoff_max_ms) {
                failures = 0;
                continue;
            }
            failures += 1;
            self.outbox.refuse(&address, ended);
            if self.wait(options, failures).await {
                failures = 0;
                is_lost = self.purpose == Purpose::Data;
            }
        }
    }

    /// Waits before the next attempt; true if there is reason not to wait to the end.
    async fn wait(&self, options: &PeerOptions, failures: u32) -> bool {
        let moved = tokio::select! {
            () = sleep(options.backoff(failures)) => false,
            () = self.moved.notified() => true,
        };
        self.outbox.retry();
        moved
    }

    async fn connect(&self, shared: &Shared, address: &str) -> Result<(Socket, HelloAnswer), DialError> {
        let identity = shared.identity().ok_or(DialError::NotJoined)?;
        let greeted =
            greet(address, self.purpose, Some(identity), self.node, shared.process, &shared.options).await;
        shared.note_greeted(self.node, greeted.as_ref().err());
        greeted
    }
}

/// Connects, and says hello.
pub(super) async fn greet(
    address: &str,
    purpose: Purpose,
    identity: Option<PeerIdentity>,
    to: u64,
    process: u32,
    options: &PeerOptions,
) -> Result<(Socket, HelloAnswer), DialError> {
    let greeted = async {
        let mut socket = dial(address).await?;
        let (cluster, from) = identity.map_or((0, 0), |identity| (identity.cluster, identity.node));
        let (version_min, version_max) = (VERSION, VERSION);
        let hello = Hello { version_min, version_max, purpose, cluster, from, to, process };
        socket.write_all(&hello.to_bytes()).await?;
        let mut bytes = [0; HelloAnswer::BYTES];
        socket.read_exact(&mut bytes).await?;
        let answer = HelloAnswer::from_bytes(&bytes)?;
        if let Some(refusal) = answer.refused {
            return Err(DialError::Refused(refusal));
        }
        if to != 0 && answer.node != to {
            return Err(DialError::OtherNode { node: answer.node });
        }
        if cluster != 0 && answer.cluster != cluster {
            return Err(DialError::Refused(super::hello::HelloRefusal::WrongCluster));
        }
        Ok((socket, answer))
    };
    timeout(options.dial(), greeted).await.unwrap_or(Err(DialError::Deadline))
}

/// Writes what waits and takes answers until the connection ends.
pub(super) async fn exchange(socket: Socket, outbox: &Outbox, options: &PeerOptions) -> Cut {
    let (read, mut write) = socket.into_split();
    let writes = async {
        let mut pieces = Pieces::default();
        loop {
            outbox.take(&mut pieces);
            if pieces.bytes() == 0 {
                outbox.ready().await;
            } else if let Err(cut) = pieces.write(&mut write, options.stall()).await {
                return cut;
            }
        }
    };
    let reads = async {
        let mut frames = FrameReader::new(read, options);
        loop {
            let frame = match frames.next().await {
                Ok(frame) => frame,
                Err(cut) => return cut,
            };
            if frame.kind != FrameKind::Answer {
                return Cut::Unexpected;
            }
            if let Err(cut) = outbox.answered(frame.number, Answer { status: frame.code, body: frame.body }) {
                return cut;
            }
        }
    };
    tokio::select! {
        cut = writes => cut,
        cut = reads => cut,
    }
}
