//! Owns the accepting of client connections, and what all of them share.
//!
//! - At most `connections_max` are open; one more is told so and closed. The HTTP port has its own limit.
//! - The bytes of requests in flight on all connections are bounded; beyond, the answer is `Busy`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fanfold_cluster::Node;
use fanfold_protocol::Status;
use fanfold_protocol::handshake::Limits;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::config::Config;
use crate::connection;
use crate::hot::HotCounts;
use crate::metrics::Metrics;

/// How long the listener rests after the operating system refused to accept, for instance for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Connections that are told at the same time that there are too many; more are closed without a word.
const FAREWELLS_MAX: usize = 64;

/// The largest payload that any space may allow, in bytes.
const PAYLOAD_BYTES_MAX: u32 = 1 << 20;

/// This part of a memory budget is for requests and answers under way.
const REQUESTS_PART: u64 = 8;

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) node: Arc<Node>,
    pub(crate) config: Config,
    pub(crate) limits: Limits,
    pub(crate) metrics: Arc<Metrics>,
    /// What its clients ask for most.
    pub(crate) hot: HotCounts,
    /// Bytes that requests in flight may still take, on all connections.
    pub(crate) bytes: Bytes,
    connections: Arc<Semaphore>,
    farewells: Semaphore,
    pub(crate) stopping: CancellationToken,
    /// The same, for those who look often: a look at the token takes a lock that all share.
    pub(crate) is_stopping: AtomicBool,
}

impl Shared {
    pub(crate) fn new(node: Arc<Node>, config: Config, metrics: Arc<Metrics>) -> Self {
        let config = Config { node_bytes_max: node_bytes_max(&config), ..config };
        let hot = HotCounts::new(node.partitions());
        node.phases().call_slow(Duration::from_millis(config.slow_request_ms));
        Self {
            node,
            limits: limits(&config),
            hot,
            metrics,
            bytes: Bytes { left: AtomicU64::new(u64::from(config.node_bytes_max)) },
            connections: Arc::new(Semaphore::new(config.connections_max as usize)),
            farewells: Semaphore::new(FAREWELLS_MAX),
            config,
            stopping: CancellationToken::new(),
            is_stopping: AtomicBool::new(false),
        }
    }
}

/// Bytes of requests and answers under way, of all connections: with a memory budget at most a part of that.
fn node_bytes_max(config: &Config) -> u32 {
    let Config { node_bytes_max, memory_bytes, frame_bytes_max, .. } = *config;
    let part = u32::try_from(memory_bytes / REQUESTS_PART).unwrap_or(u32::MAX).max(frame_bytes_max);
    if memory_bytes == 0 { node_bytes_max } else { node_bytes_max.min(part) }
}

/// The limits that clients are told.
pub(crate) fn limits(config: &Config) -> Limits {
    Limits {
        frame_bytes_max: config.frame_bytes_max,
        pipelined_max: config.connection_requests_max,
        payload_bytes_max: PAYLOAD_BYTES_MAX.min(config.frame_bytes_max / 2),
        ..Limits::default()
    }
}

/// Bytes that can be had.
pub(crate) struct Bytes {
    left: AtomicU64,
}

impl Bytes {
    /// Takes bytes, all or none.
    pub(crate) fn try_take(&self, bytes: u64) -> bool {
        let take = |left: u64| left.checked_sub(bytes);
        self.left.fetch_update(Ordering::AcqRel, Ordering::Relaxed, take).is_ok()
    }

    /// Gives bytes back that were taken.
    pub(crate) fn give_back(&self, bytes: u64) {
        self.left.fetch_add(bytes, Ordering::AcqRel);
    }
}

/// The task that accepts.
pub(crate) struct Listener {
    shared: Arc<Shared>,
    /// Ends what is still open after the stop's timeout.
    ending: CancellationToken,
    task: JoinHandle<()>,
}

impl Listener {
    pub(crate) fn spawn(socket: TcpListener, shared: Arc<Shared>) -> Self {
        let ending = CancellationToken::new();
        let task = tokio::spawn(accept(socket, shared.clone(), ending.clone()));
        Self { shared, ending, task }
    }

    /// Accepts no more, lets requests in flight be answered for `timeout`, then closes what is left.
    pub(crate) async fn stop(mut self, timeout: Duration) {
        self.shared.is_stopping.store(true, Ordering::Relaxed);
        self.shared.stopping.cancel();
        if tokio::time::timeout(timeout, &mut self.task).await.is_err() {
            self.ending.cancel();
            if let Err(error) = self.task.await {
                tracing::error!(%error, "the listener ended badly");
            }
        }
    }
}

async fn accept(socket: TcpListener, shared: Arc<Shared>, ending: CancellationToken) {
    let mut open = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            Some(_) = open.join_next() => continue,
            () = shared.stopping.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let shared = shared.clone();
                let span = tracing::info_span!("connection", %peer);
                open.spawn(serve(stream, shared).instrument(span));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(socket);
    tokio::select! {
        () = async { while open.join_next().await.is_some() {} } => {}
        () = ending.cancelled() => open.shutdown().await,
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let permit: Result<OwnedSemaphorePermit, _> = shared.connections.clone().try_acquire_owned();
    let Ok(_permit) = permit else {
        let Ok(_farewell) = shared.farewells.try_acquire() else { return };
        connection::refuse(stream, &shared, &Status::TooManyConnections).await;
        return;
    };
    shared.metrics.connections.inc();
    connection::serve(stream, &shared).await;
    shared.metrics.connections.dec();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_under_way_have_a_part_of_the_budget() {
        let most = |memory_bytes| node_bytes_max(&Config { memory_bytes, ..Config::default() });
        assert_eq!([0, 64 << 30, 1 << 30, 1 << 20].map(most), [256 << 20, 256 << 20, 128 << 20, 4 << 20]);
    }
}
