//! Owns the loop of the load generator: one thread that keeps many connections busy with a plan.
//!
//! - A place is a request that may be under way on a connection; an answer frees it, and the next request takes the place that has
//!   been free for longest. So a closed loop answers on the connection that was answered, and an open loop goes round.
//! - What is due is gathered before anything is written: one write for each connection and turn.
//! - A request that the node is too busy for is sent again under its tag when the node asked for it, and so is one whose
//!   partition cannot serve for a moment. One whose partition is led by another node by now is sent there.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use fanfold_protocol::{GraphId, PartitionId, SpaceId, Status};
use mio::{Events, Interest, Poll, Token};

use super::connection::Connection;
use super::error::FanfoldError;
use super::job::{Heard, Job, Next, Plan, Sent, user};
use super::line::Line;
use super::newcomer::Newcomer;
use super::outbox::Route;
use crate::load::graph::Draws;
use crate::load::timer::{ALARM, Timer};

/// Events taken from the system at once.
const EVENTS: usize = 1_024;
/// When a request is sent again that its partition could not serve, as after the process was stopped for long.
const UNAVAILABLE_DELAY: Duration = Duration::from_millis(20);
/// How long no request may be answered before the node is given up.
const PATIENCE: Duration = Duration::from_secs(120);
/// Nodes that a connection may have a socket to.
const NODES_MAX: usize = 64;
/// Requests that may be under way on each connection that is kept apart.
const APART_DEPTH: usize = 64;
/// Longest payload that can be asked for.
pub(super) const PAYLOAD_BYTES_MAX: usize = 64 << 10;

/// Where requests go: what the map and the space say.
#[derive(Debug, Clone)]
pub(super) struct Routing {
    /// Of the nodes.
    pub(super) addresses: Vec<SocketAddr>,
    /// By partition, which node leads it.
    pub(super) leaders: Vec<usize>,
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
    timer: Timer,
    connections: Vec<Connection>,
    payload: Arc<[u8]>,
    /// Connections and nodes with something in their outbox.
    dirty: Vec<(usize, usize)>,
    again: BinaryHeap<Reverse<Again>>,
    /// Requests that were sent again.
    pub(super) repeats: u64,
    /// How often a partition was found led by another node.
    pub(super) moves: u64,
    /// Nodes that join meanwhile.
    pub(super) newcomers: Option<Receiver<Newcomer>>,
}

impl Pump {
    /// A pump without connections.
    pub(super) fn new(routing: Routing) -> Result<Self, FanfoldError> {
        let failed = |source| FanfoldError::Connection { source };
        let poll = Poll::new().map_err(failed)?;
        let timer = Timer::new(poll.registry()).map_err(failed)?;
        let mut draws = Draws::new(routing.epoch, 0);
        let payload = (0..PAYLOAD_BYTES_MAX / 8).flat_map(|_| draws.next().to_le_bytes()).collect();
        let (connections, dirty, again) = (Vec::new(), Vec::new(), BinaryHeap::new());
        let newcomers = None;
        Ok(Self { routing, poll, timer, connections, payload, dirty, again, repeats: 0, moves: 0, newcomers })
    }

    /// Sends what the plan says over `connections` connections with `depth` places each, until it is done and
    /// everything is answered.
    pub(super) fn run(
        &mut self,
        plan: &mut impl Plan,
        connections: usize,
        depth: usize,
    ) -> Result<(), FanfoldError> {
        self.run_apart(plan, connections, depth, 0)
    }

    /// Like [`Pump::run`], with `apart` more connections, which are kept for what the plan sends apart.
    pub(super) fn run_apart(
        &mut self,
        plan: &mut impl Plan,
        connections: usize,
        depth: usize,
        apart: usize,
    ) -> Result<(), FanfoldError> {
        self.connect(connections + apart)?;
        let mut places = Places {
            plan: (0..depth).flat_map(|_| 0..connections).collect(),
            apart: (0..APART_DEPTH).flat_map(|_| connections..connections + apart).collect(),
            connections,
            has_none_apart: apart == 0,
        };
        let mut events = Events::with_capacity(EVENTS);
        let mut heard_at = Instant::now();
        loop {
            self.welcome()?;
            let nexts = self.issue(plan, &mut places);
            self.repeat();
            self.flush()?;
            let in_flight: usize = self.connections.iter().map(Connection::in_flight).sum();
            if in_flight == 0 && nexts.iter().all(|next| matches!(next, Some(Next::Done))) {
                return Ok(());
            }
            self.wait(&mut events, &nexts)?;
            if heard_at.elapsed() > PATIENCE && in_flight > 0 {
                return Err(FanfoldError::Stalled { waited: PATIENCE, in_flight });
            }
            for event in events.iter().filter(|event| event.token() != ALARM) {
                let (index, node) = (event.token().0 / NODES_MAX, event.token().0 % NODES_MAX);
                if event.is_writable() {
                    self.dirty.push((index, node));
                }
                if event.is_readable() {
                    let settled = self.take_answers((index, node), plan, &mut places)?;
                    heard_at = if settled > 0 { Instant::now() } else { heard_at };
                }
            }
        }
    }

    /// What every payload is the beginning of.
    pub(super) fn payload(&self) -> Arc<[u8]> {
        Arc::clone(&self.payload)
    }

    /// Opens connections until there are so many.
    pub(super) fn connect(&mut self, count: usize) -> Result<(), FanfoldError> {
        while self.connections.len() < count {
            let Routing { addresses, leaders, .. } = &self.routing;
            let mut connection = Connection::open(addresses, leaders)?;
            for (node, line) in connection.lines.iter_mut().enumerate() {
                register(&self.poll, line, (self.connections.len(), node))?;
            }
            self.connections.push(connection);
        }
        Ok(())
    }

    /// How many connections there are.
    pub(super) fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Takes in the sockets to nodes that have joined.
    fn welcome(&mut self) -> Result<(), FanfoldError> {
        let Some(newcomer) = self.newcomers.as_ref().and_then(|newcomers| newcomers.try_recv().ok()) else {
            return Ok(());
        };
        let node = self.routing.addresses.len();
        assert_eq!(
            newcomer.streams.len(),
            self.connections.len(),
            "each connection has a socket to each node"
        );
        for (index, (connection, stream)) in self.connections.iter_mut().zip(newcomer.streams).enumerate() {
            let mut line = Line::new(stream)?;
            register(&self.poll, &mut line, (index, node))?;
            connection.lines.push(line);
        }
        self.routing.addresses.push(newcomer.address);
        Ok(())
    }

    /// Sends while there are places; what the plan said last of either kind, unless places ran out first.
    fn issue<P: Plan>(&mut self, plan: &mut P, places: &mut Places) -> [Option<Next>; 2] {
        let now = Instant::now();
        [
            self.issue_to(&mut places.plan, || plan.next(now)),
            if places.has_none_apart {
                Some(Next::Done)
            } else {
                self.issue_to(&mut places.apart, || plan.next_apart(now))
            },
        ]
    }

    fn issue_to(&mut self, places: &mut VecDeque<usize>, mut next: impl FnMut() -> Next) -> Option<Next> {
        while let Some(index) = places.front().copied() {
            match next() {
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
        let node = self.routing.leaders[route.partition.0 as usize];
        self.connections[index].send(node, sent, route, &self.payload);
        self.dirty.push((index, node));
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
            let (connection, leaders) = (&mut self.connections[again.connection], &self.routing.leaders);
            let node = connection.send_again(again.id, leaders, route, &self.payload);
            self.dirty.extend(node.map(|node| (again.connection, node)));
            self.repeats += 1;
        }
    }

    fn flush(&mut self) -> Result<(), FanfoldError> {
        self.dirty.sort_unstable();
        self.dirty.dedup();
        for (index, node) in self.dirty.drain(..) {
            // What the socket does not take goes out when it says that it is writable again.
            self.connections[index].lines[node].flush()?;
        }
        Ok(())
    }

    fn wait(&mut self, events: &mut Events, nexts: &[Option<Next>]) -> Result<(), FanfoldError> {
        let due = nexts.iter().filter_map(|next| match next {
            Some(Next::At(at)) => Some(*at),
            _ => None,
        });
        let until = due.chain(self.again.peek().map(|Reverse(again)| again.at)).min();
        let failed = |source| FanfoldError::Connection { source };
        let timeout = match until {
            Some(until) if until <= Instant::now() => Duration::ZERO,
            Some(until) => {
                self.timer.set(until).map_err(failed)?;
                PATIENCE
            }
            None => PATIENCE,
        };
        match self.poll.poll(events, Some(timeout)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            other => other.map_err(failed),
        }
    }

    fn take_answers(
        &mut self,
        (index, node): (usize, usize),
        plan: &mut impl Plan,
        places: &mut Places,
    ) -> Result<usize, FanfoldError> {
        let mut settled = 0;
        // Further jobs are sent after the answers are taken.
        let mut beyond = Vec::new();
        loop {
            let Connection { lines, pending } = &mut self.connections[index];
            let line = &mut lines[node];
            // The system tells once that something came, so that everything has to be read.
            let more = line.receive()?;
            let now = Instant::now();
            let Self { again, routing, moves, .. } = self;
            line.each_answer(|answer| {
                let heard = match answer.heard()? {
                    Ok(heard) => heard,
                    Err(
                        status
                        @ (Status::Busy { .. } | Status::Unavailable { .. } | Status::NotLeader { .. }),
                    ) => {
                        let partition = pending.partition(answer.id);
                        *moves += u64::from(partition.is_some_and(|of| routing.learn(of, &status)));
                        // As the client does: who has been told of another leader asks that one at once, but only once.
                        let leads_elsewhere =
                            partition.is_some_and(|of| routing.leaders[of.0 as usize] != node);
                        let is_told = matches!(status, Status::NotLeader { hint: Some(_) });
                        let at_once = is_told && leads_elsewhere && pending.turn_away(answer.id);
                        let at = if at_once { now } else { now + delay(&status) };
                        again.push(Reverse(Again { at, connection: index, id: answer.id }));
                        return Ok(());
                    }
                    Err(status) => {
                        let sent = pending.settle(answer.id)?;
                        if !plan.refused(&sent, &status) {
                            return Err(FanfoldError::Refused(status));
                        }
                        settled += 1;
                        if !matches!(sent.job, Job::Wait(_)) {
                            places.free(index);
                        }
                        return Ok(());
                    }
                };
                let sent = pending.settle(answer.id)?;
                settled += 1;
                if !fits(&sent.job, &heard) {
                    return Err(FanfoldError::Unexpected { request: answer.id });
                }
                if !matches!(sent.job, Job::Wait(_)) {
                    places.free(index);
                }
                beyond.extend(plan.heard(&sent, &heard, now)?.map(|job| Sent { job, due: now }));
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

impl Routing {
    /// Takes note of who leads a partition, if a status tells; whether that is news.
    fn learn(&mut self, partition: PartitionId, status: &Status) -> bool {
        let Status::NotLeader { hint: Some(hint) } = status else { return false };
        let node = self.addresses.iter().position(|address| hint.address == address.to_string());
        let leader = &mut self.leaders[partition.0 as usize];
        node.is_some_and(|node| std::mem::replace(leader, node) != node)
    }
}

/// Listens to the socket of a connection to a node.
fn register(poll: &Poll, line: &mut Line, (index, node): (usize, usize)) -> Result<(), FanfoldError> {
    assert!(node < NODES_MAX, "a measurement has few nodes");
    let interest = Interest::READABLE | Interest::WRITABLE;
    let registered = poll.registry().register(&mut line.stream, Token(index * NODES_MAX + node), interest);
    registered.map_err(|source| FanfoldError::Connection { source })
}

/// Free places, each by its connection.
struct Places {
    plan: VecDeque<usize>,
    apart: VecDeque<usize>,
    /// The connections behind these are kept apart.
    connections: usize,
    has_none_apart: bool,
}

impl Places {
    fn free(&mut self, index: usize) {
        if index < self.connections { self.plan.push_back(index) } else { self.apart.push_back(index) }
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
