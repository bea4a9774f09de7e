//! What a node that runs mends by itself, or goes on beside: damaged snapshots, and merges that fail.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use fanfold_cluster::NodeOptions;
use fanfold_cluster::jobs::JobState;
use fanfold_storage::fs::FaultFs;

use crate::damage::*;
use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_was_damaged_at_the_start_is_replaced_while_the_node_runs() {
    let test = node().await;
    for name in ["first", "second"] {
        post_many(&test, 20).await;
        assert_eq!(back_up(&test, name, false).await.state, JobState::Done);
    }
    let newest = of_kind(&test.dir, "manifest").pop().unwrap();
    let stopped = test.stop().await;
    flip_middle(&newest);
    let test = stopped.start_with(segments_only).await;
    // Nothing goes before there are two whole ones again.
    until(async || !newest.exists()).await;
    assert_eq!(of_kind(&test.dir, "manifest").len(), 2);
    assert_eq!(verify(&test).await, Vec::new());
}

/// The log goes by snapshots, which need no merge.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_merge_that_fails_again_and_again_keeps_no_snapshot_from_being_taken() {
    for _ in 0..10 {
        if merges_fail_and_snapshots_are_taken().await {
            return;
        }
    }
    panic!("a merge was due too early each time");
}

/// False if a merge was due before the test was ready for it.
async fn merges_fail_and_snapshots_are_taken() -> bool {
    let disk = FaultFs::new();
    let own = disk.clone();
    let on_it = move |options: &mut NodeOptions| {
        segments_only(options);
        options.disk.files.segment_bytes_max = 64 << 20;
        options.disk.snapshot_log_bytes = 64 << 10;
        options.fs = Arc::new(own);
    };
    let test = TestNode::with(on_it, Box::new(|streams| streams)).await;
    let group = group_dir(&test.dir);
    let segments = || {
        let is_one =
            |path: &PathBuf| path.starts_with(&group) && path.extension().is_some_and(|e| e == "segment");
        disk.paths().into_iter().filter(is_one).collect::<Vec<_>>()
    };
    until(async || {
        test.post(owner(), &"x".repeat(4 << 10)).await;
        // By what the partition has taken over: the file of a flush that is not done is read once more, and made again.
        let status = test.node.status();
        status.partitions.iter().any(|partition| partition.partition == DAMAGED && partition.segments >= 3)
    })
    .await;
    let unread = segments();
    let are_marked = unread.iter().all(|path| disk.fail_reads(path, true));
    // With a fourth a merge is due, and may have read what was not marked yet.
    if !are_marked || segments() != unread || unread.len() != 3 {
        return false;
    }
    for _ in 0..3 {
        let before = included(&test);
        post_many(&test, 40).await;
        until(async || included(&test) > before).await;
    }
    assert!(unread.iter().all(|path| disk.paths().contains(path)), "none of them was merged");
    assert!(segments().len() > 6, "nor was any other: a merge takes neighbours");
    true
}

/// What changes seldom is referred to by snapshot after snapshot, and read by none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_rots_is_written_again_while_the_node_runs_once_somebody_finds_it() {
    for by_backup in [false, true] {
        let test = node().await;
        for reader in 1..200 {
            test.follow(user_at(DAMAGED.0, reader), &[user_at(DAMAGED.0, reader + 1)]).await;
        }
        let mut posted = Vec::new();
        for name in ["first", "second", "third"] {
            posted.extend(post_many(&test, 2).await);
            assert_eq!(back_up(&test, name, false).await.state, JobState::Done);
        }
        let both: Vec<_> = of_kind(&test.dir, "manifest");
        // Both snapshots refer to buckets in it.
        let oldest = of_kind(&test.dir, "buckets").remove(0);
        let bytes = fs::metadata(&oldest).unwrap().len();
        (1..20).for_each(|part| flip_in_place(&oldest, bytes * part / 20));
        if by_backup {
            let refused = back_up(&test, "refused", false).await.state;
            assert!(matches!(refused, JobState::Failed(_)), "{refused:?}");
        } else {
            assert!(names(&verify(&test).await, &oldest));
        }
        until(async || both.iter().all(|manifest| !manifest.exists())).await;
        until(async || verify(&test).await.is_empty()).await;
        assert!(!oldest.exists());
        assert_eq!(back_up(&test, "again", false).await.state, JobState::Done);
        let test = test.restart_hard_with(segments_only).await;
        assert_eq!(timeline_of(&test, owner()).await.unwrap(), posted);
    }
}
