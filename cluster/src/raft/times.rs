//! Owns the times that applying takes: how long each piece waited for the state's lock, how long it took with that, and how
//! long upkeep had the lock in between, with and without the time in which the system let its thread wait for a processor.
//!
//! - Whoever else works on the state under its lock on another thread (reads, mostly) shows here as a wait.
//! - Upkeep (cuts, installed files) works where the group is applied, so applying comes later; and it waits where a cut or what is
//!   not flushed is at its bound. What stalls applying is the waits for the lock and these two.
//! - They are figures: nothing is decided by them.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// The upper bounds of the times that are told apart; longer ones are counted behind them.
pub const BOUNDS: [Duration; 13] = [
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_millis(2),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
];

/// What upkeep should not keep applying from the state for.
const HELD_MAX: Duration = Duration::from_millis(5);

/// Counts of times by [`BOUNDS`], the last for longer ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Times {
    /// How many were within each bound and not within the one before.
    pub counts: [u64; BOUNDS.len() + 1],
    /// All together.
    pub sum: Duration,
}

/// What applying took so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ApplyTimes {
    /// Waits of a piece for the lock.
    pub waits: Times,
    /// Pieces, with their waits.
    pub pieces: Times,
    /// Times for which upkeep had the lock, and for which applying waited until upkeep had caught up.
    pub held: Times,
    /// The same without the time in which the thread that had the lock was ready and had no processor, or a virtual one that stood still:
    /// what upkeep itself takes.
    pub ran: Times,
}

thread_local! {
    /// What the system counts of this thread, if it does.
    static SCHEDULED: Option<File> = File::open("/proc/thread-self/schedstat").ok();
}

/// What the system has counted of this thread so far; zeros where it does not.
#[derive(Debug, Clone, Copy, Default)]
struct Scheduled {
    /// Time with a processor, without what a host took of it.
    ran: Duration,
    /// Time in which it was ready without one.
    waited: Duration,
    /// How often it got one.
    turns: u64,
}

impl Scheduled {
    fn now() -> Self {
        let mut text = [0; 64];
        let read = SCHEDULED.try_with(|file| file.as_ref()?.read_at(&mut text, 0).ok()).ok().flatten();
        let text = std::str::from_utf8(&text[..read.unwrap_or(0)]).unwrap_or_default();
        let mut numbers = text.split_ascii_whitespace().skip(1).map_while(|number| number.parse().ok());
        let mut next = || numbers.next().unwrap_or(0);
        let waited = Duration::from_nanos(next());
        let ran = clock_gettime(ClockId::ThreadCPUTime);
        Self { ran: Duration::new(ran.tv_sec as u64, ran.tv_nsec as u32), waited, turns: next() }
    }
}

/// A time for which upkeep has the lock, on one thread.
pub(super) struct Hold {
    scheduled: Scheduled,
    begun: Instant,
}

impl Hold {
    pub fn begin() -> Self {
        Self { scheduled: Scheduled::now(), begun: Instant::now() }
    }

    pub fn end(self) -> Held {
        let held = self.begun.elapsed();
        let (before, now) = (self.scheduled, Scheduled::now());
        // Who never gave the processor back did not sleep either.
        let kept_it = now.turns == before.turns && now.turns > 0;
        let ran = now.ran.saturating_sub(before.ran);
        let waited = now.waited.saturating_sub(before.waited);
        let ran = if kept_it { ran } else { held.saturating_sub(waited) };
        Held { held, ran: ran.min(held) }
    }
}

/// How long upkeep had the lock, and how long of that it worked or slept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    pub held: Duration,
    pub ran: Duration,
}

impl Held {
    /// Whether that is more than applying may be kept from the state.
    pub fn is_long(&self) -> bool {
        self.held > HELD_MAX
    }
}

/// Times that are counted.
#[derive(Debug, Default)]
struct Counted {
    counts: [AtomicU64; BOUNDS.len() + 1],
    sum_nanos: AtomicU64,
}

impl Counted {
    fn count(&self, time: Duration) {
        let at = BOUNDS.partition_point(|bound| *bound < time);
        self.counts[at].fetch_add(1, Ordering::Relaxed);
        self.sum_nanos.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }

    fn now(&self) -> Times {
        let counts = std::array::from_fn(|at| self.counts[at].load(Ordering::Relaxed));
        Times { counts, sum: Duration::from_nanos(self.sum_nanos.load(Ordering::Relaxed)) }
    }
}

/// Counts what applying takes.
#[derive(Debug, Default)]
pub(super) struct ApplyClock {
    waits: Counted,
    pieces: Counted,
    held: Counted,
    ran: Counted,
}

impl ApplyClock {
    /// Counts a piece: its wait for the lock, and all of it.
    pub fn count(&self, wait: Duration, piece: Duration) {
        self.waits.count(wait);
        self.pieces.count(piece);
    }

    /// Counts how long upkeep had the lock.
    pub fn count_held(&self, Held { held, ran }: Held) {
        self.held.count(held);
        self.ran.count(ran);
    }

    /// Counts how long it was waited for.
    pub fn count_caught_up(&self, waited: Duration) {
        self.count_held(Held { held: waited, ran: waited });
    }

    pub fn now(&self) -> ApplyTimes {
        let Self { waits, pieces, held, ran } = self;
        ApplyTimes { waits: waits.now(), pieces: pieces.now(), held: held.now(), ran: ran.now() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_counted_within_the_first_bound_that_it_does_not_pass() {
        let clock = ApplyClock::default();
        for micros in [1, 100, 101, 5_000, 5_001, 2_000_000] {
            clock.count(Duration::ZERO, Duration::from_micros(micros));
        }
        let ApplyTimes { waits, pieces, held, ran } = clock.now();
        assert_eq!((waits.counts[0], waits.sum), (6, Duration::ZERO));
        assert_eq!(pieces.counts, [2, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(pieces.sum, Duration::from_micros(2_010_203));
        assert_eq!((held, ran), (Times::default(), Times::default()), "upkeep is told apart");
        clock.count_held(Held { held: Duration::from_millis(3), ran: Duration::from_micros(90) });
        let ApplyTimes { held, ran, pieces: after, .. } = clock.now();
        assert_eq!((held.counts[5], ran.counts[0], after), (1, 1, pieces));
    }

    #[test]
    fn what_a_thread_waits_for_counts_and_the_processor_that_it_has_not_does_not() {
        let waited = Duration::from_millis(20);
        let hold = Hold::begin();
        std::thread::sleep(waited);
        assert!(hold.end().ran >= waited / 2, "who sleeps is not ready");

        if Scheduled::now().turns == 0 {
            // The system does not count.
            return;
        }
        let threads = 4 * std::thread::available_parallelism().unwrap().get();
        let spun = std::thread::scope(|scope| {
            let spin = || {
                let (hold, begun) = (Hold::begin(), Instant::now());
                while begun.elapsed() < Duration::from_millis(100) {}
                hold.end()
            };
            let spinning: Vec<_> = (0..threads).map(|_| scope.spawn(spin)).collect();
            spinning.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        let (held, ran): (Vec<_>, Vec<_>) = spun.into_iter().map(|held| (held.held, held.ran)).unzip();
        let (held, ran): (Duration, Duration) = (held.iter().sum(), ran.iter().sum());
        assert!(ran < held / 2, "{ran:?} of {held:?}");
    }
}
