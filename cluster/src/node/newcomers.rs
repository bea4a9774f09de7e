//! Owns when a node takes in the next of its new replicas.
//!
//! - Each that is here is filled at once, which takes the processor from those that serve, on both sides. One after the other takes
//!   longer in all, for which nobody waits.
//! - Who is not filled, because its leader is away, holds nobody up for long; who has been filled holds nobody up.

use std::collections::BTreeMap;
use std::time::Duration;

use fanfold_storage::log::GroupId;
use tokio::time::Instant;

use super::host::Host;
use super::member::Member;
use super::survey::GroupReport;
use crate::map::partition_of;
use crate::raft::{CAUGHT_UP_ENTRIES, Fills};

/// How long one is waited for that nobody fills.
const LOST_AFTER: Duration = Duration::from_secs(10);

/// The replicas here that do not vote yet: how far each had come when it last came further, and when that was.
#[derive(Debug, Default)]
pub(super) struct Newcomers {
    come: BTreeMap<GroupId, (u64, Instant)>,
    /// Somebody asked in this round. Whoever asks after that waits for the next, so that all are looked at once a round.
    is_asked: bool,
}

impl Newcomers {
    /// Begins a round, in which one may be taken in.
    pub fn begin(&mut self) {
        self.is_asked = false;
    }

    /// Whether the replica of a group is not to be taken in yet. Those that have next to nothing to get are not counted.
    pub fn let_wait(&mut self, host: &Host, group: GroupId) -> bool {
        let has_much = |report: GroupReport| report.leader.1 > CAUGHT_UP_ENTRIES;
        if partition_of(group).is_none() || !host.survey.of(group).is_none_or(has_much) {
            return false;
        }
        if std::mem::replace(&mut self.is_asked, true) {
            return true;
        }
        let (members, now) = (host.members(), Instant::now());
        let led_to = |group| host.survey.of(group).map(|report| report.leader.1);
        let filled = members.iter().filter(|member| is_newcomer(member.as_ref(), led_to(member.id())));
        let filled = filled.map(|member| (member.id(), come(member.as_ref())));
        self.count(filled, &host.opening.fills, now) > 0
    }

    /// How many of them come further.
    fn count(&mut self, all: impl Iterator<Item = (GroupId, u64)>, fills: &Fills, now: Instant) -> usize {
        let mut known = std::mem::take(&mut self.come);
        for (group, come) in all {
            let before = known.remove(&group).filter(|(before, _)| *before == come && !fills.is_sent(group));
            self.come.insert(group, before.unwrap_or((come, now)));
        }
        self.come.values().filter(|(_, since)| now.saturating_duration_since(*since) <= LOST_AFTER).count()
    }
}

/// Whether a replica has yet to be filled, or to apply what it was filled with, where its leader has come to an index. One that has
/// what there is waits for nobody but its group: two nodes would else wait for each other, each for the other's replica of the group.
fn is_newcomer(member: &dyn Member, led_to: Option<u64>) -> bool {
    let metrics = member.metrics();
    let has = metrics.last_log_index.unwrap_or_default();
    let missing = led_to.map_or(u64::MAX, |last| last.saturating_sub(has));
    let votes = member.members().voters.contains_key(&member.replica());
    (!votes && missing > CAUGHT_UP_ENTRIES) || has.saturating_sub(metrics.applied_index) > CAUGHT_UP_ENTRIES
}

/// How far it has come; grows with each entry that comes or is applied.
fn come(member: &dyn Member) -> u64 {
    let metrics = member.metrics();
    metrics.last_log_index.unwrap_or_default() + metrics.applied_index
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_no_further_holds_nobody_up_for_long() {
        let (mut newcomers, fills, begun) = (Newcomers::default(), Fills::default(), Instant::now());
        let mut count = |all: &[(u32, u64)], after: Duration| {
            let all = all.iter().map(|(group, come)| (GroupId(*group), *come));
            newcomers.count(all, &fills, begun + after)
        };
        assert_eq!(count(&[(1, 0), (2, 0)], Duration::ZERO), 2);
        assert_eq!(count(&[(1, 1), (2, 0)], LOST_AFTER), 2);
        let later = LOST_AFTER + Duration::from_secs(1);
        assert_eq!(count(&[(1, 1), (2, 0)], later), 1, "nobody fills the second");
        assert_eq!(count(&[(1, 2), (2, 1)], later), 2, "somebody does again");
        assert_eq!(count(&[(2, 1)], later), 1, "the first is done");
    }

    #[tokio::test]
    async fn who_is_sent_a_snapshot_comes_further() {
        let (mut newcomers, fills, begun) = (Newcomers::default(), Fills::default(), Instant::now());
        let mut count =
            |after: Duration| newcomers.count([(GroupId(1), 0)].into_iter(), &fills, begun + after);
        assert!(fills.begin(GroupId(1)));
        assert_eq!((count(Duration::ZERO), count(2 * LOST_AFTER)), (1, 1));
        fills.end(GroupId(1));
        assert_eq!(count(4 * LOST_AFTER), 0);
    }
}
