//! What goes to segments and snapshots, what leaves the log, and that nobody can tell.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fanfold_cluster::read::TimelineRequest;
use fanfold_cluster::{NodeError, NodeOptions};
use fanfold_storage::command::{Ttl, Write, WriteResult};
use fanfold_storage::fs::FaultFs;
use fanfold_storage::ids::{EntryId, SpaceId, UserId};

use crate::support::*;

const STORIES: SpaceId = SpaceId(2);

/// Everything goes to the disk early.
fn small(options: &mut NodeOptions) {
    options.disk.files.table_bytes = 64 << 10;
    options.disk.files.cache_bytes = 0;
    options.disk.snapshot_log_bytes = 256 << 10;
    options.disk.log_bytes_max = 6 << 20;
}

async fn node() -> TestNode {
    TestNode::with(small, Box::new(|streams| streams)).await
}

/// All payloads of a timeline, newest first.
async fn payloads(test: &TestNode, owner: UserId) -> Vec<(EntryId, Vec<u8>)> {
    let mut request = TimelineRequest { hydrate: true, limit: 200, ..timeline(owner, None) };
    let mut all = Vec::new();
    loop {
        let page = patient(test.node.read_timeline(&request)).await.unwrap();
        all.extend(page.entries.iter().map(|entry| (entry.id, entry.payload.clone().unwrap().to_vec())));
        match page.next {
            Some(next) => request.below = next,
            None => return all,
        }
    }
}

fn segment_bytes(dir: &Path) -> u64 {
    let groups = std::fs::read_dir(dir.join("data/groups")).unwrap().map(|group| group.unwrap().path());
    let files = groups.flat_map(|group| std::fs::read_dir(group).unwrap()).map(|file| file.unwrap());
    let segments = files.filter(|file| file.path().extension().is_some_and(|e| e == "segment"));
    // A file may go between the look at its name and that at its length.
    segments.filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_busy_partition_makes_the_idle_ones_let_go_of_the_log() {
    idle_ones_let_go(node().await, 6 << 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_partitions_keep_little_more_of_the_log_than_the_snapshots_of_all_would() {
    let large_log = |options: &mut NodeOptions| {
        small(options);
        options.disk.log_bytes_max = 1 << 30;
    };
    let test = TestNode::with(large_log, Box::new(|streams| streams)).await;
    let partitions = test.node.status().partitions.len() as u64;
    idle_ones_let_go(test, 3 * partitions * (256 << 10)).await;
}

/// Writes far more to one partition than the log may keep; the others have an entry or none.
async fn idle_ones_let_go(mut test: TestNode, log_bytes_max: u64) {
    let (busy, idle) = (user_at(0, 0), user_at(1, 0));
    let quiet = test.post(idle, "the only one").await;
    let mut posted = Vec::new();
    for n in 0..1_500 {
        let payload = format!("{n}:{}", "x".repeat(16 << 10));
        posted.push((test.post(busy, &payload).await, payload.into_bytes()));
    }
    posted.reverse();
    // With its segment in use and one to come it gets close to the bound.
    until(async || test.node.status().log.bytes <= log_bytes_max + 4 * (1 << 20)).await;
    let status = test.node.status();
    assert!(status.partitions.iter().all(|p| p.snapshot.is_some()), "{status:?}");
    assert!(status.partitions[0].segments > 0);
    test = test.restart_hard().await;
    assert_eq!(payloads(&test, busy).await, posted);
    assert_eq!(payloads(&test, idle).await, [(quiet, b"the only one".to_vec())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_on_disk_stays_changed() {
    let mut test = node().await;
    let (owner, reader) = (user_at(0, 0), user_at(1, 0));
    test.follow(reader, &[owner]).await;
    let mut posted = Vec::new();
    for n in 0..200 {
        posted.push(test.post(owner, &format!("{n}:{}", "x".repeat(2 << 10))).await);
    }
    test.drained().await;
    until(async || test.node.status().partitions[0].segments > 0).await;
    let (deleted, amended) = (posted[3], posted[5]);
    test.write(owner, Write::Delete { space: POSTS, owner, id: deleted }).await;
    let payload = bytes::Bytes::from_static(b"amended");
    let receipt = test
        .write(owner, Write::Amend { space: POSTS, owner, id: amended, expected_version: 1, payload })
        .await;
    assert!(matches!(receipt.result, WriteResult::Amended { version: 2 }), "{receipt:?}");
    posted.retain(|id| *id != deleted);
    posted.reverse();
    for round in 0..3 {
        let found = payloads(&test, owner).await;
        assert!(found.iter().map(|(id, _)| *id).eq(posted.iter().copied()), "round {round}");
        let amended = found.iter().find(|(id, _)| *id == amended).unwrap();
        assert_eq!(amended.1, b"amended");
        test.drained().await;
        assert_eq!(test.feed(reader).await, posted, "round {round}");
        test = if round == 0 { test.restart_hard().await } else { test.restart().await };
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_expired_leaves_the_disk_and_a_highlight_stays() {
    let test = node().await;
    let owner = user_at(0, 0);
    let mut stories = Vec::new();
    for n in 0..900 {
        let story = entry(owner, &format!("{n}:{}", "x".repeat(8 << 10)));
        let story = fanfold_storage::command::Append { space: STORIES, ..story };
        stories.push(test.append(story).await.0);
    }
    until(async || segment_bytes(test.dir.path()) > 6 << 20).await;
    let highlight = stories[7];
    test.write(owner, Write::SetExpiry { space: STORIES, owner, id: highlight, ttl: Ttl::Never }).await;
    test.clock.advance(Duration::from_secs(25 * 3_600));
    // Less than that is not worth a snapshot.
    until(async || segment_bytes(test.dir.path()) <= (1 << 20) + (64 << 10)).await;
    let test = test.restart_hard().await;
    let request = TimelineRequest { space: STORIES, ..timeline(owner, None) };
    let page = patient(test.node.read_timeline(&request)).await.unwrap();
    assert_eq!(ids(&page.entries), [highlight]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_others_says_that_its_disk_is_full_and_that_it_is_not_any_more() {
    let disk = FaultFs::new();
    let own = disk.clone();
    let on_it = move |options: &mut NodeOptions| options.fs = Arc::new(own);
    let test = TestNode::with(on_it, Box::new(|streams| streams)).await;
    let owner = user_at(0, 0);
    test.post(owner, "before").await;
    let is_told = || test.node.view().nodes[0].is_disk_full;
    assert!(!is_told());
    disk.set_room_bytes(Some(0));
    let large = || Write::Append { items: vec![entry(owner, &"x".repeat(48 << 10))] };
    for n in 0.. {
        assert!(n < 200, "the disk is full");
        if matches!(test.try_write(owner, large()).await, Err(NodeError::DiskFull)) {
            break;
        }
    }
    until(async || is_told()).await;
    disk.set_room_bytes(None);
    until(async || !is_told()).await;
    test.write(owner, large()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_expires_while_the_disk_is_full_vanishes_once_there_is_room() {
    let disk = FaultFs::new();
    let own = disk.clone();
    let on_it = move |options: &mut NodeOptions| options.fs = Arc::new(own);
    let test = TestNode::with(on_it, Box::new(|streams| streams)).await;
    let (owner, other) = (user_at(0, 0), user_at(0, 1));
    let ttl = Ttl::Ms { ttl_ms: 5_000 };
    test.append(fanfold_storage::command::Append { ttl, ..entry(owner, "for five seconds") }).await;
    let is_there = async || !payloads(&test, owner).await.is_empty();
    assert!(is_there().await);
    disk.set_room_bytes(Some(0));
    let is_full = async |bytes| {
        let write = Write::Append { items: vec![entry(other, &"x".repeat(bytes))] };
        matches!(test.try_write(other, write).await, Err(NodeError::DiskFull))
    };
    for bytes in [48 << 10, 1] {
        until(async || is_full(bytes).await).await;
    }
    test.clock.advance(Duration::from_secs(6));
    // Nothing can note that the time has come.
    for _ in 0..20 {
        assert!(is_full(1).await && is_there().await);
    }
    disk.set_room_bytes(None);
    let vanishes = async || {
        test.clock.advance(Duration::from_millis(1));
        !is_there().await
    };
    until(vanishes).await;
}

/// Nobody makes room but the node itself: what fills the disk is its log, and the tables that go to disk with a snapshot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_the_log_has_filled_takes_writes_again_thanks_to_the_reserve() {
    let disk = FaultFs::new();
    let own = disk.clone();
    disk.set_room_bytes(Some(48 << 20));
    let on_it = move |options: &mut NodeOptions| {
        options.fs = Arc::new(own);
        options.disk.reserve_bytes = 8 << 20;
        options.disk.files.table_bytes = 2 << 20;
        options.disk.files.unflushed_bytes_max = 4 << 20;
        // Nothing lets go of the log before the disk is full.
        options.disk.snapshot_log_bytes = 1 << 40;
        options.disk.log_bytes_max = 1 << 40;
    };
    let test = TestNode::with(on_it, Box::new(|streams| streams)).await;
    let has_reserve = || disk.paths().iter().any(|path| path.ends_with("RESERVE"));
    until(async || has_reserve()).await;
    let owner = user_at(0, 0);
    let large = || Write::Append { items: vec![entry(owner, &"x".repeat(48 << 10))] };
    let mut taken = 0;
    while !matches!(test.try_write(owner, large()).await, Err(NodeError::DiskFull)) {
        taken += 1;
        assert!(taken < 2_000, "the disk is full");
    }
    // More than a rest of the log has room for.
    for _ in 0..100 {
        until(async || test.try_write(owner, large()).await.is_ok()).await;
    }
    assert!(!has_reserve());
    let request = TimelineRequest { limit: 1_000, ..timeline(owner, None) };
    let page = patient(test.node.read_timeline(&request)).await.unwrap();
    assert!(page.entries.len() >= taken + 100, "everything that was acknowledged, and what came then");
}
