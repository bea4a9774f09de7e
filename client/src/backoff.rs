//! Owns the waits between attempts: doubling, with jitter, within limits.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use crate::defaults;

/// The waits between the attempts of one call or one link.
#[derive(Debug)]
pub(crate) struct Backoff {
    attempts: u32,
    max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::up_to(defaults::RETRY_DELAY_MAX)
    }
}

impl Backoff {
    /// Waits that grow up to a limit.
    pub fn up_to(max: Duration) -> Self {
        Self { attempts: 0, max }
    }

    /// The next wait: doubled each time, and between half of that and all of it, so that callers who failed together
    /// do not come back together.
    pub fn next(&mut self) -> Duration {
        let full = defaults::RETRY_DELAY_MIN.saturating_mul(1 << self.attempts.min(16)).min(self.max);
        self.attempts = self.attempts.saturating_add(1);
        // A hasher with random keys is the standard library's only source of randomness.
        let random = RandomState::new().build_hasher().finish();
        full.mul_f64(0.5 + 0.5 * (random as f64 / u64::MAX as f64))
    }

    /// Waits before the next attempt.
    pub async fn pause(&mut self) {
        tokio::time::sleep(self.next()).await;
    }

    /// The last attempt succeeded.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit() {
        let mut backoff = Backoff::default();
        for attempt in 0..40 {
            let full = (defaults::RETRY_DELAY_MIN * (1 << attempt.min(10))).min(defaults::RETRY_DELAY_MAX);
            let wait = backoff.next();
            assert!(wait >= full / 2 && wait <= full, "{wait:?} of {full:?}");
        }
        backoff.reset();
        assert!(backoff.next() <= defaults::RETRY_DELAY_MIN);
    }
}
