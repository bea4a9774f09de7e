//! The disk of one partition: where its timelines go, at whatever moment.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;

use fanfold_storage::fs::{FaultFs, FileSystem};
use fanfold_storage::partition::{Flushed, MergePolicy, Merged, Partition};
use fanfold_storage::segment::{Segment, SegmentNumber};

const DIR: &str = "/partition";

/// Merges whatever can be merged.
const POLICY: MergePolicy = MergePolicy {
    segment_bytes_max: 1 << 20,
    fan_in_min: 2,
    fan_in_max: 3,
    write_bound: 1e6,
    dead_divisor: 4,
};

pub struct Disk {
    fs: FaultFs,
    last: Cell<u64>,
    /// Written, and not installed yet.
    flushed: Option<Flushed>,
    merged: Option<Merged>,
}

/// What happens to the files of a partition.
#[derive(Clone, Copy, Debug)]
pub enum Maintenance {
    Freeze,
    /// The next half: written, or installed.
    Flush,
    Merge,
    DropCached {
        all: bool,
    },
    DropExpired,
}

impl Disk {
    pub fn new() -> Self {
        let fs = FaultFs::new();
        fs.create_dir_all(Path::new(DIR)).unwrap();
        Self { fs, last: Cell::new(0), flushed: None, merged: None }
    }

    fn number(&self) -> SegmentNumber {
        self.last.set(self.last.get() + 1);
        SegmentNumber(self.last.get())
    }

    pub fn maintain(&mut self, partition: &mut Partition, maintenance: Maintenance) {
        let dir = Path::new(DIR);
        match maintenance {
            Maintenance::Freeze => {
                partition.freeze_timelines();
            }
            Maintenance::Flush => {
                if let Some(mut flushed) = self.flushed.take() {
                    while !partition.install_flush(&mut flushed) {
                        flushed.catch_up();
                    }
                } else if let Some(work) = partition.flush_work() {
                    self.flushed = Some(work.write(&self.fs, dir, &|| self.number(), &|_| {}).unwrap());
                }
            }
            Maintenance::Merge => {
                if let Some(mut merged) = self.merged.take() {
                    while !partition.install_merge(&mut merged) {
                        merged.catch_up().unwrap();
                    }
                } else if let Some(work) = partition.merge_work(&POLICY) {
                    self.merged = Some(work.write(&self.fs, dir, &|| self.number(), &|_| {}).unwrap());
                }
            }
            Maintenance::DropCached { all } => {
                let half = partition.timeline_sizes().cached_bytes / 2;
                drop(partition.drop_cached_tables(if all { 0 } else { half }));
            }
            Maintenance::DropExpired => drop(partition.drop_expired_segments()),
        }
        assert!(partition.damage().is_none());
    }

    /// What the cut that runs holds of the timelines, with its segments.
    pub fn cut_timelines(&mut self, partition: &mut Partition) -> (Vec<u8>, Vec<Arc<Segment>>) {
        let (image, infos) = loop {
            match partition.cut_timelines() {
                Some(cut) => break cut.encode(),
                None => self.maintain(partition, Maintenance::Flush),
            }
        };
        let open = |info| Arc::new(Segment::open(&self.fs, Path::new(DIR), info).unwrap());
        let segments: Vec<_> = infos.iter().map(open).collect();
        segments.iter().for_each(|segment| segment.verify().unwrap());
        (image, segments)
    }

    /// Of a partition that is no more.
    pub fn forget_works(&mut self) {
        (self.flushed, self.merged) = (None, None);
    }
}
