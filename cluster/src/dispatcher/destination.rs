//! Owns what a dispatcher knows of one destination, and what it sends there next.

use std::time::{Duration, Instant};

use fanfold_storage::event::StreamMessage;
use fanfold_storage::ids::{JournalPosition, PartitionId};
use fanfold_storage::partition::Partition;

use crate::partition::StreamProgress;

/// The most events of a message.
const MESSAGE_EVENTS_MAX: usize = 1_024;

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
    /// Whether a message or a command about it is under way.
    is_busy: bool,
    /// Failures since the last answer.
    failures: u32,
    /// Not to be tried again before.
    retry_at: Option<Instant>,
}

impl Destination {
    /// Looks at the journal: takes note of what is delivered, and returns the message to send, if any.
    pub fn next(&mut self, id: PartitionId, state: &Partition, now: Instant) -> Option<StreamMessage> {
        if self.is_busy {
            return None;
        }
        self.is_active = state.stream_active(id);
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
            Some(after) => state.stream_message(id, after, MESSAGE_EVENTS_MAX, MESSAGE_BYTES_MAX),
        }
    }

    /// A message or command is under way.
    pub fn begin(&mut self) {
        self.is_busy = true;
    }

    /// It answered that the stream stands at `position`. `sent` says whether events were sent: an answer that does not
    /// move then counts as a failure, so that nothing is repeated in a circle.
    pub fn acknowledge(&mut self, position: JournalPosition, sent: bool, now: Instant) {
        let stuck = sent && self.acknowledged == Some(position);
        self.acknowledged = Some(position);
        if stuck {
            self.fail(now);
        } else {
            self.is_busy = false;
            self.failures = 0;
            self.retry_at = None;
        }
    }

    /// Its stream began anew; where it stands is asked next.
    pub fn reset(&mut self) {
        self.is_busy = false;
        self.is_settled = false;
        self.acknowledged = None;
    }

    /// It did not answer, or a command about it failed.
    pub fn fail(&mut self, now: Instant) {
        self.is_busy = false;
        let delay = RETRY_MIN.saturating_mul(1 << self.failures.min(10)).min(RETRY_MAX);
        self.failures = self.failures.saturating_add(1);
        self.retry_at = Some(now + delay);
    }

    /// When it may be tried again, if that is later.
    pub fn retry_at(&self) -> Option<Instant> {
        self.retry_at.filter(|_| !self.is_busy)
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
