//! Opening, stopping, finding everything again.

use std::sync::Arc;
use std::time::Duration;

use fanfold_cluster::clock::ManualClock;
use fanfold_cluster::{Node, NodeError, NodeOptions, OpenError, SpaceChanges};
use fanfold_storage::command::{Append, Write};
use fanfold_storage::fs::{FaultFs, PowerLoss};
use fanfold_storage::ids::PartitionId;
use fanfold_storage::space::SpacePolicy;

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_node_has_its_spaces_in_every_partition() {
    let test = TestNode::new().await;
    let names: Vec<_> = test.node.spaces().into_iter().map(|space| space.name).collect();
    assert_eq!(names, ["posts", "stories"]);
    assert_eq!(test.node.partitions(), PARTITIONS);
    let map = test.node.map();
    assert_eq!(map.leaders, vec![Some(1); usize::from(PARTITIONS)]);
    assert_eq!(map.nodes[0].address, "127.0.0.1:7117");
    for partition in 0..PARTITIONS {
        test.post(user_at(partition, 0), "first").await;
    }
    let status = test.node.status();
    assert_eq!(status.partitions.len(), usize::from(PARTITIONS));
    assert!(
        status.partitions.iter().all(|p| p.is_leader && !p.is_damaged && p.usage.entries == 1),
        "{status:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_found_again_after_a_hard_stop_and_after_a_clean_one() {
    let mut test = TestNode::new().await;
    let identity = test.node.identity();
    let (owner, reader) = (user_at(0, 0), user_at(1, 0));
    test.follow(reader, &[owner]).await;
    let mut expected = vec![test.post(owner, "one").await];
    test.drained().await;
    test.node.create_space("notes", Some("friends"), SpacePolicy::default()).await.unwrap();
    for round in 0..4 {
        test = if round % 2 == 0 { test.restart_hard().await } else { test.restart().await };
        assert_eq!(test.node.identity(), identity);
        assert_eq!(test.node.spaces().len(), 3);
        test.drained().await;
        assert_eq!(test.feed(reader).await, expected);
        expected.insert(0, test.post(owner, "more").await);
        // Not drained: what is on its way must survive the next stop.
    }
    test.drained().await;
    assert_eq!(test.feed(reader).await, expected);
    let status = test.node.status();
    assert!(status.partitions.iter().all(|p| p.undelivered_events == 0), "{status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_is_refused_until_the_first_is_gone() {
    let test = TestNode::new().await;
    let second = Node::open(options(&test.dir, &test.clock)).await.unwrap_err();
    let pid = Some(std::process::id());
    assert!(matches!(second, OpenError::Locked { pid: holder, .. } if holder == pid), "{second}");
    test.restart_hard().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_number_of_partitions_is_fixed_when_the_directory_is_made() {
    let TestNode { node, clock, dir, .. } = TestNode::new().await;
    node.close().await.unwrap();
    let other = NodeOptions { partitions: Some(8), ..options(&dir, &clock) };
    let refused = Node::open(other).await.unwrap_err();
    assert!(matches!(refused, OpenError::PartitionsDiffer { found: PARTITIONS, asked: 8, .. }), "{refused}");
    let unnamed = NodeOptions { partitions: None, ..options(&dir, &clock) };
    let node = Node::open(unnamed).await.unwrap();
    assert_eq!(node.partitions(), PARTITIONS);
    let odd = NodeOptions { partitions: Some(3), ..options(&dir, &clock) };
    assert!(matches!(Node::open(odd).await.unwrap_err(), OpenError::PartitionCount { got: 3 }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_identity_is_rebuilt_from_the_log_and_a_foreign_one_is_refused() {
    let test = TestNode::new().await;
    let (owner, identity) = (user_at(2, 0), test.node.identity());
    let id = test.post(owner, "kept").await;
    let TestNode { node, clock, dir, .. } = test;
    node.close().await.unwrap();
    std::fs::remove_dir_all(dir.path().join("data/identity")).unwrap();
    let unnamed = NodeOptions { partitions: None, ..options(&dir, &clock) };
    let node = Node::open(unnamed).await.unwrap();
    assert_eq!((node.identity(), node.partitions()), (identity, PARTITIONS));
    let page = node.read_timeline(&timeline(owner, None)).await.unwrap();
    assert_eq!(ids(&page.entries), [id]);
    node.close().await.unwrap();

    let other = TestNode::new().await;
    let other_dir = other.dir.clone();
    other.node.close().await.unwrap();
    std::fs::remove_dir_all(dir.path().join("data/identity")).unwrap();
    std::fs::rename(other_dir.path().join("data/identity"), dir.path().join("data/identity")).unwrap();
    let refused = Node::open(options(&dir, &clock)).await.unwrap_err();
    assert!(
        matches!(refused, OpenError::IdentityDiffers { log, .. } if log == identity.cluster_id),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_log_is_refused_and_nothing_is_made_in_its_place() {
    let TestNode { node, clock, dir, .. } = TestNode::new().await;
    let cluster_id = node.identity().cluster_id;
    node.close().await.unwrap();
    std::fs::remove_dir_all(dir.path().join("data/log")).unwrap();
    let refused = Node::open(options(&dir, &clock)).await.unwrap_err();
    assert!(
        matches!(refused, OpenError::LogMissing { cluster_id: lost, .. } if lost == cluster_id),
        "{refused}"
    );
    assert!(!dir.path().join("data/log").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_start_that_was_stopped_early_is_finished_by_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::new(1_800_000_000_000);
    // A lock file and a log without anything in it: as left by a stop before the cluster was founded.
    std::fs::create_dir_all(dir.path().join("data/log")).unwrap();
    std::fs::write(dir.path().join("data/LOCK"), "1").unwrap();
    let node = Node::open(options(&dir, &clock)).await.unwrap();
    let identity = node.identity();
    node.close().await.unwrap();
    assert_eq!(Node::open(options(&dir, &clock)).await.unwrap().identity(), identity);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_node_refuses_and_ends_its_waits() {
    let test = TestNode::new().await;
    let node = test.node.clone();
    test.node.clone().close().await.unwrap();
    assert_eq!(node.open_session(PartitionId(0)).await, Err(NodeError::ShuttingDown));
    assert_eq!(node.wait_drained().await, Err(NodeError::ShuttingDown));
    assert!(matches!(node.read_feed(&feed(user_at(0, 0))).await, Err(NodeError::ShuttingDown)));
    // A clean stop is no failure.
    assert!(tokio::time::timeout(Duration::from_millis(50), node.failed()).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_log_is_told_and_a_restart_has_all_that_was_answered() {
    let faults = FaultFs::new();
    let fs = Arc::new(faults.clone());
    let test = TestNode::with(|options| options.fs = fs, Box::new(|streams| streams)).await;
    let owner = user_at(0, 0);
    let kept = test.post(owner, "kept").await;
    // The sync that fails is to be that of the write below, not of what follows from the one above.
    until(async || test.node.status().partitions.iter().all(|partition| partition.journal_len == 0)).await;
    let mut quiet = 0;
    while quiet < 1_000 {
        tokio::task::yield_now().await;
        quiet = if test.node.status().log.queued_bytes == 0 { quiet + 1 } else { 0 };
    }
    faults.fail_sync_after(0, PowerLoss::LoseAll);
    let lost = test.try_write(owner, Write::Append { items: vec![entry(owner, "lost")] }).await;
    let error = lost.unwrap_err();
    assert!(error.may_have_applied(), "{error:?}");
    let failure = patient(test.node.failed()).await;
    assert!(failure.to_string().contains("must end"), "{failure}");

    let TestNode { node, clock, dir, .. } = test;
    node.abandon().await;
    let fs = Arc::new(faults.lose_power(PowerLoss::LoseAll));
    let node = Node::open(NodeOptions { fs, ..options(&dir, &clock) }).await.unwrap();
    let page = node.read_timeline(&timeline(owner, None)).await.unwrap();
    assert_eq!(ids(&page.entries), [kept]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_space_is_answered_when_every_partition_has_it() {
    let test = TestNode::new().await;
    let made = test.node.create_space("notes", Some("friends"), SpacePolicy::default()).await.unwrap();
    for partition in 0..PARTITIONS {
        let item = Append { space: made.id, ..entry(user_at(partition, 0), "note") };
        test.append(item).await;
    }
    let twice = test.node.create_space("notes", None, SpacePolicy::default()).await;
    assert_eq!(twice, Err(NodeError::SpaceExists));
    let changes = SpaceChanges { payload_bytes_max: Some(2), ..SpaceChanges::default() };
    let changed = test.node.alter_space("notes", changes).await.unwrap();
    assert_eq!((changed.version, changed.policy.payload_bytes_max), (2, 2));
    for partition in 0..PARTITIONS {
        let item = Append { space: made.id, ..entry(user_at(partition, 0), "note") };
        let write = Write::Append { items: vec![item] };
        let receipt = test.write(user_at(partition, 0), write).await;
        assert!(format!("{:?}", receipt.result).contains("PayloadTooLarge { limit: 2 }"), "{receipt:?}");
    }
    let unknown = test.node.alter_space("nothing", SpaceChanges::default()).await;
    assert!(matches!(unknown, Err(NodeError::UnknownSpace { known }) if known.len() == 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_limits_reach_every_partition() {
    let TestNode { node, clock, dir, .. } = TestNode::new().await;
    node.close().await.unwrap();
    let mut changed = options(&dir, &clock);
    changed.limits.sessions_max = 1;
    let node = Node::open(changed).await.unwrap();
    for partition in (0..PARTITIONS).map(PartitionId) {
        node.open_session(partition).await.unwrap();
        let second = node.open_session(partition).await.unwrap_err();
        assert!(matches!(second, NodeError::Refused { .. }), "{second:?}");
    }
}
