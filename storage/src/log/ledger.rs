//! Owns the knowledge which segments are still needed, in the order of the log.
//!
//! - It runs behind the index: it counts a record when the writer has put it into a batch, so that a segment is never
//!   given up for a purge that is not on disk yet.
//! - A segment is needed while it holds an entry above its group's purge mark, the last vote, mark or committed
//!   position of a group, or damage of a quarantined group.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::batch::record_bytes;
use super::quarantine::Quarantine;
use super::{Damage, GroupId, Record};

#[derive(Debug, Default)]
struct Group {
    vote: Option<(Bytes, u64)>,
    committed: Option<(Bytes, u64)>,
    purged: Option<(u64, Bytes, u64)>,
    /// Segment → the highest index of an entry in it that was not truncated.
    highest: BTreeMap<u64, u64>,
}

impl Group {
    /// The oldest segment with an entry that is needed.
    fn oldest_entries(&self) -> Option<u64> {
        let purged = self.purged.as_ref().map(|(index, _, _)| *index);
        self.highest
            .iter()
            .find(|(_, highest)| purged.is_none_or(|purged| **highest > purged))
            .map(|(s, _)| *s)
    }

    fn oldest_control(&self) -> Option<u64> {
        let segments = [
            self.vote.as_ref().map(|(_, segment)| *segment),
            self.committed.as_ref().map(|(_, segment)| *segment),
            self.purged.as_ref().map(|(_, _, segment)| *segment),
        ];
        segments.into_iter().flatten().min()
    }

    fn control_records(&self, group: GroupId, below: u64) -> impl Iterator<Item = Record> {
        let vote = self.vote.as_ref().filter(|(_, segment)| *segment < below);
        let committed = self.committed.as_ref().filter(|(_, segment)| *segment < below);
        let purged = self.purged.as_ref().filter(|(_, _, segment)| *segment < below);
        let vote = vote.map(|(data, _)| Record::Vote { group, data: data.clone() });
        let purged =
            purged.map(|(index, data, _)| Record::Purge { group, index: *index, data: data.clone() });
        let committed = committed.map(|(data, _)| Record::Committed { group, data: data.clone() });
        [vote, purged, committed].into_iter().flatten()
    }
}

/// Which segments hold what is needed.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    groups: BTreeMap<GroupId, Group>,
    quarantine: Quarantine,
}

impl Ledger {
    /// Of a log in which no group has this number or a larger one, if that is known.
    pub(super) fn of_groups(groups: Option<u32>) -> Self {
        Self { quarantine: Quarantine::of_groups(groups), ..Self::default() }
    }

    /// Notes damage, whose segment has to stay.
    pub(super) fn damaged(&mut self, damage: Damage, segment: u64) {
        self.quarantine.add(damage, segment);
    }

    /// The damage known so far, less what was forgotten up to here in the log.
    pub(super) fn quarantine(&self) -> &Quarantine {
        &self.quarantine
    }

    /// Counts a record that stands in a segment.
    pub(super) fn apply(&mut self, record: &Record, segment: u64) {
        if let Record::Forget { group } = record {
            self.groups.remove(group);
            self.quarantine.forget(*group);
            return;
        }
        let group = self.groups.entry(record.group()).or_default();
        match record {
            Record::Vote { data, .. } => group.vote = Some((data.clone(), segment)),
            Record::Committed { data, .. } => group.committed = Some((data.clone(), segment)),
            Record::Append { index, .. } => {
                let highest = group.highest.entry(segment).or_default();
                *highest = (*highest).max(*index);
            }
            Record::TruncateAfter { index: Some(index), .. } => {
                group.highest.values_mut().for_each(|highest| *highest = (*highest).min(*index));
            }
            Record::TruncateAfter { index: None, .. } => group.highest.clear(),
            Record::Purge { index, data, .. } => {
                if group.purged.as_ref().is_none_or(|(purged, _, _)| purged <= index) {
                    group.purged = Some((*index, data.clone(), segment));
                    group.highest.retain(|_, highest| *highest > *index);
                }
            }
            Record::Forget { .. } => {}
        }
    }

    /// Copies of the votes, marks and positions that alone keep old segments, up to a number of bytes.
    pub(super) fn copies(&self, active: u64, bytes_max: u64) -> Vec<Record> {
        let needed = self
            .groups
            .values()
            .filter_map(Group::oldest_entries)
            .chain(self.quarantine.oldest_segment())
            .min();
        let below = needed.unwrap_or(active).min(active);
        let mut left_bytes = bytes_max;
        let all = self.groups.iter().flat_map(|(group, state)| state.control_records(*group, below));
        let fits = |record: &Record| match left_bytes.checked_sub(record_bytes(record)) {
            Some(rest) => {
                left_bytes = rest;
                true
            }
            None => false,
        };
        all.take_while(fits).collect()
    }

    /// The oldest segment that is needed, at most the active one.
    pub(super) fn keep_from(&self, active: u64) -> u64 {
        let groups = self.groups.values();
        let oldest = groups.flat_map(|group| [group.oldest_entries(), group.oldest_control()]).flatten();
        oldest.chain(self.quarantine.oldest_segment()).min().unwrap_or(active).min(active)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: GroupId = GroupId(1);
    const B: GroupId = GroupId(2);

    fn append(group: GroupId, index: u64) -> Record {
        Record::Append { group, index, data: Bytes::new() }
    }

    fn purge(group: GroupId, index: u64) -> Record {
        Record::Purge { group, index, data: Bytes::from_static(b"id") }
    }

    #[test]
    fn a_segment_is_needed_until_every_entry_is_purged_and_every_vote_copied() {
        let mut ledger = Ledger::default();
        ledger.apply(&Record::Vote { group: A, data: Bytes::from_static(b"v") }, 1);
        ledger.apply(&append(A, 1), 1);
        ledger.apply(&append(B, 1), 1);
        ledger.apply(&append(A, 2), 2);
        assert!(ledger.copies(3, 1000).is_empty(), "entries keep the segment anyway");
        ledger.apply(&purge(A, 1), 3);
        assert_eq!(ledger.keep_from(3), 1, "the other group's entry");
        ledger.apply(&purge(B, 1), 3);
        assert_eq!(ledger.keep_from(3), 1, "the vote");
        let copies = ledger.copies(3, 1000);
        assert_eq!(copies, [Record::Vote { group: A, data: Bytes::from_static(b"v") }]);
        assert!(ledger.copies(3, 10).is_empty(), "no room");
        for copy in &copies {
            ledger.apply(copy, 3);
        }
        assert_eq!(ledger.keep_from(3), 2);
    }

    #[test]
    fn truncated_and_forgotten_entries_keep_nothing_and_damage_does() {
        let mut ledger = Ledger::default();
        ledger.apply(&append(A, 7), 1);
        ledger.apply(&append(A, 8), 2);
        ledger.apply(&Record::TruncateAfter { group: A, index: Some(3) }, 3);
        ledger.apply(&purge(A, 3), 3);
        assert_eq!(ledger.keep_from(3), 3);
        ledger.apply(&append(B, 1), 1);
        assert_eq!(ledger.keep_from(3), 1);
        ledger.apply(&Record::Forget { group: B }, 3);
        assert_eq!(ledger.keep_from(3), 3);
        let groups = crate::log::AffectedGroups::Listed([A].into());
        ledger.damaged(Damage::new(std::path::PathBuf::new(), 0, groups), 2);
        assert_eq!(ledger.keep_from(3), 2);
    }
}
