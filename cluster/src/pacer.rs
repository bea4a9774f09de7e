//! Owns the pace of work in the background: how many bytes a second flushes, merges and snapshots of all partitions write
//! together, or a job reads and writes, so that they leave the disk to the log.
//!
//! - Whoever writes in the background asks before each piece and sleeps until its turn; a thread that does so is a
//!   blocking one.
//! - A stop ends all waits, so that work under way is finished at full speed.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What may be written at once after a pause.
const BURST: Duration = Duration::from_millis(50);

/// Bounds the bytes that are written, or read, in the background.
#[derive(Debug)]
pub(crate) struct Pacer {
    bytes_per_second: u64,
    state: Mutex<State>,
    stopped: Condvar,
}

#[derive(Debug)]
struct State {
    /// When all that was granted so far is written, at the pace.
    free_at: Instant,
    is_stopped: bool,
}

impl Pacer {
    /// A pacer for so many bytes a second.
    pub fn new(bytes_per_second: u64) -> Self {
        let state = State { free_at: Instant::now(), is_stopped: false };
        Self { bytes_per_second: bytes_per_second.max(1), state: Mutex::new(state), stopped: Condvar::new() }
    }

    /// Waits until so many more bytes may be written.
    pub fn take(&self, bytes: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let begins = state.free_at.max(now.checked_sub(BURST).unwrap_or(now));
        let takes = Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / self.bytes_per_second);
        state.free_at = begins + takes;
        // What was granted to others before is written first.
        let turn = begins;
        while !state.is_stopped {
            let left = turn.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.stopped.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Lets everybody write at full speed from now on.
    pub fn stop(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).is_stopped = true;
        self.stopped.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    #[test]
    fn bytes_are_granted_at_the_pace_and_at_once_after_a_stop() {
        let pacer = Arc::new(Pacer::new(1_000_000));
        let started = Instant::now();
        (0..4).for_each(|_| pacer.take(50_000));
        assert!(started.elapsed() >= Duration::from_millis(90), "{:?}", started.elapsed());
        pacer.take(3_600 * 1_000_000);
        let waiting = thread::spawn({
            let pacer = pacer.clone();
            move || pacer.take(1)
        });
        pacer.stop();
        waiting.join().unwrap();
        assert!(started.elapsed() < Duration::from_secs(60));
    }
}
