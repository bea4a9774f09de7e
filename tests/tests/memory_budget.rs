//! A node in a process of its own with more data than memory: what it answers, and its resident size.
//!
//! - The peak of the resident size counts, as the system keeps it (`VmHWM`): of starts and stops, too.
//! - What nothing can shed, edges and feeds, is refused beyond the budget: what is let in at the last moment is added to the tenth.
//! - Twenty times as much is gigabytes: run it with `cargo test -p fanfold-tests --test memory_budget -- --ignored`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::time::Duration;

use fanfold_client::{Client, EntryId, Error, ImportEdge, MemoryState, NewEntry, Space, Status, UserId};
use fanfold_server::workload::node_process::{NodeProcess, NodeProcessOptions};

/// The budget. A debug build has 61 MiB when it starts, half of them the program itself.
const BUDGET_BYTES: u64 = 96 << 20;

/// Payloads of a write.
const AT_ONCE: u64 = 64;

/// Writes under way.
const LANES: u64 = 4;

/// The size of a payload is between this and three times as much …
const PAYLOAD_BYTES_MIN: usize = 4 << 10;

/// … and of small ones, whose rows take more memory than there is if they stay.
const SMALL_BYTES_MIN: usize = 256;

const OWNERS: u64 = 500;

/// Entries of a page.
const PAGE: u32 = 20;

/// Readers of feeds, and how many each of them follows: all owners have followers, so that each entry takes a row wherever it arrives.
const READERS: u64 = 400;
const FOLLOWEES: u64 = 25;

/// The budget of a node whose edges and feeds are beyond it is so much above what it takes when it is empty.
const GRAPH_BYTES: u64 = 4 << 20;

/// A budget that nothing here comes near.
const LARGE_BUDGET_BYTES: u64 = 64 << 30;

/// Owners whom all readers follow.
const FOLLOWED: u64 = 1_000;

/// Readers of one import.
const READERS_AT_ONCE: u64 = 16;

/// Several times as many readers as fit.
const READERS_MAX: u64 = 8_000;

/// What was on its way when the node began to refuse: deliveries to feeds, and what comes between looks of the keeper.
const LATE_BYTES_MAX: u64 = 4 << 20;

/// How long a call is tried again that may be refused.
const REFUSED_AFTER: Duration = Duration::from_secs(2);

struct Run {
    node: NodeProcess,
    client: Client,
    space: Space,
    budget_bytes: u64,
    /// The least of a payload.
    payload_bytes: usize,
    /// By owner, newest last.
    made: BTreeMap<UserId, Vec<(EntryId, u64)>>,
    count: u64,
}

/// Whom a reader of feeds follows: others than most.
fn followees(number: u64) -> impl Iterator<Item = UserId> {
    (0..FOLLOWEES).map(move |n| UserId(1 + (7 * number + 11 * n) % OWNERS))
}

fn reader(number: u64) -> UserId {
    UserId(1_000_000 + number)
}

/// The payload of the entry with this number, of `least` bytes to three times as many.
fn payload(number: u64, least: usize) -> Vec<u8> {
    let random = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut payload = vec![random as u8; least + (random >> 40) as usize % (2 * least)];
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
        let client = client.connect().await.unwrap();
        let space = client.space("posts");
        let edges = (0..READERS).flat_map(|n| followees(n).map(move |owner| (reader(n), owner)));
        let edges = edges.map(|(reader, owner)| ImportEdge { reader, owner, since: None });
        client.follows().import_follows(edges.collect()).await.unwrap();
        Self {
            node,
            client,
            space,
            budget_bytes,
            payload_bytes: PAYLOAD_BYTES_MIN,
            made: BTreeMap::new(),
            count: 0,
        }
    }

    /// Appends until there are so many bytes of payload.
    async fn append(&mut self, bytes: u64) {
        let mut appended = 0;
        while appended < bytes {
            let numbers: Vec<u64> = (self.count..self.count + AT_ONCE * LANES).collect();
            self.count += AT_ONCE * LANES;
            let lanes = numbers.chunks(AT_ONCE as usize).map(|numbers| {
                let entries: Vec<_> = numbers
                    .iter()
                    .map(|n| NewEntry::new(UserId(1 + n % OWNERS), payload(*n, self.payload_bytes)))
                    .collect();
                async { self.space.append_many(entries).await.unwrap() }
            });
            let answers = futures_util::future::join_all(lanes).await;
            for (number, answer) in numbers.into_iter().zip(answers.into_iter().flatten()) {
                appended += payload(number, self.payload_bytes).len() as u64;
                self.made.entry(UserId(1 + number % OWNERS)).or_default().push((answer.unwrap().id, number));
            }
        }
    }

    /// Reads the ids of every timeline, the payloads of its newest and of its oldest entries, and every feed.
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
                    assert!(
                        shown.eq(expected.map(|(_, number)| payload(*number, self.payload_bytes))),
                        "{owner}, from {seen}"
                    );
                }
                seen += page.entries.len();
                match page.next {
                    Some(next) => cursor = Some(next),
                    None => break,
                }
            }
            assert_eq!(seen, made.len(), "{owner}");
        }
        self.read_feeds().await;
    }

    /// Reads the first page of every feed.
    async fn read_feeds(&self) {
        self.client.wait_drained().await.unwrap();
        for n in 0..READERS {
            let made = followees(n).filter_map(|owner| self.made.get(&owner));
            let mut made: Vec<EntryId> = made.flatten().map(|(id, _)| *id).collect();
            made.sort_unstable_by_key(|id| std::cmp::Reverse(*id));
            let page = self.space.feed(reader(n)).limit(PAGE).await.unwrap();
            assert!(
                page.entries.iter().map(|entry| entry.id).eq(made.into_iter().take(PAGE as usize)),
                "{n}"
            );
        }
    }

    /// How the node says that it stands to its budget.
    async fn state(&self) -> MemoryState {
        self.client.status().await.unwrap()[0].memory.unwrap().state
    }

    /// Waits until it stands so no longer.
    async fn no_longer(&self, state: MemoryState) {
        let wait = async { while self.state().await == state {} };
        let waited = tokio::time::timeout(Duration::from_secs(60), wait).await;
        waited.unwrap_or_else(|_| panic!("{state:?} for ever"));
    }

    /// Lets readers follow everybody, and posts to all of them, until that is refused; answers how many follow.
    async fn follow_beyond_the_budget(&self) -> u64 {
        let mut readers = 0;
        while readers < READERS_MAX {
            let new = (readers..readers + READERS_AT_ONCE).map(reader);
            let edges =
                new.flat_map(|reader| followed().map(move |owner| ImportEdge { reader, owner, since: None }));
            let edges: Vec<_> = edges.collect();
            if refused(self.client.follows().import_follows(edges).deadline(REFUSED_AFTER).await) {
                return readers;
            }
            readers += READERS_AT_ONCE;
            let owner = UserId(1 + readers / READERS_AT_ONCE % FOLLOWED);
            if refused(self.space.append(owner, "more").deadline(REFUSED_AFTER).await) {
                return readers;
            }
        }
        panic!("{readers} readers are within the budget");
    }

    /// Checks the largest resident size that the process had.
    fn check(&self, what: &str) {
        self.check_beyond(what, 0);
    }

    /// Checks it, with so much above the tenth.
    fn check_beyond(&self, what: &str, late_bytes: u64) {
        let process = self.node.process_id().unwrap();
        let peak = figure(process, "VmHWM:");
        eprintln!(
            "{what}: {} MiB at most, now {} MiB ({} of files), of {}",
            peak >> 20,
            figure(process, "VmRSS:") >> 20,
            figure(process, "RssFile:") >> 20,
            self.budget_bytes >> 20
        );
        let most = self.budget_bytes + self.budget_bytes / 10 + late_bytes;
        assert!(peak <= most, "{what}: {peak} bytes resident, of a budget of {}", self.budget_bytes);
    }
}

/// Writes so many times the budget, and reads it.
async fn data_beyond_memory(times: u64, payload_bytes: usize) {
    let budget_bytes = BUDGET_BYTES;
    let mut run = Run { payload_bytes, ..Run::start(budget_bytes).await };
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
    data_beyond_memory(2, PAYLOAD_BYTES_MIN).await;
}

fn followed() -> impl Iterator<Item = UserId> {
    (1..=FOLLOWED).map(UserId)
}

/// Whether there was no memory for a call; nothing else may be in its way.
fn refused<T>(answer: Result<T, Error>) -> bool {
    let Err(error) = answer else { return false };
    let full = matches!(error.status(), Some(Status::MemoryFull { .. }));
    assert!(full || matches!(error, Error::DeadlineExceeded { .. }), "{error}");
    full
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn follows_beyond_the_budget_are_refused_and_the_rest_goes_on() {
    let run = Run::start(LARGE_BUDGET_BYTES).await;
    run.space.append(UserId(1), "hello").await.unwrap();
    let empty_bytes = figure(run.node.process_id().unwrap(), "VmRSS:");
    run.node.end().await.unwrap();
    let run = Run::start(empty_bytes + GRAPH_BYTES).await;
    let first = run.space.append(UserId(1), "first").await.unwrap().id;
    let readers = run.follow_beyond_the_budget().await;
    assert_eq!(run.state().await, MemoryState::Refusing);
    run.check_beyond(&format!("{readers} readers follow"), LATE_BYTES_MAX);
    let page = run.space.feed(reader(0)).limit(PAGE).await.unwrap();
    assert_eq!(page.entries.len(), PAGE as usize);
    run.space.delete(UserId(1), first).await.unwrap();
    let timeline = run.space.timeline(UserId(1)).limit(1_000).await.unwrap();
    assert!(timeline.entries.iter().all(|entry| entry.id != first));
    run.check_beyond("read", LATE_BYTES_MAX);
    let follows = run.client.follows();
    for readers in (0..readers).map(reader).collect::<Vec<_>>().chunks(READERS_AT_ONCE as usize) {
        let unfollow = |reader| follows.unfollow_many(reader, followed().collect::<Vec<_>>()).into_future();
        let unfollowed = futures_util::future::join_all(readers.iter().copied().map(unfollow)).await;
        unfollowed.into_iter().for_each(|answer| _ = answer.unwrap());
    }
    run.no_longer(MemoryState::Refusing).await;
    run.space.append(UserId(1), "again").await.unwrap();
    follows.follow(reader(0), UserId(1)).await.unwrap();
    run.check_beyond("unfollowed", LATE_BYTES_MAX);
    run.node.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "writes gigabytes"]
async fn twenty_times_the_budget_is_kept_and_read_within_the_budget() {
    data_beyond_memory(20, PAYLOAD_BYTES_MIN).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "writes most of a million entries"]
async fn small_entries_are_kept_and_read_within_the_budget() {
    data_beyond_memory(4, SMALL_BYTES_MIN).await;
}
