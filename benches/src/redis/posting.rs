//! Owns the posts of a measurement: when each is sent, which replies it waits for, and what is counted.
//!
//! - A post is complete when every reply of every instance has arrived. In the ways with a SET its answer is that of the SET; the
//!   function answers when everything is delivered.
//! - Deliveries are counted from the replies: the integer of each RPUSH is one, that of a script or function is how many it pushed.
//! - In an open loop a post's time counts from when it was due, not from when it could be sent.

use std::collections::VecDeque;
use std::time::Duration;

use super::encode::{Encoder, Job};
use super::error::RedisError;
use super::keys;
use super::oracle::PostLog;
use super::pump::{BACKLOG_BYTES_MAX, Load, Micros};
use super::resp::Reply;
use super::socket::Socket;
use crate::load::target::{MicrosHistogram, micros_histogram};

/// Reads or posts under way on a lane in an open loop at most: what is due does not wait for answers.
pub const OPEN_LOOP_IN_FLIGHT_MAX: u32 = 1_024;

/// When posts are sent.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Posts under way on each lane at most.
    pub in_flight: u32,
    /// Posts a second over all lanes; without it each completed post causes the next.
    pub rate: Option<f64>,
    /// No post is due from this time on. In an open loop what was due before is begun even later: to leave out what a slow server did
    /// not come to would hide its latency.
    pub end: Micros,
}

impl Pace {
    /// When the request with this number from 0 is due, of a load that began at `start`: in a closed loop at once.
    pub fn due(&self, start: Micros, number: u64, now: Micros) -> Micros {
        self.rate.map_or(now, |rate| start + (number as f64 * 1e6 / rate) as Micros)
    }

    /// Whether what is due then is not begun any more.
    pub fn is_over(&self, due: Micros) -> bool {
        due >= self.end
    }
}

/// The post of an owner whom everybody follows, now and then, on a lane of its own: the last.
#[derive(Debug)]
struct Whale {
    pause: Duration,
    /// From the answer of a post to its last delivery; from the sending, where the answer comes last.
    micros: MicrosHistogram,
    due: Micros,
    under_way: bool,
}

/// What has been counted.
#[derive(Debug)]
pub struct Counted {
    /// Posts complete.
    pub posts: u64,
    /// Deliveries answered.
    pub deliveries: u64,
    /// From sending (or the due time) to the answer.
    pub answer: MicrosHistogram,
    /// From the answer to the last delivery; empty if the answer comes last.
    pub last_delivery: MicrosHistogram,
    /// From sending (or the due time) to the last delivery.
    pub whole: MicrosHistogram,
    /// When the last delivery was answered.
    pub last: Micros,
}

/// A post's commands on one socket.
#[derive(Debug)]
struct Part {
    slot: usize,
    job: Job,
    replies_left: u32,
    encoded: bool,
    payload_unanswered: bool,
}

/// A post under way.
#[derive(Debug, Clone, Copy)]
struct Active {
    post: u32,
    lane: usize,
    begun: Micros,
    answered: Option<Micros>,
    parts_left: u32,
    of_whale: bool,
}

#[derive(Debug, Default)]
struct Queue {
    parts: VecDeque<Part>,
    /// How many at the front are encoded whole.
    encoded: usize,
}

/// Posts over lanes `0..lanes`.
#[derive(Debug)]
pub struct Posting<'a> {
    encoder: Encoder<'a>,
    log: &'a mut PostLog,
    pace: Pace,
    first_post: u64,
    begun: u64,
    start: Micros,
    turn: usize,
    queues: Vec<Queue>,
    under_way: Vec<u32>,
    slots: Vec<Active>,
    free: Vec<usize>,
    whale: Option<Whale>,
    counted: Counted,
}

impl<'a> Posting<'a> {
    /// Posts by the owners of the posts from `first_post` on, over `lanes` lanes beginning at `now`.
    pub fn new(
        encoder: Encoder<'a>,
        log: &'a mut PostLog,
        pace: Pace,
        first_post: u64,
        lanes: usize,
        now: Micros,
    ) -> Self {
        let sockets = lanes * encoder.plan().instances();
        let counted = Counted {
            posts: 0,
            deliveries: 0,
            answer: micros_histogram(),
            last_delivery: micros_histogram(),
            whole: micros_histogram(),
            last: now,
        };
        Self {
            encoder,
            log,
            pace,
            first_post,
            begun: 0,
            start: now,
            turn: 0,
            queues: (0..sockets).map(|_| Queue::default()).collect(),
            under_way: vec![0; lanes],
            slots: Vec::new(),
            free: Vec::new(),
            whale: None,
            counted,
        }
    }

    /// Gives the last lane to the whale, who posts every `pause` from `now` on.
    pub fn with_whale(mut self, pause: Duration, now: Micros) -> Self {
        let due = now + pause.as_micros() as Micros;
        self.whale = Some(Whale { pause, micros: micros_histogram(), due, under_way: false });
        self
    }

    /// The times of the whale's posts, if there is a whale.
    pub fn take_whale(&mut self) -> Option<MicrosHistogram> {
        self.whale.take().map(|whale| whale.micros)
    }

    /// What has been counted.
    pub fn into_counted(self) -> Counted {
        self.counted
    }

    /// Whether no post will begin any more and none is under way.
    pub fn is_finished(&self, now: Micros) -> bool {
        let is_over = self.pace.is_over(self.due(now)) && self.whale_due().is_none();
        is_over && self.free.len() == self.slots.len()
    }

    /// When the next post is due: in a closed loop at once.
    fn due(&self, now: Micros) -> Micros {
        self.pace.due(self.start, self.begun, now)
    }

    /// When the whale's next post is due; none if it does not post any more.
    fn whale_due(&self) -> Option<Micros> {
        self.whale.as_ref().map(|whale| whale.due).filter(|due| !self.pace.is_over(*due))
    }

    fn own_lanes(&self) -> usize {
        self.under_way.len() - usize::from(self.whale.is_some())
    }

    fn begin(&mut self, lane: usize, owner: u32, begun: Micros, of_whale: bool) {
        let post = self.log.send(owner);
        let plan = self.encoder.plan();
        let id = keys::id_of(plan.fill_posts() + u64::from(post));
        let slot = self.free.pop().unwrap_or(self.slots.len());
        let mut parts_left = 0;
        for instance in 0..plan.instances() {
            let with_payload = keys::payload_instance_of(id, plan.instances()) == instance;
            if !self.encoder.needs(owner, instance, with_payload) {
                continue;
            }
            parts_left += 1;
            self.queues[lane * plan.instances() + instance].parts.push_back(Part {
                slot,
                job: Job { id, owner, instance, with_payload, cursor: 0 },
                replies_left: 0,
                encoded: false,
                payload_unanswered: with_payload && self.encoder.answers_payload(),
            });
        }
        let active = Active { post, lane, begun, answered: None, parts_left, of_whale };
        if slot == self.slots.len() {
            self.slots.push(active);
        } else {
            self.slots[slot] = active;
        }
        self.under_way[lane] += 1;
    }

    /// Begins what may begin on a lane now.
    fn begin_due(&mut self, lane: usize, now: Micros) {
        if lane >= self.own_lanes() {
            let is_due = self.whale_due().is_some_and(|due| due <= now);
            let Some(whale) = &mut self.whale else { return };
            if !whale.under_way && is_due {
                whale.under_way = true;
                let due = whale.due;
                whale.due += whale.pause.as_micros() as Micros;
                let owner = self.encoder.plan().whale();
                self.begin(lane, owner, due, true);
            }
            return;
        }
        while self.under_way[lane] < self.pace.in_flight {
            let due = self.due(now);
            if due > now || self.pace.is_over(due) {
                return;
            }
            let owner = self.encoder.plan().graph().owner_of_post(self.first_post + self.begun);
            self.begun += 1;
            self.begin(lane, owner, due, false);
            if self.pace.rate.is_some() {
                // The next one that is due goes to the next lane.
                return;
            }
        }
    }

    fn encode(&mut self, lane: usize, sockets: &mut [Socket]) {
        let instances = sockets.len();
        for (instance, socket) in sockets.iter_mut().enumerate() {
            let queue = &mut self.queues[lane * instances + instance];
            while socket.backlog_bytes() < BACKLOG_BYTES_MAX {
                let Some(part) = queue.parts.get_mut(queue.encoded) else { break };
                part.replies_left += self.encoder.step(&mut part.job, &mut socket.out);
                if self.encoder.is_done(&part.job) {
                    part.encoded = true;
                    queue.encoded += 1;
                }
            }
        }
    }

    /// Notes that one part of a post has all its replies.
    fn part_done(&mut self, slot: usize, now: Micros) {
        let active = &mut self.slots[slot];
        active.parts_left -= 1;
        if active.parts_left > 0 {
            return;
        }
        let active = *active;
        self.free.push(slot);
        self.under_way[active.lane] -= 1;
        self.log.complete(active.post);
        self.counted.last = now;
        let since = |from: Micros| now.saturating_sub(from).max(1);
        if active.of_whale {
            if let Some(whale) = &mut self.whale {
                whale.under_way = false;
                note(&mut whale.micros, since(active.answered.unwrap_or(active.begun)));
            }
            return;
        }
        self.counted.posts += 1;
        note(&mut self.counted.whole, since(active.begun));
        match active.answered {
            Some(answered) => {
                note(&mut self.counted.answer, answered.saturating_sub(active.begun).max(1));
                note(&mut self.counted.last_delivery, now.saturating_sub(answered));
            }
            None => note(&mut self.counted.answer, since(active.begun)),
        }
    }
}

/// Records a time; times above the histogram's range count as its highest.
pub fn note(histogram: &mut MicrosHistogram, micros: Micros) {
    histogram.saturating_record(micros);
}

impl Load for Posting<'_> {
    fn issue(&mut self, lane: usize, sockets: &mut [Socket], now: Micros) {
        self.begin_due(lane, now);
        self.encode(lane, sockets);
    }

    fn reply(
        &mut self,
        lane: usize,
        instance: usize,
        reply: Reply<'_>,
        now: Micros,
    ) -> Result<(), RedisError> {
        let queue = &mut self.queues[lane * self.encoder.plan().instances() + instance];
        let unexpected = RedisError::Unexpected { command: "a post" };
        let Some(part) = queue.parts.front_mut() else { return Err(unexpected) };
        let Some(left) = part.replies_left.checked_sub(1) else { return Err(unexpected) };
        part.replies_left = left;
        match reply.integer() {
            Some(_) if self.encoder.counts_each() => self.counted.deliveries += 1,
            Some(pushed) => self.counted.deliveries += u64::try_from(pushed).unwrap_or(0),
            None if part.payload_unanswered => {
                part.payload_unanswered = false;
                self.slots[part.slot].answered = Some(now);
            }
            // A trim.
            None => {}
        }
        if left == 0 && part.encoded {
            let slot = part.slot;
            queue.parts.pop_front();
            queue.encoded -= 1;
            self.part_done(slot, now);
        }
        Ok(())
    }

    fn next_due(&self) -> Option<Micros> {
        let is_idle = self.whale.as_ref().is_some_and(|whale| !whale.under_way);
        let whale = self.whale_due().filter(|_| is_idle);
        let lanes = &self.under_way[..self.own_lanes()];
        let room = self.pace.rate.is_some() && lanes.iter().any(|count| *count < self.pace.in_flight);
        let post = room.then_some(self.due(0)).filter(|due| !self.pace.is_over(*due));
        match (whale, post) {
            (Some(whale), Some(post)) => Some(whale.min(post)),
            (whale, post) => whale.or(post),
        }
    }

    fn due_lane(&mut self, now: Micros) -> Option<usize> {
        let own = self.own_lanes();
        let is_idle = self.whale.as_ref().is_some_and(|whale| !whale.under_way);
        if is_idle && self.whale_due().is_some_and(|due| due <= now) {
            return Some(own);
        }
        let due = self.due(now);
        if self.pace.rate.is_none() || due > now || self.pace.is_over(due) {
            return None;
        }
        let turn = (0..own).map(|step| (self.turn + step) % own);
        let lane = turn.into_iter().find(|lane| self.under_way[*lane] < self.pace.in_flight)?;
        self.turn = lane + 1;
        Some(lane)
    }
}
