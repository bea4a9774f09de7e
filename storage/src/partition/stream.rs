//! Owns both ends of the streams between partitions.
//!
//! - A message is applied only right behind the watermark of its epoch; anything else is discarded and answered with
//!   where the stream stands (R8).
//! - Repeated, reordered and stale messages have no effect.
//! - A reset renews the subscriptions on the stream (R11).

use super::look_ahead::LOOK_AHEAD;
use super::{FIRST_INCARNATION, Partition, Pending, StreamVerdict};
use crate::codec::encoded_struct;
use crate::event::{Event, StreamAnswer, StreamMessage};
use crate::ids::{JournalPosition, PartitionId, StreamEpoch};

/// The most blocks that a reset carries, so that it fits into a command; the others follow it one by one.
const RESET_BLOCKS_MAX: usize = 16_384;

/// Where an incoming stream stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Incoming {
    pub(super) epoch: StreamEpoch,
    pub(super) watermark: JournalPosition,
}

encoded_struct!(Incoming { epoch, watermark });

impl Default for Incoming {
    fn default() -> Self {
        let epoch = StreamEpoch { incarnation: FIRST_INCARNATION, resets: 0 };
        Self { epoch, watermark: JournalPosition(0) }
    }
}

impl Partition {
    /// Applies a stream message if it is the next one.
    pub(super) fn receive(&mut self, message: StreamMessage) -> StreamAnswer {
        let known = self.knows_spaces_of(&message);
        if known && self.is_next(&message) {
            let mut incoming = Incoming { epoch: message.epoch, watermark: message.previous };
            let mut events = message.events.into_iter();
            for n in 0.. {
                if usize::is_multiple_of(n, LOOK_AHEAD) {
                    self.look_ahead_of_events(events.as_slice());
                }
                let Some((position, event)) = events.next() else { break };
                incoming.watermark = position;
                self.take(message.source, event);
            }
            self.inbox.insert(message.source, incoming);
        }
        StreamAnswer { unknown_space: !known, ..self.stream_answer(message.source) }
    }

    fn is_next(&self, message: &StreamMessage) -> bool {
        let incoming = self.inbox.get(&message.source).copied().unwrap_or_default();
        let begins = message.epoch > incoming.epoch
            && message.previous == JournalPosition(0)
            && matches!(message.events.first(), Some((_, Event::Reset { .. })));
        let follows = message.epoch == incoming.epoch && message.previous == incoming.watermark;
        message.destination_incarnation == self.incarnation && (begins || follows)
    }

    /// Whether every space that a message names is defined here; one that names another is not to be proposed (R3).
    pub fn knows_spaces_of(&self, message: &StreamMessage) -> bool {
        message
            .events
            .iter()
            .flat_map(|(_, event)| event.spaces())
            .all(|space| self.spaces.contains_key(&space))
    }

    fn take(&mut self, source: PartitionId, event: Event) {
        match event {
            Event::Deliver { .. } | Event::Update { .. } | Event::Delete { .. } => {
                self.take_owner_event(&event);
            }
            Event::Subscribe { graph, owner, generation } => {
                self.reach.subscribe(graph, owner, source, generation);
                let spaces = self.backfill(graph, owner);
                let event = Event::Backfill { graph, owner, generation, spaces };
                self.journal.record(self.stamp, [source], event);
            }
            Event::Unsubscribe { graph, owner, generation } => {
                self.reach.unsubscribe(graph, owner, source, generation);
            }
            Event::Backfill { graph, owner, generation, spaces } => {
                self.take_backfill(graph, owner, generation, &spaces);
            }
            Event::Block { blocker, blocked } => self.note_block(blocker, blocked, true),
            Event::Unblock { blocker, blocked } => self.note_block(blocker, blocked, false),
            Event::Reset { blocks } => {
                self.replace_blocks(source, &blocks);
                self.renew_subscriptions(source);
            }
            Event::ForgetSubscriptions => self.reach.forget(source),
            Event::SubscribeMany { graph, owners } => self.take_subscriptions(source, graph, &owners),
            Event::Filled { graph, owners } => {
                owners.iter().for_each(|owner| self.take_filled(graph, owner));
            }
            Event::Raise { floors } => {
                for (space, (owner, id)) in floors {
                    self.take_raise(space, owner, id);
                }
            }
        }
    }

    /// Begins the stream to `destination` in a new epoch, with all that an earlier one may have lost.
    pub(super) fn resume_destination(&mut self, destination: PartitionId, incarnation: u64) {
        self.journal.resume(destination, incarnation);
        let mut blocks = self.blocks_towards(destination);
        let rest = blocks.split_off(blocks.len().min(RESET_BLOCKS_MAX));
        self.journal.record(self.stamp, [destination], Event::Reset { blocks });
        for (blocker, blocked) in rest {
            self.journal.record(self.stamp, [destination], Event::Block { blocker, blocked });
        }
        self.renew_subscriptions(destination);
    }

    /// The highest incarnation that this partition has seen, its own included.
    pub fn highest_incarnation(&self) -> u64 {
        let heard = self.inbox.values().map(|incoming| incoming.epoch.incarnation);
        let spoken_to = self.journal.streams.values().map(|stream| stream.incarnation);
        heard.chain(spoken_to).fold(self.incarnation, u64::max)
    }

    /// Takes a new incarnation: every stream begins anew when its destination is next heard of. So do the
    /// numbers of sessions, since those that were given after what was restored may still be in use.
    pub(super) fn reincarnate(&mut self, incarnation: u64) {
        if incarnation <= self.incarnation {
            return;
        }
        self.incarnation = incarnation;
        self.sessions.skip(incarnation);
        for other in (0..self.partitions).map(PartitionId).filter(|other| *other != self.id) {
            self.journal.drop_destination(other);
        }
    }

    /// Where the stream from `source` stands here.
    pub fn stream_answer(&self, source: PartitionId) -> StreamAnswer {
        let incoming = self.inbox.get(&source).copied().unwrap_or_default();
        StreamAnswer {
            epoch: incoming.epoch,
            watermark: incoming.watermark,
            incarnation: self.incarnation,
            unknown_space: false,
        }
    }

    /// What to do after `destination` answered.
    pub fn stream_verdict(&self, destination: PartitionId, answer: &StreamAnswer) -> StreamVerdict {
        self.journal.verdict(destination, self.incarnation, answer)
    }

    /// An empty message, which asks the destination where the stream stands.
    pub fn stream_probe(&self, destination: PartitionId) -> StreamMessage {
        let stream = self.journal.streams.get(&destination);
        StreamMessage {
            source: self.id,
            epoch: self.journal.epoch(destination, self.incarnation),
            destination_incarnation: stream.map_or(FIRST_INCARNATION, |stream| stream.incarnation),
            previous: JournalPosition(0),
            events: Vec::new(),
        }
    }

    /// The next events for `destination` behind `after` (the watermark it answered, or the last event sent): at most
    /// `events_max` and about `bytes_max` bytes, at least one event; none if there are none.
    pub fn stream_message(
        &self,
        destination: PartitionId,
        after: JournalPosition,
        events_max: usize,
        bytes_max: usize,
    ) -> Option<StreamMessage> {
        self.journal.message(&self.stream_probe(destination), destination, after, events_max, bytes_max)
    }

    /// The partitions this one has or had events for.
    pub fn destinations(&self) -> Vec<PartitionId> {
        self.journal.streams.keys().copied().collect()
    }

    /// Whether events are kept for `destination`; if not, it is to be resumed when it answers again (R10).
    pub fn stream_active(&self, destination: PartitionId) -> bool {
        self.journal.streams.get(&destination).is_none_or(|stream| stream.active)
    }

    /// What `destination` has not acknowledged, given its last watermark.
    pub fn pending(&self, destination: PartitionId, acknowledged: JournalPosition) -> Pending {
        self.journal.pending(destination, acknowledged)
    }

    /// The position of the next journal event.
    pub fn journal_next(&self) -> JournalPosition {
        self.journal.next()
    }

    /// Events kept in the journal.
    pub fn journal_len(&self) -> usize {
        self.journal.len()
    }
}
