//! Measures the partition's graph half in process: loading edges, their bytes, walking them, changing them, and what an
//! append to a timeline costs.
//!
//! ```text
//! cargo run --release -p fanfold-storage --example graph -- [users] [followees] [partitions]
//! ```
//!
//! Defaults: 1000000 200 1. One thread. The owners' followers follow a power law (exponent 0.8). With several
//! partitions, one of them is measured: the users homed there follow owners of all. Each command is its own Raft entry;
//! encoding it is not counted. *Worst* is the longest apply of a phase, which on a busy machine may be somebody else's.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement prints, and stops at what is wrong"
)]

use std::time::{Duration, Instant};

use bytes::Bytes;
use fanfold_storage::command::{Append, Command, Ttl, Write, WriteTag, encode_batch};
use fanfold_storage::entry::Audience;
use fanfold_storage::ids::{GraphId, PartitionId, Sequence, SessionId, SpaceId, Stamp, UserId};
use fanfold_storage::partition::{MemoryPart, Partition};
use fanfold_storage::space::{FanOut, SpaceDefinition, SpacePolicy};

const SPACE: SpaceId = SpaceId(1);
const GRAPH: GraphId = GraphId(1);
const CHANGES: u32 = 200_000;
const APPENDS: u32 = 500_000;
const APPENDS_PER_BATCH: usize = 32;
const PAYLOAD_BYTES: usize = 500;

/// The generator of Marsaglia, 2003.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// A rank, small ones oftener: the density falls with the power 0.8.
    fn rank(&mut self, users: u64) -> u64 {
        let unit = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        let least = 0.115;
        ((least + (1.0 - least) * unit).powi(5) * users as f64) as u64
    }
}

/// The times of one phase.
#[derive(Default)]
struct Phase {
    spent: Duration,
    worst: Duration,
}

struct Run {
    partition: Partition,
    partitions: u16,
    users: u64,
    random: Random,
    now: Stamp,
    sequence: u64,
    phase: Phase,
}

impl Run {
    fn new(users: u64, partitions: u16) -> Self {
        // Pulled, so that the feeds cost nothing here.
        let policy = SpacePolicy { fan_out: FanOut::Pull, ..SpacePolicy::default() };
        let (name, graph_name) = ("posts".into(), "follows".into());
        let definition = SpaceDefinition { id: SPACE, name, graph: GRAPH, graph_name, version: 1, policy };
        let mut run = Self {
            partition: Partition::new(PartitionId(0), partitions),
            partitions,
            users,
            random: Random(0x9E37_79B9_7F4A_7C15),
            now: Stamp(840_000_000_000),
            sequence: 0,
            phase: Phase::default(),
        };
        run.apply(&[Command::DefineSpace { definition }.to_bytes(), Command::OpenSession.to_bytes()]);
        run
    }

    fn apply(&mut self, commands: &[Bytes]) {
        self.now.0 += 1;
        let batch = encode_batch(self.now, commands);
        let started = Instant::now();
        self.partition.apply(self.partition.applied() + 1, &batch).unwrap();
        let took = started.elapsed();
        self.phase.spent += took;
        self.phase.worst = self.phase.worst.max(took);
        // What goes to other partitions is not kept, as if they had it at once.
        if self.partition.journal_len() > 10_000 {
            let through = self.partition.journal_next();
            let trim = encode_batch(self.now, &[Command::Trim { through }.to_bytes()]);
            self.partition.apply(self.partition.applied() + 1, &trim).unwrap();
        }
    }

    fn write(&mut self, write: Write) -> Bytes {
        self.sequence += 1;
        let sequence = Sequence(self.sequence);
        let tag = WriteTag { session: SessionId(1), sequence, lowest_unanswered: sequence };
        Command::Write { tag, write }.to_bytes()
    }

    fn is_here(&self, user: UserId) -> bool {
        PartitionId::of_user(user, self.partitions) == PartitionId(0)
    }

    fn reader(&mut self) -> UserId {
        loop {
            let reader = UserId(self.random.below(self.users));
            if self.is_here(reader) {
                return reader;
            }
        }
    }

    fn load(&mut self, followees: usize) {
        for reader in (0..self.users).map(UserId) {
            if !self.is_here(reader) {
                continue;
            }
            let mut owners: Vec<_> = (0..followees).map(|_| UserId(self.random.rank(self.users))).collect();
            owners.sort_unstable();
            let write = self.write(Write::Follow { graph: GRAPH, reader, owners });
            self.apply(&[write]);
        }
    }

    fn change(&mut self, follow: bool) {
        for _ in 0..CHANGES {
            let (graph, reader) = (GRAPH, self.reader());
            let owners = vec![UserId(self.random.rank(self.users))];
            let write = if follow {
                Write::Follow { graph, reader, owners }
            } else {
                Write::Unfollow { graph, reader, owners }
            };
            let write = self.write(write);
            self.apply(&[write]);
        }
    }

    fn append(&mut self) {
        let payload = Bytes::from(vec![7; PAYLOAD_BYTES]);
        for _ in 0..APPENDS / APPENDS_PER_BATCH as u32 {
            let mut batch = Vec::with_capacity(APPENDS_PER_BATCH);
            for _ in 0..APPENDS_PER_BATCH {
                let item = Append {
                    space: SPACE,
                    owner: self.reader(),
                    author: None,
                    audience: Audience::Public,
                    ttl: Ttl::Never,
                    key: None,
                    reference: None,
                    payload: payload.clone(),
                };
                let write = self.write(Write::Append { items: vec![item] });
                batch.push(write);
            }
            self.apply(&batch);
        }
    }

    fn report(&mut self, what: &str, things: u64, thing: &str) {
        let Phase { spent, worst } = std::mem::take(&mut self.phase);
        let each = spent.as_nanos() as f64 / things.max(1) as f64;
        let millions = things as f64 / spent.as_secs_f64() / 1e6;
        println!(
            "{what:<10} {each:7.0} ns a {thing}, {millions:6.2} M/s, worst apply {:.2} ms",
            worst.as_secs_f64() * 1e3
        );
    }

    fn part(&self, wanted: MemoryPart) -> u64 {
        let parts = self.partition.usage().memory;
        parts.iter().filter(|(part, _)| *part == wanted).map(|(_, bytes)| bytes).sum()
    }

    fn report_bytes(&self) {
        let edges = self.partition.usage().edges as f64;
        let (following, followers) = (self.part(MemoryPart::Following), self.part(MemoryPart::FollowersHere));
        let (following, followers) = (following as f64 / edges, followers as f64 / edges);
        println!("bytes      {following:7.2} an edge for following, {followers:.2} for followers here");
    }

    fn report_walks(&self) {
        for (what, walk) in [
            ("following", Partition::walk_following as fn(&Partition) -> u64),
            ("followers", Partition::walk_followers as fn(&Partition) -> u64),
        ] {
            let started = Instant::now();
            let edges = walk(&self.partition);
            println!(
                "walk       {:7.2} ns an edge, {what}",
                started.elapsed().as_nanos() as f64 / edges as f64
            );
            assert_eq!(edges, self.partition.usage().edges);
        }
    }

    fn report_memory(&self) {
        let sum: u64 = self.partition.usage().memory.iter().map(|(_, bytes)| bytes).sum();
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let resident =
            pages.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4_096;
        println!("memory     {} MB counted, {} MB resident", sum >> 20, resident >> 20);
        let started = Instant::now();
        let usage = self.partition.usage();
        println!("usage      {:7.2} µs for {} edges", started.elapsed().as_secs_f64() * 1e6, usage.edges);
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: u64| arguments.next().map_or(default, |text| text.parse().unwrap());
    let (users, followees, partitions) = (number(1_000_000), number(200) as usize, number(1) as u16);
    let mut run = Run::new(users, partitions);
    run.phase = Phase::default();
    run.load(followees);
    run.report("load", run.partition.usage().edges, "edge");
    run.report_bytes();
    run.report_walks();
    run.report_memory();
    run.change(true);
    run.report("follow", u64::from(CHANGES), "command");
    run.change(false);
    run.report("unfollow", u64::from(CHANGES), "command");
    run.append();
    run.report("append", u64::from(APPENDS), "entry");
    run.report_memory();
}
