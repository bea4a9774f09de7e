//! Owns the flush of a frozen table to segments.
//!
//! - Written is what was neither dead nor expired when the work was made, so that what died meanwhile can be marked in the
//!   segments. For a cut it is what was neither at the cut, because the log will be applied from there.
//! - Segments of one flush do not overlap in their expiries: an entry's expiry tells where it went.
//! - What died meanwhile is looked up under the partition's lock only if it is little; else beside it, as often as that takes.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::Timelines;
use super::expiry::Windows;
use super::held::{Frozen, Held, record_bytes};
use super::marks::{LOOKED_UP_MAX, Marks};
use super::spread::Expiries;
use super::table::Table;
use crate::entry::Entry;
use crate::fs::FileSystem;
use crate::ids::{EntryId, Stamp};
use crate::segment::{Pace, Segment, SegmentError, SegmentNumber, SegmentWriter};

/// Windows of expiry of one flush, at most.
const WINDOWS_MAX: usize = 16;

/// A frozen table that is to be written. Dropping it changes nothing.
#[derive(Debug)]
pub struct FlushWork {
    table: Arc<Table>,
    dead: Marks,
    stamp: Stamp,
}

/// A frozen table that was written.
#[derive(Debug)]
pub struct Flushed {
    pub(super) table: Arc<Table>,
    /// The stamp of the work.
    stamp: Stamp,
    /// How its segments stand, the fewest dead first; never empty.
    standings: Vec<Standing>,
    /// What of the table was dead where an install found too much to look up, the fewest first.
    wanted: Vec<Marks>,
}

/// Segments as they stand when so much of their table is dead.
#[derive(Debug)]
struct Standing {
    dead: Marks,
    segments: Vec<Held>,
}

impl FlushWork {
    /// Writes the segments, each under a number that `number` gives, which it never gives twice. Not under the partition's lock:
    /// it takes as long as the disk does.
    ///
    /// # Errors
    /// A segment could not be written. The files made so far are removed, as far as that can be done; the table is still to be flushed.
    pub fn write(
        self,
        fs: &dyn FileSystem,
        dir: &Path,
        number: &dyn Fn() -> SegmentNumber,
        pace: Pace<'_>,
    ) -> Result<Flushed, SegmentError> {
        let live = |entry: &&Entry| !self.dead.contains(entry.id) && !entry.expired(self.stamp);
        let mut entries: Vec<&Entry> = self.table.entries.values().filter(live).collect();
        entries.sort_unstable_by_key(|entry| (entry.space, entry.owner, Reverse(entry.id)));
        let mut expiries = Expiries::default();
        entries.iter().for_each(|entry| expiries.add(entry.expiry, record_bytes(entry)));
        let windows = Windows::of(expiries.points(), self.stamp, WINDOWS_MAX);
        let mut groups: BTreeMap<Option<usize>, Vec<&Entry>> = BTreeMap::new();
        for entry in entries {
            let window = entry.expiry.map(|expiry| windows.place(Some(expiry)));
            groups.entry(window).or_default().push(entry);
        }
        let mut numbers = Vec::with_capacity(groups.len());
        let segments = groups.into_values().map(|group| {
            numbers.push(number());
            write_segment(group, fs, dir, numbers[numbers.len() - 1], pace)
        });
        let segments = match segments.collect() {
            Ok(segments) => segments,
            Err(error) => {
                // Whoever tries again writes them anew, and the disk may be full.
                for number in numbers {
                    let _left_over = fs.remove(&dir.join(number.file_name()));
                }
                return Err(error);
            }
        };
        let written = Standing { dead: self.dead, segments };
        Ok(Flushed { table: self.table, stamp: self.stamp, standings: vec![written], wanted: Vec::new() })
    }
}

/// Writes entries to one segment.
fn write_segment(
    entries: Vec<&Entry>,
    fs: &dyn FileSystem,
    dir: &Path,
    number: SegmentNumber,
    pace: Pace<'_>,
) -> Result<Held, SegmentError> {
    let mut writer = SegmentWriter::create(fs, dir, number, pace)?;
    let mut expiries = Expiries::default();
    for entry in entries {
        writer.add(entry)?;
        expiries.add(entry.expiry, record_bytes(entry));
    }
    Ok(Held::written(Segment::open(fs, dir, &writer.finish()?)?, &expiries))
}

impl Flushed {
    /// Looks up what an install found too much of. Not under the partition's lock; then it is to be installed again.
    pub fn catch_up(&mut self) {
        let before = self.standings.len();
        for dead in std::mem::take(&mut self.wanted) {
            let segments = self.held(&dead);
            self.standings.push(Standing { dead, segments });
        }
        // What is dead now is in all that will be asked for, but where a cut is: that was asked for too.
        let is_ahead = self.standings.len() > before;
        self.standings.drain(..if is_ahead { before } else { 0 });
    }

    /// The place of the standing with the most of `dead`, which is what was dead in the table at some time since the work was made.
    fn nearest(&self, dead: &Marks) -> usize {
        self.standings.iter().rposition(|standing| standing.dead.len() <= dead.len()).unwrap_or_default()
    }

    /// How many of `dead` are to be looked up.
    fn lacks(&self, dead: &Marks) -> u64 {
        dead.len() - self.standings[self.nearest(dead)].dead.len()
    }

    /// The segments as they stand when, of the table, `dead` are dead.
    pub(super) fn held(&self, dead: &Marks) -> Vec<Held> {
        let at = self.nearest(dead);
        let mut held = self.standings[at].segments.clone();
        self.mark(&mut held, at, dead);
        held
    }

    /// The same, once and for all: marks that nobody else has are not copied.
    fn take_held(&mut self, dead: &Marks) -> Vec<Held> {
        let at = self.nearest(dead);
        let mut held = std::mem::take(&mut self.standings[at].segments);
        self.mark(&mut held, at, dead);
        held
    }

    /// Marks in segments what is in `dead` and was not dead in the standing that they are of.
    fn mark(&self, segments: &mut [Held], at: usize, dead: &Marks) {
        for entry in dead.since(&self.standings[at].dead).filter_map(|id| self.table.get(id)) {
            if let Some(held) = segments.iter_mut().find(|held| held.takes(entry.expiry)) {
                held.mark(entry);
            }
        }
    }
}

impl Timelines {
    /// Freezes the active table; false if there is nothing in it.
    pub(super) fn freeze(&mut self) -> bool {
        if self.active.entries.len() == 0 {
            return false;
        }
        let table = Arc::new(std::mem::take(&mut self.active));
        let older = self.frozen.last().map_or(EntryId::ZERO, |frozen| frozen.top);
        let highest = table.entries.range().map_or(EntryId::ZERO, |(_, highest)| highest);
        let (dead, top) = (Marks::default(), older.max(highest));
        self.frozen.push(Frozen { table, dead, flushed: false, flushed_at: Stamp(0), top });
        true
    }

    /// The oldest table that is to be flushed.
    pub(super) fn flush_work(&self, stamp: Stamp) -> Option<FlushWork> {
        let frozen = self.frozen.iter().find(|frozen| !frozen.flushed)?;
        let table = Arc::clone(&frozen.table);
        let cut = self.cut.as_ref().and_then(|cut| Some((cut.dead_of(&table)?.clone(), cut.stamp())));
        let (dead, stamp) = cut.unwrap_or_else(|| (frozen.dead.clone(), stamp));
        Some(FlushWork { table, dead, stamp })
    }

    /// Takes the segments that a table was written to: from now on it is a cache of them. False if too much died meanwhile.
    pub(super) fn install_flush(&mut self, flushed: &mut Flushed) -> bool {
        // A work of timelines that were replaced meanwhile finds no table here.
        let same = |frozen: &&mut Frozen| Arc::ptr_eq(&frozen.table, &flushed.table) && !frozen.flushed;
        let Some(frozen) = self.frozen.iter_mut().find(same) else { return true };
        let cut = self.cut.as_ref().and_then(|cut| cut.dead_of(&flushed.table));
        let wanted = || cut.into_iter().chain([&frozen.dead]);
        if wanted().map(|dead| flushed.lacks(dead)).sum::<u64>() > LOOKED_UP_MAX {
            flushed.wanted = wanted().cloned().collect();
            return false;
        }
        (frozen.flushed, frozen.flushed_at) = (true, flushed.stamp);
        if let Some(cut) = &mut self.cut {
            cut.take_flushed(flushed);
        }
        let mut held = flushed.take_held(&frozen.dead);
        for held in &mut held {
            held.answers_to = EntryId::ZERO;
            self.written.note_flush(held.segment.info());
        }
        self.segments.append(&mut held);
        self.sort_segments();
        true
    }

    /// Brings the segments into the order in which walks look into them.
    pub(super) fn sort_segments(&mut self) {
        self.segments.sort_by_key(Held::top);
    }
}
