//! Owns the making of a backup of a running node.
//!
//! - Every group takes a snapshot while nothing is purged; then one position of the log is chosen for all groups. From
//!   there on the files of the snapshots and of the log are kept, and everything else goes on.
//! - Files that never change get a second name in the backup, the log is copied up to the position.
//! - All of it is read back and checked before `backup.json` makes it a backup.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fanfold_storage::fs::FileSystem;
use fanfold_storage::log::{Image, LogHold};
use fanfold_storage::snapshot::{Manifest, SnapshotStore};

use super::contents::{self, Contents, FileOf};
use super::error::{At, BackupError};
use super::files::{checksum, copy, link};
use super::sealed;
use crate::identity::LOG_DIR;
use crate::meter::{Meter, Phase};
use crate::raft::{StoredSnapshot, group_dir};
use crate::verify::{Finding, Report};

/// What a backup is made of, kept from being removed.
#[derive(Debug)]
pub(crate) struct Source {
    pub fs: Arc<dyn FileSystem>,
    /// Of each group that has one.
    pub snapshots: Vec<StoredSnapshot>,
    pub log: LogHold,
    pub contents: Contents,
}

/// Makes the directory, which must be empty if it is there.
pub(crate) fn prepare(dir: &Path) -> Result<(), BackupError> {
    if !dir.is_absolute() {
        return Err(BackupError::NotAbsolute { path: dir.to_owned() });
    }
    std::fs::create_dir_all(dir).at(dir)?;
    if std::fs::read_dir(dir).at(dir)?.next().is_some() {
        return Err(BackupError::NotEmpty { path: dir.to_owned() });
    }
    Ok(())
}

/// Writes the backup into a directory that was prepared. Blocks. What was written is removed on an error.
pub(crate) fn write(dir: &Path, source: &Source, meter: &Meter) -> Result<Contents, BackupError> {
    let made = Making { dir, meter, fs: &*source.fs }.all(source);
    if made.is_err() {
        for name in [contents::FILE.to_owned(), format!("{}.new", contents::FILE)] {
            // Mostly there is none.
            let _ = source.fs.remove(&dir.join(name));
        }
        for part in [LOG_DIR, "groups"] {
            if let Err(error) = std::fs::remove_dir_all(dir.join(part)) {
                tracing::debug!(?dir, part, %error, "a part of an unfinished backup was not removed");
            }
        }
    }
    made
}

struct Making<'a> {
    dir: &'a Path,
    meter: &'a Meter,
    fs: &'a dyn FileSystem,
}

impl Making<'_> {
    fn all(&self, source: &Source) -> Result<Contents, BackupError> {
        let Self { dir, meter, fs } = self;
        let mut contents = source.contents.clone();
        let bytes = |manifest: &Manifest| manifest.bucket_bytes() + manifest.segment_bytes();
        meter.expect(source.snapshots.iter().map(|stored| bytes(&stored.manifest)).sum());
        meter.expect(source.log.segments().map(|segment| 2 * segment.bytes).sum());
        meter.enter(Phase::Groups);
        for stored in &source.snapshots {
            self.link(stored)?;
        }
        for stored in &source.snapshots {
            contents.files.extend(self.check(source, &stored.manifest)?);
        }
        meter.enter(Phase::Log);
        contents.files.extend(self.log(&source.log)?);
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
    fn check(&self, source: &Source, manifest: &Manifest) -> Result<Vec<FileOf>, BackupError> {
        let (place, dir) = (group_dir(Path::new(""), manifest.group), group_dir(self.dir, manifest.group));
        let (store, found) = SnapshotStore::look(source.fs.clone(), &dir, manifest.group)
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

    fn checksum(&self, path: &Path) -> Result<(u64, u32), BackupError> {
        let file = self.fs.open_read(path).at(path)?;
        let bytes = file.len().at(path)?;
        self.meter.expect(bytes);
        let crc32 = checksum(&*file, bytes, self.meter).map_err(|error| error.of(path))?;
        Ok((bytes, crc32))
    }

    /// Copies the log up to its position, and reads the copy back as a start would.
    fn log(&self, log: &LogHold) -> Result<Vec<FileOf>, BackupError> {
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
        self.fs.sync_dir(&dir).at(&dir)?;
        let image = Image::read(self.fs, &dir, None, &|bytes| self.meter.take_or_end(bytes));
        self.meter.check()?;
        let image = image?;
        let findings = Report::of_log(&image).findings;
        if findings.is_empty() { Ok(files) } else { Err(self.damaged(findings)) }
    }

    fn damaged(&self, findings: Vec<Finding>) -> BackupError {
        tracing::error!(dir = ?self.dir, findings = findings.len(), "what was to be backed up is damaged");
        BackupError::Damaged { findings }
    }
}
