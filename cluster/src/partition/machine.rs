//! Owns a partition's state machine as its Raft group sees it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use fanfold_storage::codec::{Encoded, Reader};
use fanfold_storage::command::{Command, Outcome, decode_batch};
use fanfold_storage::ids::{PartitionId, Stamp};
use fanfold_storage::partition::{Applying, CutBucket, Dropped, MergePolicy, Partition, TIMELINES_SECTION};
use fanfold_storage::segment::{Segment, SegmentError, SegmentInfo, SegmentNumber};
use fanfold_storage::snapshot::{Listed, Manifest};

use crate::raft::{Bucket, FileError, FileSettings, FileWork, Garbage, GroupFiles, LastBucket, Machine};

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
}

impl PartitionMachine {
    /// An empty one, of one of `partitions`.
    pub fn new(id: PartitionId, partitions: u16) -> Self {
        Self { state: Partition::new(id, partitions), partitions, damaged_at: None }
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
        if self.damaged_at.is_none() {
            match self.state.begin(index, batch) {
                Ok(applying) => return Work::Applying(applying),
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
        Work::Damaged(decode_batch(batch).map_or(0, |(_, commands)| commands.len()))
    }

    fn go_on(&mut self, work: &mut Work<'_>) -> bool {
        match work {
            Work::Applying(applying) => self.state.go_on(applying),
            Work::Damaged(_) => false,
        }
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

    fn cut_work(&mut self) -> Option<FileWork<Self>> {
        self.flush_work()
    }

    fn last_bucket(&mut self) -> Option<LastBucket> {
        let (bytes, segments) = self.state().is_some().then(|| self.state.cut_timelines())??;
        let listed = segments.iter().map(listed).collect();
        Some(LastBucket { section: TIMELINES_SECTION, number: 0, bytes, segments: listed })
    }

    fn end_cut(&mut self, taken: bool) -> Garbage {
        if !taken {
            return Box::new(self.state.abandon_cut());
        }
        self.state.end_cut();
        Box::new(())
    }

    fn restore(&mut self, files: &GroupFiles, manifest: &Manifest) -> Result<(), FileError> {
        let mut restoring = Partition::restoring(self.state.id(), self.partitions);
        files.snapshots.load(manifest, |section, number, bytes| restoring.add(section, number, bytes))?;
        let open = |listed: &Listed| {
            let mut from = Reader::new(&listed.detail);
            let info = SegmentInfo::decode(&mut from)?;
            Ok(Arc::new(Segment::open(&*files.fs, &files.dir, &info)?))
        };
        let segments: Result<Vec<_>, FileError> = manifest.segments.iter().map(open).collect();
        self.state = restoring.finish(&segments?)?;
        self.damaged_at = None;
        Ok(())
    }

    fn file_work(&mut self, settings: &FileSettings) -> Option<FileWork<Self>> {
        self.state()?;
        let (expired, cached) =
            (self.state.drop_expired_segments(), self.state.drop_cached_tables(settings.cache_bytes));
        if expired.segments().len() + cached.tables() > 0 {
            // To free them takes long; that is all there is to do.
            return Some(Box::new(move |_| {
                drop((expired, cached));
                Ok(Box::new(|_: &mut Self| Box::new(()) as Garbage))
            }));
        }
        if self.state.active_timeline_bytes() > settings.table_bytes {
            self.state.freeze_timelines();
        }
        self.flush_work().or_else(|| self.merge_work(settings))
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
}

impl PartitionMachine {
    /// The oldest table that is to be written to segments.
    fn flush_work(&mut self) -> Option<FileWork<Self>> {
        let work = self.state.flush_work()?;
        Some(Box::new(move |files| {
            let number = || SegmentNumber(files.snapshots.take_number());
            let flushed = work.write(&*files.fs, &files.dir, &number, &*files.pace)?;
            Ok(Box::new(move |machine: &mut Self| {
                machine.state.install_flush(&flushed);
                Box::new(flushed) as Garbage
            }))
        }))
    }

    /// Segments that are to become one.
    fn merge_work(&mut self, settings: &FileSettings) -> Option<FileWork<Self>> {
        let policy = MergePolicy { segment_bytes_max: settings.segment_bytes_max, ..MergePolicy::default() };
        let work = self.state.merge_work(&policy)?;
        Some(Box::new(move |files| {
            let number = || SegmentNumber(files.snapshots.take_number());
            let merged = work.write(&*files.fs, &files.dir, &number, &*files.pace)?;
            Ok(Box::new(move |machine: &mut Self| Box::new(machine.state.install_merge(merged)) as Garbage))
        }))
    }
}

/// A segment as a snapshot lists it.
fn listed(info: &SegmentInfo) -> Listed {
    let mut detail = Vec::new();
    info.encode(&mut detail);
    Listed { name: info.number.file_name(), bytes: info.bytes, checksum: info.checksum, detail }
}

/// The tick, if one is due at this stamp: something expires, or a large fan-out has slices left.
pub(crate) fn background(machine: &PartitionMachine, stamp_ms: u64) -> Option<Bytes> {
    let state = machine.state()?;
    let is_due = state.next_due().is_some_and(|due| due <= Stamp(stamp_ms));
    (is_due || state.slices_pending()).then(|| Command::Tick.to_bytes())
}

#[cfg(test)]
mod tests {
    use fanfold_storage::command::encode_batch;

    use super::*;

    #[test]
    fn a_committed_batch_that_does_not_decode_stops_service() {
        let mut machine = PartitionMachine::new(PartitionId(0), 1);
        let batch = encode_batch(Stamp(5), &[Command::OpenSession.to_bytes()]);
        assert!(matches!(machine.apply(1, &batch)[..], [Applied::Outcome(Outcome::Session { .. })]));
        assert_eq!(machine.apply(2, b"nonsense"), Vec::new());
        assert!(machine.state().is_none());
        assert_eq!(machine.apply(3, &batch), vec![Applied::Damaged]);
    }

    #[test]
    fn nothing_is_due_in_an_empty_partition() {
        let machine = PartitionMachine::new(PartitionId(0), 1);
        assert_eq!(background(&machine, u64::MAX), None);
    }
}
