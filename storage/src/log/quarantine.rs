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
    /// Which groups it concerns.
    pub groups: AffectedGroups,
}

#[derive(Debug, Clone)]
struct Case {
    damage: Damage,
    segment: u64,
    forgotten: BTreeSet<GroupId>,
}

impl Case {
    fn holds(&self, group: GroupId) -> bool {
        self.damage.groups.contains(group) && !self.forgotten.contains(&group)
    }

    fn is_open(&self) -> bool {
        match &self.damage.groups {
            AffectedGroups::Listed(groups) => !groups.is_subset(&self.forgotten),
            AffectedGroups::ByMask(mask) => *mask != 0,
            AffectedGroups::All => true,
        }
    }
}

/// The damage known so far, and who was forgotten since.
#[derive(Debug, Clone, Default)]
pub(super) struct Quarantine {
    cases: Vec<Case>,
}

impl Quarantine {
    pub(super) fn add(&mut self, damage: Damage, segment: u64) {
        self.cases.push(Case { damage, segment, forgotten: BTreeSet::new() });
    }

    /// Lets a group start again: what was damaged before does not concern it any more.
    pub(super) fn forget(&mut self, group: GroupId) {
        for case in self.cases.iter_mut().filter(|case| case.damage.groups.contains(group)) {
            case.forgotten.insert(group);
        }
    }

    /// The damage that a group is quarantined for.
    pub(super) fn of(&self, group: GroupId) -> Option<&Damage> {
        self.cases.iter().find(|case| case.holds(group)).map(|case| &case.damage)
    }

    /// The oldest segment that has to stay.
    pub(super) fn oldest_segment(&self) -> Option<u64> {
        self.cases.iter().filter(|case| case.is_open()).map(|case| case.segment).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forgotten_group_is_free_and_its_segment_is_released() {
        let mut quarantine = Quarantine::default();
        let damage = |groups| Damage { path: PathBuf::from("x"), offset: 0, groups };
        quarantine.add(damage(AffectedGroups::Listed(BTreeSet::from([GroupId(1)]))), 4);
        quarantine.add(damage(AffectedGroups::ByMask(0b100)), 7);
        assert!(quarantine.of(GroupId(1)).is_some() && quarantine.of(GroupId(66)).is_some());
        assert!(quarantine.of(GroupId(3)).is_none());
        assert_eq!(quarantine.oldest_segment(), Some(4));
        quarantine.forget(GroupId(1));
        quarantine.forget(GroupId(66));
        assert!(quarantine.of(GroupId(1)).is_none() && quarantine.of(GroupId(66)).is_none());
        assert!(quarantine.of(GroupId(2)).is_some());
        assert_eq!(quarantine.oldest_segment(), Some(7), "other groups may share the bit");
    }
}
