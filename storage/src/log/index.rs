//! Owns what the log knows of each group: its vote, marks, and where its entries are.
//!
//! - Everything submitted counts here at once; a place is filled in when the entry was written.
//! - An entry that is not written yet is always in memory; of the others, the newest up to a limit.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use super::{GroupId, GroupState, Record};

/// Where an entry's payload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Absolute position; with [`UNWRITTEN`] set, the ticket of an entry that is still queued.
    pub(super) position: u64,
    pub(super) bytes: u32,
    pub(super) crc: u32,
}

/// Marks a place as a ticket. Absolute positions stay far below it.
const UNWRITTEN: u64 = 1 << 63;

impl Place {
    fn is_written(self) -> bool {
        self.position & UNWRITTEN == 0
    }
}

/// An entry that does not follow the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotNext {
    pub(super) expected: u64,
}

/// An entry as the index has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    InMemory(Bytes),
    OnDisk(Place),
}

/// One group's part of the index.
#[derive(Debug, Default)]
pub(super) struct GroupIndex {
    vote: Option<Bytes>,
    committed: Option<Bytes>,
    purged: Option<(u64, Bytes)>,
    /// Index of the first place; without places, of the next one.
    first: u64,
    places: VecDeque<Place>,
    /// The last entries, up to the last one.
    recent: VecDeque<Bytes>,
    recent_bytes: u64,
    /// Of all entries.
    bytes: u64,
    /// Of all entries ever appended, less those truncated.
    appended: u64,
}

impl GroupIndex {
    pub(super) fn state(&self) -> GroupState {
        GroupState {
            vote: self.vote.clone(),
            committed: self.committed.clone(),
            purged: self.purged.clone(),
            first: self.first(),
            last: self.last(),
        }
    }

    /// The first index there is or may be.
    pub(super) fn first(&self) -> u64 {
        match (&self.purged, self.places.is_empty()) {
            (Some((index, _)), true) => index.saturating_add(1),
            (None, true) => 0,
            (_, false) => self.first,
        }
    }

    /// The last entry's index.
    pub(super) fn last(&self) -> Option<u64> {
        (self.places.len() as u64).checked_sub(1).map(|more| self.first.saturating_add(more))
    }

    pub(super) fn purged_index(&self) -> Option<u64> {
        self.purged.as_ref().map(|(index, _)| *index)
    }

    /// The index that an appended entry must have; none if any will do.
    pub(super) fn next(&self) -> Option<u64> {
        self.last().or(self.purged_index()).map(|index| index.saturating_add(1))
    }

    /// Whether the first entry follows the purge mark, as it must once everything was read.
    pub(super) fn is_whole(&self) -> bool {
        self.places.is_empty()
            || self.purged_index().is_none_or(|index| self.first == index.saturating_add(1))
    }

    /// Adds an entry that follows the last one. While the log is read back, older entries and marks may be gone,
    /// so that an entry may then follow any purge mark.
    fn append(&mut self, index: u64, place: Place, data: Bytes, reading: bool) -> Result<(), NotNext> {
        match self.next() {
            Some(expected) if expected != index => {
                let after_lost_mark = reading && self.places.is_empty() && index > expected;
                if !after_lost_mark {
                    return Err(NotNext { expected });
                }
            }
            _ => {}
        }
        if self.places.is_empty() {
            self.first = index;
        }
        self.places.push_back(place);
        self.bytes += u64::from(place.bytes);
        self.appended += u64::from(place.bytes);
        self.recent_bytes += data.len() as u64;
        self.recent.push_back(data);
        Ok(())
    }

    fn truncate_after(&mut self, index: Option<u64>) {
        let keep = match index {
            Some(index) if !self.places.is_empty() => {
                usize::try_from(index.saturating_add(1).saturating_sub(self.first)).unwrap_or(usize::MAX)
            }
            _ => 0,
        };
        while self.places.len() > keep {
            let bytes = self.places.pop_back().map_or(0, |place| u64::from(place.bytes));
            (self.bytes, self.appended) = (self.bytes - bytes, self.appended - bytes);
            if let Some(data) = self.recent.pop_back() {
                self.recent_bytes -= data.len() as u64;
            }
        }
    }

    fn purge(&mut self, index: u64, data: Bytes) {
        if self.purged_index().is_none_or(|purged| purged <= index) {
            self.purged = Some((index, data));
        }
        while !self.places.is_empty() && self.first <= index {
            self.bytes -= self.places.pop_front().map_or(0, |place| u64::from(place.bytes));
            self.first = self.first.saturating_add(1);
            if self.recent.len() > self.places.len() {
                self.forget_oldest_recent();
            }
        }
    }

    fn forget_oldest_recent(&mut self) {
        if let Some(data) = self.recent.pop_front() {
            self.recent_bytes -= data.len() as u64;
        }
    }

    /// Keeps in memory only what the limit allows and what is not written yet.
    pub(super) fn shrink(&mut self, recent_bytes_max: u64) {
        while self.recent_bytes > recent_bytes_max {
            let oldest = self.places.len() - self.recent.len();
            if !self.places[oldest].is_written() {
                return;
            }
            self.forget_oldest_recent();
        }
    }

    /// Notes where an entry was written, unless it was removed or replaced meanwhile.
    pub(super) fn written(&mut self, index: u64, ticket: u64, place: Place) {
        let Some(at) = index.checked_sub(self.first) else { return };
        if let Some(slot) = self.places.get_mut(at as usize)
            && slot.position == UNWRITTEN | ticket
        {
            *slot = place;
        }
    }

    pub(super) fn find(&self, index: u64) -> Option<Found> {
        let at = usize::try_from(index.checked_sub(self.first)?).ok()?;
        let place = self.places.get(at)?;
        let in_memory = at.checked_sub(self.places.len() - self.recent.len()).map(|at| &self.recent[at]);
        Some(in_memory.map_or(Found::OnDisk(*place), |data| Found::InMemory(data.clone())))
    }

    pub(super) fn recent_bytes(&self) -> u64 {
        self.recent_bytes
    }

    /// Bytes of the entries ever appended up to `index`; what was purged before this run is not known and not counted.
    pub(super) fn appended_through(&self, index: u64) -> u64 {
        let after = index.saturating_add(1).saturating_sub(self.first).min(self.places.len() as u64);
        let behind = self.places.range(after as usize..).map(|place| u64::from(place.bytes));
        self.appended - behind.sum::<u64>()
    }

    pub(super) fn appended(&self) -> u64 {
        self.appended
    }

    /// Bytes of all entries, and the absolute position of the first; none while that is not written.
    pub(super) fn held(&self) -> (u64, Option<u64>) {
        let first = self.places.front().filter(|place| place.is_written());
        (self.bytes, first.map(|place| place.position))
    }
}

/// The end of a group's entries, for checking a submission before anything of it is taken.
#[derive(Debug, Clone, Copy, Default)]
struct Tail {
    purged: Option<u64>,
    first: u64,
    last: Option<u64>,
}

impl Tail {
    fn of(state: &GroupIndex) -> Self {
        Self { purged: state.purged_index(), first: state.first, last: state.last() }
    }

    fn apply(&mut self, record: &Record) -> Result<(), NotNext> {
        match record {
            Record::Append { index, .. } => {
                let expected = self.last.or(self.purged).map_or(*index, |index| index.saturating_add(1));
                if expected != *index || *index == u64::MAX {
                    return Err(NotNext { expected });
                }
                self.first = if self.last.is_none() { *index } else { self.first };
                self.last = Some(*index);
            }
            Record::TruncateAfter { index, .. } => {
                let index = index.filter(|index| *index >= self.first);
                self.last = self.last.and_then(|last| index.map(|index| last.min(index)));
            }
            Record::Purge { index, .. } => {
                self.purged = self.purged.max(Some(*index));
                self.last = self.last.filter(|last| last > index);
                self.first = self.first.max(index.saturating_add(1));
            }
            Record::Forget { .. } => *self = Self::default(),
            Record::Vote { .. } | Record::Committed { .. } => {}
        }
        Ok(())
    }
}

/// The index of all groups.
#[derive(Debug, Default)]
pub(super) struct Index {
    groups: HashMap<GroupId, GroupIndex>,
}

impl Index {
    pub(super) fn get(&self, group: GroupId) -> Option<&GroupIndex> {
        self.groups.get(&group)
    }

    pub(super) fn get_mut(&mut self, group: GroupId) -> Option<&mut GroupIndex> {
        self.groups.get_mut(&group)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (GroupId, &GroupIndex)> {
        self.groups.iter().map(|(group, index)| (*group, index))
    }

    /// Whether records could be taken one after the other; changes nothing. On an error, the first that could not.
    pub(super) fn check<'a>(
        &self,
        records: impl Iterator<Item = &'a Record>,
    ) -> Result<(), (&'a Record, NotNext)> {
        let mut tails: HashMap<GroupId, Tail> = HashMap::new();
        for record in records {
            let group = record.group();
            let tail =
                tails.entry(group).or_insert_with(|| self.get(group).map(Tail::of).unwrap_or_default());
            tail.apply(record).map_err(|error| (record, error))?;
        }
        Ok(())
    }

    /// Takes a submitted record; entries get a ticket in place of their position.
    pub(super) fn submit(&mut self, record: &Record, ticket: u64) -> Result<(), NotNext> {
        let place = Place { position: UNWRITTEN | ticket, bytes: record.data().len() as u32, crc: 0 };
        self.apply(record, place, false)
    }

    /// Takes a record read back from the log.
    pub(super) fn replay(&mut self, record: &Record, place: Place) -> Result<(), NotNext> {
        self.apply(record, place, true)
    }

    fn apply(&mut self, record: &Record, place: Place, reading: bool) -> Result<(), NotNext> {
        if let Record::Forget { group } = record {
            self.groups.remove(group);
            return Ok(());
        }
        let state = self.groups.entry(record.group()).or_default();
        match record {
            Record::Vote { data, .. } => state.vote = Some(data.clone()),
            Record::Committed { data, .. } => state.committed = Some(data.clone()),
            Record::Append { index, data, .. } => state.append(*index, place, data.clone(), reading)?,
            Record::TruncateAfter { index, .. } => state.truncate_after(*index),
            Record::Purge { index, data, .. } => state.purge(*index, data.clone()),
            Record::Forget { .. } => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: GroupId = GroupId(1);

    fn append(index: u64) -> Record {
        Record::Append { group: GROUP, index, data: Bytes::from(vec![index as u8; 10]) }
    }

    fn filled() -> Index {
        let mut all = Index::default();
        for index in 5..10 {
            all.submit(&append(index), index).unwrap();
        }
        all
    }

    #[test]
    fn entries_follow_each_other_and_the_purge_mark() {
        let mut all = filled();
        assert_eq!(all.submit(&append(11), 0), Err(NotNext { expected: 10 }));
        all.submit(&Record::TruncateAfter { group: GROUP, index: Some(6) }, 0).unwrap();
        assert_eq!(all.get(GROUP).unwrap().last(), Some(6));
        all.submit(&Record::Purge { group: GROUP, index: 20, data: Bytes::new() }, 0).unwrap();
        let state = all.get(GROUP).unwrap().state();
        assert_eq!((state.first, state.last), (21, None));
        assert_eq!(all.submit(&append(7), 0), Err(NotNext { expected: 21 }));
        all.submit(&append(21), 0).unwrap();
        all.submit(&Record::TruncateAfter { group: GROUP, index: None }, 0).unwrap();
        assert_eq!(all.get(GROUP).unwrap().next(), Some(21));
    }

    #[test]
    fn only_written_entries_leave_memory() {
        let mut all = filled();
        let state = all.get_mut(GROUP).unwrap();
        state.shrink(0);
        assert_eq!(state.recent_bytes(), 50);
        let place = Place { position: 4096, bytes: 10, crc: 1 };
        state.written(5, 5, place);
        state.written(6, 99, place);
        state.shrink(0);
        assert_eq!(state.find(5), Some(Found::OnDisk(place)));
        assert_eq!(
            state.find(6),
            Some(Found::InMemory(Bytes::from(vec![6; 10]))),
            "the ticket was another's"
        );
        assert_eq!((state.find(4), state.find(10)), (None, None));
    }

    #[test]
    fn what_is_purged_or_truncated_leaves_memory_too() {
        let mut all = filled();
        all.submit(&Record::Purge { group: GROUP, index: 6, data: Bytes::new() }, 0).unwrap();
        all.submit(&Record::TruncateAfter { group: GROUP, index: Some(8) }, 0).unwrap();
        let state = all.get(GROUP).unwrap();
        assert_eq!((state.state().first, state.last(), state.recent_bytes()), (7, Some(8), 20));
        assert_eq!(
            (state.held().0, state.appended()),
            (20, 40),
            "purged ones were appended, truncated ones not"
        );
        let through: Vec<u64> = (5..10).map(|index| state.appended_through(index)).collect();
        assert_eq!(through, [20, 20, 30, 40, 40]);
        assert_eq!(state.find(8), Some(Found::InMemory(Bytes::from(vec![8; 10]))));
    }
}
