//! Owns the note in a group's directory that says which replica the records and files are of.
//!
//! - It is there before anything of the replica is, so that what one replica wrote never passes for another's.
//! - It outlasts the replica: one that was retired is never opened again.
//!
//! Format: `storage/FORMAT.md`, "Note of the replica".

use std::io;
use std::path::Path;

use fanfold_storage::fs::FileSystem;
use fanfold_storage::log::GroupId;

use super::files::FileError;
use super::types::ReplicaId;

const NAME: &str = "replica";
const UNFINISHED: &str = "replica.new";
const MAGIC: [u8; 4] = *b"FFRN";
const VERSION: u16 = 1;
const FLAG_RETIRED: u16 = 1;
const NOTE_BYTES: usize = 24;
const CRC_AT: usize = 8;

/// Whose a directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Note {
    pub replica: ReplicaId,
    /// Nothing of it counts any more; what is still there is to be removed.
    pub is_retired: bool,
}

impl Note {
    /// Reads the note of a group's directory; none if there is no note, or no directory.
    pub fn read(fs: &dyn FileSystem, dir: &Path, group: GroupId) -> Result<Option<Self>, FileError> {
        let path = dir.join(NAME);
        let io = |source| FileError::Io { path: path.clone(), source };
        let file = match fs.open_read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(io)?,
        };
        let mut bytes = [0; NOTE_BYTES];
        let length = file.len().map_err(io)?;
        let note = if length == NOTE_BYTES as u64 {
            file.read_at(0, &mut bytes).map_err(io)?;
            Self::decode(&bytes, group)
        } else {
            None
        };
        note.map(Some).ok_or(FileError::Note { path })
    }

    /// Writes the note and makes it durable, with its directory.
    pub fn write(self, fs: &dyn FileSystem, dir: &Path, group: GroupId) -> Result<(), FileError> {
        let (path, unfinished) = (dir.join(NAME), dir.join(UNFINISHED));
        let write = || {
            fs.create_dir_all(dir)?;
            match fs.remove(&unfinished) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let file = fs.create(&unfinished)?;
            file.write_at(0, &self.encode(group))?;
            file.sync_data()?;
            fs.rename(&unfinished, &path)?;
            fs.sync_dir(dir)
        };
        write().map_err(|source| FileError::Io { path: path.clone(), source })
    }

    fn encode(self, group: GroupId) -> [u8; NOTE_BYTES] {
        let mut bytes = [0; NOTE_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&VERSION.to_le_bytes());
        bytes[6..8].copy_from_slice(&(if self.is_retired { FLAG_RETIRED } else { 0 }).to_le_bytes());
        bytes[12..16].copy_from_slice(&group.0.to_le_bytes());
        bytes[16..].copy_from_slice(&self.replica.0.to_le_bytes());
        let crc = crc(&bytes);
        bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; NOTE_BYTES], group: GroupId) -> Option<Self> {
        let replica = u64::from_le_bytes(bytes[16..].try_into().ok()?);
        let known = |is_retired: &bool| {
            Self { replica: ReplicaId(replica), is_retired: *is_retired }.encode(group) == *bytes
        };
        let is_retired = [false, true].into_iter().find(known)?;
        Some(Self { replica: ReplicaId(replica), is_retired })
    }
}

/// Checks the note of a group's directory, as the disk has it; `replica` if it is known whose it is. Blocks.
pub fn check(
    fs: &dyn FileSystem,
    dir: &Path,
    group: GroupId,
    replica: Option<ReplicaId>,
) -> Result<(), FileError> {
    let path = dir.join(NAME);
    if let Ok(file) = fs.open_read(&path) {
        file.drop_cache().map_err(|source| FileError::Io { path: path.clone(), source })?;
    }
    let note = Note::read(fs, dir, group)?;
    match replica {
        // One that was whole before notes were written has none until it is opened.
        Some(replica) if note != Some(Note { replica, is_retired: false }) => Err(FileError::Note { path }),
        _ => Ok(()),
    }
}

/// Writes that a group's directory is of a replica. Blocks.
pub fn write(fs: &dyn FileSystem, dir: &Path, group: GroupId, replica: ReplicaId) -> Result<(), FileError> {
    Note { replica, is_retired: false }.write(fs, dir, group)
}

fn crc(bytes: &[u8; NOTE_BYTES]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..CRC_AT]);
    hasher.update(&bytes[CRC_AT + 4..]);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use fanfold_storage::fs::{FaultFs, RealFs};

    use super::*;
    use crate::golden::golden;

    #[test]
    fn the_golden_notes_are_read_and_written_again_as_they_are() {
        let group = GroupId(3);
        for (name, is_retired) in [("note_replica", false), ("note_replica_retired", true)] {
            let (written, read) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let note = Note { replica: ReplicaId(700), is_retired };
            note.write(&RealFs, written.path(), group).unwrap();
            let bytes = golden(name, &std::fs::read(written.path().join(NAME)).unwrap());
            std::fs::write(read.path().join("replica"), bytes).unwrap();
            assert_eq!(Note::read(&RealFs, read.path(), group).unwrap(), Some(note));
        }
    }

    #[test]
    fn a_note_is_read_as_it_was_written_and_never_otherwise() {
        let fs = FaultFs::new();
        let (dir, group) = (Path::new("/groups/0003"), GroupId(3));
        assert_eq!(Note::read(&fs, dir, group).unwrap(), None);
        for is_retired in [false, true] {
            let note = Note { replica: ReplicaId(77), is_retired };
            note.write(&fs, dir, group).unwrap();
            assert_eq!(Note::read(&fs, dir, group).unwrap(), Some(note));
        }
        assert!(matches!(Note::read(&fs, dir, GroupId(4)), Err(FileError::Note { .. })));
        let path = dir.join(NAME);
        let content = fs.content(&path).unwrap();
        for bit in 0..content.len() * 8 {
            let mut flipped = content.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs.damage(&path, &flipped);
            assert!(Note::read(&fs, dir, group).is_err(), "bit {bit}");
        }
    }
}
