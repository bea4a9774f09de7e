//! Owns the work of a log that has no threads: whoever opened it does it step by step.
//!
//! - The writer's and the keeper's work is the same as with threads; only who waits for it differs.
//! - After each step the next segment is ready, or there was no room for it: nobody ever has to wait for one.

use std::time::Duration;

use super::keeper::{FULL_RETRY_AFTER, Keeper};
use super::shared::Next;
use super::writer::{Plan, Writer};

/// Does the work of a log opened with [`Log::open_driven`](super::Log::open_driven).
pub struct Driver {
    pub(super) writer: Writer,
    pub(super) keeper: Keeper,
}

/// When there is something to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Now.
    Now,
    /// When nothing was submitted for this long.
    WhenQuietFor(Duration),
    /// When the log calls.
    WhenWoken,
}

impl Driver {
    /// When the next step is due. To be asked again after each step, and whenever the log calls.
    pub fn due(&self) -> Due {
        let shared = &self.writer.shared;
        let inner = shared.lock();
        match self.writer.plan(&inner) {
            Plan::Batch | Plan::Mark | Plan::Stop(_) => Due::Now,
            Plan::MarkWhenQuiet => Due::WhenQuietFor(shared.options.idle_mark_after),
            Plan::Rest if matches!(inner.next, Next::Full(_)) => Due::WhenQuietFor(FULL_RETRY_AFTER),
            Plan::Rest => Due::WhenWoken,
        }
    }

    /// Does what is due: writes a batch, syncs it and runs its completions, or makes room for the next one. `quiet` says
    /// that nothing was submitted for as long as [`Driver::due`] said. False once the log has ended.
    pub fn step(&mut self, quiet: bool) -> bool {
        self.keeper.step(quiet);
        let goes_on = self.writer.step(quiet);
        self.keeper.step(false);
        goes_on
    }
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").field("due", &self.due()).finish_non_exhaustive()
    }
}
