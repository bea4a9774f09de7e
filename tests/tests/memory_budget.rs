//! A node in a process of its own with more data than memory: what it answers, and its resident size.
//!
//! - The peak of the resident size counts, as the system keeps it (`VmHWM`): of starts and stops, too.
//! - Twenty times as much is gigabytes: run it with `cargo test -p fanfold-tests --test memory_budget -- --ignored`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::time::Duration;

use fanfold_client::{Client, EntryId, NewEntry, Space, UserId};
use fanfold_server::workload::node_process::{NodeProcess, NodeProcessOptions};

/// The budget. A debug build has 61 MiB when it starts, half of them the program itself.
const BUDGET_BYTES: u64 = 96 << 20;

/// Payloads of a write.
const AT_ONCE: u64 = 64;

/// Writes under way.
const LANES: u64 = 4;

/// The size of a payload is between this and three times as much.
const PAYLOAD_BYTES_MIN: usize = 4 << 10;

const OWNERS: u64 = 500;

/// Entries of a page.
const PAGE: u32 = 20;

struct Run {
    node: NodeProcess,
    space: Space,
    budget_bytes: u64,
    /// By owner, newest last.
    made: BTreeMap<UserId, Vec<(EntryId, u64)>>,
    count: u64,
}

/// The payload of the entry with this number.
fn payload(number: u64) -> Vec<u8> {
    let random = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut payload =
        vec![random as u8; PAYLOAD_BYTES_MIN + (random >> 40) as usize % (2 * PAYLOAD_BYTES_MIN)];
    payload[..8].copy_from_slice(&number.to_le_bytes());
    payload
}

fn figure(process: u32, key: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.trim().strip_suffix(" kB").unwrap().trim().parse::<u64>().unwrap() << 10
}

impl Run {
    async fn start(budget_bytes: u64) -> Self {
        let arguments = ["--partitions", "4", "--http", "off", "--memory-bytes"].map(str::to_owned);
        let node = NodeProcess::start(NodeProcessOptions {
            program: env!("CARGO_BIN_EXE_fanfold-tests-node").into(),
            arguments: Vec::new(),
            start_arguments: arguments
                .into_iter()
                .chain([budget_bytes.to_string()])
                .map(Into::into)
                .collect(),
            ready_timeout: Duration::from_secs(120),
        })
        .await
        .unwrap();
        let client = Client::builder(node.address().to_string()).deadline(Duration::from_secs(120));
        let space = client.connect().await.unwrap().space("posts");
        Self { node, space, budget_bytes, made: BTreeMap::new(), count: 0 }
    }

    /// Appends until there are so many bytes of payload.
    async fn append(&mut self, bytes: u64) {
        let mut appended = 0;
        while appended < bytes {
            let numbers: Vec<u64> = (self.count..self.count + AT_ONCE * LANES).collect();
            self.count += AT_ONCE * LANES;
            let lanes = numbers.chunks(AT_ONCE as usize).map(|numbers| {
                let entries: Vec<_> =
                    numbers.iter().map(|n| NewEntry::new(UserId(1 + n % OWNERS), payload(*n))).collect();
                async { self.space.append_many(entries).await.unwrap() }
            });
            let answers = futures_util::future::join_all(lanes).await;
            for (number, answer) in numbers.into_iter().zip(answers.into_iter().flatten()) {
                appended += payload(number).len() as u64;
                self.made.entry(UserId(1 + number % OWNERS)).or_default().push((answer.unwrap().id, number));
            }
        }
    }

    /// Reads the ids of every timeline, and the payloads of its newest and of its oldest entries.
    async fn read(&self) {
        for (owner, made) in &self.made {
            let mut made = made.clone();
            made.sort_unstable_by_key(|(id, _)| std::cmp::Reverse(*id));
            let (mut cursor, mut seen) = (None, 0);
            loop {
                let timeline = || {
                    let read = self.space.timeline(*owner).limit(PAGE);
                    if let Some(cursor) = cursor { read.cursor(cursor) } else { read }
                };
                let page = timeline().await.unwrap();
                let expected = made[seen..].iter().take(PAGE as usize);
                assert!(page.entries.iter().map(|e| e.id).eq(expected.clone().map(|(id, _)| *id)), "{owner}");
                if seen == 0 || page.next.is_none() {
                    let page = timeline().hydrate().await.unwrap();
                    let shown = page.entries.iter().map(|e| e.payload.as_ref().unwrap().to_vec());
                    assert!(shown.eq(expected.map(|(_, number)| payload(*number))), "{owner}, from {seen}");
                }
                seen += page.entries.len();
                match page.next {
                    Some(next) => cursor = Some(next),
                    None => break,
                }
            }
            assert_eq!(seen, made.len(), "{owner}");
        }
    }

    /// Checks the largest resident size that the process had.
    fn check(&self, what: &str) {
        let process = self.node.process_id().unwrap();
        let peak = figure(process, "VmHWM:");
        eprintln!(
            "{what}: {} MiB at most, now {} MiB ({} of files), of {}",
            peak >> 20,
            figure(process, "VmRSS:") >> 20,
            figure(process, "RssFile:") >> 20,
            self.budget_bytes >> 20
        );
        let most = self.budget_bytes + self.budget_bytes / 10;
        assert!(peak <= most, "{what}: {peak} bytes resident, of a budget of {}", self.budget_bytes);
    }
}

/// Writes so many times the budget, and reads it.
async fn data_beyond_memory(times: u64) {
    let budget_bytes = BUDGET_BYTES;
    let mut run = Run::start(budget_bytes).await;
    run.check("started");
    run.append(times * budget_bytes).await;
    run.check("appended");
    run.read().await;
    run.check("read");
    let took = run.node.kill_and_restart().await.unwrap();
    run.check("killed and started");
    run.read().await;
    run.append(budget_bytes / 4).await;
    run.read().await;
    run.check("read again");
    eprintln!("{} entries; the start took {took:?}", run.count);
    run.node.terminate().await.unwrap();
    run.node.restart().await.unwrap();
    run.check("stopped and started");
    run.read().await;
    run.check("at the end");
    run.node.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twice_the_budget_is_kept_and_read_within_the_budget() {
    data_beyond_memory(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "writes gigabytes"]
async fn twenty_times_the_budget_is_kept_and_read_within_the_budget() {
    data_beyond_memory(20).await;
}
