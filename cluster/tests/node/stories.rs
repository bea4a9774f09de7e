//! What expires leaves disk and memory, day after day.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use fanfold_cluster::NodeOptions;
use fanfold_cluster::read::{FeedRequest, TimelineRequest};
use fanfold_storage::command::{Append, AppendResult, Ttl, Write, WriteResult};
use fanfold_storage::ids::{EntryId, SpaceId, UserId};
use fanfold_storage::partition::MemoryPart;

use crate::support::*;

const STORIES: SpaceId = SpaceId(2);
const HOUR: Duration = Duration::from_secs(3_600);

/// Stories that are told in an hour, and the bytes of each.
const IN_AN_HOUR: usize = 40;
const STORY_BYTES: usize = 1_600;

const TABLE_BYTES: u64 = 128 << 10;

/// How long a story lives, in hours.
const LIFE: u64 = 24;

/// Everything goes to the disk early, and the window of rows is full soon.
fn small(options: &mut NodeOptions) {
    options.disk.files.table_bytes = TABLE_BYTES;
    options.disk.files.cache_bytes = 0;
    options.disk.snapshot_log_bytes = 256 << 10;
    options.disk.log_bytes_max = 2 << 20;
    options.log.segment_bytes = 256 << 10;
    options.limits.window_rows = 1_024;
}

/// Bytes of all files below a directory.
fn bytes_below(dir: &Path) -> u64 {
    let Ok(items) = std::fs::read_dir(dir) else { return 0 };
    let bytes = |item: std::fs::DirEntry| match item.metadata() {
        Ok(found) if found.is_dir() => bytes_below(&item.path()),
        // A file may go between the look at its name and that at its length.
        found => found.map_or(0, |found| found.len()),
    };
    items.flatten().map(bytes).sum()
}

/// What the node says it holds in memory: for what comes and goes (tables of entries, the journal until it is trimmed), and for
/// all else.
fn memory(test: &TestNode) -> (u64, u64) {
    let status = test.node.status();
    let parts = status.partitions.iter().flat_map(|partition| &partition.usage.memory);
    let passing = |part| matches!(part, MemoryPart::Timelines | MemoryPart::Journal);
    let (entries, rest): (Vec<_>, Vec<_>) = parts.partition(|(part, _)| passing(*part));
    let sum = |parts: Vec<&(MemoryPart, u64)>| parts.into_iter().map(|(_, bytes)| bytes).sum();
    (sum(entries), sum(rest))
}

async fn append(test: &TestNode, owner: UserId, items: Vec<Append>) -> Vec<EntryId> {
    let receipt = test.write(owner, Write::Append { items }).await;
    let WriteResult::Appended { items } = receipt.result else { panic!("{receipt:?}") };
    let made = |item: &AppendResult| match item {
        AppendResult::Made { id, .. } => *id,
        refused @ AppendResult::Refused { .. } => panic!("{refused:?}"),
    };
    items.iter().map(made).collect()
}

/// A story space in use.
struct Stories {
    test: TestNode,
    owner: UserId,
    reader: UserId,
    hour: u64,
    /// What lives, and the hour in which it ends.
    alive: BTreeMap<EntryId, u64>,
}

impl Stories {
    async fn one_hour(&mut self) {
        let Self { test, owner, .. } = self;
        let story = |n: usize| {
            let payload = Bytes::from(vec![n as u8; STORY_BYTES]);
            Append { space: STORIES, payload, ..entry(*owner, "") }
        };
        let ids = append(test, *owner, (0..IN_AN_HOUR).map(story).collect()).await;
        if self.hour.is_multiple_of(5 * 24) {
            let write = Write::SetExpiry { space: STORIES, owner: *owner, id: ids[0], ttl: Ttl::Never };
            test.write(*owner, write).await;
        }
        for (n, id) in ids.into_iter().enumerate() {
            let stays = n == 0 && self.hour.is_multiple_of(5 * 24);
            self.alive.insert(id, if stays { u64::MAX } else { self.hour + LIFE });
        }
        self.hour += 1;
        test.clock.advance(HOUR);
        patient(test.node.pass_time()).await.unwrap();
        self.alive.retain(|_, ends| *ends > self.hour);
    }

    /// Timeline and feed hold what lives, and nothing else.
    async fn check(&self) {
        let alive: Vec<EntryId> = self.alive.keys().rev().copied().collect();
        let request = TimelineRequest { space: STORIES, limit: 1_000, ..timeline(self.owner, None) };
        let page = patient(self.test.node.read_timeline(&request)).await.unwrap();
        assert_eq!(ids(&page.entries), alive, "the timeline in hour {}", self.hour);
        self.test.drained().await;
        let request = FeedRequest { space: STORIES, limit: 1_000, hydrate: true, ..feed(self.reader) };
        let page = self.test.page(&request).await;
        assert_eq!(ids(&page.entries), alive, "the feed in hour {}", self.hour);
        assert!(page.entries.iter().all(|entry| entry.payload.as_ref().unwrap().len() == STORY_BYTES));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_days_of_stories_level_out_on_disk_and_in_memory() {
    let test = TestNode::with(small, Box::new(|streams| streams)).await;
    let (owner, reader) = (user_at(0, 0), user_at(1, 0));
    test.follow(reader, &[owner]).await;
    let mut stories = Stories { test, owner, reader, hour: 0, alive: BTreeMap::new() };
    let (mut disk_level, mut memory_level) = (0, 0);
    for day in 1..=30 {
        for hour in 0..24 {
            stories.one_hour().await;
            if hour % 6 == 0 {
                stories.check().await;
            }
        }
        // With the pieces of a log, tables and snapshots that come and go, this is what a day's stories take at most.
        let bound = 3 * LIFE * (IN_AN_HOUR * STORY_BYTES) as u64 + (6 << 20);
        let dir = stories.test.dir.path().to_owned();
        until(async || bytes_below(&dir) <= bound).await;
        // A table that is written to, and one that is being flushed, for each partition.
        until(async || memory(&stories.test).0 <= u64::from(PARTITIONS) * 2 * TABLE_BYTES).await;
        let (disk, (_, memory)) = (bytes_below(&dir), memory(&stories.test));
        if day <= 10 {
            (disk_level, memory_level) = (disk_level.max(disk), memory_level.max(memory));
        } else {
            // What is seen at a moment varies by a table and a piece of the log.
            until(async || bytes_below(&dir) <= disk_level + disk_level / 10).await;
            assert!(memory <= memory_level + memory_level / 10, "day {day}: {memory} over {memory_level}");
        }
        if day == 15 {
            stories.test = stories.test.restart_hard_with(small).await;
            stories.check().await;
        }
    }
    assert_eq!(stories.alive.values().filter(|ends| **ends == u64::MAX).count(), 6, "the highlights");
    stories.test = stories.test.restart_hard_with(small).await;
    stories.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_nine_tenths_have_expired_the_rest_takes_little_more_than_itself() {
    let large = |options: &mut NodeOptions| {
        small(options);
        options.disk.files.table_bytes = 1 << 20;
        options.log.segment_bytes = 2 << 20;
    };
    let test = TestNode::with(large, Box::new(|streams| streams)).await;
    let owner = user_at(0, 0);
    let (mut live, mut kept) = (0, Vec::new());
    for round in 0..160 {
        let item = |n: usize| {
            // Of the tenth that stays some has no end, and the rest ends on the days of a year.
            let days = (round * 50 + n) as u64 * 7 % 365;
            let ttl = match n {
                0 => Ttl::Never,
                _ if n.is_multiple_of(10) => Ttl::Ms { ttl_ms: (1 + days) * 24 * 3_600_000 },
                _ => Ttl::Ms { ttl_ms: 3_600_000 },
            };
            Append { ttl, payload: Bytes::from(vec![n as u8; 8 << 10]), ..entry(owner, "") }
        };
        let ids = append(&test, owner, (0..50).map(item).collect()).await;
        live += 5 * (8 << 10);
        kept.extend(ids.into_iter().step_by(10));
    }
    let groups = test.dir.path().join("data/groups");
    until(async || bytes_below(&groups) > 8 * live).await;
    test.clock.advance(2 * HOUR);
    patient(test.node.pass_time()).await.unwrap();
    until(async || bytes_below(&groups) <= live + 3 * live / 10).await;
    let request = TimelineRequest { limit: 1_000, ..timeline(owner, None) };
    let page = patient(test.node.read_timeline(&request)).await.unwrap();
    kept.reverse();
    assert_eq!(ids(&page.entries), kept);
}
