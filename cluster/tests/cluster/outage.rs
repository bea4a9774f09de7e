//! A partition that nobody can reach for long, while the others are written to (row 32, R10).

use std::sync::Arc;

use fanfold_cluster::dispatcher::{StreamError, StreamTransport};
use fanfold_cluster::read::{Consistency, FeedRequest, FeedsRequest};
use fanfold_cluster::view::GroupHealth;
use fanfold_cluster::{ClusterChange, Node, NodeError};
use fanfold_storage::command::Write;
use fanfold_storage::event::{StreamAnswer, StreamMessage};
use fanfold_storage::ids::{PartitionId, UserId};
use futures_util::future::BoxFuture;

use crate::support::*;

/// Events that a journal keeps for a partition that does not answer.
const EVENTS_MAX: u64 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_destination_stops_no_post_and_its_feeds_are_right_after_its_return() {
    let mut cluster =
        Cluster::changed(3, 1, |options| options.journal_events_max = EVENTS_MAX as usize).await;
    let (dead, node) = (PartitionId(1), 3);
    let change = ClusterChange::Move { partition: Some(dead), from: 1, to: node };
    patient(cluster.node(2).change_cluster(change, false)).await.unwrap();
    cluster.whole().await;
    let mut followed = Followed::new(&cluster).await;
    // Followed by one reader there only; its entry is deleted while nobody there hears of it.
    let (other, reader) = (user_at(2, 4), user_at(dead.0, 2));
    cluster.follow(reader, other).await;
    followed.post(&cluster, 3).await;
    followed.seen(&cluster).await;
    let [old, kept] = [cluster.post(other, "goes").await, cluster.post(other, "stays").await];
    cluster.sees(reader, &[kept, old]).await;
    cluster.kill(node).await;
    cluster.agree("the loss is seen", |view| view.groups[2].health == GroupHealth::Lost).await;

    // Posting goes on; nothing more is kept for it once a message to it counts as lost.
    let home = PartitionId::of_user(followed.owner, PARTITIONS);
    let source = || {
        let status = cluster.node(1).status();
        status.partitions.into_iter().find(|partition| partition.partition == home).unwrap()
    };
    let is_given_up = || source().streams.iter().any(|s| s.destination == dead && !s.is_active);
    while !is_given_up() {
        followed.post(&cluster, 5).await;
        assert!(followed.posts.len() < 5_000, "it is never given up");
    }
    cluster.write(other, Write::Delete { space: POSTS, owner: other, id: old }).await;
    for _ in 0..10 {
        followed.post(&cluster, 10).await;
        // What the others have yet to answer.
        patient(async {
            while source().journal_len > EVENTS_MAX {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        })
        .await;
    }
    // The other partitions' readers see all of it meanwhile.
    let newest = |followed: &Followed| followed.posts.iter().copied().take(100).collect::<Vec<_>>();
    for reader in followed.readers.iter().filter(|reader| **reader != user_at(dead.0, 1)) {
        cluster.sees(*reader, &newest(&followed)).await;
    }
    cluster.start(node).await;
    cluster.whole().await;
    for _ in 0..2 {
        for reader in &followed.readers {
            cluster.sees(*reader, &newest(&followed)).await;
        }
        cluster.sees(reader, &[kept]).await;
        // And it goes on as if nothing had been.
        followed.post(&cluster, 2).await;
    }
}

/// The payloads of what the leader of a reader's home answers.
async fn payloads(cluster: &Cluster, reader: UserId) -> Vec<Vec<u8>> {
    let request = FeedRequest { hydrate: true, ..feed(reader) };
    let home = PartitionId::of_user(reader, PARTITIONS);
    let page = cluster.at_leader(home, async |node| node.read_feed(&request).await).await.unwrap();
    page.entries.iter().filter_map(|entry| Some(entry.payload.as_ref()?.to_vec())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_often_read_of_another_node_is_kept_and_shown_while_that_is_away() {
    let mut cluster = Cluster::of(3, 1).await;
    let (away, node) = (PartitionId(1), 3);
    let change = ClusterChange::Move { partition: Some(away), from: 1, to: node };
    patient(cluster.node(2).change_cluster(change, false)).await.unwrap();
    cluster.whole().await;
    let (owner, reader, other) = (user_at(away.0, 0), user_at(2, 1), user_at(2, 2));
    cluster.follow(reader, owner).await;
    cluster.follow(other, owner).await;
    let posted = cluster.post(owner, "often read").await;
    let seldom = cluster.post(owner, "read once").await;
    cluster.sees(reader, &[seldom, posted]).await;
    // Until then the owner's home may be asked which entries there are.
    let rows = || {
        let status = cluster.leader_of(PartitionId(2))?.status();
        Some(status.partitions.iter().find(|here| here.partition == PartitionId(2))?.usage.rows)
    };
    patient(async {
        while rows() != Some(2) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })
    .await;
    let [often, once] = [b"often read", &b"read once"[..]].map(<[u8]>::to_vec);
    assert_eq!(payloads(&cluster, reader).await, [once, often.clone()]);
    cluster.write(owner, Write::Delete { space: POSTS, owner, id: seldom }).await;
    cluster.sees(other, &[posted]).await;
    assert_eq!(payloads(&cluster, other).await, std::slice::from_ref(&often));
    cluster.kill(node).await;
    cluster.agree("the loss is seen", |view| view.groups[2].health == GroupHealth::Lost).await;
    // Whether there is more below it, nobody can say.
    assert_eq!(payloads(&cluster, reader).await, [often]);

    // What it says now is another version, and nobody is shown the old one.
    cluster.start(node).await;
    cluster.whole().await;
    let payload = bytes::Bytes::from_static(b"amended");
    cluster
        .write(owner, Write::Amend { space: POSTS, owner, id: posted, expected_version: 1, payload })
        .await;
    let later = cluster.post(owner, "later").await;
    cluster.sees(reader, &[later, posted]).await;
    let amended = [&b"later"[..], b"amended"].map(<[u8]>::to_vec);
    assert_eq!(payloads(&cluster, reader).await, amended);
}

/// The partition that no stream reaches.
const CUT: PartitionId = PartitionId(3);

struct CutOff(Streams);

impl StreamTransport for CutOff {
    fn send(
        &self,
        destination: PartitionId,
        message: StreamMessage,
    ) -> BoxFuture<'static, Result<StreamAnswer, StreamError>> {
        if destination == CUT {
            return Box::pin(async move { Err(StreamError::Unavailable { destination }) });
        }
        self.0.send(destination, message)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_leader_tells_what_waits_for_a_destination_that_stands_still() {
    let mut cluster = Cluster::empty(3);
    cluster.wrap = |streams| Arc::new(CutOff(streams));
    for node in 1..=3 {
        cluster.start(node).await;
    }
    cluster.whole().await;
    let source = PartitionId(0);
    cluster.follow(user_at(CUT.0, 1), user_at(source.0, 0)).await;
    let told = |node: &Node| {
        let status = node.status();
        status.partitions.into_iter().find(|partition| partition.partition == source).unwrap()
    };
    let age = |node: &Node| {
        let streams = told(node).streams;
        streams.iter().filter(|s| s.destination == CUT && s.pending_events > 0).map(|s| s.oldest_age_ms).max()
    };
    for leader in [2, 3] {
        patient(cluster.node(leader).transfer_leader(Some(source), leader, false)).await.unwrap();
        let leads = |node: &Node| node.identity().node_id == leader;
        let is_told = || age(cluster.node(leader)).is_some_and(|age_ms| age_ms >= 100);
        let all_know = || cluster.running().all(|n| told(n).is_leader == leads(n) && told(n).journal_len > 0);
        patient(async {
            while !is_told() || !all_know() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        })
        .await;
        for node in cluster.running() {
            assert_eq!(age(node).is_some(), leads(node), "{:?}", told(node));
            assert_eq!(told(node).undelivered_events > 0, leads(node), "{:?}", told(node));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_what_does_not_arrive_holds_up_no_reader_of_another_partition() {
    let mut cluster = Cluster::empty(1);
    cluster.wrap = |streams| Arc::new(CutOff(streams));
    cluster.start(1).await;
    cluster.whole().await;
    let owner = user_at(0, 0);
    let readers = vec![user_at(CUT.0, 1), user_at(2, 1)];
    assert_ne!(CUT, PartitionId(2));
    cluster.follow(readers[1], owner).await;
    cluster.follow(readers[0], owner).await;
    let token = cluster.write(owner, Write::Append { items: vec![entry(owner, "hello")] }).await.position;
    let consistency = Consistency::Leader;
    let request =
        FeedsRequest { space: POSTS, readers, limit: 10, hydrate: false, at_least: Some(token), consistency };
    let pages = patient(Box::pin(cluster.any().read_feeds(&request))).await.unwrap();
    assert!(matches!(pages[0], Err(NodeError::Unavailable { partition: CUT, .. })), "{:?}", pages[0]);
    assert_eq!(pages[1].as_ref().unwrap().entries.len(), 1);
}
