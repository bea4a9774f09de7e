//! Nodes go, with and without a word, and the others go on.

use std::time::Duration;

use fanfold_cluster::clock::{Clock, LOG_EPOCH_UNIX_MS, ManualClock, SystemClock};
use fanfold_cluster::peer::{PeerProxy, Toward};
use fanfold_cluster::view::GroupHealth;
use fanfold_cluster::{ClusterView, NodeError, OpenError};
use fanfold_storage::fs::FaultFs;
use fanfold_storage::ids::PartitionId;
use fanfold_storage::space::SpacePolicy;

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_go_on_while_one_of_three_is_down() {
    let mut cluster = Cluster::of(3, 3).await;
    let mut followed = Followed::new(&cluster).await;
    followed.post(&cluster, 3).await;
    for node in [3, 1, 2] {
        cluster.kill(node).await;
        followed.post(&cluster, 3).await;
        followed.seen(&cluster).await;
        cluster.start(node).await;
        cluster.whole().await;
    }
    followed.seen(&cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_stop_hands_the_leadership_over() {
    let mut cluster = Cluster::of(3, 3).await;
    let led = |node: u64, cluster: &Cluster| {
        let view = cluster.any().view();
        view.groups.iter().filter(|group| group.leader == Some(node)).count()
    };
    assert!(led(2, &cluster) > 0);
    let terms: Vec<_> = cluster.node(1).view().groups.iter().map(|group| group.term).collect();
    cluster.stop(2).await;
    // Nobody had to notice that it is gone.
    let leaders = cluster.node(1).map().leaders;
    assert!(leaders.iter().all(|leader| leader.is_some_and(|leader| leader != 2)), "{leaders:?} {terms:?}");
    let mut followed = Followed::new(&cluster).await;
    followed.post(&cluster, 3).await;
    followed.seen(&cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_new_leaders_do_not_reach_names_no_dead_one() {
    let mut cluster = Cluster::of(4, 3).await;
    let without = |cluster: &Cluster, node: u64| {
        let view = cluster.any().view();
        let mut groups = view.groups.into_iter().filter(|group| group.partition.is_some());
        groups.find(|group| group.wanted.iter().all(|record| record.node != node))
    };
    let outside = (1..=4).find(|node| without(&cluster, *node).is_some()).unwrap();
    // Where it was, it is not any more: there is no other way to it.
    let listens = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let way = PeerProxy::start(listens).await.unwrap();
    cluster.stop(outside).await;
    cluster.move_to(outside, Some(listens));
    cluster.tell(outside, Some(way.address()));
    cluster.start(outside).await;
    cluster.whole().await;
    let group = without(&cluster, outside).unwrap();
    let (partition, dead) = (group.partition.unwrap(), group.leader.unwrap());
    let led = |node: u64, cluster: &Cluster| cluster.node(node).map().leaders[usize::from(partition.0)];
    assert_eq!(led(outside, &cluster), Some(dead));
    // From now on it reaches the others, and they do not reach it.
    way.cut(Toward::Target, true);
    cluster.kill(dead).await;
    let others: Vec<u64> = (1..=4).filter(|node| ![outside, dead].contains(node)).collect();
    patient(async {
        while !led(others[0], &cluster).is_some_and(|leader| others.contains(&leader)) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        while led(outside, &cluster) != led(others[0], &cluster) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })
    .await;
    // Who is left leads nothing alone.
    cluster.kill(led(outside, &cluster).unwrap()).await;
    patient(async {
        while led(outside, &cluster).is_some() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_writes_wait_and_others_go_on() {
    let mut cluster = Cluster::of(3, 1).await;
    let home = |cluster: &Cluster, node: u64| {
        let view = cluster.any().view();
        let mut groups = view.groups.iter().filter(|group| group.leader == Some(node));
        groups.find_map(|group| group.partition)
    };
    // With one replica each, the partitions are on the first node; one goes to the third.
    let moved = PartitionId(1);
    let change = fanfold_cluster::ClusterChange::Move { partition: Some(moved), from: 1, to: 3 };
    patient(cluster.node(2).change_cluster(change, false)).await.unwrap();
    cluster.whole().await;
    assert_eq!(home(&cluster, 3), Some(moved));
    cluster.kill(3).await;
    cluster.agree("the loss is seen", |view| view.groups[2].health == GroupHealth::Lost).await;
    let refused = cluster.node(1).open_session(moved).await.unwrap_err();
    assert!(refused.is_retryable() && !refused.may_have_applied(), "{refused:?}");
    cluster.post(user_at(0, 0), "elsewhere").await;
    let lost = user_at(1, 0);
    let write = cluster.post(lost, "waits");
    tokio::pin!(write);
    let waited = tokio::time::timeout(Duration::from_millis(300), &mut write).await;
    assert!(waited.is_err(), "nobody can have written it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_of_three_down_stop_writes_until_one_is_back() {
    let mut cluster = Cluster::of(3, 3).await;
    let mut followed = Followed::new(&cluster).await;
    followed.post(&cluster, 3).await;
    cluster.kill(2).await;
    cluster.kill(3).await;
    cluster.agree("the loss is seen", |view| view.groups.iter().all(|g| g.health == GroupHealth::Lost)).await;
    let refused =
        patient(cluster.node(1).create_space("later", None, SpacePolicy::default())).await.unwrap_err();
    assert!(refused.is_retryable(), "{refused:?}");
    cluster.start(3).await;
    followed.post(&cluster, 3).await;
    followed.seen(&cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_clock_is_off_leads_nothing() {
    let mut cluster = Cluster::of(3, 3).await;
    cluster.stop(2).await;
    let now = SystemClock::new().wall_unix_ms();
    cluster.set_clock(2, ManualClock::new(now + 3_600_000));
    cluster.start(2).await;
    cluster.agree("it is noticed", |view| view.nodes[1].is_clock_off).await;
    cluster.agree("it leads nothing", |view| view.nodes[1].leads == 0).await;
    let mut followed = Followed::new(&cluster).await;
    followed.post(&cluster, 3).await;
    followed.seen(&cluster).await;
    let view = cluster.node(1).view();
    assert!(!view.nodes[0].is_clock_off && !view.nodes[2].is_clock_off, "{view:#?}");
    assert_eq!(view.nodes[1].leads, 0, "nor does it get anything");
    // A third one that falls silent makes the clock no better, whoever it handed its leaderships to.
    cluster.stop(3).await;
    cluster.agree("the third is silent", |view| !view.nodes[2].is_alive && view.nodes[1].is_clock_off).await;
    followed.post(&cluster, 3).await;
    followed.seen(&cluster).await;
    let ahead_ms = 600_000 + now - LOG_EPOCH_UNIX_MS;
    for node in cluster.running() {
        assert!(node.view().nodes[1].is_clock_off);
        for partition in (0..PARTITIONS).map(PartitionId) {
            let stamp = node.read_partition(partition, fanfold_storage::partition::Partition::stamp);
            assert!((stamp.unwrap().0 as i64) < ahead_ms, "a batch was stamped an hour ahead");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_clock_is_off_proposes_nothing_though_nobody_can_take_over() {
    let mut cluster = Cluster::of(3, 1).await;
    let (partition, owner) = (PartitionId(0), user_at(0, 0));
    cluster.post(owner, "before").await;
    cluster.stop(1).await;
    let clock = ShiftedClock::default();
    clock.shift(3_600_000);
    cluster.set_clock(1, clock.clone());
    cluster.start(1).await;
    // From its first moment on: its clock was wrong before anybody could see it.
    let refused = patient(cluster.node(1).open_session(partition)).await.unwrap_err();
    assert!(matches!(refused, NodeError::Busy { .. }) && !refused.may_have_applied(), "{refused:?}");
    cluster.agree("it is noticed", |view| view.nodes[0].is_clock_off).await;
    assert_eq!(cluster.any().view().groups[1].leader, Some(1), "nobody else can lead it");
    let refused = patient(cluster.node(1).open_session(partition)).await.unwrap_err();
    assert!(matches!(refused, NodeError::Busy { .. }) && !refused.may_have_applied(), "{refused:?}");
    clock.shift(0);
    cluster.agree("it is right", |view| !view.nodes[0].is_clock_off).await;
    cluster.post(owner, "after").await;
    let stamp =
        cluster.node(1).read_partition(partition, fanfold_storage::partition::Partition::stamp).unwrap();
    let now_ms = SystemClock::new().wall_unix_ms() - LOG_EPOCH_UNIX_MS;
    assert!(now_ms.abs_diff(stamp.0 as i64) < 60_000, "no batch was stamped an hour ahead: {stamp:?}");
    // Once it leads and jumps, the same.
    clock.shift(-3_600_000);
    cluster.agree("it is noticed again", |view| view.nodes[0].is_clock_off).await;
    let refused = patient(cluster.node(1).open_session(partition)).await.unwrap_err();
    assert!(matches!(refused, NodeError::Busy { .. }), "{refused:?}");
    clock.shift(0);
    cluster.post(owner, "at last").await;
}

/// Lets a disk get on again, whatever happens: a log is not closed before.
struct Held<'a>(&'a FaultFs);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.hold_syncs(false);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_disk_stalls_leads_nothing_until_it_gets_on() {
    let (mut cluster, disk) = (Cluster::empty(3), FaultFs::new());
    cluster.set_disk(2, disk.clone());
    for node in 1..=3 {
        cluster.start(node).await;
    }
    cluster.whole().await;
    assert!(cluster.any().view().nodes[1].leads > 0);
    let mut followed = Followed::new(&cluster).await;
    followed.post(&cluster, 1).await;
    disk.hold_syncs(true);
    let held = Held(&disk);
    followed.post(&cluster, 3).await;
    let is_led = |view: &ClusterView| view.groups.iter().all(|group| group.leader.is_some());
    cluster.agree("others lead everything", |view| view.nodes[1].leads == 0 && is_led(view)).await;
    followed.post(&cluster, 3).await;
    // Whoever leads now does not give it back to the one that should lead, though that is there.
    let led = |cluster: &Cluster| -> Vec<_> {
        cluster.any().view().groups.iter().map(|group| (group.leader, group.term)).collect()
    };
    let before = led(&cluster);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!((led(&cluster), cluster.any().view().nodes[1].leads), (before, 0));
    drop(held);
    followed.post(&cluster, 3).await;
    followed.seen(&cluster).await;
    cluster.whole().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_a_running_node_does_not_start() {
    let mut cluster = Cluster::of(3, 3).await;
    let mut followed = Followed::new(&cluster).await;
    followed.post(&cluster, 2).await;
    cluster.stop(2).await;
    let (original, copy) = (cluster.place(2), cluster.place(9));
    copy_all(&original, &copy);
    cluster.start(2).await;
    cluster.whole().await;
    let refused = patient(cluster.try_start(9)).await;
    assert!(matches!(refused, Err(OpenError::RunsElsewhere { node: 2, .. })), "{refused:?}");
    // The one that was there first goes on.
    cluster.whole().await;
    followed.post(&cluster, 2).await;
    followed.seen(&cluster).await;
    cluster.kill(2).await;
    cluster.start(2).await;
    cluster.whole().await;
}
