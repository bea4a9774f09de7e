//! Measures the partition's hot half in process: deliveries per second, bytes per feed entry, and what a read costs, its entries too.
//!
//! ```text
//! cargo run --release -p fanfold-storage --example fan_out -- [users] [followees] [cap] [uniform|power]
//! ```
//!
//! Defaults: 100000 200 800 uniform. One partition and one thread. Every feed is first filled to the cap by posts of
//! random owners; then posts are applied in batches of 64 under the clock. Readers with an even number also follow ten
//! owners who are pulled. A *warm* read is of one of 1,000 readers in turn, a *cold* one of a random reader. Times are of
//! the processor, so that they mean something on a machine that others use too; only the worst apply is by the clock.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement prints, and stops at what is wrong"
)]

use std::time::{Duration, Instant};

use bytes::Bytes;
use fanfold_storage::command::{Append, Command, Outcome, Ttl, Write, WriteResult, WriteTag, encode_batch};
use fanfold_storage::entry::Audience;
use fanfold_storage::ids::{EntryId, GraphId, PartitionId, Sequence, SessionId, SpaceId, Stamp, UserId};
use fanfold_storage::partition::{FeedQuery, FeedSlice, MemoryPart, Partition};
use fanfold_storage::space::{SpaceDefinition, SpacePolicy};

const SPACE: SpaceId = SpaceId(1);
const GRAPH: GraphId = GraphId(1);
const PULLED: u64 = 10;
const BATCH_POSTS: usize = 64;
const BATCHES_A_TICK: usize = 32;
const MEASURED_POSTS: usize = 200_000;
const READS: u32 = 2_000_000;
const HYDRATED: u32 = 200_000;

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
}

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

struct Setting {
    users: u64,
    followees: u64,
    cap: u32,
    power: bool,
}

struct Run {
    partition: Partition,
    setting: Setting,
    random: Random,
    index: u64,
    now: Stamp,
    session: SessionId,
    sequence: u64,
    worst: Duration,
}

impl Run {
    fn new(setting: Setting) -> Self {
        let policy = SpacePolicy {
            feed_cap: setting.cap,
            pull_threshold: (setting.users / 4) as u32,
            ..SpacePolicy::default()
        };
        let definition = SpaceDefinition {
            id: SPACE,
            name: "posts".into(),
            graph: GRAPH,
            graph_name: "follows".into(),
            version: 1,
            policy,
        };
        let partition = Partition::new(PartitionId(0), 1);
        let random = Random(0x9E37_79B9_7F4A_7C15);
        let (now, session) = (Stamp(840_000_000_000), SessionId(1));
        let mut run =
            Self { partition, setting, random, index: 0, now, session, sequence: 0, worst: Duration::ZERO };
        run.apply(&[Command::DefineSpace { definition }.to_bytes(), Command::OpenSession.to_bytes()]);
        run
    }

    /// Applies commands as the next Raft entry.
    fn apply(&mut self, commands: &[Bytes]) -> Vec<Outcome> {
        self.index += 1;
        self.now.0 += 4;
        let batch = encode_batch(self.now, commands);
        let started = Instant::now();
        let outcomes = self.partition.apply(self.index, &batch).unwrap();
        self.worst = self.worst.max(started.elapsed());
        outcomes
    }

    fn write(&mut self, write: Write) -> Bytes {
        self.sequence += 1;
        let sequence = Sequence(self.sequence);
        let tag = WriteTag { session: self.session, sequence, lowest_unanswered: sequence };
        Command::Write { tag, write }.to_bytes()
    }

    /// An ordinary owner; some of them oftener than others in a power-law graph.
    fn owner(&mut self) -> UserId {
        let users = self.setting.users;
        let n = self.random.below(users);
        // The square makes the density of an owner's followers fall with the root of its rank.
        let n = if self.setting.power { (n as f64 * (n as f64 / users as f64)) as u64 } else { n };
        UserId(PULLED + n)
    }

    fn load(&mut self) {
        let started = Watch::start();
        for reader in PULLED..PULLED + self.setting.users {
            let pulled = if reader % 2 == 0 { PULLED } else { 0 };
            let mut owners: Vec<UserId> = (0..pulled).map(UserId).collect();
            owners.extend((0..self.setting.followees).map(|_| self.owner()));
            let write = self.write(Write::Follow { graph: GRAPH, reader: UserId(reader), owners });
            self.apply(&[write]);
        }
        let edges = self.partition.usage().edges;
        println!("loaded {edges} edges in {:.1} s", started.elapsed().as_secs_f64());
    }

    /// Applies posts; answers the deliveries stored and the time that took, making the commands included.
    fn post(&mut self, posts: usize) -> (u64, Duration) {
        let before = self.partition.usage().deliveries_stored;
        let started = Watch::start();
        for n in 0..posts.div_ceil(BATCH_POSTS) {
            // Every fourth batch begins with a post of a pulled owner, so that pages hold some.
            let pulled = (n % 4 == 0).then(|| UserId(self.random.below(PULLED)));
            let owners: Vec<UserId> = (0..BATCH_POSTS)
                .map(|m| pulled.filter(|_| m == 0).unwrap_or_else(|| self.poster()))
                .collect();
            let items = owners.into_iter().map(|owner| Append {
                space: SPACE,
                owner,
                author: None,
                audience: Audience::Public,
                ttl: Ttl::SpaceDefault,
                key: None,
                reference: None,
                payload: Bytes::from_static(b"a payload"),
            });
            let write = Write::Append { items: items.collect() };
            let mut commands = vec![self.write(write)];
            // What the proposer does while slices are pending, and as late as under full load.
            commands.extend((n % BATCHES_A_TICK == 0).then(|| Command::Tick.to_bytes()));
            let outcomes = self.apply(&commands);
            let made = matches!(&outcomes[0], Outcome::Written { result: WriteResult::Appended { .. }, .. });
            assert!(made, "{:?}", outcomes[0]);
        }
        (self.partition.usage().deliveries_stored - before, started.elapsed())
    }

    fn poster(&mut self) -> UserId {
        UserId(PULLED + self.random.below(self.setting.users))
    }

    /// Nanoseconds of a read of 20 by readers of the parity given, so many together.
    fn reads(&mut self, parity: u64, readers: u64, together: usize) -> f64 {
        let mut query = || {
            let reader = UserId(PULLED + self.random.below(readers) / 2 * 2 + parity);
            FeedQuery { space: SPACE, reader, below: EntryId::MAX, limit: 20 }
        };
        let queries: Vec<FeedQuery> = (0..READS).map(|_| query()).collect();
        let started = Watch::start();
        let mut rows = 0;
        for queries in queries.chunks(together) {
            self.partition.feed_slices(queries, |_, slice| rows += slice.unwrap().rows.len());
        }
        let took = started.elapsed();
        assert!(rows > 19 * READS as usize, "{rows} rows in {READS} reads");
        took.as_nanos() as f64 / f64::from(READS)
    }

    /// Nanoseconds that the entries of a page of 20 take, of random readers, so many pages together.
    fn hydrates(&mut self, pages: u32, together: usize) -> f64 {
        let users = self.setting.users;
        let query = || {
            let reader = UserId(PULLED + self.random.below(users));
            FeedQuery { space: SPACE, reader, below: EntryId::MAX, limit: 20 }
        };
        let queries: Vec<FeedQuery> = std::iter::repeat_with(query).take(pages as usize).collect();
        let mut ids = Vec::new();
        let listed =
            |_, slice: Result<&mut FeedSlice, _>| ids.extend(slice.unwrap().rows.iter().map(|row| row.id));
        self.partition.feed_slices(&queries, listed);
        let started = Watch::start();
        let mut bytes = 0;
        for ids in ids.chunks(20 * together) {
            self.partition.entries_into(ids, |_, entry| bytes += entry.payload.len());
        }
        let took = started.elapsed();
        assert!(bytes > 0);
        took.as_nanos() as f64 / f64::from(pages)
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = |usual: u64| arguments.next().map_or(usual, |n| n.parse().unwrap());
    let (users, followees, cap) = (number(100_000), number(200), number(800) as u32);
    let power = arguments.next().is_some_and(|shape| shape == "power");
    let mut run = Run::new(Setting { users: users / 2 * 2, followees, cap, power });
    run.load();
    run.worst = Duration::ZERO;
    let fill = (users * u64::from(cap) * 9 / 8 / followees) as usize;
    let (deliveries, took) = run.post(fill);
    let million = |n: u64, took: Duration| n as f64 / took.as_secs_f64() / 1e6;
    println!("filling: {:.1} M deliveries/s", million(deliveries, took));
    for _ in 0..5 {
        let (deliveries, took) = run.post(MEASURED_POSTS);
        println!(
            "full feeds: {:.1} M deliveries/s, {:.2} µs a post",
            million(deliveries, took),
            took.as_micros() as f64 / MEASURED_POSTS as f64
        );
    }
    println!("worst apply of {BATCH_POSTS} posts: {:.2} ms", run.worst.as_secs_f64() * 1e3);
    let usage = run.partition.usage();
    let bytes = |part: MemoryPart| {
        let found = usage.memory.iter().find(|(known, _)| *known == part);
        found.map_or(0.0, |(_, bytes)| *bytes as f64)
    };
    let (feeds, rows) = (bytes(MemoryPart::Feeds), bytes(MemoryPart::Delivered));
    println!(
        "{} references in {} feeds: {:.2} bytes each, {:.2} with rows; {:.2} per entry up to the cap",
        usage.references,
        usage.feeds,
        feeds / usage.references as f64,
        (feeds + rows) / usage.references as f64,
        feeds / (usage.feeds as f64 * f64::from(cap)),
    );
    println!("{} rows: {:.1} bytes each", usage.rows, rows / usage.rows as f64);
    for (what, parity) in [("plain", 1), ("with 10 pulled", 0)] {
        for (heat, readers) in [("warm", 1_000), ("cold", users)] {
            run.reads(parity, readers, 1);
            let (one, many) = (run.reads(parity, readers, 1), run.reads(parity, readers, 16));
            println!("read of 20, {what}, {heat}: {one:.0} ns, {many:.0} ns with 16 together");
        }
    }
    run.hydrates(HYDRATED, 1);
    let (one, many) = (run.hydrates(HYDRATED, 1), run.hydrates(HYDRATED, 16));
    println!("entries of a page of 20: {one:.0} ns, {many:.0} ns with 16 together");
}
