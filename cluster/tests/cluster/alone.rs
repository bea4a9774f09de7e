//! One node goes on without the others: restored from its backup, or as the survivor of a majority that is gone.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fanfold_cluster::Node;
use fanfold_cluster::backup::{Backup, BackupError, restore, restore_all};
use fanfold_cluster::catalog::NodeState;
use fanfold_cluster::jobs::{JobKind, JobState};
use fanfold_cluster::meter::Meter;
use fanfold_cluster::survivor::{SurvivorError, survive, withdraw};
use fanfold_cluster::view::GroupHealth;
use fanfold_cluster::{ClusterChange, ClusterRefusal, OpenError};
use fanfold_storage::fs::FaultFs;
use fanfold_storage::ids::PartitionId;
use fanfold_storage::space::SpacePolicy;

use crate::support::*;

/// Makes a backup of a node.
async fn back_up(cluster: &Cluster, node: u64, dir: &Path) -> Backup {
    let node: &std::sync::Arc<Node> = cluster.node(node);
    let job =
        node.start_job(JobKind::Backup { dir: dir.to_owned(), leaves_out_damaged: false }, None).unwrap();
    let done = async {
        loop {
            match node.job(job.id).unwrap().state {
                JobState::Running => tokio::time::sleep(Duration::from_millis(20)).await,
                state => return state,
            }
        }
    };
    let state = patient(done).await;
    assert!(matches!(state, JobState::Done), "{state:?}");
    Backup::open(dir).unwrap()
}

fn fast() -> Meter {
    Meter::new(None)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_one_of_three_nodes_is_restored_alone_and_grows_again() {
    let temp = tempfile::tempdir().unwrap();
    let cluster = Cluster::of(3, 3).await;
    let mut followed = Followed::new(&cluster).await;
    followed.post(&cluster, 10).await;
    followed.seen(&cluster).await;
    let backup = back_up(&cluster, 2, &temp.path().join("backup")).await;
    assert!(backup.contents.is_of_cluster && backup.contents.missing().is_empty());
    let before: Vec<_> = cluster.node(2).incarnations();
    let old = cluster.node(2).identity().cluster_id;
    let posts = followed.posts.clone();
    // What comes later is not in it; and the old cluster still runs.
    followed.post(&cluster, 3).await;
    let mut restored = Cluster::empty(3);
    let target = restored.place(1);
    restore(&backup, &target, &fast()).unwrap();
    restored.start(1).await;
    let node = restored.node(1);
    assert_eq!(node.identity().node_id, 1);
    assert_ne!(node.identity().cluster_id, old);
    assert_eq!(node.view().nodes.len(), 1);
    assert!(node.incarnations().iter().zip(&before).all(|(now, then)| now > then));
    restored.whole().await;
    let mut again = Followed { owner: followed.owner, readers: followed.readers.clone(), posts };
    again.seen(&restored).await;
    again.post(&restored, 3).await;
    again.seen(&restored).await;
    restored.stop(1).await;
    restored.start(1).await;
    restored.start(2).await;
    restored.start(3).await;
    restored.whole().await;
    assert!(restored.any().view().groups.iter().all(|group| group.voters.len() == 3));
    restored.kill(1).await;
    again.post(&restored, 3).await;
    again.seen(&restored).await;
    followed.seen(&cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_lacks_comes_from_the_backup_of_another_or_is_named() {
    let temp = tempfile::tempdir().unwrap();
    let cluster = Cluster::of(3, 1).await;
    for (partition, to) in [(1, 2), (2, 3)] {
        let change = ClusterChange::Move { partition: Some(PartitionId(partition)), from: 1, to };
        patient(cluster.node(1).change_cluster(change, false)).await.unwrap();
    }
    cluster.whole().await;
    let mut followed = Followed::new(&cluster).await;
    followed.post(&cluster, 5).await;
    followed.seen(&cluster).await;
    let mut backups = Vec::new();
    for node in 1..=3 {
        backups.push(back_up(&cluster, node, &temp.path().join(node.to_string())).await);
    }
    let target = |name: &str| -> PathBuf { temp.path().join(name) };
    let refused = restore_all(&backups[..1], false, &target("a"), &fast());
    assert!(
        matches!(&refused, Err(BackupError::Missing { partitions }) if *partitions == [1, 2]),
        "{refused:?}"
    );
    let said = refused.unwrap_err().to_string();
    assert!(said.contains("partitions 1, 2 are in none"), "{said}");
    assert!(!target("a").exists(), "nothing was touched");
    let mut partial = Cluster::empty(1);
    let lost = restore_all(&backups[..2], true, &partial.place(1), &fast()).unwrap();
    assert_eq!(lost, [2]);
    partial.start(1).await;
    partial.whole().await;
    // The owner's home is there, and readers whose home is.
    for reader in [&followed.readers[0], &followed.readers[1], &followed.readers[3]] {
        partial.sees(*reader, &followed.posts).await;
    }
    partial.sees(followed.readers[2], &[]).await;
    let new = partial.post(user_at(2, 5), "the partition begins empty").await;
    partial.follow(followed.readers[2], user_at(2, 5)).await;
    partial.sees(followed.readers[2], &[new]).await;
    let mut whole = Cluster::empty(1);
    assert!(restore_all(&backups, false, &whole.place(1), &fast()).unwrap().is_empty());
    whole.start(1).await;
    followed.seen(&whole).await;
    followed.post(&whole, 2).await;
    followed.seen(&whole).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_survivor_of_three_goes_on_and_those_that_are_gone_stay_away() {
    let mut cluster = Cluster::of(3, 3).await;
    let mut followed = Followed::new(&cluster).await;
    followed.post(&cluster, 5).await;
    followed.seen(&cluster).await;
    cluster.kill(2).await;
    cluster.kill(3).await;
    cluster.kill(1).await;
    let data_dir = cluster.place(1);
    let refused = survive(&data_dir, &[2], &[], false);
    assert!(matches!(refused, Err(SurvivorError::HasMajority { .. })), "{refused:?}");
    assert!(matches!(survive(&data_dir, &[2, 7], &[], false), Err(SurvivorError::NotOther { node: 7, .. })));
    let dry = survive(&data_dir, &[2, 3], &[], true).unwrap();
    assert_eq!((dry.kept.len(), dry.lost.len()), (usize::from(PARTITIONS), 0));
    assert_eq!(survive(&data_dir, &[2, 3], &[], false).unwrap(), dry);
    assert!(matches!(survive(&data_dir, &[2, 3], &[], false), Err(SurvivorError::Pending { .. })));
    cluster.start(1).await;
    cluster
        .agree("the others are removed", |view| {
            view.nodes[1..].iter().all(|node| node.state == NodeState::Removed)
        })
        .await;
    cluster.whole().await;
    followed.post(&cluster, 5).await;
    followed.seen(&cluster).await;
    // They would be a majority of the old groups.
    let (second, third) = (cluster.try_start(2).await, cluster.try_start(3).await);
    assert!(matches!(second, Err(OpenError::Refused(_))), "{second:?}");
    assert!(matches!(third, Err(OpenError::Refused(_))), "{third:?}");
    cluster.lose(2);
    cluster.lose(3);
    cluster.start(4).await;
    cluster.start(5).await;
    cluster.whole().await;
    followed.post(&cluster, 5).await;
    followed.seen(&cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_survivor_with_nothing_but_the_catalog_keeps_it() {
    let mut cluster = Cluster::of(3, 3).await;
    let mut followed = Followed::new(&cluster).await;
    followed.post(&cluster, 5).await;
    followed.seen(&cluster).await;
    // They take the catalog by themselves, and nothing else.
    cluster.start(4).await;
    cluster.start(5).await;
    cluster
        .agree("the catalog is on all five", |view| {
            view.groups[0].health == GroupHealth::Whole && view.groups[0].voters.len() == 5
        })
        .await;
    assert_eq!(cluster.any().view().nodes[4].replicas, 1);
    for node in [1, 2, 4, 3, 5] {
        cluster.kill(node).await;
    }
    let survival = survive(&cluster.place(5), &[1, 2, 4], &[], false).unwrap();
    assert_eq!((survival.kept.len(), survival.lost.len()), (usize::from(PARTITIONS), 0));
    cluster.start(5).await;
    cluster.start(3).await;
    cluster.whole().await;
    assert_eq!(cluster.node(5).view().groups[0].wanted[0].node, 5);
    followed.seen(&cluster).await;
    followed.post(&cluster, 5).await;
    followed.seen(&cluster).await;
    cluster.kill(5).await;
    cluster.start(5).await;
    cluster.whole().await;
    followed.seen(&cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_others_follow_a_survivor_that_missed_many_terms() {
    let mut cluster = Cluster::of(4, 1).await;
    for (partition, to) in [(1, 3), (2, 4)] {
        let change = ClusterChange::Move { partition: Some(PartitionId(partition)), from: 1, to };
        patient(cluster.node(1).change_cluster(change, false)).await.unwrap();
    }
    cluster.whole().await;
    cluster.kill(1).await;
    for leader in [2, 3, 2, 3] {
        patient(cluster.node(4).transfer_leader(None, leader, false)).await.unwrap();
    }
    let term = cluster.node(4).view().groups[0].term;
    cluster.kill(2).await;
    cluster.kill(3).await;
    survive(&cluster.place(1), &[2, 3], &[], false).unwrap();
    cluster.start(1).await;
    cluster
        .agree("the survivor leads the catalog", |view| {
            let catalog = &view.groups[0];
            catalog.leader == Some(1) && catalog.term > term && view.nodes[1].state == NodeState::Removed
        })
        .await;
    // The one that ran all the time reaches it.
    patient(cluster.node(4).create_space("later", None, SpacePolicy::default())).await.unwrap();
    let map = cluster.node(4).map();
    let listed: Vec<_> = map.nodes.iter().map(|node| node.node).collect();
    assert_eq!((listed, map.leaders), (vec![1, 4], vec![Some(1), None, Some(4), Some(1)]));
    cluster.agree("only a node had it that is gone", |view| view.groups[2].health == GroupHealth::Lost).await;
    cluster.post(user_at(2, 0), "elsewhere").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_survivor_leaves_a_majority_alone_that_a_move_hides() {
    let (mut cluster, disk) = (Cluster::empty(3), FaultFs::new());
    cluster.set_disk(3, disk.clone());
    for node in 1..=4 {
        cluster.start(node).await;
    }
    cluster.whole().await;
    let (owner, reader, moved) = (user_at(0, 0), user_at(0, 1), Some(PartitionId(0)));
    let homes = |cluster: &Cluster| -> Vec<u64> {
        cluster.node(1).view().groups[1].wanted.iter().map(|record| record.node).collect()
    };
    // It is on the first, the second and the fourth.
    for from in homes(&cluster).into_iter().filter(|node| *node == 3) {
        let to = [1, 2, 4].into_iter().find(|node| !homes(&cluster).contains(node)).unwrap();
        let change = ClusterChange::Move { partition: moved, from, to };
        patient(cluster.node(1).change_cluster(change, false)).await.unwrap();
        cluster.whole().await;
    }
    cluster.follow(reader, owner).await;
    let incarnation = |cluster: &Cluster| {
        let read = |partition: &fanfold_storage::partition::Partition| partition.incarnation();
        cluster.node(1).read_partition(PartitionId(0), read).unwrap()
    };
    let before = incarnation(&cluster);
    // The fourth misses what the other two acknowledge.
    cluster.kill(4).await;
    let mut posts = Vec::new();
    for number in 0..5 {
        posts.insert(0, cluster.post(owner, &number.to_string()).await);
    }
    // The third takes nothing before it is gone too.
    disk.hold_syncs(true);
    let change = ClusterChange::Move { partition: moved, from: 1, to: 3 };
    patient(cluster.node(1).change_cluster(change, false)).await.unwrap();
    assert!(homes(&cluster).contains(&3) && !homes(&cluster).contains(&1));
    disk.hold_syncs(false);
    cluster.kill(3).await;
    cluster.kill(2).await;
    cluster.kill(1).await;
    survive(&cluster.place(1), &[2, 3], &[], false).unwrap();
    cluster.start(1).await;
    cluster.start(4).await;
    cluster.sees(reader, &posts).await;
    assert_eq!(incarnation(&cluster), before, "it was not recovered");
    cluster.whole().await;
    cluster.sees(reader, &posts).await;
    cluster.post(owner, "after").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_survivors_with_an_order_one_takes_over() {
    let mut cluster = Cluster::of(5, 3).await;
    let mut followed = Followed::new(&cluster).await;
    followed.post(&cluster, 3).await;
    for node in 1..=5 {
        cluster.kill(node).await;
    }
    let gone = [3, 4, 5];
    for node in [1, 2] {
        survive(&cluster.place(node), &gone, &[], false).unwrap();
    }
    let contested = |opened: &Result<(), OpenError>| {
        matches!(opened, Err(OpenError::TakeOverTwice { .. } | OpenError::TakenOver { .. }))
    };
    let [first, second] = patient(cluster.try_start_two(1, 2)).await;
    assert!(first.is_ok() || contested(&first), "{first:?}");
    assert!(second.is_ok() || contested(&second), "{second:?}");
    assert!(first.is_err() || second.is_err(), "two catalogs of one cluster");
    // One goes on, whichever it is; the other takes its order back.
    let survivor = if second.is_ok() { 2 } else { 1 };
    if first.is_err() && second.is_err() {
        withdraw(&cluster.place(2)).unwrap();
        cluster.start(1).await;
    }
    let other = 3 - survivor;
    if survivor == 2 || second.is_err() && first.is_ok() {
        // One that comes later hears of what was done.
        let late = patient(cluster.try_start(other)).await;
        assert!(contested(&late), "{late:?}");
        withdraw(&cluster.place(other)).unwrap();
    }
    assert!(matches!(withdraw(&cluster.place(other)), Err(SurvivorError::NoOrder { .. })));
    cluster.start(other).await;
    cluster
        .agree("both know who is gone", |view| {
            let removed = view.nodes.iter().filter(|node| node.state == NodeState::Removed);
            removed.count() == 3 && view.groups[0].wanted.len() == 1
        })
        .await;
    cluster.agree("one leads the catalog", |view| view.groups[0].leader == Some(survivor)).await;
    cluster.led().await;
    let made = cluster.node(other).create_space("made-by-the-survivor", None, SpacePolicy::default());
    patient(made).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_survivor_refuses_while_a_node_that_should_be_gone_answers() {
    let mut cluster = Cluster::of(3, 3).await;
    cluster.kill(1).await;
    cluster.kill(2).await;
    survive(&cluster.place(1), &[2, 3], &[], false).unwrap();
    let refused = patient(cluster.try_start(1)).await;
    assert!(matches!(refused, Err(OpenError::NotGone { node: 3, .. })), "{refused:?}");
    cluster.kill(3).await;
    cluster.start(1).await;
    cluster.led().await;
    assert!(matches!(withdraw(&cluster.data_dir(1)), Err(SurvivorError::DataDir(OpenError::Locked { .. }))));
    cluster.stop(1).await;
    assert!(matches!(withdraw(&cluster.data_dir(1)), Err(SurvivorError::NoOrder { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_without_the_catalog_goes_on_with_what_it_wrote_down() {
    let mut cluster = Cluster::of(2, 3).await;
    let change = ClusterChange::Move { partition: Some(PartitionId(1)), from: 1, to: 2 };
    patient(cluster.node(1).change_cluster(change, false)).await.unwrap();
    cluster.whole().await;
    let post = cluster.post(user_at(1, 0), "kept").await;
    patient(cluster.node(2).create_space("known", None, SpacePolicy::default())).await.unwrap();
    let term = cluster.node(2).view().groups[0].term;
    cluster.stop(2).await;
    cluster.kill(1).await;
    let survival = survive(&cluster.place(2), &[1], &[], false).unwrap();
    assert!(survival.catalog_of_epoch.is_some());
    let lost = [0, 2, 3].map(PartitionId);
    assert_eq!((survival.kept, &survival.lost[..]), (Vec::new(), &lost[..]));
    cluster.lose(1);
    cluster.start(2).await;
    cluster.agree("it leads the catalog", |view| view.groups[0].leader == Some(2)).await;
    assert!(cluster.node(2).view().groups[0].term > term);
    cluster.sees(user_at(1, 0), &[post]).await;
    let again = cluster.node(2).create_space("known", None, SpacePolicy::default());
    assert!(matches!(patient(again).await, Err(fanfold_cluster::NodeError::SpaceExists)));
    for partition in lost {
        let change = ClusterChange::BeginEmpty { partition, to: 2 };
        let changed = patient(cluster.node(2).change_cluster(change, false)).await.unwrap();
        assert_eq!(changed.emptied, [(partition, 2)]);
    }
    cluster.led().await;
    cluster.stop(2).await;
    cluster.start(2).await;
    cluster.led().await;
    cluster.post(user_at(0, 0), "the partition begins empty").await;
    // New nodes come as to any other.
    cluster.start(3).await;
    cluster.start(4).await;
    cluster.whole().await;
    assert_eq!(cluster.node(3).identity().node_id, 3, "no id is used twice");
    cluster.sees(user_at(1, 0), &[post]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_of_which_nothing_is_left_begins_empty_and_streams_begin_anew() {
    let mut cluster = Cluster::of(3, 1).await;
    let lost = PartitionId(2);
    let moved = ClusterChange::Move { partition: Some(lost), from: 1, to: 3 };
    patient(cluster.node(1).change_cluster(moved, false)).await.unwrap();
    cluster.whole().await;
    let (owner, other, reader) = (user_at(2, 0), user_at(0, 0), user_at(0, 1));
    cluster.follow(reader, owner).await;
    cluster.follow(user_at(2, 1), other).await;
    let before = cluster.post(owner, "lost").await;
    cluster.sees(reader, &[before]).await;
    let begin = ClusterChange::BeginEmpty { partition: lost, to: 2 };
    let refused = async |cluster: &Cluster, change: ClusterChange| {
        let refused = patient(cluster.node(1).change_cluster(change, false)).await;
        let Err(fanfold_cluster::NodeError::Cluster(refusal)) = refused else { panic!("{refused:?}") };
        refusal
    };
    let has_quorum = ClusterRefusal::HasQuorum { partition: lost };
    assert_eq!(refused(&cluster, begin).await, has_quorum);
    // What was moved away is something that is left, until it is let go.
    let holds = |cluster: &Cluster| {
        let status = cluster.node(1).status();
        status.partitions.iter().any(|partition| partition.partition == lost)
    };
    patient(async {
        while holds(&cluster) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    cluster.kill(3).await;
    cluster.agree("the loss is seen", |view| view.groups[3].health == GroupHealth::Lost).await;
    for change in [
        ClusterChange::Remove { node: 3 },
        ClusterChange::Drain { node: 3 },
        ClusterChange::Move { partition: Some(lost), from: 3, to: 2 },
        ClusterChange::Recover { partition: lost, from: 1 },
        ClusterChange::Recover { partition: lost, from: 3 },
    ] {
        let refusal = refused(&cluster, change).await;
        let said = refusal.to_string();
        assert!(said.contains("fanfold partition recover 2 --empty --to "), "{change:?}: {said}");
    }
    patient(cluster.node(1).change_cluster(begin, false)).await.unwrap();
    cluster.led().await;
    // What was there is gone everywhere, and followers elsewhere still are.
    cluster.forget_session(lost);
    let after = cluster.post(owner, "new").await;
    cluster.sees(reader, &[after]).await;
    cluster.sees(user_at(2, 1), &[]).await;
    cluster.follow(user_at(2, 1), other).await;
    let post = cluster.post(other, "to the new one").await;
    cluster.sees(user_at(2, 1), &[post]).await;
    // What comes back was given up.
    cluster.start(3).await;
    cluster.whole().await;
    cluster.sees(reader, &[after]).await;
    cluster.kill(2).await;
    cluster.start(2).await;
    cluster.whole().await;
    cluster.sees(reader, &[after]).await;
    cluster.kill(3).await;
    cluster.agree("it is silent", |view| !view.nodes[2].is_alive).await;
    patient(cluster.node(1).change_cluster(ClusterChange::Remove { node: 3 }, false)).await.unwrap();
}
