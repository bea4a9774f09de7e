//! Owns the reading back of a log: which batches count, which places are damaged, and what the groups' state is.
//!
//! - A batch behind another one shows that the other was durable, since each is written after the sync of the one
//!   before; so a bad place counts as a torn tail only if no batch follows it anywhere.
//! - Numbers of batches are consecutive: a missing one is damage.
//! - A batch in a segment made at open replaces the batch of the same number, and all later ones, of older segments.

use std::collections::BTreeSet;
use std::path::PathBuf;

use bytes::Bytes;

use super::batch::{BatchHead, Line};
use super::index::{Index, Place};
use super::ledger::Ledger;
use super::options::BLOCK_BYTES;
use super::scan::{Batch, Scanned};
use super::segment::Segment;
use super::{AffectedGroups, Damage, GroupId, Record, Recovered, TornTail};

/// The state of a log while it is read back, segment by segment.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    pub(super) index: Index,
    pub(super) ledger: Ledger,
    pub(super) recovered: Recovered,
    /// Segments that were read in full, oldest first.
    pub(super) segments: Vec<Segment>,
    /// The number of the last batch that counts.
    pub(super) last_number: u64,
    /// The groups in that batch.
    pub(super) last_groups: u64,
    /// The oldest segment still needed, as that batch says.
    pub(super) keep_from: u64,
    /// Every batch up to this number is known to have been durable.
    pub(super) durable_number: u64,
    /// The newest segment with batches, not applied yet: a newer one may replace the end of it.
    pending: Option<Scanned>,
    /// Newer segments without batches.
    pub(super) empty: Vec<Scanned>,
    /// Where the next batch was to be expected: file, its segment, offset.
    expected_at: Option<(PathBuf, u64, u64)>,
    /// Whether there are segments without a readable batch before the first one with some.
    begins_unreadable: bool,
    groups_seen: BTreeSet<GroupId>,
    recent_bytes_max: u64,
    /// The group whose entries are all kept in memory.
    pub(super) whole: Option<GroupId>,
}

impl Recovery {
    pub(super) fn new(recent_bytes_max: u64) -> Self {
        Self { recent_bytes_max, ..Self::default() }
    }

    /// Takes the next segment; answers the memory of one that is done, to be used again.
    pub(super) fn segment(&mut self, segment: Scanned) -> Vec<u8> {
        let header = segment.header;
        self.recovered.segments += 1;
        if let Some(offset) = segment.damaged_copy {
            self.damage(&segment, offset, AffectedGroups::Listed(BTreeSet::new()));
        }
        self.durable_number = self.durable_number.max(header.durable_number);
        let first = segment.batches.first().map(|batch| batch.head.header.number);
        if let Some(pending) = &mut self.pending {
            pending.batches.retain(|batch| {
                let number = batch.head.header.number;
                first.is_none_or(|first| number < first)
                    && (!header.made_at_open || number <= header.durable_number)
            });
        }
        if first.is_none() {
            self.empty.push(segment);
            return Vec::new();
        }
        let mut done = Vec::new();
        if let Some(pending) = self.pending.replace(segment) {
            self.apply_batches(&pending, pending.batches.len());
            let (segment, buffer) = pending.into_parts();
            self.segments.push(segment);
            done = buffer;
        }
        self.keep_empty();
        done
    }

    /// Keeps segments without readable batches. What stood there is missing from the numbers, and is found so.
    pub(super) fn keep_empty(&mut self) {
        for empty in std::mem::take(&mut self.empty) {
            self.begins_unreadable |= self.last_number == 0;
            self.expected_at = Some((empty.path.clone(), empty.header.sequence, BLOCK_BYTES));
            self.segments.push(empty.into_segment());
        }
    }

    /// Ends the reading: cuts a batch that was torn, and hands over the newest segment with batches for the caller to
    /// apply; none if it has none any more.
    pub(super) fn end(&mut self) -> Option<Scanned> {
        let mut segment = self.pending.take()?;
        let last = segment.batches.last().filter(|last| last.head.header.number > self.durable_number);
        if let Some(last) = last
            && !segment.is_intact(last)
        {
            let (offset, bytes) = (last.offset, last.head.bytes);
            // It was begun only after the sync of the one before.
            self.durable_number = self.durable_number.max(last.head.header.number - 1);
            self.recovered.torn = Some(TornTail { path: segment.path.clone(), offset, bytes });
            segment.batches.pop();
        } else {
            self.recovered.torn = self.find_torn(&segment);
        }
        if segment.batches.is_empty() {
            self.empty.insert(0, segment);
            return None;
        }
        Some(segment)
    }

    fn find_torn(&self, segment: &Scanned) -> Option<TornTail> {
        let here = (segment, segment.end_offset());
        let places = std::iter::once(here).chain(self.empty.first().map(|next| (next, BLOCK_BYTES)));
        places
            .map(|(segment, offset)| (segment, offset, segment.unfinished_bytes(offset)))
            .find(|(_, _, bytes)| *bytes > 0)
            .map(|(segment, offset, bytes)| TornTail { path: segment.path.clone(), offset, bytes })
    }

    /// Whether all of a segment's batches are there and intact.
    pub(super) fn is_clean(&self, segment: &Scanned) -> bool {
        let begins_log = segment.header.sequence == 1 || self.last_number > 0;
        let mut offset = BLOCK_BYTES;
        let mut before = self.last_number;
        segment.damaged_copy.is_none()
            && segment.batches.iter().all(|batch| {
                let number = batch.head.header.number;
                let counted = begins_log || offset > BLOCK_BYTES;
                let follows = batch.offset == offset && (!counted || number == before + 1);
                offset = batch.offset + batch.head.padded_bytes();
                before = number;
                follows && segment.is_intact(batch)
            })
    }

    /// Applies the first batches of a segment where they stand.
    pub(super) fn apply_batches(&mut self, segment: &Scanned, count: usize) {
        for batch in segment.batches.iter().take(count) {
            self.find_missing(segment, batch);
            let position = segment.header.start + batch.offset;
            self.apply_batch(segment, batch, position, segment.header.sequence);
        }
        if segment.batches.first().is_some_and(|first| first.offset != BLOCK_BYTES) {
            // If the batch that stood here is missing, that was noted; if not, an older copy of it was found.
            self.damage_once(segment, BLOCK_BYTES);
        }
    }

    /// Notes damage if batches are missing before one.
    pub(super) fn find_missing(&mut self, segment: &Scanned, batch: &Batch) {
        let header = &batch.head.header;
        let counted = segment.header.sequence == 1 || self.last_number > 0;
        let missing = if counted {
            header.number.saturating_sub(self.last_number + 1)
        } else if batch.offset != BLOCK_BYTES || self.begins_unreadable {
            // The oldest segment has to begin with a batch; how many were before this one nobody knows.
            u64::MAX
        } else {
            0
        };
        let groups = match missing {
            0 => return,
            1 => AffectedGroups::ByMask(header.previous_groups),
            _ => AffectedGroups::All,
        };
        let here = (segment.path.clone(), segment.header.sequence, BLOCK_BYTES);
        let before_here = self.expected_at.clone().filter(|(path, ..)| {
            // A batch that opens its segment shows that what is missing was in an older one.
            *path == segment.path || batch.offset == BLOCK_BYTES
        });
        let (path, sequence, offset) = before_here.unwrap_or(here);
        self.note(Damage::new(path, offset, groups), sequence);
    }

    /// Applies one batch as it stands, or will stand, at an absolute position.
    pub(super) fn apply_batch(&mut self, segment: &Scanned, batch: &Batch, position: u64, sequence: u64) {
        let bytes = segment.bytes_of(batch);
        self.recovered.batches += 1;
        for line in &batch.head.lines {
            self.recovered.records += 1;
            self.groups_seen.insert(line.group);
            let Some(payload) = line.payload(bytes) else {
                self.damage(segment, batch.offset + line.offset, only(line.group));
                continue;
            };
            let record = line.record(Bytes::copy_from_slice(payload));
            if !self.apply_record(&record, line, position, sequence) {
                self.damage(segment, batch.offset + line.offset, only(line.group));
            }
        }
        let end_offset = batch.offset + batch.head.padded_bytes();
        self.expected_at = Some((segment.path.clone(), segment.header.sequence, end_offset));
        self.after_batch(&batch.head);
    }

    fn apply_record(&mut self, record: &Record, line: &Line, position: u64, sequence: u64) -> bool {
        self.ledger.apply(record, sequence);
        if self.ledger.quarantine().of(line.group).is_some() {
            // Records after damage may not fit together; they wait for whoever looks into the file.
            return true;
        }
        let place = Place { position: position + line.offset, bytes: line.bytes, crc: line.crc };
        let fits = self.index.replay(record, place).is_ok();
        if let Some(state) = self.index.get_mut(line.group).filter(|_| self.whole != Some(line.group)) {
            state.shrink(self.recent_bytes_max);
        }
        fits
    }

    fn after_batch(&mut self, head: &BatchHead) {
        self.last_number = head.header.number;
        self.last_groups = head.groups_mask();
        self.keep_from = self.keep_from.max(head.header.keep_from);
    }

    /// After all batches: if one that was durable is not among them, everything may be.
    pub(super) fn find_missing_at_end(&mut self) {
        if self.last_number >= self.durable_number {
            return;
        }
        self.keep_empty();
        if let Some((path, sequence, offset)) = self.expected_at.clone() {
            self.note(Damage::new(path, offset, AffectedGroups::All), sequence);
        }
    }

    /// Notes damage in a segment.
    fn damage(&mut self, segment: &Scanned, offset: u64, groups: AffectedGroups) {
        self.note(Damage::new(segment.path.clone(), offset, groups), segment.header.sequence);
    }

    fn damage_once(&mut self, segment: &Scanned, offset: u64) {
        let known = |damage: &Damage| damage.path == segment.path && damage.offset == offset;
        if !self.recovered.damaged.iter().any(known) {
            self.damage(segment, offset, AffectedGroups::Listed(BTreeSet::new()));
        }
    }

    fn note(&mut self, damage: Damage, sequence: u64) {
        self.recovered.damaged.push(damage.clone());
        self.ledger.damaged(damage, sequence);
    }

    /// After the last batch: groups whose first entries are missing are damaged too. Who was forgotten behind damage is known now.
    pub(super) fn finish(&mut self) {
        let broken: Vec<GroupId> = self
            .index
            .iter()
            .filter(|(group, state)| !state.is_whole() && self.ledger.quarantine().of(*group).is_none())
            .map(|(group, _)| group)
            .collect();
        if let Some(oldest) = self.segments.first()
            && !broken.is_empty()
        {
            let groups = AffectedGroups::Listed(broken.into_iter().collect());
            let damage = Damage::new(oldest.path.clone(), BLOCK_BYTES, groups);
            let sequence = oldest.header.sequence;
            self.note(damage, sequence);
        }
        self.recovered.damaged = self.ledger.quarantine().all().cloned().collect();
        self.recovered.groups = std::mem::take(&mut self.groups_seen).into_iter().collect();
    }
}

fn only(group: GroupId) -> AffectedGroups {
    AffectedGroups::Listed(BTreeSet::from([group]))
}
