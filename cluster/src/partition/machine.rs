//! Owns a partition's state machine as its Raft group sees it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fanfold_storage::codec::{Encoded, Malformed, Reader};
use fanfold_storage::command::{Outcome, decode_batch};
use fanfold_storage::ids::PartitionId;
use fanfold_storage::partition::{
    Applying, CutBucket, Dropped, FlushWork, Flushed, MergePolicy, Merged, Partition, Restoring,
    TIMELINES_SECTION, renumber_timelines,
};
use fanfold_storage::segment::{self, Segment, SegmentError, SegmentInfo, SegmentNumber};
use fanfold_storage::snapshot::{Listed, Manifest, SnapshotError};

use super::due::Due;
use super::marks::{Mark, Marks};
use crate::options::DiskOptions;
use crate::phases::{Phases, RequestPhase};
use crate::raft::{
    Bucket, Damage, FileError, FileSettings, FileWork, Garbage, GroupFiles, Install, Installed, LastBucket,
    LastWork, Machine, RestoreWork, Unflushed,
};

/// What a committed command came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Applied {
    /// It was applied.
    Outcome(Outcome),
    /// The partition is damaged, and nothing is applied any more.
    Damaged,
}

/// A partition's state machine.
#[derive(Debug)]
pub(crate) struct PartitionMachine {
    state: Partition,
    partitions: u16,
    /// The first committed batch that does not decode.
    damaged_at: Option<u64>,
    phases: Option<Arc<Phases>>,
    /// The index of the batch that is being applied, and what that has taken so far.
    applying: (u64, Duration),
    marks: Marks,
    /// The bounds that flushes go by.
    flushes: FileSettings,
    due: Arc<Due>,
}

impl PartitionMachine {
    /// An empty one, of one of `partitions`.
    pub fn new(id: PartitionId, partitions: u16) -> Self {
        let state = Partition::new(id, partitions);
        Self {
            state,
            partitions,
            damaged_at: None,
            phases: None,
            applying: (0, Duration::ZERO),
            marks: Marks::default(),
            flushes: DiskOptions::default().files,
            due: Arc::new(Due::new()),
        }
    }

    /// What is due, for those who ask without the lock.
    pub fn due(&self) -> Arc<Due> {
        self.due.clone()
    }

    fn note_due(&self) {
        self.due.note(self.state());
    }

    /// By what this replica is compared with others.
    pub fn marks(&self) -> Vec<Mark> {
        self.marks.all()
    }

    /// Notes how long batches take from now on.
    pub fn measure(&mut self, phases: Arc<Phases>) {
        self.phases = Some(phases);
    }

    /// The state, unless it is damaged, or a file that it reads is.
    pub fn state(&self) -> Option<&Partition> {
        (self.damaged_at.is_none() && self.state.damage().is_none()).then_some(&self.state)
    }

    /// Takes out cached tables, the oldest first, until the others take at most so many bytes of memory.
    pub fn drop_cached_tables(&mut self, most_bytes: u64) -> Dropped {
        self.state.drop_cached_tables(most_bytes)
    }

    /// The state, damaged or not: for figures, not for answers.
    pub fn state_as_is(&self) -> &Partition {
        &self.state
    }
}

/// A batch that is being applied.
pub(crate) enum Work<'b> {
    Applying(Applying<'b>),
    /// The partition is damaged; so many commands are answered so.
    Damaged(usize),
}

impl Machine for PartitionMachine {
    type Outcome = Vec<Applied>;
    type Work<'b> = Work<'b>;

    fn begin<'b>(&mut self, index: u64, batch: &'b [u8]) -> Work<'b> {
        let started = Instant::now();
        if !self.is_damaged() {
            match self.state.begin(index, batch) {
                Ok(applying) => {
                    self.applying = (index, started.elapsed());
                    return Work::Applying(applying);
                }
                Err(error) => {
                    self.damaged_at = Some(index);
                    let partition = self.state.id().0;
                    tracing::error!(
                        partition,
                        index,
                        %error,
                        "a committed batch does not decode; the partition refuses service on this node: rebuild it"
                    );
                }
            }
        }
        self.note_due();
        Work::Damaged(decode_batch(batch).map_or(0, |(_, commands)| commands.len()))
    }

    fn go_on(&mut self, work: &mut Work<'_>) -> bool {
        let Work::Applying(applying) = work else { return false };
        let started = Instant::now();
        let goes_on = self.state.go_on(applying);
        self.applying.1 += started.elapsed();
        if goes_on {
            return true;
        }
        let (index, took) = self.applying;
        if let Some(phases) = &self.phases {
            phases.note(RequestPhase::Apply, took);
        }
        if self.is_damaged() {
            // What was found missing may only be what could not be read: nobody is told that it is not there.
            let done = std::mem::replace(work, Work::Damaged(0));
            *work = Work::Damaged(Self::finish(done).len());
        } else {
            self.marks.note(index, &self.state);
        }
        self.note_due();
        false
    }

    fn finish(work: Work<'_>) -> Self::Outcome {
        match work {
            Work::Applying(applying) => applying.into_outcomes().into_iter().map(Applied::Outcome).collect(),
            Work::Damaged(commands) => vec![Applied::Damaged; commands],
        }
    }

    fn begin_cut(&mut self) {
        self.state.begin_cut();
    }

    fn next_bucket(&mut self, must_write: &dyn Fn(u8, u64) -> bool) -> Option<Bucket> {
        Some(match self.state.next_bucket(must_write)? {
            CutBucket::Unfinished => Bucket::Unfinished,
            CutBucket::Written { section, number, bytes } => Bucket::Changed { section, number, bytes },
            CutBucket::Unchanged { section, number } => Bucket::Unchanged { section, number },
        })
    }

    fn cut_holds_too_much(&mut self) -> bool {
        self.state.cut_holds_too_much()
    }

    fn cut_work(&mut self) -> Option<FileWork<Self>> {
        self.state.cut_flush_work().map(flush)
    }

    fn last_bucket(&mut self) -> Option<LastWork> {
        let cut = self.state().is_some().then(|| self.state.cut_timelines())??;
        Some(Box::new(|| {
            let (bytes, segments) = cut.encode();
            let segments = segments.iter().map(listed).collect();
            LastBucket { section: TIMELINES_SECTION, number: 0, bytes, segments }
        }))
    }

    fn end_cut(&mut self, taken: bool) -> Garbage {
        Box::new(if taken { self.state.end_cut() } else { self.state.abandon_cut() })
    }

    fn restoring(&self, manifest: Arc<Manifest>) -> RestoreWork<Self> {
        let (id, partitions) = (self.state.id(), self.partitions);
        Box::new(move |files| {
            let mut restoring = Partition::restoring(id, partitions);
            let infos: Result<Vec<_>, FileError> =
                manifest.segments.iter().map(|listed| Ok(described(listed)?)).collect();
            let infos = infos?;
            let renumbered: Vec<_> = infos.iter().filter(|(was, now)| was != now).copied().collect();
            let read = |section, number, bytes: &[u8]| {
                if section == TIMELINES_SECTION && !renumbered.is_empty() {
                    return Restoring::read(section, number, &renumber_timelines(bytes, &renumbered)?);
                }
                Restoring::read(section, number, bytes)
            };
            files.snapshots.load(&manifest, read, |bucket| restoring.take(bucket))?;
            let open =
                |(_, now): &(_, SegmentInfo)| Ok(Arc::new(Segment::open(&*files.fs, &files.dir, now)?));
            let segments: Result<Vec<_>, FileError> = infos.iter().map(open).collect();
            let state = restoring.finish(&segments?)?;
            Ok(Box::new(move |machine: &mut Self| {
                machine.damaged_at = None;
                let before = std::mem::replace(&mut machine.state, state);
                machine.due.note_anew(machine.state());
                Box::new(before) as Garbage
            }))
        })
    }

    fn replay_until(&mut self, index: u64) {
        self.state.replay_until(index);
    }

    fn renumber(
        files: &GroupFiles,
        path: &Path,
        from: &Listed,
        number: u64,
    ) -> Result<Listed, SnapshotError> {
        let wrong =
            |_| SnapshotError::Damaged { path: path.to_owned(), offset: 0, what: "detail of a segment" };
        let (was, info) = described(from).map_err(wrong)?;
        let now = segment::renumber(&*files.fs, path, &info, SegmentNumber(number), &|_| {});
        let now = now.map_err(|error| match error {
            SegmentError::Io { operation, path, source } => {
                let source = std::io::Error::new(source.kind(), source);
                SnapshotError::Io { operation, path, source }
            }
            _ => SnapshotError::Damaged { path: path.to_owned(), offset: 0, what: "content of a segment" },
        })?;
        let mut listed = listed(&now);
        (was.number, was.checksum).encode(&mut listed.detail);
        Ok(listed)
    }

    fn file_work(&mut self, settings: &FileSettings) -> Option<FileWork<Self>> {
        self.state()?;
        self.state.bound_cuts(settings.cut_bytes_max as usize);
        let expired = self.state.drop_expired_segments();
        if expired.segments().is_empty() { self.merge_work(settings) } else { Some(free(expired)) }
    }

    fn unflushed(&self) -> Unflushed {
        let (active_bytes, frozen_bytes) = self.state.unflushed_timeline_bytes();
        let is_due = active_bytes > self.flushes.table_bytes || frozen_bytes > 0;
        if !is_due || self.state().is_none() {
            Unflushed::Little
        } else if active_bytes + frozen_bytes > self.flushes.unflushed_bytes_max {
            Unflushed::TooMuch
        } else {
            Unflushed::Due
        }
    }

    fn flush_work(&mut self, settings: &FileSettings) -> Option<FileWork<Self>> {
        self.flushes = *settings;
        self.state()?;
        if self.state.unflushed_timeline_bytes().0 > settings.table_bytes {
            // A batch may be half applied, and what is new in it is looked for in the active table only.
            self.note_due();
            self.state.freeze_timelines();
        }
        let cached = self.state.drop_cached_tables(settings.cache_bytes);
        if cached.tables() > 0 { Some(free(cached)) } else { self.state.flush_work().map(flush) }
    }

    fn is_damaged(&self) -> bool {
        self.state().is_none()
    }

    /// Damage met by a merge is damage of the state.
    fn note_failed(&mut self, error: &FileError) {
        if let FileError::Segment(error @ SegmentError::Damaged { .. }) = error {
            self.state.note_damage(error.clone());
        }
    }

    fn files_in_use(&self) -> Vec<(String, u64)> {
        let files =
            self.state.segments().map(|segment| (segment.info().number.file_name(), segment.info().bytes));
        files.collect::<BTreeMap<_, _>>().into_iter().collect()
    }

    fn segments_in_use(&self) -> Vec<Listed> {
        let files = self.state.segments().map(|segment| listed(segment.info()));
        files.map(|file| (file.name.clone(), file)).collect::<BTreeMap<_, _>>().into_values().collect()
    }

    fn damage(&self) -> Option<Damage> {
        if let Some(index) = self.damaged_at {
            let what = format!("the committed batch at index {index} does not decode");
            return Some(Damage { path: None, offset: None, what, is_unread: false });
        }
        let error = self.state.damage()?;
        let (path, offset) = error.place().unzip();
        let is_unread = matches!(error, SegmentError::Io { .. });
        Some(Damage {
            path: path.map(Path::to_owned),
            offset: offset.flatten(),
            what: error.to_string(),
            is_unread,
        })
    }
}

impl PartitionMachine {
    /// Segments that are to become one.
    fn merge_work(&mut self, settings: &FileSettings) -> Option<FileWork<Self>> {
        let policy = MergePolicy { segment_bytes_max: settings.segment_bytes_max, ..MergePolicy::default() };
        let work = self.state.merge_work(&policy)?;
        Some(Box::new(move |files| {
            let number = || SegmentNumber(files.snapshots.take_number());
            let merged = work.write(&*files.fs, &files.dir, &number, &*files.pace)?;
            Ok(install_merge(merged))
        }))
    }
}

/// Frees what takes long to free; that is all there is to do.
fn free(dropped: Dropped) -> FileWork<PartitionMachine> {
    Box::new(move |_| {
        drop(dropped);
        Ok(Box::new(|_: &mut PartitionMachine| Installed::Done(Box::new(()))))
    })
}

/// Writes a table to segments.
fn flush(work: FlushWork) -> FileWork<PartitionMachine> {
    Box::new(move |files| {
        let number = || SegmentNumber(files.snapshots.take_number());
        let flushed = work.write(&*files.fs, &files.dir, &number, &*files.pace)?;
        Ok(install_flush(flushed))
    })
}

fn install_flush(mut flushed: Flushed) -> Install<PartitionMachine> {
    Box::new(move |machine| {
        if machine.state.install_flush(&mut flushed) {
            return Installed::Done(Box::new(flushed));
        }
        Installed::Behind(Box::new(move |_| {
            flushed.catch_up();
            Ok(install_flush(flushed))
        }))
    })
}

fn install_merge(mut merged: Merged) -> Install<PartitionMachine> {
    Box::new(move |machine| {
        if machine.state.install_merge(&mut merged) {
            return Installed::Done(Box::new(merged));
        }
        Installed::Behind(Box::new(move |_| {
            merged.catch_up()?;
            Ok(install_merge(merged))
        }))
    })
}

/// A segment as a snapshot lists it.
fn listed(info: &SegmentInfo) -> Listed {
    let mut detail = Vec::new();
    info.encode(&mut detail);
    Listed { name: info.number.file_name(), bytes: info.bytes, checksum: info.checksum, detail }
}

/// A segment as the state in the snapshot names it, and as the file is: it has another number if it came from a peer.
fn described(listed: &Listed) -> Result<(SegmentInfo, SegmentInfo), Malformed> {
    let mut from = Reader::new(&listed.detail);
    let info = SegmentInfo::decode(&mut from)?;
    if from.left() == 0 {
        return Ok((info, info));
    }
    let (number, checksum) = <(SegmentNumber, u32)>::decode(&mut from)?;
    from.end()?;
    Ok((SegmentInfo { number, checksum, ..info }, info))
}

#[cfg(test)]
mod tests;
