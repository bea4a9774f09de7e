//! Owns the stages of a measurement during which something is done to the nodes: when each began, and what was answered in it.
//!
//! - A request belongs to the stage in which it was due, however late its answer came.
//! - Who does something to the nodes runs on a thread of its own and tells when a stage ends; the traffic ends with the last.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::plans::record;
use crate::load::target::{MicrosHistogram, micros_histogram};

/// Before, during and after what is done.
pub(super) const STAGES: usize = 3;

/// When the stages ended so far.
#[derive(Debug, Clone)]
pub(super) struct Stages(Arc<Mutex<Vec<Instant>>>);

/// What was answered in one stage.
#[derive(Debug)]
pub(super) struct StageTally {
    pub(super) read_micros: MicrosHistogram,
    pub(super) post_micros: MicrosHistogram,
    pub(super) errors: u64,
    pub(super) short_pages: u64,
}

impl Stages {
    /// The first stage begins.
    pub(super) fn begin() -> Self {
        Self(Arc::default())
    }

    /// The stage ends, and the next begins.
    pub(super) fn next(&self) -> Instant {
        let now = Instant::now();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(now);
        now
    }

    /// All end.
    pub(super) fn end(&self) {
        let now = Instant::now();
        let mut ends = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while ends.len() < STAGES {
            ends.push(now);
        }
    }

    /// The stage in which something was due; none after the last.
    pub(super) fn of(&self, due: Instant) -> Option<usize> {
        let ends = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let stage = ends.iter().take_while(|end| **end <= due).count();
        (stage < STAGES).then_some(stage)
    }
}

impl StageTally {
    pub(super) fn new() -> Self {
        Self { read_micros: micros_histogram(), post_micros: micros_histogram(), errors: 0, short_pages: 0 }
    }

    pub(super) fn read(&mut self, due: Instant, now: Instant) {
        record(&mut self.read_micros, now - due);
    }

    pub(super) fn posted(&mut self, due: Instant, now: Instant) {
        record(&mut self.post_micros, now - due);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_was_due_before_a_change_counts_before_it() {
        let stages = Stages::begin();
        let long_ago = Instant::now();
        assert_eq!(stages.of(long_ago), Some(0));
        let changed = stages.next();
        assert_eq!((stages.of(long_ago), stages.of(changed)), (Some(0), Some(1)));
        stages.end();
        assert_eq!(
            (stages.of(long_ago), stages.of(Instant::now() + Duration::from_secs(1))),
            (Some(0), None)
        );
    }
}
