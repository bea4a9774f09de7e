//! Owns likenesses: directories in which the node of a stopped node's data directory can be opened without a change to that.
//!
//! - What is written in place (the segments of the log, the identity, notes) is copied, and no spare file of the log. What a node makes once and removes is there by symbolic links,
//!   which cost no room and go alone when they are removed.
//! - The data directory is locked as long as the likeness is there.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::error::{At, BackupError};
use crate::identity::{DataDir, IDENTITY_DIR, LOG_DIR};
use crate::lock::DirLock;
use crate::meter::Meter;
use crate::owner;
use crate::raft::groups_dir;

use super::marker::FILE as NOTE;

/// How the names of files end that never change.
const LINKED: [&str; 3] = ["segment", "manifest", "buckets"];

/// A directory that looks like a data directory, until it is removed.
#[derive(Debug)]
pub struct Likeness {
    /// Where it is.
    pub dir: PathBuf,
    /// The largest file of the log, in bytes: a segment.
    pub log_segment_bytes: Option<u64>,
    _lock: Option<DirLock>,
}

impl Likeness {
    /// Makes one in `dir`, which is not there. `meter` may end it between two files.
    ///
    /// # Errors
    /// A node runs on the data directory, it holds none, or something cannot be read or written; or it was cancelled.
    pub fn make(data_dir: &Path, dir: &Path, meter: &Meter) -> Result<Self, BackupError> {
        let original = DataDir::at(data_dir);
        if !original.has_identity() {
            return Err(BackupError::NoNode { data_dir: data_dir.to_owned() });
        }
        let lock = DirLock::hold(data_dir)?;
        let data_dir = data_dir.canonicalize().at(data_dir)?;
        std::fs::create_dir_all(dir).at(dir)?;
        copy_all(&data_dir.join(IDENTITY_DIR), &dir.join(IDENTITY_DIR))?;
        copy_log(&data_dir.join(LOG_DIR), &dir.join(LOG_DIR), meter)?;
        copy_if_there(&data_dir.join(NOTE), &dir.join(NOTE))?;
        let groups = groups_dir(&data_dir);
        for group in names(&groups)? {
            let (from, to) = (groups.join(&group), groups_dir(dir).join(&group));
            std::fs::create_dir_all(&to).at(&to)?;
            for name in names(&from)? {
                let (from, to) = (from.join(&name), to.join(&name));
                match from.extension().and_then(|ending| ending.to_str()) {
                    Some(ending) if LINKED.contains(&ending) => {
                        std::os::unix::fs::symlink(&from, &to).at(&to)?;
                    }
                    // Nobody knows of it: its writer was stopped.
                    Some("new") => {}
                    _ => copy_if_there(&from, &to)?,
                }
            }
        }
        let log = dir.join(LOG_DIR);
        let lengths = names(&log)?.into_iter().map(|name| log.join(name).metadata().map(|meta| meta.len()));
        let log_segment_bytes = lengths.collect::<io::Result<Vec<_>>>().at(&log)?.into_iter().max();
        Ok(Self { dir: dir.to_owned(), log_segment_bytes, _lock: lock })
    }
}

/// The names in a directory; none if it is not there.
fn names(dir: &Path) -> Result<Vec<std::ffi::OsString>, BackupError> {
    let items = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        items => items.at(dir)?,
    };
    items.map(|item| item.map(|item| item.file_name())).collect::<io::Result<_>>().at(dir)
}

/// Copies the segments of a log, and the note whose it is; what waits to be used again, or is none yet, holds nothing.
fn copy_log(from: &Path, to: &Path, meter: &Meter) -> Result<(), BackupError> {
    std::fs::create_dir_all(to).at(to)?;
    let is_segment = |name: &Path| name.extension().is_some_and(|ending| ending == "log");
    for name in names(from)? {
        meter.check()?;
        if is_segment(Path::new(&name)) || from.join(&name) == owner::path(from) {
            copy_if_there(&from.join(&name), &to.join(&name))?;
        }
    }
    Ok(())
}

/// Copies a directory with all that is in it.
pub(crate) fn copy_all(from: &Path, to: &Path) -> Result<(), BackupError> {
    std::fs::create_dir_all(to).at(to)?;
    for name in names(from)? {
        let (from, to) = (from.join(&name), to.join(&name));
        if from.is_dir() { copy_all(&from, &to)? } else { copy_if_there(&from, &to)? }
    }
    Ok(())
}

/// Copies a plain file; whoever may read it may write to the copy.
fn copy_if_there(from: &Path, to: &Path) -> Result<(), BackupError> {
    let mut source = match File::open(from) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        source => source.at(from)?,
    };
    if source.metadata().at(from)?.is_file() {
        io::copy(&mut source, &mut File::create(to).at(to)?).at(to)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_log_its_segments_and_the_note_whose_it_is_are_copied_and_nothing_else() {
        let temp = tempfile::tempdir().unwrap();
        let (from, to) = (temp.path().join("from"), temp.path().join("to"));
        std::fs::create_dir(&from).unwrap();
        let (segment, spare) = ("0000000000000002.log", "0000000000000001.spare");
        for name in [segment, spare, "0000000000000003.new", "node", "node.new"] {
            std::fs::write(from.join(name), name).unwrap();
        }
        copy_log(&from, &to, &Meter::new(None)).unwrap();
        let mut copied = names(&to).unwrap();
        copied.sort();
        assert_eq!(copied, [segment, "node"]);
        assert_eq!(std::fs::read_to_string(to.join(segment)).unwrap(), segment);
    }
}
