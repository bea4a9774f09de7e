//! How long calls stand still when a leader hangs, or nodes are stopped cleanly, under a constant load: three nodes in processes of
//! their own, on loopback. No call may fail, and none take much longer than it should.
//!
//! What is aimed at: within 100 ms while a node stops, and within the lease and an election time (3 s) while one hangs. The bounds
//! leave room for a machine that has other things to do, and for a debug build.
//!
//! `FANFOLD_TRIALS=20 cargo test --release -p fanfold-tests --test failover -- --ignored --nocapture --test-threads 1`

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and tells what it measured"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fanfold_client::{Client, GroupName, PartitionId, UserId};
use fanfold_server::workload::fleet::Fleet;
use fanfold_server::workload::node_process::NodeProcessOptions;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Calls live through failovers and restarts.
const DEADLINE: Duration = Duration::from_secs(120);

const PARTITIONS: u16 = 4;

/// Who writes to each partition, each one post after the other.
const WRITERS: u64 = 4;

/// Who reads feeds of each partition.
const READERS: u64 = 1;

/// Between two calls of one writer or reader.
const PAUSE: Duration = Duration::from_millis(5);

/// For how long the load runs before a node is stopped, and after.
const RUN: Duration = Duration::from_millis(500);

/// How long a call may take while a node stops.
const STOP_MAX: Duration = Duration::from_millis(if cfg!(debug_assertions) { 1_000 } else { 100 });

/// How long a call may take while a node starts, which reads its disk on the same two processors.
const START_MAX: Duration = Duration::from_millis(if cfg!(debug_assertions) { 1_000 } else { 300 });

/// How long writes may stand still while a leader hangs.
const HANG_MAX: Duration = Duration::from_millis(4_500);

async fn fleet() -> Fleet {
    let options = NodeProcessOptions {
        program: env!("CARGO_BIN_EXE_fanfold-tests-node").into(),
        arguments: Vec::new(),
        start_arguments: ["--partitions", &PARTITIONS.to_string()].map(Into::into).to_vec(),
        ready_timeout: DEADLINE,
    };
    Fleet::start(options, 3).await.unwrap()
}

/// How many trials a measurement makes.
fn trials() -> usize {
    std::env::var("FANFOLD_TRIALS").map_or(50, |n| n.parse().unwrap())
}

/// The value that so large a share of the trials does not pass.
fn quantile(took: &[Duration], share: f64) -> Duration {
    let mut sorted = took.to_vec();
    sorted.sort_unstable();
    sorted[((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len()) - 1]
}

/// Tells what was measured; most of it has to be within a bound.
fn check(what: &str, took: &[Duration], max: Duration) {
    let at = |share: f64| quantile(took, share).as_millis();
    println!("{what}: {} trials: p50 {} ms, p99 {} ms, most {} ms", took.len(), at(0.5), at(0.99), at(1.0));
    assert!(quantile(took, 0.99) <= max, "{what}: {took:?}, which is more than {max:?}");
}

/// So many users of a partition.
fn users_of(partition: u16, count: u64) -> impl Iterator<Item = UserId> {
    let is_there = move |user: &UserId| PartitionId::of_user(*user, PARTITIONS) == PartitionId(partition);
    (0..u64::MAX).map(UserId).filter(is_there).take(count as usize)
}

/// A partition's user whose leader a node is; none if it leads no partition by now.
async fn led_user(client: &Client, address: &str) -> Option<UserId> {
    let map = client.map().await.unwrap();
    let node = map.nodes.iter().find(|node| node.address == address).unwrap().node;
    let partition = map.leaders.iter().position(|leader| *leader == node)?;
    users_of(partition as u16, 1).next()
}

/// The node that leads the catalog.
async fn catalog_leader(fleet: &Fleet, client: &Client) -> usize {
    loop {
        let view = client.cluster().await.unwrap();
        let catalog = view.groups.iter().find(|group| group.group == GroupName::Catalog).unwrap();
        let led_by = |address: &String| {
            let node = view.nodes.iter().find(|node| node.address == *address);
            node.is_some_and(|node| catalog.leader == Some(node.node))
        };
        if let Some(leader) = fleet.addresses().iter().position(led_by) {
            return leader;
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// What one writer or reader has done.
#[derive(Default)]
struct Caller {
    calls: AtomicU64,
    longest_us: AtomicU64,
}

/// A constant load on all partitions; a call that fails ends it with a panic.
struct Load {
    is_over: Arc<AtomicBool>,
    callers: Vec<Arc<Caller>>,
    /// The first of the callers write, the others read.
    writers: usize,
    tasks: JoinSet<()>,
}

impl Load {
    fn start(client: &Client) -> Self {
        let mut load =
            Self { is_over: Arc::default(), callers: Vec::new(), writers: 0, tasks: JoinSet::new() };
        for user in (0..PARTITIONS).flat_map(|partition| users_of(partition, WRITERS)) {
            let posts = client.space("posts");
            load.call(move || {
                let append = posts.append(user, "a post");
                async move {
                    append.await.unwrap();
                }
                .boxed()
            });
        }
        load.writers = load.callers.len();
        for user in (0..PARTITIONS).flat_map(|partition| users_of(partition, READERS)) {
            let posts = client.space("posts");
            load.call(move || {
                let read = posts.feed(user).limit(10);
                async move { drop(read.await.unwrap()) }.boxed()
            });
        }
        load
    }

    fn call(&mut self, call: impl Fn() -> BoxFuture<'static, ()> + Send + 'static) {
        let (caller, is_over) = (Arc::new(Caller::default()), self.is_over.clone());
        self.callers.push(caller.clone());
        self.tasks.spawn(async move {
            while !is_over.load(Ordering::Relaxed) {
                let begun = Instant::now();
                call().await;
                let took = begun.elapsed().as_micros() as u64;
                caller.longest_us.fetch_max(took, Ordering::Relaxed);
                caller.calls.fetch_add(1, Ordering::Release);
                sleep(PAUSE).await;
            }
        });
    }

    /// From now on other calls count.
    fn forget(&self) {
        self.callers.iter().for_each(|caller| caller.longest_us.store(0, Ordering::Relaxed));
    }

    /// The longest write and read since, when everybody has ended the call that is under way now.
    async fn longest(&mut self) -> (Duration, Duration) {
        for caller in &self.callers {
            let now = caller.calls.load(Ordering::Acquire);
            while caller.calls.load(Ordering::Acquire) == now {
                if let Some(ended) = self.tasks.try_join_next() {
                    ended.unwrap();
                }
                sleep(PAUSE).await;
            }
        }
        let longest = |callers: &[Arc<Caller>]| {
            let longest = callers.iter().map(|caller| caller.longest_us.load(Ordering::Relaxed)).max();
            Duration::from_micros(longest.unwrap_or_default())
        };
        let (writers, readers) = self.callers.split_at(self.writers);
        (longest(writers), longest(readers))
    }

    async fn end(mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
    }
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
        let (victim, user) = loop {
            let victim = fleet.leader().await;
            if let Some(user) = led_user(&client, &fleet.addresses()[victim]).await {
                break (victim, user);
            }
            // Leaderships go back where they belong.
            sleep(Duration::from_millis(20)).await;
        };
        posts.append(user, "before").await.unwrap();
        fleet.node_mut(victim).suspend().unwrap();
        let held = Instant::now();
        posts.append(user, "after").await.unwrap();
        println!("trial {trial}: {} ms", held.elapsed().as_millis());
        took.push(held.elapsed());
        fleet.node_mut(victim).resume().unwrap();
        fleet.whole(3, DEADLINE).await.unwrap();
    }
    fleet.end().await.unwrap();
    check("a leader hangs", &took, HANG_MAX);
}

/// Stops and starts nodes under load, those that lead most and those that lead the catalog in turn, and says how long the longest of
/// all calls took in each trial.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn longest_write_while_a_leader_stops() {
    let mut fleet = fleet().await;
    let client = fleet.client(DEADLINE).await.unwrap();
    let mut load = Load::start(&client);
    let (mut writes, mut reads, mut starts) = (Vec::new(), Vec::new(), Vec::new());
    for trial in 0..trials() {
        let leads_catalog = trial % 2 == 1;
        let victim = if leads_catalog { catalog_leader(&fleet, &client).await } else { fleet.leader().await };
        sleep(RUN).await;
        load.forget();
        let begun = Instant::now();
        fleet.node_mut(victim).terminate().await.unwrap();
        let stopped = begun.elapsed();
        sleep(RUN).await;
        let (write, read) = load.longest().await;
        load.forget();
        fleet.node_mut(victim).restart().await.unwrap();
        fleet.whole(3, DEADLINE).await.unwrap();
        let (started, _) = load.longest().await;
        println!(
            "trial {trial}: node {victim}{}: write {} ms, read {} ms, stop {} ms, write during the start {} ms",
            if leads_catalog { " (catalog)" } else { "" },
            write.as_millis(),
            read.as_millis(),
            stopped.as_millis(),
            started.as_millis()
        );
        writes.push(write);
        reads.push(read);
        starts.push(started);
    }
    load.end().await;
    fleet.end().await.unwrap();
    check("a leader stops cleanly, longest write", &writes, STOP_MAX);
    check("a leader stops cleanly, longest read", &reads, STOP_MAX);
    check("it starts again, longest write", &starts, START_MAX);
}

/// Stops and starts all nodes under load, one after the other. No call may fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn longest_write_while_all_nodes_are_restarted() {
    let mut fleet = fleet().await;
    let client = fleet.client(DEADLINE).await.unwrap();
    let mut load = Load::start(&client);
    let (mut writes, mut reads) = (Vec::new(), Vec::new());
    for _ in 0..trials().div_ceil(10) {
        sleep(RUN).await;
        load.forget();
        for node in 0..3 {
            fleet.node_mut(node).terminate().await.unwrap();
            fleet.node_mut(node).restart().await.unwrap();
            fleet.whole(3, DEADLINE).await.unwrap();
        }
        // Leaderships go back where they belong.
        sleep(Duration::from_secs(5)).await;
        let (write, read) = load.longest().await;
        println!("round {}: write {} ms, read {} ms", writes.len(), write.as_millis(), read.as_millis());
        writes.push(write);
        reads.push(read);
    }
    load.end().await;
    fleet.end().await.unwrap();
    check("a rolling restart, longest write", &writes, START_MAX);
    check("a rolling restart, longest read", &reads, START_MAX);
}
