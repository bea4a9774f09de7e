//! Three nodes in processes of their own, on loopback, under load: what is acknowledged survives a leader's death.
//!
//! The long tier is `cargo test --release -p fanfold-tests --test cluster -- --ignored --nocapture`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and tells what it measured"
)]

use std::time::{Duration, Instant};

use fanfold_server::workload::access::Access;
use fanfold_server::workload::activity::{ActivityOptions, SeededActivity};
use fanfold_server::workload::fleet::Fleet;
use fanfold_server::workload::graph::FollowGraph;
use fanfold_server::workload::node_process::NodeProcessOptions;
use fanfold_server::workload::report::Report;
use fanfold_server::workload::run::Run;

mod history;
mod links;
mod load;
mod namespaces;
mod network;
mod ordeal;
mod replicas;
mod troubles;

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

/// Bytes of a segment of the nodes' logs.
const SEGMENT_BYTES: u64 = 8 << 20;

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
