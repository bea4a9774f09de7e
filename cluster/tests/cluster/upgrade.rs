//! Nodes of several versions of the program in one cluster, and the raising of its feature level (R3).

use std::fs;

use fanfold_cluster::{ClusterChange, ClusterRefusal, NodeError, NodeFailure, NodeOptions, OpenError};

use crate::support::*;

/// The level of programs that know how it is raised.
const NEWER: u32 = 2;

/// The levels before and after an upgrade, or why it is refused.
async fn upgrade(cluster: &Cluster, by: u64, is_dry_run: bool) -> Result<(u32, u32), ClusterRefusal> {
    let change = ClusterChange::Upgrade { to: None };
    match patient(cluster.node(by).change_cluster(change, is_dry_run)).await {
        Ok(changed) => Ok(changed.level.unwrap()),
        Err(NodeError::Cluster(refusal)) => Err(refusal),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_feature_level_is_raised_when_every_node_runs_the_newer_program() {
    let mut cluster = Cluster::changed(3, 3, |options| options.feature_level = 1).await;
    let mut followed = Followed::new(&cluster).await;
    assert_eq!(upgrade(&cluster, 1, false).await, Ok((1, 1)), "nobody has more");
    cluster.change = |_| {};
    for node in [3, 2] {
        cluster.stop(node).await;
        cluster.start(node).await;
        cluster.whole().await;
        followed.post(&cluster, 2).await;
        let below = if node == 3 { vec![(1, 1), (2, 1)] } else { vec![(1, 1)] };
        let refused = ClusterRefusal::LevelAbove { level: NEWER, below };
        for by in 1..=3 {
            assert_eq!(upgrade(&cluster, by, by == 1).await, Err(refused.clone()), "by node {by}");
        }
    }
    cluster.stop(1).await;
    let silent = ClusterRefusal::LevelUnknown { silent: vec![1] };
    assert_eq!(upgrade(&cluster, 2, false).await, Err(silent), "it may come back as it was");
    cluster.start(1).await;
    cluster.whole().await;
    assert_eq!(upgrade(&cluster, 3, true).await, Ok((1, NEWER)));
    assert_eq!(upgrade(&cluster, 3, false).await, Ok((1, NEWER)), "the dry run raised nothing");
    assert_eq!(upgrade(&cluster, 1, false).await, Ok((NEWER, NEWER)));
    cluster.stop(3).await;
    cluster.change = |options| options.feature_level = 1;
    for node in [3, 4] {
        let refused = patient(cluster.try_start(node)).await.unwrap_err();
        let older = ClusterRefusal::FeatureLevel { needed: NEWER, supported: 1 };
        assert!(matches!(&refused, OpenError::Refused(why) if *why == older), "node {node}: {refused:?}");
    }
    cluster.change = |_| {};
    cluster.start(3).await;
    cluster.whole().await;
    followed.post(&cluster, 2).await;
    followed.seen(&cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_an_older_program_that_did_not_hear_of_the_raising_ends_when_it_does() {
    let mut cluster = Cluster::empty(3);
    cluster.change = |options| options.feature_level = 1;
    cluster.start(1).await;
    cluster.stop(1).await;
    cluster.change = |_| {};
    for node in 1..=4 {
        cluster.start(node).await;
    }
    cluster.whole().await;
    // It has no replica, so that nothing but this directory tells it of the cluster.
    cluster.stop(4).await;
    let (data_dir, before) = (cluster.data_dir(4), tempfile::tempdir().unwrap());
    copy_all(&data_dir, before.path());
    cluster.start(4).await;
    cluster.agree("everybody is heard", |view| view.nodes.iter().all(|node| node.is_alive)).await;
    assert_eq!(upgrade(&cluster, 1, false).await, Ok((1, NEWER)));
    for node in 1..=4 {
        cluster.kill(node).await;
    }
    fs::remove_dir_all(&data_dir).unwrap();
    copy_all(before.path(), &data_dir);
    let older = |options: &mut NodeOptions| options.feature_level = 1;
    cluster.change = older;
    cluster.start(4).await;
    // It knows no better.
    cluster.change = |_| {};
    for node in 1..=3 {
        cluster.start(node).await;
    }
    let failed = patient(cluster.node(4).failed()).await;
    assert_eq!(failed, NodeFailure::FeatureLevel { needed: NEWER, supported: 1 });
    cluster.stop(4).await;
    cluster.change = older;
    let refused = patient(cluster.try_start(4)).await.unwrap_err();
    let too_old = ClusterRefusal::FeatureLevel { needed: NEWER, supported: 1 };
    assert!(matches!(&refused, OpenError::Refused(why) if *why == too_old), "{refused:?}");
    cluster.change = |_| {};
    cluster.start(4).await;
    cluster.whole().await;
}
