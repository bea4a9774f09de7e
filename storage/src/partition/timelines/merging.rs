//! Owns the merge of segments into one, and the split of one by what is left of it to live.
//!
//! - The inputs are read as streams, and their pages forgotten on the way, so it takes as much memory for large ones as for small
//!   ones.
//! - What is dead or expired when the work is made is left out; what dies while it is written is marked in the output that has it.
//!   That is looked up under the partition's lock only if it is little; else beside it, as often as that takes.
//! - A split begins with what expires when. If that is not known it is measured first, which changes no segment.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::path::Path;
use std::sync::Arc;

use super::Timelines;
use super::expiry::Windows;
use super::held::{Held, record_bytes};
use super::marks::LOOKED_UP_MAX;
use super::policy::Task;
use super::spread::{Expiries, Spread};
use crate::entry::Entry;
use crate::fs::FileSystem;
use crate::ids::{EntryId, SpaceId, Stamp, UserId};
use crate::segment::{Pace, Segment, SegmentError, SegmentNumber, SegmentWriter};

/// Behind so many bytes of entries the pages of the inputs are forgotten: a fault may map a megabyte around what is read.
const FORGOTTEN_EVERY_BYTES: usize = 1 << 20;

/// Segments that are to be merged, or one that is to be split. Dropping it changes nothing.
#[derive(Debug)]
pub struct MergeWork {
    task: Task,
    /// As they were when the work was made.
    inputs: Vec<Held>,
    stamp: Stamp,
}

/// Segments that were merged, or one that was split.
#[derive(Debug)]
pub struct Merged {
    /// As they were when what died in them was last looked up in the outputs.
    inputs: Vec<Held>,
    result: Outcome,
    /// Those in which an install found too much to look up, as they were then.
    wanted: Vec<Held>,
    /// What the outputs took the place of; to free it takes long.
    replaced: Vec<Held>,
}

#[derive(Debug)]
enum Outcome {
    /// Empty if nothing was left of the inputs, or once they are installed.
    Written(Vec<Held>),
    Measured(Arc<Spread>),
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

    /// Writes the segments that take the place of all. Not under the partition's lock: it takes as long as the disk does.
    ///
    /// # Errors
    /// A segment could not be read or written. The files made so far are removed, as far as that can be done. The inputs stay as they
    /// are; a damaged one is to be told to [`Partition::note_damage`](crate::partition::Partition::note_damage).
    pub fn write(
        self,
        fs: &dyn FileSystem,
        dir: &Path,
        number: &dyn Fn() -> SegmentNumber,
        pace: Pace<'_>,
    ) -> Result<Merged, SegmentError> {
        let made = RefCell::new(Vec::new());
        let numbered = || {
            let number = number();
            made.borrow_mut().push(number);
            number
        };
        self.write_all(fs, dir, &numbered, pace).inspect_err(|_| {
            // Whoever tries again writes them anew, and the disk may be full.
            for number in made.take() {
                let _left_over = fs.remove(&dir.join(number.file_name()));
            }
        })
    }

    fn write_all(
        self,
        fs: &dyn FileSystem,
        dir: &Path,
        number: &dyn Fn() -> SegmentNumber,
        pace: Pace<'_>,
    ) -> Result<Merged, SegmentError> {
        let windows = match &self.task {
            Task::Merge => &Windows::one(),
            Task::Split(windows) => windows,
            Task::Measure => return self.measure(pace),
        };
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
        let mut outputs: Vec<Option<(SegmentWriter<'_>, Expiries)>> = Vec::new();
        outputs.resize_with(windows.count(), || None);
        let mut read_bytes = 0;
        while let Some(Reverse((_, n))) = order.pop() {
            if let Some(entry) = heads[n].take() {
                let output = &mut outputs[windows.place(entry.expiry)];
                let (writer, expiries) = match output {
                    Some(output) => output,
                    None => {
                        output.insert((SegmentWriter::create(fs, dir, number(), pace)?, Expiries::default()))
                    }
                };
                writer.add(&entry)?;
                expiries.add(entry.expiry, record_bytes(&entry));
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
        let finish = |(writer, expiries): (SegmentWriter<'_>, Expiries)| {
            let segment = Segment::open(fs, dir, &writer.finish()?)?;
            Ok(Held { answers_to: EntryId::ZERO, ..Held::written(segment, &expiries) })
        };
        let outputs: Result<_, SegmentError> = outputs.into_iter().flatten().map(finish).collect();
        Ok(Merged::new(self.inputs, Outcome::Written(outputs?)))
    }

    /// Reads what expires when, as fast as it would be written.
    fn measure(self, pace: Pace<'_>) -> Result<Merged, SegmentError> {
        let (mut expiries, mut read_bytes) = (Expiries::default(), 0);
        for held in &self.inputs {
            for entry in held.segment.iter() {
                let entry = entry?;
                if !held.dead.contains(entry.id) {
                    expiries.add(entry.expiry, record_bytes(&entry));
                }
                read_bytes += entry.payload.len();
                if read_bytes >= FORGOTTEN_EVERY_BYTES {
                    self.forget_pages();
                    pace(read_bytes as u64);
                    read_bytes = 0;
                }
            }
        }
        self.forget_pages();
        Ok(Merged::new(self.inputs, Outcome::Measured(Arc::new(expiries.spread()))))
    }

    fn forget_pages(&self) {
        self.inputs.iter().for_each(|held| held.segment.forget_pages());
    }
}

impl Merged {
    fn new(inputs: Vec<Held>, result: Outcome) -> Self {
        Self { inputs, result, wanted: Vec::new(), replaced: Vec::new() }
    }

    /// Looks up what an install found too much of. Not under the partition's lock; then it is to be installed again.
    ///
    /// # Errors
    /// What was written cannot be read: nothing was installed, and the inputs stay as they are.
    pub fn catch_up(&mut self) -> Result<(), SegmentError> {
        let Outcome::Written(outputs) = &mut self.result else { return Ok(()) };
        for now in self.wanted.drain(..) {
            if let Some(input) = self.inputs.iter_mut().find(|input| input.is_of(&now.segment)) {
                take_place_of(outputs, &now, input)?;
                *input = now;
            }
        }
        Ok(())
    }

    /// The segments whose place it took.
    pub fn replaced(&self) -> impl Iterator<Item = &Arc<Segment>> {
        self.replaced.iter().map(|held| &held.segment)
    }
}

impl Timelines {
    /// The segments to merge next.
    pub(super) fn merge_work(&self, policy: &super::MergePolicy, stamp: Stamp) -> Option<MergeWork> {
        let (task, inputs) = self.choose(policy, stamp)?;
        Some(MergeWork { task, inputs: inputs.into_iter().cloned().collect(), stamp })
    }

    /// Puts the segments that were written into the place of their inputs. False if too much died in those meanwhile.
    pub(super) fn install_merge(&mut self, merged: &mut Merged) -> bool {
        let Merged { inputs, result, wanted, replaced } = merged;
        let outputs = match result {
            Outcome::Written(outputs) => outputs,
            Outcome::Measured(spread) => {
                let is_input = |held: &&mut Held| inputs.iter().any(|input| held.is_of(&input.segment));
                let measured = self.segments.iter_mut().filter(is_input);
                measured.for_each(|held| held.spread = Some(Arc::clone(spread)));
                return true;
            }
        };
        // One that is not there had expired, and what of it was copied is hidden.
        let there = |input: &Held| self.segments.iter().find(|held| held.is_of(&input.segment));
        let died = |input: &Held| there(input).map_or(0, |held| held.dead.len() - input.dead.len());
        if inputs.iter().map(died).sum::<u64>() > LOOKED_UP_MAX {
            *wanted = inputs.iter().filter_map(there).cloned().collect();
            return false;
        }
        for input in inputs {
            let Some(at) = self.segments.iter().position(|held| held.is_of(&input.segment)) else { continue };
            let held = self.segments.swap_remove(at);
            if let Err(error) = take_place_of(outputs, &held, input) {
                self.note_damage(error);
            }
            replaced.push(held);
        }
        // A work of timelines that were replaced meanwhile finds no input here.
        if !replaced.is_empty() {
            self.written.merged += outputs.iter().map(|output| output.segment.info().bytes).sum::<u64>();
            self.segments.append(outputs);
        }
        self.sort_segments();
        true
    }
}

/// Takes over what became of one of the segments that others were made of since the work was made.
fn take_place_of(outputs: &mut [Held], now: &Held, then: &Held) -> Result<(), SegmentError> {
    outputs.iter_mut().for_each(|output| output.answers_to = output.answers_to.max(now.top()));
    let died_bytes = (now.dead_bytes - then.dead_bytes).checked_div(now.dead.len() - then.dead.len());
    for id in now.dead.since(&then.dead) {
        for output in &mut *outputs {
            if output.holds(id)? {
                output.dead.insert(id);
                output.dead_bytes += died_bytes.unwrap_or_default();
                break;
            }
        }
    }
    Ok(())
}
