//! Crash tests of a partition on its disk: log, segments, bucket files, manifests, purges and removals together.
//!
//! - The machine stops at every write, sync, rename and removal, and loses power, or a sync fails: what was answered is there when it
//!   starts again, what was deleted is not, and it goes on from there.
//! - So it is while flushes run beside merges and snapshots (`beside`), while time passes (`expiring`) and while a snapshot comes from a
//!   peer (`received`).

mod beside;
mod expiring;
mod model;
mod received;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanfold_storage::command::{
    Append, AppendResult, Command, Outcome, Ttl, Write, WriteResult, WriteTag, encode_batch,
};
use fanfold_storage::entry::{Audience, Entry};
use fanfold_storage::fs::{FaultFs, FileSystem, PowerLoss};
use fanfold_storage::ids::{EntryId, GraphId, PartitionId, Sequence, SessionId, SpaceId, Stamp, UserId};
use fanfold_storage::log::{GroupId, Log};
use fanfold_storage::space::{SpaceDefinition, SpacePolicy};

use super::machine::{Applied, PartitionMachine};
use crate::options::DiskOptions;
use crate::raft::testing::{directory, open_log, quick};
use crate::raft::{
    Batch, FileSettings, Formation, Group, GroupSpec, InProcessTransport, Machine, OpenError, RaftSettings,
    ReplicaAddress, ReplicaId,
};

const GROUP: GroupId = GroupId(1);
const SPACE: SpaceId = SpaceId(1);
const OWNERS: u64 = 5;
const OWNER: UserId = UserId(1);
const DIR: &str = "/groups/0001";

/// What was answered, and the one write that was not.
#[derive(Clone, Default)]
struct Known {
    live: BTreeMap<EntryId, Bytes>,
    deleted: BTreeSet<EntryId>,
    sequence: u64,
    in_flight: Option<Write>,
}

/// The disk stopped, or failed.
struct Failed;

struct Node {
    disk: FaultFs,
    log: Log,
    group: Group<PartitionMachine>,
}

/// What became of segments.
#[derive(Clone, Copy, Debug, Default)]
struct Kept {
    /// That were dropped, because all of them had expired.
    dropped: usize,
    /// Of which more than one was made.
    splits: usize,
}

impl Node {
    async fn open(disk: FaultFs, formation: Formation) -> Result<Self, OpenError> {
        let members = BTreeMap::from([(ReplicaId(1), ReplicaAddress::default())]);
        let spec = GroupSpec { group: GROUP, replica: ReplicaId(1), members, formation };
        Self::open_replica(disk, spec, &quick(), InProcessTransport::default()).await
    }

    async fn open_replica(
        disk: FaultFs,
        spec: GroupSpec,
        settings: &RaftSettings,
        wire: InProcessTransport,
    ) -> Result<Self, OpenError> {
        let fs = Arc::new(disk.clone());
        let log = open_log(fs.clone(), Path::new("/log"), 64 << 10);
        let files = directory(fs, Path::new(DIR));
        let loading = files.load(GROUP, PartitionMachine::new(PartitionId(0), 1));
        let group = Group::open(log.clone(), spec, loading, settings, Arc::new(wire)).await?;
        Ok(Self { disk, log, group })
    }

    async fn apply(&self, stamp: u64, command: &Command) -> Result<Vec<Applied>, Failed> {
        let batch = Batch(encode_batch(Stamp(stamp), &[command.to_bytes()]));
        Ok(self.group.propose(batch).await.map_err(|_| Failed)?.outcome)
    }

    async fn write(&self, known: &mut Known, write: Write) -> Result<WriteResult, Failed> {
        known.sequence += 1;
        let sequence = Sequence(known.sequence);
        let tag = WriteTag { session: SessionId(1), sequence, lowest_unanswered: sequence };
        known.in_flight = Some(write.clone());
        let mut applied = self.apply(1_000_000 + known.sequence, &Command::Write { tag, write }).await?;
        match applied.pop() {
            Some(Applied::Outcome(Outcome::Written { result, .. })) => {
                known.in_flight = None;
                Ok(result)
            }
            // What it is about could not be read.
            Some(Applied::Damaged) if self.has_stopped() => Err(Failed),
            other => panic!("{other:?}"),
        }
    }

    fn has_stopped(&self) -> bool {
        self.disk.free_bytes(Path::new("/")).is_err()
    }

    async fn post(&self, known: &mut Known) -> Result<(), Failed> {
        self.post_of(known, 100).await
    }

    async fn post_of(&self, known: &mut Known, bytes: usize) -> Result<(), Failed> {
        let payload = |n: u64| Bytes::from(format!("entry {n} of {} {}", known.sequence, "x".repeat(bytes)));
        let items = (0..12).map(|n| Append {
            space: SPACE,
            owner: UserId(OWNER.0 + n % OWNERS),
            author: None,
            audience: Audience::Public,
            // Some of them to segments of their own.
            ttl: if n % 6 == 5 { Ttl::Ms { ttl_ms: 1 << 40 } } else { Ttl::SpaceDefault },
            key: None,
            reference: None,
            payload: payload(n),
        });
        let items: Vec<_> = items.collect();
        let made = self.write(known, Write::Append { items: items.clone() }).await?;
        let WriteResult::Appended { items: made } = made else { panic!("{made:?}") };
        for (item, made) in items.into_iter().zip(made) {
            let AppendResult::Made { id, .. } = made else { panic!("{made:?}") };
            known.live.insert(id, item.payload);
        }
        Ok(())
    }

    /// Deletes an entry, the oldest or the newest, and amends another.
    async fn change(&self, known: &mut Known, oldest: bool) -> Result<(), Failed> {
        let ids: Vec<EntryId> = known.live.keys().copied().collect();
        let (gone, amended) =
            if oldest { (ids[0], ids[1]) } else { (ids[ids.len() - 1], ids[ids.len() - 2]) };
        let deleted = Write::Delete { space: SPACE, owner: self.entry(gone)?.owner, id: gone };
        self.write(known, deleted).await?;
        known.live.remove(&gone);
        known.deleted.insert(gone);
        let Entry { owner, version, .. } = self.entry(amended)?;
        let payload = Bytes::from(format!("amended {}", known.sequence));
        let amend = Write::Amend {
            space: SPACE,
            owner,
            id: amended,
            expected_version: version,
            payload: payload.clone(),
        };
        self.write(known, amend).await?;
        known.live.insert(amended, payload);
        Ok(())
    }

    /// An entry, unless the disk has stopped.
    fn entry(&self, id: EntryId) -> Result<Entry, Failed> {
        self.group.read(|machine| machine.state_as_is().entries(&[id]).remove(0)).ok_or(Failed)
    }

    /// Writes everything to segments, and merges those.
    async fn flush(&self) -> Result<(), Failed> {
        self.keep(&mut Kept::default()).await
    }

    /// The same, and drops those of which everything has expired.
    async fn keep(&self, kept: &mut Kept) -> Result<(), Failed> {
        let (settings, turn) = (settings(), self.group.turn().await);
        while self.group.flush(&settings).await.map_err(|_| Failed)? {}
        let segments = || self.group.read(|machine| machine.files_in_use().len());
        loop {
            let before = segments();
            let Some(work) = self.group.change(|machine| machine.file_work(&settings)).await else { break };
            let left = segments();
            self.group.work(&turn, work).await.map_err(|_| Failed)?;
            kept.dropped += before - left;
            kept.splits += usize::from(segments() > left);
        }
        self.group.prune(&turn).await.map_err(|_| Failed)
    }

    /// The first index that the log has.
    fn first_of_log(&self) -> u64 {
        self.log.group_state(GROUP).unwrap().first
    }

    /// Waits until the log begins behind `first`.
    async fn purged_behind(&self, first: u64) {
        while self.first_of_log() <= first {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn snapshot(&self) -> Result<(), Failed> {
        let turn = self.group.turn().await;
        self.group.snapshot(&turn).await.map(drop).map_err(|_| Failed)
    }

    /// Writes, changes what is in segments, merges and takes snapshots, until something fails.
    async fn live(&self, known: &mut Known) -> Result<(), Failed> {
        for round in 0..2 {
            self.post(known).await?;
            self.flush().await?;
            self.change(known, round == 0).await?;
            self.snapshot().await?;
            self.post(known).await?;
        }
        Ok(())
    }

    /// What is there is what was answered, with the write in flight or without.
    fn check(&self, known: &mut Known, what: &str) {
        let shown = (0..OWNERS).flat_map(|n| {
            let owner = UserId(OWNER.0 + n);
            self.group.read(|machine| {
                machine.state().expect(what).timeline(SPACE, owner, EntryId::MAX, usize::MAX).entries
            })
        });
        let shown: BTreeMap<EntryId, Bytes> = shown.map(|entry| (entry.id, entry.payload)).collect();
        let mut expected = known.live.clone();
        let is_without = shown == expected;
        match known.in_flight.take() {
            Some(Write::Append { items }) => {
                let new: Vec<_> = shown.iter().filter(|(id, _)| !expected.contains_key(id)).collect();
                assert!(new.is_empty() || new.len() == items.len(), "{what}: a part of a write");
                assert!(new.iter().all(|(_, payload)| items.iter().any(|item| item.payload == **payload)));
                let new: Vec<_> = new.into_iter().map(|(id, payload)| (*id, payload.clone())).collect();
                expected.extend(new);
            }
            Some(Write::Delete { id, .. }) if !is_without => {
                expected.remove(&id);
                known.deleted.insert(id);
            }
            Some(Write::Amend { id, payload, .. }) if !is_without => drop(expected.insert(id, payload)),
            _ => {}
        }
        assert!(shown == expected, "{what}: {} shown, {} expected", shown.len(), expected.len());
        assert!(known.deleted.iter().all(|id| !shown.contains_key(id)), "{what}: what was deleted returned");
        known.live = expected;
    }

    /// The kinds of files that its directory has.
    fn kinds(&self) -> BTreeSet<String> {
        let paths = self.disk.paths();
        let here = paths.iter().filter(|path| path.starts_with(DIR));
        here.filter_map(|path| path.extension()?.to_str().map(str::to_owned)).collect()
    }
}

/// Everything goes to segments at once.
fn settings() -> FileSettings {
    FileSettings {
        table_bytes: 0,
        cache_bytes: 0,
        segment_bytes_max: 1 << 20,
        ..DiskOptions::default().files
    }
}

fn owners() -> impl Iterator<Item = UserId> + Clone {
    (0..OWNERS).map(|n| UserId(OWNER.0 + n))
}

fn definition() -> SpaceDefinition {
    SpaceDefinition {
        id: SPACE,
        name: "posts".into(),
        graph: GraphId(1),
        graph_name: "follows".into(),
        version: 1,
        policy: SpacePolicy::default(),
    }
}

/// A disk with a partition that has segments, two snapshots and a purged log.
async fn prepared() -> (FaultFs, Known) {
    let node = Node::open(FaultFs::new(), Formation::New).await.unwrap();
    let mut known = Known::default();
    for command in [Command::DefineSpace { definition: definition() }, Command::OpenSession] {
        assert!(node.apply(1_000_000, &command).await.is_ok());
    }
    for _ in 0..3 {
        for _ in 0..2 {
            assert!(node.post(&mut known).await.is_ok() && node.flush().await.is_ok());
        }
        assert!(node.snapshot().await.is_ok());
    }
    assert_eq!(node.kinds(), ["buckets", "manifest", "segment"].map(str::to_owned).into());
    (node.disk.duplicate(), known)
}

/// Starts what is left, checks it, goes on, and starts it once more.
async fn goes_on(disk: FaultFs, known: &mut Known, what: &str) {
    let node = Node::open(disk, Formation::Existing).await.expect(what);
    node.check(known, what);
    assert!(node.live(known).await.is_ok(), "{what}");
    assert!(!node.kinds().contains("new"), "{what}: {:?}", node.disk.paths());
    let disk = node.disk.lose_power(PowerLoss::LoseAll);
    drop(node);
    let node = Node::open(disk, Formation::Existing).await.expect(what);
    node.check(known, &format!("{what}, once more"));
}

#[tokio::test]
async fn a_loss_of_power_at_every_operation_loses_nothing_that_was_answered() {
    let (begun, known) = prepared().await;
    let node = Node::open(begun.duplicate(), Formation::Existing).await.unwrap();
    let before = node.disk.operations();
    assert!(node.live(&mut known.clone()).await.is_ok());
    let operations = node.disk.operations() - before;
    assert!(operations > 60, "{operations}");
    drop(node);
    let mut stopped = 0;
    for stop in 0..operations + 4 {
        let losses = [PowerLoss::LoseAll, PowerLoss::KeepAll, PowerLoss::Random(stop)];
        // One of the losses at each operation: the next one has another.
        let loss = losses[stop as usize % losses.len()];
        let what = format!("stopped after {stop} operations, {loss:?}");
        let mut known = known.clone();
        let node = Node::open(begun.duplicate(), Formation::Existing).await.expect(&what);
        node.disk.stop_after(stop);
        stopped += u32::from(node.live(&mut known).await.is_err());
        let disk = node.disk.lose_power(loss);
        drop(node);
        goes_on(disk, &mut known, &what).await;
    }
    assert!(stopped > 40, "{stopped}");
}

#[tokio::test]
async fn a_start_may_be_stopped_at_every_operation() {
    let (begun, known) = prepared().await;
    let fresh = begun.duplicate();
    drop(Node::open(fresh.clone(), Formation::Existing).await.unwrap());
    let operations = fresh.operations();
    assert!(operations > 10, "{operations}");
    for stop in 0..operations {
        let what = format!("stopped after {stop} operations of a start");
        let mut known = known.clone();
        let disk = begun.duplicate();
        disk.stop_after(stop);
        let opening = tokio::spawn(Node::open(disk.clone(), Formation::Existing));
        // It refuses, or does not hear of it; a log that cannot be opened panics in this test's own hands.
        drop(opening.await);
        goes_on(disk.lose_power(PowerLoss::Random(stop)), &mut known, &what).await;
    }
}

/// The sync that fails may be one of the log, which ends the process; of a segment, a bucket file or a manifest, which is written
/// anew under another name; or of a directory.
#[tokio::test]
async fn a_sync_that_fails_with_eio_loses_nothing_and_a_restart_is_safe() {
    let (begun, known) = prepared().await;
    let (mut failed, mut gone_on) = (0, 0);
    for sync in 0..40 {
        for of_directory in [false, true] {
            let kept = [PowerLoss::LoseAll, PowerLoss::Random(sync), PowerLoss::KeepAll][sync as usize % 3];
            let what = format!("sync {sync} failed, of a directory: {of_directory}, {kept:?}");
            let mut known = known.clone();
            let node = Node::open(begun.duplicate(), Formation::Existing).await.expect(&what);
            if of_directory {
                node.disk.fail_dir_sync_after(sync);
            } else {
                node.disk.fail_sync_after(sync, kept);
            }
            if node.live(&mut known).await.is_err() {
                failed += 1;
                // Whoever is told goes on, unless it was the log.
                if known.in_flight.is_none() && node.live(&mut known).await.is_ok() {
                    gone_on += 1;
                    node.check(&mut known, &what);
                }
            }
            let disk = node.disk.lose_power(kept);
            drop(node);
            goes_on(disk, &mut known, &what).await;
        }
    }
    assert!(failed > 15 && gone_on > 8 && gone_on < failed, "{failed} failed, {gone_on} went on");
}

/// What the disk does not give is not answered as missing, whatever the reads were for.
#[tokio::test]
async fn a_read_that_fails_with_eio_is_refused_and_told_apart_from_damage() {
    let (begun, mut known) = prepared().await;
    let node = Node::open(begun.duplicate(), Formation::Existing).await.unwrap();
    let segments: Vec<PathBuf> =
        node.group.read(|m| m.state_as_is().segments().map(|segment| segment.path().to_owned()).collect());
    let read =
        || node.group.read(|m| m.state_as_is().timeline(SPACE, OWNER, EntryId::MAX, 100).entries.len());
    let all = read();
    segments.iter().for_each(|path| assert!(node.disk.fail_reads(path, true)));
    assert!(read() < all);
    let damage = node.group.read(Machine::damage).unwrap();
    assert!(damage.is_unread && damage.path.is_some_and(|path| segments.contains(&path)));
    assert!(node.group.read(|machine| machine.state().is_none()), "nobody is answered");
    // A merge of what cannot be read is no reason for that.
    let node = Node::open(begun.duplicate(), Formation::Existing).await.unwrap();
    for _ in 0..12 {
        assert!(node.change(&mut known, true).await.is_ok());
    }
    segments.iter().for_each(|path| assert!(node.disk.fail_reads(path, true)));
    assert!(node.flush().await.is_err(), "much of a segment is dead");
    segments.iter().for_each(|path| assert!(node.disk.fail_reads(path, false)));
    assert!(node.flush().await.is_ok());
    node.check(&mut known, "the disk reads again");
}
