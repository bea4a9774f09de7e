//! Owns time: the two clocks of a node behind a trait, and in [`stamps`] what leaders put on batches.
//!
//! - Log time is milliseconds since 2000-01-01T00:00:00Z.

mod stamps;

use std::fmt;
use std::sync::Arc;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

pub use stamps::{MARGIN_MS, StampSource, Stamps};

/// 2000-01-01T00:00:00Z as milliseconds of Unix time: where log time starts.
pub const LOG_EPOCH_UNIX_MS: i64 = 946_684_800_000;

/// A node's clocks.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The wall clock, in milliseconds of Unix time. It may jump either way.
    fn wall_unix_ms(&self) -> i64;

    /// Milliseconds since some fixed moment of this process. It never goes back.
    fn monotonic_ms(&self) -> u64;

    /// Tells of every turn of a clock that only moves when it is turned: whoever waits for a time waits for that
    /// instead of sleeping. None if the clock moves by itself.
    fn turned(&self) -> Option<watch::Receiver<u64>> {
        None
    }
}

/// The clocks of the operating system.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// Starts the monotonic clock at zero.
    pub fn new() -> Self {
        Self { started: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn wall_unix_ms(&self) -> i64 {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
        }
    }

    fn monotonic_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }
}

/// A clock that only moves when it is turned. Clones share the time.
#[derive(Debug, Clone)]
pub struct ManualClock {
    time: Arc<Mutex<ManualTime>>,
    /// Counts the turns.
    turns: watch::Sender<u64>,
}

#[derive(Debug)]
struct ManualTime {
    wall_unix_ms: i64,
    monotonic_ms: u64,
}

impl ManualClock {
    /// A clock that shows this wall time, in milliseconds of Unix time.
    pub fn new(wall_unix_ms: i64) -> Self {
        let time = Arc::new(Mutex::new(ManualTime { wall_unix_ms, monotonic_ms: 0 }));
        Self { time, turns: watch::Sender::new(0) }
    }

    /// Lets time pass: both clocks move.
    pub fn advance(&self, by: Duration) {
        let by_ms = by.as_millis() as u64;
        let mut time = self.lock();
        time.wall_unix_ms += by_ms as i64;
        time.monotonic_ms += by_ms;
        drop(time);
        self.turns.send_modify(|turns| *turns += 1);
    }

    /// Sets the wall clock forward or back by this many milliseconds; no time passes.
    pub fn jump(&self, by_ms: i64) {
        self.lock().wall_unix_ms += by_ms;
        self.turns.send_modify(|turns| *turns += 1);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, ManualTime> {
        // Both fields are always whole numbers somebody set, whatever happened to the holder of the lock.
        self.time.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for ManualClock {
    fn wall_unix_ms(&self) -> i64 {
        self.lock().wall_unix_ms
    }

    fn monotonic_ms(&self) -> u64 {
        self.lock().monotonic_ms
    }

    fn turned(&self) -> Option<watch::Receiver<u64>> {
        Some(self.turns.subscribe())
    }
}
