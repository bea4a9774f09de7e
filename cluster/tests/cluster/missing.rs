//! Nodes that come back with less in their directories than they had, or more.

use std::fs;
use std::io::{Seek, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use fanfold_cluster::catalog::NodeState;
use fanfold_cluster::survivor::{SurvivorError, survive, withdraw};
use fanfold_cluster::view::GroupHealth;
use fanfold_cluster::{ClusterChange, ClusterView, NodeOptions, OpenError};
use fanfold_storage::command::{Write, WriteResult};
use fanfold_storage::ids::PartitionId;
use fanfold_storage::partition::Partition;
use fanfold_storage::space::SpacePolicy;

use crate::support::*;

/// The notes of the replicas in a data directory, by group.
fn notes(data_dir: &Path) -> Vec<Vec<u8>> {
    let groups = (0..=PARTITIONS).map(|group| data_dir.join(format!("groups/{group:04}/replica")));
    groups.filter_map(|note| fs::read(note).ok()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_its_log_or_identity_is_refused_and_nothing_is_made() {
    let mut cluster = Cluster::of(3, 3).await;
    let mut followed = Followed::new(&cluster).await;
    followed.post(&cluster, 3).await;
    for node in 1..=3 {
        cluster.stop(node).await;
        let dir = cluster.data_dir(node);
        let before = notes(&dir);
        for part in ["log", "identity"] {
            fs::rename(dir.join(part), dir.join("kept")).unwrap();
            let refused = cluster.try_start(node).await.unwrap_err();
            let is_right = match part {
                "log" => matches!(refused, OpenError::LogMissing { .. }),
                _ => matches!(refused, OpenError::IdentityLost { .. }),
            };
            assert!(is_right, "node {node} without {part}: {refused}");
            assert!(!dir.join(part).exists());
            assert_eq!(notes(&dir), before);
            fs::rename(dir.join("kept"), dir.join(part)).unwrap();
        }
        cluster.start(node).await;
        cluster.whole().await;
    }
    followed.post(&cluster, 3).await;
    followed.seen(&cluster).await;
}

/// As a kill leaves it between the note that a replica is retired and the end of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_still_counts_on_retired_replicas_starts_and_serves_others() {
    let mut cluster = Cluster::of(4, 3).await;
    let mut followed = Followed::new(&cluster).await;
    followed.post(&cluster, 3).await;
    let node = cluster.any().view().groups[0].wanted.iter().map(|r| r.node).find(|n| *n != 1).unwrap();
    cluster.stop(node).await;
    let dir = cluster.data_dir(node);
    let kept = dir.with_file_name("kept");
    copy_all(&dir.join("identity"), &kept);
    cluster.start(node).await;
    cluster.whole().await;
    let drain = ClusterChange::Drain { node };
    patient(cluster.node(1).change_cluster(drain, false)).await.unwrap();
    cluster.whole().await;
    patient(async {
        while notes(&dir).iter().any(|note| note[6] == 0) {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(notes(&dir).len() > 1, "the catalog and a partition");
    cluster.stop(node).await;
    // sled writes on for a moment, and then gives its lock back.
    let database = fs::File::open(dir.join("identity/db")).unwrap();
    patient(async {
        while database.try_lock().is_err() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })
    .await;
    fs::remove_dir_all(dir.join("identity")).unwrap();
    fs::rename(&kept, dir.join("identity")).unwrap();
    cluster.start(node).await;
    patient(cluster.node(1).change_cluster(ClusterChange::Undrain { node }, false)).await.unwrap();
    cluster.whole().await;
    followed.post(&cluster, 3).await;
    followed.seen(&cluster).await;
}

/// Where the files of a directory hold some bytes.
fn find(dir: &Path, bytes: &[u8]) -> Option<(PathBuf, usize)> {
    fs::read_dir(dir).unwrap().find_map(|item| {
        let path = item.unwrap().path();
        let at = fs::read(&path).ok()?.windows(bytes.len()).position(|window| window == bytes)?;
        Some((path, at))
    })
}

/// The replica of a partition that is wanted on a node.
fn replica(cluster: &Cluster, partition: PartitionId, node: u64) -> u64 {
    let view = cluster.any().view();
    let group = view.groups.into_iter().find(|group| group.partition == Some(partition)).unwrap();
    group.wanted.iter().find(|record| record.node == node).unwrap().replica
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_with_a_flipped_bit_in_its_log_is_filled_anew_by_the_others() {
    let mut cluster = Cluster::of(3, 3).await;
    let mut followed = Followed::new(&cluster).await;
    let payload = "what the bit is flipped in";
    followed.posts.insert(0, cluster.post(followed.owner, payload).await);
    followed.post(&cluster, 3).await;
    let log = cluster.data_dir(3).join("log");
    let find = async {
        loop {
            if let Some(found) = find(&log, payload.as_bytes()) {
                return found;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let (path, at) = patient(find).await;
    let home = PartitionId::of_user(followed.owner, PARTITIONS);
    let before = replica(&cluster, home, 3);
    cluster.kill(3).await;
    let mut bytes = fs::read(&path).unwrap();
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
    cluster.start(3).await;
    patient(async {
        while replica(&cluster, home, 3) == before {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    cluster.whole().await;
    cluster.kill(2).await;
    followed.post(&cluster, 3).await;
    followed.seen(&cluster).await;
}

/// The replica of the catalog that is wanted on a node.
fn catalog_replica(cluster: &Cluster, node: u64) -> Option<u64> {
    let view = cluster.any().view();
    Some(view.groups[0].wanted.iter().find(|record| record.node == node)?.replica)
}

/// Makes a space, and flips a bit of the record that says so in the log of a node, which is killed before.
async fn rot_catalog(cluster: &mut Cluster, node: u64) {
    let name = format!("the-bit-is-flipped-in-this-{node}");
    patient(cluster.any().create_space(&name, None, SpacePolicy::default())).await.unwrap();
    // Something behind it, so that it is no torn end.
    cluster.post(user_at(0, 2), "later").await;
    let log = cluster.data_dir(node).join("log");
    let find = async {
        loop {
            if let Some(found) = find(&log, name.as_bytes()) {
                return found;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let (path, at) = patient(find).await;
    // What is durable is known from the next batch on.
    let behind = format!("behind-{node}");
    patient(cluster.any().create_space(&behind, None, SpacePolicy::default())).await.unwrap();
    cluster.post(user_at(0, 2), "later still").await;
    cluster.kill(node).await;
    let mut bytes = fs::read(&path).unwrap();
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_a_rotten_catalog_goes_on_and_gets_a_new_replica_of_it() {
    let mut cluster = Cluster::of(3, 3).await;
    let mut followed = Followed::new(&cluster).await;
    followed.post(&cluster, 2).await;
    let before = catalog_replica(&cluster, 3);
    rot_catalog(&mut cluster, 3).await;
    cluster.start(3).await;
    patient(async {
        while catalog_replica(&cluster, 3) == before {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    cluster.whole().await;
    // It votes again.
    cluster.kill(2).await;
    cluster.make_space(3, "after").await;
    cluster.kill(3).await;
    cluster.start(2).await;
    cluster.start(3).await;
    cluster.whole().await;
    let newest = followed.posts.clone();
    followed.post(&cluster, 1).await;
    assert_eq!(followed.posts.len(), newest.len() + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_catalog_that_is_rotten_on_a_majority_goes_on_by_command_and_no_node_is_lost() {
    let mut cluster = Cluster::of(3, 3).await;
    let mut followed = Followed::new(&cluster).await;
    followed.post(&cluster, 2).await;
    for node in [3, 2] {
        rot_catalog(&mut cluster, node).await;
    }
    for node in [2, 3] {
        cluster.start(node).await;
    }
    let is_lost = |view: &ClusterView| {
        let closed: Vec<_> = view.groups[0].closed.iter().map(|record| record.node).collect();
        view.groups[0].health == GroupHealth::Lost && closed == [2, 3]
    };
    cluster.agree("the catalog is lost, and it is said why", is_lost).await;
    followed.post(&cluster, 2).await;
    cluster.stop(1).await;
    let data_dir = cluster.place(1);
    let refused = survive(&data_dir, &[], &[2], false);
    assert!(matches!(refused, Err(SurvivorError::HasMajority { .. })), "{refused:?}");
    let survival = survive(&data_dir, &[], &[2, 3], false).unwrap();
    assert!(survival.gone.is_empty() && survival.kept.is_empty() && survival.lost.is_empty(), "{survival:?}");
    cluster.start(1).await;
    cluster.whole().await;
    let view = cluster.node(2).view();
    assert!(view.nodes.iter().all(|node| node.state == NodeState::Active), "{view:#?}");
    assert_eq!(view.groups[0].voters.len(), 3);
    // The new replicas vote.
    cluster.kill(1).await;
    cluster.make_space(3, "after").await;
    followed.post(&cluster, 2).await;
    followed.seen(&cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_catalog_that_is_whole_on_a_node_that_answers_is_not_taken_for_damaged() {
    let mut cluster = Cluster::of(3, 3).await;
    let before = cluster.node(2).view().groups[0].wanted.clone();
    cluster.stop(1).await;
    let data_dir = cluster.place(1);
    survive(&data_dir, &[], &[2, 3], false).unwrap();
    let refused = patient(cluster.try_start(1)).await;
    assert!(matches!(refused, Err(OpenError::CatalogWhole { node: 2 | 3, .. })), "{refused:?}");
    // The order has not begun.
    withdraw(&data_dir).unwrap();
    cluster.start(1).await;
    cluster.whole().await;
    assert_eq!(cluster.node(1).view().groups[0].wanted, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_has_begun_goes_on_though_a_catalog_is_whole_after_all() {
    let mut cluster = Cluster::of(3, 3).await;
    for node in 1..=3 {
        cluster.stop(node).await;
    }
    let data_dir = cluster.place(1);
    survive(&data_dir, &[], &[2, 3], false).unwrap();
    // Nobody contradicts the order, and the start ends behind its beginning.
    cluster.change = |options| options.feature_level = 1;
    let refused = patient(cluster.try_start(1)).await;
    assert!(matches!(refused, Err(OpenError::Refused(_))), "{refused:?}");
    assert!(matches!(withdraw(&data_dir), Err(SurvivorError::Begun { .. })));
    cluster.change = |_| {};
    cluster.start(2).await;
    cluster.start(3).await;
    cluster.start(1).await;
    cluster.whole().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_replica_of_the_catalog_is_not_done_without() {
    let mut cluster = Cluster::of(2, 3).await;
    cluster.stop(2).await;
    rot_catalog(&mut cluster, 1).await;
    let refused = cluster.try_start(1).await.unwrap_err();
    assert!(matches!(refused, OpenError::CatalogDamaged { node: 1, .. }), "{refused}");
    let said = refused.to_string();
    assert!(said.contains("backup restore") && said.contains("cluster recover --gone 1"), "{said}");
}

/// Turns a bit of a file that is mapped.
fn flip(path: &Path, at: usize) {
    let byte = fs::read(path).unwrap()[at] ^ 1;
    let mut file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(at as u64)).unwrap();
    file.write_all(&[byte]).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_with_a_flipped_bit_in_a_segment_answers_nothing_wrong_and_is_filled_anew() {
    let small = |options: &mut NodeOptions| {
        options.disk.files.table_bytes = 64 << 10;
        options.disk.files.cache_bytes = 0;
    };
    let mut cluster = Cluster::changed(3, 3, small).await;
    let mut followed = Followed::new(&cluster).await;
    let owner = followed.owner;
    let home = PartitionId::of_user(owner, PARTITIONS);
    let payload = "what the bit is flipped in";
    let hit = cluster.post(owner, payload).await;
    for _ in 0..6 {
        followed.posts.insert(0, cluster.post(owner, &"x".repeat(16 << 10)).await);
    }
    let leader = cluster.leader_of(home).unwrap().clone();
    let node = leader.identity().node_id;
    patient(async {
        loop {
            let sizes = leader.read_partition(home, Partition::timeline_sizes).unwrap();
            if sizes.segments > 0 && sizes.cached_bytes + sizes.unflushed_bytes == 0 {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    let files = cluster.data_dir(node).join(format!("groups/{:04}", home.0 + 1));
    let (path, at) = find(&files, payload.as_bytes()).unwrap();
    let before = replica(&cluster, home, node);
    flip(&path, at);
    // The leader cannot see the entry any more; whoever leads next can.
    let receipt = cluster.write(owner, Write::Delete { space: POSTS, owner, id: hit }).await;
    assert!(matches!(receipt.result, WriteResult::Deleted { existed: true }), "{receipt:?}");
    followed.seen(&cluster).await;
    patient(async {
        while replica(&cluster, home, node) == before {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    cluster.whole().await;
    assert_eq!(cluster.leader_of(home).unwrap().identity().node_id, node, "it is preferred, and whole");
    cluster.kill(if node == 2 { 3 } else { 2 }).await;
    followed.post(&cluster, 3).await;
    followed.seen(&cluster).await;
}
