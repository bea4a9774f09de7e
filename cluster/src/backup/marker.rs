//! Owns the note in a data directory that something was restored into it.
//!
//! - As long as a restore is not finished, no node starts there.
//! - Once it is, the first start changes the incarnations of what was restored (R11) before it serves, and removes the note.

use std::io::ErrorKind;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use fanfold_storage::fs::FileSystem;
use fanfold_storage::ids::PartitionId;
use serde::{Deserialize, Serialize};

use super::error::{At, BackupError};
use super::sealed;
use crate::error::OpenError;

/// The name of the note.
pub(crate) const FILE: &str = "restore.json";

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Restored {
    /// Whether it is all there.
    pub is_finished: bool,
    /// Whether the whole directory comes from a backup.
    pub is_whole: bool,
    /// The partitions whose incarnation is to change.
    pub partitions: Vec<u16>,
    /// The least incarnation that they take: larger than any used before, as long as the wall clock goes forward.
    pub incarnation: u64,
    /// Partitions that begin with nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub empty: Vec<u16>,
    /// That the node goes on without those with which it was in groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alone: Option<Alone>,
}

/// How a node goes on alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Alone {
    /// Its replicas from now on: of all groups in a new cluster, of the catalog in its own.
    pub replica: u64,
    /// Whether it founds a new cluster, whose id its identity has.
    pub founds: bool,
    /// Nodes of its own cluster that are gone.
    pub gone: Vec<u64>,
    /// Nodes of its own cluster that stay, and whose replicas of the catalog are damaged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<u64>,
    /// Partitions that begin empty.
    pub empty: Vec<u16>,
    /// Whether the catalog is made anew of what was written down of it, because nobody who is left has a replica.
    #[serde(default)]
    pub is_catalog_anew: bool,
    /// Whether a start has begun with it, so that it cannot be withdrawn.
    #[serde(default)]
    pub is_begun: bool,
}

impl Restored {
    /// A restore that begins now.
    pub fn begin(partitions: Vec<u16>, is_whole: bool) -> Self {
        let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        Self {
            is_finished: false,
            is_whole,
            partitions,
            incarnation: unix_ms,
            empty: Vec::new(),
            alone: None,
        }
    }

    /// The note in a data directory, if there is one.
    pub fn load(fs: &dyn FileSystem, data_dir: &Path) -> Result<Option<Self>, OpenError> {
        let path = data_dir.join(FILE);
        match sealed::read(fs, &path) {
            Ok(Some(restored)) => Ok(Some(restored)),
            Ok(None) => Err(OpenError::RestoreUnreadable { path }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(OpenError::Io { path, source }),
        }
    }

    /// Writes the note and waits until it is durable.
    pub fn store(&self, fs: &dyn FileSystem, data_dir: &Path) -> Result<(), BackupError> {
        sealed::write(fs, data_dir, FILE, self).at(&data_dir.join(FILE))
    }

    /// Removes the note.
    pub fn remove(fs: &dyn FileSystem, data_dir: &Path) -> Result<(), OpenError> {
        let path = data_dir.join(FILE);
        let removed = fs.remove(&path).and_then(|()| fs.sync_dir(data_dir));
        removed.map_err(|source| OpenError::Io { path, source })
    }

    /// An id for replicas that was never given, if `last` was the last one of which is known: they count up from one, and
    /// a replica is not made in every millisecond since 1970.
    pub fn unused_replica(&self, last: u64) -> u64 {
        self.incarnation.max(last + 1)
    }

    /// Whether the incarnation of a partition is to change.
    pub fn concerns(&self, partition: PartitionId) -> bool {
        self.partitions.contains(&partition.0)
    }
}

#[cfg(test)]
mod tests {
    use fanfold_storage::fs::RealFs;

    use super::*;
    use crate::golden::golden_json;
    use crate::{Node, NodeOptions};

    /// What is written for a note; it must be the golden file, and be read as the same.
    fn assert_golden(name: &str, note: &Restored) {
        let (written, read) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        note.store(&RealFs, written.path()).unwrap();
        let text = golden_json(name, &std::fs::read(written.path().join(FILE)).unwrap());
        std::fs::write(read.path().join("restore.json"), text).unwrap();
        assert_eq!(Restored::load(&RealFs, read.path()).unwrap().as_ref(), Some(note), "{name}");
    }

    #[test]
    fn the_golden_notes_are_read_and_written_again_as_they_are() {
        let mut note = Restored {
            is_finished: true,
            is_whole: false,
            partitions: vec![0, 3],
            incarnation: 1_767_225_600_123,
            empty: Vec::new(),
            alone: None,
        };
        assert_golden("restore", &note);
        note.empty = vec![5];
        note.is_whole = true;
        note.alone = Some(Alone {
            replica: 700,
            founds: true,
            gone: Vec::new(),
            damaged: Vec::new(),
            empty: vec![7],
            is_catalog_anew: false,
            is_begun: true,
        });
        assert_golden("restore_founds", &note);
        note.is_finished = false;
        note.alone = Some(Alone {
            replica: 700,
            founds: false,
            gone: vec![2, 3],
            damaged: vec![4],
            empty: Vec::new(),
            is_catalog_anew: true,
            is_begun: false,
        });
        assert_golden("restore_recovers", &note);
    }

    async fn open(data_dir: &Path) -> Result<std::sync::Arc<Node>, OpenError> {
        Node::open(NodeOptions { partitions: Some(2), ..NodeOptions::new(data_dir) }).await
    }

    #[tokio::test]
    async fn no_node_starts_on_an_unfinished_restore_and_a_finished_one_is_noted_once() {
        let temp = tempfile::tempdir().unwrap();
        let data_dir = temp.path().join("data");
        let node = open(&data_dir).await.unwrap();
        let first = node.incarnations();
        node.close().await.unwrap();
        let mut restored = Restored::begin(vec![1], false);
        restored.store(&RealFs, &data_dir).unwrap();
        assert!(matches!(open(&data_dir).await, Err(OpenError::RestoreUnfinished { .. })));
        restored.is_finished = true;
        restored.store(&RealFs, &data_dir).unwrap();
        let node = open(&data_dir).await.unwrap();
        let second = node.incarnations();
        assert!(second[0] == first[0] && second[1] >= restored.incarnation, "{first:?} {second:?}");
        assert_eq!(Restored::load(&RealFs, &data_dir).unwrap(), None);
        node.close().await.unwrap();
        // One that is older by its clock is newer all the same.
        let older = Restored { incarnation: 1, partitions: vec![0, 1], ..restored };
        older.store(&RealFs, &data_dir).unwrap();
        let node = open(&data_dir).await.unwrap();
        let third = node.incarnations();
        assert!(third.iter().all(|incarnation| *incarnation > second[1]), "{second:?} {third:?}");
        node.close().await.unwrap();
        std::fs::write(data_dir.join(FILE), b"{}").unwrap();
        assert!(matches!(open(&data_dir).await, Err(OpenError::RestoreUnreadable { .. })));
    }
}
