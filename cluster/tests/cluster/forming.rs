//! A cluster grows from one node, and its nodes are told apart.

use fanfold_cluster::{ClusterRefusal, OpenError};
use fanfold_storage::space::SpacePolicy;

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_becomes_three_and_nothing_is_lost() {
    let mut cluster = Cluster::founded(3).await;
    let mut followed = Followed::new(&cluster).await;
    followed.post(&cluster, 5).await;
    for node in [2, 3] {
        cluster.start(node).await;
        followed.post(&cluster, 5).await;
    }
    cluster.whole().await;
    followed.post(&cluster, 5).await;
    followed.seen(&cluster).await;
    let view = cluster.node(3).view();
    assert!(view.groups.iter().all(|group| group.wanted.len() == 3), "{view:#?}");
    let leads: Vec<_> = view.nodes.iter().map(|node| node.leads).collect();
    assert!(leads.iter().all(|leads| *leads > 0), "leaders are spread: {leads:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_keep_one_replica_of_each_group() {
    let cluster = Cluster::of(2, 3).await;
    let view = cluster.node(2).view();
    assert!(view.groups.iter().all(|group| group.wanted.len() == 1), "{view:#?}");
    let mut followed = Followed::new(&cluster).await;
    followed.post(&cluster, 3).await;
    followed.seen(&cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_space_is_made_from_any_node_and_known_at_all() {
    let cluster = Cluster::of(3, 3).await;
    let made = patient(cluster.node(3).create_space("notes", None, SpacePolicy::default())).await.unwrap();
    for node in cluster.running() {
        let node = node.clone();
        cluster.agree("the space is known", |_| node.spaces().iter().any(|space| space.id == made.id)).await;
    }
    let owner = user_at(2, 0);
    let mut item = entry(owner, "in the new space");
    item.space = made.id;
    cluster.write(owner, fanfold_storage::command::Write::Append { items: vec![item] }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_node_at_its_old_address_is_told_to_replace() {
    let mut cluster = Cluster::of(3, 3).await;
    cluster.kill(3).await;
    let address = cluster.lose(3);
    cluster.reserve(3, address);
    let refused = patient(cluster.try_start(3)).await.unwrap_err();
    assert!(
        matches!(&refused, OpenError::Refused(ClusterRefusal::AddressTaken { node: 3, .. })),
        "{refused:?}"
    );
    assert!(refused.to_string().contains("fanfold node replace 3"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_nodes_restart_and_go_on() {
    let mut cluster = Cluster::of(3, 3).await;
    let mut followed = Followed::new(&cluster).await;
    followed.post(&cluster, 5).await;
    for node in [1, 2, 3] {
        cluster.kill(node).await;
    }
    // Each opens without the others.
    for node in [2, 3, 1] {
        cluster.start(node).await;
    }
    cluster.led().await;
    followed.post(&cluster, 5).await;
    followed.seen(&cluster).await;
    for node in [1, 2, 3] {
        cluster.stop(node).await;
    }
    for node in [1, 2, 3] {
        cluster.start(node).await;
    }
    cluster.whole().await;
    followed.seen(&cluster).await;
}
