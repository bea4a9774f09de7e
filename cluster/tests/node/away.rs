//! Readers' activity in the log.

use std::sync::Arc;
use std::time::Duration;

use fanfold_storage::command::{AppendResult, Write, WriteResult};
use fanfold_storage::ids::{PartitionId, UserId};

use super::memory::{BUDGET, SetSize};
use super::support::*;

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// How many log entries the reader's home has applied.
async fn applied(test: &TestNode, reader: UserId) -> u64 {
    test.page(&feed(reader)).await.position.index
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_readers_activity_is_proposed_once_a_day() {
    let test = TestNode::new().await;
    let home = PartitionId(1);
    let (owner, reader) = (user_at(home.0, 0), user_at(home.0, 1));
    test.follow(reader, &[owner]).await;
    test.post(owner, "hello").await;
    test.drained().await;
    // Who is new is active.
    let mut before = applied(&test, reader).await;
    for _ in 0..20 {
        assert_eq!(applied(&test, reader).await, before);
    }
    for _ in 0..3 {
        test.clock.advance(DAY);
        until(async || applied(&test, reader).await > before).await;
        before += 1;
        for _ in 0..20 {
            assert_eq!(applied(&test, reader).await, before, "one entry a day");
        }
    }
}

/// Feeds that hold references, in all partitions.
fn feeds(test: &TestNode) -> u64 {
    test.node.status().partitions.iter().map(|partition| partition.usage.feeds).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_short_of_memory_frees_the_feeds_of_those_away_and_makes_them_anew() {
    let size = SetSize::default();
    let short = |options: &mut fanfold_cluster::NodeOptions| {
        (options.memory_bytes, options.away_days) = (BUDGET, 1);
        options.resident = Arc::new(size.clone());
        options.limits.session_life_ms = 30 * DAY.as_millis() as u64;
    };
    let test = TestNode::with(short, Box::new(|streams| streams)).await;
    size.set(BUDGET);
    let (owner, here, away) = (user_at(1, 0), user_at(1, 1), user_at(1, 2));
    test.follow(here, &[owner]).await;
    test.follow(away, &[owner]).await;
    let mut posts = vec![test.post(owner, "old").await];
    test.drained().await;
    assert_eq!(feeds(&test), 2);
    test.clock.advance(2 * DAY);
    until(async || {
        test.feed(here).await;
        feeds(&test) == 1
    })
    .await;
    posts.insert(0, test.post(owner, "new").await);
    test.drained().await;
    assert_eq!(feeds(&test), 1, "who is away is stored nothing");
    assert_eq!(test.feed(away).await, posts);
    until(async || feeds(&test) == 2).await;
    assert_eq!((test.feed(away).await, test.feed(here).await), (posts.clone(), posts));
}

/// Rows of the window, in all partitions.
fn rows(test: &TestNode) -> u64 {
    test.node.status().partitions.iter().map(|partition| partition.usage.rows).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_short_of_memory_lets_rows_go_and_shows_the_same() {
    const POSTS_AT_ONCE: usize = 500;
    let size = SetSize::default();
    let short = |options: &mut fanfold_cluster::NodeOptions| {
        (options.memory_bytes, options.away_days) = (BUDGET, 0);
        options.resident = Arc::new(size.clone());
    };
    let test = TestNode::with(short, Box::new(|streams| streams)).await;
    let (owner, reader) = (user_at(1, 0), user_at(1, 1));
    test.follow(reader, &[owner]).await;
    let mut posted = Vec::new();
    for _ in 0..12 {
        let items = (0..POSTS_AT_ONCE).map(|n| entry(owner, &n.to_string())).collect();
        let receipt = test.write(owner, Write::Append { items }).await;
        let WriteResult::Appended { items } = receipt.result else { panic!("{receipt:?}") };
        posted.extend(items.into_iter().map(|item| match item {
            AppendResult::Made { id, .. } => id,
            other @ AppendResult::Refused { .. } => panic!("{other:?}"),
        }));
    }
    posted.reverse();
    test.drained().await;
    assert_eq!(rows(&test), 6_000);
    assert!(test.feed_by(reader, 1_000).await == posted);
    size.set(BUDGET + 1);
    until(async || rows(&test) == 4_096).await;
    assert!(test.feed_by(reader, 1_000).await == posted);
    size.set(0);
    posted.insert(0, test.post(owner, "new").await);
    test.drained().await;
    assert!(test.feed_by(reader, 1_000).await == posted);
}
