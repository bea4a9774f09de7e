//! Owns the loop of the load generator: one thread that keeps many connections busy with a plan.
//!
//! - A place is a request that may be under way on a connection; an answer frees it, and the next request takes the place that has
//!   been free for longest. So a closed loop answers on the connection that was answered, and an open loop goes round.
//! - What is due is gathered before anything is written: one write for each connection and turn.
//! - A request that the node is too busy for is sent again under its tag when the node asked for it, and so is one whose
//!   partition cannot serve for a moment.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use fanfold_protocol::{GraphId, PartitionId, SpaceId, Status};
use mio::{Events, Interest, Poll, Token};

use super::connection::Connection;
use super::error::FanfoldError;
use super::job::{Heard, Job, Next, Plan, Sent, user};
use super::outbox::Route;
use crate::load::graph::Draws;

/// Events taken from the system at once.
const EVENTS: usize = 1_024;
/// When a request is sent again that its partition could not serve, as after the process was stopped for long.
const UNAVAILABLE_DELAY: Duration = Duration::from_millis(20);
/// How long no request may be answered before the node is given up.
const PATIENCE: Duration = Duration::from_secs(120);
/// Longest payload that can be asked for.
pub(super) const PAYLOAD_BYTES_MAX: usize = 64 << 10;

/// Where requests go: what the map and the space say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Routing {
    pub(super) address: SocketAddr,
    pub(super) partitions: u16,
    pub(super) epoch: u64,
    pub(super) space: SpaceId,
    pub(super) graph: GraphId,
}

/// A request that the node was too busy for.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Again {
    at: Instant,
    connection: usize,
    id: u64,
}

/// The connections and the loop over them.
#[derive(Debug)]
pub(super) struct Pump {
    routing: Routing,
    poll: Poll,
    connections: Vec<Connection>,
    payload: Vec<u8>,
    /// Connections with something in their outbox.
    dirty: Vec<usize>,
    again: BinaryHeap<Reverse<Again>>,
    /// Requests that were sent again.
    pub(super) repeats: u64,
}

impl Pump {
    /// A pump without connections.
    pub(super) fn new(routing: Routing) -> Result<Self, FanfoldError> {
        let poll = Poll::new().map_err(|source| FanfoldError::Connection { source })?;
        let mut draws = Draws::new(routing.epoch, 0);
        let payload = (0..PAYLOAD_BYTES_MAX / 8).flat_map(|_| draws.next().to_le_bytes()).collect();
        let (connections, dirty, again) = (Vec::new(), Vec::new(), BinaryHeap::new());
        Ok(Self { routing, poll, connections, payload, dirty, again, repeats: 0 })
    }

    /// Sends what the plan says over `connections` connections with `depth` places each, until it is done and
    /// everything is answered.
    pub(super) fn run(
        &mut self,
        plan: &mut impl Plan,
        connections: usize,
        depth: usize,
    ) -> Result<(), FanfoldError> {
        self.connect(connections)?;
        let mut places: VecDeque<usize> = (0..depth).flat_map(|_| 0..connections).collect();
        let mut events = Events::with_capacity(EVENTS);
        let mut heard_at = Instant::now();
        loop {
            let next = self.issue(plan, &mut places);
            self.repeat();
            self.flush()?;
            let in_flight: usize = self.connections.iter().map(Connection::in_flight).sum();
            if in_flight == 0 && matches!(next, Some(Next::Done)) {
                return Ok(());
            }
            self.wait(&mut events, next)?;
            if heard_at.elapsed() > PATIENCE && in_flight > 0 {
                return Err(FanfoldError::Stalled { waited: PATIENCE, in_flight });
            }
            for event in &events {
                let index = event.token().0;
                if event.is_writable() {
                    self.dirty.push(index);
                }
                if event.is_readable() {
                    let settled = self.take_answers(index, plan, &mut places)?;
                    heard_at = if settled > 0 { Instant::now() } else { heard_at };
                }
            }
        }
    }

    /// Opens connections until there are so many.
    pub(super) fn connect(&mut self, count: usize) -> Result<(), FanfoldError> {
        while self.connections.len() < count {
            let mut connection = Connection::open(self.routing.address, self.routing.partitions)?;
            let token = Token(self.connections.len());
            let interest = Interest::READABLE | Interest::WRITABLE;
            let registered = self.poll.registry().register(&mut connection.stream, token, interest);
            registered.map_err(|source| FanfoldError::Connection { source })?;
            self.connections.push(connection);
        }
        Ok(())
    }

    /// Sends while there are places; what the plan said last, unless places ran out first.
    fn issue(&mut self, plan: &mut impl Plan, places: &mut VecDeque<usize>) -> Option<Next> {
        let now = Instant::now();
        while let Some(index) = places.front().copied() {
            match plan.next(now) {
                Next::Send(job, due) => {
                    places.pop_front();
                    self.send(index, Sent { job, due });
                }
                other => return Some(other),
            }
        }
        None
    }

    fn send(&mut self, index: usize, sent: Sent) {
        let route = self.route(&sent.job);
        self.connections[index].send(sent, route, &self.payload);
        self.dirty.push(index);
    }

    fn route(&self, job: &Job) -> Route {
        let Routing { partitions, epoch, space, graph, .. } = self.routing;
        let home = match job {
            Job::Append { owner, .. } => *owner,
            Job::Follow { reader, .. } | Job::Read { reader, .. } => *reader,
            Job::Wait(waited) => waited.owner,
        };
        let partition = PartitionId::of_user(user(home), partitions);
        Route { partition, epoch, space, graph, tag: None }
    }

    /// Sends again what is due for it.
    fn repeat(&mut self) {
        let now = Instant::now();
        while self.again.peek().is_some_and(|Reverse(again)| again.at <= now) {
            let Some(Reverse(again)) = self.again.pop() else { return };
            let Routing { epoch, space, graph, .. } = self.routing;
            let route = Route { partition: PartitionId(0), epoch, space, graph, tag: None };
            self.connections[again.connection].send_again(again.id, route, &self.payload);
            self.dirty.push(again.connection);
            self.repeats += 1;
        }
    }

    fn flush(&mut self) -> Result<(), FanfoldError> {
        self.dirty.sort_unstable();
        self.dirty.dedup();
        for index in self.dirty.drain(..) {
            // What the socket does not take goes out when it says that it is writable again.
            self.connections[index].flush()?;
        }
        Ok(())
    }

    fn wait(&mut self, events: &mut Events, next: Option<Next>) -> Result<(), FanfoldError> {
        let until = match (next, self.again.peek()) {
            (Some(Next::At(at)), Some(Reverse(again))) => Some(at.min(again.at)),
            (Some(Next::At(at)), None) => Some(at),
            (_, Some(Reverse(again))) => Some(again.at),
            (_, None) => None,
        };
        let timeout = until.map_or(PATIENCE, |until| until.saturating_duration_since(Instant::now()));
        match self.poll.poll(events, Some(timeout)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            other => other.map_err(|source| FanfoldError::Connection { source }),
        }
    }

    fn take_answers(
        &mut self,
        index: usize,
        plan: &mut impl Plan,
        places: &mut VecDeque<usize>,
    ) -> Result<usize, FanfoldError> {
        let mut settled = 0;
        // Further jobs are sent after the answers are taken.
        let mut beyond = Vec::new();
        loop {
            let connection = &mut self.connections[index];
            // The system tells once that something came, so that everything has to be read.
            let more = connection.receive()?;
            let now = Instant::now();
            let again = &mut self.again;
            connection.each_answer(|connection, answer| {
                let heard = match answer.heard()? {
                    Ok(heard) => heard,
                    Err(status @ (Status::Busy { .. } | Status::Unavailable { .. })) => {
                        let at = now + delay(&status);
                        again.push(Reverse(Again { at, connection: index, id: answer.id }));
                        return Ok(());
                    }
                    Err(status) => return Err(FanfoldError::Refused(status)),
                };
                let sent = connection.settle(answer.id)?;
                settled += 1;
                if !fits(&sent.job, &heard) {
                    return Err(FanfoldError::Unexpected { request: answer.id });
                }
                if !matches!(sent.job, Job::Wait(_)) {
                    places.push_back(index);
                }
                beyond.extend(plan.heard(&sent, &heard, now).map(|job| Sent { job, due: now }));
                Ok(())
            })?;
            if !more {
                break;
            }
        }
        for sent in beyond {
            self.send(index, sent);
        }
        Ok(settled)
    }
}

/// How long to wait before a request is sent again.
fn delay(status: &Status) -> Duration {
    match status {
        Status::Busy { delay_ms } => Duration::from_millis(u64::from(*delay_ms)),
        _ => UNAVAILABLE_DELAY,
    }
}

/// Whether an answer is one to this request.
fn fits(job: &Job, heard: &Heard<'_>) -> bool {
    matches!(
        (job, heard),
        (Job::Append { .. }, Heard::Appended { .. })
            | (Job::Follow { .. }, Heard::Followed { .. })
            | (Job::Read { .. }, Heard::Page(_))
            | (Job::Wait(_), Heard::Delivered)
    )
}
