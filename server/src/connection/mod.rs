//! Owns one client connection: handshake, then frames in and answers out until one side ends it.
//!
//! - One task reads and writes: what one read of the socket asks is answered by one write, if nothing has to be waited for.
//! - Requests run concurrently and are answered in the order in which they are done.
//! - Requests and bytes in flight are bounded; at the bound the socket is not read, which holds the client up.
//! - A frame that is not complete in time, and answers that are not taken in time, end the connection.

mod alarm;
mod changed;
mod incoming;
mod outgoing;
mod reads;
mod requests;
mod spare;
mod stop;
mod waiting;
mod writer;
mod writes;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use fanfold_protocol::Status;
use fanfold_protocol::error::DecodeError;
use fanfold_protocol::frame::Frame;
use fanfold_protocol::handshake::Hello;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::config::ms;
use crate::listener::Shared;
use alarm::Alarm;
use incoming::Incoming;
use outgoing::Outgoing;
use requests::Requests;
use stop::Stop;
use writer::Writer;

/// Room for the handshake: more than one has.
const HANDSHAKE_BYTES: usize = 256;

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
    let mut buffer = BytesMut::with_capacity(HANDSHAKE_BYTES);
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

async fn exchange(mut stream: TcpStream, buffer: BytesMut, shared: &Arc<Shared>) {
    let end = talk(&mut stream, buffer, shared).await;
    if let Some(End::Refused(_)) = end {
        // What the client still sends is read, so that the refusal is not lost in a reset.
        let mut rest = [0; 4_096];
        let drained = async { while matches!(stream.read(&mut rest).await, Ok(n) if n > 0) {} };
        let _ = timeout(FAREWELL, drained).await;
    }
}

/// Reads requests and writes answers until the connection ends and everything in flight is answered; none if nothing can
/// be written any more.
async fn talk(stream: &mut TcpStream, buffer: BytesMut, shared: &Arc<Shared>) -> Option<End> {
    let (incoming, outgoing) = stream.split();
    let mut incoming = Incoming::new(incoming, buffer);
    let answers = Arc::new(Outgoing::new(shared.clone()));
    let mut requests = Requests::new(answers.clone());
    let mut writer = Writer::new(outgoing, answers.clone());
    let mut alarm = Alarm::default();
    let mut stop = Stop::new(shared);
    let frame_timeout = ms(shared.config.frame_timeout_ms);
    let mut complete_by: Option<Instant> = None;
    let mut end: Option<End> = None;
    loop {
        let mut reads = end.is_none();
        if reads {
            match requests.take(&mut incoming.buffer) {
                Ok(taken) => {
                    let is_empty = incoming.buffer.is_empty();
                    if taken.any || taken.is_full || is_empty {
                        complete_by = None;
                    }
                    if !taken.is_full && !is_empty {
                        complete_by.get_or_insert_with(|| Instant::now() + frame_timeout);
                    }
                    reads = !taken.is_full;
                }
                Err(refused) => {
                    requests.submit();
                    end = Some(refuse_all(refused, &answers, shared));
                    continue;
                }
            }
        }
        requests.submit();
        incoming.rest();
        if writer.write().ok()? && end.is_none() && !reads {
            // What was not taken for want of room may have some now. Nothing else waits for that.
            answers.changed.notify();
        }
        if end.is_some() && answers.is_done() && !writer.is_held_up() {
            writer.shut_down().await;
            return end;
        }
        let read_by = complete_by.filter(|_| reads);
        let deadlines = [read_by, requests.first_deadline(), writer.deadline()];
        let first_deadline = deadlines.into_iter().flatten().min();
        alarm.set(first_deadline);
        let mut has_read = false;
        tokio::select! {
            biased;
            read = incoming.read(), if reads => match read {
                Ok(0) | Err(_) => end = Some(End::Closed),
                Ok(bytes) => {
                    has_read = true;
                    shared.metrics.received_bytes.inc_by(bytes as u64);
                }
            },
            () = answers.changed.heard() => {}
            () = writer.writable(), if writer.is_held_up() => {}
            () = alarm.ring() => {}
            () = stop.called(), if end.is_none() => end = Some(End::Closed),
        }
        let now = Instant::now();
        if has_read {
            requests.note_received(now);
        }
        // Looked at every time: a client that always has something to send must not keep stop and alarm from being heard.
        if end.is_none() && shared.is_stopping.load(Ordering::Relaxed) {
            end = Some(End::Closed);
        }
        if first_deadline.is_some_and(|deadline| deadline <= now) {
            requests.expire(now);
            if writer.deadline().is_some_and(|deadline| deadline <= now) {
                tracing::info!("connection closed: the client does not take its answers");
                shared.metrics.closed(&Status::TooSlow);
                return None;
            }
            if !has_read && read_by.is_some_and(|deadline| deadline <= now) {
                end = Some(refuse_all(End::Refused(Status::TooSlow), &answers, shared));
            }
        }
    }
}

/// Tells the client why nothing more is read.
fn refuse_all(end: End, answers: &Outgoing, shared: &Shared) -> End {
    if let End::Refused(status) = &end {
        shared.metrics.closed(status);
        tracing::info!(%status, "connection closed");
        answers.refuse_connection(status);
    }
    end
}
