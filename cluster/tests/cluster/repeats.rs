//! Messages between nodes that are repeated, overtake each other, or come up again long after (row 26).
//!
//! - The links number the requests anew, so that nothing is noticed before whoever a message is for has to know better.
//! - Only messages of Raft and of streams are tampered with: the others ask, or say how things are now.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use fanfold_storage::command::{AppendResult, Write, WriteResult, WriteTag};
use fanfold_storage::ids::{PartitionId, Sequence};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::support::*;

const HELLO_BYTES: usize = 48;
/// Of a hello: what the connection is for, and the dialling node.
const PURPOSE_AT: usize = 8;
const FROM_AT: usize = 28;
const PURPOSE_DATA: u8 = 1;
/// Of a frame, behind its length and checksum: what it is, and its number.
const KIND_AT: usize = 8;
const CODE_AT: usize = 9;
const NUMBER_AT: usize = 16;
const KIND_RAFT: u8 = 1;
const KIND_CALL: u8 = 2;
const CALL_STREAM: u8 = 4;

/// What is repeated: larger messages would use up what a connection may have under way.
const TAMPERED_BYTES_MAX: usize = 64 << 10;
const KEPT_MAX: usize = 4_000;

/// How often a message was tampered with.
#[derive(Debug, Default)]
struct Counts {
    repeated: AtomicU64,
    overtaken: AtomicU64,
    stale: AtomicU64,
}

/// What was sent to one node, by who sent it.
type Kept = Mutex<BTreeMap<u64, Vec<Vec<u8>>>>;

/// A link to one node. Stops when it is dropped.
struct Link {
    address: SocketAddr,
    _stop: DropGuard,
}

/// The numbers of what is under way: as it was sent on, and as the sender knows it; none: it was not sent by him.
#[derive(Default)]
struct Numbers {
    last: u64,
    known: BTreeMap<u64, Option<u64>>,
}

impl Link {
    async fn to(target: SocketAddr, counts: Arc<Counts>, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let link = Self { address, _stop: stop.clone().drop_guard() };
        tokio::spawn(async move {
            let (kept, mut connections) = (Arc::new(Kept::default()), 0);
            while let Some(Ok((caller, _))) = stop.run_until_cancelled(listener.accept()).await {
                connections += 1;
                let rng = StdRng::seed_from_u64((seed << 32) | connections);
                let (stop, counts, kept) = (stop.clone(), counts.clone(), kept.clone());
                tokio::spawn(async move {
                    stop.run_until_cancelled(connect(caller, target, &kept, &counts, rng)).await
                });
            }
        });
        link
    }
}

async fn connect(
    mut caller: TcpStream,
    target: SocketAddr,
    kept: &Kept,
    counts: &Counts,
    rng: StdRng,
) -> std::io::Result<()> {
    let (mut hello, mut answer) = ([0; HELLO_BYTES], [0; HELLO_BYTES]);
    caller.read_exact(&mut hello).await?;
    let mut called = TcpStream::connect(target).await?;
    caller.set_nodelay(true)?;
    called.set_nodelay(true)?;
    called.write_all(&hello).await?;
    called.read_exact(&mut answer).await?;
    caller.write_all(&answer).await?;
    if hello[PURPOSE_AT] != PURPOSE_DATA {
        tokio::io::copy_bidirectional(&mut caller, &mut called).await?;
        return Ok(());
    }
    let from = u64_at(&hello, FROM_AT);
    let numbers = Mutex::new(Numbers::default());
    let ((asked, answers), (answered, asks)) = (caller.into_split(), called.into_split());
    tokio::select! {
        ended = requests(asked, asks, &numbers, (from, kept), counts, rng) => ended,
        ended = pass_answers(answered, answers, &numbers) => ended,
    }
}

async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    numbers: &Mutex<Numbers>,
    (node, kept): (u64, &Kept),
    counts: &Counts,
    mut rng: StdRng,
) -> std::io::Result<()> {
    // Those that others overtake, each with how many.
    let mut held: Vec<(u32, Vec<u8>)> = Vec::new();
    loop {
        let frame = read_frame(&mut from).await?;
        let is_raft = frame[KIND_AT] == KIND_RAFT;
        let is_stream = frame[KIND_AT] == KIND_CALL && frame[CODE_AT] == CALL_STREAM;
        let number = Some(u64_at(&frame, NUMBER_AT));
        let mut out = Vec::new();
        if (is_raft || is_stream) && frame.len() <= TAMPERED_BYTES_MAX {
            let of_node = {
                let mut kept = kept.lock().unwrap();
                let of_node = kept.entry(node).or_default();
                if of_node.len() == KEPT_MAX {
                    let at = rng.random_range(0..KEPT_MAX);
                    of_node.swap_remove(at);
                }
                of_node.push(frame.clone());
                of_node[rng.random_range(0..of_node.len())].clone()
            };
            if rng.random_ratio(1, 10) {
                counts.stale.fetch_add(1, Ordering::Relaxed);
                out.push((of_node, None));
            }
            if rng.random_ratio(1, 10) {
                counts.repeated.fetch_add(1, Ordering::Relaxed);
                out.push((frame.clone(), None));
            }
            if rng.random_ratio(1, 20) {
                counts.overtaken.fetch_add(1, Ordering::Relaxed);
                // Far enough that others of its stream are among those that overtake it.
                let by = if is_stream { rng.random_range(5..40) } else { rng.random_range(1..5) };
                held.push((by, frame));
            } else {
                out.push((frame, number));
            }
        } else {
            out.push((frame, number));
        }
        held.iter_mut().for_each(|(left, _)| *left -= 1);
        for (_, frame) in held.extract_if(.., |(left, _)| *left == 0) {
            let number = Some(u64_at(&frame, NUMBER_AT));
            out.push((frame, number));
        }
        for (mut frame, known) in out {
            let number = {
                let mut numbers = numbers.lock().unwrap();
                numbers.last += 1;
                let number = numbers.last;
                numbers.known.insert(number, known);
                number
            };
            renumber(&mut frame, number);
            to.write_all(&frame).await?;
        }
    }
}

async fn pass_answers(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    numbers: &Mutex<Numbers>,
) -> std::io::Result<()> {
    loop {
        let mut frame = read_frame(&mut from).await?;
        let known = numbers.lock().unwrap().known.remove(&u64_at(&frame, NUMBER_AT));
        if let Some(Some(number)) = known {
            renumber(&mut frame, number);
            to.write_all(&frame).await?;
        }
    }
}

async fn read_frame(from: &mut OwnedReadHalf) -> std::io::Result<Vec<u8>> {
    let bytes = from.read_u32_le().await?;
    let mut frame = bytes.to_le_bytes().to_vec();
    frame.resize(4 + bytes as usize, 0);
    from.read_exact(&mut frame[4..]).await?;
    Ok(frame)
}

fn renumber(frame: &mut [u8], number: u64) {
    frame[NUMBER_AT..][..8].copy_from_slice(&number.to_le_bytes());
    let crc = crc32fast::hash(&frame[KIND_AT..]);
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..][..8].try_into().unwrap())
}

/// Waits until all replicas of each partition have come to one index, and compares what they came to.
async fn compare(cluster: &Cluster) {
    for partition in (0..PARTITIONS).map(PartitionId) {
        let same = async {
            loop {
                let state = |node: &Arc<fanfold_cluster::Node>| {
                    node.read_partition(partition, |state| (state.applied(), state.checksum())).unwrap()
                };
                let states: Vec<_> = cluster.running().map(state).collect();
                if states.iter().all(|(index, _)| *index == states[0].0) {
                    return assert!(
                        states.iter().all(|state| *state == states[0]),
                        "{partition:?}: {states:?}"
                    );
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        patient(same).await;
    }
}

/// Waits until all readers see the newest posts, as many as a page has.
async fn seen(cluster: &Cluster, followed: &Followed) {
    let newest = &followed.posts[..followed.posts.len().min(100)];
    for reader in &followed.readers {
        cluster.sees(*reader, newest).await;
    }
}

/// Posts in several sessions at once, so that streams have several messages under way.
async fn post_at_once(cluster: &Cluster, followed: &mut Followed, posts: usize) {
    const LANES: usize = 8;
    let (owner, home) = (followed.owner, PartitionId::of_user(followed.owner, PARTITIONS));
    let lane = async |_| {
        let opened = cluster.at_leader(home, async |node| node.open_session(home).await).await;
        let (session, mut made) = (opened.unwrap(), Vec::new());
        for sequence in (1..).map(Sequence).take(posts / LANES) {
            let tag = WriteTag { session, sequence, lowest_unanswered: sequence };
            let write = Write::Append { items: vec![entry(owner, "x")] };
            let written = cluster.at_leader(home, async |node| node.write(home, tag, write.clone()).await);
            let result = written.await.unwrap().result;
            let WriteResult::Appended { items } = result else { panic!("{result:?}") };
            let AppendResult::Made { id, .. } = items[0] else { panic!("{items:?}") };
            made.push(id);
        }
        made
    };
    followed.posts.extend(futures_util::future::join_all((0..LANES).map(lane)).await.concat());
    followed.posts.sort_unstable_by(|a, b| b.cmp(a));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_overtaken_and_stale_messages_have_no_effect() {
    let (mut cluster, counts, mut links) = (Cluster::empty(3), Arc::new(Counts::default()), Vec::new());
    for node in 1..=3 {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let link = Link::to(free, counts.clone(), node).await;
        cluster.reserve(node, free);
        cluster.tell(node, Some(link.address));
        links.push(link);
        cluster.start(node).await;
    }
    cluster.whole().await;
    let mut followed = Followed::new(&cluster).await;
    for round in 0..6 {
        post_at_once(&cluster, &mut followed, 40).await;
        // Other terms, so that what comes up again is of leaders that were.
        match round % 3 {
            0 => {
                let to = 1 + round / 2 % 3;
                for partition in (0..PARTITIONS).map(PartitionId) {
                    // It may lead already, or not be ready: it is only meant to change something.
                    let _ = patient(cluster.node(1).transfer_leader(Some(partition), to, false)).await;
                }
            }
            1 => {
                let node = 1 + round / 2 % 3;
                cluster.kill(node).await;
                followed.post(&cluster, 5).await;
                cluster.start(node).await;
            }
            _ => seen(&cluster, &followed).await,
        }
    }
    seen(&cluster, &followed).await;
    compare(&cluster).await;
    let [repeated, overtaken, stale] =
        [&counts.repeated, &counts.overtaken, &counts.stale].map(|count| count.load(Ordering::Relaxed));
    assert!(repeated > 50 && overtaken > 25 && stale > 50, "{counts:?}");
}
