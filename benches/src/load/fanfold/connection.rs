//! Owns one connection of the load generator: its socket, its sessions, and the requests under way on it.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::SocketAddr;

use bytes::BytesMut;
use fanfold_protocol::frame::Frame;
use fanfold_protocol::handshake::{HandshakeReply, Hello};
use fanfold_protocol::message::{OpenSession, WriteTag};
use fanfold_protocol::{Call, PartitionId, Request, RequestId, Response, Sequence, SessionId};
use mio::net::TcpStream;

use super::answer::{self, Answer};
use super::error::FanfoldError;
use super::job::{Job, Sent};
use super::outbox::{DEADLINE_MS, Outbox, Route};

/// Bytes that one read takes at most, unless an answer is longer.
const READ_BYTES: usize = 256 << 10;
/// Bytes of an answer while the connection is made.
const FRAME_BYTES_MAX: u32 = 4 << 20;

/// A session with one partition, and which of its writes are not answered.
#[derive(Debug)]
struct Session {
    id: SessionId,
    /// Whether the writes from `lowest` on are answered.
    answered: VecDeque<bool>,
    lowest: u64,
}

/// A request under way: what it is, and how it is sent again should the node be busy.
#[derive(Debug)]
struct Slot {
    sent: Sent,
    partition: PartitionId,
    sequence: Option<Sequence>,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) outbox: Outbox,
    received: Vec<u8>,
    filled: usize,
    sessions: Vec<Session>,
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
}

impl Session {
    fn tag(&mut self) -> WriteTag {
        let sequence = self.lowest + self.answered.len() as u64;
        self.answered.push_back(false);
        self.again(Sequence(sequence))
    }

    /// The tag of a write that was sent before.
    fn again(&self, sequence: Sequence) -> WriteTag {
        WriteTag { session: self.id, sequence, lowest_unanswered: Sequence(self.lowest) }
    }

    fn answer(&mut self, sequence: Sequence) {
        self.answered[(sequence.0 - self.lowest) as usize] = true;
        while self.answered.front() == Some(&true) {
            self.answered.pop_front();
            self.lowest += 1;
        }
    }
}

impl Connection {
    /// Connects, shakes hands, and opens a session with each of `partitions` partitions.
    pub(super) fn open(address: SocketAddr, partitions: u16) -> Result<Self, FanfoldError> {
        let failed = |source| FanfoldError::Connection { source };
        let mut stream = std::net::TcpStream::connect(address).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let sessions = shake_hands(&mut stream, partitions)?;
        stream.set_nonblocking(true).map_err(failed)?;
        Ok(Self {
            stream: TcpStream::from_std(stream),
            outbox: Outbox::default(),
            received: vec![0; READ_BYTES],
            filled: 0,
            sessions,
            slots: Vec::new(),
            free: Vec::new(),
        })
    }

    /// Requests under way.
    pub(super) fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Puts a request into the outbox.
    pub(super) fn send(&mut self, sent: Sent, route: Route, payload: &[u8]) {
        let is_write = matches!(sent.job, Job::Append { .. } | Job::Follow { .. });
        let tag = is_write.then(|| self.sessions[route.partition.0 as usize].tag());
        let id = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.outbox.push(id as u64, &sent.job, Route { tag, ..route }, payload);
        let sequence = tag.map(|tag| tag.sequence);
        self.slots[id] = Some(Slot { sent, partition: route.partition, sequence });
    }

    /// Puts a request that the node was too busy for into the outbox again, under the same tag.
    pub(super) fn send_again(&mut self, id: u64, route: Route, payload: &[u8]) {
        let Some(slot) = self.slots.get(id as usize).and_then(Option::as_ref) else { return };
        let session = &self.sessions[slot.partition.0 as usize];
        let tag = slot.sequence.map(|sequence| session.again(sequence));
        self.outbox.push(id, &slot.sent.job, Route { tag, partition: slot.partition, ..route }, payload);
    }

    /// The request that an answer belongs to, which is done with that.
    pub(super) fn settle(&mut self, id: u64) -> Result<Sent, FanfoldError> {
        let slot = self.slots.get_mut(id as usize).and_then(Option::take);
        let slot = slot.ok_or(FanfoldError::Unexpected { request: id })?;
        self.free.push(id as usize);
        if let Some(sequence) = slot.sequence {
            self.sessions[slot.partition.0 as usize].answer(sequence);
        }
        Ok(slot.sent)
    }

    /// Writes what is in the outbox, as far as the socket takes it; whether it took all.
    pub(super) fn flush(&mut self) -> Result<bool, FanfoldError> {
        loop {
            let bytes = self.outbox.bytes();
            if bytes.is_empty() {
                return Ok(true);
            }
            match self.stream.write(bytes) {
                Ok(count) => self.outbox.advance(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(FanfoldError::Connection { source }),
            }
        }
    }

    /// Reads once; whether there may be more.
    pub(super) fn receive(&mut self) -> Result<bool, FanfoldError> {
        if self.filled == self.received.len() {
            self.received.resize(2 * self.filled, 0);
        }
        match self.stream.read(&mut self.received[self.filled..]) {
            Ok(0) => Err(FanfoldError::Closed),
            Ok(count) => {
                self.filled += count;
                Ok(self.filled == self.received.len())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(source) => Err(FanfoldError::Connection { source }),
        }
    }

    /// Hands out the received answers together with the connection, which may send meanwhile.
    pub(super) fn each_answer(
        &mut self,
        mut take: impl FnMut(&mut Self, Answer<'_>) -> Result<(), FanfoldError>,
    ) -> Result<(), FanfoldError> {
        let received = std::mem::take(&mut self.received);
        let taken = answer::each(&received[..self.filled], |answer| take(self, answer));
        self.received = received;
        let taken = taken?;
        self.received.copy_within(taken..self.filled, 0);
        self.filled -= taken;
        Ok(())
    }
}

/// Opens the sessions over a blocking socket.
fn shake_hands(stream: &mut std::net::TcpStream, partitions: u16) -> Result<Vec<Session>, FanfoldError> {
    let failed = |source| FanfoldError::Connection { source };
    let mut buffer = BytesMut::new();
    stream.write_all(&Hello::current().to_bytes()).map_err(failed)?;
    loop {
        match HandshakeReply::decode_from(&mut buffer)? {
            Some(HandshakeReply::Accepted(_)) => break,
            Some(HandshakeReply::Refused(status)) => return Err(FanfoldError::Refused(status)),
            None => read_more(stream, &mut buffer)?,
        }
    }
    let mut sessions = Vec::with_capacity(partitions as usize);
    for partition in (0..partitions).map(PartitionId) {
        let request = Request::OpenSession(OpenSession { partition });
        let call = Call { deadline_ms: Some(DEADLINE_MS as u32), request };
        let mut out = BytesMut::new();
        let frame = call.to_frame(RequestId(u64::from(partition.0)));
        frame.encode_into(&mut out, FRAME_BYTES_MAX).map_err(|_| FanfoldError::Unexpected { request: 0 })?;
        stream.write_all(&out).map_err(failed)?;
        let frame = loop {
            match Frame::decode_from(&mut buffer, FRAME_BYTES_MAX)? {
                Some(frame) => break frame,
                None => read_more(stream, &mut buffer)?,
            }
        };
        match frame.decode_reply()? {
            Ok(Response::SessionOpened(id)) => {
                sessions.push(Session { id, answered: VecDeque::new(), lowest: 1 });
            }
            Ok(_) => return Err(FanfoldError::Unexpected { request: frame.request_id.0 }),
            Err(status) => return Err(FanfoldError::Refused(status)),
        }
    }
    Ok(sessions)
}

fn read_more(stream: &mut std::net::TcpStream, buffer: &mut BytesMut) -> Result<(), FanfoldError> {
    let mut bytes = [0; 4_096];
    let count = stream.read(&mut bytes).map_err(|source| FanfoldError::Connection { source })?;
    buffer.extend_from_slice(&bytes[..count]);
    if count == 0 { Err(FanfoldError::Closed) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_unanswered_write_follows_the_answers() {
        let mut session = Session { id: SessionId(5), answered: VecDeque::new(), lowest: 1 };
        let tags: Vec<WriteTag> = (0..3).map(|_| session.tag()).collect();
        assert_eq!(tags.iter().map(|tag| tag.sequence.0).collect::<Vec<u64>>(), [1, 2, 3]);
        session.answer(Sequence(2));
        assert_eq!(session.again(Sequence(3)).lowest_unanswered, Sequence(1));
        session.answer(Sequence(1));
        let next = session.tag();
        assert_eq!((next.sequence, next.lowest_unanswered), (Sequence(4), Sequence(3)));
    }
}
