//! Stops at every operation on files, of the making of a backup, of both kinds of restore and of a salvage (`salvaging`).

mod salvaging;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use fanfold_storage::command::{Append, Ttl, Write, WriteTag};
use fanfold_storage::entry::Audience;
use fanfold_storage::fs::{FaultFs, PowerLoss};
use fanfold_storage::ids::{EntryId, PartitionId, Sequence, SpaceId, UserId};
use fanfold_storage::log::{GroupId, Image};

use super::*;
use crate::clock::{LOG_EPOCH_UNIX_MS, ManualClock};
use crate::identity::LOG_DIR;
use crate::meter::Meter;
use crate::raft::group_dir;
use crate::read::TimelineRequest;
use crate::{Node, NodeOptions, OpenError};

const PARTITIONS: u16 = 2;
const POSTS: SpaceId = SpaceId(1);
const RESTORED: PartitionId = PartitionId(1);
const GROUP: GroupId = GroupId(2);

/// More operations than any of this takes.
const OPERATIONS_MAX: u64 = 2_000;

fn user(partition: PartitionId) -> UserId {
    let is_home = |user: &UserId| PartitionId::of_user(*user, PARTITIONS) == partition;
    (1..1_000).map(UserId).find(is_home).unwrap()
}

fn meter() -> Meter {
    Meter::new(None)
}

fn options(disk: &FaultFs, data_dir: &Path) -> NodeOptions {
    let mut options = NodeOptions::new(data_dir);
    options.partitions = Some(PARTITIONS);
    options.clock = Arc::new(ManualClock::new(LOG_EPOCH_UNIX_MS + 848_000_000_000));
    options.fs = Arc::new(disk.clone());
    options.log.segment_bytes = 32 << 10;
    options
}

async fn open(disk: &FaultFs, data_dir: &Path) -> Result<Arc<Node>, OpenError> {
    Node::open(options(disk, data_dir)).await
}

/// Posts so many in each partition.
async fn post(node: &Node, count: u64) {
    for partition in (0..PARTITIONS).map(PartitionId) {
        let session = node.open_session(partition).await.unwrap();
        for n in 1..=count {
            let item = Append {
                space: POSTS,
                owner: user(partition),
                author: None,
                audience: Audience::Public,
                ttl: Ttl::SpaceDefault,
                key: None,
                reference: None,
                payload: Bytes::from(vec![n as u8; 700]),
            };
            let tag = WriteTag { session, sequence: Sequence(n), lowest_unanswered: Sequence(n) };
            node.write(partition, tag, Write::Append { items: vec![item] }).await.unwrap();
        }
    }
}

async fn timelines(node: &Node) -> Vec<Vec<EntryId>> {
    let mut all = Vec::new();
    for partition in (0..PARTITIONS).map(PartitionId) {
        let request = TimelineRequest {
            space: POSTS,
            owner: user(partition),
            viewer: None,
            limit: 1_000,
            below: EntryId::MAX,
            hydrate: true,
            at_least: None,
            consistency: crate::read::Consistency::Leader,
        };
        let page = node.read_timeline(&request).await.unwrap();
        all.push(page.entries.iter().map(|entry| entry.id).collect());
    }
    all
}

/// A disk with the data directory of a node that was stopped, and what a backup of it consists of.
struct World {
    disk: FaultFs,
    place: tempfile::TempDir,
    source: Source,
    /// What was posted when the backup was made.
    backed_up: Vec<Vec<EntryId>>,
}

impl World {
    async fn new() -> Self {
        let (disk, place) = (FaultFs::new(), tempfile::tempdir().unwrap());
        let node = open(&disk, &place.path().join("data")).await.unwrap();
        post(&node, 20).await;
        let source = node.source(false, &Arc::new(meter())).await.unwrap();
        let backed_up = timelines(&node).await;
        post(&node, 5).await;
        node.close().await.unwrap();
        Self { disk, place, source, backed_up }
    }

    fn data_dir(&self) -> PathBuf {
        self.place.path().join("data")
    }

    fn backup_dir(&self) -> PathBuf {
        self.place.path().join("backup")
    }

    /// Makes the backup on a copy of the disk.
    fn write(&mut self, disk: &FaultFs) -> Result<Contents, BackupError> {
        self.source.fs = Arc::new(disk.clone());
        write(Prepared::there(self.backup_dir()), self.source.clone(), &meter())
    }

    /// A disk with the whole backup.
    fn backed_up(&mut self) -> FaultFs {
        let disk = self.disk.duplicate();
        self.write(&disk).unwrap();
        disk.duplicate()
    }

    fn backup(&self, disk: &FaultFs) -> Backup {
        Backup::open_on(Arc::new(disk.clone()), &self.backup_dir()).unwrap()
    }
}

/// What a machine is after it stopped: its processes were killed, or it lost power.
fn survivors(disk: &FaultFs) -> [FaultFs; 3] {
    [disk.kill(), disk.lose_power(PowerLoss::LoseAll), disk.lose_power(PowerLoss::KeepAll)]
}

/// The files below a directory, with what they hold.
fn files(disk: &FaultFs, dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let paths = disk.paths().into_iter().filter(|path| path.starts_with(dir));
    paths.map(|path| (path.clone(), disk.content(&path).unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_is_stopped_anywhere_is_whole_or_none() {
    let mut world = World::new().await;
    let (dir, mut none, mut whole) = (world.backup_dir(), 0, 0);
    for stop in 0..OPERATIONS_MAX {
        let disk = world.disk.duplicate();
        disk.stop_after(stop);
        let made = world.write(&disk).is_ok();
        for disk in survivors(&disk) {
            match Backup::open_on(Arc::new(disk.clone()), &dir) {
                Ok(backup) => {
                    backup.check(&|_| true, &meter()).unwrap();
                    whole += 1;
                }
                Err(BackupError::NotABackup { .. }) if !made => none += 1,
                Err(error) => panic!("stopped after {stop}: {error}"),
            }
        }
        if made {
            assert!(none > 3 * 20 && whole > 3, "{none} times there was none, {whole} times a whole one");
            return;
        }
    }
    panic!("it takes for ever");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_is_stopped_anywhere_is_refused_and_run_again() {
    let mut world = World::new().await;
    let base = world.backed_up();
    let clean = world.place.path().join("clean");
    restore(&world.backup(&base), &clean, &meter()).unwrap();
    let expected = |target: &Path| -> BTreeMap<PathBuf, Vec<u8>> {
        let all = files(&base, &clean).into_iter().filter(|(path, _)| !path.ends_with(RESTORE_FILE));
        all.map(|(path, content)| (target.join(path.strip_prefix(&clean).unwrap()), content)).collect()
    };
    let mut refused = 0;
    for stop in 0..OPERATIONS_MAX {
        let mut is_done = false;
        for survivor in 0..3 {
            let target = world.place.path().join(format!("{stop} {survivor}"));
            let disk = base.duplicate();
            disk.stop_after(stop);
            is_done = restore(&world.backup(&disk), &target, &meter()).is_ok();
            let disk = survivors(&disk)[survivor].clone();
            let note = Restored::load(&disk, &target).unwrap();
            if note.as_ref().is_some_and(|note| note.is_finished) {
                let mut found = files(&disk, &target);
                found.retain(|path, _| !path.ends_with(RESTORE_FILE));
                assert!(found == expected(&target), "finished after {stop}, and not whole");
            } else {
                assert!(!is_done, "it was answered, and the note is not there");
                if note.is_some() {
                    let opened = open(&disk, &target).await.map(drop);
                    assert!(matches!(opened, Err(OpenError::RestoreUnfinished { .. })), "{opened:?}");
                    refused += 1;
                } else {
                    let other = |path: &&PathBuf| {
                        !path.file_name().unwrap().to_str().unwrap().starts_with(RESTORE_FILE)
                    };
                    assert_eq!(
                        files(&disk, &target).keys().filter(other).count(),
                        0,
                        "nothing before the note"
                    );
                }
                restore(&world.backup(&disk), &target, &meter()).unwrap();
                let mut found = files(&disk, &target);
                found.retain(|path, _| !path.ends_with(RESTORE_FILE));
                assert!(found == expected(&target), "stopped after {stop}, and run again");
            }
            // To open a node takes longer than all of this.
            if stop.is_multiple_of(8) || is_done {
                let node = open(&disk, &target).await.unwrap();
                assert_eq!(timelines(&node).await, world.backed_up);
                node.close().await.unwrap();
            }
        }
        if is_done {
            assert!(refused > 3 * 10, "refused {refused} times");
            return;
        }
    }
    panic!("it takes for ever");
}

/// What a group's log holds.
fn logged(disk: &FaultFs, dir: &Path) -> Vec<(u64, Bytes)> {
    Image::read(disk, dir, Some(GROUP), &|_| Ok(())).unwrap().entries(GROUP).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_s_restore_that_is_stopped_anywhere_is_refused_and_run_again() {
    let mut world = World::new().await;
    let base = world.backed_up();
    let (data_dir, place) = (world.data_dir(), group_dir(&world.data_dir(), GROUP));
    let before = files(&base, &place);
    let expected: Vec<_> = files(&base, &group_dir(&world.backup_dir(), GROUP)).into_values().collect();
    let entries = logged(&base, &world.backup_dir().join(LOG_DIR));
    let (mut refused, mut untouched) = (0, 0);
    for stop in 0..OPERATIONS_MAX {
        let mut is_done = false;
        for survivor in 0..3 {
            let disk = base.duplicate();
            disk.stop_after(stop);
            is_done = restore_partition(&world.backup(&disk), RESTORED, &data_dir, &meter()).is_ok();
            let disk = survivors(&disk)[survivor].clone();
            match Restored::load(&disk, &data_dir).unwrap() {
                Some(note) if note.is_finished => {}
                Some(_) => {
                    let opened = open(&disk, &data_dir).await.map(drop);
                    assert!(matches!(opened, Err(OpenError::RestoreUnfinished { .. })), "{opened:?}");
                    refused += 1;
                }
                None => {
                    assert!(files(&disk, &place) == before, "nothing is touched before the note is there");
                    untouched += 1;
                }
            }
            if !is_done {
                restore_partition(&world.backup(&disk), RESTORED, &data_dir, &meter()).unwrap();
            }
            let found: Vec<_> = files(&disk, &place).into_values().collect();
            assert!(found == expected, "stopped after {stop}: files");
            assert!(logged(&disk, &data_dir.join(LOG_DIR)) == entries, "stopped after {stop}: log");
            if stop.is_multiple_of(16) || is_done {
                // Its identity is no part of the disk that stops, and is not written.
                let node = open(&disk, &data_dir).await.unwrap();
                let found = timelines(&node).await;
                assert_eq!(found[1], world.backed_up[1]);
                assert_eq!(found[0].len(), 25, "the other partition stays as it was");
                node.close().await.unwrap();
            }
        }
        if is_done {
            assert!(refused > 3 * 5 && untouched > 3, "refused {refused}, untouched {untouched}");
            return;
        }
    }
    panic!("it takes for ever");
}
