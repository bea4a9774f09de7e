//! Reads at replicas that do not lead, and waits for what happens on other nodes.

use std::sync::Arc;
use std::time::Duration;

use fanfold_cluster::read::{Consistency, FeedRequest, TimelineRequest};
use fanfold_cluster::{Node, NodeError};
use fanfold_storage::command::Write;
use fanfold_storage::ids::{EntryId, PartitionId, UserId};

use crate::support::*;

/// The nodes that do not lead a partition.
fn followers(cluster: &Cluster, partition: PartitionId) -> Vec<Arc<Node>> {
    let leader = cluster.leader_of(partition).unwrap().identity().node_id;
    cluster.running().filter(|node| node.identity().node_id != leader).cloned().collect()
}

fn timeline(owner: UserId) -> TimelineRequest {
    TimelineRequest {
        space: POSTS,
        owner,
        viewer: None,
        limit: 100,
        below: EntryId::MAX,
        hydrate: true,
        at_least: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_honoured_at_every_replica() {
    let cluster = Cluster::of(3, 3).await;
    let (reader, owner) = (user_at(0, 0), user_at(1, 0));
    cluster.follow(reader, owner).await;
    for round in 0..10 {
        let items = vec![entry(owner, &format!("round {round}"))];
        let token = cluster.write(owner, Write::Append { items }).await.position;
        for follower in followers(&cluster, PartitionId(0)) {
            let request = FeedRequest { at_least: Some(token), ..feed(reader) };
            let at = |consistency| Box::pin(follower.read_feed_at(&request, consistency));
            let page = patient(at(Consistency::AtLeast)).await.unwrap();
            assert_eq!(page.entries.len(), round + 1);
            let page = patient(at(Consistency::StaleOk { max_ms: 60_000 })).await.unwrap();
            assert_eq!(page.entries.len(), round + 1);
            let refused = patient(Box::pin(follower.read_feed(&request))).await;
            assert!(matches!(refused, Err(NodeError::NotLeader { .. })), "{refused:?}");
        }
        // The owner's own timeline, at replicas of its home.
        for follower in followers(&cluster, PartitionId(1)) {
            let request = TimelineRequest { at_least: Some(token), ..timeline(owner) };
            let page =
                patient(Box::pin(follower.read_timeline_at(&request, Consistency::AtLeast))).await.unwrap();
            assert_eq!(page.entries.len(), round + 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_hears_nobody_is_too_old() {
    let mut cluster = Cluster::of(3, 3).await;
    let reader = user_at(0, 0);
    let follower = followers(&cluster, PartitionId(0)).remove(0);
    let at = |max_ms| {
        let follower = follower.clone();
        Box::pin(async move { follower.read_feed_at(&feed(reader), Consistency::StaleOk { max_ms }).await })
    };
    patient(at(60_000)).await.unwrap();
    for node in 1..=3 {
        if node != follower.identity().node_id {
            cluster.kill(node).await;
        }
    }
    // It answers while what it has is new enough, and no longer.
    patient(async {
        while at(300).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(matches!(at(300).await, Err(NodeError::NotLeader { .. })));
    patient(at(600_000)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waits_reach_every_node() {
    let cluster = Cluster::of(3, 1).await;
    let owner = user_at(1, 0);
    let readers: Vec<_> = (0..PARTITIONS).map(|partition| user_at(partition, 1)).collect();
    for reader in &readers {
        cluster.follow(*reader, owner).await;
    }
    let items = vec![entry(owner, "everywhere")];
    let token = cluster.write(owner, Write::Append { items }).await.position;
    for node in cluster.running() {
        patient(node.wait_delivered(&token)).await.unwrap();
        patient(node.wait_drained()).await.unwrap();
        patient(node.pass_time()).await.unwrap();
    }
    for reader in readers {
        let home = cluster.leader_of(PartitionId::of_user(reader, PARTITIONS)).unwrap();
        let page = patient(Box::pin(home.read_feed(&FeedRequest { at_least: Some(token), ..feed(reader) })))
            .await
            .unwrap();
        assert_eq!(page.entries.len(), 1);
    }
}
