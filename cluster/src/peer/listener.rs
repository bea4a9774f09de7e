//! Owns the connections that other nodes dial: whether they are served, and the requests that come in on them.
//!
//! - Only nodes of the same cluster that the handler admits are served; a stranger can only ask to join. Strangers together
//!   take a small part of the connections, and one that asks nothing is cut: the nodes always find room.
//! - The requests of a connection that are not answered are bounded by what its hello announced. A peer that passes that,
//!   sends what is no frame, is too slow or falls silent is cut, with a reason that the handler hears.
//! - A connection's requests are numbered without a gap; one that repeats or skips a number ends it.
//! - A node has one connection for each purpose; a newer one takes the place of the older.
//! - The first process that is connected as a node is that node; another one is refused until its connections are gone.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::error::Cut;
use super::handler::PeerHandler;
use super::hello::{Hello, HelloAnswer, HelloRefusal, Purpose, VERSION};
use super::network::PeerNetwork;
use super::serve::Connection;
use super::socket::{Acceptor, Socket, bind};

/// The largest frame of a node that has not joined.
const STRANGER_FRAME_BYTES_MAX: usize = 64 << 10;

/// Unanswered requests of a node that has not joined.
const STRANGER_REQUESTS_MAX: usize = 4;

/// The part of the connections that those of nodes that have not joined may be.
const STRANGERS_PART: usize = 8;

/// How long accepting pauses when the operating system has no room for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Listens for other nodes.
pub struct PeerListener {
    acceptor: Box<dyn Acceptor>,
    network: PeerNetwork,
    address: SocketAddr,
}

/// The connection of one node and purpose that is served.
struct Current {
    serial: u64,
    process: u32,
    replaced: CancellationToken,
}

type Served = Mutex<HashMap<(u64, Purpose), Current>>;

/// What the accept loop's tasks share.
struct Listening {
    network: PeerNetwork,
    handler: Arc<dyn PeerHandler>,
    served: Served,
    strangers: Arc<Semaphore>,
}

impl PeerListener {
    /// Listens at an address for the node whose network this is.
    pub async fn bind(address: SocketAddr, network: &PeerNetwork) -> std::io::Result<Self> {
        let acceptor = bind(address).await?;
        let address = acceptor.local_addr()?;
        Ok(Self { acceptor, network: network.clone(), address })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves other nodes until it is stopped. When this returns, the handler is asked nothing more, and nothing of it runs.
    pub async fn run(self, handler: Arc<dyn PeerHandler>, stop: CancellationToken) {
        let Self { acceptor, network, .. } = self;
        let options = network.shared.options.clone();
        let permits = Arc::new(Semaphore::new(options.connections_max));
        let strangers = Arc::new(Semaphore::new((options.connections_max / STRANGERS_PART).max(1)));
        let listening = Arc::new(Listening { network, handler, served: Mutex::default(), strangers });
        let (tasks, ending) = (TaskTracker::new(), stop.child_token());
        let mut serial = 0u64;
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = acceptor.accept() => accepted,
            };
            let (socket, from) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection of a node was not accepted");
                    tokio::select! {
                        () = stop.cancelled() => break,
                        () = sleep(ACCEPT_PAUSE) => continue,
                    }
                }
            };
            serial += 1;
            let (listening, ending, number) = (listening.clone(), ending.child_token(), serial);
            // A connection above the limit is told so, unless there are too many of those too.
            let permit = permits.clone().try_acquire_owned();
            let is_full = permit.is_err();
            if is_full && tasks.len() >= 2 * options.connections_max {
                continue;
            }
            tasks.spawn(async move {
                let _permit = permit;
                let (node, cut) = listening.serve(socket, number, is_full, ending).await;
                tracing::debug!(%from, node, %cut, "a connection of a node is no longer served");
                listening.handler.ended(node, cut);
            });
        }
        ending.cancel();
        tasks.close();
        tasks.wait().await;
    }
}

impl Listening {
    /// Serves one connection until it ends; which node it was of, and why it ended.
    async fn serve(
        &self,
        mut socket: Socket,
        serial: u64,
        is_full: bool,
        ending: CancellationToken,
    ) -> (u64, Cut) {
        let options = &self.network.shared.options;
        let replaced = CancellationToken::new();
        let greeted = tokio::select! {
            greeted = timeout(options.dial(), self.greet(&mut socket, is_full, serial, &replaced)) => greeted,
            () = ending.cancelled() => Ok(Err(Cut::Ended)),
        };
        let (hello, _stranger) = match greeted.unwrap_or(Err(Cut::Slow)) {
            Ok(greeted) => greeted,
            Err(cut) => {
                self.release(serial);
                return (0, cut);
            }
        };
        let mut options = options.clone();
        if hello.from == 0 {
            options.frame_bytes_max = options.frame_bytes_max.min(STRANGER_FRAME_BYTES_MAX);
            options.connection_requests_max = STRANGER_REQUESTS_MAX;
        }
        if hello.purpose == Purpose::Once {
            // There are no pings on it; once it has come, its call takes as long as it takes.
            options.silent_ms = options.silent_ms.max(options.frame_ms.saturating_mul(4));
        }
        let _open = (hello.from != 0).then(|| self.network.shared.gone.opened(hello.from));
        if hello.purpose == Purpose::Data {
            self.network.shared.redial(hello.from);
        }
        let first_within = options.dial();
        let mut connection = Connection::new(hello.from, self.network.clone(), self.handler.clone(), options);
        if hello.purpose == Purpose::Once {
            connection = connection.asked_within(first_within);
        }
        let ended = async {
            tokio::select! {
                () = replaced.cancelled() => Cut::Replaced,
                () = ending.cancelled() => Cut::Ended,
            }
        };
        let cut = connection.run(socket, ended).await;
        self.release(serial);
        (hello.from, cut)
    }

    /// Answers a hello; what it said, and the place of a stranger.
    async fn greet(
        &self,
        socket: &mut Socket,
        is_full: bool,
        serial: u64,
        replaced: &CancellationToken,
    ) -> Result<(Hello, Option<OwnedSemaphorePermit>), Cut> {
        let mut bytes = [0; Hello::BYTES];
        socket.read_exact(&mut bytes).await?;
        let hello = Hello::from_bytes(&bytes).map_err(Cut::Hello)?;
        let stranger = (hello.from == 0).then(|| self.strangers.clone().try_acquire_owned()).transpose();
        let is_full = is_full || stranger.is_err();
        let refused = if is_full { Some(HelloRefusal::Full) } else { self.refuses(&hello) };
        let refused = refused.or_else(|| self.claim(&hello, serial, replaced));
        let (identity, options) = (self.network.shared.identity(), &self.network.shared.options);
        let answer = HelloAnswer {
            version: VERSION,
            refused,
            cluster: identity.map_or(0, |identity| identity.cluster),
            node: identity.map_or(0, |identity| identity.node),
            frame_bytes_max: options.frame_bytes_max as u32,
            requests_max: options.connection_requests_max as u32,
            bytes_max: options.connection_bytes_max as u32,
        };
        socket.write_all(&answer.to_bytes()).await?;
        match refused {
            None => Ok((hello, stranger.unwrap_or_default())),
            Some(refusal) => {
                tracing::warn!(from = hello.from, cluster = %format_args!("{:032x}", hello.cluster), %refusal,
                    "a node's connection was refused");
                let _ = socket.shutdown().await;
                Err(Cut::Refused(refusal))
            }
        }
    }

    /// Makes a connection the one of its node and purpose, unless another process is connected as the node: the one that was
    /// there first has the newer data.
    fn claim(&self, hello: &Hello, serial: u64, replaced: &CancellationToken) -> Option<HelloRefusal> {
        if hello.from == 0 {
            return None;
        }
        let is_other = |current: &Current| {
            current.process != hello.process && current.process != 0 && hello.process != 0
        };
        let mut served = self.served.lock();
        let purposes = [Purpose::Data, Purpose::Snapshot];
        if purposes.iter().any(|purpose| served.get(&(hello.from, *purpose)).is_some_and(is_other)) {
            return Some(HelloRefusal::Twice);
        }
        if hello.purpose != Purpose::Once {
            let current = Current { serial, process: hello.process, replaced: replaced.clone() };
            if let Some(older) = served.insert((hello.from, hello.purpose), current) {
                older.replaced.cancel();
            }
        }
        None
    }

    /// Forgets a connection that is served no more.
    fn release(&self, serial: u64) {
        self.served.lock().retain(|_, current| current.serial != serial);
    }

    /// Why a connection that begins so is not served.
    fn refuses(&self, hello: &Hello) -> Option<HelloRefusal> {
        let Some(identity) = self.network.shared.identity() else { return Some(HelloRefusal::NotReady) };
        let is_stranger = hello.from == 0;
        if !(hello.version_min..=hello.version_max).contains(&VERSION) {
            Some(HelloRefusal::Version)
        } else if hello.cluster != identity.cluster && !(is_stranger && hello.cluster == 0) {
            Some(HelloRefusal::WrongCluster)
        } else if hello.to != 0 && hello.to != identity.node {
            Some(HelloRefusal::WrongNode)
        } else if is_stranger && hello.purpose != Purpose::Once {
            Some(HelloRefusal::UnknownNode)
        } else if is_stranger {
            None
        } else {
            self.handler.admit(hello.from).err()
        }
    }
}
