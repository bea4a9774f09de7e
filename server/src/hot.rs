//! Owns the count of what is hot on this node: which users and partitions its clients read and write most.
//!
//! - Each node counts what it is asked itself, for its own operators; nothing of it is logged or replicated. What is delivered
//!   for whom the partitions count.
//! - Requests are sampled: the first of each connection all, later ones one in `GAP` on average, each standing for those that
//!   were left out. The gaps are drawn, so that a pattern in what comes does not fall in with them.
//! - The hottest are kept by Space-Saving (Metwally, Agrawal, El Abbadi 2005): a count is never too small, and by how much it
//!   may be too large is known.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fanfold_protocol::message::{Hot, Request, WriteOp};
use fanfold_protocol::{PartitionId, UserId};
use tokio::time::Instant;

/// Users whose counts are kept.
const KEPT: usize = 512;

/// Requests that one sampled request stands for, on average.
const GAP: u32 = 16;

/// Requests of a connection that are all counted.
const ALL_OF_FIRST: u32 = 256;

/// How long one window counts; what is told is this one and the one before.
const WINDOW: Duration = Duration::from_secs(60);

/// Decides for one connection which of its requests are counted.
#[derive(Debug)]
pub(crate) struct Sampler {
    left: u32,
    gap: u32,
    seen: u32,
    random: u32,
}

impl Sampler {
    pub(crate) fn new(seed: u32) -> Self {
        Self { left: 0, gap: 1, seen: 0, random: seed | 1 }
    }

    /// For how many the next request stands; none if it is left out.
    pub(crate) fn weight(&mut self) -> Option<u32> {
        if self.left > 0 {
            self.left -= 1;
            return None;
        }
        let stands_for = self.gap;
        self.seen = self.seen.saturating_add(1);
        if self.seen >= ALL_OF_FIRST {
            // xorshift; half of the gaps are below the average.
            self.random ^= self.random << 13;
            self.random ^= self.random >> 17;
            self.random ^= self.random << 5;
            self.gap = 1 + self.random % (2 * GAP - 1);
            self.left = self.gap - 1;
        }
        Some(stands_for)
    }
}

/// What is hot.
#[derive(Debug)]
pub(crate) struct HotCounts {
    partitions: u16,
    windows: Mutex<Windows>,
}

#[derive(Debug)]
struct Windows {
    since: Instant,
    current: Window,
    before: Option<Window>,
}

#[derive(Debug, Default)]
struct Window {
    reads: Counts,
    writes: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    users: HashMap<UserId, Count>,
    /// The same by their counts, so that the coldest is found at once.
    by_count: BTreeSet<(u64, UserId)>,
    partitions: HashMap<u16, u64>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    count: u64,
    error: u64,
}

/// What was counted.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    pub(crate) over: Duration,
    pub(crate) users: Vec<Hot<UserId>>,
    pub(crate) partitions: Vec<Hot<PartitionId>>,
}

impl HotCounts {
    pub(crate) fn new(partitions: u16) -> Self {
        let windows = Windows { since: Instant::now(), current: Window::default(), before: None };
        Self { partitions, windows: Mutex::new(windows) }
    }

    /// Counts a request, which stands for `weight` of them.
    pub(crate) fn note(&self, request: &Request, weight: u32) {
        let weight = u64::from(weight);
        let mut windows = self.lock();
        let window = &mut windows.current;
        match request {
            Request::ReadFeed(read) => window.reads.add(read.reader, weight, self.partitions),
            Request::ReadTimeline(read) => window.reads.add(read.owner, weight, self.partitions),
            Request::ReadFeeds(read) => {
                for reader in &read.readers {
                    window.reads.add(*reader, weight, self.partitions);
                }
            }
            Request::Write(write) => {
                if let WriteOp::Append(items) = &write.op {
                    for item in items {
                        window.writes.add(item.owner, weight, self.partitions);
                    }
                } else if let Some(user) = written(&write.op) {
                    window.writes.add(user, weight, self.partitions);
                }
            }
            _ => {}
        }
    }

    /// The reads of this window and of the one before.
    pub(crate) fn reads(&self) -> Counted {
        self.counted(|window| window.reads.clone_counts())
    }

    /// The writes of this window and of the one before.
    pub(crate) fn writes(&self) -> Counted {
        self.counted(|window| window.writes.clone_counts())
    }

    fn counted(&self, of: impl Fn(&Window) -> (HashMap<UserId, Count>, HashMap<u16, u64>)) -> Counted {
        let windows = self.lock();
        let mut over = windows.since.elapsed();
        let (mut users, mut partitions) = of(&windows.current);
        if let Some(before) = &windows.before {
            over += WINDOW;
            let (more_users, more_partitions) = of(before);
            for (user, more) in more_users {
                let sum = users.entry(user).or_default();
                sum.count += more.count;
                sum.error += more.error;
            }
            for (partition, more) in more_partitions {
                *partitions.entry(partition).or_default() += more;
            }
        }
        drop(windows);
        let mut users: Vec<_> =
            users.into_iter().map(|(of, c)| Hot { of, count: c.count, error: c.error }).collect();
        users.sort_unstable_by_key(|hot| (std::cmp::Reverse(hot.count), hot.of));
        let partitions = partitions.into_iter();
        let mut partitions: Vec<_> =
            partitions.map(|(of, count)| Hot { of: PartitionId(of), count, error: 0 }).collect();
        partitions.sort_unstable_by_key(|hot| (std::cmp::Reverse(hot.count), hot.of));
        Counted { over, users, partitions }
    }

    /// The counts, in the window of now.
    fn lock(&self) -> MutexGuard<'_, Windows> {
        // Counts that a panic left half-made are still counts.
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let age = windows.since.elapsed();
        if age >= WINDOW {
            let full = std::mem::take(&mut windows.current);
            windows.before = (age < 2 * WINDOW).then_some(full);
            windows.since = Instant::now();
        }
        windows
    }
}

/// The user at whose home a write is made; none for what concerns many.
fn written(op: &WriteOp) -> Option<UserId> {
    match op {
        WriteOp::Amend(amend) => Some(amend.entry.owner),
        WriteOp::Delete(entry) => Some(entry.owner),
        WriteOp::SetExpiry(set) => Some(set.entry.owner),
        WriteOp::Follow(edges) | WriteOp::Unfollow(edges) => Some(edges.reader),
        WriteOp::Mute(targets)
        | WriteOp::Unmute(targets)
        | WriteOp::Block(targets)
        | WriteOp::Unblock(targets) => Some(targets.user),
        WriteOp::Append(_) | WriteOp::ImportFollows(_) | WriteOp::ImportEntries(_) => None,
    }
}

impl Counts {
    fn add(&mut self, user: UserId, weight: u64, partitions: u16) {
        *self.partitions.entry(PartitionId::of_user(user, partitions).0).or_default() += weight;
        if let Some(known) = self.users.get_mut(&user) {
            self.by_count.remove(&(known.count, user));
            known.count += weight;
            self.by_count.insert((known.count, user));
            return;
        }
        let mut count = Count { count: weight, error: 0 };
        if self.users.len() >= KEPT
            && let Some((least, coldest)) = self.by_count.pop_first()
        {
            self.users.remove(&coldest);
            count = Count { count: least + weight, error: least };
        }
        self.by_count.insert((count.count, user));
        self.users.insert(user, count);
    }

    fn clone_counts(&self) -> (HashMap<UserId, Count>, HashMap<u16, u64>) {
        (self.users.clone(), self.partitions.clone())
    }
}

#[cfg(test)]
mod tests {
    use fanfold_protocol::SpaceId;
    use fanfold_protocol::message::ReadFeed;

    use super::*;

    fn read(reader: u64) -> Request {
        Request::ReadFeed(ReadFeed {
            space: SpaceId(1),
            reader: UserId(reader),
            limit: 1,
            cursor: None,
            newer_than: None,
            hydrate: false,
            at_least: None,
            consistency: fanfold_protocol::message::Consistency::Leader,
        })
    }

    #[tokio::test]
    async fn hottest_are_found_among_many_and_their_errors_bound_them() {
        let hot = HotCounts::new(4);
        for n in 0..20_000 {
            hot.note(&read(1_000 + n), 1);
            if n % 4 == 0 {
                hot.note(&read(7), 1);
            }
        }
        let counted = hot.reads();
        let first = counted.users[0];
        assert_eq!(first.of, UserId(7));
        assert!(first.count >= 5_000 && first.count - first.error <= 5_000, "{first:?}");
        assert_eq!(counted.partitions.iter().map(|hot| hot.count).sum::<u64>(), 25_000);
        assert!(hot.writes().users.is_empty());
    }

    #[test]
    fn sampled_requests_stand_for_all_of_them() {
        let mut sampler = Sampler::new(12_345);
        let (mut sampled, mut stood_for) = (0, 0);
        for _ in 0..100_000 {
            if let Some(weight) = sampler.weight() {
                sampled += 1;
                stood_for += u64::from(weight);
            }
        }
        assert!(sampled < 10_000, "{sampled}");
        assert!((99_900..=100_000).contains(&stood_for), "{stood_for}");
    }

    #[tokio::test]
    async fn what_is_long_ago_is_forgotten() {
        let hot = HotCounts::new(4);
        hot.note(&read(7), 1);
        let pass = || hot.lock().since -= WINDOW;
        pass();
        assert_eq!(hot.reads().users.len(), 1, "the window before counts");
        pass();
        assert!(hot.reads().users.is_empty());
    }
}
