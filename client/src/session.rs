//! Owns the sessions of this client, one per partition at a time, and the numbering of writes within them (R18).
//!
//! Invariants:
//! - A sequence is given out once and never again, whatever becomes of its write.
//! - The lowest unanswered sequence never exceeds one that is still held by a ticket, and passes those that are not:
//!   a write given up by its caller holds nobody back.
//! - The next sequence stays within `SESSION_WINDOW` of the lowest unanswered one, so that the partition never holds
//!   more results than it may. A write that stays open long (a block that waits for a silent partition) ends the
//!   session's use early; the writes after it take a new session.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use fanfold_protocol::message::WriteTag;
use fanfold_protocol::{PartitionId, Sequence, SessionId};
use tokio::sync::Semaphore;

use crate::defaults;
use crate::lock::lock;
use crate::renewable::Renewable;

/// A session with one partition.
#[derive(Debug)]
pub(crate) struct Session {
    id: SessionId,
    numbers: Mutex<Numbers>,
}

#[derive(Debug)]
struct Numbers {
    next: u64,
    open: BTreeSet<u64>,
}

impl Session {
    pub fn new(id: SessionId) -> Self {
        Self { id, numbers: Mutex::new(Numbers { next: 1, open: BTreeSet::new() }) }
    }

    pub fn id(&self) -> SessionId {
        self.id
    }

    /// The number for one more write; `None` once the window is used up.
    pub fn ticket(self: &Arc<Self>) -> Option<Ticket> {
        let mut numbers = lock(&self.numbers);
        let lowest = numbers.open.first().copied().unwrap_or(numbers.next);
        if numbers.next - lowest >= defaults::SESSION_WINDOW {
            return None;
        }
        let sequence = numbers.next;
        numbers.next += 1;
        numbers.open.insert(sequence);
        Some(Ticket { session: self.clone(), sequence })
    }
}

/// The number of one write, unanswered until this is dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    session: Arc<Session>,
    sequence: u64,
}

impl Ticket {
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// The tag to send now. Session and sequence stay the same for every attempt.
    pub fn tag(&self) -> WriteTag {
        let lowest = lock(&self.session.numbers).open.first().copied();
        let lowest = lowest.expect("this ticket's own sequence is open until it is dropped");
        WriteTag {
            session: self.session.id,
            sequence: Sequence(self.sequence),
            lowest_unanswered: Sequence(lowest),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        lock(&self.session.numbers).open.remove(&self.sequence);
    }
}

/// What the writes to one partition share.
#[derive(Debug)]
pub(crate) struct Lane {
    /// The session that new writes use.
    pub session: Renewable<Session>,
    /// Taken by each write under way.
    pub permits: Semaphore,
}

/// The lanes of all partitions written to so far.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    by_partition: Mutex<HashMap<PartitionId, Arc<Lane>>>,
}

impl Lanes {
    pub fn of(&self, partition: PartitionId) -> Arc<Lane> {
        let new = || Lane {
            session: Renewable::new(),
            permits: Semaphore::new(defaults::WRITES_PER_PARTITION_MAX),
        };
        lock(&self.by_partition).entry(partition).or_insert_with(|| Arc::new(new())).clone()
    }

    /// The sessions in use, each with its partition; from here on there are none.
    pub fn drain(&self) -> Vec<(PartitionId, SessionId)> {
        let lanes = std::mem::take(&mut *lock(&self.by_partition));
        lanes
            .into_iter()
            .filter_map(|(partition, lane)| lane.session.peek().map(|session| (partition, session.id())))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(ticket: &Ticket) -> (u64, u64) {
        let tag = ticket.tag();
        (tag.sequence.0, tag.lowest_unanswered.0)
    }

    #[test]
    fn lowest_unanswered_follows_the_oldest_open_write() {
        let session = Arc::new(Session::new(SessionId(7)));
        let first = session.ticket().expect("window is free");
        let second = session.ticket().expect("window is free");
        let third = session.ticket().expect("window is free");
        assert_eq!(tag(&third), (3, 1));
        drop(second);
        assert_eq!(tag(&third), (3, 1));
        drop(first);
        assert_eq!(tag(&third), (3, 3));
        drop(third);
        assert_eq!(tag(&session.ticket().expect("window is free")), (4, 4));
    }

    #[test]
    fn window_closes_behind_a_write_that_stays_open() {
        let session = Arc::new(Session::new(SessionId(7)));
        let oldest = session.ticket().expect("window is free");
        for _ in 1..defaults::SESSION_WINDOW {
            assert!(session.ticket().is_some());
        }
        assert!(session.ticket().is_none());
        drop(oldest);
        assert!(session.ticket().is_some());
    }
}
