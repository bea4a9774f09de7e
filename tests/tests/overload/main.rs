//! More than a cluster of three processes can do: requests without an end, clients that read nothing, connections above the
//! cap (rows 8 to 10), and what is done meanwhile.
//!
//! The measurement is `cargo test --release -p fanfold-tests --test overload -- --ignored --nocapture`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and tells what it measured"
)]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use fanfold_client::Client;
use fanfold_protocol::message::{Consistency, ReadTimeline, Request, Response};
use fanfold_protocol::{PartitionId, RequestId, SpaceId, Status, UserId};
use fanfold_server::workload::fleet::{Fleet, Spot};
use fanfold_server::workload::node_process::NodeProcessOptions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use flood::{Flood, encoded};

mod flood;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(120);

const PARTITIONS: u16 = 4;
const PIPELINED: u64 = 100_000;

/// So many pages are asked for among the writes, one after so many writes: more than the buffers of sockets hold, which may
/// hold all the writes' answers.
const PAGES: u64 = 40;
const WRITES_PER_PAGE: u64 = 1_000;

/// Main memory that a node may take more than before, whatever is sent to it.
const MORE_BYTES_MAX: u64 = 200 << 20;

/// Nodes that do not mind how slow the clients are: they share the machine with them.
const PATIENT: [&str; 4] = ["--frame-timeout-ms", "120000", "--write-timeout-ms", "120000"];

/// A cluster whose nodes have HTTP ports.
struct World {
    fleet: Fleet,
    client: Client,
    http: Vec<SocketAddr>,
}

impl World {
    async fn start(arguments: &[&str]) -> Self {
        let all = [&["--partitions", "4", "--log-segment-bytes", "8388608"], arguments].concat();
        let options = NodeProcessOptions {
            program: env!("CARGO_BIN_EXE_fanfold-tests-node").into(),
            arguments: Vec::new(),
            start_arguments: all.iter().map(Into::into).collect(),
            ready_timeout: PATIENCE,
        };
        let mut spots = Spot::free(&options, 6).unwrap();
        let http: Vec<_> = spots.split_off(3).iter().map(|spot| spot.client).collect();
        for (spot, http) in spots.iter_mut().zip(&http) {
            spot.options.start_arguments.extend(["--http".into(), http.to_string().into()]);
        }
        let fleet = Fleet::form(spots, 3).await.unwrap();
        let client = fleet.client(PATIENCE).await.unwrap();
        let world = Self { fleet, client, http };
        soon(world.settled()).await;
        world
    }

    /// Waits until everything is led where it belongs: no leadership moves for that any more.
    async fn settled(&self) {
        loop {
            let view = self.client.cluster().await.unwrap();
            if view.groups.iter().all(|group| group.leader.is_some() && group.leader == group.preferred) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A user of the first partition, and where that is led: the address for clients, and the one for HTTP.
    async fn led(&self) -> (UserId, SocketAddr, SocketAddr) {
        let map = self.client.map().await.unwrap();
        let leader = map.nodes.iter().find(|node| node.node == map.leaders[0]).unwrap();
        let address: SocketAddr = leader.address.parse().unwrap();
        let at = self.fleet.nodes().iter().position(|node| node.address() == address).unwrap();
        (at_home(1), address, self.http[at])
    }
}

/// The first user of the first partition from a number on.
fn at_home(from: u64) -> UserId {
    let is_at_home = |user: &UserId| PartitionId::of_user(*user, PARTITIONS) == PartitionId(0);
    (from..u64::MAX).map(UserId).find(is_at_home).unwrap()
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it comes in time")
}

/// The value of a metric of a node; 0 if it is not there.
async fn metric(http: SocketAddr, name: &str) -> u64 {
    let mut stream = TcpStream::connect(http).await.unwrap();
    let request = b"GET /metrics HTTP/1.1\r\nHost: fanfold\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut text = String::new();
    soon(stream.read_to_string(&mut text)).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0, |value| value.trim().parse::<f64>().unwrap() as u64)
}

/// What came of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Came {
    Done,
    /// It is to wait and come again.
    Busy,
    /// On a machine that is as busy as this one a leader may change, and nobody knows then.
    Unknown,
}

fn came(reply: Result<Response, Status>) -> Came {
    match reply {
        Ok(Response::Written(_)) => Came::Done,
        Err(Status::Busy { delay_ms }) if delay_ms > 0 => Came::Busy,
        Err(Status::NotLeader { .. } | Status::Unavailable { .. } | Status::DeadlineExceeded) => {
            Came::Unknown
        }
        other => panic!("{other:?}"),
    }
}

/// A page of more than a megabyte, of the 40 newest entries.
fn page(owner: UserId, consistency: Consistency) -> Request {
    Request::ReadTimeline(ReadTimeline {
        space: SpaceId(1),
        owner,
        viewer: None,
        limit: 40,
        cursor: None,
        at_least: None,
        consistency,
        hydrate: true,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_pipelined_writes_are_answered_once_each_and_fill_no_memory() {
    let world = World::start(&PATIENT).await;
    let (user, address, http) = world.led().await;
    let mut flood = Flood::connect(address, 4_096).await.unwrap();
    let mut lane = flood.lane(user).await.expect("it leads");
    let posts = world.client.space("posts");
    let poster = at_home(user.0 + 1);
    for _ in 0..40 {
        posts.append(poster, vec![b'x'; 30_000]).await.unwrap();
    }
    let before_bytes = world.fleet.memory_bytes().unwrap();
    let payload = Bytes::from(vec![b'x'; 300]);
    let mut requests = BytesMut::new();
    for write in 0..PIPELINED {
        requests.extend_from_slice(&lane.append(&payload));
        if write % WRITES_PER_PAGE == 0 && write / WRITES_PER_PAGE < PAGES {
            requests.extend_from_slice(&encoded(
                RequestId(PIPELINED + 1 + write / WRITES_PER_PAGE),
                page(poster, Consistency::Leader),
            ));
        }
    }

    // As much as the node takes while nothing is read: what it answers lies in the sockets, or is not asked yet.
    let mut sent = 0;
    while sent < requests.len() {
        let write = flood.outgoing.write(&requests[sent..]);
        match tokio::time::timeout(Duration::from_secs(1), write).await {
            Ok(written) => sent += written.unwrap(),
            Err(_) => break,
        }
    }
    // The sockets hold a few pages, and then it waits for the client.
    let done = || metric(http, r#"fanfold_requests_total{kind="append",status="ok"}"#);
    let (mut now, mut before) = (done().await, None);
    while before != Some(now) {
        tokio::time::sleep(Duration::from_secs(1)).await;
        (before, now) = (Some(now), done().await);
    }
    assert!(now < PIPELINED / 4, "{now} writes were answered though nobody reads");
    assert!(metric(http, "fanfold_requests_in_flight").await <= 1_024);
    // Others go on meanwhile.
    posts.append(user, "beside it").await.unwrap();

    let Flood { mut incoming, mut outgoing } = flood;
    let rest = requests.split_off(sent);
    let writing = tokio::spawn(async move {
        outgoing.write_all(&rest).await.unwrap();
        outgoing
    });
    let (mut ids, mut done, mut unknown) = (BTreeSet::new(), 0, 0);
    while ids.len() < (PIPELINED + PAGES) as usize {
        let frame = soon(incoming.next()).await.expect("the connection goes on");
        assert!(ids.insert(frame.request_id.0), "{} was answered twice", frame.request_id);
        if frame.request_id.0 > PIPELINED {
            continue;
        }
        let came = came(frame.decode_reply().unwrap());
        done += u64::from(came == Came::Done);
        unknown += u64::from(came == Came::Unknown);
    }
    assert_eq!((ids.first(), ids.last()), (Some(&1), Some(&(PIPELINED + PAGES))));
    let more_bytes = world.fleet.memory_bytes().unwrap().saturating_sub(before_bytes);
    assert!(more_bytes <= 3 * MORE_BYTES_MAX, "{more_bytes} bytes more");
    drop(soon(writing).await.unwrap());
    // What was answered is there.
    let pages = posts.timeline(user).limit(1_000).pages();
    let pages: Vec<_> = futures_util::TryStreamExt::try_collect(pages).await.unwrap();
    let shown: usize = pages.iter().map(|page: &fanfold_client::Page| page.entries.len()).sum();
    let shown = shown as u64;
    assert!(shown > done && shown <= done + 1 + unknown, "each once: {shown} of {done} and {unknown}");
    assert!(done > PIPELINED / 2, "{done} done, {unknown} unknown");
    world.fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_without_manners_are_told_to_wait_and_no_queue_grows() {
    let world = World::start(&PATIENT).await;
    let before_bytes = world.fleet.memory_bytes().unwrap();
    let rude = Arc::new(Counts::default());
    let (mut floods, (user, mut address, mut http)) = flood(&world, MANY, &rude).await;
    // The queue of the partition is full, and what is beyond is refused at once.
    let begun = Instant::now();
    while rude.busy.load(Ordering::Relaxed) < 10_000 {
        assert!(metric(http, "fanfold_queued_commands{partition=\"0\"}").await <= 16 << 10);
        assert!(begun.elapsed() < PATIENCE, "nobody is told to wait");
        tokio::time::sleep(Duration::from_millis(100)).await;
        if world.led().await.1 != address {
            floods.shutdown().await;
            (floods, (_, address, http)) = flood(&world, MANY, &rude).await;
        }
    }
    // A client with manners comes through: it waits as long as it is told and comes again.
    let posts = world.client.space("posts");
    for _ in 0..20 {
        posts.append(user, "in between").deadline(Duration::from_secs(60)).await.unwrap();
    }
    let elsewhere =
        (1..u64::MAX).map(UserId).find(|u| PartitionId::of_user(*u, PARTITIONS) == PartitionId(1)).unwrap();
    posts.append(elsewhere, "elsewhere").deadline(Duration::from_secs(60)).await.unwrap();
    let more_bytes = world.fleet.memory_bytes().unwrap().saturating_sub(before_bytes);
    let done = rude.done.load(Ordering::Relaxed);
    println!(
        "{done} done, {} told to wait, {} MiB more",
        rude.busy.load(Ordering::Relaxed),
        more_bytes >> 20
    );
    assert!(more_bytes <= 3 * MORE_BYTES_MAX + 500 * done, "{more_bytes} bytes more for {done} entries");
    floods.shutdown().await;
    let begun = Instant::now();
    posts.append(user, "afterwards").await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(30), "what nobody waits for is not worked off first");
    world.fleet.end().await.unwrap();
}

/// What clients without manners were told.
#[derive(Default)]
struct Counts {
    done: AtomicU64,
    busy: AtomicU64,
}

/// So many connections have more requests under way than the queue of one partition takes.
const MANY: usize = 20;

/// So many connections, each sending as fast as it may; and to where.
async fn flood(
    world: &World,
    connections: usize,
    counts: &Arc<Counts>,
) -> (JoinSet<()>, (UserId, SocketAddr, SocketAddr)) {
    let mut tasks = JoinSet::new();
    let (open, led) = loop {
        let (led, mut open) = (world.led().await, Vec::new());
        while open.len() < connections {
            let mut flood = Flood::connect(led.1, 1 << 20).await.unwrap();
            let Some(lane) = flood.lane(led.0).await else { break };
            open.push((flood, lane));
        }
        if open.len() == connections {
            break (open, led);
        }
        // Somebody else leads by now; the map will say so.
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    for (flood, mut lane) in open {
        let Flood { mut incoming, mut outgoing } = flood;
        let counts = counts.clone();
        tasks.spawn(async move {
            let payload = Bytes::from(vec![b'x'; 100]);
            let sending = async {
                let mut some = BytesMut::new();
                loop {
                    some.clear();
                    (0..64).for_each(|_| some.extend_from_slice(&lane.append(&payload)));
                    if outgoing.write_all(&some).await.is_err() {
                        return;
                    }
                }
            };
            let counting = async {
                while let Some(frame) = incoming.next().await {
                    let count = match came(frame.decode_reply().unwrap()) {
                        Came::Done => &counts.done,
                        Came::Busy => &counts.busy,
                        Came::Unknown => continue,
                    };
                    count.fetch_add(1, Ordering::Relaxed);
                }
            };
            tokio::join!(sending, counting);
        });
    }
    (tasks, led)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_stops_reading_is_cut_off_and_the_cluster_goes_on() {
    let world = World::start(&["--write-timeout-ms", "1000"]).await;
    let (user, address, http) = world.led().await;
    let posts = world.client.space("posts");
    for _ in 0..40 {
        posts.append(user, vec![b'x'; 30_000]).await.unwrap();
    }
    let before_bytes = world.fleet.memory_bytes().unwrap();
    // Whoever leads by then, and whatever is written meanwhile, the pages are as large: small answers take long to fill sockets.
    let read = page(user, Consistency::StaleOk { max_ms: u32::MAX });
    let other = at_home(user.0 + 1);
    let mut cut = JoinSet::new();
    for _ in 0..8 {
        let mut flood = Flood::connect(address, 4_096).await.unwrap();
        let frame = encoded(RequestId(1), read.clone());
        // It asks for more than a megabyte again and again and takes nothing; the node closes, so that writing fails.
        cut.spawn(async move { while flood.outgoing.write_all(&frame).await.is_ok() {} });
    }
    let mut written = 0;
    let all_cut = async { while cut.join_next().await.is_some() {} };
    tokio::pin!(all_cut);
    while tokio::time::timeout(Duration::from_millis(100), &mut all_cut).await.is_err() {
        posts.append(other, "goes on").await.unwrap();
        written += 1;
        assert!(written < 1_000, "they are never cut off");
    }
    assert_eq!(metric(http, r#"fanfold_connections_refused_total{status="too_slow"}"#).await, 8);
    let more_bytes = world.fleet.memory_bytes().unwrap().saturating_sub(before_bytes);
    assert!(more_bytes <= MORE_BYTES_MAX, "{more_bytes} bytes more");
    world.fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_above_the_cap_are_refused_and_peers_and_operators_are_served() {
    let world = World::start(&["--connections-max", "8"]).await;
    let (user, address, http) = world.led().await;
    let posts = world.client.space("posts");
    posts.append(user, "before").await.unwrap();
    let (mut kept, mut refused) = (Vec::new(), 0);
    while refused < 20 {
        match soon(Flood::connect(address, 4_096)).await {
            Ok(flood) => kept.push(flood),
            Err(status) => {
                assert_eq!(status, Status::TooManyConnections);
                refused += 1;
            }
        }
        assert!(kept.len() <= 8, "more than the cap");
    }
    // Who was there is served, and the nodes go on hearing of each other: their connections have a cap of their own.
    for _ in 0..20 {
        posts.append(user, "meanwhile").await.unwrap();
    }
    world.fleet.whole(3, PATIENCE).await.unwrap();
    let name = r#"fanfold_connections_refused_total{status="too_many_connections"}"#;
    assert!(metric(http, name).await >= 20);
    drop(kept);
    soon(async { while Flood::connect(address, 4_096).await.is_err() {} }).await;
    world.fleet.end().await.unwrap();
}

/// How much is done while far more is asked for than can be, by callers who wait as they are told. Prints it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn goodput_stays_under_overload() {
    const FOR: Duration = Duration::from_secs(8);
    let world = World::start(&PATIENT).await;
    let (user, _, http) = world.led().await;
    let busy = r#"fanfold_requests_total{kind="append",status="busy"}"#;
    // With so many clients, each with so many callers: how many writes a second are done.
    let rate = async |clients: usize, callers: usize| {
        let (done, mut tasks) = (Arc::new(AtomicU64::new(0)), JoinSet::new());
        for _ in 0..clients {
            let client = world.fleet.client(PATIENCE).await.unwrap();
            for _ in 0..callers {
                let (posts, done) = (client.space("posts"), done.clone());
                tasks.spawn(async move {
                    loop {
                        posts.append(user, vec![b'x'; 100]).await.unwrap();
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        }
        tokio::time::sleep(FOR / 2).await;
        let (begun, before) = (Instant::now(), (done.load(Ordering::Relaxed), metric(http, busy).await));
        tokio::time::sleep(FOR).await;
        let after = (done.load(Ordering::Relaxed), metric(http, busy).await);
        let elapsed = begun.elapsed().as_secs_f64();
        tasks.shutdown().await;
        let [done, busy] = [after.0 - before.0, after.1 - before.1].map(|count| count as f64 / elapsed);
        println!("{clients} clients with {callers} callers: {done:.0} writes/s done, {busy:.0} told to wait");
        (done, busy)
    };
    let peak = rate(1, 512).await.0.max(rate(2, 1_024).await.0);
    let (done, _) = rate(32, 1_100).await;
    println!("done: {:.0} % of the peak", 100.0 * done / peak);
    println!("{:.1} callers wait for each that the peak had", 32.0 * 1_100.0 / 2_048.0);
    assert!(done >= 0.7 * peak);
    world.fleet.end().await.unwrap();
}
