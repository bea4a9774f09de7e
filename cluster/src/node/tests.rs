//! Tests of what no client of a node sees.

use std::net::SocketAddr;

use fanfold_storage::ids::{PartitionId, SpaceId};
use fanfold_storage::log::GroupId;
use tokio::time::timeout;

use super::changes::OTHERS_WAIT;
use super::peers::control_of;
use super::survey::{Control, whole};
use super::*;
use crate::catalog::{CatalogRefusal, CatalogState, FEATURE_LEVEL};
use crate::change::{ClusterChange, ClusterRefusal};
use crate::error::OpenError;
use crate::identity::DataDir;
use crate::options::{NodeOptions, Start};
use crate::peer::{JoinRequest, PeerCall, PeerError, PeerRefusal};
use crate::view::GroupHealth;

/// One of four nodes, whose directories are in one place.
async fn one_of_four(
    dir: &std::path::Path,
    number: u64,
    addresses: &mut [Option<SocketAddr>; 4],
) -> Arc<Node> {
    let mut options = NodeOptions::new(dir.join(number.to_string()));
    options.partitions = Some(1);
    options.log.segment_bytes = 1 << 20;
    options.advertise = format!("127.0.0.1:{}", 20_000 + number);
    let place = number as usize - 1;
    options.peer_listen = Some(addresses[place].unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0))));
    if number > 1 {
        let known = addresses.iter().flatten().map(ToString::to_string);
        options.start = Start::Join { addresses: known.collect() };
    }
    let node = Node::open(options).await.unwrap();
    addresses[place] = node.peer_address();
    node
}

/// Waits until a node sees that all groups have three replicas, and says which they are.
async fn all_replicas(node: &Node) -> Vec<u64> {
    loop {
        let groups = node.view().groups;
        if groups.iter().all(|group| group.health == GroupHealth::Whole && group.voters.len() == 3) {
            return groups.iter().flat_map(|group| &group.wanted).map(|record| record.replica).collect();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_was_recovered_long_ago_is_not_thrown_away_because_of_an_old_catalog() {
    let temp = tempfile::tempdir().unwrap();
    let mut addresses = [None; 4];
    let mut nodes = Vec::new();
    for number in 1..=4 {
        nodes.push(one_of_four(temp.path(), number, &mut addresses).await);
    }
    timeout(Duration::from_secs(60), all_replicas(&nodes[0])).await.unwrap();
    // The fourth has no replica of the catalog: what it knows at its start is what it noted.
    let wanted = nodes[0].view().groups[1].wanted.clone();
    if wanted.iter().all(|record| record.node != 4) {
        let change = ClusterChange::Move { partition: Some(PartitionId(0)), from: wanted[0].node, to: 4 };
        nodes[0].change_cluster(change, false).await.unwrap();
    }
    let before = timeout(Duration::from_secs(60), all_replicas(&nodes[0])).await.unwrap();
    for node in nodes.drain(..) {
        node.abandon().await;
    }
    // Its note of the catalog is of a time when the group was being recovered with it.
    let dir = DataDir::at(&temp.path().join("4"));
    let mut state = dir.load_catalog().unwrap();
    let replica = state.wanted(1).iter().find(|record| record.node == 4).unwrap().replica;
    state.recovering.insert(1, replica);
    state.epoch -= 1;
    dir.store_catalog(&state).unwrap();
    drop(dir);
    for number in [4, 1, 2, 3] {
        nodes.push(one_of_four(temp.path(), number, &mut addresses).await);
    }
    for node in &nodes {
        let after = timeout(Duration::from_secs(60), all_replicas(node)).await.unwrap();
        assert_eq!(after, before, "no replica was made anew");
    }
    for node in nodes {
        node.abandon().await;
    }
}

fn options(dir: &tempfile::TempDir) -> NodeOptions {
    let mut options = NodeOptions::new(dir.path().join("data"));
    options.partitions = Some(2);
    options.log.segment_bytes = 1 << 20;
    options.peer_listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    options
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recovered_replica_has_its_new_incarnation_before_it_is_reached() {
    let temp = tempfile::tempdir().unwrap();
    let node = Node::open(options(&temp)).await.unwrap();
    let partition = PartitionId(1);
    let before = node.partitions.get(partition).unwrap().incarnation();
    assert!(before < 9);
    // Whoever waits for the partition has it as soon as it is there, before the recovery is told to the catalog.
    let waiting = tokio::spawn({
        let partitions = node.partitions.clone();
        async move {
            loop {
                match partitions.get(partition) {
                    Ok(handle) if handle.group().replica().0 == 9 => {
                        return handle.read(Partition::incarnation).unwrap();
                    }
                    _ => tokio::task::yield_now().await,
                }
            }
        }
    });
    node.host.recover(GroupId(2), 9).await.unwrap();
    assert_eq!(waiting.await.unwrap(), 9);
    assert_eq!(node.partitions.get(partition).unwrap().incarnation(), 9);
    node.abandon().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_older_than_the_cluster_neither_joins_nor_starts_again() {
    let temp = tempfile::tempdir().unwrap();
    let node = Node::open(options(&temp)).await.unwrap();
    let request = JoinRequest {
        directory: 7,
        client_address: "elsewhere:1".into(),
        peer_address: "elsewhere:2".into(),
        zone: String::new(),
        feature_level: FEATURE_LEVEL - 1,
    };
    let address = node.peer_address().unwrap().to_string();
    let call = PeerCall::Join(request);
    let refused = node.peers.as_ref().unwrap().call_address(&address, call, OTHERS_WAIT).await;
    let Err(PeerError::Refused(PeerRefusal::Other { reason })) = refused else { panic!("{refused:?}") };
    assert_eq!(whole(&reason), Ok(CatalogRefusal::FeatureLevel { needed: FEATURE_LEVEL }));
    assert_eq!(node.catalog.state().nodes.len(), 1);
    let known = node.catalog.state();
    node.close().await.unwrap();
    // What a newer program left behind.
    let (needed, supported) = (FEATURE_LEVEL + 1, FEATURE_LEVEL);
    let raised = CatalogState { feature_level: needed, epoch: known.epoch + 1, ..(*known).clone() };
    DataDir::prepare(&temp.path().join("data")).unwrap().store_catalog(&raised).unwrap();
    let refused = Node::open(options(&temp)).await.unwrap_err();
    let is_it = |refusal: &ClusterRefusal| *refusal == ClusterRefusal::FeatureLevel { needed, supported };
    assert!(matches!(&refused, OpenError::Refused(refusal) if is_it(refusal)), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_made_to_wait_for_a_space_for_ever() {
    let temp = tempfile::tempdir().unwrap();
    let node = Node::open(options(&temp)).await.unwrap();
    let never = Control::AwaitSpace { space: SpaceId(99), version: 1 };
    let waited = timeout(4 * OTHERS_WAIT, control_of(&node.host, never)).await;
    assert_eq!(waited.unwrap(), Err(PeerRefusal::Unavailable { may_have_applied: true }));
    node.abandon().await;
}

/// Three nodes with all replicas, in one process.
async fn three(temp: &tempfile::TempDir) -> Vec<Arc<Node>> {
    let mut nodes: Vec<Arc<Node>> = Vec::new();
    for number in 1..=3 {
        let mut options = NodeOptions::new(temp.path().join(number.to_string()));
        options.partitions = Some(2);
        options.log.segment_bytes = 1 << 20;
        options.advertise = format!("127.0.0.1:{}", 21_000 + number);
        options.peer_listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        options.start = match nodes.first() {
            None => Start::Found { replicas: 3 },
            Some(first) => Start::Join { addresses: vec![first.peer_address().unwrap().to_string()] },
        };
        nodes.push(Node::open(options).await.unwrap());
    }
    nodes
}

/// How many replicas of partitions sleep on each node.
fn asleep(nodes: &[Arc<Node>]) -> Vec<usize> {
    let is_asleep =
        |node: &Arc<Node>| node.partitions.all().filter(|partition| partition.group().is_asleep()).count();
    nodes.iter().map(is_asleep).collect()
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(90), wait).await.expect(what);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_cluster_sleeps_and_outlives_a_leader() {
    let temp = tempfile::tempdir().unwrap();
    let mut nodes = three(&temp).await;
    let is_settled = |nodes: &[Arc<Node>]| {
        let preferred = |group: &crate::view::GroupView| group.wanted.first().map(|record| record.node);
        nodes[0].view().groups.iter().all(|group| group.leader.is_some() && group.leader == preferred(group))
    };
    until("all sleep", || is_settled(&nodes) && asleep(&nodes) == [2, 2, 2]).await;
    // A write wakes its group, which falls asleep again.
    let led = |nodes: &[Arc<Node>], id| {
        nodes
            .iter()
            .position(|node| node.partitions.get(PartitionId(id)).is_ok_and(|p| p.group().is_leader()))
    };
    let leader = led(&nodes, 0).unwrap();
    nodes[leader].open_session(PartitionId(0)).await.unwrap();
    until("all sleep again", || asleep(&nodes) == [2, 2, 2]).await;
    let term = nodes[leader].partitions.get(PartitionId(0)).unwrap().group().metrics().term;
    nodes.remove(leader).abandon().await;
    // The leadership may go on to whoever is preferred.
    let opened = async {
        loop {
            if let Some(successor) = led(&nodes, 0)
                && nodes[successor].open_session(PartitionId(0)).await.is_ok()
            {
                return successor;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let successor = timeout(Duration::from_secs(90), opened).await.expect("another leads");
    let now = nodes[successor].partitions.get(PartitionId(0)).unwrap().group().metrics().term;
    assert!(now > term);
    for node in nodes {
        node.abandon().await;
    }
}
