//! Measures what holds up a partition when a flush or a merge is installed during which much was deleted.
//!
//! ```text
//! cargo run --release -p fanfold-storage --example installs -- [entries] [payload bytes] [deletes]
//! ```
//!
//! Defaults: 1000000 100 100000. One partition and one thread, files in the system's directory for temporary ones. The deleted
//! entries are spread over all; 200 more are deleted while those are looked up beside the lock. Times are by the clock; the
//! longest step is the longest that the partition's lock would be held.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement prints, and stops at what is wrong"
)]

use std::cell::Cell;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fanfold_storage::command::{Append, Command, Outcome, Ttl, Write, WriteResult, WriteTag, encode_batch};
use fanfold_storage::entry::Audience;
use fanfold_storage::fs::RealFs;
use fanfold_storage::ids::{EntryId, GraphId, PartitionId, Sequence, SessionId, SpaceId, Stamp, UserId};
use fanfold_storage::partition::{MergePolicy, Partition};
use fanfold_storage::segment::SegmentNumber;
use fanfold_storage::space::{SpaceDefinition, SpacePolicy};

const SPACE: SpaceId = SpaceId(1);
const OWNERS: u64 = 1_000;
const BATCH: usize = 1_000;

/// An entry that was made, and whose.
type Made = (UserId, EntryId);

/// What an install took.
#[derive(Debug, Default)]
struct Installed {
    applied: Duration,
    beside: Duration,
    longest_step: Duration,
}

impl Installed {
    fn step(&mut self, install: impl FnOnce() -> bool) -> bool {
        let begun = Instant::now();
        let is_done = install();
        self.longest_step = begun.elapsed().max(self.longest_step);
        is_done
    }

    fn beside(&mut self, look_up: impl FnOnce()) {
        let begun = Instant::now();
        look_up();
        self.beside += begun.elapsed();
    }
}

struct Run {
    partition: Partition,
    dir: tempfile::TempDir,
    last_number: Cell<u64>,
    index: u64,
    sequence: u64,
}

impl Run {
    fn new() -> Self {
        let partition = Partition::new(PartitionId(0), 1);
        let dir = tempfile::tempdir().unwrap();
        let mut run = Self { partition, dir, last_number: Cell::new(0), index: 0, sequence: 0 };
        let definition = SpaceDefinition {
            id: SPACE,
            name: "posts".into(),
            graph: GraphId(1),
            graph_name: "follows".into(),
            version: 1,
            policy: SpacePolicy::default(),
        };
        run.apply(&[Command::DefineSpace { definition }, Command::OpenSession]);
        run
    }

    fn apply(&mut self, commands: &[Command]) -> Vec<Outcome> {
        self.index += 1;
        let encoded: Vec<Bytes> = commands.iter().map(Command::to_bytes).collect();
        let batch = encode_batch(Stamp(840_000_000_000 + self.index), &encoded);
        self.partition.apply(self.index, &batch).unwrap()
    }

    fn write(&mut self, write: Write) -> Command {
        self.sequence += 1;
        let sequence = Sequence(self.sequence);
        let tag = WriteTag { session: SessionId(1), sequence, lowest_unanswered: sequence };
        Command::Write { tag, write }
    }

    fn append(&mut self, entries: usize, payload_bytes: usize) -> Vec<Made> {
        let mut made = Vec::with_capacity(entries);
        while made.len() < entries {
            let from = made.len() as u64;
            let item = |n: u64| Append {
                space: SPACE,
                owner: UserId((from + n) % OWNERS),
                author: None,
                audience: Audience::Public,
                ttl: Ttl::SpaceDefault,
                key: None,
                reference: None,
                payload: vec![n as u8; payload_bytes].into(),
            };
            let items: Vec<_> = (0..BATCH as u64).map(item).collect();
            let command = self.write(Write::Append { items });
            let Outcome::Written { result: WriteResult::Appended { items }, .. } =
                self.apply(&[command]).remove(0)
            else {
                panic!("refused")
            };
            for (n, item) in items.into_iter().enumerate() {
                let fanfold_storage::command::AppendResult::Made { id, .. } = item else {
                    panic!("{item:?}")
                };
                made.push((UserId((from + n as u64) % OWNERS), id));
            }
        }
        made
    }

    /// Deletes entries; answers how long applying that took.
    fn delete(&mut self, gone: &[Made]) -> Duration {
        let begun = Instant::now();
        for part in gone.chunks(BATCH) {
            let delete = |(owner, id): &Made| Write::Delete { space: SPACE, owner: *owner, id: *id };
            let commands: Vec<_> = part.iter().map(|made| self.write(delete(made))).collect();
            for outcome in self.apply(&commands) {
                assert!(matches!(
                    outcome,
                    Outcome::Written { result: WriteResult::Deleted { existed: true }, .. }
                ));
            }
        }
        begun.elapsed()
    }

    fn number(&self) -> SegmentNumber {
        self.last_number.set(self.last_number.get() + 1);
        SegmentNumber(self.last_number.get())
    }

    /// Flushes, while one after the other of these is deleted.
    fn flush(&mut self, deletes: &[Vec<Made>]) -> Installed {
        self.partition.freeze_timelines();
        let work = self.partition.flush_work().unwrap();
        let mut flushed = work.write(&RealFs, self.dir.path(), &|| self.number(), &|_| {}).unwrap();
        let (mut installed, mut deletes) = (Installed::default(), deletes.iter());
        installed.applied += deletes.next().map_or(Duration::ZERO, |gone| self.delete(gone));
        while !installed.step(|| self.partition.install_flush(&mut flushed)) {
            installed.beside(|| flushed.catch_up());
            installed.applied += deletes.next().map_or(Duration::ZERO, |gone| self.delete(gone));
        }
        installed
    }

    /// The same of a merge.
    fn merge(&mut self, deletes: &[Vec<Made>]) -> Installed {
        let policy = MergePolicy { fan_in_min: 2, write_bound: 1e9, ..MergePolicy::default() };
        let work = self.partition.merge_work(&policy).unwrap();
        let mut merged = work.write(&RealFs, self.dir.path(), &|| self.number(), &|_| {}).unwrap();
        let (mut installed, mut deletes) = (Installed::default(), deletes.iter());
        installed.applied += deletes.next().map_or(Duration::ZERO, |gone| self.delete(gone));
        while !installed.step(|| self.partition.install_merge(&mut merged)) {
            installed.beside(|| merged.catch_up().unwrap());
            installed.applied += deletes.next().map_or(Duration::ZERO, |gone| self.delete(gone));
        }
        installed
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<usize>().unwrap());
    let mut next = |default| arguments.next().unwrap_or(default);
    let (entries, payload_bytes, deletes) = (next(1_000_000), next(100), next(100_000));
    println!("{entries} entries of {payload_bytes} bytes, {deletes} deletes");
    let mut run = Run::new();
    let made = run.append(entries, payload_bytes);
    let spread = |made: &[Made], from: usize, count: usize| -> Vec<Made> {
        made.iter().skip(from).step_by((entries / count).max(2)).take(count).copied().collect()
    };
    let parts = |made: &[Made]| [spread(made, 0, deletes), spread(made, 1, 200)];
    println!("flush: {:?}", run.flush(&parts(&made)));

    let mut run = Run::new();
    let mut made = Vec::new();
    for _ in 0..2 {
        made.extend(run.append(entries / 2, payload_bytes));
        run.flush(&[]);
        drop(run.partition.drop_cached_tables(0));
    }
    println!("merge: {:?}", run.merge(&parts(&made)));
}
