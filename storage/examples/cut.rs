//! Measures snapshots of a partition in process: what a cut costs step by step, and how fast it is restored.
//!
//! ```text
//! cargo run --release -p fanfold-storage --example cut -- [users] [followees] [rows]
//! ```
//!
//! Defaults: 100000 200 400000. One partition and one thread. The first cut is of a partition without entries; one writes
//! every bucket while posts are applied, a batch of 64 between two steps; the last finds nothing changed. Times
//! of restoring are of the processor, so that they mean something on a machine that others use too; the others are by the clock.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement prints, and stops at what is wrong"
)]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fanfold_storage::command::{Append, Command, Limits, Ttl, Write, WriteTag, encode_batch};
use fanfold_storage::entry::Audience;
use fanfold_storage::fs::{FaultFs, FileSystem};
use fanfold_storage::ids::{GraphId, PartitionId, Sequence, SessionId, SpaceId, Stamp, UserId};
use fanfold_storage::partition::{CutBucket, Partition, TIMELINES_SECTION};
use fanfold_storage::segment::{Segment, SegmentNumber};
use fanfold_storage::space::{SpaceDefinition, SpacePolicy};

const SPACE: SpaceId = SpaceId(1);
const GRAPH: GraphId = GraphId(1);
const BATCH_POSTS: usize = 64;

type Buckets = BTreeMap<(u8, u64), Vec<u8>>;

/// The processor time of this thread.
struct Watch(u64);

impl Watch {
    fn start() -> Self {
        Self(Self::now_ns())
    }

    /// The first number of the thread's `schedstat`.
    fn now_ns() -> u64 {
        let all = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        all.split(' ').next().unwrap().parse().unwrap()
    }

    fn elapsed(&self) -> Duration {
        Duration::from_nanos(Self::now_ns() - self.0)
    }
}

struct Run {
    partition: Partition,
    users: u64,
    random: u64,
    index: u64,
    sequence: u64,
    disk: FaultFs,
    files: u64,
    segments: Vec<Arc<Segment>>,
}

impl Run {
    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % bound
    }

    /// Applies commands as the next Raft entry; answers how long that took.
    fn apply(&mut self, commands: &[Command]) -> Duration {
        self.index += 1;
        let encoded: Vec<Bytes> = commands.iter().map(Command::to_bytes).collect();
        let batch = encode_batch(Stamp(840_000_000_000 + 4 * self.index), &encoded);
        let started = Instant::now();
        self.partition.apply(self.index, &batch).unwrap();
        started.elapsed()
    }

    fn write(&mut self, write: Write) -> Duration {
        self.sequence += 1;
        let sequence = Sequence(self.sequence);
        let tag = WriteTag { session: SessionId(1), sequence, lowest_unanswered: sequence };
        self.apply(&[Command::Write { tag, write }])
    }

    fn post(&mut self) -> Duration {
        let items = (0..BATCH_POSTS).map(|_| Append {
            space: SPACE,
            owner: UserId(self.below(self.users)),
            author: None,
            audience: Audience::Public,
            ttl: Ttl::SpaceDefault,
            key: None,
            reference: None,
            payload: Bytes::from_static(b"a payload"),
        });
        let items = items.collect();
        self.write(Write::Append { items })
    }

    /// Flushes what the cut waits for; what it holds of the timelines.
    fn flushed_timelines(&mut self) -> Vec<u8> {
        let dir = Path::new("/partition");
        let (image, infos) = loop {
            if let Some(cut) = self.partition.cut_timelines() {
                break cut.encode();
            }
            let work = self.partition.flush_work().unwrap();
            let number = Cell::new(self.files);
            let next = || {
                number.set(number.get() + 1);
                SegmentNumber(number.get())
            };
            let mut flushed = work.write(&self.disk, dir, &next, &|_| {}).unwrap();
            self.files = number.get();
            while !self.partition.install_flush(&mut flushed) {
                flushed.catch_up();
            }
        };
        let open = |info| Arc::new(Segment::open(&self.disk, dir, info).unwrap());
        self.segments = infos.iter().map(open).collect();
        image
    }

    /// Cuts the partition, given the buckets of the cut before; if `busy`, posts between two steps and writes every bucket.
    fn cut(&mut self, what: &str, before: &Buckets, busy: bool) -> Buckets {
        let mut kept = Buckets::new();
        let started = Instant::now();
        self.partition.begin_cut();
        let begun = started.elapsed();
        let (mut steps, mut written, mut applied) = (Vec::new(), 0, Vec::new());
        loop {
            let started = Instant::now();
            let bucket = self.partition.next_bucket(&|_, _| busy);
            steps.push(started.elapsed());
            match bucket {
                None => break,
                Some(CutBucket::Written { section, number, bytes }) => {
                    written += bytes.len();
                    kept.insert((section, number), bytes);
                }
                Some(CutBucket::Unchanged { section, number }) => {
                    kept.insert((section, number), before[&(section, number)].clone());
                }
                Some(CutBucket::Unfinished) => {}
            }
            if busy {
                applied.push(self.post());
            }
        }
        let timelines = self.flushed_timelines();
        kept.insert((TIMELINES_SECTION, 0), timelines);
        drop(self.partition.end_cut());
        steps.sort_unstable();
        applied.sort_unstable();
        let at = |times: &[Duration], share: usize| {
            times.get(times.len().saturating_sub(1) * share / 1_000).copied()
        };
        println!(
            "{what}: begun in {begun:.1?}, {:.1} MB in {} steps of {:.1?}, together {:.1?}; 99 % within {:.1?}, worst {:.1?}",
            written as f64 / 1e6,
            steps.len(),
            at(&steps, 500).unwrap(),
            steps.iter().sum::<Duration>(),
            at(&steps, 990).unwrap(),
            at(&steps, 1_000).unwrap(),
        );
        if busy {
            println!(
                "  a batch of {BATCH_POSTS} posts meanwhile: {:.1?}, 99 % within {:.1?}",
                at(&applied, 500).unwrap(),
                at(&applied, 990).unwrap()
            );
        }
        kept
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = |usual: u64| arguments.next().map_or(usual, |n| n.parse().unwrap());
    let (users, followees, rows) = (number(100_000), number(200), number(400_000));
    let partition = Partition::new(PartitionId(0), 1);
    let mut run = Run {
        partition,
        users,
        random: 0x9E37_79B9_7F4A_7C15,
        index: 0,
        sequence: 0,
        disk: FaultFs::new(),
        files: 0,
        segments: Vec::new(),
    };
    run.disk.create_dir_all(Path::new("/partition")).unwrap();
    let definition = SpaceDefinition {
        id: SPACE,
        name: "posts".into(),
        graph: GRAPH,
        graph_name: "follows".into(),
        version: 1,
        // Feeds are in no cut; a short one makes the posts cheap.
        policy: SpacePolicy { feed_cap: 20, ..SpacePolicy::default() },
    };
    let limits = Limits { window_rows: rows as u32, ..Limits::default() };
    run.apply(&[Command::Configure { limits }, Command::DefineSpace { definition }, Command::OpenSession]);
    for reader in (0..users).map(UserId) {
        let owners = (0..followees).map(|_| UserId(run.below(users))).collect();
        run.write(Write::Follow { graph: GRAPH, reader, owners });
    }
    let kept = run.cut("the graph alone", &Buckets::new(), false);
    (0..rows / BATCH_POSTS as u64 + 10).for_each(|_| _ = run.post());
    let before: Duration = (0..200).map(|_| run.post()).sum();
    println!("{} edges; a batch of {BATCH_POSTS} posts: {:.1?}", run.partition.usage().edges, before / 200);

    let kept = run.cut("with rows", &kept, false);
    let kept = run.cut("all of it, busy", &kept, true);
    let kept = run.cut("what changed meanwhile", &kept, false);
    let last = run.cut("nothing changed", &kept, false);

    let (timelines, others): (Vec<_>, Vec<_>) = last.iter().partition(|((section, _), _)| *section == 10);
    let started = Watch::start();
    let mut restoring = Partition::restoring(PartitionId(0), 1);
    others.iter().for_each(|((section, number), bytes)| restoring.add(*section, *number, bytes).unwrap());
    let read = started.elapsed();
    timelines.iter().for_each(|((section, number), bytes)| restoring.add(*section, *number, bytes).unwrap());
    let started = Watch::start();
    let restored = restoring.finish(&run.segments).unwrap();
    let bytes: usize = others.iter().map(|(_, bytes)| bytes.len()).sum();
    println!(
        "restored {:.1} MB without the entries: {read:.2?} to read the buckets, {:.2?} for the rest",
        bytes as f64 / 1e6,
        started.elapsed()
    );
    let started = Watch::start();
    let same = restored.checksum() == run.partition.checksum();
    println!("two checksums in {:.2?}: {}", started.elapsed(), if same { "equal" } else { "different" });
    assert!(same, "what was restored is what was cut");
}
