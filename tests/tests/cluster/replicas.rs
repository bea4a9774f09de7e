//! Owns the comparison of all replicas: the nodes are opened again on what their processes left, and every partition's logical
//! state has one checksum at one index.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use fanfold_cluster::{Node, NodeOptions, Start};
use fanfold_server::workload::fleet::Spot;
use fanfold_storage::ids::PartitionId;

/// How long the replicas have to agree on an index.
const PATIENCE: Duration = Duration::from_secs(120);

/// A node that ended, by where it was and what it left.
pub struct Left {
    pub spot: Spot,
    pub data_dir: PathBuf,
}

/// Compares all replicas; answers how many there were.
pub async fn compare(left: &[Left], replicas: usize) -> usize {
    let addresses: Vec<_> = left.iter().map(|left| left.spot.peer.to_string()).collect();
    let opened = left.iter().map(|left| {
        let mut options = NodeOptions::new(&left.data_dir);
        options.advertise = left.spot.client.to_string();
        options.peer_listen = Some(left.spot.peer);
        options.peer_advertise = left.spot.told.map(|told| told.to_string());
        options.start = Start::Join { addresses: addresses.clone() };
        options.log.segment_bytes = crate::SEGMENT_BYTES;
        Node::open(options)
    });
    let nodes = futures_util::future::try_join_all(opened).await.unwrap();
    let mut compared = 0;
    for partition in (0..nodes[0].partitions()).map(PartitionId) {
        let begun = Instant::now();
        compared += loop {
            // By node: where it is, and the checksum there.
            let states = nodes.iter().filter_map(|node| {
                let state =
                    node.read_partition(partition, |state| (state.applied(), state.checksum())).ok()?;
                Some((node.identity().node_id, state))
            });
            let states: BTreeMap<_, _> = states.collect();
            assert_ne!(agree(&states), Some(false), "{partition:?} is not the same everywhere: {states:?}");
            if states.len() == replicas && agree(&states).is_some() {
                break states.len();
            }
            assert!(begun.elapsed() < PATIENCE, "{partition:?} did not come to one index: {states:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        };
    }
    for node in nodes {
        node.close().await.unwrap();
    }
    compared
}

/// Whether all that are at the same index are the same there; nothing, if they are but are not all at one.
fn agree<Id, Index: Ord>(states: &BTreeMap<Id, (Index, u128)>) -> Option<bool> {
    let mut by_index: BTreeMap<&Index, u128> = BTreeMap::new();
    let same = states.values().all(|(index, sum)| *by_index.entry(index).or_insert(*sum) == *sum);
    (!same || by_index.len() == 1).then_some(same)
}

#[test]
fn replicas_that_differ_at_one_index_do_not_agree() {
    let agreed = |states: &[(u64, u128)]| agree(&states.iter().copied().enumerate().collect());
    assert_eq!(agreed(&[(7, 1), (7, 1), (7, 1)]), Some(true));
    assert_eq!(agreed(&[(7, 1), (7, 1), (6, 2)]), None);
    assert_eq!(agreed(&[(7, 1), (6, 2), (7, 3)]), Some(false));
    assert_eq!(agreed(&[(7, 1), (7, 1), (7, 2)]), Some(false));
}
