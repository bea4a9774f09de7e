//! Owns what a dispatcher knows of one destination, and what it sends there next.

use std::time::Duration;

use fanfold_storage::event::StreamMessage;
use fanfold_storage::ids::{JournalPosition, PartitionId};
use fanfold_storage::partition::Partition;
use tokio::time::Instant;

use crate::partition::StreamProgress;

/// The most events of a message: it is applied in one piece.
const MESSAGE_EVENTS_MAX: usize = 512;

/// The most messages under way: each names its predecessor, so that none has to wait for the answer to the one before
/// (R8).
const MESSAGES_MAX: usize = 8;

/// About the most bytes of a message; a single larger event is still sent.
const MESSAGE_BYTES_MAX: usize = 256 << 10;

/// The first delay after a failure; it doubles with each further one …
const RETRY_MIN: Duration = Duration::from_millis(10);

/// … up to this.
const RETRY_MAX: Duration = Duration::from_secs(1);

/// What is known of one destination.
#[derive(Debug, Default)]
pub(super) struct Destination {
    /// What it answered last; none until it was asked, and after a reset.
    acknowledged: Option<JournalPosition>,
    /// Events for it up to here have been applied there.
    delivered: JournalPosition,
    /// Whether events are kept for it and a reset has arrived there.
    is_settled: bool,
    /// Whether events are kept for it.
    is_active: bool,
    /// The last event sent; none: nothing since the stream last stood still.
    sent: Option<JournalPosition>,
    /// Messages under way.
    messages: usize,
    /// Whether one of them failed: the others are waited for, and what they answer counts no more.
    is_draining: bool,
    /// Whether a command about it is under way.
    is_held: bool,
    /// Failures since the last answer.
    failures: u32,
    /// Not to be tried again before.
    retry_at: Option<Instant>,
}

impl Destination {
    /// Looks at the journal: takes note of what is delivered, and returns the message to send, if any.
    pub fn next(&mut self, id: PartitionId, state: &Partition, now: Instant) -> Option<StreamMessage> {
        // Behind a question nothing is sent until it is answered.
        let is_asking = self.messages > 0 && self.sent.is_none();
        if self.is_held || self.is_draining || is_asking || self.messages >= MESSAGES_MAX {
            return None;
        }
        self.is_active = state.stream_active(id);
        if !self.is_active && self.messages > 0 {
            return None;
        }
        if !self.is_active {
            self.is_settled = false;
            return self.may_try(now).then(|| state.stream_probe(id));
        }
        let last = JournalPosition(state.journal_next().0.saturating_sub(1));
        let acknowledged = self.acknowledged.unwrap_or_default();
        let was_reset = state.stream_probe(id).epoch.resets > 0;
        let from = if self.is_settled { self.delivered.max(acknowledged) } else { acknowledged };
        let first = state.stream_message(id, from, 1, 1).and_then(|m| m.events.first().map(|(p, _)| *p));
        let Some(first) = first else {
            // Nothing is kept for it: everything was acknowledged, now or before it was trimmed.
            self.is_settled = true;
            self.delivered = self.delivered.max(last);
            self.retry_at = None;
            return None;
        };
        // After a reset, what was lost before counts as delivered only once the reset has arrived.
        self.is_settled = !was_reset || acknowledged > JournalPosition(0);
        if self.is_settled {
            self.delivered = self.delivered.max(JournalPosition(first.0 - 1));
        }
        if !self.may_try(now) {
            return None;
        }
        match self.acknowledged {
            None => Some(state.stream_probe(id)),
            Some(after) => {
                let after = self.sent.unwrap_or(after);
                state.stream_message(id, after, MESSAGE_EVENTS_MAX, MESSAGE_BYTES_MAX)
            }
        }
    }

    /// A message is under way whose last event is `last`; without events it is a question.
    pub fn begin(&mut self, last: Option<JournalPosition>) {
        self.messages += 1;
        self.sent = last;
    }

    /// A command about it is under way; nothing is sent until it ends.
    pub fn hold(&mut self) {
        self.is_held = true;
    }

    /// A message whose last event was `sent` ended, answered or not; false if that says nothing any more: what came
    /// after it may have been answered before it.
    pub fn end(&mut self, sent: Option<JournalPosition>) -> bool {
        let is_old =
            sent.is_some_and(|sent| self.acknowledged.is_some_and(|acknowledged| sent <= acknowledged));
        let counts = !self.is_draining && !self.is_held && !is_old;
        self.messages = self.messages.saturating_sub(1);
        self.is_draining &= self.messages > 0;
        counts
    }

    /// A message whose last event was `sent` was answered: the stream stands at `position`. An answer that does not reach
    /// what was sent counts as a failure, so that nothing is repeated in a circle.
    pub fn acknowledge(&mut self, position: JournalPosition, sent: Option<JournalPosition>, now: Instant) {
        self.acknowledged = Some(position);
        if sent.is_some_and(|sent| position < sent) {
            self.fail(now);
        } else {
            self.failures = 0;
            self.retry_at = None;
        }
    }

    /// Its stream began anew; where it stands is asked next.
    pub fn reset(&mut self) {
        self.is_settled = false;
        self.acknowledged = None;
        self.stand_still();
    }

    /// It did not answer as it should, or a command about it failed.
    pub fn fail(&mut self, now: Instant) {
        self.stand_still();
        let delay = RETRY_MIN.saturating_mul(1 << self.failures.min(10)).min(RETRY_MAX);
        self.failures = self.failures.saturating_add(1);
        self.retry_at = Some(now + delay);
    }

    /// Goes on from what is acknowledged once nothing is under way.
    fn stand_still(&mut self) {
        self.sent = None;
        self.is_held = false;
        self.is_draining = self.messages > 0;
    }

    /// When it may be tried again, if that is later.
    pub fn retry_at(&self) -> Option<Instant> {
        self.retry_at.filter(|_| !self.is_held && self.messages == 0)
    }

    /// Whether it may be dropped for its silence.
    pub fn is_silent(&self) -> bool {
        self.is_active && self.failures > 0
    }

    /// Up to where the journal may be trimmed as far as it goes; none: it does not matter.
    pub fn holds(&self) -> Option<JournalPosition> {
        self.is_active.then_some(self.delivered)
    }

    /// What others may know of it.
    pub fn progress(&self) -> StreamProgress {
        StreamProgress {
            acknowledged: self.acknowledged,
            delivered: self.delivered,
            is_settled: self.is_settled,
            is_failing: self.failures > 0,
        }
    }

    fn may_try(&self, now: Instant) -> bool {
        self.retry_at.is_none_or(|at| at <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(positions: &[u64]) -> Destination {
        let mut destination =
            Destination { acknowledged: Some(JournalPosition(0)), ..Destination::default() };
        positions.iter().for_each(|position| destination.begin(Some(JournalPosition(*position))));
        destination
    }

    fn answer(destination: &mut Destination, last: u64, watermark: u64) -> bool {
        let last = Some(JournalPosition(last));
        let counts = destination.end(last);
        if counts {
            destination.acknowledge(JournalPosition(watermark), last, Instant::now());
        }
        counts
    }

    #[test]
    fn an_answer_that_comes_late_says_nothing() {
        let mut destination = sent(&[5, 9]);
        assert!(answer(&mut destination, 9, 9));
        assert!(!answer(&mut destination, 5, 5));
        assert_eq!((destination.acknowledged, destination.messages), (Some(JournalPosition(9)), 0));
        assert!(!destination.is_silent() && !destination.is_draining);
    }

    #[test]
    fn after_a_failure_the_others_are_waited_for_and_the_stream_goes_on_from_the_watermark() {
        let mut destination = sent(&[5, 9, 12]);
        assert!(answer(&mut destination, 5, 3), "it was discarded");
        assert!(destination.is_draining && destination.sent.is_none());
        assert!(!answer(&mut destination, 9, 3) && destination.is_draining);
        assert!(!answer(&mut destination, 12, 3) && !destination.is_draining);
        assert_eq!(destination.acknowledged, Some(JournalPosition(3)));
        assert!(destination.retry_at().is_some());
    }

    #[test]
    fn a_command_holds_back_until_it_and_what_is_under_way_have_ended() {
        let mut destination = sent(&[5, 9]);
        assert!(destination.end(Some(JournalPosition(5))));
        destination.hold();
        destination.reset();
        assert!(!destination.is_held && destination.is_draining, "one message is still under way");
        assert!(!destination.end(Some(JournalPosition(9))));
        assert!(!destination.is_draining && destination.acknowledged.is_none());
    }
}
