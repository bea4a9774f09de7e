//! A node in a process of its own is killed three times under load, and keeps every promise.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use fanfold_client::{Client, EntryId, NewEntry, Page, Space, UserId};
use fanfold_server::workload::node_process::{NodeProcess, NodeProcessOptions};
use fanfold_storage::entry::{Audience, Entry};
use fanfold_storage::ids as stored;
use fanfold_storage::oracle::Oracle;
use fanfold_storage::space::{SpaceDefinition, SpacePolicy};
use futures_util::TryStreamExt;
use tokio::sync::watch;
use tokio::task::JoinSet;

const USERS: u64 = 40;
const WRITERS: u64 = 4;
const READERS: u64 = 3;
/// Writes of each writer: enough that all kills fall between them.
const WRITES: u64 = 300;
const KILLS: u64 = 3;

/// Segments and snapshots are written all the time.
const START_ARGUMENTS: [&str; 8] = [
    "--partitions",
    "4",
    "--log-segment-bytes",
    "8388608",
    "--table-bytes",
    "65536",
    "--snapshot-log-bytes",
    "65536",
];

/// What was acknowledged. Each timeline and each reader's edges are written by one task, so that the order of
/// acknowledgements is the order of effects.
struct Truth {
    oracle: Oracle,
    payloads: BTreeMap<EntryId, Bytes>,
    /// Deleted, and waited for: shown to nobody from then on.
    gone: BTreeSet<EntryId>,
}

#[derive(Clone)]
struct Shared {
    client: Client,
    posts: Space,
    space: stored::SpaceId,
    graph: stored::GraphId,
    truth: Arc<Mutex<Truth>>,
    acknowledged: watch::Sender<u64>,
}

/// A repeatable sequence of numbers (xorshift64*), one for each task.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }
}

fn stored_user(user: UserId) -> stored::UserId {
    stored::UserId(user.0)
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(120), what).await.expect("it comes in time")
}

/// Large indexes of segments are mapped: a page of one that the disk does not give ends the process (SIGBUS), as does a file that
/// somebody cuts, and nothing wrong is answered. The last words name the file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mapped_index_that_is_cut_ends_the_process_which_names_it_and_a_restart_has_everything() {
    const ENTRIES: usize = 30_000;
    let arguments = [
        "--partitions",
        "1",
        "--table-bytes",
        "2097152",
        "--cache-bytes",
        "0",
        // The log has everything.
        "--snapshot-log-bytes",
        "1073741824",
    ];
    let mut node = NodeProcess::start(NodeProcessOptions {
        program: env!("CARGO_BIN_EXE_fanfold-tests-node").into(),
        arguments: Vec::new(),
        start_arguments: arguments.map(Into::into).to_vec(),
        ready_timeout: Duration::from_secs(60),
    })
    .await
    .unwrap();
    let client = Client::builder(node.address().to_string()).deadline(Duration::from_secs(60));
    let client = client.connect().await.unwrap();
    let posts = client.space("posts");
    let mut made = BTreeSet::new();
    while made.len() < ENTRIES {
        let entries: Vec<_> = (0..1_000).map(|_| NewEntry::new(UserId(1), "an entry".to_owned())).collect();
        made.extend(posts.append_many(entries).await.unwrap().into_iter().map(|made| made.unwrap().id));
    }
    let group = node.data_dir().join("groups/0001");
    // More than half of such a segment are indexes, far more than are kept in memory.
    let oldest = || {
        let files = std::fs::read_dir(&group).unwrap().map(|file| file.unwrap().path());
        let segments = files.filter(|path| path.extension().is_some_and(|e| e == "segment"));
        segments.min().filter(|path| std::fs::metadata(path).is_ok_and(|meta| meta.len() > 300 << 10))
    };
    // What is not taken over yet would be found cut by who opens it.
    let taken_over = async || {
        let statuses = client.status().await.unwrap();
        statuses.iter().flat_map(|status| &status.partitions).any(|partition| partition.segments > 0)
    };
    let segment = soon(async {
        loop {
            match oldest() {
                Some(segment) if taken_over().await => return segment,
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    });
    let segment = segment.await;
    std::fs::OpenOptions::new().write(true).open(&segment).unwrap().set_len(100).unwrap();
    let reads = async {
        loop {
            let read = posts.timeline(UserId(1)).limit(200).deadline(Duration::from_secs(1)).pages();
            let _refused_or_whole = read.try_collect::<Vec<_>>().await;
        }
    };
    let ended = soon(async {
        tokio::select! {
            ended = node.watch() => ended.to_string(),
            () = reads => unreachable!("reads go on"),
        }
    });
    let ended = ended.await;
    assert!(ended.contains("signal: 7"), "{ended}");
    let log = std::fs::read_to_string(node.log_file()).unwrap();
    let begin = format!("a page of the mapped file {}, offset ", segment.display());
    let is_told = |line: &str| line.contains(&begin) && line.contains("fanfold verify --data-dir");
    assert!(log.lines().any(is_told), "{log}");
    node.restart().await.unwrap();
    let pages: Vec<_> = posts.timeline(UserId(1)).limit(200).pages().try_collect().await.unwrap();
    let shown: BTreeSet<_> = pages.into_iter().flat_map(|page| page.entries).map(|entry| entry.id).collect();
    assert!(shown == made, "{} of {}", shown.len(), made.len());
    node.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_kills_under_load_lose_and_repeat_nothing() {
    let mut node = NodeProcess::start(NodeProcessOptions {
        program: env!("CARGO_BIN_EXE_fanfold-tests-node").into(),
        arguments: Vec::new(),
        start_arguments: START_ARGUMENTS.map(Into::into).to_vec(),
        ready_timeout: Duration::from_secs(60),
    })
    .await
    .unwrap();
    // Calls live through kills: their deadline is longer than all restarts together.
    let address = node.address().to_string();
    let client = Client::builder(address).deadline(Duration::from_secs(120)).connect().await.unwrap();
    let shared = shared(client).await;

    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn(write(shared.clone(), writer));
    }
    let stop = Arc::new(AtomicBool::new(false));
    let mut readers = JoinSet::new();
    for reader in 0..READERS {
        readers.spawn(read(shared.clone(), reader, stop.clone()));
    }
    // Each kill comes at its share of the acknowledgements, while all tasks are at work.
    for kill in 1..=KILLS {
        let due = kill * WRITERS * WRITES / (KILLS + 1);
        let mut acknowledged = shared.acknowledged.subscribe();
        tokio::select! {
            reached = acknowledged.wait_for(|count| *count >= due) => { reached.unwrap(); }
            Some(ended) = readers.join_next() => { ended.unwrap(); panic!("a reader ended early"); }
        }
        assert!(*acknowledged.borrow() < WRITERS * WRITES, "the load was over before the kill");
        node.kill_and_restart().await.unwrap();
    }
    writers.join_all().await;
    stop.store(true, Ordering::Relaxed);
    let pages: u64 = readers.join_all().await.into_iter().sum();
    assert!(pages > 0);

    compare(&shared).await;
    node.kill_and_restart().await.unwrap();
    compare(&shared).await;
    node.end().await.unwrap();
}

async fn shared(client: Client) -> Shared {
    let info = client.spaces().show("posts").await.unwrap();
    let (space, graph) = (stored::SpaceId(info.id.0), stored::GraphId(info.graph.0));
    let mut oracle = Oracle::new();
    oracle.define_space(SpaceDefinition {
        id: space,
        name: info.name,
        graph,
        graph_name: info.graph_name,
        version: info.version,
        policy: SpacePolicy::default(),
    });
    let truth = Truth { oracle, payloads: BTreeMap::new(), gone: BTreeSet::new() };
    let posts = client.space("posts");
    Shared {
        client,
        posts,
        space,
        graph,
        truth: Arc::new(Mutex::new(truth)),
        acknowledged: watch::Sender::new(0),
    }
}

/// Posts, deletes, follows and unfollows for a quarter of the users.
async fn write(shared: Shared, writer: u64) {
    let mut draw = Draw(writer + 1);
    let mut live: Vec<(UserId, EntryId)> = Vec::new();
    let mut deletes = 0u32;
    for n in 0..WRITES {
        let user = UserId(1 + writer + WRITERS * draw.below(USERS / WRITERS));
        let other = UserId(1 + draw.below(USERS));
        match draw.below(10) {
            0..5 => live.push((user, shared.post(user, format!("{writer}:{n}")).await)),
            5 if !live.is_empty() => {
                let (owner, id) = live.swap_remove(draw.below(live.len() as u64) as usize);
                deletes += 1;
                shared.delete(owner, id, deletes.is_multiple_of(2)).await;
            }
            6 => shared.unfollow(user, other).await,
            _ => shared.follow(user, other).await,
        }
        shared.acknowledged.send_modify(|count| *count += 1);
    }
}

impl Shared {
    async fn post(&self, owner: UserId, payload: String) -> EntryId {
        let payload = Bytes::from(payload);
        let appended = self.posts.append(owner, payload.clone()).await.unwrap();
        assert!(!appended.duplicate);
        let mut truth = self.truth.lock().unwrap();
        assert!(truth.payloads.insert(appended.id, payload.clone()).is_none(), "an id was given twice");
        truth.oracle.append(Entry {
            id: stored::EntryId(appended.id.0),
            space: self.space,
            owner: stored_user(owner),
            author: stored_user(owner),
            audience: Audience::Public,
            version: 1,
            expiry: None,
            reference: None,
            payload,
        });
        appended.id
    }

    async fn delete(&self, owner: UserId, id: EntryId, waits: bool) {
        let deleted = self.posts.delete(owner, id).await.unwrap();
        assert!(deleted.existed, "an acknowledged entry was lost, or deleted twice");
        if waits {
            self.client.wait_delivered(&deleted.token).await.unwrap();
        }
        let mut truth = self.truth.lock().unwrap();
        truth.oracle.delete(stored::EntryId(id.0));
        if waits {
            truth.gone.insert(id);
        }
    }

    async fn follow(&self, reader: UserId, owner: UserId) {
        let (one, other) = (stored_user(reader), stored_user(owner));
        let changed = self.client.follows().follow(reader, owner).await.unwrap().changed;
        let mut truth = self.truth.lock().unwrap();
        let is_new = reader != owner && !truth.oracle.follows(self.graph, one, other);
        assert_eq!(changed, u32::from(is_new));
        truth.oracle.follow(self.graph, one, other);
    }

    async fn unfollow(&self, reader: UserId, owner: UserId) {
        let (one, other) = (stored_user(reader), stored_user(owner));
        let changed = self.client.follows().unfollow(reader, owner).await.unwrap().changed;
        let mut truth = self.truth.lock().unwrap();
        assert_eq!(changed, u32::from(truth.oracle.follows(self.graph, one, other)));
        truth.oracle.unfollow(self.graph, one, other);
    }
}

/// Reads feeds until told to stop, and answers how many pages it read. Nothing repeats on a page, and nothing shows
/// that was gone before the page was asked for.
async fn read(shared: Shared, reader: u64, stop: Arc<AtomicBool>) -> u64 {
    let mut draw = Draw(100 + reader);
    let mut pages = 0;
    while !stop.load(Ordering::Relaxed) {
        let gone = shared.truth.lock().unwrap().gone.clone();
        let page = shared.posts.feed(UserId(1 + draw.below(USERS))).limit(200).await.unwrap();
        assert!(page.entries.is_sorted_by(|newer, older| newer.id > older.id));
        assert!(page.entries.iter().all(|entry| !gone.contains(&entry.id)), "a deleted entry returned");
        pages += 1;
    }
    pages
}

/// Every timeline, feed and count equals the oracle's.
async fn compare(shared: &Shared) {
    shared.client.wait_drained().await.unwrap();
    for user in (1..=USERS).map(UserId) {
        let feed = shown(shared.posts.feed(user).limit(50).hydrate().pages().try_collect().await.unwrap());
        let timeline =
            shown(shared.posts.timeline(user).limit(50).hydrate().pages().try_collect().await.unwrap());
        let counts = shared.client.follows().counts(user).await.unwrap();
        let truth = shared.truth.lock().unwrap();
        let expected = |ids: Vec<stored::EntryId>| -> Vec<(EntryId, Bytes)> {
            ids.into_iter().map(|id| (EntryId(id.0), truth.payloads[&EntryId(id.0)].clone())).collect()
        };
        assert_eq!(feed, expected(truth.oracle.feed(shared.space, stored_user(user))), "feed of {user}");
        let own = truth.oracle.timeline(shared.space, stored_user(user), None);
        assert_eq!(timeline, expected(own), "timeline of {user}");
        let everybody = (1..=USERS).map(stored::UserId);
        let followers = everybody.filter(|one| truth.oracle.follows(shared.graph, *one, stored_user(user)));
        assert_eq!(counts.followers, followers.count() as u64);
        assert_eq!(counts.followees, truth.oracle.followees(shared.graph, stored_user(user)).count() as u64);
    }
}

fn shown(pages: Vec<Page>) -> Vec<(EntryId, Bytes)> {
    assert!(pages.iter().all(|page| page.short_of.is_empty()));
    let entries = pages.into_iter().flat_map(|page| page.entries);
    entries.map(|entry| (entry.id, entry.payload.unwrap())).collect()
}
