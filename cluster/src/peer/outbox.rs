//! Owns the requests to one node that wait to be written or answered, and how many there may be.
//!
//! - Credit: the unanswered bytes of each group are bounded, so that one whose receiver is slow does not hold up the
//!   others; those of all groups stay below what the receiver announced, so that it never has to stop reading.
//!   Over a bound a request fails at once.
//! - Streams and reads together take at most half of a connection: what they wait for is replicated over the same one.
//! - Urgent requests (pings, votes, heartbeats) go before all others and take no credit of a group. Among the others
//!   the groups take turns; the requests of one group keep their order.
//! - A request gets its number when it is written: the numbers of a connection have no gap.
//! - A request is written at most once, on one connection; whoever asked decides whether to ask again.
//! - A request whose caller went away is not written; if it was, it holds its credit until the connection has its answer.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::call::STREAMS_CREDIT;
use super::error::{Cut, DialError, PeerError};
use super::frame::FrameKind;
use super::hello::HelloAnswer;
use super::options::PeerOptions;
use super::wire::{Body, Pieces};

/// How much larger the credit of the streams to a partition is than that of its replication.
const STREAMS_SHARE: usize = 4;

/// What is written at once, about.
const WRITE_BYTES: usize = 256 << 10;

/// What came back for a request.
#[derive(Debug)]
pub(super) struct Answer {
    /// Its status.
    pub status: u8,
    /// Its body.
    pub body: Bytes,
}

/// A request on its way.
#[derive(Debug)]
pub(super) struct Request {
    pub kind: FrameKind,
    pub code: u8,
    pub group: u32,
    pub is_urgent: bool,
    pub body: Body,
    pub answer: oneshot::Sender<Result<Answer, PeerError>>,
}

/// What a request takes of the bounds.
#[derive(Debug, Clone, Copy)]
struct Cost {
    bytes: usize,
    /// The group whose credit it takes.
    group: Option<u32>,
}

#[derive(Debug)]
struct Unanswered {
    cost: Cost,
    answer: oneshot::Sender<Result<Answer, PeerError>>,
}

/// What requests may take on this connection.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    group_bytes: usize,
    bytes: usize,
    requests: usize,
    frame_bytes: usize,
}

/// What unanswered requests take.
#[derive(Debug, Clone, Copy, Default)]
struct Taken {
    bytes: usize,
    requests: usize,
}

#[derive(Debug)]
struct State {
    bounds: Bounds,
    /// Why requests fail at once: where it was tried, and what came of it.
    down: Option<(String, DialError)>,
    urgent: VecDeque<Request>,
    bulk: HashMap<u32, VecDeque<Request>>,
    /// The groups of `bulk`, the next one first.
    turns: VecDeque<u32>,
    /// Unanswered bytes of each group.
    credit: HashMap<u32, usize>,
    all: Taken,
    /// What streams and reads take of it.
    yielding: Taken,
    unanswered: HashMap<u64, Unanswered>,
    /// The last number that was given.
    number: u64,
}

/// The requests to one node over one kind of connection.
#[derive(Debug)]
pub(super) struct Outbox {
    state: Mutex<State>,
    ready: Notify,
    own: Bounds,
}

impl Outbox {
    pub fn new(options: &PeerOptions) -> Self {
        let own = Bounds {
            group_bytes: options.group_bytes_max,
            bytes: options.connection_bytes_max,
            requests: options.connection_requests_max,
            frame_bytes: options.frame_bytes_max,
        };
        let state = State {
            bounds: own,
            down: None,
            urgent: VecDeque::new(),
            bulk: HashMap::new(),
            turns: VecDeque::new(),
            credit: HashMap::new(),
            all: Taken::default(),
            yielding: Taken::default(),
            unanswered: HashMap::new(),
            number: 0,
        };
        Self { state: Mutex::new(state), ready: Notify::new(), own }
    }

    /// Takes a request in, or says at once why not.
    pub fn push(&self, request: Request) -> Result<(), PeerError> {
        let mut state = self.state.lock();
        if let Some((address, reason)) = &state.down {
            return Err(PeerError::Unreachable { address: address.clone(), reason: *reason });
        }
        if request.body.frame_bytes() > state.bounds.frame_bytes {
            return Err(PeerError::TooLarge {
                bytes: request.body.frame_bytes() as u64,
                limit_bytes: state.bounds.frame_bytes as u64,
            });
        }
        let cost = request.cost();
        if !state.has_room(cost) {
            state.forget_abandoned();
            if !state.has_room(cost) {
                return Err(PeerError::Busy);
            }
        }
        state.charge(cost);
        if request.is_urgent {
            state.urgent.push_back(request);
        } else {
            let State { bulk, turns, .. } = &mut *state;
            let queue = bulk.entry(request.group).or_default();
            if queue.is_empty() {
                turns.push_back(request.group);
            }
            queue.push_back(request);
        }
        drop(state);
        self.ready.notify_one();
        Ok(())
    }

    /// Waits until there may be something to write.
    pub async fn ready(&self) {
        self.ready.notified().await;
    }

    /// Whether nothing waits to be written.
    pub fn is_empty(&self) -> bool {
        let state = self.state.lock();
        state.urgent.is_empty() && state.turns.is_empty()
    }

    /// Takes what is written next. Nothing, if nothing waits.
    pub fn take(&self, pieces: &mut Pieces) {
        let mut state = self.state.lock();
        while pieces.bytes() < WRITE_BYTES {
            let Some(request) = state.next() else { return };
            let cost = request.cost();
            if request.answer.is_closed() {
                state.release(cost);
                continue;
            }
            state.number += 1;
            let number = state.number;
            state.unanswered.insert(number, Unanswered { cost, answer: request.answer });
            pieces.push(request.kind, request.code, request.group, number, request.body);
        }
    }

    /// Hands an answer to whoever asked. One that was handed out already has no effect.
    pub fn answered(&self, number: u64, answer: Answer) -> Result<(), Cut> {
        let mut state = self.state.lock();
        if number == 0 || number > state.number {
            return Err(Cut::Unexpected);
        }
        if let Some(unanswered) = state.unanswered.remove(&number) {
            state.release(unanswered.cost);
            let _ = unanswered.answer.send(Ok(answer));
        }
        Ok(())
    }

    /// A connection was made.
    pub fn connected(&self, hello: &HelloAnswer) {
        let mut state = self.state.lock();
        state.down = None;
        state.number = 0;
        state.bounds = Bounds {
            group_bytes: self.own.group_bytes,
            bytes: self.own.bytes.min(hello.bytes_max as usize),
            requests: self.own.requests.min(hello.requests_max as usize),
            frame_bytes: self.own.frame_bytes.min(hello.frame_bytes_max as usize),
        };
    }

    /// The connection ended: what was written has no answer. What was not waits for the next one.
    pub fn disconnected(&self, cut: Cut) {
        let mut state = self.state.lock();
        let unanswered: Vec<_> = state.unanswered.drain().map(|(_, unanswered)| unanswered).collect();
        for unanswered in unanswered {
            state.release(unanswered.cost);
            let _ = unanswered.answer.send(Err(PeerError::Broken { cut, sent: true }));
        }
    }

    /// No connection could be made: what waits fails, and what comes fails at once until [`Self::retry`].
    pub fn refuse(&self, address: &str, reason: DialError) {
        let mut state = self.state.lock();
        state.down = Some((address.to_owned(), reason));
        while let Some(request) = state.next() {
            state.release(request.cost());
            let _ = request.answer.send(Err(PeerError::Unreachable { address: address.to_owned(), reason }));
        }
    }

    /// Requests are taken in again.
    pub fn retry(&self) {
        self.state.lock().down = None;
    }

    /// Where no connection could be made, while requests fail at once.
    pub fn down_at(&self) -> Option<String> {
        self.state.lock().down.as_ref().map(|(address, _)| address.clone())
    }
}

impl Request {
    fn cost(&self) -> Cost {
        Cost { bytes: self.body.frame_bytes(), group: (!self.is_urgent).then_some(self.group) }
    }
}

impl Cost {
    /// Whether it is of a stream or a read.
    fn yields(self) -> bool {
        self.group.is_some_and(|group| group & STREAMS_CREDIT != 0)
    }
}

impl Taken {
    /// Whether there is room for one more request within these bounds.
    fn fits(self, cost: Cost, bytes: usize, requests: usize) -> bool {
        self.bytes + cost.bytes <= bytes && self.requests < requests
    }

    fn charge(&mut self, cost: Cost) {
        self.bytes += cost.bytes;
        self.requests += 1;
    }

    fn release(&mut self, cost: Cost) {
        self.bytes -= cost.bytes;
        self.requests -= 1;
    }
}

impl State {
    /// Whether a request may come in. An eighth of the connection is kept for what is urgent, and of the rest what
    /// streams and reads may not take for replication.
    fn has_room(&self, cost: Cost) -> bool {
        let Bounds { group_bytes, bytes, requests, .. } = self.bounds;
        let Some(group) = cost.group else { return self.all.fits(cost, bytes, requests) };
        let used = self.credit.get(&group).copied().unwrap_or(0);
        // The streams of many partitions meet at one.
        let group_bytes = if cost.yields() { group_bytes * STREAMS_SHARE } else { group_bytes };
        let fits_group = used == 0 || used + cost.bytes <= group_bytes;
        // A single request passes alone, however large.
        let leaves_half = !cost.yields()
            || self.yielding.requests == 0
            || self.yielding.fits(cost, bytes / 2, requests / 2);
        fits_group && leaves_half && self.all.fits(cost, bytes - bytes / 8, requests - requests / 8)
    }

    fn charge(&mut self, cost: Cost) {
        self.all.charge(cost);
        if cost.yields() {
            self.yielding.charge(cost);
        }
        if let Some(group) = cost.group {
            *self.credit.entry(group).or_default() += cost.bytes;
        }
    }

    fn release(&mut self, cost: Cost) {
        self.all.release(cost);
        if cost.yields() {
            self.yielding.release(cost);
        }
        let Some(group) = cost.group else { return };
        if let Some(used) = self.credit.get_mut(&group) {
            *used -= cost.bytes;
            if *used == 0 {
                self.credit.remove(&group);
            }
        }
    }

    /// The next request to write.
    fn next(&mut self) -> Option<Request> {
        if let Some(request) = self.urgent.pop_front() {
            return Some(request);
        }
        let group = self.turns.pop_front()?;
        let queue = self.bulk.get_mut(&group)?;
        let request = queue.pop_front();
        if queue.is_empty() {
            self.bulk.remove(&group);
        } else {
            self.turns.push_back(group);
        }
        request
    }

    /// Drops what waits for callers that went away.
    fn forget_abandoned(&mut self) {
        let mut kept = VecDeque::new();
        while let Some(request) = self.next() {
            if request.answer.is_closed() {
                self.release(request.cost());
            } else {
                kept.push_back(request);
            }
        }
        for request in kept {
            if request.is_urgent {
                self.urgent.push_back(request);
            } else {
                let queue = self.bulk.entry(request.group).or_default();
                if queue.is_empty() {
                    self.turns.push_back(request.group);
                }
                queue.push_back(request);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Waiting = oneshot::Receiver<Result<Answer, PeerError>>;

    fn outbox() -> Outbox {
        Outbox::new(&PeerOptions {
            group_bytes_max: 1_000,
            connection_bytes_max: 8_000,
            connection_requests_max: 80,
            frame_bytes_max: 4_000,
            ..PeerOptions::default()
        })
    }

    fn push(outbox: &Outbox, group: u32, is_urgent: bool, bytes: usize) -> Result<Waiting, PeerError> {
        let (answer, waiting) = oneshot::channel();
        let body = Body::new(Bytes::from(vec![group as u8; bytes]));
        outbox.push(Request { kind: FrameKind::Raft, code: 1, group, is_urgent, body, answer })?;
        Ok(waiting)
    }

    /// The groups of what is written next.
    fn taken(outbox: &Outbox) -> Vec<u32> {
        let mut pieces = Pieces::default();
        outbox.take(&mut pieces);
        pieces.frames().into_iter().map(|frame| frame.group).collect()
    }

    fn answer() -> Answer {
        Answer { status: 0, body: Bytes::new() }
    }

    #[test]
    fn a_group_out_of_credit_fails_at_once_and_holds_up_nobody() {
        let outbox = outbox();
        let _first = push(&outbox, 1, false, 900).unwrap();
        assert_eq!(push(&outbox, 1, false, 900).unwrap_err(), PeerError::Busy);
        let _other = push(&outbox, 2, false, 900).unwrap();
        let _heartbeat = push(&outbox, 1, true, 50).unwrap();
        assert_eq!(taken(&outbox), [1, 1, 2]);
        assert_eq!(push(&outbox, 1, false, 900).unwrap_err(), PeerError::Busy, "written is not answered");
        outbox.answered(1, answer()).unwrap();
        assert_eq!(push(&outbox, 1, false, 900).unwrap_err(), PeerError::Busy, "that was the heartbeat");
        outbox.answered(2, answer()).unwrap();
        assert!(push(&outbox, 1, false, 900).is_ok());
    }

    #[test]
    fn groups_take_turns_and_what_is_urgent_goes_first() {
        let outbox = outbox();
        let waiting: Vec<_> = [(1, false), (1, false), (1, false), (2, false), (9, true)]
            .into_iter()
            .map(|(group, urgent)| push(&outbox, group, urgent, 10).unwrap())
            .collect();
        assert_eq!(taken(&outbox), [9, 1, 2, 1, 1]);
        drop(waiting);
    }

    #[test]
    fn what_nobody_waits_for_is_not_written_and_gives_its_credit_back() {
        let outbox = outbox();
        drop(push(&outbox, 1, false, 900).unwrap());
        let _second = push(&outbox, 1, false, 800).unwrap();
        assert_eq!(taken(&outbox).len(), 1);
    }

    #[test]
    fn what_is_urgent_has_room_of_its_own() {
        let outbox = outbox();
        let bulk: Vec<_> = (0..100).map_while(|group| push(&outbox, group, false, 976).ok()).collect();
        assert_eq!(bulk.len(), 7, "seven eighths of 8,000 bytes");
        assert!(push(&outbox, 200, true, 100).is_ok());
    }

    #[test]
    fn streams_and_reads_leave_half_to_replication() {
        let outbox = outbox();
        let streams: Vec<_> =
            (0..100).map_while(|group| push(&outbox, STREAMS_CREDIT | group, false, 776).ok()).collect();
        assert_eq!(streams.len(), 5, "half of 8,000 bytes");
        assert_eq!(push(&outbox, u32::MAX, false, 776).unwrap_err(), PeerError::Busy, "a read");
        assert!(push(&outbox, 1, false, 976).is_ok());
        drop(streams);
        let small: Vec<_> = (0..100).map_while(|_| push(&outbox, u32::MAX, false, 1).ok()).collect();
        assert_eq!(small.len(), 40, "half of 80 requests");
        assert!(push(&outbox, 1, false, 976).is_ok());
    }

    #[test]
    fn repeated_answers_have_no_effect_and_made_up_ones_end_the_connection() {
        let outbox = outbox();
        let mut first = push(&outbox, 1, false, 10).unwrap();
        taken(&outbox);
        outbox.answered(1, answer()).unwrap();
        outbox.answered(1, answer()).unwrap();
        assert!(first.try_recv().unwrap().is_ok());
        assert_eq!(outbox.answered(2, answer()), Err(Cut::Unexpected));
        assert!(push(&outbox, 1, false, 976).is_ok(), "credit was given back once, not twice");
    }

    #[test]
    fn a_lost_connection_fails_what_was_written_and_keeps_the_rest() {
        let outbox = outbox();
        let mut written = push(&outbox, 1, false, 10).unwrap();
        taken(&outbox);
        let mut waits = push(&outbox, 1, false, 10).unwrap();
        outbox.disconnected(Cut::Closed);
        let broken = PeerError::Broken { cut: Cut::Closed, sent: true };
        assert_eq!(written.try_recv().unwrap().unwrap_err(), broken);
        assert!(waits.try_recv().is_err());
        outbox.refuse("a:1", DialError::Deadline);
        let unreachable = PeerError::Unreachable { address: "a:1".into(), reason: DialError::Deadline };
        assert_eq!(waits.try_recv().unwrap().unwrap_err(), unreachable);
        assert_eq!(push(&outbox, 1, false, 10).unwrap_err(), unreachable);
    }
}
