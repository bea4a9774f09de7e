//! Owns the feed reads of one read of the socket: read together, answered together.
//!
//! - A page that cannot be had at once is left to the general way, one by one.

use std::sync::Arc;

use fanfold_cluster::read::{FeedRequest, ReadyFeeds};
use fanfold_protocol::CursorScope;
use fanfold_protocol::message::{ReadFeed, Request};
use tokio::time::Instant;

use super::outgoing::{Outgoing, Slot};
use super::spare;
use crate::dispatch::{self, Answered, Asked, Spent};
use crate::translate;

/// Reads that are answered together, at most: those who answer others of the connection wait meanwhile.
const READS_AT_ONCE: usize = 64;

struct Gathered {
    asked: Asked,
    deadline: Instant,
    read: ReadFeed,
    request: FeedRequest,
    cost: u64,
}

/// A read that is left to the general way.
pub(super) struct Left {
    pub(super) asked: Asked,
    pub(super) deadline: Instant,
    pub(super) request: Request,
    /// None if the node has no room.
    pub(super) slot: Option<Slot>,
}

/// The reads that are gathered, and what they hold until they are begun.
pub(super) struct Reads {
    outgoing: Arc<Outgoing>,
    gathered: Vec<Gathered>,
    bytes: u64,
}

impl Reads {
    pub(super) fn new(outgoing: Arc<Outgoing>) -> Self {
        Self { outgoing, gathered: Vec::new(), bytes: 0 }
    }

    /// How many are gathered.
    pub(super) fn count(&self) -> u64 {
        self.gathered.len() as u64
    }

    /// The bytes that they and their answers will take.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Gathers a read, with what it asks of the node.
    pub(super) fn gather(
        &mut self,
        read: ReadFeed,
        request: FeedRequest,
        asked: Asked,
        deadline: Instant,
        cost: u64,
    ) {
        self.bytes += cost;
        self.gathered.push(Gathered { asked, deadline, read, request, cost });
    }

    /// Answers what was gathered, as far as that needs no waiting; `leave` takes the rest.
    pub(super) fn run(&mut self, mut leave: impl FnMut(Left)) {
        self.bytes = 0;
        while !self.gathered.is_empty() {
            self.run_some(&mut leave);
        }
    }

    fn run_some(&mut self, leave: &mut impl FnMut(Left)) {
        let Self { outgoing, gathered, .. } = self;
        let now_read = &gathered[..gathered.len().min(READS_AT_ONCE)];
        let (count, bytes) = (now_read.len(), now_read.iter().map(|read| read.cost).sum());
        let mut slot = outgoing.begin(count as u64, bytes);
        let mut left = Vec::new();
        if let Some(slot) = &mut slot {
            spare::with_ready(|ready| answer(outgoing, slot, gathered.drain(..count), ready, &mut left));
        } else {
            left.extend(gathered.drain(..count));
        }
        for Gathered { asked, deadline, read, cost, .. } in left {
            let slot = match &mut slot {
                Some(slot) => Some(slot.split(cost)),
                None => outgoing.begin(1, cost),
            };
            leave(Left { asked, deadline, request: Request::ReadFeed(read), slot });
        }
    }
}

/// Answers reads, as far as that needs no waiting; the others are `left`.
fn answer(
    outgoing: &Outgoing,
    slot: &mut Slot,
    reads: std::vec::Drain<'_, Gathered>,
    ready: &mut ReadyFeeds,
    left: &mut Vec<Gathered>,
) {
    let shared = outgoing.shared();
    let bytes_max = dispatch::page_bytes(shared);
    let asked = reads.as_slice();
    shared.node.ready_feeds(bytes_max, asked.len(), |place| &asked[place].request, ready);
    let bytes = asked.iter().map(|read| read.cost).sum::<u64>() as usize;
    let mut answered = Answered::now(shared);
    let mut answers = outgoing.lock();
    for (place, read) in reads.enumerate() {
        let (scope, reader) = (CursorScope::Feed(read.read.space), read.read.reader);
        let page = ready.take(place);
        let page =
            page.and_then(|found| Some((translate::ready_page(&found, scope, reader, bytes_max)?, found)));
        let Some((page, found)) = page else {
            left.push(read);
            continue;
        };
        let entries = found.entries().map(translate::entry_parts);
        let Gathered { asked, cost, .. } = read;
        answers.make_room(bytes);
        let packed = answers.put_page((&mut *slot, cost), asked.opcode, asked.id, &page, entries);
        answered.note(&asked, packed.err().as_ref(), Spent::default());
    }
}
