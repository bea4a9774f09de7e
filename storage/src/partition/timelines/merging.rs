//! Owns the merge of segments into one.
//!
//! - The inputs are read as streams, and their pages forgotten on the way, so it takes as much memory for large ones as for small
//!   ones.
//! - What is dead or expired when the work is made is left out; what dies while it is written is marked in the output.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::path::Path;
use std::sync::Arc;

use super::Timelines;
use super::held::Held;
use crate::entry::Entry;
use crate::fs::FileSystem;
use crate::ids::{EntryId, SpaceId, Stamp, UserId};
use crate::segment::{Pace, Segment, SegmentError, SegmentNumber, SegmentWriter};

/// Behind so many bytes of entries the pages of the inputs are forgotten: a fault may map a megabyte around what is read.
const FORGOTTEN_EVERY_BYTES: usize = 1 << 20;

/// Segments that are to be merged. Dropping it changes nothing.
#[derive(Debug)]
pub struct MergeWork {
    /// As they were when the work was made.
    inputs: Vec<Held>,
    stamp: Stamp,
}

/// Segments that were merged.
#[derive(Debug)]
pub struct Merged {
    inputs: Vec<Held>,
    /// None if nothing of them was left.
    output: Option<Arc<Segment>>,
}

/// The order of a segment's entries.
type Key = (SpaceId, UserId, Reverse<EntryId>);

fn key(entry: &Entry) -> Key {
    (entry.space, entry.owner, Reverse(entry.id))
}

impl MergeWork {
    /// The bytes that it reads.
    pub fn bytes(&self) -> u64 {
        self.inputs.iter().map(|held| held.segment.info().bytes).sum()
    }

    /// Writes the segment that takes the place of all. Not under the partition's lock: it takes as long as the disk does.
    ///
    /// # Errors
    /// A segment could not be read or written. The inputs stay as they are; a damaged one is to be told to
    /// [`Partition::note_damage`](crate::partition::Partition::note_damage).
    pub fn write(
        self,
        fs: &dyn FileSystem,
        dir: &Path,
        number: &dyn Fn() -> SegmentNumber,
        pace: Pace<'_>,
    ) -> Result<Merged, SegmentError> {
        let mut sources: Vec<_> = self.inputs.iter().map(|held| (held, held.segment.iter())).collect();
        let mut next = |n: usize| -> Result<Option<Entry>, SegmentError> {
            let (held, entries) = &mut sources[n];
            for entry in entries {
                let entry = entry?;
                if !held.dead.contains(entry.id) && !entry.expired(self.stamp) {
                    return Ok(Some(entry));
                }
            }
            Ok(None)
        };
        let mut heads: Vec<Option<Entry>> = Vec::with_capacity(self.inputs.len());
        let mut order: BinaryHeap<Reverse<(Key, usize)>> = BinaryHeap::with_capacity(self.inputs.len());
        for n in 0..self.inputs.len() {
            heads.push(next(n)?);
            order.extend(heads[n].as_ref().map(|entry| Reverse((key(entry), n))));
        }
        let (mut writer, mut read_bytes) = (None, 0);
        while let Some(Reverse((_, n))) = order.pop() {
            if writer.is_none() {
                writer = Some(SegmentWriter::create(fs, dir, number(), pace)?);
            }
            if let (Some(writer), Some(entry)) = (&mut writer, heads[n].take()) {
                writer.add(&entry)?;
                read_bytes += entry.payload.len();
            }
            if read_bytes >= FORGOTTEN_EVERY_BYTES {
                self.forget_pages();
                read_bytes = 0;
            }
            heads[n] = next(n)?;
            order.extend(heads[n].as_ref().map(|entry| Reverse((key(entry), n))));
        }
        self.forget_pages();
        let info = writer.map(SegmentWriter::finish).transpose()?;
        let output = info.map(|info| Segment::open(fs, dir, &info)).transpose()?.map(Arc::new);
        Ok(Merged { inputs: self.inputs, output })
    }

    fn forget_pages(&self) {
        self.inputs.iter().for_each(|held| held.segment.forget_pages());
    }
}

impl Timelines {
    /// The segments to merge next.
    pub(super) fn merge_work(&self, policy: &super::MergePolicy, stamp: Stamp) -> Option<MergeWork> {
        let inputs: Vec<Held> = self.choose(policy, stamp).into_iter().cloned().collect();
        (!inputs.is_empty()).then_some(MergeWork { inputs, stamp })
    }

    /// Puts a merged segment into the place of its inputs; answers those.
    pub(super) fn install_merge(&mut self, merged: Merged) -> Vec<Arc<Segment>> {
        let before = self.segments.len();
        let mut output =
            merged.output.map(|segment| Held { answers_to: EntryId::ZERO, ..Held::new(segment) });
        for input in &merged.inputs {
            let same = |held: &Held| Arc::ptr_eq(&held.segment, &input.segment);
            // One that is gone had expired, and what of it was copied is hidden.
            let Some(at) = self.segments.iter().position(same) else { continue };
            let held = self.segments.swap_remove(at);
            if let Some(output) = &mut output {
                output.take_place_of(&held, input);
            }
        }
        // A work of timelines that were replaced meanwhile finds no input here.
        if let Some(output) = output.filter(|_| self.segments.len() < before) {
            self.written.merged += output.segment.info().bytes;
            self.segments.push(output);
        }
        self.sort_segments();
        merged.inputs.into_iter().map(|held| held.segment).collect()
    }
}

impl Held {
    /// Takes over what became of one of the segments it was merged from since the work was made.
    fn take_place_of(&mut self, now: &Self, then: &Self) {
        for id in now.dead.since(&then.dead) {
            self.dead.insert(id);
        }
        self.dead_bytes += now.dead_bytes - then.dead_bytes;
        self.answers_to = self.answers_to.max(now.top());
    }
}
