//! Readers' activity in the log.

use std::sync::Arc;
use std::time::Duration;

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
