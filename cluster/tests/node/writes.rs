//! What a node writes to its disk for what it is given, over a long run with small tables: log, segments, merges and snapshots.

use std::collections::BTreeMap;
use std::sync::Arc;

use fanfold_cluster::jobs::{JobKind, JobState};
use fanfold_storage::command::Write;
use fanfold_storage::fs::FaultFs;
use fanfold_storage::ids::{PartitionId, UserId};
use fanfold_storage::import::ImportEdge;
use futures_util::future::join_all;

use crate::support::*;

/// Entries of a write; those of many writes together are one in the log, too.
const AT_ONCE: usize = 200;

/// Owners of a partition who post in turn.
const OWNERS: usize = 50;

/// Bytes that may be written for each byte of payload …
const TIMES_MAX: usize = 4;

/// … of which each has at least so many.
const PAYLOAD_BYTES_MIN: usize = 64;

/// Bytes that may be written besides for a follower in another partition: the delivery in its log, and the row.
const DELIVERY_BYTES_MAX: usize = 160;

/// Bytes written, by what they are for.
type Written = BTreeMap<&'static str, u64>;

fn written(disk: &FaultFs) -> Written {
    let mut written = Written::new();
    for (path, bytes) in disk.written() {
        let path = path.to_string_lossy();
        let what = if path.contains("/log/") {
            "log"
        } else if path.contains(".segment") {
            "segments"
        } else if path.contains("/groups/") {
            "snapshots"
        } else {
            "other"
        };
        *written.entry(what).or_default() += bytes;
    }
    written
}

/// Posts so many entries with payloads of so many bytes; what was written for it.
async fn post(test: &TestNode, disk: &FaultFs, entries: usize, payload_bytes: usize) -> Written {
    let before = written(disk);
    let rounds = entries / AT_ONCE / usize::from(PARTITIONS);
    join_all((0..PARTITIONS).map(async |partition| {
        let owners: Vec<_> = (0..OWNERS).map(|n| user_at(partition, n)).collect();
        for round in 0..rounds {
            let items = (0..AT_ONCE).map(|n| {
                // Random enough that nobody could make it shorter.
                let n = round * AT_ONCE + n;
                let payload: String =
                    (0..payload_bytes).map(|at| char::from(b'a' + ((n * 31 + at * n) % 26) as u8)).collect();
                entry(owners[n % OWNERS], &payload)
            });
            test.write(owners[0], Write::Append { items: items.collect() }).await;
        }
    }))
    .await;
    test.drained().await;
    let mut after = written(disk);
    after.iter_mut().for_each(|(what, bytes)| *bytes -= before.get(what).copied().unwrap_or_default());
    after
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_has_a_bound_for_each_entry_and_each_byte() {
    // Every level of merges is reached by so many entries, and each of them is long enough for several snapshots.
    for (payload_bytes, entries, is_followed) in
        [(20, 48_000, false), (20, 48_000, true), (100, 32_000, false), (500, 12_000, false)]
    {
        let disk = FaultFs::new();
        let own = disk.clone();
        let small = move |options: &mut fanfold_cluster::NodeOptions| {
            options.fs = Arc::new(own);
            options.disk.files.table_bytes = 256 << 10;
            options.disk.files.cache_bytes = 0;
            options.disk.snapshot_log_bytes = 1 << 20;
            options.disk.log_bytes_max = 4 << 20;
            options.log.segment_bytes = 256 << 10;
            options.log.spare_segments_max = 64;
        };
        let test = TestNode::with(small, Box::new(|streams| streams)).await;
        for partition in (0..PARTITIONS).filter(|_| is_followed) {
            let owners: Vec<_> = (0..OWNERS).map(|n| user_at(partition, n)).collect();
            test.follow(user_at((partition + 1) % PARTITIONS, 0), &owners).await;
        }
        test.drained().await;
        // Until the log uses its files again.
        let mut before = 0;
        while test.node.status().log.recycled_segments < 20 {
            post(&test, &disk, entries / 4, payload_bytes).await;
            before += entries / 4;
        }
        let mut written = post(&test, &disk, entries, payload_bytes).await;
        // What merges may write adds up from the beginning.
        let segments = self::written(&disk)["segments"] as usize * entries / (before + entries);
        written.insert("segments", segments as u64);
        let all: u64 = written.values().sum();
        let each: BTreeMap<_, _> =
            written.iter().map(|(what, bytes)| (*what, bytes / entries as u64)).collect();
        let times = all as f64 / (entries * payload_bytes) as f64;
        eprintln!(
            "{payload_bytes} bytes, followed: {is_followed}: {} written for each entry, {times:.2} times; {each:?}",
            all / entries as u64
        );
        let most =
            TIMES_MAX * payload_bytes.max(PAYLOAD_BYTES_MIN) + usize::from(is_followed) * DELIVERY_BYTES_MAX;
        assert!(all <= (entries * most) as u64, "{payload_bytes} bytes of payload: {each:?}");
        assert!(each["segments"] > payload_bytes as u64 && each["log"] > payload_bytes as u64, "{each:?}");
        test.node.close().await.unwrap();
    }
}

/// Users of the partition that is quiet.
const QUIET_USERS: usize = 10_000;

/// Bytes that a snapshot of it writes, with the segment, if one entry was made since the one before, or nothing changed.
const QUIET_BYTES_MAX: u64 = 16 << 10;

/// Takes a snapshot of every partition; the bytes that were written into the directory of partition 0 for it.
async fn snapshot(test: &TestNode, disk: &FaultFs, name: &str) -> u64 {
    let of_partition = || -> u64 {
        let written = disk.written().into_iter();
        let own = written.filter(|(path, _)| path.to_string_lossy().contains("/data/groups/0001/"));
        own.map(|(_, bytes)| bytes).sum()
    };
    let before = of_partition();
    let kind = JobKind::Backup { dir: test.dir.path().join(name), leaves_out_damaged: false };
    let job = test.node.start_job(kind, None).unwrap().id;
    until(async || test.node.job(job).unwrap().state != JobState::Running).await;
    assert_eq!(test.node.job(job).unwrap().state, JobState::Done);
    of_partition() - before
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiet_partition_writes_little() {
    let disk = FaultFs::new();
    let own = disk.clone();
    let by_hand = move |options: &mut fanfold_cluster::NodeOptions| {
        options.fs = Arc::new(own);
        options.disk.snapshot_log_bytes = 1 << 30;
        options.disk.log_bytes_max = 1 << 30;
    };
    let test = TestNode::with(by_hand, Box::new(|streams| streams)).await;
    let homed = |user: &UserId| PartitionId::of_user(*user, PARTITIONS) == PartitionId(0);
    let users: Vec<UserId> = (1..).map(UserId).filter(homed).take(QUIET_USERS).collect();
    let owner = |reader: UserId, n| users[(reader.0 as usize * n) % users.len()];
    for readers in users.chunks(500) {
        let edge = |reader, n| ImportEdge { reader, owner: owner(reader, n), since: None };
        let edges = (1..=5).flat_map(|n| readers.iter().map(move |reader| edge(*reader, n)));
        let edges = edges.filter(|edge| edge.owner != edge.reader);
        let write = Write::ImportFollows { graph: FOLLOWS, edges: edges.collect() };
        test.write(readers[0], write).await;
    }
    for owner in users.iter().step_by(100) {
        test.post(*owner, "before").await;
    }
    test.drained().await;
    let first = snapshot(&test, &disk, "first").await;
    // Logged, but somebody follows already.
    let again = Write::Follow { graph: FOLLOWS, reader: users[7], owners: vec![owner(users[7], 1)] };
    test.write(users[7], again).await;
    let nothing = snapshot(&test, &disk, "second").await;
    test.post(users[7], "one").await;
    test.drained().await;
    let one = snapshot(&test, &disk, "third").await;
    eprintln!("{first} bytes for {QUIET_USERS} users, then {nothing} for nothing and {one} for an entry");
    assert!(first > 200_000, "{first} bytes");
    assert!(nothing > 0 && nothing <= QUIET_BYTES_MAX, "{nothing} bytes");
    assert!(one <= QUIET_BYTES_MAX, "{one} bytes");
    test.node.close().await.unwrap();
}
