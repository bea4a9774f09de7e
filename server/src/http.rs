//! Owns the HTTP port: `/metrics` for Prometheus, `/livez` and `/readyz` for whoever watches the process.
//!
//! - It listens before the node is open, so that a long recovery is seen as alive and not ready.
//! - It has connections of its own, so that clients cannot crowd it out.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::serve::Listener;
use fanfold_cluster::Node;
use fanfold_cluster::status::MemoryStatus;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::translate;

/// The type of the answer to `/metrics`: OpenMetrics, as Prometheus asks for it.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What `/readyz` says before the node is open.
const STARTING: &str = "starting: the log is being read back, or the node waits for its cluster\n";

#[derive(Clone)]
struct Site {
    metrics: Arc<Metrics>,
    node: Arc<OnceLock<Arc<Node>>>,
}

/// A bound HTTP port.
pub(crate) struct Http {
    socket: TcpListener,
    address: SocketAddr,
    connections_max: u32,
}

/// Where the node is put once it is open.
pub(crate) struct HttpNode(Arc<OnceLock<Arc<Node>>>);

impl HttpNode {
    pub(crate) fn set(&self, node: Arc<Node>) {
        assert!(self.0.set(node).is_ok(), "a server opens one node");
    }
}

impl Http {
    pub(crate) async fn bind(address: SocketAddr, connections_max: u32) -> std::io::Result<Self> {
        let socket = TcpListener::bind(address).await?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address, connections_max })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`; not ready until a node is set.
    pub(crate) fn serve(self, metrics: Arc<Metrics>, stop: CancellationToken) -> HttpNode {
        let node = Arc::new(OnceLock::new());
        let site = Site { metrics, node: node.clone() };
        let router = Router::new()
            .route("/livez", get(async || "alive\n"))
            .route("/readyz", get(ready))
            .route("/metrics", get(figures))
            .with_state(site);
        let permits = Arc::new(Semaphore::new(self.connections_max as usize));
        let limited = Limited { socket: self.socket, permits };
        tokio::spawn(async move {
            let serving = axum::serve(limited, router).with_graceful_shutdown(stop.cancelled_owned());
            if let Err(error) = serving.await {
                tracing::error!(%error, "the HTTP port is served no more");
            }
        });
        HttpNode(node)
    }
}

async fn ready(State(site): State<Site>) -> impl IntoResponse {
    let Some(node) = site.node.get() else {
        return (StatusCode::SERVICE_UNAVAILABLE, STARTING.to_owned());
    };
    let status = node.status();
    let broken = status.partitions.iter().filter(|partition| partition.is_damaged);
    let damaged = status.damaged.iter().copied().chain(broken.map(|partition| partition.partition));
    let mut damaged: Vec<String> = damaged.map(|id| format!("{}\n", node.damaged(id))).collect();
    // It serves what it has: to take it out of service would help nobody.
    let memory = status.memory.and_then(warning).unwrap_or_default();
    let figures = node.figures();
    let warning = disk_warning(figures.log.full, figures.is_disk_stalled).to_owned() + memory;
    if damaged.is_empty() {
        return (StatusCode::OK, format!("ready\n{warning}"));
    }
    for (id, bytes) in &status.kept_by_damaged {
        damaged.push(format!("partition {id} keeps {bytes} bytes of the log until it is whole again\n"));
    }
    (StatusCode::SERVICE_UNAVAILABLE, damaged.concat() + &warning)
}

/// What is said of memory that is short.
fn warning(memory: MemoryStatus) -> Option<&'static str> {
    match memory {
        MemoryStatus { refuses_writes: true, .. } => Some(
            "warning: over the memory budget, and writes that need more memory are refused; see MemoryFull in RUNBOOK.md\n",
        ),
        MemoryStatus { is_over: true, .. } => Some(
            "warning: over the memory budget, and nothing is left that can give way; see MemoryOverBudget in RUNBOOK.md\n",
        ),
        _ => None,
    }
}

/// What is said of a disk that is full or does not get on.
fn disk_warning(is_full: bool, is_stalled: bool) -> &'static str {
    match (is_full, is_stalled) {
        (true, _) => {
            "warning: the disk has no room for the log, and writes are refused; see DiskFull in RUNBOOK.md\n"
        }
        (false, true) => {
            "warning: the disk does not get on, and writes wait for it; see DiskStalled in RUNBOOK.md\n"
        }
        (false, false) => "",
    }
}

async fn figures(State(site): State<Site>) -> impl IntoResponse {
    let node = site.node.get();
    let status = node.map(|node| translate::node_status(&node.status()));
    let view = node.map(|node| translate::cluster_view(node.view()));
    let figures = node.map(|node| node.figures());
    let times = node.map(|node| node.apply_times()).unwrap_or_default();
    let text = site.metrics.text(status.as_ref(), view.as_ref(), figures.as_ref(), times);
    ([(header::CONTENT_TYPE, METRICS_TYPE)], text)
}

/// A listener that accepts only while fewer connections than its limit are open.
struct Limited {
    socket: TcpListener,
    permits: Arc<Semaphore>,
}

impl Listener for Limited {
    type Io = Counted;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Counted, SocketAddr) {
        // The semaphore is never closed; without a permit the connection would only not be counted.
        let permit = self.permits.clone().acquire_owned().await.ok();
        let (stream, peer) = Listener::accept(&mut self.socket).await;
        (Counted { stream, _permit: permit }, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

/// A connection that counts while it is open.
struct Counted {
    stream: TcpStream,
    _permit: Option<OwnedSemaphorePermit>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_is_full_or_slow_is_told_of_with_its_page() {
        let runbook = include_str!("../RUNBOOK.md");
        for (is_full, is_stalled, page) in
            [(true, false, "DiskFull"), (true, true, "DiskFull"), (false, true, "DiskStalled")]
        {
            let said = disk_warning(is_full, is_stalled);
            assert!(said.contains(&format!("see {page} in RUNBOOK.md\n")), "{said}");
            assert!(runbook.contains(&format!("\n## {page}\n")), "{page}");
        }
        assert_eq!(disk_warning(false, false), "");
    }
}
