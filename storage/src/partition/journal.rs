//! Owns the journal: the events for other partitions, each once, and the outgoing streams that carry them.
//!
//! - An event is recorded by the same command that caused it, with the destinations it concerns.
//! - It leaves only by a command of the log (R8), once every active destination has applied it. Its bucket stays as it is: a
//!   bucket's events before the first one kept are ignored.
//! - A destination that was silent for too long is dropped and later resumed in a new epoch (R10, R11).

use std::collections::BTreeMap;

use super::cut::Tracked;
use super::deque::ChunkedDeque;
use super::heap::{HeapBytes, allocated};
use crate::codec::{Encoded, encoded_struct};
use crate::entry::Delivery;
use crate::event::{Event, FilledOwner, SpaceBackfill, StreamAnswer, StreamMessage};
use crate::ids::{EntryId, Generation, JournalPosition, PartitionId, SpaceId, Stamp, StreamEpoch, UserId};

#[derive(Clone, Debug)]
pub(super) struct Recorded {
    pub(super) at: Stamp,
    /// Ascending.
    pub(super) destinations: Box<[PartitionId]>,
    pub(super) event: Event,
}

encoded_struct!(Recorded { at, destinations, event });
encoded_struct!(Outgoing { resets, active, incarnation, begun, trimmed });

/// Events of a bucket, as a power of two.
pub(super) const BUCKET_SHIFT: u32 = 10;

impl Recorded {
    /// Bytes of memory it holds beside itself.
    fn memory(&self) -> usize {
        let beside = match &self.event {
            Event::Backfill { spaces, .. } => {
                let rows = |s: &SpaceBackfill| allocated(s.deliveries.capacity() * size_of::<Delivery>());
                allocated(spaces.capacity() * size_of::<SpaceBackfill>())
                    + spaces.iter().map(rows).sum::<usize>()
            }
            Event::Reset { blocks } => allocated(blocks.capacity() * size_of::<(UserId, UserId)>()),
            Event::SubscribeMany { owners, .. } => {
                allocated(owners.capacity() * size_of::<(UserId, Generation)>())
            }
            Event::Filled { owners, .. } => {
                let floors =
                    |o: &FilledOwner| allocated(o.floors.capacity() * size_of::<(SpaceId, EntryId)>());
                allocated(owners.capacity() * size_of::<FilledOwner>())
                    + owners.iter().map(floors).sum::<usize>()
            }
            Event::Raise { floors } => {
                allocated(floors.capacity() * size_of::<(SpaceId, (UserId, EntryId))>())
            }
            _ => 0,
        };
        allocated(size_of_val::<[PartitionId]>(&self.destinations)) + beside
    }
}

/// One outgoing stream.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    pub(super) resets: u64,
    /// Whether events are kept for the destination.
    pub(super) active: bool,
    /// The incarnation of the destination that this epoch speaks to.
    pub(super) incarnation: u64,
    /// Events before this position do not belong to this epoch.
    pub(super) begun: JournalPosition,
    /// The last event for the destination that was trimmed in this epoch.
    pub(super) trimmed: JournalPosition,
}

impl Default for Outgoing {
    fn default() -> Self {
        let zero = JournalPosition(0);
        Self { resets: 0, active: true, incarnation: super::FIRST_INCARNATION, begun: zero, trimmed: zero }
    }
}

/// What a stream's destination has not acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    /// How many events.
    pub events: u64,
    /// When the oldest was recorded.
    pub oldest: Option<Stamp>,
    /// The position of the last.
    pub last: Option<JournalPosition>,
}

/// What the sender of a stream does next, given where the destination stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamVerdict {
    /// Send what comes after this position.
    SendAfter(JournalPosition),
    /// The two ends do not fit: propose [`Command::ResumeDestination`](crate::command::Command) with this incarnation.
    Resume {
        /// The destination's incarnation now.
        incarnation: u64,
    },
}

#[derive(Debug)]
pub(super) struct Journal {
    /// Events by position.
    pub(super) tracked: Tracked,
    events: ChunkedDeque<Recorded>,
    /// The position of the first event kept.
    pub(super) first: u64,
    pub(super) streams: BTreeMap<PartitionId, Outgoing>,
    /// Of what the events hold.
    heap: HeapBytes,
    /// The destinations of the event that is recorded; kept for its memory.
    concerned: Vec<PartitionId>,
}

impl Default for Journal {
    fn default() -> Self {
        Self {
            tracked: Tracked::new(BUCKET_SHIFT),
            events: ChunkedDeque::default(),
            first: 1,
            streams: BTreeMap::new(),
            heap: HeapBytes::default(),
            concerned: Vec::new(),
        }
    }
}

impl Journal {
    pub(super) fn next(&self) -> JournalPosition {
        JournalPosition(self.first + self.events.len() as u64)
    }

    /// Records an event for the active ones of `destinations` (ascending).
    pub(super) fn record(
        &mut self,
        at: Stamp,
        destinations: impl IntoIterator<Item = PartitionId>,
        event: Event,
    ) {
        let Self { streams, concerned, .. } = self;
        concerned.clear();
        concerned.extend(destinations.into_iter().filter(|d| streams.entry(*d).or_default().active));
        if !concerned.is_empty() {
            let destinations = Box::from(&concerned[..]);
            self.push(Recorded { at, destinations, event });
        }
    }

    /// Adds an event behind all others.
    pub(super) fn push(&mut self, recorded: Recorded) {
        self.tracked.add(self.next().0);
        self.heap.replace(0, recorded.memory());
        self.events.push_back(recorded);
    }

    /// How many events are kept.
    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    /// Writes an event as a bucket holds it.
    pub(super) fn encode_event(&self, position: u64, out: &mut Vec<u8>) {
        if let Some(event) = self.events.get((position - self.first) as usize) {
            event.encode(out);
        }
    }

    /// Events for `destination` behind `after`, in order.
    pub(super) fn for_destination(
        &self,
        destination: PartitionId,
        after: JournalPosition,
    ) -> impl Iterator<Item = (JournalPosition, &Recorded)> {
        let stream = self.streams.get(&destination).filter(|s| s.active);
        let from = stream.map_or(self.next(), |s| s.begun.max(JournalPosition(after.0 + 1)));
        let skip = from.0.saturating_sub(self.first) as usize;
        let ahead = self.events.iter_from(skip).enumerate();
        let ahead = ahead.map(move |(n, e)| (JournalPosition(self.first + (skip + n) as u64), e));
        ahead.filter(move |(_, e)| e.destinations.binary_search(&destination).is_ok())
    }

    pub(super) fn trim(&mut self, through: JournalPosition) {
        while self.first <= through.0 {
            let Some(event) = self.events.pop_front() else { return };
            self.tracked.save(self.first, |out| event.encode(out));
            self.heap.replace(event.memory(), 0);
            let position = JournalPosition(self.first);
            self.first += 1;
            for destination in &event.destinations {
                let stream = self.streams.entry(*destination).or_default();
                if stream.active && position >= stream.begun {
                    stream.trimmed = position;
                }
            }
        }
    }

    /// Stops keeping events for a destination.
    pub(super) fn drop_destination(&mut self, destination: PartitionId) {
        self.streams.entry(destination).or_default().active = false;
    }

    /// Begins a new epoch: nothing recorded so far belongs to it.
    pub(super) fn resume(&mut self, destination: PartitionId, incarnation: u64) {
        let begun = self.next();
        let stream = self.streams.entry(destination).or_default();
        *stream = Outgoing {
            resets: stream.resets + 1,
            active: true,
            incarnation,
            begun,
            trimmed: JournalPosition(0),
        };
    }

    pub(super) fn epoch(&self, destination: PartitionId, incarnation: u64) -> StreamEpoch {
        StreamEpoch { incarnation, resets: self.streams.get(&destination).map_or(0, |s| s.resets) }
    }

    /// What to do after `answer` came from `destination`.
    pub(super) fn verdict(
        &self,
        destination: PartitionId,
        own_incarnation: u64,
        answer: &StreamAnswer,
    ) -> StreamVerdict {
        let stream = self.streams.get(&destination).cloned().unwrap_or_default();
        let epoch = self.epoch(destination, own_incarnation);
        let fresh = StreamEpoch { incarnation: super::FIRST_INCARNATION, resets: 0 };
        // A destination in an older epoch has yet to see the reset that begins this one.
        let awaits_reset = answer.epoch < epoch && epoch != fresh && stream.trimmed == JournalPosition(0);
        let goes_on = answer.epoch == epoch && answer.watermark >= stream.trimmed;
        if !stream.active || answer.incarnation != stream.incarnation || !(awaits_reset || goes_on) {
            return StreamVerdict::Resume { incarnation: answer.incarnation };
        }
        StreamVerdict::SendAfter(if awaits_reset { JournalPosition(0) } else { answer.watermark })
    }

    /// The message with the events behind `after`, or none if there are none.
    pub(super) fn message(
        &self,
        head: &StreamMessage,
        destination: PartitionId,
        after: JournalPosition,
        events_max: usize,
        bytes_max: usize,
    ) -> Option<StreamMessage> {
        let mut bytes = 0;
        let fitting = self.for_destination(destination, after).take(events_max).take_while(|(_, e)| {
            let fits = bytes < bytes_max;
            bytes += e.event.size_hint();
            fits
        });
        let mut events = Vec::with_capacity(events_max.min(self.events.len()));
        events.extend(fitting.map(|(p, e)| (p, e.event.clone())));
        let begun = self.streams.get(&destination).map_or(JournalPosition(0), |s| s.begun);
        let previous = if after < begun { JournalPosition(0) } else { after };
        (!events.is_empty()).then_some(StreamMessage { previous, events, ..head.clone() })
    }

    pub(super) fn pending(&self, destination: PartitionId, after: JournalPosition) -> Pending {
        let mut pending = Pending::default();
        for (position, event) in self.for_destination(destination, after) {
            pending.events += 1;
            pending.oldest.get_or_insert(event.at);
            pending.last = Some(position);
        }
        pending
    }

    /// Bytes of memory it holds.
    pub(super) fn memory(&self) -> usize {
        self.events.memory() + self.heap.get() + self.tracked.memory()
    }
}
