//! Owns the timelines' part of a snapshot: the segments with what was dead in them at one log index.
//!
//! - A cut freezes the active table. It is done when every table that was not flushed then has been; what died after the cut is
//!   not dead in it, and is in those segments.
//! - Segments of a cut stay open until it ends, whatever merges and expiry make of them.

use std::sync::Arc;

use super::Timelines;
use super::flush::Flushed;
use super::held::Held;
use super::marks::Marks;
use super::table::Table;
use crate::codec::{Encoded, Malformed, Reader, put_u64};
use crate::ids::Stamp;
use crate::segment::{Segment, SegmentInfo};

/// The timelines as they were at one log index.
#[derive(Debug)]
pub(in crate::partition) struct Cut {
    stamp: Stamp,
    /// What replicas share.
    state: Vec<u8>,
    segments: Vec<Held>,
    /// Tables that are to be flushed, with what was dead in them.
    waiting: Vec<(Arc<Table>, Marks)>,
}

impl Cut {
    pub(super) fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// Whether tables of it are to be flushed.
    pub(super) fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// What was dead in a table that it waits for.
    pub(super) fn dead_of(&self, table: &Arc<Table>) -> Option<&Marks> {
        self.waiting.iter().find(|(waiting, _)| Arc::ptr_eq(waiting, table)).map(|(_, dead)| dead)
    }

    /// Takes the segments that a table it waits for was written to.
    pub(super) fn take_flushed(&mut self, flushed: &Flushed) {
        let same = |(waiting, _): &(Arc<Table>, _)| Arc::ptr_eq(waiting, &flushed.table);
        if let Some(at) = self.waiting.iter().position(same) {
            let (_, dead) = self.waiting.swap_remove(at);
            self.segments.extend(flushed.held(&dead));
        }
    }

    pub(super) fn segments(&self) -> impl Iterator<Item = &Arc<Segment>> {
        self.segments.iter().map(|held| &held.segment)
    }
}

/// The timelines of a cut of which every table is flushed, taken out of the partition to be encoded while that is not locked.
#[derive(Debug)]
pub struct TimelinesCut {
    state: Vec<u8>,
    segments: Vec<Held>,
}

impl TimelinesCut {
    /// The image of the timelines, and the segments it needs.
    pub fn encode(self) -> (Vec<u8>, Vec<SegmentInfo>) {
        let Self { state: mut image, segments } = self;
        put_u64(&mut image, segments.len() as u64);
        for held in &segments {
            held.segment.info().encode(&mut image);
            held.dead_bytes.encode(&mut image);
            held.dead.encode(&mut image);
        }
        (image, segments.iter().map(|held| *held.segment.info()).collect())
    }
}

/// The image of a cut whose segments got other numbers: `renumbered` says what each was and what it is.
pub(in crate::partition) fn renumber_image(
    image: &[u8],
    renumbered: &[(SegmentInfo, SegmentInfo)],
) -> Result<Vec<u8>, Malformed> {
    let mut from = Reader::new(image);
    Timelines::default().decode_state(&mut from)?;
    let mut out = image[..image.len() - from.left()].to_vec();
    let count = from.count()?;
    put_u64(&mut out, count as u64);
    for _ in 0..count {
        let info = SegmentInfo::decode(&mut from)?;
        let now = renumbered.iter().find(|(was, _)| *was == info).map_or(info, |(_, now)| *now);
        now.encode(&mut out);
        u64::decode(&mut from)?.encode(&mut out);
        Marks::decode(&mut from)?.encode(&mut out);
    }
    from.end()?;
    Ok(out)
}

impl Timelines {
    /// Begins a cut here, in place of one that was not ended.
    pub(in crate::partition) fn begin_cut(&mut self, stamp: Stamp) {
        self.freeze();
        let waiting = self.frozen.iter().filter(|frozen| !frozen.flushed);
        let waiting = waiting.map(|frozen| (Arc::clone(&frozen.table), frozen.dead.clone())).collect();
        let (mut state, segments) = (Vec::new(), self.segments.clone());
        self.encode_state(&mut state);
        self.cut = Some(Cut { stamp, state, segments, waiting });
    }

    /// What is to be encoded of the cut; none while a table of it is to be flushed. A segment costs a few counters, however much
    /// of it is dead.
    pub(in crate::partition) fn cut_image(&self) -> Option<TimelinesCut> {
        let cut = self.cut.as_ref().filter(|cut| cut.waiting.is_empty())?;
        Some(TimelinesCut { state: cut.state.clone(), segments: cut.segments.clone() })
    }

    /// Forgets the cut, done or not, and answers it.
    pub(in crate::partition) fn end_cut(&mut self) -> Option<Cut> {
        self.cut.take()
    }

    /// The timelines of an image, with the segments it needs.
    pub(in crate::partition) fn restore(image: &[u8], segments: &[Arc<Segment>]) -> Result<Self, Malformed> {
        let mut from = Reader::new(image);
        let mut timelines = Self::default();
        timelines.decode_state(&mut from)?;
        for _ in 0..from.count()? {
            let info = SegmentInfo::decode(&mut from)?;
            let dead_bytes = u64::decode(&mut from)?;
            let dead = Marks::decode(&mut from)?;
            let segment = segments.iter().find(|segment| *segment.info() == info);
            let segment = segment.filter(|_| dead.len() <= info.entries);
            let segment = segment.ok_or(from.malformed("a segment that is there"))?;
            timelines.segments.push(Held { dead, dead_bytes, ..Held::new(Arc::clone(segment)) });
        }
        from.end()?;
        timelines.sort_segments();
        Ok(timelines)
    }
}
