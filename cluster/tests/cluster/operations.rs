//! What an operator does: moves, drains, removals, replacements, and what is refused.

use fanfold_cluster::catalog::NodeState;
use fanfold_cluster::view::GroupHealth;
use fanfold_cluster::{ClusterChange, ClusterRefusal, NodeError};
use fanfold_storage::ids::PartitionId;

use crate::support::*;

async fn change(cluster: &Cluster, by: u64, change: ClusterChange) {
    patient(cluster.node(by).change_cluster(change, false)).await.unwrap();
}

async fn refused(cluster: &Cluster, change: ClusterChange) -> ClusterRefusal {
    match patient(cluster.any().change_cluster(change, false)).await {
        Err(NodeError::Cluster(refusal)) => refusal,
        other => panic!("{other:?}"),
    }
}

fn replicas_on(cluster: &Cluster, node: u64) -> u32 {
    let view = cluster.any().view();
    view.nodes.iter().find(|known| known.node == node).unwrap().replicas
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_node_is_removed_and_never_comes_back() {
    let mut cluster = Cluster::of(4, 3).await;
    let mut followed = Followed::new(&cluster).await;
    followed.post(&cluster, 5).await;
    let drain = ClusterChange::Drain { node: 2 };
    let dry = patient(cluster.node(3).change_cluster(drain, true)).await.unwrap();
    assert_eq!(dry.nodes, [(2, NodeState::Draining)]);
    assert!(dry.placement.iter().all(|change| !change.to.contains(&2)), "{dry:?}");
    assert_eq!(dry.placement.len() as u32, replicas_on(&cluster, 2));
    assert!(replicas_on(&cluster, 2) > 0, "a dry run changes nothing");
    let early = refused(&cluster, ClusterChange::Remove { node: 2 }).await;
    assert!(matches!(early, ClusterRefusal::NotDrained { node: 2, .. }), "{early:?}");
    change(&cluster, 3, drain).await;
    cluster.agree("it is empty", |view| view.nodes[1].replicas == 0).await;
    cluster.whole().await;
    followed.post(&cluster, 5).await;
    change(&cluster, 4, ClusterChange::Remove { node: 2 }).await;
    cluster.stop(2).await;
    cluster.agree("it is removed", |view| view.nodes[1].state == NodeState::Removed).await;
    followed.post(&cluster, 5).await;
    followed.seen(&cluster).await;
    let again = refused(&cluster, ClusterChange::Undrain { node: 2 }).await;
    assert_eq!(again, ClusterRefusal::NodeRemoved { node: 2 });
    cluster.lose(2);
    cluster.start(5).await;
    assert_eq!(cluster.node(5).identity().node_id, 5, "ids are never used again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_removes_itself_says_that_it_is_done() {
    let cluster = Cluster::of(4, 3).await;
    // One that does not lead the catalog, and is cut off by the one that does before the answer is there.
    let leader = cluster.any().view().groups[0].leader.unwrap();
    let node = (1..=4).find(|node| *node != leader).unwrap();
    change(&cluster, node, ClusterChange::Drain { node }).await;
    cluster.agree("it is empty", |view| view.nodes[node as usize - 1].replicas == 0).await;
    cluster.whole().await;
    change(&cluster, node, ClusterChange::Remove { node }).await;
    assert_eq!(cluster.node(leader).view().nodes[node as usize - 1].state, NodeState::Removed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_node_is_replaced() {
    let mut cluster = Cluster::of(3, 3).await;
    let mut followed = Followed::new(&cluster).await;
    followed.post(&cluster, 5).await;
    cluster.kill(1).await;
    cluster.lose(1);
    cluster.start(4).await;
    cluster.agree("the loss is seen", |view| !view.nodes[0].is_alive).await;
    change(&cluster, 4, ClusterChange::Replace { node: 1, by: 4 }).await;
    cluster.agree("it is removed", |view| view.nodes[0].state == NodeState::Removed).await;
    cluster.whole().await;
    let view = cluster.any().view();
    let is_right = |group: &fanfold_cluster::view::GroupView| {
        let mut nodes: Vec<_> = group.voters.iter().map(|voter| voter.node).collect();
        nodes.sort_unstable();
        nodes == [2, 3, 4]
    };
    assert!(view.groups.iter().all(is_right), "{view:#?}");
    followed.post(&cluster, 5).await;
    // Only with the new one can the others lose one more.
    cluster.kill(2).await;
    followed.post(&cluster, 5).await;
    followed.seen(&cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_joined_a_moment_ago_is_part_of_what_is_planned() {
    let mut cluster = Cluster::of(3, 3).await;
    cluster.start(4).await;
    // Whoever is asked: none of them has a connection to it yet, and two may not know that it is there.
    let dry = [1, 2, 3].map(|by| cluster.node(by).change_cluster(ClusterChange::Balance, true));
    for dry in patient(futures_util::future::join_all(dry)).await {
        let moved = dry.unwrap().placement.iter().filter(|change| change.to.contains(&4)).count();
        assert!(moved > 0, "the balance leaves it out");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_moves_under_writes() {
    let cluster = Cluster::of(4, 3).await;
    let mut followed = Followed::new(&cluster).await;
    followed.post(&cluster, 5).await;
    let partition = PartitionId(0);
    let nodes = |cluster: &Cluster| -> Vec<u64> {
        cluster.any().view().groups[1].wanted.iter().map(|record| record.node).collect()
    };
    let before = nodes(&cluster);
    let to = (1..=4).find(|node| !before.contains(node)).unwrap();
    for from in before.clone() {
        // The preferred leader too.
        let to =
            if from == before[0] { to } else { before[before.iter().position(|n| *n == from).unwrap() - 1] };
        change(&cluster, 1, ClusterChange::Move { partition: Some(partition), from, to }).await;
        followed.post(&cluster, 5).await;
        cluster.whole().await;
    }
    followed.seen(&cluster).await;
    let back = ClusterChange::Move { partition: Some(partition), from: before[2], to: before[0] };
    assert!(matches!(refused(&cluster, back).await, ClusterRefusal::NoReplica { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_that_get_replicas_of_the_same_partitions_do_not_wait_for_each_other() {
    let mut cluster = Cluster::of(3, 3).await;
    let partitions = [PartitionId(0), PartitionId(1)];
    let owners = partitions.map(|partition| user_at(partition.0, 0));
    // So much that a new replica is filled with it.
    for _ in 0..300 {
        tokio::join!(cluster.post(owners[0], "before"), cluster.post(owners[1], "before"));
    }
    cluster.start(4).await;
    cluster.start(5).await;
    // Each is told first of the one that the other is told of last.
    for (partition, from, to) in [(0, 1, 4), (1, 1, 5), (0, 2, 5), (1, 2, 4)] {
        let partition = Some(partitions[partition]);
        change(&cluster, 3, ClusterChange::Move { partition, from, to }).await;
    }
    // While something is written, a replica that may not vote yet comes further all the time.
    let write_on = async {
        loop {
            tokio::join!(cluster.post(owners[0], "meanwhile"), cluster.post(owners[1], "meanwhile"));
        }
    };
    tokio::select! {
        never = write_on => never,
        () = cluster.whole() => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_goes_where_it_is_asked_to() {
    let cluster = Cluster::of(3, 3).await;
    let partition = PartitionId(2);
    for to in [1, 2, 3] {
        patient(cluster.node(1).transfer_leader(Some(partition), to, false)).await.unwrap();
        cluster.agree("it leads", |view| view.groups[3].leader == Some(to)).await;
    }
    patient(cluster.node(2).transfer_leader(None, 3, false)).await.unwrap();
    cluster.agree("it leads the catalog", |view| view.groups[0].leader == Some(3)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_is_refused_with_a_reason() {
    let mut cluster = Cluster::founded(3).await;
    let last = refused(&cluster, ClusterChange::Drain { node: 1 }).await;
    assert_eq!(last, ClusterRefusal::LastVoter { node: 1, partition: None });
    let unknown = refused(&cluster, ClusterChange::Remove { node: 9 }).await;
    assert_eq!(unknown, ClusterRefusal::UnknownNode { node: 9, known: vec![1] });
    cluster.start(2).await;
    cluster.start(3).await;
    cluster.whole().await;
    let below = refused(&cluster, ClusterChange::Drain { node: 2 }).await;
    assert_eq!(below, ClusterRefusal::BelowReplicas { node: 2, replicas: 3, left: 2, silent: Vec::new() });
    let many = refused(&cluster, ClusterChange::Settings { replicas: Some(9), repair_after_ms: None }).await;
    assert!(matches!(many, ClusterRefusal::Replicas { got: 9, .. }));
    // A dry run finds what a run would.
    for dry in [true, false] {
        let to_nobody = patient(cluster.any().transfer_leader(None, 9, dry)).await;
        assert!(matches!(to_nobody, Err(NodeError::Cluster(ClusterRefusal::UnknownNode { node: 9, .. }))));
        let nothing = patient(cluster.any().transfer_leader(Some(PartitionId(PARTITIONS)), 2, dry)).await;
        assert!(matches!(nothing, Err(NodeError::Cluster(ClusterRefusal::UnknownPartition { .. }))));
    }
    cluster.kill(2).await;
    cluster.kill(3).await;
    cluster.agree("the loss is seen", |view| !view.nodes[1].is_alive && !view.nodes[2].is_alive).await;
    let lost = refused(&cluster, ClusterChange::Move { partition: None, from: 3, to: 1 }).await;
    assert_eq!(lost, ClusterRefusal::HasReplica { partition: None, node: 1 });
    // Who could agree to it is named, not that somebody was busy.
    let fewer = ClusterChange::Settings { replicas: Some(1), repair_after_ms: None };
    let silent = patient(cluster.any().change_cluster(fewer, false)).await;
    assert!(matches!(&silent, Err(NodeError::CatalogSilent { silent }) if *silent == [2, 3]), "{silent:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_node_is_repaired_by_itself() {
    let mut cluster = Cluster::of(4, 3).await;
    let mut followed = Followed::new(&cluster).await;
    followed.post(&cluster, 3).await;
    change(&cluster, 1, ClusterChange::Settings { replicas: None, repair_after_ms: Some(4_000) }).await;
    cluster.kill(3).await;
    cluster.agree("its replicas went elsewhere", |view| view.nodes[2].replicas == 0).await;
    cluster.whole().await;
    followed.post(&cluster, 3).await;
    followed.seen(&cluster).await;
    // When it is back it learns that they are gone, and is there for others.
    cluster.start(3).await;
    cluster.agree("it is alive", |view| view.nodes[2].is_alive).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_lost_its_majority_goes_on_with_one_replica() {
    let mut cluster = Cluster::of(5, 3).await;
    let mut followed = Followed::new(&cluster).await;
    followed.post(&cluster, 5).await;
    followed.seen(&cluster).await;
    let held = |cluster: &Cluster, group: usize| -> Vec<u64> {
        cluster.any().view().groups[group].wanted.iter().map(|record| record.node).collect()
    };
    let partition = PartitionId(0);
    let nodes = held(&cluster, 1);
    let early = refused(&cluster, ClusterChange::Recover { partition, from: nodes[0] }).await;
    assert_eq!(early, ClusterRefusal::HasQuorum { partition });
    cluster.kill(nodes[0]).await;
    cluster.kill(nodes[1]).await;
    cluster.agree("the loss is seen", |view| view.groups[1].health == GroupHealth::Lost).await;
    let by = cluster.any().identity().node_id;
    for group in 1..=usize::from(PARTITIONS) {
        let (partition, holders) = (PartitionId(group as u16 - 1), held(&cluster, group));
        let left: Vec<_> = holders.iter().copied().filter(|node| !nodes[..2].contains(node)).collect();
        if left.len() == 1 {
            let change = ClusterChange::Recover { partition, from: left[0] };
            let changed = patient(cluster.node(by).change_cluster(change, false)).await.unwrap();
            assert_eq!((changed.losses[0].kept, changed.losses[0].given_up.len()), (left[0], 2));
        }
    }
    cluster.agree("all serve again", |view| view.groups.iter().all(|g| g.health != GroupHealth::Lost)).await;
    cluster.led().await;
    followed.post(&cluster, 5).await;
    followed.seen(&cluster).await;
    // Those that come back learn that they are given up, and are filled anew where they are wanted.
    cluster.start(nodes[0]).await;
    cluster.start(nodes[1]).await;
    cluster.whole().await;
    followed.post(&cluster, 5).await;
    followed.seen(&cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_has_just_started_takes_no_majority_for_lost() {
    let mut cluster = Cluster::of(3, 3).await;
    let partition = PartitionId(0);
    for node in 1..=3 {
        cluster.kill(node).await;
        cluster.start(node).await;
        let change = ClusterChange::Recover { partition, from: node };
        let refused = patient(cluster.node(node).change_cluster(change, false)).await;
        let has_quorum = ClusterRefusal::HasQuorum { partition };
        assert!(matches!(&refused, Err(NodeError::Cluster(why)) if *why == has_quorum), "{refused:?}");
    }
}
