//! Owns one connection of the load generator: a socket to each node, its sessions, and the requests under way on it.
//!
//! - As in the client crate, a connection has one session with each partition, whichever node leads it.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use fanfold_protocol::frame::Frame;
use fanfold_protocol::handshake::{HandshakeReply, Hello};
use fanfold_protocol::message::{OpenSession, WriteTag};
use fanfold_protocol::{Call, PartitionId, Request, RequestId, Response, Sequence, SessionId, Status};

use super::error::FanfoldError;
use super::job::{Job, Sent};
use super::line::Line;
use super::outbox::{DEADLINE_MS, Route};

/// Bytes of an answer while the connection is made.
const FRAME_BYTES_MAX: u32 = 4 << 20;
/// How long a leader that opens a session is looked for, and the pause before the next node is asked.
const SESSION_PATIENCE: Duration = Duration::from_secs(10);
const SESSION_PAUSE: Duration = Duration::from_millis(20);

/// A session with one partition, and which of its writes are not answered.
#[derive(Debug)]
struct Session {
    id: SessionId,
    /// Whether the writes from `lowest` on are answered.
    answered: VecDeque<bool>,
    lowest: u64,
}

/// A request under way: what it is, and how it is sent again should the node be busy, or lead no longer.
#[derive(Debug)]
struct Slot {
    sent: Sent,
    partition: PartitionId,
    sequence: Option<Sequence>,
    /// Whether a node has sent it to another one.
    turned_away: bool,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    /// By node.
    pub(super) lines: Vec<Line>,
    pub(super) pending: Pending,
}

/// The requests under way on a connection, and its sessions.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// By partition.
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
    /// Connects to each node, shakes hands, and opens a session with each partition at the node that leads it.
    pub(super) fn open(addresses: &[SocketAddr], leaders: &[usize]) -> Result<Self, FanfoldError> {
        let mut streams = Vec::with_capacity(addresses.len());
        for address in addresses {
            streams.push(dial(*address)?);
        }
        let mut sessions = Vec::with_capacity(leaders.len());
        for (partition, leader) in leaders.iter().enumerate() {
            sessions.push(open_session_at(&mut streams, *leader, PartitionId(partition as u16))?);
        }
        let lines = streams.into_iter().map(Line::new).collect::<Result<_, _>>()?;
        Ok(Self { lines, pending: Pending { sessions, ..Pending::default() } })
    }

    /// Requests under way.
    pub(super) fn in_flight(&self) -> usize {
        self.pending.slots.len() - self.pending.free.len()
    }

    /// Puts a request into the outbox to a node.
    pub(super) fn send(&mut self, node: usize, sent: Sent, route: Route, payload: &[u8]) {
        let Pending { sessions, slots, free } = &mut self.pending;
        let is_write = matches!(sent.job, Job::Append { .. } | Job::Follow { .. });
        let tag = is_write.then(|| sessions[route.partition.0 as usize].tag());
        let id = free.pop().unwrap_or_else(|| {
            slots.push(None);
            slots.len() - 1
        });
        self.lines[node].outbox.push(id as u64, &sent.job, Route { tag, ..route }, payload);
        let sequence = tag.map(|tag| tag.sequence);
        slots[id] = Some(Slot { sent, partition: route.partition, sequence, turned_away: false });
    }

    /// Puts a request that was refused for a moment into the outbox again, under the same tag, to the node that leads its
    /// partition; which one that is. None if it is not under way.
    pub(super) fn send_again(
        &mut self,
        id: u64,
        leaders: &[usize],
        route: Route,
        payload: &[u8],
    ) -> Option<usize> {
        let slot = self.pending.slots.get(id as usize).and_then(Option::as_ref)?;
        let (partition, node) = (slot.partition, leaders[slot.partition.0 as usize]);
        let session = &self.pending.sessions[partition.0 as usize];
        let tag = slot.sequence.map(|sequence| session.again(sequence));
        self.lines[node].outbox.push(id, &slot.sent.job, Route { partition, tag, ..route }, payload);
        Some(node)
    }
}

impl Pending {
    /// The partition that a request under way went to.
    pub(super) fn partition(&self, id: u64) -> Option<PartitionId> {
        self.slots.get(id as usize)?.as_ref().map(|slot| slot.partition)
    }

    /// Notes that a node sent a request to another one; whether that is the first time.
    pub(super) fn turn_away(&mut self, id: u64) -> bool {
        let slot = self.slots.get_mut(id as usize).and_then(Option::as_mut);
        slot.is_some_and(|slot| !std::mem::replace(&mut slot.turned_away, true))
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
}

/// Connects to a node and shakes hands.
pub(super) fn dial(address: SocketAddr) -> Result<TcpStream, FanfoldError> {
    let failed = |source| FanfoldError::Connection { source };
    let mut stream = TcpStream::connect(address).map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    shake_hands(&mut stream)?;
    Ok(stream)
}

/// Shakes hands over a blocking socket.
fn shake_hands(stream: &mut TcpStream) -> Result<(), FanfoldError> {
    let failed = |source| FanfoldError::Connection { source };
    let mut buffer = BytesMut::new();
    stream.write_all(&Hello::current().to_bytes()).map_err(failed)?;
    loop {
        match HandshakeReply::decode_from(&mut buffer)? {
            Some(HandshakeReply::Accepted(_)) => return Ok(()),
            Some(HandshakeReply::Refused(status)) => return Err(FanfoldError::Refused(status)),
            None => read_more(stream, &mut buffer)?,
        }
    }
}

/// Opens a session at the node that leads the partition: as far as known `leader`, but who leads may just have changed.
fn open_session_at(
    streams: &mut [TcpStream],
    leader: usize,
    partition: PartitionId,
) -> Result<Session, FanfoldError> {
    let begun = Instant::now();
    let mut node = leader;
    loop {
        match open_session(&mut streams[node], partition) {
            Err(FanfoldError::Refused(Status::NotLeader { .. } | Status::Unavailable { .. }))
                if begun.elapsed() < SESSION_PATIENCE =>
            {
                node = (node + 1) % streams.len();
                std::thread::sleep(SESSION_PAUSE);
            }
            other => return other,
        }
    }
}

/// Opens a session over a blocking socket.
fn open_session(stream: &mut TcpStream, partition: PartitionId) -> Result<Session, FanfoldError> {
    let failed = |source| FanfoldError::Connection { source };
    let request = Request::OpenSession(OpenSession { partition });
    let call = Call { deadline_ms: Some(DEADLINE_MS as u32), request };
    let (mut out, mut buffer) = (BytesMut::new(), BytesMut::new());
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
        Ok(Response::SessionOpened(id)) => Ok(Session { id, answered: VecDeque::new(), lowest: 1 }),
        Ok(_) => Err(FanfoldError::Unexpected { request: frame.request_id.0 }),
        Err(status) => Err(FanfoldError::Refused(status)),
    }
}

fn read_more(stream: &mut TcpStream, buffer: &mut BytesMut) -> Result<(), FanfoldError> {
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
