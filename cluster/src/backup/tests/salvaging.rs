//! Stops of a salvage: of a partition of which nothing is lost, or what its log has behind a snapshot, or all of it, and of the
//! catalog.

use fanfold_storage::fs::FileSystem;
use fanfold_storage::log::GroupState;

use super::super::salvage::salvage_on;
use super::*;

const CATALOG: GroupId = GroupId(0);

/// What is damaged of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damaged {
    /// The note that says whose its directory is.
    Note,
    /// The newest snapshot.
    Newest,
    /// An entry behind all snapshots, and so many snapshots, the newest first.
    Log { snapshots: usize },
}

/// A disk on which a node was stopped: its partitions have two snapshots and entries behind each, its catalog has one.
struct Stopped {
    disk: FaultFs,
    place: tempfile::TempDir,
    /// What was there at the snapshots, and at the end.
    posted: Vec<Vec<Vec<EntryId>>>,
}

impl Stopped {
    async fn new() -> Self {
        let (disk, place) = (FaultFs::new(), tempfile::tempdir().unwrap());
        let node = open(&disk, &place.path().join("data")).await.unwrap();
        let mut posted = Vec::new();
        for count in [20, 5] {
            post(&node, count).await;
            drop(node.source(false, &Arc::new(meter())).await.unwrap());
            posted.push(timelines(&node).await);
        }
        post(&node, 3).await;
        posted.push(timelines(&node).await);
        node.close().await.unwrap();
        Self { disk, place, posted }
    }

    fn data_dir(&self) -> PathBuf {
        self.place.path().join("data")
    }

    fn log_dir(&self) -> PathBuf {
        self.data_dir().join(LOG_DIR)
    }

    /// A copy of the disk with this damage.
    fn damaged(&self, group: GroupId, damaged: Damaged) -> FaultFs {
        let (disk, dir) = (self.disk.duplicate(), group_dir(&self.data_dir(), group));
        let flip = |path: &Path, at: usize| {
            let mut content = disk.content(path).unwrap();
            content[at] ^= 1;
            assert!(disk.damage(path, &content));
        };
        if damaged == Damaged::Note {
            flip(&dir.join("replica"), 20);
        }
        let snapshots = match damaged {
            Damaged::Note => 0,
            Damaged::Newest => 1,
            Damaged::Log { snapshots } => snapshots,
        };
        let manifests: Vec<_> = files(&disk, &dir)
            .into_keys()
            .filter(|path| path.extension().is_some_and(|kind| kind == "manifest"))
            .collect();
        assert_eq!(manifests.len(), if group == CATALOG { 1 } else { 2 });
        manifests.iter().rev().take(snapshots).for_each(|path| flip(path, 40));
        if matches!(damaged, Damaged::Log { .. }) {
            // The first that was posted behind the snapshots is what stands last of all that are alike.
            let payload = [1; 700];
            let mut places = files(&disk, &self.log_dir()).into_iter().filter_map(|(path, content)| {
                let at = content.windows(payload.len()).rposition(|bytes| bytes == payload)?;
                Some((path, at))
            });
            let (path, at) = places.next_back().unwrap();
            flip(&path, at);
        }
        disk
    }

    fn salvage(&self, disk: &FaultFs, partition: Option<PartitionId>) -> Result<Salvage, BackupError> {
        let fs: Arc<dyn FileSystem> = Arc::new(disk.clone());
        salvage_on(&fs, &self.data_dir(), partition, false, &meter())
    }

    /// What the group's directory and the log hold of it.
    fn contents(&self, disk: &FaultFs, group: GroupId) -> (BTreeMap<PathBuf, Vec<u8>>, GroupState) {
        let image = Image::read(disk, &self.log_dir(), Some(group), &|_| Ok(())).unwrap();
        (files(disk, &group_dir(&self.data_dir(), group)), image.group_state(group))
    }

    /// Stops a salvage after each operation; each next one leaves the disk in another way. Whatever becomes of it, the node starts
    /// with what the state was after so many snapshots, or with nothing.
    async fn stop_anywhere(&self, partition: Option<PartitionId>, damaged: Damaged, left: Option<usize>) {
        let group = partition.map_or(CATALOG, |_| GROUP);
        let base = self.damaged(group, damaged);
        let whole = base.duplicate();
        let begins = self.salvage(&whole, partition).unwrap().begins;
        let (before, expected) = (self.contents(&base, group), self.contents(&whole, group));
        let (mut refused, mut untouched) = (0, 0);
        for stop in 0..OPERATIONS_MAX {
            let what = format!("{damaged:?} of {partition:?}, stopped after {stop}");
            let disk = base.duplicate();
            disk.stop_after(stop);
            let is_done = self.salvage(&disk, partition).is_ok();
            let disk = survivors(&disk)[stop as usize % 3].clone();
            match Restored::load(&disk, &self.data_dir()).unwrap() {
                Some(note) if note.is_finished => {
                    assert!(self.contents(&disk, group) == expected, "{what}: finished, and not whole");
                }
                Some(_) => {
                    let opened = open(&disk, &self.data_dir()).await.map(drop);
                    assert!(matches!(opened, Err(OpenError::RestoreUnfinished { .. })), "{what}: {opened:?}");
                    refused += 1;
                }
                None if partition.is_some() => {
                    assert!(!is_done, "{what}: it was answered, and the note is not there");
                    assert!(
                        self.contents(&disk, group) == before,
                        "{what}: touched before the note was there"
                    );
                    untouched += 1;
                }
                // Of the catalog nothing is lost, wherever that stops.
                None if stop.is_multiple_of(4) => match open(&disk.duplicate(), &self.data_dir()).await {
                    Ok(node) => {
                        assert_eq!(timelines(&node).await, self.posted[2], "{what}");
                        node.close().await.unwrap();
                    }
                    Err(error) => assert!(!is_done, "{what}: {error}"),
                },
                None => {}
            }
            if !is_done {
                let again = self.salvage(&disk, partition).unwrap().begins;
                // Once the log goes on from the snapshot as well, nothing is lost any more.
                assert!(
                    again == begins || again == Begins::Whole && begins != Begins::Empty,
                    "{what}: {again:?}"
                );
            }
            assert!(self.contents(&disk, group) == expected, "{what}: run again");
            // To open a node takes longer than all of this.
            if stop.is_multiple_of(8) || is_done {
                let node = open(&disk, &self.data_dir()).await.unwrap();
                let found = timelines(&node).await;
                let left = left.map_or(Vec::new(), |snapshots| self.posted[snapshots][1].clone());
                assert_eq!(found, [self.posted[2][0].clone(), left], "{what}");
                node.close().await.unwrap();
            }
            if is_done {
                assert!(partition.is_none() || refused > 8 && untouched > 3, "{what}: {refused} {untouched}");
                assert!(stop > 5, "{what}");
                return;
            }
        }
        panic!("it takes for ever");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_salvage_that_is_stopped_anywhere_is_run_again_and_loses_no_more() {
    let stopped = Stopped::new().await;
    let of_it = Some(RESTORED);
    for (damaged, left) in [
        (Damaged::Note, Some(2)),
        (Damaged::Newest, Some(2)),
        (Damaged::Log { snapshots: 0 }, Some(1)),
        (Damaged::Log { snapshots: 1 }, Some(0)),
        (Damaged::Log { snapshots: 2 }, None),
    ] {
        stopped.stop_anywhere(of_it, damaged, left).await;
    }
    for damaged in [Damaged::Note, Damaged::Newest] {
        stopped.stop_anywhere(None, damaged, Some(2)).await;
    }
}
