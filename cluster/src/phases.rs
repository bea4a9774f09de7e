//! Owns how long the phases of requests take on this node: one histogram for each.
//!
//! - A histogram only counts: noting a time costs two additions, and takes no lock.
//! - What is noted within [`noting`] is also added up for that one request, so that a slow one can say where its time went.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What a request may wait for, or be busy with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum RequestPhase {
    /// From the arrival of a batch's first command in the proposer's queue until the batch is proposed.
    Queue,
    /// One fdatasync of the log.
    Fsync,
    /// From the proposal of a batch until it is committed and applied here: its fsync and its replication, and what is
    /// before it, are part of that.
    Commit,
    /// The application of a batch to the partition's state.
    Apply,
    /// The finding of a page's entries: the reader's partition and, below its floors, the owners' timelines.
    Merge,
    /// The fetching of a page's payloads and of what its entries refer to.
    Hydrate,
}

impl RequestPhase {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 6] =
        [Self::Queue, Self::Fsync, Self::Commit, Self::Apply, Self::Merge, Self::Hydrate];

    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Fsync => "fsync",
            Self::Commit => "commit",
            Self::Apply => "apply",
            Self::Merge => "merge",
            Self::Hydrate => "hydrate",
        }
    }
}

/// The upper bounds of the buckets, in microseconds; one more bucket has no bound.
pub const BOUNDS_US: [u64; 16] = [
    10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 500_000, 2_000_000,
    10_000_000,
];

#[derive(Debug, Default)]
struct Histogram {
    /// Not cumulative.
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

/// What a histogram says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhaseTimes {
    /// Which phase.
    pub phase: RequestPhase,
    /// How often each bound was not passed and the one before was; the last are those above all bounds.
    pub buckets: [u64; BOUNDS_US.len() + 1],
    /// All times together, in microseconds.
    pub sum_us: u64,
}

/// The histograms of a node, and what it calls slow.
#[derive(Debug)]
pub struct Phases {
    histograms: [Histogram; RequestPhase::ALL.len()],
    slow_us: AtomicU64,
}

impl Default for Phases {
    fn default() -> Self {
        Self { histograms: Default::default(), slow_us: AtomicU64::new(u64::MAX) }
    }
}

impl Phases {
    /// From now on what takes at least so long is slow, and logged. Nothing is before this is called.
    pub fn call_slow(&self, from: Duration) {
        self.slow_us.store(micros(from), Ordering::Relaxed);
    }

    /// Whether that is slow.
    pub fn is_slow(&self, took: Duration) -> bool {
        micros(took) >= self.slow_us.load(Ordering::Relaxed)
    }

    /// Notes what one took.
    pub fn note(&self, phase: RequestPhase, took: Duration) {
        self.note_many(phase, took, 1);
    }

    /// Notes so many that took so long together.
    pub fn note_many(&self, phase: RequestPhase, took: Duration, count: u64) {
        if count == 0 {
            return;
        }
        let took_us = micros(took);
        let histogram = &self.histograms[phase as usize];
        let bucket = BOUNDS_US.partition_point(|bound| *bound < took_us / count);
        histogram.buckets[bucket].fetch_add(count, Ordering::Relaxed);
        histogram.sum_us.fetch_add(took_us, Ordering::Relaxed);
        // Who is not within a request notes for nobody.
        let _ = NOTED.try_with(|noted| {
            let mut all = noted.get();
            all.0[phase as usize] += took;
            noted.set(all);
        });
    }

    /// What the histograms say now.
    pub fn times(&self) -> Vec<PhaseTimes> {
        let all = RequestPhase::ALL.into_iter().zip(&self.histograms);
        let load = |counts: &AtomicU64| counts.load(Ordering::Relaxed);
        all.map(|(phase, histogram)| PhaseTimes {
            phase,
            buckets: histogram.buckets.each_ref().map(load),
            sum_us: load(&histogram.sum_us),
        })
        .collect()
    }
}

fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}

/// What one request has noted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Noted([Duration; RequestPhase::ALL.len()]);

impl Noted {
    /// The time of a phase, if it was one of the request's.
    pub fn of(&self, phase: RequestPhase) -> Option<Duration> {
        Some(self.0[phase as usize]).filter(|took| !took.is_zero())
    }
}

tokio::task_local! {
    static NOTED: Cell<Noted>;
}

/// Does something, and says what was noted meanwhile.
pub async fn noting<T>(work: impl Future<Output = T>) -> (T, Noted) {
    NOTED
        .scope(Cell::default(), async {
            let done = work.await;
            (done, NOTED.with(Cell::get))
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_counted_in_their_buckets() {
        let phases = Phases::default();
        phases.note(RequestPhase::Fsync, Duration::from_micros(10));
        phases.note(RequestPhase::Fsync, Duration::from_micros(11));
        phases.note(RequestPhase::Fsync, Duration::from_secs(60));
        phases.note_many(RequestPhase::Merge, Duration::from_micros(300), 10);
        phases.note_many(RequestPhase::Merge, Duration::ZERO, 0);
        let times = phases.times();
        let of = |phase: RequestPhase| &times[phase as usize];
        let fsync = of(RequestPhase::Fsync);
        assert_eq!((fsync.buckets[0], fsync.buckets[1], fsync.buckets[BOUNDS_US.len()]), (1, 1, 1));
        assert_eq!(fsync.sum_us, 60_000_021);
        assert_eq!((of(RequestPhase::Merge).buckets[2], of(RequestPhase::Merge).sum_us), (10, 300));
        assert!(times.iter().zip(RequestPhase::ALL).all(|(times, phase)| times.phase == phase));
    }

    #[tokio::test]
    async fn a_request_hears_of_its_own_times_only() {
        let phases = Phases::default();
        phases.note(RequestPhase::Merge, Duration::from_millis(9));
        let work = async {
            phases.note(RequestPhase::Merge, Duration::from_millis(1));
            phases.note(RequestPhase::Merge, Duration::from_millis(2));
            7
        };
        let (done, noted) = noting(work).await;
        assert_eq!((done, noted.of(RequestPhase::Merge)), (7, Some(Duration::from_millis(3))));
        assert_eq!(noted.of(RequestPhase::Hydrate), None);
    }
}
