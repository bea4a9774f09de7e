//! Owns the check of everything that a node keeps on disk, while it runs and while it does not.
//!
//! - Every checksum is computed from what the disk says, past the page cache as far as that can be done.
//! - Everything that is wrong is reported, with file and offset; nothing is changed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fanfold_storage::fs::{FileSystem, RealFs};
use fanfold_storage::log::{GroupId, Image, Inspected, LogHold, OpenError as LogOpenError, inspect};
use fanfold_storage::snapshot::{Found, Manifest, SnapshotError, SnapshotStore};

use crate::error::OpenError;
use crate::inspect::{Inspection, concerned, name_of};
use crate::meter::{Cancelled, Meter, Phase};
use crate::raft::{StoredSnapshot, group_dir};

/// Something that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub path: PathBuf,
    /// Where in it, in bytes, if that can be said.
    pub offset: Option<u64>,
    /// What is wrong, for people.
    pub what: String,
}

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Everything that is wrong.
    pub findings: Vec<Finding>,
    /// Files that were read; a log that was read counts as one.
    pub files: u64,
}

/// Checks the data directory of a node that is not running. It is locked meanwhile.
pub fn verify_data_dir(data_dir: &Path, meter: &Meter) -> Result<Report, VerifyError> {
    let inspection = Inspection::begin(data_dir)?;
    let mut report = Report::default();
    if let Some(path) = inspection.unreadable_identity()? {
        let what = "the identity is unreadable; the next start rebuilds it from the log".to_owned();
        report.findings.push(Finding { path, offset: None, what });
    }
    let groups = inspection.groups()?;
    let log_dir = inspection.log_dir();
    meter.expect(bytes_in(&log_dir));
    let mut looked = Vec::new();
    for group in groups {
        let dir = group_dir(data_dir, group);
        let found = SnapshotStore::look(Arc::new(RealFs), &dir, group);
        looked.push((group, found.map_err(|error| report.add(&error, &dir)).ok(), dir));
    }
    for (_, looked, _) in &looked {
        let manifests =
            looked.iter().flat_map(|(_, found)| found).filter_map(|found| found.manifest.as_ref().ok());
        expect(meter, manifests.map(|manifest| &**manifest));
    }
    meter.enter(Phase::Groups);
    let mut newest = Vec::new();
    for (group, looked, dir) in looked {
        let whole = match looked {
            Some((store, found)) => report.group(&store, &dir, found, meter)?,
            None => None,
        };
        newest.push((group, dir, whole));
    }
    meter.enter(Phase::Log);
    match Image::read(&RealFs, &log_dir, None, &|bytes| meter.take_or_end(bytes)) {
        Ok(image) => {
            report.log(&image);
            for (group, dir, whole) in newest {
                report.reach(&image, group, &dir, whole);
            }
        }
        // It ends at the first file that cannot be used; here are all.
        Err(error) => {
            meter.check()?;
            report.log_places(&error, &log_dir)?;
        }
    }
    Ok(report)
}

/// Why a check did not come to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] OpenError),
    /// Somebody ended it.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// What is checked on a running node: snapshots that are kept meanwhile, and its log.
#[derive(Debug)]
pub(crate) struct Held {
    pub data_dir: PathBuf,
    pub fs: Arc<dyn FileSystem>,
    /// Newest first in each group.
    pub snapshots: Vec<StoredSnapshot>,
    /// Groups that do not run here, because the log is damaged.
    pub refusing: Vec<GroupId>,
    pub log: LogHold,
}

/// Checks a running node. Blocks.
pub(crate) fn verify_held(held: &Held, meter: &Meter) -> Result<Report, Cancelled> {
    let mut report = Report::default();
    meter.expect(held.log.segments().map(|segment| segment.bytes).sum());
    expect(meter, held.snapshots.iter().map(|stored| &*stored.manifest));
    meter.enter(Phase::Groups);
    for group in held.snapshots.chunk_by(|a, b| a.manifest.group == b.manifest.group) {
        let mut seen = BTreeSet::new();
        for StoredSnapshot { manifest, files, .. } in group {
            report.snapshot(&files.snapshots, &files.dir, manifest, meter, &mut seen)?;
        }
    }
    for group in &held.refusing {
        let dir = group_dir(&held.data_dir, *group);
        let Ok((store, found)) = SnapshotStore::look(held.fs.clone(), &dir, *group) else { continue };
        report.group(&store, &dir, found, meter)?;
    }
    meter.enter(Phase::Log);
    let read = held.log.read(None, &|bytes| meter.take_or_end(bytes));
    meter.check()?;
    match read {
        Ok(image) => report.log(&image),
        Err(error) => report.unreadable_log(&error),
    }
    Ok(report)
}

fn expect<'a>(meter: &Meter, manifests: impl Iterator<Item = &'a Manifest>) {
    let files: BTreeSet<_> =
        manifests.flat_map(|manifest| manifest.named_files().map(|file| (manifest.group, file))).collect();
    meter.expect(files.iter().map(|(_, (_, bytes))| bytes).sum());
}

/// Bytes of the plain files in a directory, as far as they can be asked for.
pub(crate) fn bytes_in(dir: &Path) -> u64 {
    let items = std::fs::read_dir(dir).into_iter().flatten().flatten();
    items
        .filter_map(|item| item.metadata().ok())
        .filter(std::fs::Metadata::is_file)
        .map(|meta| meta.len())
        .sum()
}

impl Report {
    /// What is wrong with a snapshot's directory.
    pub(crate) fn of(error: &SnapshotError, dir: &Path) -> Vec<Finding> {
        let mut report = Self::default();
        report.add(error, dir);
        report.findings
    }

    /// What is wrong with a log that must be whole to its end.
    pub(crate) fn of_log(image: &Image) -> Self {
        let mut report = Self::default();
        report.log(image);
        if let Some(torn) = &image.recovered().torn {
            let what = "the log does not end behind a whole batch".to_owned();
            report.findings.push(Finding { path: torn.path.clone(), offset: Some(torn.offset), what });
        }
        report
    }

    /// Checks the snapshots of a group; the index of the newest that is whole.
    pub(crate) fn group(
        &mut self,
        store: &SnapshotStore,
        dir: &Path,
        found: Vec<Found>,
        meter: &Meter,
    ) -> Result<Option<u64>, Cancelled> {
        let (mut whole, mut seen) = (None, BTreeSet::new());
        for Found { number, manifest } in found {
            match manifest {
                Ok(manifest) => {
                    let before = self.findings.len();
                    self.snapshot(store, dir, &manifest, meter, &mut seen)?;
                    whole = whole.max((self.findings.len() == before).then_some(manifest.index));
                }
                Err(error) => self.add(&error, &dir.join(format!("{number:016x}.manifest"))),
            }
        }
        Ok(whole)
    }

    /// Checks the files of a snapshot; segments whose names were `seen` were checked before.
    fn snapshot(
        &mut self,
        store: &SnapshotStore,
        dir: &Path,
        manifest: &Manifest,
        meter: &Meter,
        seen: &mut BTreeSet<String>,
    ) -> Result<(), Cancelled> {
        self.files += 1;
        for (name, _) in manifest.named_files() {
            let is_segment = manifest.segments.iter().any(|segment| segment.name == name);
            if !seen.insert(name.clone()) && is_segment {
                continue;
            }
            self.files += 1;
            store.check_file(manifest, &name, &|bytes| meter.take(bytes), &mut |error| {
                self.add(&error, &dir.join(&name));
            });
            meter.check()?;
        }
        Ok(())
    }

    /// Adds what is wrong with a snapshot; `path` if the error names no file.
    fn add(&mut self, error: &SnapshotError, path: &Path) {
        let (path, offset) = error.place().unwrap_or((path, None));
        let finding = Finding { path: path.to_owned(), offset, what: error.to_string() };
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    fn log(&mut self, image: &Image) {
        self.files += 1;
        let recovered = image.recovered();
        for damage in &recovered.damaged {
            let whose = concerned(&damage.groups, &recovered.groups);
            let what = format!("the log is damaged; records may be missing of {whose}");
            self.findings.push(Finding { path: damage.path.clone(), offset: Some(damage.offset), what });
        }
    }

    fn unreadable_log(&mut self, error: &LogOpenError) {
        let path = error.path().to_owned();
        self.findings.push(Finding { path, offset: None, what: error.to_string() });
    }

    /// Adds every damaged place of a log that cannot be read as a whole.
    fn log_places(&mut self, error: &LogOpenError, log_dir: &Path) -> Result<(), OpenError> {
        let (before, mut file) = (self.findings.len(), PathBuf::new());
        let mut add = |path: &Path, offset, what: &str| {
            self.findings.push(Finding { path: path.to_owned(), offset, what: what.to_owned() });
        };
        inspect(&RealFs, log_dir, &|_| {}, &mut |found| match found {
            Inspected::Segment(segment) => segment.path.clone_into(&mut file),
            Inspected::MissingSegment { path } => add(path, None, "the segment is missing"),
            Inspected::UnreadableSegment { path, error } => add(path, None, &error.to_string()),
            Inspected::Record(record) if record.payload.is_none() => {
                let whose = name_of(record.group);
                add(&file, Some(record.offset), &format!("a record of {whose} has a wrong checksum"));
            }
            Inspected::Unknown { path, offset, before_batch: true, .. } => {
                add(path, Some(*offset), "bytes between batches are damaged");
            }
            _ => {}
        })?;
        if self.findings.len() == before {
            self.unreadable_log(error);
        }
        Ok(())
    }

    /// Adds that no whole snapshot reaches to where the log of a group begins.
    fn reach(&mut self, image: &Image, group: GroupId, dir: &Path, whole: Option<u64>) {
        let purged = image.group_state(group).purged.map(|(index, _)| index);
        if let Some(index) = purged.filter(|_| whole < purged) {
            let what = format!("the log begins behind index {index}, and no whole snapshot reaches so far");
            self.findings.push(Finding { path: dir.to_owned(), offset: None, what });
        }
    }
}
