//! Owns measuring how fast first pages of feeds are read.

use std::sync::Arc;
use std::time::Instant;

use fanfold_protocol::UserId;
use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use tokio::task::JoinSet;

use super::access::Access;
use super::error::WorkloadError;

/// Reads under way at once.
const UNDER_WAY: u64 = 32;
/// Entries on a page, as an application's first screen has them.
const PAGE_LIMIT: u32 = 20;
/// The longest latency told apart, in microseconds; anything longer counts as this.
const LATENCY_US_MAX: u64 = 600_000_000;

/// What to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadPlan {
    /// First pages to read, of readers drawn from all users alike.
    pub reads: u64,
    /// Whether payloads and references are asked for.
    pub hydrate: bool,
    /// What the readers are drawn from.
    pub seed: u64,
}

/// How fast first pages of 20 were read, 32 at a time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ReadFigures {
    /// Pages read.
    pub reads: u64,
    /// Entries on them.
    pub entries: u64,
    /// Pages a second.
    pub reads_per_second: f64,
    /// Half of the reads took at most this long.
    pub p50_us: u64,
    /// 99 of 100 reads took at most this long.
    pub p99_us: u64,
}

/// Reads first pages of feeds as fast as the answers come. `users` must not be empty.
pub async fn measure(
    access: &Access,
    users: &Arc<[UserId]>,
    plan: ReadPlan,
    progress: &ProgressBar,
) -> Result<ReadFigures, WorkloadError> {
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for task in 0..UNDER_WAY {
        let (access, users, progress) = (access.clone(), users.clone(), progress.clone());
        // Every task has its share, so that the same seed reads the same feeds.
        let reads = plan.reads / UNDER_WAY + u64::from(task < plan.reads % UNDER_WAY);
        let share = ReadPlan { reads, seed: plan.seed.wrapping_add(task), ..plan };
        tasks.spawn(async move { read_share(&access, &users, share, &progress).await });
    }
    let (mut latencies, mut entries) = (histogram(), 0);
    while let Some(done) = tasks.join_next().await {
        let (some, count) = done??;
        latencies.add(some).expect("both histograms have the same range");
        entries += count;
    }
    Ok(ReadFigures {
        reads: latencies.len(),
        entries,
        reads_per_second: latencies.len() as f64 / begun.elapsed().as_secs_f64(),
        p50_us: latencies.value_at_quantile(0.50),
        p99_us: latencies.value_at_quantile(0.99),
    })
}

async fn read_share(
    access: &Access,
    users: &[UserId],
    share: ReadPlan,
    progress: &ProgressBar,
) -> Result<(Histogram<u64>, u64), WorkloadError> {
    let mut rng = ChaCha8Rng::seed_from_u64(share.seed);
    let (mut latencies, mut entries) = (histogram(), 0);
    for _ in 0..share.reads {
        let user = users[rng.random_range(0..users.len())];
        let mut read = access.space.feed(user).limit(PAGE_LIMIT);
        if share.hydrate {
            read = read.hydrate();
        }
        let begun = Instant::now();
        let page = read.await.map_err(|source| WorkloadError::Read { user, source })?;
        latencies.saturating_record(begun.elapsed().as_micros() as u64);
        entries += page.entries.len() as u64;
        progress.inc(1);
    }
    Ok((latencies, entries))
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(LATENCY_US_MAX, 3).expect("the constants make a valid histogram")
}
