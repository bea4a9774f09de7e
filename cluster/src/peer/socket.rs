//! Owns the one place where sockets between nodes are made, so that a simulation can put its own there.

use std::cell::RefCell;
use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// The receiving half of a connection.
pub type Reading = Box<dyn AsyncRead + Send + Unpin>;

/// The sending half of a connection.
pub type Writing = Box<dyn AsyncWrite + Send + Unpin>;

/// A connection between nodes.
pub struct Socket {
    reading: Reading,
    writing: Writing,
}

/// What connections are accepted on.
pub trait Acceptor: Send + Sync {
    /// The next connection, and where it comes from.
    fn accept(&self) -> BoxFuture<'_, io::Result<(Socket, SocketAddr)>>;

    /// Where it listens.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// Makes the sockets between nodes.
pub trait Sockets: Send + Sync {
    /// Connects to a node, `host:port`.
    fn dial(&self, address: &str) -> BoxFuture<'static, io::Result<Socket>>;

    /// Listens for nodes.
    fn bind(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Acceptor>>>;
}

thread_local! {
    static SOCKETS: RefCell<Option<Arc<dyn Sockets>>> = const { RefCell::new(None) };
}

/// From now on this thread's nodes use these sockets instead of the operating system's. For simulations.
pub fn use_sockets_on_this_thread(sockets: Arc<dyn Sockets>) {
    SOCKETS.set(Some(sockets));
}

fn sockets() -> Option<Arc<dyn Sockets>> {
    SOCKETS.with_borrow(Clone::clone)
}

/// Connects to a node.
pub(super) async fn dial(address: &str) -> io::Result<Socket> {
    if let Some(sockets) = sockets() {
        return sockets.dial(address).await;
    }
    Socket::of(TcpStream::connect(address).await?)
}

/// Listens for nodes.
pub(super) async fn bind(address: SocketAddr) -> io::Result<Box<dyn Acceptor>> {
    if let Some(sockets) = sockets() {
        return sockets.bind(address).await;
    }
    Ok(Box::new(TcpListener::bind(address).await?))
}

impl Socket {
    /// A connection of two halves.
    pub fn new(reading: Reading, writing: Writing) -> Self {
        Self { reading, writing }
    }

    fn of(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let (reading, writing) = stream.into_split();
        Ok(Self::new(Box::new(reading), Box::new(writing)))
    }

    /// Its halves.
    pub fn into_split(self) -> (Reading, Writing) {
        (self.reading, self.writing)
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").finish_non_exhaustive()
    }
}

impl Acceptor for TcpListener {
    fn accept(&self) -> BoxFuture<'_, io::Result<(Socket, SocketAddr)>> {
        Box::pin(async move {
            let (stream, from) = self.accept().await?;
            Ok((Socket::of(stream)?, from))
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.local_addr()
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reading).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.writing).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.writing).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.writing.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writing).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writing).poll_shutdown(cx)
    }
}
