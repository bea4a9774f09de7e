//! Timelines on a disk in memory.

mod bounds;
mod expiries;
mod imports;
mod masses;
mod races;
mod reads;

use std::cell::Cell;
use std::path::Path;

use bytes::Bytes;

use super::*;
use crate::entry::Audience;
use crate::fs::{FaultFs, FileSystem};
use crate::segment::{Segment, SegmentInfo, SegmentNumber};

const SPACE: SpaceId = SpaceId(1);
const START: Stamp = Stamp(840_000_000_000);
const HOUR_MS: u64 = 3_600_000;

/// Merges whatever can be merged.
const ANYTHING: MergePolicy = MergePolicy {
    segment_bytes_max: 64 << 20,
    fan_in_min: 2,
    fan_in_max: 8,
    write_bound: 1e9,
    dead_divisor: 4,
};

/// Every live entry.
fn all(timelines: &Timelines, stamp: Stamp) -> Vec<Entry> {
    let mut all = Vec::new();
    let taken: Result<(), SegmentError> = timelines.each(stamp, |entry| {
        all.push(entry.clone());
        Ok(())
    });
    taken.unwrap();
    all
}

struct Store {
    timelines: Timelines,
    stamp: Stamp,
    fs: FaultFs,
    last: Cell<u64>,
}

impl Store {
    fn new() -> Self {
        let fs = FaultFs::new();
        fs.create_dir_all(Self::dir()).unwrap();
        Self { timelines: Timelines::default(), stamp: START, fs, last: Cell::new(0) }
    }

    fn dir() -> &'static Path {
        Path::new("/partition")
    }

    fn append(&mut self, owner: u64, ttl_ms: Option<u64>, payload: Vec<u8>) -> EntryId {
        let owner = UserId(owner);
        let id = self.timelines.next_id(self.stamp, SlotIndex::of(owner));
        self.timelines.insert(Entry {
            id,
            space: SPACE,
            owner,
            author: owner,
            audience: Audience::Public,
            version: 1,
            expiry: ttl_ms.map(|ttl_ms| Stamp(self.stamp.0 + ttl_ms)),
            reference: None,
            payload: Bytes::from(payload),
        });
        id
    }

    fn write(&self, work: FlushWork) -> Flushed {
        work.write(&self.fs, Self::dir(), &|| self.number(), &|_| {}).unwrap()
    }

    fn write_merge(&self, work: MergeWork) -> Merged {
        work.write(&self.fs, Self::dir(), &|| self.number(), &|_| {}).unwrap()
    }

    fn number(&self) -> SegmentNumber {
        self.last.set(self.last.get() + 1);
        SegmentNumber(self.last.get())
    }

    fn flush_work(&mut self) -> FlushWork {
        self.timelines.freeze();
        self.timelines.flush_work(self.stamp).unwrap()
    }

    fn flush(&mut self) {
        let work = self.flush_work();
        let flushed = self.write(work);
        self.install_flush(flushed);
    }

    fn install_flush(&mut self, mut flushed: Flushed) {
        while !self.timelines.install_flush(&mut flushed) {
            flushed.catch_up();
        }
    }

    /// Answers the segments that are not needed any more.
    fn install_merge(&mut self, mut merged: Merged) -> Vec<std::sync::Arc<Segment>> {
        while !self.timelines.install_merge(&mut merged) {
            merged.catch_up().unwrap();
        }
        merged.replaced().cloned().collect()
    }

    /// Merges until nothing is left to merge; answers what was merged.
    fn merge(&mut self, policy: &MergePolicy) -> Vec<std::sync::Arc<Segment>> {
        let mut inputs = Vec::new();
        while let Some(work) = self.timelines.merge_work(policy, self.stamp) {
            let merged = self.write_merge(work);
            inputs.extend(self.install_merge(merged));
        }
        inputs
    }

    fn live(&self, id: EntryId) -> Option<Entry> {
        self.timelines.live(id, self.stamp).map(Cow::into_owned)
    }

    fn live_all(&self, ids: &[EntryId]) -> Vec<Option<Entry>> {
        let mut all = vec![None; ids.len()];
        self.timelines.live_all(ids, self.stamp, |n, entry| all[n] = Some(entry.clone()));
        all
    }

    fn timeline(&self, owner: u64) -> Vec<Entry> {
        let newest = self.timelines.newest(SPACE, UserId(owner), EntryId::MAX, self.stamp);
        newest.map(Cow::into_owned).collect()
    }

    /// A cut of what is there, restored.
    fn restored(&mut self) -> Timelines {
        self.timelines.begin_cut(self.stamp);
        while let Some(work) = self.timelines.flush_work(self.stamp) {
            let flushed = self.write(work);
            self.install_flush(flushed);
        }
        let (image, infos) = self.timelines.cut_image().unwrap().encode();
        drop(self.timelines.end_cut());
        Timelines::restore(&image, &self.open(&infos)).unwrap()
    }

    fn open(&self, infos: &[SegmentInfo]) -> Vec<std::sync::Arc<Segment>> {
        infos.iter().map(|info| Segment::open(&self.fs, Self::dir(), info).unwrap().into()).collect()
    }
}
