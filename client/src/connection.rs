//! Owns one connection: the handshake, and the task that reads its answers.
//!
//! Invariants:
//! - Answers may come in any order, alone or in batches; the request id alone says whose they are.
//! - A connection that is out of step is given up, and never used for another answer.
//! - A server that stays silent for `KEEPALIVE_MAX` while answers are outstanding is taken for dead, unless it answers
//!   the ping that is sent at half that time.

use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use fanfold_protocol::{Frame, FrameCodec, FrameError, HandshakeReply, Hello, Limits};
use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::codec::FramedRead;

use crate::defaults;
use crate::error::Loss;
use crate::pending::Pending;

/// A connection on which both sides have said hello.
#[derive(Debug)]
pub(crate) struct Connection {
    pub stream: TcpStream,
    pub limits: Limits,
    /// What the server sent behind its hello already.
    pub received: BytesMut,
}

impl Connection {
    /// Connects to `host:port` and shakes hands, within `CONNECT_TIMEOUT`.
    pub async fn open(address: &str) -> io::Result<Self> {
        let opened = timeout(defaults::CONNECT_TIMEOUT, async {
            let stream = TcpStream::connect(address).await?;
            // Answers are small and waited for; the writer gathers what can be gathered itself.
            stream.set_nodelay(true)?;
            shake_hands(stream).await
        });
        opened.await.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut)))
    }
}

async fn shake_hands(mut stream: TcpStream) -> io::Result<Connection> {
    stream.write_all(&Hello::current().to_bytes()).await?;
    let mut received = BytesMut::with_capacity(4 * 1024);
    loop {
        match HandshakeReply::decode_from(&mut received) {
            Ok(Some(HandshakeReply::Accepted(hello))) => {
                return Ok(Connection { stream, limits: hello.limits, received });
            }
            Ok(Some(HandshakeReply::Refused(status))) => {
                return Err(io::Error::new(io::ErrorKind::ConnectionRefused, status));
            }
            Ok(None) => {}
            Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error.to_status())),
        }
        if stream.read_buf(&mut received).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
    }
}

/// Hands each answer to its caller until the connection is lost; answers how.
pub(crate) async fn read_answers(
    read: OwnedReadHalf,
    received: BytesMut,
    limits: Limits,
    pending: Arc<Pending>,
    ping: Arc<Notify>,
) -> Loss {
    let mut frames = FramedRead::new(read, FrameCodec::new(limits.frame_bytes_max));
    frames.read_buffer_mut().extend_from_slice(&received);
    let mut pinged = false;
    loop {
        let next = match timeout(defaults::KEEPALIVE_MAX / 2, frames.next()).await {
            Ok(next) => next,
            Err(_) if pending.is_empty() => {
                pinged = false;
                continue;
            }
            Err(_) if pinged => return Loss::Io(Arc::new(io::Error::from(io::ErrorKind::TimedOut))),
            Err(_) => {
                pinged = true;
                ping.notify_one();
                continue;
            }
        };
        pinged = false;
        let frame = match next {
            Some(Ok(frame)) => frame,
            Some(Err(FrameError::Decode(error))) => return Loss::BadFrame(error.to_status()),
            Some(Err(FrameError::Io(error))) => return Loss::Io(Arc::new(error)),
            Some(Err(_)) | None => return Loss::ClosedByServer,
        };
        if let Err(loss) = deliver(frame, &pending) {
            return loss;
        }
    }
}

/// Hands out the answers in one frame.
fn deliver(frame: Frame, pending: &Pending) -> Result<(), Loss> {
    if frame.is_connection_refusal() {
        return Err(match frame.decode_status() {
            Ok(status) => Loss::Refused(status),
            Err(error) => Loss::BadFrame(error.to_status()),
        });
    }
    let items = frame.into_items(u32::MAX).map_err(|error| Loss::BadFrame(error.to_status()))?;
    for answer in items {
        let id = answer.request_id;
        if !pending.answer(answer) {
            tracing::debug!(request_id = %id, "an answer to no request of this connection was ignored");
        }
    }
    Ok(())
}
