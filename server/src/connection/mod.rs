//! Owns one client connection: handshake, then frames in and answers out until one side ends it.
//!
//! - Requests run concurrently and are answered in the order in which they are done.
//! - Requests and bytes in flight are bounded; at the bound the socket is not read, which holds the client up.
//! - A frame that is not complete in time, and answers that are not taken in time, end the connection.

mod outgoing;
mod requests;
mod waiting;
mod writer;
mod writes;

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use fanfold_protocol::Status;
use fanfold_protocol::error::DecodeError;
use fanfold_protocol::frame::Frame;
use fanfold_protocol::handshake::Hello;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::time::{Instant, timeout};

use crate::config::ms;
use crate::listener::Shared;
use outgoing::Outgoing;
use requests::Requests;
use writer::Writer;

/// Bytes that one read takes from the socket.
const READ_BYTES: usize = 64 << 10;

/// How long the last words to a client may take that is being refused.
const FAREWELL: Duration = Duration::from_secs(1);

/// Why a connection ends.
enum End {
    /// The client closed it, or the network did, or the node stops.
    Closed,
    /// The client did something that cannot go on.
    Refused(Status),
}

impl From<std::io::Error> for End {
    fn from(_: std::io::Error) -> Self {
        Self::Closed
    }
}

impl From<DecodeError> for End {
    fn from(error: DecodeError) -> Self {
        Self::Refused(error.to_status())
    }
}

/// Tells a client why it is not served, and closes.
pub(crate) async fn refuse(mut stream: TcpStream, shared: &Shared, status: &Status) {
    shared.metrics.closed(status);
    tracing::info!(%status, "connection refused");
    let mut out = BytesMut::new();
    if Frame::connection_refusal(status).encode_into(&mut out, shared.limits.frame_bytes_max).is_ok() {
        // The client may be gone already, which is as good. What it sent is read, so that the refusal is not lost
        // in a reset.
        let farewell = async {
            stream.write_all(&out).await?;
            stream.shutdown().await?;
            let mut rest = [0; 4_096];
            while stream.read(&mut rest).await? > 0 {}
            Ok::<(), std::io::Error>(())
        };
        let _ = timeout(FAREWELL, farewell).await;
    }
}

/// Serves a connection to its end.
pub(crate) async fn serve(mut stream: TcpStream, shared: &Arc<Shared>) {
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "the socket keeps its delay");
    }
    let hello = handshake(&mut stream, &mut buffer, shared);
    let end = match timeout(ms(shared.config.handshake_timeout_ms), hello).await {
        Ok(Ok(())) => None,
        Ok(Err(end)) => Some(end),
        Err(_) => Some(End::Refused(Status::TooSlow)),
    };
    match end {
        None => exchange(stream, buffer, shared).await,
        Some(End::Refused(status)) => refuse(stream, shared, &status).await,
        Some(End::Closed) => {}
    }
}

async fn handshake(stream: &mut TcpStream, buffer: &mut BytesMut, shared: &Shared) -> Result<(), End> {
    let hello = loop {
        if let Some(hello) = Hello::decode_from(buffer)? {
            break hello;
        }
        if stream.read_buf(buffer).await? == 0 {
            return Err(End::Closed);
        }
    };
    let answer = hello.negotiate(shared.limits).map_err(End::Refused)?;
    stream.write_all(&answer.to_bytes()).await?;
    Ok(())
}

async fn exchange(stream: TcpStream, mut buffer: BytesMut, shared: &Arc<Shared>) {
    let (mut incoming, outgoing) = stream.into_split();
    let answers = Arc::new(Outgoing::new(shared.clone()));
    let writer = Writer::spawn(outgoing, answers.clone());
    let mut requests = Requests::new(answers.clone());
    let end = tokio::select! {
        end = read(&mut incoming, &mut buffer, &mut requests, shared) => end,
        () = writer.broken() => End::Closed,
        () = shared.stopping.cancelled() => End::Closed,
    };
    requests.submit();
    if let End::Refused(status) = &end {
        shared.metrics.closed(status);
        tracing::info!(%status, "connection closed");
        answers.refuse_connection(status);
    }
    // What is in flight is still answered, writes at the latest at their deadline.
    finish(writer, &requests).await;
    if matches!(end, End::Refused(_)) {
        // What the client still sends is read, so that the refusal is not lost in a reset.
        let mut rest = [0; 4_096];
        let drained = async { while matches!(incoming.read(&mut rest).await, Ok(n) if n > 0) {} };
        let _ = timeout(FAREWELL, drained).await;
    }
}

/// Lets the writer end once everything in flight is answered.
async fn finish(writer: Writer, requests: &Requests) {
    let finished = writer.finish();
    tokio::pin!(finished);
    loop {
        tokio::select! {
            () = &mut finished => return,
            () = until(requests.first_deadline()) => requests.expire(),
        }
    }
}

/// Waits until a moment; for ever, if there is none.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Reads frames and starts their requests until the connection ends.
async fn read(
    incoming: &mut OwnedReadHalf,
    buffer: &mut BytesMut,
    requests: &mut Requests,
    shared: &Shared,
) -> End {
    let frame_timeout = ms(shared.config.frame_timeout_ms);
    let mut complete_by: Option<Instant> = None;
    loop {
        match Frame::decode_from(buffer, shared.limits.frame_bytes_max) {
            Ok(Some(frame)) => {
                complete_by = None;
                if let Err(end) = requests.take(frame).await {
                    return end;
                }
                continue;
            }
            Ok(None) => {}
            Err(error) => return error.into(),
        }
        requests.submit();
        let first_deadline = requests.first_deadline();
        if first_deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            // A client that always has something to send must not keep them from being told.
            requests.expire();
            continue;
        }
        let is_idle = buffer.is_empty();
        buffer.reserve(READ_BYTES);
        if is_idle {
            complete_by = None;
        } else {
            complete_by.get_or_insert_with(|| Instant::now() + frame_timeout);
        }
        let read = tokio::select! {
            biased;
            read = incoming.read_buf(buffer) => read,
            () = until(complete_by) => return End::Refused(Status::TooSlow),
            () = until(first_deadline) => {
                requests.expire();
                continue;
            }
        };
        match read {
            Ok(0) | Err(_) => return End::Closed,
            Ok(n) => shared.metrics.received_bytes.inc_by(n as u64),
        };
    }
}
