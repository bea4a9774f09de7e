//! Owns the note in the directory of a log that says which node of which cluster wrote it.
//!
//! - A log may be on a disk of its own, and be put under another node of the same cluster by mistake: nothing in its records
//!   tells. The note is looked at before the log is opened, and so before anything of it is changed.
//! - It is written when the node is founded or has joined; a log without one takes the first node that opens it.
//! - A backup has none: what is restored is of whoever starts it.
//!
//! Format: `storage/FORMAT.md`, "Note of the log's node".

use std::io;
use std::path::{Path, PathBuf};

use fanfold_storage::fs::FileSystem;

use crate::identity::Identity;

const NAME: &str = "node";
const UNFINISHED: &str = "node.new";
const MAGIC: [u8; 4] = *b"FFLN";
const VERSION: u16 = 1;
const NOTE_BYTES: usize = 40;
const CRC_AT: usize = 8;

/// Where the note of a log is.
pub(crate) fn path(log_dir: &Path) -> PathBuf {
    log_dir.join(NAME)
}

/// Whose a log is, if that is noted. One that is not as it was written is an error of kind `InvalidData`.
pub(crate) fn read(fs: &dyn FileSystem, log_dir: &Path) -> io::Result<Option<Identity>> {
    let file = match fs.open_read(&path(log_dir)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut bytes = [0; NOTE_BYTES];
    if file.len()? == NOTE_BYTES as u64 {
        file.read_at(0, &mut bytes)?;
        if let Some(identity) = decode(&bytes) {
            return Ok(Some(identity));
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}

/// Writes whose a log is, and makes it durable.
pub(crate) fn write(fs: &dyn FileSystem, log_dir: &Path, identity: Identity) -> io::Result<()> {
    let unfinished = log_dir.join(UNFINISHED);
    match fs.remove(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = fs.create(&unfinished)?;
    file.write_at(0, &encode(identity))?;
    file.sync_data()?;
    fs.rename(&unfinished, &path(log_dir))?;
    fs.sync_dir(log_dir)
}

fn encode(identity: Identity) -> [u8; NOTE_BYTES] {
    let mut bytes = [0; NOTE_BYTES];
    bytes[..4].copy_from_slice(&MAGIC);
    bytes[4..6].copy_from_slice(&VERSION.to_le_bytes());
    bytes[16..32].copy_from_slice(&identity.cluster_id.to_le_bytes());
    bytes[32..].copy_from_slice(&identity.node_id.to_le_bytes());
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..CRC_AT]);
    hasher.update(&bytes[CRC_AT + 4..]);
    bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&hasher.finalize().to_le_bytes());
    bytes
}

fn decode(bytes: &[u8; NOTE_BYTES]) -> Option<Identity> {
    let cluster_id = u128::from_le_bytes(bytes[16..32].try_into().ok()?);
    let node_id = u64::from_le_bytes(bytes[32..].try_into().ok()?);
    let identity = Identity { cluster_id, node_id };
    (encode(identity) == *bytes).then_some(identity)
}

#[cfg(test)]
mod tests {
    use fanfold_storage::fs::{FaultFs, RealFs};

    use super::*;
    use crate::golden::golden;

    #[test]
    fn the_golden_note_is_read_and_written_again_as_it_is() {
        let temp = tempfile::tempdir().unwrap();
        let identity = Identity { cluster_id: 0x0123_4567_89ab_cdef_1122_3344_5566_7788, node_id: 0x0102 };
        write(&RealFs, temp.path(), identity).unwrap();
        let note = golden("note_node", &std::fs::read(path(temp.path())).unwrap());
        let other = tempfile::tempdir().unwrap();
        std::fs::write(other.path().join("node"), note).unwrap();
        assert_eq!(read(&RealFs, other.path()).unwrap(), Some(identity));
    }

    #[test]
    fn a_note_is_read_as_it_was_written_and_never_otherwise() {
        let (fs, dir) = (FaultFs::new(), Path::new("/log"));
        fs.create_dir_all(dir).unwrap();
        assert_eq!(read(&fs, dir).unwrap(), None);
        for node_id in [2, 3] {
            let identity = Identity { cluster_id: u128::MAX - 5, node_id };
            write(&fs, dir, identity).unwrap();
            assert_eq!(read(&fs, dir).unwrap(), Some(identity));
        }
        let content = fs.content(&path(dir)).unwrap();
        for bit in 0..content.len() * 8 {
            let mut flipped = content.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs.damage(&path(dir), &flipped);
            assert!(read(&fs, dir).is_err(), "bit {bit}");
        }
    }
}
