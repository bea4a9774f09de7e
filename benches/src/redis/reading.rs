//! Owns the feed reads of a measurement: when each is sent, what it still waits for, and what is counted.
//!
//! - A page is complete when it stands in the client, merged, and with payloads if they were asked for.
//! - In an open loop a read's time counts from when it was due.
//! - A few pages are kept, to be compared with the oracle.

use std::collections::{HashMap, VecDeque};

use super::error::RedisError;
use super::keys::{self, List};
use super::oracle;
use super::pages::{self, ReadWay};
use super::plan::Plan;
use super::posting::{self, Pace};
use super::pump::{Load, Micros};
use super::resp::{self, Reply};
use super::socket::Socket;
use crate::load::target::{MicrosHistogram, micros_histogram};

/// How long the client keeps a celebrity's list.
const CACHED_MICROS: Micros = 1_000_000;
/// One page of so many is kept for the comparison.
const KEEP_ONE_IN: u64 = 61;

/// What is read.
#[derive(Debug, Clone, Copy)]
pub struct ReadKind {
    /// How.
    pub way: ReadWay,
    /// Whether readers follow celebrities; if not given, every second does.
    pub celebrities: Option<bool>,
    /// Whether payloads come along.
    pub hydrate: bool,
    /// Bytes of each payload.
    pub payload_bytes: u32,
    /// Entries of a page.
    pub limit: u32,
    /// What reads are numbered from.
    pub first_read: u64,
    /// Pages kept at most.
    pub keep: u32,
}

/// What a socket waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// A list of ids for the page in this slot.
    Ids(usize),
    /// Payloads for the page in this slot.
    Payloads(usize),
    /// Ids and payloads together for the page in this slot.
    Both(usize),
    /// Ids and payloads by turns for the page in this slot.
    Pairs(usize),
    /// A celebrity's list for the cache.
    Refresh(u32),
}

/// A page under way.
#[derive(Debug, Default)]
struct Page {
    lane: usize,
    reader: u32,
    begun: Micros,
    replies_left: u32,
    ids: Vec<u64>,
    /// Whether the payloads were asked for: the second round trip.
    hydrating: bool,
}

/// What has been read.
#[derive(Debug)]
pub struct Taken {
    /// Pages complete.
    pub reads: u64,
    /// From sending (or the due time) to the complete page.
    pub micros: MicrosHistogram,
    /// Payloads that were not there, or not as long as they were stored.
    pub missing_payloads: u64,
    /// Pages kept: reader and ids, the newest first.
    pub kept: Vec<(u32, Vec<u64>)>,
    /// When the last page was complete.
    pub last: Micros,
}

/// Reads over lanes `0..lanes`.
#[derive(Debug)]
pub struct Reading<'a> {
    plan: &'a Plan,
    kind: ReadKind,
    pace: Pace,
    begun: u64,
    start: Micros,
    turn: usize,
    waits: Vec<VecDeque<Wait>>,
    under_way: Vec<u32>,
    /// Pages whose ids are there, for which payloads must be asked, by lane.
    to_hydrate: Vec<Vec<usize>>,
    slots: Vec<Page>,
    free: Vec<usize>,
    cache: HashMap<u32, Vec<u64>>,
    refreshed: Option<Micros>,
    taken: Taken,
}

impl<'a> Reading<'a> {
    /// Reads over `lanes` lanes, beginning at `now`.
    pub fn new(plan: &'a Plan, kind: ReadKind, pace: Pace, lanes: usize, now: Micros) -> Self {
        Self {
            plan,
            kind,
            pace,
            begun: 0,
            start: now,
            turn: 0,
            waits: vec![VecDeque::new(); lanes * plan.instances()],
            under_way: vec![0; lanes],
            to_hydrate: vec![Vec::new(); lanes],
            slots: Vec::new(),
            free: Vec::new(),
            cache: HashMap::new(),
            refreshed: None,
            taken: Taken {
                reads: 0,
                micros: micros_histogram(),
                missing_payloads: 0,
                kept: Vec::new(),
                last: now,
            },
        }
    }

    /// Begins with these celebrity lists in the cache.
    pub fn with_cache(mut self, lists: HashMap<u32, Vec<u64>>, now: Micros) -> Self {
        (self.cache, self.refreshed) = (lists, Some(now));
        self
    }

    /// Whether no read will begin any more and none is under way.
    pub fn is_finished(&self, now: Micros) -> bool {
        self.pace.is_over(self.due(now)) && self.free.len() == self.slots.len()
    }

    /// When the next read is due: in a closed loop at once.
    fn due(&self, now: Micros) -> Micros {
        self.pace.due(self.start, self.begun, now)
    }

    /// What has been read.
    pub fn into_taken(self) -> Taken {
        self.taken
    }

    fn wait(&mut self, lane: usize, instance: usize, wait: Wait, times: u32) {
        let queue = &mut self.waits[lane * self.plan.instances() + instance];
        queue.extend(std::iter::repeat_n(wait, times as usize));
    }

    fn begin_due(&mut self, lane: usize, sockets: &mut [Socket], now: Micros) {
        if self.pace.is_over(self.due(now)) {
            return;
        }
        self.refresh(lane, sockets, now);
        while self.under_way[lane] < self.pace.in_flight {
            let due = self.due(now);
            if due > now || self.pace.is_over(due) {
                return;
            }
            self.begin(lane, sockets, due);
            if self.pace.rate.is_some() {
                return;
            }
        }
    }

    fn begin(&mut self, lane: usize, sockets: &mut [Socket], begun: Micros) {
        let celebrities = self.kind.celebrities.unwrap_or(self.begun.is_multiple_of(2));
        let reader = self.plan.graph().reader_of_read(self.kind.first_read + self.begun, celebrities);
        self.begun += 1;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Page::default());
            self.slots.len() - 1
        });
        let instance = self.plan.instance_of(reader);
        let celebrities: Vec<u32> = match self.kind.way {
            ReadWay::Pipeline | ReadWay::Merge | ReadWay::HydrateMerge => {
                self.plan.graph().celebrities_of(reader).collect()
            }
            _ => Vec::new(),
        };
        let out = &mut sockets[instance].out;
        let replies = self.kind.way.encode(out, reader, &celebrities, self.kind.limit);
        let page = &mut self.slots[slot];
        page.ids.clear();
        (page.lane, page.reader, page.begun) = (lane, reader, begun);
        (page.replies_left, page.hydrating) = (replies, false);
        self.under_way[lane] += 1;
        let wait = match self.kind.way {
            ReadWay::HydrateFunction | ReadWay::HydrateMerge => Wait::Both(slot),
            ReadWay::HydrateSort => Wait::Pairs(slot),
            _ => Wait::Ids(slot),
        };
        self.wait(lane, instance, wait, replies);
    }

    /// Asks for the celebrities' lists again when they are a second old.
    fn refresh(&mut self, lane: usize, sockets: &mut [Socket], now: Micros) {
        let old = self.refreshed.is_none_or(|at| at + CACHED_MICROS <= now);
        if self.kind.way != ReadWay::Cached || !old {
            return;
        }
        self.refreshed = Some(now);
        for celebrity in self.plan.celebrities() {
            oracle::read_newest(&mut sockets[0].out, List::Celebrity(celebrity), self.kind.limit);
            self.wait(lane, 0, Wait::Refresh(celebrity), 1);
        }
    }

    /// The ids of a page are all there: merge them, and ask for payloads or complete it.
    fn ids_complete(&mut self, slot: usize, now: Micros) {
        let page = &mut self.slots[slot];
        if self.kind.way == ReadWay::Cached {
            for celebrity in self.plan.graph().celebrities_of(page.reader) {
                page.ids.extend_from_slice(self.cache.get(&celebrity).map_or(&[][..], Vec::as_slice));
            }
        }
        if self.kind.way != ReadWay::Merge {
            pages::newest(&mut page.ids, self.kind.limit as usize);
        }
        let comes_with_payloads =
            matches!(self.kind.way, ReadWay::HydrateFunction | ReadWay::HydrateSort | ReadWay::HydrateMerge);
        if self.kind.hydrate && !comes_with_payloads && !page.ids.is_empty() {
            self.to_hydrate[page.lane].push(slot);
        } else {
            self.complete(slot, now);
        }
    }

    fn hydrate(&mut self, lane: usize, sockets: &mut [Socket]) {
        let instances = self.plan.instances();
        while let Some(slot) = self.to_hydrate[lane].pop() {
            let page = &mut self.slots[slot];
            page.hydrating = true;
            for (instance, socket) in sockets.iter_mut().enumerate() {
                let here = |id: &u64| keys::payload_instance_of(*id, instances) == instance;
                let count = page.ids.iter().filter(|id| here(id)).count();
                if count == 0 {
                    continue;
                }
                resp::begin(&mut socket.out, count + 1);
                resp::argument(&mut socket.out, b"MGET");
                for id in page.ids.iter().filter(|id| here(id)) {
                    resp::key(&mut socket.out, keys::PAYLOAD, *id);
                }
                page.replies_left += 1;
                self.waits[lane * instances + instance].push_back(Wait::Payloads(slot));
            }
        }
    }

    fn complete(&mut self, slot: usize, now: Micros) {
        let (page, taken) = (&self.slots[slot], &mut self.taken);
        taken.reads += 1;
        posting::note(&mut taken.micros, now.saturating_sub(page.begun).max(1));
        taken.last = now;
        if taken.reads.is_multiple_of(KEEP_ONE_IN) && taken.kept.len() < self.kind.keep as usize {
            taken.kept.push((page.reader, page.ids.clone()));
        }
        self.under_way[page.lane] -= 1;
        self.free.push(slot);
    }

    fn take_id(page: &mut Page, item: Reply<'_>) -> Result<(), RedisError> {
        let id = item.bytes().and_then(resp::parse).ok_or(RedisError::Unexpected { command: "LRANGE" })?;
        page.ids.push(id as u64);
        Ok(())
    }

    fn take_ids(page: &mut Page, reply: Reply<'_>) -> Result<(), RedisError> {
        reply.items().try_for_each(|item| Self::take_id(page, item))
    }

    fn take_payloads(&mut self, reply: Reply<'_>) {
        reply.items().for_each(|item| self.take_payload(item));
    }

    fn take_payload(&mut self, item: Reply<'_>) {
        let is_whole = item.bytes().is_some_and(|payload| payload.len() == self.kind.payload_bytes as usize);
        self.taken.missing_payloads += u64::from(!is_whole);
    }

    /// Takes an id and its payload, and so on.
    fn take_pairs(&mut self, slot: usize, reply: Reply<'_>) -> Result<(), RedisError> {
        let mut items = reply.items();
        while let Some(id) = items.next() {
            Self::take_id(&mut self.slots[slot], id)?;
            self.take_payload(items.next().ok_or(RedisError::Unexpected { command: "SORT" })?);
        }
        Ok(())
    }
}

impl Load for Reading<'_> {
    fn issue(&mut self, lane: usize, sockets: &mut [Socket], now: Micros) {
        self.hydrate(lane, sockets);
        self.begin_due(lane, sockets, now);
    }

    fn reply(
        &mut self,
        lane: usize,
        instance: usize,
        reply: Reply<'_>,
        now: Micros,
    ) -> Result<(), RedisError> {
        let unexpected = RedisError::Unexpected { command: "a read" };
        let queue = &mut self.waits[lane * self.plan.instances() + instance];
        let slot = match queue.pop_front() {
            None => return Err(unexpected),
            Some(Wait::Refresh(celebrity)) => {
                self.cache.insert(celebrity, oracle::ids(reply));
                return Ok(());
            }
            Some(Wait::Ids(slot)) => {
                Self::take_ids(&mut self.slots[slot], reply)?;
                slot
            }
            Some(Wait::Payloads(slot)) => {
                self.take_payloads(reply);
                slot
            }
            Some(Wait::Pairs(slot)) => {
                self.take_pairs(slot, reply)?;
                slot
            }
            Some(Wait::Both(slot)) => {
                let mut halves = reply.items();
                let (Some(ids), Some(payloads)) = (halves.next(), halves.next()) else {
                    return Err(unexpected);
                };
                Self::take_ids(&mut self.slots[slot], ids)?;
                self.take_payloads(payloads);
                slot
            }
        };
        let page = &mut self.slots[slot];
        page.replies_left -= 1;
        if page.replies_left == 0 {
            if page.hydrating {
                self.complete(slot, now);
            } else {
                self.ids_complete(slot, now);
            }
        }
        Ok(())
    }

    fn next_due(&self) -> Option<Micros> {
        let room = self.under_way.iter().any(|count| *count < self.pace.in_flight);
        let due = (self.pace.rate.is_some() && room).then_some(self.due(0));
        due.filter(|due| !self.pace.is_over(*due))
    }

    fn due_lane(&mut self, now: Micros) -> Option<usize> {
        let due = self.due(now);
        if self.pace.rate.is_none() || due > now || self.pace.is_over(due) {
            return None;
        }
        let lanes = self.under_way.len();
        let mut turn = (0..lanes).map(|step| (self.turn + step) % lanes);
        let lane = turn.find(|lane| self.under_way[*lane] < self.pace.in_flight)?;
        self.turn = lane + 1;
        Some(lane)
    }
}
