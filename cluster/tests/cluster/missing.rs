//! Nodes that come back with less in their directories than they had, or more.

use std::fs;
use std::path::Path;

use fanfold_cluster::{ClusterChange, OpenError};

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
