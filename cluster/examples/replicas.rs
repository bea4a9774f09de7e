//! What replication costs with three nodes in one process and one disk: the speed of proposals, and idle groups.
//!
//! `cargo run --release -p fanfold-cluster --example replicas -- DIR write [GROUPS] [BATCH_BYTES] [IN_FLIGHT]`
//! `cargo run --release -p fanfold-cluster --example replicas -- DIR idle [GROUPS]`

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement on the command line")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fanfold_cluster::raft::{
    Batch, Bucket, Fills, Formation, Garbage, Group, GroupDirectory, GroupSpec, InProcessTransport, LastWork,
    Machine, PeerEndpoint, RaftSettings, ReplicaAddress, ReplicaId, RestoreWork,
};
use fanfold_storage::fs::RealFs;
use fanfold_storage::log::{GroupId, Log, LogOptions};
use fanfold_storage::snapshot::Manifest;

/// Counts bytes.
struct Counter(u64);

impl Machine for Counter {
    type Outcome = u64;
    type Work<'b> = u64;

    fn begin(&mut self, _index: u64, batch: &[u8]) -> u64 {
        self.0 += batch.len() as u64;
        self.0
    }

    fn go_on(&mut self, _work: &mut u64) -> bool {
        false
    }

    fn finish(work: u64) -> u64 {
        work
    }

    fn begin_cut(&mut self) {}

    fn next_bucket(&mut self, _must_write: &dyn Fn(u8, u64) -> bool) -> Option<Bucket> {
        None
    }

    fn last_bucket(&mut self) -> Option<LastWork> {
        None
    }

    fn end_cut(&mut self, _taken: bool) -> Garbage {
        Box::new(())
    }

    fn restoring(&self, _manifest: Arc<Manifest>) -> RestoreWork<Self> {
        Box::new(|_| Ok(Box::new(|_: &mut Self| Box::new(()) as Garbage)))
    }
}

type Replica = (Group<Counter>, Arc<dyn PeerEndpoint>);

async fn open_groups(dir: &Path, groups: u32) -> Vec<Vec<Replica>> {
    let transport = InProcessTransport::default();
    let members: BTreeMap<_, _> = (1..=3).map(|id| (ReplicaId(id), ReplicaAddress::default())).collect();
    let mut all: Vec<Vec<Replica>> = (0..groups).map(|_| Vec::new()).collect();
    for node in 1..=3u64 {
        let path = dir.join(format!("node-{node}"));
        let options = LogOptions { salt: 1, ..LogOptions::default() };
        let (log, _) = Log::open(Arc::new(RealFs), &path.join("log"), options).unwrap();
        for (group, replicas) in (1..=groups).zip(&mut all) {
            let formation = Formation::New;
            let spec = GroupSpec {
                group: GroupId(group),
                replica: ReplicaId(node),
                members: members.clone(),
                formation,
            };
            let dir = path.join(format!("groups/{group:04}"));
            let directory =
                GroupDirectory { fs: Arc::new(RealFs), dir, pace: Arc::new(|_| {}), fills: Fills::default() };
            let wire = Arc::new(transport.clone());
            let settings = RaftSettings::default();
            let loading = directory.load(spec.group, Counter(0));
            let opened = Group::open(log.clone(), spec, loading, &settings, wire).await;
            let opened = opened.unwrap();
            let endpoint = opened.endpoint();
            transport.register(GroupId(group), ReplicaId(node), &endpoint);
            replicas.push((opened, endpoint));
        }
    }
    all
}

async fn leader_of(replicas: &[Replica]) -> Group<Counter> {
    loop {
        for (group, _) in replicas {
            if group.is_leader() && group.propose(Batch(Bytes::from_static(b"first"))).await.is_ok() {
                return group.clone();
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Processor time of this process.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, usual: u64| arguments.get(at).map_or(usual, |text| text.parse().unwrap());
    let dir = Path::new(&arguments[0]);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        if arguments[1] == "idle" {
            let all = open_groups(dir, number(2, 64) as u32).await;
            for replicas in &all {
                leader_of(replicas).await;
            }
            tokio::time::sleep(Duration::from_secs(3)).await;
            let (began, used) = (Instant::now(), processor_time());
            tokio::time::sleep(Duration::from_secs(10)).await;
            let share = processor_time().saturating_sub(used).as_secs_f64() / began.elapsed().as_secs_f64();
            println!("{} idle groups of three: {:.1} % of a core", all.len(), 100.0 * share);
            return;
        }
        let (groups, bytes, in_flight) = (number(2, 1), number(3, 16 << 10), number(4, 4));
        let all = open_groups(dir, groups as u32).await;
        let mut writers = Vec::new();
        let began = Instant::now();
        let until = began + Duration::from_secs(8);
        for replicas in &all {
            let leader = leader_of(replicas).await;
            for _ in 0..in_flight {
                let leader = leader.clone();
                let batch = Batch(Bytes::from(vec![7; bytes as usize]));
                writers.push(tokio::spawn(async move {
                    let mut took = Vec::new();
                    while Instant::now() < until {
                        let sent = Instant::now();
                        leader.propose(batch.clone()).await.unwrap();
                        took.push(sent.elapsed());
                    }
                    took
                }));
            }
        }
        let mut took = Vec::new();
        for writer in writers {
            took.extend(writer.await.unwrap());
        }
        took.sort_unstable();
        let seconds = began.elapsed().as_secs_f64();
        println!(
            "{groups} groups, batches of {bytes} bytes, {in_flight} in flight each: {:.0} batches/s, {:.1} MB/s, p50 {:.1?}, p99 {:.1?}",
            took.len() as f64 / seconds,
            (took.len() as u64 * bytes) as f64 / 1e6 / seconds,
            took[took.len() / 2],
            took[took.len() * 99 / 100],
        );
    });
}
