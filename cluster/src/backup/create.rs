//! Owns the making of a backup of a running node.
//!
//! - Every group takes a snapshot while nothing is purged; then one position of the log is chosen for all groups. From
//!   there on the files of the snapshots and of the log are kept, and everything else goes on.
//! - Files that never change get a second name in the backup, the log is copied up to the position.
//! - All of it is read back and checked before `backup.json` makes it a backup.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fanfold_storage::fs::FileSystem;
use fanfold_storage::log::{GroupId, Image, LogHold};
use fanfold_storage::snapshot::{Manifest, SnapshotStore};

use super::contents::{self, Contents, FileOf};
use super::error::{At, BackupError};
use super::files::{checksum, copy, link};
use super::sealed;
use crate::identity::LOG_DIR;
use crate::meter::{Cancelled, Meter, Phase};
use crate::raft::{StoredSnapshot, group_dir};
use crate::verify::{Finding, Report};

/// What a backup is made of, kept from being removed.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub fs: Arc<dyn FileSystem>,
    /// Of each group that has one.
    pub snapshots: Vec<StoredSnapshot>,
    pub log: Arc<LogHold>,
    pub contents: Contents,
    /// Whether partitions that are found damaged are left out, or end it.
    pub leaves_out_damaged: bool,
}

/// The empty directory of a backup that is to be made.
#[derive(Debug)]
pub(crate) struct Prepared {
    dir: PathBuf,
    /// What was made for it, the innermost first.
    made: Vec<PathBuf>,
}

/// Makes the directory, which must be empty if it is there, and outside of the data directory.
pub(crate) fn prepare(dir: &Path, data_dir: &Path) -> Result<Prepared, BackupError> {
    if !dir.is_absolute() {
        return Err(BackupError::NotAbsolute { path: dir.to_owned() });
    }
    let there = dir.ancestors().find(|there| there.exists()).unwrap_or(dir);
    let data_dir = data_dir.canonicalize().at(data_dir)?;
    if there.canonicalize().at(there)?.starts_with(&data_dir) {
        return Err(BackupError::InDataDir { path: dir.to_owned(), data_dir });
    }
    let made = dir.ancestors().take_while(|made| *made != there).map(Path::to_owned).collect();
    std::fs::create_dir_all(dir).at(dir)?;
    if std::fs::read_dir(dir).at(dir)?.next().is_some() {
        return Err(BackupError::NotEmpty { path: dir.to_owned() });
    }
    Ok(Prepared { dir: dir.to_owned(), made })
}

impl Prepared {
    /// A directory that is there.
    #[cfg(test)]
    pub fn there(dir: PathBuf) -> Self {
        Self { dir, made: Vec::new() }
    }

    /// Removes what was made for a backup that is not, unless somebody put something there.
    pub fn undo(self) {
        for dir in self.made {
            if let Err(error) = std::fs::remove_dir(&dir) {
                tracing::debug!(?dir, %error, "the directory of an unfinished backup was not removed");
                return;
            }
        }
    }
}

/// Writes the backup into a directory that was prepared. Blocks. What was written is removed on an error.
pub(crate) fn write(prepared: Prepared, source: Source, meter: &Meter) -> Result<Contents, BackupError> {
    let (dir, fs) = (prepared.dir.clone(), source.fs.clone());
    let made = Making { dir: &dir, meter, fs: &*fs }.all(source);
    if made.is_err() {
        for name in [contents::FILE.to_owned(), format!("{}.new", contents::FILE)] {
            // Mostly there is none.
            let _ = fs.remove(&dir.join(name));
        }
        for part in [LOG_DIR, "groups"] {
            if let Err(error) = std::fs::remove_dir_all(dir.join(part)) {
                tracing::debug!(?dir, part, %error, "a part of an unfinished backup was not removed");
            }
        }
        prepared.undo();
    }
    made
}

struct Making<'a> {
    dir: &'a Path,
    meter: &'a Meter,
    fs: &'a dyn FileSystem,
}

impl Making<'_> {
    fn all(&self, source: Source) -> Result<Contents, BackupError> {
        let Self { dir, meter, fs } = self;
        let Source { fs: shared, snapshots, log, mut contents, leaves_out_damaged } = source;
        let bytes = |manifest: &Manifest| manifest.bucket_bytes() + manifest.segment_bytes();
        meter.expect(snapshots.iter().map(|stored| bytes(&stored.manifest)).sum());
        meter.expect(log.segments().map(|segment| 2 * segment.bytes).sum());
        // First, since it grows while it is held; what the snapshots need stays as it is.
        meter.enter(Phase::Log);
        contents.files.extend(self.copy_log(&log)?);
        drop(log);
        self.check_log(&contents)?;
        meter.enter(Phase::Groups);
        for stored in &snapshots {
            self.link(stored)?;
        }
        for stored in &snapshots {
            let group = stored.manifest.group;
            let checked = self.check(&shared, &stored.manifest);
            if let Err(BackupError::Damaged { .. }) = &checked {
                self.tell_of_damage(stored)?;
            }
            match checked {
                Ok(files) => contents.files.extend(files),
                Err(BackupError::Damaged { .. }) if leaves_out_damaged && contents.leave_out(group) => {
                    let left = group_dir(dir, group);
                    std::fs::remove_dir_all(&left).at(&left)?;
                }
                Err(error) => return Err(error),
            }
        }
        contents.files.sort_unstable();
        fs.sync_dir(dir).at(dir)?;
        sealed::write(*fs, dir, contents::FILE, &contents).at(&dir.join(contents::FILE))?;
        if let Some(parent) = dir.parent() {
            fs.sync_dir(parent).at(parent)?;
        }
        Ok(contents)
    }

    /// Gives all files of a snapshot a name in the backup.
    fn link(&self, stored: &StoredSnapshot) -> Result<(), BackupError> {
        let to = group_dir(self.dir, stored.manifest.group);
        self.fs.create_dir_all(&to).at(&to)?;
        for name in stored.manifest.names() {
            let (from, to) = (stored.files.dir.join(&name), to.join(&name));
            link(self.fs, &from, &to, self.meter).map_err(|error| error.of(&to))?;
        }
        self.fs.sync_dir(&to).at(&to)
    }

    /// Reads the files of a snapshot from the backup and checks them.
    fn check(&self, fs: &Arc<dyn FileSystem>, manifest: &Manifest) -> Result<Vec<FileOf>, BackupError> {
        let (place, dir) = (group_dir(Path::new(""), manifest.group), group_dir(self.dir, manifest.group));
        let (store, found) = SnapshotStore::look(fs.clone(), &dir, manifest.group)
            .map_err(|error| self.damaged(Report::of(&error, &dir)))?;
        let mut report = Report::default();
        report.group(&store, &dir, found, self.meter)?;
        if !report.findings.is_empty() {
            return Err(self.damaged(report.findings));
        }
        let file = |name: String| {
            let path = dir.join(&name);
            // That of a segment is known, and was just compared.
            let known = manifest.segments.iter().find(|segment| segment.name == name);
            let (bytes, crc32) = match known {
                Some(segment) => (segment.bytes, segment.checksum),
                None => self.checksum(&path)?,
            };
            Ok(FileOf { path: place.join(name), bytes, crc32 })
        };
        manifest.names().map(file).collect()
    }

    /// Lets the store that the snapshot is of find the damage as well, so that the node writes what it can anew.
    fn tell_of_damage(&self, stored: &StoredSnapshot) -> Result<(), Cancelled> {
        for (name, _) in stored.manifest.named_files() {
            let pace = |bytes| self.meter.take(bytes);
            stored.files.snapshots.check_file(&stored.manifest, &name, &pace, &mut |_| {});
            self.meter.check()?;
        }
        Ok(())
    }

    fn checksum(&self, path: &Path) -> Result<(u64, u32), BackupError> {
        let file = self.fs.open_read(path).at(path)?;
        let bytes = file.len().at(path)?;
        self.meter.expect(bytes);
        let crc32 = checksum(&*file, bytes, self.meter).map_err(|error| error.of(path))?;
        Ok((bytes, crc32))
    }

    /// Copies the log up to its position.
    fn copy_log(&self, log: &LogHold) -> Result<Vec<FileOf>, BackupError> {
        let dir = self.dir.join(LOG_DIR);
        self.fs.create_dir_all(&dir).at(&dir)?;
        let mut files = Vec::new();
        for segment in log.segments() {
            let name = segment.path.file_name().unwrap_or_default();
            let (path, to) = (PathBuf::from(LOG_DIR).join(name), dir.join(name));
            let bytes = segment.bytes.min(segment.file.len().at(segment.path)?);
            let copied = copy(self.fs, segment.file, bytes, &to, self.meter);
            files.push(FileOf { path, bytes, crc32: copied.map_err(|error| error.of(&to))? });
        }
        if !log.is_kept() {
            self.meter.let_go();
        }
        self.meter.check()?;
        self.fs.sync_dir(&dir).at(&dir)?;
        Ok(files)
    }

    /// Reads the copy of the log back as a start would. It may be damaged where only groups have records that are left out.
    fn check_log(&self, contents: &Contents) -> Result<(), BackupError> {
        let dir = self.dir.join(LOG_DIR);
        let image = Image::read(self.fs, &dir, None, &|bytes| self.meter.take_or_end(bytes));
        self.meter.check()?;
        let groups: Vec<_> = contents.groups.iter().map(|of| GroupId(of.group)).collect();
        let findings = Report::of_log(&image?, &groups).findings;
        if findings.is_empty() { Ok(()) } else { Err(self.damaged(findings)) }
    }

    fn damaged(&self, findings: Vec<Finding>) -> BackupError {
        tracing::error!(dir = ?self.dir, findings = findings.len(), "what was to be backed up is damaged");
        BackupError::Damaged { findings }
    }
}
