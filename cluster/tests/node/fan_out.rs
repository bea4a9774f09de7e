//! From a write to the feeds of other partitions: delivery, expiry, blocks.

use std::time::Duration;

use fanfold_cluster::NodeError;
use fanfold_storage::command::{Append, Refusal, Ttl, Write, WriteResult};
use fanfold_storage::ids::EntryId;

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_post_reaches_the_feeds_of_every_partition() {
    let test = TestNode::new().await;
    let owner = user_at(0, 0);
    let readers: Vec<_> = (0..PARTITIONS).flat_map(|p| (1..4).map(move |n| user_at(p, n))).collect();
    for reader in &readers {
        test.follow(*reader, &[owner]).await;
    }
    let mut posts = Vec::new();
    for n in 0..20 {
        posts.insert(0, test.post(owner, &format!("post {n}")).await);
    }
    test.drained().await;
    for reader in &readers {
        assert_eq!(test.feed(*reader).await, posts);
    }
    assert_eq!(test.feed(owner).await, posts, "the owner sees its own");
    let write = Write::Delete { space: POSTS, owner, id: posts[3] };
    let deleted = test.write(owner, write).await;
    assert_eq!(deleted.result, WriteResult::Deleted { existed: true });
    patient(test.node.wait_delivered(&deleted.position)).await.unwrap();
    posts.remove(3);
    for reader in &readers {
        assert_eq!(test.feed(*reader).await, posts);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_for_delivery_covers_what_the_write_caused() {
    let test = TestNode::new().await;
    let (owner, reader) = (user_at(0, 0), user_at(3, 0));
    test.follow(reader, &[owner]).await;
    test.drained().await;
    for n in 0..50 {
        let (id, position) = test.append(entry(owner, &n.to_string())).await;
        if n % 2 == 0 {
            patient(test.node.wait_delivered(&position)).await.unwrap();
            assert_eq!(test.feed(reader).await[0], id);
        } else {
            let request =
                fanfold_cluster::read::FeedRequest { at_least: Some(position), limit: 1, ..feed(reader) };
            assert_eq!(ids(&test.page(&request).await.entries), [id]);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_journal_is_trimmed_when_everything_is_delivered() {
    let test = TestNode::new().await;
    let owner = user_at(0, 0);
    test.follow(user_at(1, 0), &[owner]).await;
    test.follow(user_at(2, 0), &[owner]).await;
    for _ in 0..10 {
        test.post(owner, "x").await;
    }
    test.drained().await;
    until(async || test.node.status().partitions.iter().all(|partition| partition.journal_len == 0)).await;
    let status = test.node.status();
    assert!(status.partitions[0].journal_next.0 > 10, "{status:?}");
    let streams: usize = status.partitions.iter().map(|partition| partition.streams.len()).sum();
    assert!(streams >= 4, "{status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_expires_vanishes_everywhere_without_a_write() {
    let test = TestNode::new().await;
    let (owner, reader) = (user_at(0, 0), user_at(1, 0));
    test.follow(reader, &[owner]).await;
    let kept = test.post(owner, "stays").await;
    let (gone, _) = test.append(Append { ttl: Ttl::Ms { ttl_ms: 5_000 }, ..entry(owner, "goes") }).await;
    test.drained().await;
    assert_eq!(test.feed(reader).await, [gone, kept]);
    test.clock.advance(Duration::from_millis(4_999));
    assert_eq!(test.feed(reader).await, [gone, kept]);
    test.clock.advance(Duration::from_millis(1));
    until(async || test.feed(reader).await == [kept]).await;
    let timeline = timeline(owner, None);
    until(async || ids(&test.node.read_timeline(&timeline).await.unwrap().entries) == [kept]).await;
    // Nothing returns after a restart, whatever the clock says.
    let test = test.restart_hard().await;
    assert_eq!(test.feed(reader).await, [kept]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_node_writes_no_ticks_while_nothing_is_due() {
    let test = TestNode::new().await;
    let (owner, reader) = (user_at(0, 0), user_at(1, 0));
    test.follow(reader, &[owner]).await;
    test.post(owner, "stays").await;
    test.drained().await;
    until(async || test.node.status().partitions.iter().all(|partition| partition.journal_len == 0)).await;
    let applied = || test.node.status().partitions.iter().map(|p| p.applied).collect::<Vec<_>>();
    let before = applied();
    for _ in 0..50 {
        test.clock.advance(Duration::from_secs(3_600));
        for partition in 0..PARTITIONS {
            test.feed(user_at(partition, 0)).await;
        }
    }
    // Sessions are forgotten after a day, so a partition that has one may be woken for that, but not more.
    let after = applied();
    for (before, after) in before.iter().zip(&after) {
        assert!(after - before <= 2, "{before} {after}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_is_answered_when_both_partitions_have_it() {
    let test = TestNode::new().await;
    for n in 0..20 {
        let (blocker, blocked) = (user_at(0, n), user_at(3, n));
        test.follow(blocked, &[blocker]).await;
        let id = test.post(blocker, "mine").await;
        test.drained().await;
        assert_eq!(test.feed(blocked).await, [id]);
        test.write(blocker, Write::Block { user: blocker, targets: vec![blocked] }).await;
        assert_eq!(test.feed(blocked).await, [] as [EntryId; 0]);
        let page = test.node.read_timeline(&timeline(blocker, Some(blocked))).await.unwrap();
        assert!(page.entries.is_empty());
        test.write(blocker, Write::Unblock { user: blocker, targets: vec![blocked] }).await;
        let page = test.node.read_timeline(&timeline(blocker, Some(blocked))).await.unwrap();
        assert_eq!(ids(&page.entries), [id]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_write_has_one_effect_and_a_wrong_partition_is_named() {
    let test = TestNode::new().await;
    let owner = user_at(1, 0);
    let home = test.node.partition_of(owner);
    let tag = test.tag(home).await;
    let write = Write::Append { items: vec![entry(owner, "once")] };
    let first = test.node.write(home, tag, write.clone()).await.unwrap();
    let second = test.node.write(home, tag, write.clone()).await.unwrap();
    assert_eq!(first.result, second.result);
    let other = test.node.write(home, tag, Write::Append { items: vec![entry(owner, "two")] }).await;
    assert_eq!(other, Err(NodeError::Refused { refusal: Refusal::SequenceConflict }));
    let elsewhere = test.node.partition_of(user_at(2, 0));
    let tag = test.tag(elsewhere).await;
    let wrong =
        test.node.write(elsewhere, tag, Write::Mute { user: owner, targets: vec![user_at(0, 0)] }).await;
    assert_eq!(wrong, Err(NodeError::Refused { refusal: Refusal::WrongPartition { right: home } }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_fan_out_in_slices_drains() {
    let change = |options: &mut fanfold_cluster::NodeOptions| options.limits.slice_followers = 8;
    let test = TestNode::with(change, Box::new(|streams| streams)).await;
    let owner = user_at(0, 0);
    let readers: Vec<_> = (0..50).map(|n| user_at(1, n)).collect();
    for reader in &readers {
        test.follow(*reader, &[owner]).await;
    }
    test.drained().await;
    let id = test.post(owner, "to many").await;
    test.drained().await;
    let status = test.node.status();
    assert!(status.partitions.iter().all(|partition| partition.usage.slices == 0), "{status:?}");
    assert_eq!(status.partitions[1].usage.references, 50);
    for reader in readers {
        assert_eq!(test.feed(reader).await, [id]);
    }
}
