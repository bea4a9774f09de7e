//! Three nodes in processes of their own, on loopback, under load: what is acknowledged survives a leader's death.
//!
//! The long tier is `cargo test --release -p fanfold-tests --test cluster -- --ignored --nocapture`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use fanfold_client::{Client, ClusterChange, ClusterView, GroupName, NodeId, NodeState};
use fanfold_server::workload::access::Access;
use fanfold_server::workload::activity::{ActivityOptions, SeededActivity};
use fanfold_server::workload::fleet::Fleet;
use fanfold_server::workload::graph::FollowGraph;
use fanfold_server::workload::node_process::NodeProcessOptions;
use fanfold_server::workload::report::Report;
use fanfold_server::workload::run::Run;

/// Calls live through failovers and restarts.
const DEADLINE: Duration = Duration::from_secs(120);

fn options(arguments: &[&str]) -> NodeProcessOptions {
    NodeProcessOptions {
        program: env!("CARGO_BIN_EXE_fanfold-tests-node").into(),
        arguments: Vec::new(),
        start_arguments: arguments.iter().map(Into::into).collect(),
        ready_timeout: Duration::from_secs(120),
    }
}

/// Small logs and tables, so that segments and snapshots are written all the time.
const SMALL: [&str; 8] = [
    "--partitions",
    "4",
    "--log-segment-bytes",
    "8388608",
    "--table-bytes",
    "65536",
    "--snapshot-log-bytes",
    "262144",
];

async fn run(users: u64, posts: u64, kills: usize, pause: Duration) {
    let fleet = Fleet::start(options(&SMALL), 3).await.unwrap();
    let access = Access::of(fleet.client(DEADLINE).await.unwrap()).await.unwrap();
    let graph = FollowGraph::power_law(users, 5);
    let activity = SeededActivity::new(&graph, ActivityOptions { posts: posts as usize, seed: 5 });
    let report = Report::new("cluster", serde_json::json!({ "users": users, "posts": posts }));
    let mut run = Run::begin(access, Some(fleet), 256, report).await.unwrap();
    run.follow(&graph).await.unwrap();
    run.start_killing(pause, kills);
    run.act(posts, activity).await.unwrap();
    run.check().await.unwrap();
    let ran = run.finish().await.unwrap();
    assert!(ran.report.restarts >= 1);
    assert_eq!(ran.report.mismatches(), 0, "{ran}\n{}", ran.report);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leader_killed_under_load_loses_and_repeats_nothing() {
    run(300, 3_000, 1, Duration::from_millis(700)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes"]
async fn twenty_leaders_killed_under_load_lose_and_repeat_nothing() {
    run(3_000, 400_000, 20, Duration::from_secs(5)).await;
}

/// The node behind an address, as the cluster knows it.
async fn id_of(client: &Client, address: &str) -> NodeId {
    let view = client.cluster().await.unwrap();
    view.nodes.iter().rfind(|node| node.address == address).unwrap().node
}

/// Waits until the cluster is as it should be.
async fn until(client: &Client, what: &str, is_so: impl Fn(&ClusterView) -> bool) {
    let begun = Instant::now();
    loop {
        let seen = client.cluster().await;
        if seen.as_ref().is_ok_and(&is_so) {
            return;
        }
        assert!(begun.elapsed() < DEADLINE, "{what} did not come: {seen:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn replicas_on(view: &ClusterView, node: NodeId) -> usize {
    view.groups.iter().flat_map(|group| &group.replicas).filter(|replica| replica.node == node).count()
}

/// What operators and machines do to a cluster, one after the other, each under load.
#[derive(Debug, Clone, Copy)]
enum Trouble {
    RollingRestart,
    Suspend,
    Kill,
    AddAndBalance,
    DrainAndRemove,
    Replace,
    MoveAll,
}

async fn make(trouble: Trouble, fleet: &mut Fleet, client: &Client) {
    match trouble {
        Trouble::RollingRestart => {
            for at in 0..fleet.nodes().len() {
                fleet.node_mut(at).terminate().await.unwrap();
                fleet.node_mut(at).restart().await.unwrap();
                fleet.whole(3, DEADLINE).await.unwrap();
            }
        }
        Trouble::Suspend => {
            let at = fleet.leader().await;
            fleet.node_mut(at).suspend().unwrap();
            tokio::time::sleep(Duration::from_secs(5)).await;
            fleet.node_mut(at).resume().unwrap();
            fleet.whole(3, DEADLINE).await.unwrap();
        }
        Trouble::Kill => {
            fleet.kill_and_restart().await.unwrap();
            fleet.whole(3, DEADLINE).await.unwrap();
        }
        Trouble::AddAndBalance => {
            fleet.add(options(&SMALL[2..])).await.unwrap();
            client.change_cluster(ClusterChange::Balance, false).await.unwrap();
            let address = fleet.addresses().pop().unwrap();
            let node = id_of(client, &address).await;
            until(client, "replicas on the new node", |view| replicas_on(view, node) > 0).await;
            fleet.whole(3, DEADLINE).await.unwrap();
        }
        Trouble::DrainAndRemove => {
            let node = id_of(client, &fleet.addresses()[0]).await;
            client.change_cluster(ClusterChange::Drain { node }, false).await.unwrap();
            until(client, "the drain", |view| replicas_on(view, node) == 0).await;
            client.change_cluster(ClusterChange::Remove { node }, false).await.unwrap();
            fleet.remove(0).end().await.unwrap();
            fleet.whole(3, DEADLINE).await.unwrap();
        }
        Trouble::Replace => {
            // The disk of one is lost: it ends, and another one takes its place.
            let lost = fleet.remove(0);
            let node = id_of(client, &lost.address().to_string()).await;
            lost.end().await.unwrap();
            fleet.add(options(&SMALL[2..])).await.unwrap();
            let by = id_of(client, &fleet.addresses().pop().unwrap()).await;
            until(client, "silence", |view| view.nodes.iter().any(|n| n.node == node && !n.is_alive)).await;
            client.change_cluster(ClusterChange::Replace { node, by }, false).await.unwrap();
            until(client, "the replacement", |view| replicas_on(view, node) == 0).await;
            fleet.whole(3, DEADLINE).await.unwrap();
        }
        Trouble::MoveAll => {
            let view = client.cluster().await.unwrap();
            for group in &view.groups {
                let GroupName::Partition(_) = group.group else { continue };
                let to = view.nodes.iter().find(|node| {
                    node.state == NodeState::Active && group.replicas.iter().all(|r| r.node != node.node)
                });
                let (Some(to), from) = (to, group.replicas[0].node) else { continue };
                let change = ClusterChange::Move { group: group.group, from, to: to.node };
                client.change_cluster(change, false).await.unwrap();
            }
            fleet.whole(3, DEADLINE).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes"]
async fn whatever_is_done_to_nodes_loses_and_repeats_nothing() {
    use Trouble::{AddAndBalance, DrainAndRemove, Kill, MoveAll, Replace, RollingRestart, Suspend};
    let mut fleet = Fleet::start(options(&SMALL), 3).await.unwrap();
    let client = fleet.client(DEADLINE).await.unwrap();
    let access = Access::of(client.clone()).await.unwrap();
    let (users, posts) = (1_000, 4_000);
    let troubles =
        [RollingRestart, Suspend, Kill, AddAndBalance, MoveAll, Replace, Kill, Suspend, DrainAndRemove, Kill];
    let graph = FollowGraph::power_law(users, 7);
    let all = posts * troubles.len();
    let mut activity = SeededActivity::new(&graph, ActivityOptions { posts: all, seed: 7 });
    let report = Report::new("cluster", serde_json::json!({ "users": users, "posts": all }));
    let mut run = Run::begin(access, None, 64, report).await.unwrap();
    run.follow(&graph).await.unwrap();
    for trouble in troubles {
        let begun = Instant::now();
        let acted = run.act(posts as u64, activity.by_ref().take(posts));
        let ((), acted) = tokio::join!(make(trouble, &mut fleet, &client), acted);
        acted.unwrap();
        run.check().await.unwrap();
        println!("{trouble:?}: {:.1} s", begun.elapsed().as_secs_f64());
    }
    let ran = run.finish().await.unwrap();
    assert_eq!(ran.report.mismatches(), 0, "{ran}\n{}", ran.report);
    fleet.end().await.unwrap();
}

/// How long writes stand still when the leader of their partition is killed. Prints each trial, and the quantiles.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn time_until_writes_go_on_after_a_leader_is_killed() {
    let trials: usize = std::env::var("FANFOLD_TRIALS").map_or(50, |n| n.parse().unwrap());
    let mut fleet = Fleet::start(options(&SMALL), 3).await.unwrap();
    let client = fleet.client(DEADLINE).await.unwrap();
    let posts = client.space("posts");
    let mut took = Vec::new();
    for trial in 0..trials {
        // A user of a partition that the victim leads: whoever leads most leads at least one.
        let victim = fleet.leader().await;
        let address = fleet.addresses()[victim].clone();
        let map = client.map().await.unwrap();
        let node = map.nodes.iter().find(|node| node.address == address).unwrap().node;
        let led = (0..u64::MAX).map(fanfold_client::UserId).find(|user| {
            let partition = fanfold_client::PartitionId::of_user(*user, map.partitions);
            map.leaders[usize::from(partition.0)] == node
        });
        let user = led.unwrap();
        posts.append(user, "before").await.unwrap();
        fleet.node_mut(victim).kill().await.unwrap();
        let killed = Instant::now();
        posts.append(user, "after").await.unwrap();
        let gap = killed.elapsed();
        println!("trial {trial}: {} ms", gap.as_millis());
        took.push(gap);
        fleet.node_mut(victim).restart().await.unwrap();
        fleet.whole(3, DEADLINE).await.unwrap();
    }
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share).round() as usize].as_millis();
    println!("{} trials: p50 {} ms, p99 {} ms, most {} ms", took.len(), at(0.5), at(0.99), at(1.0));
    fleet.end().await.unwrap();
}
