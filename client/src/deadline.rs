//! Owns the deadline of a call: one point in time, whatever number of attempts it covers.

use std::time::Duration;

use tokio::time::Instant;

/// The longest deadline; anything longer is cut to it, so that no arithmetic on it overflows.
const DEADLINE_MAX: Duration = Duration::from_secs(30 * 24 * 3_600);

/// When a call must be done, and the duration it was given.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    at: Instant,
    given: Duration,
}

impl Deadline {
    /// The deadline that lies this far from now; a month at most.
    pub fn within(given: Duration) -> Self {
        let given = given.min(DEADLINE_MAX);
        Self { at: Instant::now() + given, given }
    }

    /// The same, or one that lies this far from now if that is sooner.
    pub fn at_most(self, time: Duration) -> Self {
        if time < self.remaining() { Self::within(time) } else { self }
    }

    /// When the call must be done.
    pub fn at(self) -> Instant {
        self.at
    }

    /// The duration that the call was given.
    pub fn given(self) -> Duration {
        self.given
    }

    /// What is left of it; zero when it has passed.
    pub fn remaining(self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// What is left of it in milliseconds, for the wire: at least 1, because 0 means "none" there.
    pub fn remaining_ms(self) -> u32 {
        u32::try_from(self.remaining().as_millis()).unwrap_or(u32::MAX).max(1)
    }
}
