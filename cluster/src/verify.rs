//! Owns the check of everything that a node keeps on disk, while it runs and while it does not.
//!
//! - Every checksum is computed from what the disk says, past the page cache as far as that can be done.
//! - Everything that is wrong is reported, with file and offset; nothing is changed.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fanfold_storage::fs::{FileSystem, RealFs};
use fanfold_storage::log::{
    AffectedGroups, Damage as LogDamage, GroupId, Image, Inspected, LogHold, OpenError as LogOpenError,
    inspect,
};
use fanfold_storage::snapshot::{FileHold, Found, Listed, Manifest, SnapshotError, SnapshotStore};

use crate::backup::{RESTORE_FILE, Restored};
use crate::error::OpenError;
use crate::identity::{DataDir, Known};
use crate::inspect::{Inspection, concerned, name_of};
use crate::map::partition_of;
use crate::meter::{Cancelled, Meter, Phase};
use crate::node::groups_here;
use crate::owner;
use crate::raft::{Damage, Group, GroupFiles, Machine, ReplicaId, StoredSnapshot, check_note, group_dir};

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

/// How every finding begins that is of a file which the disk did not give: a later check may find it as it was written.
const UNREAD: &str = "not read, so that it may be as it was written";

impl Finding {
    /// A finding of an error; `is_unread`: the disk did not give what was asked of it.
    fn of(path: &Path, offset: Option<u64>, error: &dyn std::fmt::Display, is_unread: bool) -> Self {
        let what = if is_unread { format!("{UNREAD}: {error}") } else { error.to_string() };
        Self { path: path.to_owned(), offset, what }
    }

    /// Whether the disk did not give what was to be checked; otherwise it gave something else than was written.
    pub fn is_unread(&self) -> bool {
        self.what.starts_with(UNREAD)
    }
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
    report.identity(inspection.dir(), None);
    let restored = Restored::load(&RealFs, data_dir).unwrap_or_else(|error| {
        let path = data_dir.join(RESTORE_FILE);
        report.findings.push(Finding { path, offset: None, what: error.to_string() });
        None
    });
    let groups = inspection.groups()?;
    let mut expected = written_down(inspection.dir(), restored.as_ref());
    let is_here: BTreeSet<_> = groups.iter().copied().collect();
    let log_dir = inspection.log_dir();
    meter.expect(bytes_in(&log_dir));
    let mut looked = Vec::new();
    for group in groups {
        let dir = group_dir(data_dir, group);
        report.note(&RealFs, &dir, group, None);
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
    report.log_note(&RealFs, &log_dir);
    match Image::read(&RealFs, &log_dir, None, &|bytes| meter.take_or_end(bytes)) {
        Ok(image) => {
            let known: Vec<_> = newest.iter().map(|(group, _, _)| *group).collect();
            report.log(&image, &known);
            // Who has anything in the log had a directory before.
            let has_any = |group: &&GroupId| {
                let state = image.group_state(**group);
                state.vote.is_some() || state.last.is_some() || state.purged.is_some()
            };
            expected.extend(image.recovered().groups.iter().filter(has_any));
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
    let begins_empty = |group: &GroupId| {
        partition_of(*group)
            .is_some_and(|id| restored.as_ref().is_some_and(|found| found.empty.contains(&id.0)))
    };
    for group in expected.difference(&is_here).filter(|group| !begins_empty(group)) {
        report.missing(group_dir(data_dir, *group), *group);
    }
    Ok(report)
}

/// The groups that have a directory by what the identity says. A node that goes on alone has others than stand there.
fn written_down(dir: &DataDir, restored: Option<&Restored>) -> BTreeSet<GroupId> {
    if restored.is_some_and(|restored| restored.alone.is_some()) {
        return BTreeSet::new();
    }
    let stored = dir.peek().ok().flatten();
    stored.map(|stored| groups_here(dir, &stored)).unwrap_or_default()
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

/// What is checked on a running node: what it uses and would use at its next start, kept meanwhile, and its log.
#[derive(Debug)]
pub(crate) struct Held {
    pub fs: Arc<dyn FileSystem>,
    pub dir: Arc<DataDir>,
    /// What its identity database must say.
    pub known: Known,
    pub groups: Vec<HeldGroup>,
    /// Groups that do not run here, because what they have on disk is damaged, and what the node knows of that.
    pub refusing: Vec<(GroupId, Option<Arc<Damage>>)>,
    pub log: LogHold,
}

/// A group of a running node.
#[derive(Debug)]
pub(crate) struct HeldGroup {
    group: GroupId,
    replica: ReplicaId,
    files: GroupFiles,
    /// Newest first.
    snapshots: Vec<StoredSnapshot>,
    /// What the state uses, in a snapshot or not.
    segments: Vec<Listed>,
    damage: Option<Damage>,
    _hold: FileHold,
}

impl HeldGroup {
    pub fn of<M: Machine>(group: &Group<M>) -> Self {
        let (segments, hold) = group.kept_segments();
        Self {
            group: group.id(),
            replica: group.replica(),
            files: group.files().clone(),
            snapshots: group.kept_snapshots(),
            segments,
            damage: group.read(Machine::damage),
            _hold: hold,
        }
    }
}

/// Checks a running node; the log comes first, since it grows while it is held. Blocks.
pub(crate) fn verify_held(held: Held, meter: &Meter) -> Result<Report, Cancelled> {
    let Held { fs, dir, known, groups, refusing, log } = held;
    let mut report = Report::default();
    meter.expect(log.segments().map(|segment| segment.bytes).sum());
    for held in &groups {
        expect(meter, held.snapshots.iter().map(|stored| &*stored.manifest));
    }
    meter.enter(Phase::Log);
    let read = log.read(None, &|bytes| meter.take_or_end(bytes));
    if !log.is_kept() {
        meter.let_go();
    }
    meter.check()?;
    match read {
        Ok(image) => {
            let known: Vec<_> = groups
                .iter()
                .map(|held| held.group)
                .chain(refusing.iter().map(|(group, _)| *group))
                .collect();
            report.log(&image, &known);
        }
        Err(error) => report.unreadable_log(&error),
    }
    drop(log);
    meter.enter(Phase::Groups);
    report.log_note(&*fs, &dir.log());
    report.identity(&dir, Some(&known));
    for held in &groups {
        report.held_group(&*fs, held, meter)?;
    }
    for (group, damage) in refusing {
        let group_dir = group_dir(dir.path(), group);
        if let Some(damage) = damage {
            report.known(&damage, &group_dir);
        }
        report.note(&*fs, &group_dir, group, None);
        let Ok((store, found)) = SnapshotStore::look(fs.clone(), &group_dir, group) else { continue };
        report.group(&store, &group_dir, found, meter)?;
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

    /// What is wrong with a log that must be whole to its end, and in what it has of these groups.
    pub(crate) fn of_log(image: &Image, groups: &[GroupId]) -> Self {
        let mut report = Self::default();
        report.log_of_groups(image, groups);
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
                    // What it shares with a newer one was told of that.
                    let mut files = manifest.named_files().map(|(name, _)| dir.join(name));
                    let shares = files.any(|path| self.findings.iter().any(|finding| finding.path == path));
                    let is_whole = self.findings.len() == before && !shares;
                    whole = whole.max(is_whole.then_some(manifest.index));
                }
                Err(error) => self.add(&error, &dir.join(format!("{number:016x}.manifest"))),
            }
        }
        Ok(whole)
    }

    /// Checks a group that runs: what it would read at its next start, and what it reads now.
    fn held_group(&mut self, fs: &dyn FileSystem, held: &HeldGroup, meter: &Meter) -> Result<(), Cancelled> {
        let HeldGroup { group, replica, files, snapshots, segments, damage, .. } = held;
        let (dir, store) = (&files.dir, &files.snapshots);
        self.note(fs, dir, *group, Some(*replica));
        if let Some(damage) = damage {
            self.known(damage, dir);
        }
        let looked = SnapshotStore::look(files.fs.clone(), dir, *group);
        let mut found = looked.map_or_else(
            |error| {
                self.add(&error, dir);
                Vec::new()
            },
            |(_, found)| found,
        );
        let damaged = store.damaged();
        // Others come and go.
        found.retain(|Found { number, .. }| {
            damaged.contains(number) || snapshots.iter().any(|stored| stored.manifest.number == *number)
        });
        for number in damaged {
            let path = dir.join(format!("{number:016x}.manifest"));
            let before = self.findings.len();
            let manifest = found.iter().find(|found| found.number == number).map(|found| &found.manifest);
            match manifest {
                Some(Ok(manifest)) => self.snapshot(store, dir, manifest, meter, &mut BTreeSet::new())?,
                Some(Err(error)) => self.add(error, &path),
                None => {}
            }
            // It may have been superseded, and removed, meanwhile.
            if !store.damaged().contains(&number) {
                self.findings.truncate(before);
            } else if self.findings.len() == before {
                let what = "this snapshot was found damaged, itself or a file that it names".to_owned();
                self.findings.push(Finding { path, offset: None, what });
            }
        }
        let mut seen = BTreeSet::new();
        for StoredSnapshot { manifest, .. } in snapshots {
            let path = dir.join(format!("{:016x}.manifest", manifest.number));
            match found.iter().find(|found| found.number == manifest.number).map(|found| &found.manifest) {
                Some(Ok(on_disk)) if on_disk == manifest => {}
                Some(Err(error)) => self.add(error, &path),
                _ => {
                    let what = "the manifest is not on disk as the node knows it".to_owned();
                    self.findings.push(Finding { path, offset: None, what });
                }
            }
            self.snapshot(store, dir, manifest, meter, &mut seen)?;
        }
        for segment in segments.iter().filter(|segment| !seen.contains(&segment.name)) {
            self.files += 1;
            meter.expect(segment.bytes);
            if let Err(error) = store.check_segment(segment, &|bytes| meter.take(bytes)) {
                self.add(&error, &dir.join(&segment.name));
            }
            meter.check()?;
        }
        Ok(())
    }

    /// Adds what a running node knows of damage to a group.
    fn known(&mut self, Damage { path, offset, what, is_unread }: &Damage, dir: &Path) {
        self.findings.push(Finding::of(path.as_deref().unwrap_or(dir), *offset, what, *is_unread));
    }

    /// Adds that a group has no directory.
    fn missing(&mut self, path: PathBuf, group: GroupId) {
        let name = name_of(group);
        let what = format!(
            "the directory of {name} is missing, with its snapshots; see DamagedPartition in RUNBOOK.md"
        );
        self.findings.push(Finding { path, offset: None, what });
    }

    /// Checks the note of a group's directory.
    pub(crate) fn note(
        &mut self,
        fs: &dyn FileSystem,
        dir: &Path,
        group: GroupId,
        replica: Option<ReplicaId>,
    ) {
        self.files += 1;
        if let Err(error) = check_note(fs, dir, group, replica) {
            let path = dir.join("replica");
            self.findings.push(Finding { path, offset: None, what: error.to_string() });
        }
    }

    /// Checks the identity database, against what the node knows if it runs.
    fn identity(&mut self, dir: &DataDir, known: Option<&Known>) {
        self.files += 1;
        for what in dir.check(known) {
            self.findings.push(Finding { path: dir.identity(), offset: None, what: what.to_owned() });
        }
    }

    /// Checks the note that says whose the log is, if there is one.
    fn log_note(&mut self, fs: &dyn FileSystem, log_dir: &Path) {
        let Err(error) = owner::read(fs, log_dir) else { return };
        let is_unread = error.kind() != io::ErrorKind::InvalidData;
        let what = if is_unread {
            error.to_string()
        } else {
            "it is not as it was written; if the log is this node's, remove it while the node is stopped: the next start writes \
             it anew"
                .to_owned()
        };
        self.findings.push(Finding::of(&owner::path(log_dir), None, &what, is_unread));
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
        let (path, offset) = match error {
            SnapshotError::Io { path, .. } => (&**path, None),
            _ => error.place().unwrap_or((path, None)),
        };
        let finding = Finding::of(path, offset, error, error.is_unread());
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    /// What is wrong with what a log has of these groups.
    pub(crate) fn log_of_groups(&mut self, image: &Image, groups: &[GroupId]) {
        self.files += 1;
        for damage in &image.recovered().damaged {
            if groups.iter().any(|group| damage.concerns(*group)) {
                self.damage(damage, groups);
            }
        }
    }

    /// What is wrong with a log of a node that has these groups. What only groups had records in that began anew behind it concerns
    /// nobody any more.
    fn log(&mut self, image: &Image, groups: &[GroupId]) {
        self.files += 1;
        let recovered = image.recovered();
        let known: BTreeSet<_> = groups.iter().chain(&recovered.groups).copied().collect();
        let known: Vec<_> = known.into_iter().collect();
        for damage in &recovered.damaged {
            let is_over = !damage.forgotten.is_empty()
                && match &damage.groups {
                    AffectedGroups::Listed(groups) => groups.is_subset(&damage.forgotten),
                    _ => !known.iter().any(|group| damage.concerns(*group)),
                };
            if !is_over {
                self.damage(damage, &known);
            }
        }
    }

    fn damage(&mut self, damage: &LogDamage, known: &[GroupId]) {
        let whose = concerned(damage, known);
        let what = format!("the log is damaged; records may be missing of {whose}");
        self.findings.push(Finding { path: damage.path.clone(), offset: Some(damage.offset), what });
    }

    fn unreadable_log(&mut self, error: &LogOpenError) {
        self.findings.push(Finding::of(error.path(), None, error, error.is_unread()));
    }

    /// Adds every damaged place of a log that cannot be read as a whole.
    fn log_places(&mut self, error: &LogOpenError, log_dir: &Path) -> Result<(), OpenError> {
        let (before, mut file) = (self.findings.len(), PathBuf::new());
        let mut add = |path: &Path, offset, what: &dyn std::fmt::Display, is_unread| {
            self.findings.push(Finding::of(path, offset, what, is_unread));
        };
        inspect(&RealFs, log_dir, &|_| {}, &mut |found| match found {
            Inspected::Segment(segment) => segment.path.clone_into(&mut file),
            Inspected::MissingSegment { path } => add(path, None, &"the segment is missing", false),
            Inspected::UnreadableSegment { path, error } => add(path, None, error, error.is_unread()),
            Inspected::Record(record) if record.payload.is_none() => {
                let whose = name_of(record.group);
                let what = format!("a record of {whose} has a wrong checksum");
                add(&file, Some(record.offset), &what, false);
            }
            Inspected::Unknown { path, offset, before_batch: true, .. } => {
                add(path, Some(*offset), &"bytes between batches are damaged", false);
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
