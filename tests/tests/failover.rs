//! How long writes stand still when a leader hangs or is stopped cleanly: three nodes in processes of their own, on loopback.
//!
//! `FANFOLD_TRIALS=20 cargo test --release -p fanfold-tests --test failover -- --ignored --nocapture --test-threads 1`

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and tells what it measured"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fanfold_client::{Client, PartitionId, UserId};
use fanfold_server::workload::fleet::Fleet;
use fanfold_server::workload::node_process::NodeProcessOptions;

/// Calls live through failovers and restarts.
const DEADLINE: Duration = Duration::from_secs(120);

async fn fleet() -> Fleet {
    let options = NodeProcessOptions {
        program: env!("CARGO_BIN_EXE_fanfold-tests-node").into(),
        arguments: Vec::new(),
        start_arguments: ["--partitions", "4"].map(Into::into).to_vec(),
        ready_timeout: DEADLINE,
    };
    Fleet::start(options, 3).await.unwrap()
}

/// How many trials a measurement makes.
fn trials() -> usize {
    std::env::var("FANFOLD_TRIALS").map_or(50, |n| n.parse().unwrap())
}

fn print_quantiles(what: &str, mut took: Vec<Duration>) {
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share).round() as usize].as_millis();
    println!("{what}: {} trials: p50 {} ms, p99 {} ms, most {} ms", took.len(), at(0.5), at(0.99), at(1.0));
}

/// So many users of partitions that a node leads; whoever leads most leads at least one.
async fn led_users(client: &Client, address: &str, count: usize) -> Vec<UserId> {
    let map = client.map().await.unwrap();
    let node = map.nodes.iter().find(|node| node.address == address).unwrap().node;
    let is_led =
        |user: &UserId| map.leaders[usize::from(PartitionId::of_user(*user, map.partitions).0)] == node;
    (0..u64::MAX).map(UserId).filter(is_led).take(count).collect()
}

/// How long writes stand still when the leader of their partition is held where it is, so that nobody is told anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn time_until_writes_go_on_after_a_leader_hangs() {
    let mut fleet = fleet().await;
    let client = fleet.client(DEADLINE).await.unwrap();
    let posts = client.space("posts");
    let mut took = Vec::new();
    for trial in 0..trials() {
        let victim = fleet.leader().await;
        let user = led_users(&client, &fleet.addresses()[victim], 1).await[0];
        posts.append(user, "before").await.unwrap();
        fleet.node_mut(victim).suspend().unwrap();
        let held = Instant::now();
        posts.append(user, "after").await.unwrap();
        println!("trial {trial}: {} ms", held.elapsed().as_millis());
        took.push(held.elapsed());
        fleet.node_mut(victim).resume().unwrap();
        fleet.whole(3, DEADLINE).await.unwrap();
    }
    print_quantiles("a leader hangs", took);
    fleet.end().await.unwrap();
}

/// How long one write takes at most while the leader of its partition is stopped cleanly. No write may fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn longest_write_while_a_leader_stops() {
    let mut fleet = fleet().await;
    let client = fleet.client(DEADLINE).await.unwrap();
    let mut took = Vec::new();
    for trial in 0..trials() {
        let victim = fleet.leader().await;
        let users = led_users(&client, &fleet.addresses()[victim], 8).await;
        let is_over = Arc::new(AtomicBool::new(false));
        let writers = users.into_iter().map(|user| {
            let (posts, is_over) = (client.space("posts"), is_over.clone());
            tokio::spawn(async move {
                let (mut most, mut written) = (Duration::ZERO, 0);
                while !is_over.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    posts.append(user, "a post").await.unwrap();
                    (most, written) = (most.max(begun.elapsed()), written + 1);
                }
                (most, written)
            })
        });
        let writers: Vec<_> = writers.collect();
        tokio::time::sleep(Duration::from_millis(500)).await;
        fleet.node_mut(victim).terminate().await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
        is_over.store(true, Ordering::Relaxed);
        let (mut most, mut written) = (Duration::ZERO, 0);
        for writer in writers {
            let (its_most, its_written) = writer.await.unwrap();
            (most, written) = (most.max(its_most), written + its_written);
        }
        println!("trial {trial}: {} ms, {written} writes", most.as_millis());
        took.push(most);
        fleet.node_mut(victim).restart().await.unwrap();
        fleet.whole(3, DEADLINE).await.unwrap();
    }
    print_quantiles("a leader stops cleanly, longest write", took);
    fleet.end().await.unwrap();
}
