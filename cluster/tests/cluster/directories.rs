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
async fn the_log_of_another_node_of_the_cluster_is_refused_and_nothing_of_it_is_changed() {
    let mut cluster = Cluster::of(3, 3).await;
    let mut followed = Followed::new(&cluster).await;
    followed.post(&cluster, 3).await;
    cluster.stop(2).await;
    cluster.stop(3).await;
    let [second, third] = [2, 3].map(|node| cluster.data_dir(node).join("log"));
    let swap = || {
        let kept = second.with_file_name("kept");
        fs::rename(&second, &kept).unwrap();
        fs::rename(&third, &second).unwrap();
        fs::rename(&kept, &third).unwrap();
    };
    let content = |dir: &Path| -> Vec<_> {
        files(dir, "").into_iter().map(|path| (fs::read(&path).unwrap(), path)).collect()
    };
    swap();
    for (node, other) in [(2, 3), (3, 2)] {
        let log = cluster.data_dir(node).join("log");
        let before = content(&log);
        let refused = cluster.try_start(node).await.unwrap_err();
        let is_named =
            matches!(refused, OpenError::LogOfAnother { node: own, log, .. } if (own, log) == (node, other));
        assert!(is_named, "{refused:?}");
        let said = refused.to_string();
        assert!(said.contains(&format!("fanfold node replace {node}")), "{said}");
        assert!(content(&log) == before, "nothing of node {other} is changed");
    }
    // A directory that was lost beside its log says nothing of who it was.
    let fresh = cluster.place(4);
    fs::create_dir(&fresh).unwrap();
    fs::rename(&second, fresh.join("log")).unwrap();
    let refused = cluster.try_start(4).await.unwrap_err();
    assert!(matches!(refused, OpenError::IdentityLost { .. }), "{refused:?}");
    fs::rename(fresh.join("log"), &second).unwrap();
    swap();
    // The note alone is no log.
    let kept = third.with_file_name("kept");
    fs::create_dir(&kept).unwrap();
    let segments = files(&third, ".log");
    let moved = |path: &Path| kept.join(path.file_name().unwrap());
    segments.iter().for_each(|path| fs::rename(path, moved(path)).unwrap());
    let refused = cluster.try_start(3).await.unwrap_err();
    assert!(matches!(refused, OpenError::LogMissing { node: 3, .. }), "{refused:?}");
    assert!(files(&third, ".log").is_empty());
    segments.iter().for_each(|path| fs::rename(moved(path), path).unwrap());
    // A note that is damaged is named.
    let note = third.join("node");
    let whole = fs::read(&note).unwrap();
    fs::write(&note, &whole[1..]).unwrap();
    let refused = cluster.try_start(3).await.unwrap_err();
    assert!(refused.to_string().contains(note.to_str().unwrap()), "{refused}");
    fs::remove_file(&note).unwrap();
    cluster.start(2).await;
    cluster.start(3).await;
    assert_eq!(fs::read(&note).unwrap(), whole, "it is written anew");
    cluster.whole().await;
    followed.post(&cluster, 3).await;
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
