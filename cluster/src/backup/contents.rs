//! Owns the list of what a backup consists of, and the check that all of it is there.

use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use fanfold_storage::fs::{FileSystem, RealFs};
use fanfold_storage::log::GroupId;
use serde::{Deserialize, Serialize};

use super::error::{At, BackupError};
use super::files::{Failed, checksum};
use super::sealed;
use crate::identity::Identity;
use crate::meter::{Meter, Phase};
use crate::raft::group_dir;
use crate::verify::Finding;

/// The version of the format of backups.
const FORMAT: u32 = 1;

/// The file that makes a directory a backup.
pub(super) const FILE: &str = "backup.json";

/// What a backup consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// The version of the format.
    format: u32,
    /// The cluster, in hexadecimal digits.
    cluster: String,
    /// The node.
    pub node: u64,
    /// The number of partitions of the cluster.
    pub partitions: u16,
    /// When it was begun, in Unix milliseconds.
    pub made_unix_ms: u64,
    /// Where the log was cut, for all groups.
    pub log_position: u64,
    /// Whether the cluster had other nodes, so that what is restored founds a cluster of its own.
    #[serde(default)]
    pub is_of_cluster: bool,
    /// How many nodes the cluster had, if it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<u64>,
    /// The groups that are in it, by number; none are listed in a backup of a time when a node had all of them.
    #[serde(default)]
    pub groups: Vec<GroupOf>,
    /// Partitions that the node has and that were damaged, so that they are not in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<u16>,
    /// All files, by path.
    pub files: Vec<FileOf>,
}

/// A group of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupOf {
    /// The group: 0 is the catalog, partition `n` has `n` + 1.
    pub group: u32,
    /// The replica on the node.
    pub replica: u64,
    /// Up to which index the node had applied it: the state that is in the backup, at least.
    pub index: u64,
    /// Whether the node led it; one that did not may have been behind.
    pub is_led: bool,
    /// The first replica of the group that counts, as the node knew: what older ones had was given up. 0: all do.
    #[serde(default)]
    pub since: u64,
}

/// A file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FileOf {
    /// Where it is in the backup, and in a data directory.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// CRC-32 over all of it.
    pub crc32: u32,
}

/// A finished backup.
#[derive(Debug, Clone)]
pub struct Backup {
    /// Its directory.
    pub dir: PathBuf,
    /// What it consists of.
    pub contents: Contents,
    /// What it is read, and restored, through.
    pub(super) fs: Arc<dyn FileSystem>,
}

impl Contents {
    /// What is known before any file is there.
    pub(crate) fn begin(identity: Identity, partitions: u16, made_unix_ms: u64, log_position: u64) -> Self {
        Self {
            format: FORMAT,
            cluster: format!("{:032x}", identity.cluster_id),
            node: identity.node_id,
            partitions,
            made_unix_ms,
            log_position,
            is_of_cluster: false,
            nodes: None,
            groups: Vec::new(),
            left_out: Vec::new(),
            files: Vec::new(),
        }
    }

    /// Which node of which cluster it is of.
    pub fn identity(&self) -> Identity {
        let cluster_id = u128::from_str_radix(&self.cluster, 16).unwrap_or_default();
        Identity { cluster_id, node_id: self.node }
    }

    /// Leaves a partition out; not the catalog, without which the others are nothing.
    pub(crate) fn leave_out(&mut self, group: GroupId) -> bool {
        let Some(partition) = group.0.checked_sub(1) else { return false };
        self.groups.retain(|of| of.group != group.0);
        self.left_out.push(partition as u16);
        self.left_out.sort_unstable();
        // What is restored begins it empty, and that is a history of its own.
        self.is_of_cluster = true;
        true
    }

    /// The group as it is in the backup, if it is: its index, or 0 in a backup that does not say.
    pub(super) fn index_of(&self, group: GroupId) -> Option<u64> {
        if self.groups.is_empty() && !self.is_of_cluster {
            return Some(0);
        }
        self.groups.iter().find(|known| known.group == group.0).map(|known| known.index)
    }

    /// Whether its groups had replicas on other nodes; one that does not say counts as such if it may be.
    pub(super) fn had_others(&self) -> bool {
        self.nodes.map_or(self.is_of_cluster, |nodes| nodes > 1)
    }

    /// The first replica of a group that counts, as far as this backup knows.
    pub(super) fn since(&self, group: GroupId) -> u64 {
        self.groups.iter().find(|known| known.group == group.0).map_or(0, |known| known.since)
    }

    /// Whether the group as it is in the backup is of a replica that counts.
    pub(super) fn counts(&self, group: GroupId, since: u64) -> bool {
        self.groups.iter().find(|known| known.group == group.0).is_none_or(|known| known.replica >= since)
    }

    /// The partitions that are not in it.
    pub fn missing(&self) -> Vec<u16> {
        let is_missing = |partition: &u16| self.index_of(GroupId(u32::from(*partition) + 1)).is_none();
        (0..self.partitions).filter(is_missing).collect()
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Whether it is of this format, and no path leads out of a directory.
    fn is_sound(&self) -> bool {
        let inside = |path: &Path| path.components().all(|part| matches!(part, Component::Normal(_)));
        u128::from_str_radix(&self.cluster, 16).is_ok()
            && self.partitions > 0
            && self.files.iter().all(|file| inside(&file.path))
    }
}

impl FileOf {
    /// Whether it is part of the log.
    pub(super) fn is_log(&self) -> bool {
        self.path.starts_with("log")
    }

    /// Whether it is of this group's directory.
    pub(super) fn is_of(&self, group: GroupId) -> bool {
        self.path.starts_with(group_dir(Path::new(""), group))
    }
}

impl Backup {
    /// Reads what a backup consists of; the files themselves are not looked at.
    pub fn open(dir: &Path) -> Result<Self, BackupError> {
        Self::open_on(Arc::new(RealFs), dir)
    }

    /// Like [`Backup::open`], on another file system.
    pub(super) fn open_on(fs: Arc<dyn FileSystem>, dir: &Path) -> Result<Self, BackupError> {
        let path = dir.join(FILE);
        let contents: Option<Contents> = match sealed::read(&*fs, &path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(BackupError::NotABackup { path: dir.to_owned() });
            }
            contents => contents.at(&path)?,
        };
        let contents = contents.filter(Contents::is_sound).ok_or(BackupError::Contents { path })?;
        if contents.format != FORMAT {
            let (path, found, supported) = (dir.to_owned(), contents.format, FORMAT);
            return Err(BackupError::Format { path, found, supported });
        }
        Ok(Self { dir: dir.to_owned(), contents, fs })
    }

    /// What is missing, or has another length than it should.
    pub fn incomplete(&self) -> Vec<Finding> {
        let found = |file: &FileOf| {
            let path = self.dir.join(&file.path);
            let what = match self.fs.open_read(&path).and_then(|opened| opened.len()) {
                Ok(bytes) if bytes == file.bytes => return None,
                Ok(bytes) => format!("{bytes} bytes where {} were written", file.bytes),
                Err(error) => error.to_string(),
            };
            Some(Finding { path, offset: None, what })
        };
        self.contents.files.iter().filter_map(found).collect()
    }

    /// Reads the files that `wanted` names and compares them with what was written.
    pub fn check(&self, wanted: &dyn Fn(&FileOf) -> bool, meter: &Meter) -> Result<(), BackupError> {
        let files: Vec<_> = self.contents.files.iter().filter(|file| wanted(file)).collect();
        let mut findings = self.incomplete();
        findings.retain(|finding| files.iter().any(|file| self.dir.join(&file.path) == finding.path));
        meter.enter(Phase::Groups);
        meter.expect(files.iter().map(|file| file.bytes).sum());
        for file in files {
            let path = self.dir.join(&file.path);
            if findings.iter().any(|finding| finding.path == path) {
                continue;
            }
            let opened = self.fs.open_read(&path).map_err(Failed::from);
            let what = match opened.and_then(|opened| checksum(&*opened, file.bytes, meter)) {
                Ok(crc32) if crc32 == file.crc32 => continue,
                Ok(_) => "another checksum than was written".to_owned(),
                Err(Failed::Io(error)) => error.to_string(),
                Err(Failed::Cancelled(cancelled)) => return Err(cancelled.into()),
            };
            findings.push(Finding { path, offset: None, what });
        }
        if findings.is_empty() { Ok(()) } else { Err(BackupError::Damaged { findings }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::golden_json;

    fn file(path: &str, bytes: u64, crc32: u32) -> FileOf {
        FileOf { path: path.into(), bytes, crc32 }
    }

    /// What is written for a list; it must be the golden file, and be read as the same.
    fn assert_golden(name: &str, contents: &Contents) {
        let (written, read) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        sealed::write(&RealFs, written.path(), FILE, contents).unwrap();
        let text = golden_json(name, &std::fs::read(written.path().join(FILE)).unwrap());
        std::fs::write(read.path().join("backup.json"), text).unwrap();
        assert_eq!(Backup::open(read.path()).unwrap().contents, *contents, "{name}");
    }

    #[test]
    fn the_golden_lists_are_read_and_written_again_as_they_are() {
        let mut contents = Contents {
            format: 1,
            cluster: "0123456789abcdef0123456789abcdef".to_owned(),
            node: 2,
            partitions: 16,
            made_unix_ms: 1_767_225_600_123,
            log_position: 81_920,
            is_of_cluster: false,
            nodes: None,
            groups: vec![
                GroupOf { group: 0, replica: 1, index: 12, is_led: true, since: 0 },
                GroupOf { group: 4, replica: 700, index: 99, is_led: false, since: 650 },
            ],
            left_out: Vec::new(),
            files: vec![
                file("log/000000000000001c.log", 65_536, 0xdead_beef),
                file("groups/0004/0000000000000020.manifest", 321, 7),
            ],
        };
        assert_golden("backup", &contents);
        contents.is_of_cluster = true;
        contents.left_out = vec![1, 5];
        assert_golden("backup_left_out", &contents);
        contents.nodes = Some(1);
        assert_golden("backup_nodes", &contents);
    }

    #[test]
    fn a_list_without_what_may_be_left_out_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let body = serde_json::json!({
            "format": 1, "cluster": "1f", "node": 1, "partitions": 2, "made_unix_ms": 3, "log_position": 4, "files": [],
        });
        sealed::write(&RealFs, dir.path(), FILE, &body).unwrap();
        let mut contents = Contents::begin(Identity { cluster_id: 0x1f, node_id: 1 }, 2, 3, 4);
        contents.cluster = "1f".to_owned();
        assert_eq!(Backup::open(dir.path()).unwrap().contents, contents);
    }
}
