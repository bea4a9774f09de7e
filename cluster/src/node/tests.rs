//! Tests of what no client of a node sees.

use std::net::SocketAddr;

use fanfold_storage::ids::PartitionId;
use fanfold_storage::log::GroupId;

use super::*;
use crate::options::NodeOptions;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recovered_replica_has_its_new_incarnation_before_it_is_reached() {
    let temp = tempfile::tempdir().unwrap();
    let mut options = NodeOptions::new(temp.path().join("data"));
    options.partitions = Some(2);
    options.log.segment_bytes = 1 << 20;
    options.peer_listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    let node = Node::open(options).await.unwrap();
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
