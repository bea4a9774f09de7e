//! Owns the calls of this node to the others: who they go to, their deadlines, and which nodes are alive.
//!
//! - Every call has a deadline. A future that is dropped gives its call up; what was sent may be done all the same.
//! - Every other node is pinged all the time, so that it is known to be alive or not without asking.
//! - Nothing is sent again by itself.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::call::{PeerAnswer, PeerCall};
use super::error::{Cut, DialError, PeerError};
use super::frame::FrameKind;
use super::gone::Gone;
use super::handler::PeerHandler;
use super::hello::{HelloRefusal, Purpose};
use super::identity::{Addresses, PeerIdentity};
use super::link::{Link, exchange, greet};
use super::options::PeerOptions;
use super::outbox::{Answer, Outbox, Request};
use super::ping::Ping;
use super::refusal::PeerRefusal;
use super::wire::Body;

/// The status of an answer that has what was asked for.
pub(super) const DONE: u8 = 0;

/// The status of an answer that has a [`PeerRefusal`].
pub(super) const REFUSED: u8 = 1;

/// The network of one node to the others. Clones share everything; it stops with the last one, or by [`Self::stop`].
#[derive(Clone)]
pub struct PeerNetwork {
    pub(super) shared: Arc<Shared>,
    _stop: Arc<DropGuard>,
}

/// When a node was heard, and what its clock showed.
#[derive(Debug, Clone, Copy)]
struct Heard {
    at: Instant,
    clock: Option<ClockReading>,
}

/// The longest way to a node and back by which a clock is read.
const ROUND_MAX: Duration = Duration::from_millis(500);

/// How far this node's wall clock may have come otherwise than time has passed since another one was read.
const JUMP_MAX_MS: u64 = 500;

/// What the wall clocks of another node and of this one showed, in milliseconds of Unix time, and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClockReading {
    at: Instant,
    there_ms: u64,
    here_ms: u64,
}

impl ClockReading {
    /// What a node answered that was asked when the clock here showed `here_ms`: taken for the middle of the way. None if it does not
    /// say, or if the way was long.
    fn of(pong: &Ping, (sent, here_ms): (Instant, u64)) -> Option<Self> {
        let half = sent.elapsed() / 2;
        let here_ms = here_ms.saturating_add(half.as_millis() as u64);
        (pong.wall_ms > 0 && 2 * half <= ROUND_MAX).then(|| Self {
            at: sent + half,
            there_ms: pong.wall_ms,
            here_ms,
        })
    }

    /// How far the other clock is ahead of this one, which shows `here_ms` now. None if this one has jumped since: the other may have
    /// done so too.
    fn ahead_ms(&self, here_ms: i64) -> Option<i64> {
        let passed_ms = self.at.elapsed().as_millis() as u64;
        let now = |then_ms: u64| i64::try_from(then_ms.saturating_add(passed_ms)).unwrap_or(i64::MAX);
        let has_jumped = now(self.here_ms).abs_diff(here_ms) > JUMP_MAX_MS;
        (!has_jumped).then(|| now(self.there_ms).saturating_sub(here_ms))
    }
}

/// What the tasks of a network share.
pub(super) struct Shared {
    identity: watch::Receiver<Option<PeerIdentity>>,
    addresses: Arc<dyn Addresses>,
    pub options: PeerOptions,
    links: Mutex<HashMap<(u64, Purpose), Arc<Link>>>,
    heard: Mutex<BTreeMap<u64, Heard>>,
    alive: watch::Sender<Arc<BTreeSet<u64>>>,
    /// How often each node was connected to.
    reached: watch::Sender<Arc<BTreeMap<u64, u64>>>,
    pub gone: Arc<Gone>,
    /// This process, of all that may run as this node.
    pub process: u32,
    /// By node: since when it refuses this process because another one runs as this node.
    refused_twice: Mutex<BTreeMap<u64, Instant>>,
    stop: CancellationToken,
}

impl PeerNetwork {
    /// A network that calls other nodes as `identity`, which a node that has not joined yet learns late.
    pub fn new(
        identity: watch::Receiver<Option<PeerIdentity>>,
        addresses: Arc<dyn Addresses>,
        options: PeerOptions,
    ) -> Self {
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            identity,
            addresses,
            options,
            links: Mutex::default(),
            heard: Mutex::default(),
            alive: watch::Sender::default(),
            reached: watch::Sender::default(),
            gone: Arc::default(),
            process: rand::random_range(1..1 << 24),
            refused_twice: Mutex::default(),
            stop: stop.clone(),
        });
        Self { shared, _stop: Arc::new(stop.drop_guard()) }
    }

    /// Pings every other node until it is stopped.
    pub async fn run(&self, handler: Arc<dyn PeerHandler>, stop: CancellationToken) {
        let shared = &self.shared;
        let mut ticks = interval(Duration::from_millis(shared.options.ping_ms.max(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut under_way = FuturesUnordered::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = shared.stop.cancelled() => return,
                _ = ticks.tick() => {
                    shared.forget_removed();
                    for (node, purpose) in shared.pinged() {
                        under_way.push(shared.ping(node, purpose, handler.ping()));
                    }
                    shared.publish_alive();
                }
                Some(answered) = under_way.next() => {
                    let Some((node, sent, pong)): Option<(u64, (Instant, u64), Ping)> = answered else { continue };
                    shared.heard(node, ClockReading::of(&pong, sent));
                    handler.heard(node, &pong);
                }
            }
        }
    }

    /// Ends all connections; every call that waits fails.
    pub fn stop(&self) {
        self.shared.stop.cancel();
    }

    /// Asks a node. What the answer is follows from the call.
    pub async fn call(&self, node: u64, call: PeerCall, deadline: Duration) -> Result<PeerAnswer, PeerError> {
        let (code, body) = call.encode();
        let request = Outgoing {
            kind: FrameKind::Call,
            code,
            group: call.credit(),
            is_urgent: false,
            body: Body::new(body),
        };
        let answer = self.shared.request(node, Purpose::Data, request);
        let answer = timeout(deadline, answer).await.map_err(|_| PeerError::Deadline)??;
        PeerAnswer::from_bytes(&answer).map_err(PeerError::Answer)
    }

    /// Asks whoever listens at an address, over a connection of its own; for a node that does not know the others yet.
    pub async fn call_address(
        &self,
        address: &str,
        call: PeerCall,
        deadline: Duration,
    ) -> Result<PeerAnswer, PeerError> {
        let asked = async {
            let mut options = self.shared.options.clone();
            // There are no pings on this connection.
            options.silent_ms = options.silent_ms.max(deadline.as_millis() as u64);
            let identity = self.shared.identity();
            let unreachable = |reason| PeerError::Unreachable { address: address.to_owned(), reason };
            let (socket, hello) = greet(address, Purpose::Once, identity, 0, self.shared.process, &options)
                .await
                .map_err(unreachable)?;
            let outbox = Outbox::new(&options);
            outbox.connected(&hello);
            let (code, body) = call.encode();
            let (answer, answered) = oneshot::channel();
            let (kind, body) = (FrameKind::Call, Body::new(body));
            outbox.push(Request { kind, code, group: call.credit(), is_urgent: false, body, answer })?;
            tokio::select! {
                biased;
                answer = answered => done(answer.unwrap_or(Err(PeerError::Stopped))?),
                cut = exchange(socket, &outbox, &options) => Err(PeerError::Broken { cut, sent: true }),
            }
        };
        let answer = tokio::select! {
            answer = timeout(deadline, asked) => answer.map_err(|_| PeerError::Deadline)??,
            () = self.shared.stop.cancelled() => return Err(PeerError::Stopped),
        };
        PeerAnswer::from_bytes(&answer).map_err(PeerError::Answer)
    }

    /// This node, once it belongs to a cluster.
    pub fn node(&self) -> Option<u64> {
        self.shared.identity().map(|identity| identity.node)
    }

    /// For how long a node has not been heard; none if it never was.
    pub fn alive(&self, node: u64) -> Option<Duration> {
        self.shared.heard.lock().get(&node).map(|heard| heard.at.elapsed())
    }

    /// The other nodes that were heard within [`PeerOptions::silent_ms`].
    pub fn watch_alive(&self) -> watch::Receiver<Arc<BTreeSet<u64>>> {
        self.shared.alive.subscribe()
    }

    /// The other nodes whose processes have ended, as far as the operating system tells: at once after a kill, and never
    /// for one that hangs or is cut off.
    pub fn watch_gone(&self) -> watch::Receiver<Arc<BTreeSet<u64>>> {
        self.shared.gone.watch()
    }

    /// How often each other node was connected to: it changes when what could not be sent to one can be again.
    pub fn watch_reached(&self) -> watch::Receiver<Arc<BTreeMap<u64, u64>>> {
        self.shared.reached.subscribe()
    }

    /// A node that has refused this process for so long because another one runs as this node, if there is one.
    pub fn twin_at(&self, for_at_least: Duration) -> Option<u64> {
        let refused = self.shared.refused_twice.lock();
        refused.iter().find(|(_, since)| since.elapsed() >= for_at_least).map(|(node, _)| *node)
    }

    /// How long a connection lives on after its node fell silent.
    pub fn silence(&self) -> Duration {
        self.shared.options.silent()
    }

    /// How far the wall clock of each node that is alive is ahead of this node's, in milliseconds, if that shows `here_ms` now.
    pub fn clock_offsets(&self, here_ms: i64) -> BTreeMap<u64, i64> {
        let silent = self.shared.options.silent();
        let heard = self.shared.heard.lock();
        let readings = heard.iter().filter_map(|(node, heard)| Some((*node, heard.clock?)));
        let live = readings.filter(|(_, reading)| reading.at.elapsed() < silent);
        live.filter_map(|(node, reading)| Some((node, reading.ahead_ms(here_ms)?))).collect()
    }
}

/// A request without the way back.
pub(super) struct Outgoing {
    pub kind: FrameKind,
    pub code: u8,
    pub group: u32,
    pub is_urgent: bool,
    pub body: Body,
}

impl Shared {
    pub fn identity(&self) -> Option<PeerIdentity> {
        *self.identity.borrow()
    }

    pub fn address(&self, node: u64) -> Option<String> {
        self.addresses.peer_address(node)
    }

    /// Sends a request and returns what the answer has.
    pub async fn request(
        self: &Arc<Self>,
        node: u64,
        purpose: Purpose,
        request: Outgoing,
    ) -> Result<Bytes, PeerError> {
        let Outgoing { kind, code, group, is_urgent, body } = request;
        let link = self.link(node, purpose)?;
        // Another address may work where the last one did not.
        if let Some(tried) = link.outbox.down_at()
            && self.address(node).is_some_and(|address| address != tried)
        {
            link.outbox.retry();
            link.moved.notify_one();
        }
        let (answer, answered) = oneshot::channel();
        link.outbox.push(Request { kind, code, group, is_urgent, body, answer })?;
        done(answered.await.unwrap_or(Err(PeerError::Stopped))?)
    }

    /// The way to a node, which is opened if there is none.
    fn link(self: &Arc<Self>, node: u64, purpose: Purpose) -> Result<Arc<Link>, PeerError> {
        if self.stop.is_cancelled() {
            return Err(PeerError::Stopped);
        }
        let mut links = self.links.lock();
        if let Some(link) = links.get(&(node, purpose)) {
            return Ok(link.clone());
        }
        if self.address(node).is_none() {
            let (address, reason) = (format!("node {node}"), DialError::Unknown);
            return Err(PeerError::Unreachable { address, reason });
        }
        let link = Link::new(node, purpose, &self.options, self.stop.child_token());
        tokio::spawn(link.clone().run(self.clone()));
        links.insert((node, purpose), link.clone());
        Ok(link)
    }

    /// Ends the connections to nodes that are no longer known.
    fn forget_removed(&self) {
        let is_known = |node| self.address(node).is_some();
        self.links.lock().retain(|(node, _), link| {
            let keep = is_known(*node);
            if !keep {
                link.stop.cancel();
            }
            keep
        });
        self.heard.lock().retain(|node, _| is_known(*node));
        self.gone.retain(is_known);
    }

    /// What is pinged: every node, and over each connection that exists, so that silence on it says something.
    fn pinged(&self) -> Vec<(u64, Purpose)> {
        let own = self.identity().map(|identity| identity.node);
        let mut pinged: Vec<_> =
            self.addresses.peers().into_iter().map(|node| (node, Purpose::Data)).collect();
        let links = self.links.lock();
        pinged.extend(links.keys().filter(|(_, purpose)| *purpose == Purpose::Snapshot));
        pinged.retain(|(node, _)| own.is_some_and(|own| own != *node));
        pinged
    }

    /// Pings a node; none if it did not answer.
    fn ping(
        self: &Arc<Self>,
        node: u64,
        purpose: Purpose,
        ping: Ping,
    ) -> impl Future<Output = Option<(u64, (Instant, u64), Ping)>> + use<> {
        let this = self.clone();
        async move {
            let sent = (Instant::now(), ping.wall_ms);
            let body = Body::new(ping.to_bytes());
            let request = Outgoing { kind: FrameKind::Ping, code: 0, group: 0, is_urgent: true, body };
            let answer = timeout(this.options.silent(), this.request(node, purpose, request)).await;
            let pong = Ping::from_bytes(&answer.ok()?.ok()?).ok()?;
            Some((node, sent, pong))
        }
    }

    /// Takes note that a connection for data to a node was made.
    pub fn note_reached(&self, node: u64) {
        self.reached.send_modify(|reached| {
            let mut all = BTreeMap::clone(reached);
            *all.entry(node).or_default() += 1;
            *reached = Arc::new(all);
        });
    }

    /// A node has said hello, so it is there: what waits to connect to it again waits no longer.
    pub fn redial(&self, node: u64) {
        let links = self.links.lock();
        for link in
            [Purpose::Data, Purpose::Snapshot].iter().filter_map(|purpose| links.get(&(node, *purpose)))
        {
            if link.outbox.down_at().is_some() {
                link.outbox.retry();
                link.moved.notify_one();
            }
        }
    }

    /// Takes note of how a node answered a hello.
    pub fn note_greeted(&self, node: u64, refused: Option<&DialError>) {
        let mut all = self.refused_twice.lock();
        match refused {
            Some(DialError::Refused(HelloRefusal::Twice)) => {
                all.entry(node).or_insert_with(Instant::now);
            }
            _ => drop(all.remove(&node)),
        }
    }

    /// Takes note that a node was heard.
    pub fn heard(&self, node: u64, clock: Option<ClockReading>) {
        let heard = Heard { at: Instant::now(), clock };
        let is_news = {
            let mut all = self.heard.lock();
            let before = all.insert(node, heard);
            if let (Some(before), Some(now)) = (before, all.get_mut(&node)) {
                now.clock = clock.or(before.clock);
            }
            before.is_none_or(|before| before.at.elapsed() >= self.options.silent())
        };
        if is_news {
            self.publish_alive();
        }
    }

    fn publish_alive(&self) {
        let silent = self.options.silent();
        let heard = self.heard.lock();
        let now: BTreeSet<u64> =
            heard.iter().filter(|(_, heard)| heard.at.elapsed() < silent).map(|(node, _)| *node).collect();
        self.alive.send_if_modified(|alive| {
            let changed = **alive != now;
            if changed {
                *alive = Arc::new(now);
            }
            changed
        });
    }
}

/// What an answer has, or the refusal that it is.
fn done(answer: Answer) -> Result<Bytes, PeerError> {
    match answer.status {
        DONE => Ok(answer.body),
        REFUSED => match PeerRefusal::from_bytes(&answer.body) {
            Ok(refusal) => Err(PeerError::Refused(refusal)),
            Err(malformed) => Err(PeerError::Answer(malformed)),
        },
        _ => Err(PeerError::Broken { cut: Cut::Unexpected, sent: true }),
    }
}
