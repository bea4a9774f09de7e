//! Reads at replicas that do not lead, and waits for what happens on other nodes.

use std::sync::Arc;
use std::time::Duration;

use fanfold_cluster::read::{Consistency, EntriesRequest, FeedRequest, FeedsRequest, TimelineRequest};
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
        consistency: fanfold_cluster::read::Consistency::Leader,
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
        // Many feeds at once, first: their replicas have to wait for it.
        for node in cluster.running() {
            let request = FeedsRequest {
                space: POSTS,
                readers: vec![reader, owner],
                limit: 100,
                hydrate: true,
                at_least: Some(token),
                consistency: Consistency::AtLeast,
            };
            let pages = patient(Box::pin(node.read_feeds(&request))).await.unwrap();
            for page in pages {
                assert_eq!(page.unwrap().entries.len(), round + 1);
            }
        }
        for follower in followers(&cluster, PartitionId(0)) {
            let request = FeedRequest { at_least: Some(token), ..feed(reader) };
            let at = |consistency| {
                let (follower, request) = (follower.clone(), FeedRequest { consistency, ..request.clone() });
                patient(async move { follower.read_feed(&request).await })
            };
            assert_eq!(at(Consistency::AtLeast).await.unwrap().entries.len(), round + 1);
            let stale = Consistency::StaleOk { max_ms: 60_000 };
            assert_eq!(at(stale).await.unwrap().entries.len(), round + 1);
            let refused = at(Consistency::Leader).await;
            assert!(matches!(refused, Err(NodeError::NotLeader { .. })), "{refused:?}");
        }
        // The owner's own timeline, at replicas of its home.
        for follower in followers(&cluster, PartitionId(1)) {
            let consistency = Consistency::AtLeast;
            let request = TimelineRequest { at_least: Some(token), consistency, ..timeline(owner) };
            let page = patient(Box::pin(follower.read_timeline(&request))).await.unwrap();
            assert_eq!(page.entries.len(), round + 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_shows_everything_that_is_older_than_allowed() {
    let cluster = Cluster::of(3, 3).await;
    let (reader, owner) = (user_at(0, 0), user_at(0, 1));
    cluster.follow(reader, owner).await;
    // Its followers learn with the next message what is committed: without asking they would be behind.
    let max_ms = 1;
    for round in 0..20 {
        cluster.post(owner, &format!("round {round}")).await;
        tokio::time::sleep(Duration::from_millis(max_ms)).await;
        for follower in followers(&cluster, PartitionId(0)) {
            let consistency = Consistency::StaleOk { max_ms: max_ms as u32 };
            let request = FeedRequest { consistency, hydrate: true, ..feed(reader) };
            let page = patient(Box::pin(follower.read_feed(&request))).await.unwrap();
            assert_eq!(page.entries.len(), round + 1);
            assert!(page.entries[0].payload.is_some() && page.short_of.is_empty());
            let request = TimelineRequest { consistency, ..timeline(owner) };
            let page = patient(Box::pin(follower.read_timeline(&request))).await.unwrap();
            assert_eq!(page.entries.len(), round + 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_feeds_at_a_replica_may_be_old_and_whole_pages_need_nobody() {
    let mut cluster = Cluster::of(3, 3).await;
    let (owner, readers) = (user_at(1, 0), [user_at(0, 0), user_at(1, 1), user_at(2, 0)]);
    for reader in readers {
        cluster.follow(reader, owner).await;
    }
    let receipt = cluster.write(owner, Write::Append { items: vec![entry(owner, "to all")] }).await;
    let posted = made_by(&receipt);
    for reader in readers {
        cluster.sees(reader, &[posted]).await;
    }
    let follower = followers(&cluster, PartitionId(0)).remove(0);
    let request = FeedsRequest {
        space: POSTS,
        readers: readers.to_vec(),
        limit: 10,
        hydrate: true,
        at_least: None,
        consistency: Consistency::StaleOk { max_ms: 600_000 },
    };
    let shows_all = |pages: Vec<Result<fanfold_cluster::read::Page, NodeError>>| {
        assert_eq!(pages.len(), readers.len());
        for page in pages {
            let page = page.unwrap();
            assert!(page.short_of.is_empty(), "{page:?}");
            assert_eq!(page.entries[0].id, posted);
            assert!(page.entries[0].payload.is_some());
        }
    };
    shows_all(patient(follower.read_feeds(&request)).await.unwrap());
    // Every partition's replica here is known to be young enough: nobody else is needed, for payloads either.
    for node in 1..=3 {
        if node != follower.identity().node_id {
            cluster.kill(node).await;
        }
    }
    shows_all(patient(follower.read_feeds(&request)).await.unwrap());
    // Nor for an entry of its own that a token names.
    let by_id = EntriesRequest {
        space: POSTS,
        ids: vec![posted],
        viewer: None,
        at_least: Some(receipt.position),
        consistency: Consistency::AtLeast,
    };
    let entries = patient(Box::pin(follower.read_entries(&by_id))).await.unwrap();
    assert!(entries[0].is_some(), "{entries:?}");
    let strict = FeedsRequest { consistency: Consistency::Leader, ..request };
    let refused = patient(follower.read_feeds(&strict)).await.unwrap();
    assert!(refused.iter().any(Result::is_err), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_hears_nobody_is_too_old() {
    let mut cluster = Cluster::of(3, 3).await;
    let reader = user_at(0, 0);
    let follower = followers(&cluster, PartitionId(0)).remove(0);
    let at = |max_ms| {
        let (follower, consistency) = (follower.clone(), Consistency::StaleOk { max_ms });
        async move { follower.read_feed(&FeedRequest { consistency, ..feed(reader) }).await }
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
    let refused = patient(at(300)).await;
    assert!(
        matches!(refused, Err(NodeError::NotLeader { .. } | NodeError::Unavailable { .. })),
        "{refused:?}"
    );
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
