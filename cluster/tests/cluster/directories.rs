//! Directories of nodes in which something is missing, damaged or somebody else's (rows 18, 19, 24), while the others go on.

use std::fs;
use std::path::{Path, PathBuf};

use fanfold_cluster::{NodeOptions, OpenError};
use fanfold_storage::ids::PartitionId;

use crate::support::*;

/// Everything goes to the disk early.
fn small(options: &mut NodeOptions) {
    options.disk.files.table_bytes = 64 << 10;
    options.disk.files.cache_bytes = 0;
    options.disk.snapshot_log_bytes = 256 << 10;
}

/// The files of a directory whose names end so, in order.
fn files(dir: &Path, end: &str) -> Vec<PathBuf> {
    let all = fs::read_dir(dir).unwrap().map(|item| item.unwrap().path());
    let mut found: Vec<_> = all.filter(|path| path.to_string_lossy().ends_with(end)).collect();
    found.sort_unstable();
    found
}

async fn post_much(cluster: &Cluster, followed: &mut Followed, posts: usize) {
    for _ in 0..posts {
        let payload = "x".repeat(50 << 10);
        followed.posts.insert(0, cluster.post(followed.owner, &payload).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_segment_of_the_log_is_named_and_the_others_go_on() {
    let mut cluster = Cluster::of(3, 3).await;
    let mut followed = Followed::new(&cluster).await;
    post_much(&cluster, &mut followed, 60).await;
    cluster.whole().await;
    cluster.kill(3).await;
    let log = cluster.data_dir(3).join("log");
    let segments = files(&log, ".log");
    assert!(segments.len() >= 3, "{segments:?}");
    let (missing, kept) = (&segments[1], log.with_file_name("kept"));
    fs::rename(missing, &kept).unwrap();
    let before = files(&log, "");
    let refused = cluster.try_start(3).await.unwrap_err().to_string();
    assert!(refused.contains(missing.to_str().unwrap()), "{refused}");
    assert_eq!(files(&log, ""), before, "nothing is made or removed");
    followed.post(&cluster, 3).await;
    followed.seen(&cluster).await;
    fs::rename(&kept, missing).unwrap();
    cluster.start(3).await;
    cluster.whole().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_belongs_to_another_cluster_is_refused_and_the_others_go_on() {
    let mut cluster = Cluster::of(3, 3).await;
    let mut followed = Followed::new(&cluster).await;
    followed.post(&cluster, 3).await;
    let other = Cluster::of(1, 1).await;
    let [own, foreign] = [cluster.data_dir(3), other.data_dir(1)];
    cluster.stop(3).await;
    let mut other = other;
    other.stop(1).await;
    for (part, from) in [("log", &foreign), ("identity", &foreign)] {
        let kept = own.with_file_name("kept");
        fs::rename(own.join(part), &kept).unwrap();
        fs::rename(from.join(part), own.join(part)).unwrap();
        let refused = cluster.try_start(3).await.unwrap_err();
        let is_told = matches!(refused, OpenError::IdentityDiffers { .. } | OpenError::OtherCluster { .. });
        assert!(is_told, "{part}: {refused:?}");
        fs::rename(own.join(part), from.join(part)).unwrap();
        fs::rename(&kept, own.join(part)).unwrap();
    }
    followed.post(&cluster, 3).await;
    cluster.start(3).await;
    cluster.whole().await;
    followed.seen(&cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_snapshot_is_passed_over_and_nothing_is_lost_or_deleted() {
    let mut cluster = Cluster::changed(3, 3, small).await;
    let mut followed = Followed::new(&cluster).await;
    let group = cluster.data_dir(3).join("groups/0001");
    while files(&group, ".manifest").len() < 2 {
        post_much(&cluster, &mut followed, 10).await;
        assert!(followed.posts.len() < 500, "no snapshots are taken");
    }
    cluster.stop(3).await;
    let manifest = files(&group, ".manifest").pop().unwrap();
    let mut bytes = fs::read(&manifest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&manifest, &bytes).unwrap();
    cluster.start(3).await;
    assert_eq!(fs::read(&manifest).unwrap(), bytes, "it may be the only one with what it holds");
    cluster.whole().await;
    // Only with it the others can lose one more.
    cluster.kill(1).await;
    followed.post(&cluster, 2).await;
    let newest: Vec<_> = followed.posts.iter().copied().take(100).collect();
    for reader in &followed.readers {
        cluster.sees(*reader, &newest).await;
    }
    let leader = PartitionId::of_user(followed.owner, PARTITIONS);
    let request = fanfold_cluster::read::TimelineRequest { limit: 1_000, ..timeline(followed.owner) };
    let page = cluster.at_leader(leader, async |node| node.read_timeline(&request).await).await.unwrap();
    assert!(page.entries.iter().map(|entry| entry.id).eq(followed.posts.iter().copied()));
}
