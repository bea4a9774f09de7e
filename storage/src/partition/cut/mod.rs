//! Owns the cut: the state of a partition at one Raft entry, written in buckets while the partition goes on.
//!
//! - [`Partition::begin_cut`] writes only the head. [`Partition::next_bucket`] is called again and again, between entries or
//!   their pieces, and does a bounded step each time; what changes meanwhile is saved first ([`Tracked`]).
//! - A bucket is records of one [`Section`]; it is written if it changed since the last finished cut, and otherwise only named.
//!   One that nothing is left of is not named at all.
//! - The sections that change at every entry are written first, so that little has to be saved; the large ones that seldom
//!   change are written last.
//! - What is saved has a bound. From half of it on, the buckets go first of which most is saved; at the bound whoever applies has
//!   to wait for steps ([`Partition::cut_holds_too_much`]), so that memory stays within it and the records of one piece of applying.
//! - Feeds are in no cut, and the places of entries are physical: see [`Restoring`] and [`Partition::checksum`].
//!
//! The bytes stand in `FORMAT.md`, "Buckets of a partition".

mod bits;
mod head;
mod restoring;
#[cfg(test)]
mod tests;
mod tracked;

use std::ops::Range;

pub use restoring::{Restored, Restoring};
pub(super) use tracked::Tracked;

use tracked::{Cut, Piece};

use super::timelines::renumber_image;
use super::{Partition, delivered, journal, owners, reach, sessions, users};
use crate::codec::{Encoded, Malformed};
use crate::ids::{PartitionId, RowPosition};
use crate::segment::SegmentInfo;

/// The parts of the state; a number is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Section {
    Head = 1,
    Users = 2,
    Followers = 3,
    Chains = 4,
    Rows = 5,
    Reach = 6,
    Journal = 7,
    Sessions = 8,
    Keys = 9,
    Timelines = 10,
}

/// The bucket of [`TIMELINES_SECTION`] after segments that it names got other numbers: `renumbered` says what each was and
/// what it is.
///
/// # Errors
/// The bucket is malformed.
pub fn renumber_timelines(
    bucket: &[u8],
    renumbered: &[(SegmentInfo, SegmentInfo)],
) -> Result<Vec<u8>, Malformed> {
    renumber_image(bucket, renumbered)
}

/// What a section is called; none if there is none of that number.
pub fn section_name(section: u8) -> Option<&'static str> {
    let mut all = PARTS.into_iter().chain([Section::Head, Section::Timelines]);
    Some(match all.find(|known| *known as u8 == section)? {
        Section::Head => "head",
        Section::Users => "users",
        Section::Followers => "followers here",
        Section::Chains => "chains",
        Section::Rows => "rows",
        Section::Reach => "reach",
        Section::Journal => "journal",
        Section::Sessions => "sessions",
        Section::Keys => "keys",
        Section::Timelines => "timelines",
    })
}

/// The section of what [`Partition::cut_timelines`] gives, which is its bucket 0 and written last.
pub const TIMELINES_SECTION: u8 = Section::Timelines as u8;

/// The sections that consist of records, in the order in which a cut writes them.
const PARTS: [Section; 8] = [
    Section::Rows,
    Section::Chains,
    Section::Journal,
    Section::Sessions,
    Section::Keys,
    Section::Reach,
    Section::Followers,
    Section::Users,
];

impl Section {
    fn of(number: u8) -> Option<Self> {
        [Self::Head, Self::Timelines].into_iter().chain(PARTS).find(|section| *section as u8 == number)
    }

    /// How many records a bucket has, as a power of two.
    fn shift(self) -> u32 {
        match self {
            Self::Head | Self::Timelines => 0,
            Self::Users => users::BUCKET_SHIFT,
            Self::Followers | Self::Chains => owners::BUCKET_SHIFT,
            Self::Rows => delivered::CHUNK_SHIFT,
            Self::Reach => reach::BUCKET_SHIFT,
            Self::Journal => journal::BUCKET_SHIFT,
            Self::Sessions => sessions::SESSIONS_SHIFT,
            Self::Keys => sessions::KEYS_SHIFT,
        }
    }
}

/// Bytes of memory for what cuts save, unless [`Partition::bound_cuts`] says otherwise.
pub(super) const SAVED_BYTES_MAX: usize = 16 << 20;

/// What a step of a cut came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CutBucket {
    /// A bucket is not done; the next step goes on with it.
    Unfinished,
    /// A bucket that changed since the last finished cut, or had to be written.
    Written {
        /// The section.
        section: u8,
        /// Its number in the section.
        number: u64,
        /// What it holds.
        bytes: Vec<u8>,
    },
    /// A bucket that is as the last finished cut left it.
    Unchanged {
        /// The section.
        section: u8,
        /// Its number in the section.
        number: u64,
    },
}

/// What a cut held that ended. Dropping it takes time, so it is to be dropped when the partition is not locked.
#[derive(Debug)]
#[must_use = "to drop it under the partition's lock holds up the partition"]
#[expect(dead_code, reason = "it is only kept to be dropped")]
pub struct EndedCut {
    records: Vec<Cut>,
    timelines: Option<super::timelines::Cut>,
}

/// A cut under way.
#[derive(Debug)]
pub(super) struct Cutting {
    /// Until it is given out.
    head: Option<Vec<u8>>,
    /// How many of [`PARTS`] are done.
    done: usize,
}

impl Partition {
    /// Begins a cut at the last Raft entry applied; none may be half applied.
    pub fn begin_cut(&mut self) {
        assert!(self.cutting.is_none(), "one cut at a time");
        let mut head = Vec::new();
        self.encode_head(&mut head);
        self.stored_by_space().encode(&mut head);
        self.cutting = Some(Cutting { head: Some(head), done: 0 });
        for section in PARTS {
            let records = self.records(section);
            if let Some(tracked) = self.tracked(section) {
                tracked.begin(records);
            }
        }
        self.begin_cut_timelines();
    }

    /// Takes the next step of the cut; none: all buckets are given out but that of the timelines ([`Partition::cut_timelines`]). `must_write` says of a
    /// section and bucket whether it is to be written although it did not change.
    ///
    /// A step writes about 64 KiB, or one record if that is larger.
    pub fn next_bucket(&mut self, must_write: &dyn Fn(u8, u64) -> bool) -> Option<CutBucket> {
        let cutting = self.cutting.as_mut()?;
        if let Some(bytes) = cutting.head.take() {
            return Some(CutBucket::Written { section: Section::Head as u8, number: 0, bytes });
        }
        loop {
            let urgent = self.fullest().filter(|(saved, _)| *saved > self.saved_bytes_max / 2);
            let in_turn = PARTS.get(self.cutting.as_ref()?.done).copied();
            let at = urgent.map(|(_, section)| section).or(in_turn)?;
            let section = at as u8;
            let mut cut = self.tracked(at)?.take_cut()?;
            let piece = cut.piece(
                urgent.is_some(),
                |number| must_write(section, number),
                |from| self.next_record(at, from),
                |record, out| self.encode_record(at, record, out),
            );
            self.tracked(at)?.put_back(cut);
            match piece {
                Piece::End => self.cutting.as_mut()?.done += usize::from(urgent.is_none()),
                Piece::More => return Some(CutBucket::Unfinished),
                Piece::Written { number, bytes } => {
                    return Some(CutBucket::Written { section, number, bytes });
                }
                Piece::Unchanged { number } => return Some(CutBucket::Unchanged { section, number }),
            }
        }
    }

    /// Bounds the memory for what cuts save.
    pub fn bound_cuts(&mut self, saved_bytes_max: usize) {
        self.saved_bytes_max = saved_bytes_max;
    }

    /// Bytes of memory of what the cut under way has saved.
    pub fn cut_saved_bytes(&mut self) -> usize {
        self.fullest().map_or(0, |(saved, _)| saved)
    }

    /// Whether as much is saved as may be, so that nothing is to be applied before the cut took further steps.
    pub fn cut_holds_too_much(&mut self) -> bool {
        self.cut_saved_bytes() >= self.saved_bytes_max.max(1)
    }

    /// Bytes that the cut under way has saved, and the section with the most of them; none without a cut.
    fn fullest(&mut self) -> Option<(usize, Section)> {
        self.cutting.as_ref()?;
        let saved = PARTS.map(|section| (self.tracked(section).map_or(0, |t| t.saved_bytes()), section));
        let sum = saved.iter().map(|(bytes, _)| bytes).sum();
        saved.into_iter().max().map(|(_, section)| (sum, section))
    }

    /// Ends a cut whose buckets are all kept: the next one names what does not change from now on. Changes since it began
    /// count.
    pub fn end_cut(&mut self) -> EndedCut {
        let cutting = self.cutting.take();
        assert!(cutting.is_some_and(|cutting| cutting.done == PARTS.len()), "a cut ends when it is whole");
        let cuts = PARTS.into_iter().filter_map(|section| self.tracked(section)?.take_cut());
        EndedCut { records: cuts.map(|cut| *cut).collect(), timelines: self.timelines.end_cut() }
    }

    /// Ends a cut whose buckets are not kept, if there is one: what it had taken counts as changed again.
    pub fn abandon_cut(&mut self) -> EndedCut {
        self.cutting = None;
        let cuts = PARTS.into_iter().filter_map(|section| self.tracked(section)?.abandon());
        EndedCut { records: cuts.collect(), timelines: self.timelines.end_cut() }
    }

    /// A partition that is read from buckets, in any order.
    pub fn restoring(id: PartitionId, partitions: u16) -> Restoring {
        Restoring::new(id, partitions)
    }

    /// A hash of the logical state, without feeds: equal on all replicas at the same index, restored or not.
    ///
    /// It encodes everything, which takes seconds in a large partition.
    pub fn checksum(&self) -> u128 {
        let mut hasher = xxhash_rust::xxh3::Xxh3::new();
        let mut head = Vec::new();
        self.encode_head(&mut head);
        hasher.update(&head);
        self.all_buckets(|section, number, bytes| {
            hasher.update(&[section as u8]);
            hasher.update(&number.to_le_bytes());
            hasher.update(bytes);
        });
        hasher.digest128()
    }

    /// Encodes every bucket but the head as it is now.
    fn all_buckets(&self, mut found: impl FnMut(Section, u64, &[u8])) {
        let mut bytes = Vec::new();
        for section in PARTS {
            let (shift, mut left) = (section.shift(), self.records(section));
            while let Some(first) = self.next_record(section, left.start).filter(|first| *first < left.end) {
                let number = first >> shift;
                bytes.clear();
                first.encode(&mut bytes);
                left.start = ((number + 1) << shift).min(left.end);
                (first..left.start).for_each(|record| self.encode_record(section, record, &mut bytes));
                found(section, number, &bytes);
            }
        }
        bytes.clear();
        self.timelines.encode_state(&mut bytes);
        found(Section::Timelines, 0, &bytes);
    }

    /// The numbers of the records that a section has now.
    fn records(&self, section: Section) -> Range<u64> {
        match section {
            Section::Head | Section::Timelines => 0..0,
            Section::Users => 0..u64::from(self.users.extent().len),
            Section::Followers | Section::Chains => 0..u64::from(self.owners.extent().len),
            Section::Rows => self.delivered.base()..self.delivered.next().0,
            Section::Reach => 0..u64::from(self.reach.extent().len),
            Section::Journal => self.journal.first..self.journal.next().0,
            Section::Sessions => self.sessions.ids(),
            Section::Keys => self.keys.numbers(),
        }
    }

    /// The first record of a section at or behind a number; only sessions leave gaps.
    fn next_record(&self, section: Section, from: u64) -> Option<u64> {
        if section == Section::Sessions { self.sessions.next_at(from) } else { Some(from) }
    }

    /// Writes a record as it is now.
    fn encode_record(&self, section: Section, record: u64, out: &mut Vec<u8>) {
        match section {
            Section::Head | Section::Timelines => {}
            Section::Users => self.users.encode_slot(record as u32, out),
            Section::Followers => self.owners.encode_followers(record as u32, out),
            Section::Chains => self.owners.encode_chains(record as u32, out),
            Section::Rows => self.delivered.encode_row(RowPosition(record), out),
            Section::Reach => self.reach.encode_slot(record as u32, out),
            Section::Journal => self.journal.encode_event(record, out),
            Section::Sessions => self.sessions.encode_session(record, out),
            Section::Keys => self.keys.encode_key(record, out),
        }
    }

    /// What changed of a section.
    fn tracked(&mut self, section: Section) -> Option<&mut Tracked> {
        Some(match section {
            Section::Head | Section::Timelines => return None,
            Section::Users => &mut self.users.tracked,
            Section::Followers => &mut self.owners.tracked_followers,
            Section::Chains => &mut self.owners.tracked_chains,
            Section::Rows => &mut self.delivered.tracked,
            Section::Reach => &mut self.reach.tracked,
            Section::Journal => &mut self.journal.tracked,
            Section::Sessions => &mut self.sessions.tracked,
            Section::Keys => &mut self.keys.tracked,
        })
    }
}
