//! Nodes that come back with less in their directories than they had, or more.

use std::fs;
use std::path::{Path, PathBuf};

use fanfold_cluster::{ClusterChange, OpenError};
use fanfold_storage::ids::PartitionId;

use crate::support::*;

/// Copies the files of a directory without directories in it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for item in fs::read_dir(from).unwrap().map(|item| item.unwrap().path()) {
        let name = to.join(item.file_name().unwrap());
        if item.is_dir() {
            copy(&item, &name);
        } else {
            fs::copy(&item, name).unwrap();
        }
    }
}

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
    copy(&dir.join("identity"), &kept);
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
    fs::remove_dir_all(dir.join("identity")).unwrap();
    fs::rename(&kept, dir.join("identity")).unwrap();
    cluster.start(node).await;
    patient(cluster.node(1).change_cluster(ClusterChange::Undrain { node }, false)).await.unwrap();
    cluster.whole().await;
    followed.post(&cluster, 3).await;
    followed.seen(&cluster).await;
}

/// Where the files of a log hold some bytes.
fn find(log: &Path, bytes: &[u8]) -> Option<(PathBuf, usize)> {
    fs::read_dir(log).unwrap().find_map(|item| {
        let path = item.unwrap().path();
        let at = fs::read(&path).unwrap().windows(bytes.len()).position(|window| window == bytes)?;
        Some((path, at))
    })
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
    let replica = |cluster: &Cluster| {
        let view = cluster.any().view();
        let group = view.groups.into_iter().find(|group| group.partition == Some(home)).unwrap();
        group.wanted.iter().find(|record| record.node == 3).unwrap().replica
    };
    let before = replica(&cluster);
    cluster.kill(3).await;
    let mut bytes = fs::read(&path).unwrap();
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
    cluster.start(3).await;
    patient(async {
        while replica(&cluster) == before {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    cluster.whole().await;
    cluster.kill(2).await;
    followed.post(&cluster, 3).await;
    followed.seen(&cluster).await;
}
