//! Owns which groups are quarantined, and for which damage.
//!
//! - A damaged place quarantines every group that may have had records there, until that group is forgotten by a
//!   later record.
//! - A segment with damage stays as long as it quarantines a group: it is the only evidence after a restart.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::GroupId;
use super::batch::group_bit;

/// Which groups may have had records in a damaged place.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AffectedGroups {
    /// Exactly these; none when the damaged bytes also stand elsewhere.
    Listed(BTreeSet<GroupId>),
    /// All whose number modulo 64 is a set bit of the mask.
    ByMask(u64),
    /// Any group, known or not.
    All,
}

impl AffectedGroups {
    /// Whether a group may have had records there.
    pub fn contains(&self, group: GroupId) -> bool {
        match self {
            Self::Listed(groups) => groups.contains(&group),
            Self::ByMask(mask) => mask & group_bit(group) != 0,
            Self::All => true,
        }
    }
}

/// A damaged place in the log. The groups that may have had records there are quarantined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// Where the damage starts, in bytes.
    pub offset: u64,
    /// Which groups may have had records there.
    pub groups: AffectedGroups,
    /// Those of them that were forgotten since: it does not concern them any more.
    pub forgotten: BTreeSet<GroupId>,
}

impl Damage {
    /// A place that nobody of these groups was forgotten behind.
    pub fn new(path: PathBuf, offset: u64, groups: AffectedGroups) -> Self {
        Self { path, offset, groups, forgotten: BTreeSet::new() }
    }

    /// Whether a group is quarantined for it.
    pub fn concerns(&self, group: GroupId) -> bool {
        self.groups.contains(group) && !self.forgotten.contains(&group)
    }
}

#[derive(Debug, Clone)]
struct Case {
    damage: Damage,
    segment: u64,
}

impl Case {
    /// Whether it concerns a group; there are none from `end` on, if that is known.
    fn is_open(&self, end: Option<u32>) -> bool {
        let concerns_any = |end| (0..end).any(|group| self.damage.concerns(GroupId(group)));
        match &self.damage.groups {
            AffectedGroups::Listed(groups) => !groups.is_subset(&self.damage.forgotten),
            AffectedGroups::ByMask(mask) => *mask != 0 && end.is_none_or(concerns_any),
            AffectedGroups::All => end.is_none_or(concerns_any),
        }
    }
}

/// The damage known so far, and who was forgotten since.
#[derive(Debug, Clone, Default)]
pub(super) struct Quarantine {
    cases: Vec<Case>,
    /// See [`LogOptions::groups`](super::LogOptions::groups).
    groups: Option<u32>,
}

impl Quarantine {
    pub(super) fn of_groups(groups: Option<u32>) -> Self {
        Self { cases: Vec::new(), groups }
    }

    pub(super) fn add(&mut self, damage: Damage, segment: u64) {
        self.cases.push(Case { damage, segment });
    }

    /// Lets a group start again: what was damaged before does not concern it any more.
    pub(super) fn forget(&mut self, group: GroupId) {
        for case in self.cases.iter_mut().filter(|case| case.damage.groups.contains(group)) {
            case.damage.forgotten.insert(group);
        }
    }

    /// All damage, in the order in which it was added.
    pub(super) fn all(&self) -> impl Iterator<Item = &Damage> {
        self.cases.iter().map(|case| &case.damage)
    }

    /// The damage that a group is quarantined for.
    pub(super) fn of(&self, group: GroupId) -> Option<&Damage> {
        self.all().find(|damage| damage.concerns(group))
    }

    /// The oldest segment with damage that a group is quarantined for.
    pub(super) fn oldest_segment_of(&self, group: GroupId) -> Option<u64> {
        self.cases.iter().filter(|case| case.damage.concerns(group)).map(|case| case.segment).min()
    }

    /// The oldest segment that has to stay.
    pub(super) fn oldest_segment(&self) -> Option<u64> {
        self.cases.iter().filter(|case| case.is_open(self.groups)).map(|case| case.segment).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forgotten_group_is_free_and_its_segment_is_released() {
        let mut quarantine = Quarantine::default();
        let damage = |groups| Damage::new(PathBuf::from("x"), 0, groups);
        quarantine.add(damage(AffectedGroups::Listed(BTreeSet::from([GroupId(1)]))), 4);
        quarantine.add(damage(AffectedGroups::ByMask(0b100)), 7);
        assert!(quarantine.of(GroupId(1)).is_some() && quarantine.of(GroupId(66)).is_some());
        assert!(quarantine.of(GroupId(3)).is_none());
        assert_eq!(quarantine.oldest_segment(), Some(4));
        assert_eq!(quarantine.oldest_segment_of(GroupId(66)), Some(7));
        quarantine.forget(GroupId(1));
        assert_eq!(quarantine.oldest_segment_of(GroupId(1)), None);
        quarantine.forget(GroupId(66));
        assert!(quarantine.of(GroupId(1)).is_none() && quarantine.of(GroupId(66)).is_none());
        assert!(quarantine.of(GroupId(2)).is_some());
        assert_eq!(quarantine.oldest_segment(), Some(7), "other groups may share the bit");
    }

    #[test]
    fn what_nobody_can_name_is_evidence_until_all_groups_that_there_can_be_were_forgotten() {
        for groups in [AffectedGroups::ByMask(0b110), AffectedGroups::All] {
            let mut quarantine = Quarantine::of_groups(Some(3));
            quarantine.add(Damage::new(PathBuf::from("x"), 0, groups), 4);
            for group in [1, 0, 2] {
                assert_eq!(quarantine.oldest_segment(), Some(4));
                quarantine.forget(GroupId(group));
            }
            assert_eq!(quarantine.oldest_segment(), None);
        }
    }
}
