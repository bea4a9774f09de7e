//! Owns the way of a group to the replicas that it should have: its leader takes one step after the other (C2).
//!
//! - A replica votes only once it has caught up, and a vote leaves only for voters a majority of which is alive.
//! - A leader that is not wanted hands the leadership over before it leaves.
//! - The preferred leader gets the leadership whenever it can take it, and has applied what the leader has: not only holds it.
//! - A leader whose state is damaged hands the leadership over before anything else, and nobody hands it one. Its log is whole,
//!   so it goes on voting.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use fanfold_storage::log::GroupId;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::addresses::has_moved;
use super::member::{Member, Step};
use super::survey::{Settled, Survey};
use crate::catalog::ReplicaRecord;
use crate::map::{Whereabouts, node_of};
use crate::raft::{GroupMembers, ReplicaId};

/// How often a leader looks while its group is not what it should be.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How often it looks all the same.
const LOOK_EVERY_SETTLED: Duration = Duration::from_secs(1);

/// How long a leader leads before it hands the leadership to the preferred one: that may be about to stop.
const LEAD_FOR: Duration = Duration::from_secs(3);

/// What nodes say of themselves is heard within so long: they are asked every half second.
const TOLD_WITHIN: Duration = Duration::from_secs(2);

/// How long after a step failed the next is tried.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// This.
    Step(Step),
    /// Nothing until replicas have caught up or are back.
    Wait,
    /// Nothing.
    Settled,
}

/// The next step of a group led by `own` toward the replicas that are wanted. `can_lead` says who could answer if it led.
pub(super) fn next(
    own: ReplicaId,
    wanted: &[ReplicaRecord],
    members: &GroupMembers,
    is_ready: impl Fn(ReplicaId) -> bool,
    can_lead: impl Fn(ReplicaId) -> bool,
) -> Next {
    // A node that still has another replica of the group has to be rid of it first.
    let is_blocked = |record: &&ReplicaRecord| {
        let mut all = members.voters.iter().chain(&members.learners);
        all.any(|(replica, address)| replica.0 != record.replica && node_of(address) == record.node)
            && !members.contains(ReplicaId(record.replica))
    };
    let all = wanted.len();
    let wanted: Vec<ReplicaRecord> = wanted.iter().filter(|record| !is_blocked(record)).copied().collect();
    let done = if wanted.len() == all { Next::Settled } else { Next::Wait };
    let Some(preferred) = wanted.first().map(|record| ReplicaId(record.replica)) else { return done };
    let wanted_ids: BTreeSet<ReplicaId> = wanted.iter().map(|record| ReplicaId(record.replica)).collect();
    let voters: BTreeSet<ReplicaId> = members.voters.keys().copied().collect();
    if members.is_joint {
        // Whoever began it, and whatever is wanted by now: first it is brought to an end.
        let is_member = |replica: &ReplicaId| members.contains(*replica);
        let mut goal: BTreeSet<_> = wanted_ids.iter().copied().filter(is_member).chain([own]).collect();
        // No smaller than the group is to be: of those that are wanted some may not even be members yet.
        let (ready, silent): (Vec<_>, Vec<_>) = voters.iter().copied().partition(|voter| is_ready(*voter));
        for voter in ready.into_iter().chain(silent) {
            if goal.len() < all {
                goal.insert(voter);
            }
        }
        return Next::Step(Step::ChangeVoters(goal));
    }
    let takes_over = |replica: ReplicaId| is_ready(replica) && can_lead(replica);
    if !can_lead(own)
        && let Some(heir) = voters.iter().find(|voter| **voter != own && takes_over(**voter))
    {
        return Next::Step(Step::Transfer(*heir));
    }
    if let Some(missing) = wanted.iter().find(|record| !members.contains(ReplicaId(record.replica))) {
        return Next::Step(Step::AddLearner(*missing));
    }
    let mut goal = wanted_ids.clone();
    if !wanted_ids.contains(&own) {
        // It leaves when somebody else leads.
        goal.insert(own);
    }
    if voters != goal {
        let arrived = goal.difference(&voters).all(|replica| is_ready(*replica));
        let ready = goal.iter().filter(|replica| **replica == own || is_ready(**replica)).count();
        let may_change = arrived && ready > goal.len() / 2;
        return if may_change { Next::Step(Step::ChangeVoters(goal)) } else { Next::Wait };
    }
    if let Some(learner) = members.learners.keys().find(|learner| !wanted_ids.contains(learner)) {
        return Next::Step(Step::RemoveLearner(*learner));
    }
    if own == preferred {
        return done;
    }
    if takes_over(preferred) {
        return Next::Step(Step::Transfer(preferred));
    }
    if wanted_ids.contains(&own) {
        return done;
    }
    let other = wanted_ids.iter().find(|replica| takes_over(**replica));
    other.map_or(Next::Wait, |other| Next::Step(Step::Transfer(*other)))
}

/// What a leader had applied lately, by which it judges whether another replica could answer as soon as it led: holding the log
/// is not enough, since reads and writes would wait there for the rest to be applied.
#[derive(Debug, Default)]
struct Course(VecDeque<(Instant, u64)>);

impl Course {
    /// Notes what is applied now.
    fn note(&mut self, now: Instant, applied: u64) {
        while self.0.get(1).is_some_and(|(at, _)| *at + TOLD_WITHIN <= now) {
            self.0.pop_front();
        }
        self.0.push_back((now, applied));
    }

    /// Whether what another replica had applied when its node said so is what this one had by then; none is known to be if this
    /// one has not led for long enough.
    fn keeps_up(&self, now: Instant, applied: Option<u64>) -> bool {
        let then = self.0.front().filter(|(at, _)| *at + TOLD_WITHIN <= now);
        then.zip(applied).is_some_and(|((_, then), applied)| applied >= *then)
    }
}

/// Whether another replica could answer if it led: its node is fit, and says nothing of damage.
fn can_lead(whereabouts: &Whereabouts, survey: &Survey, group: GroupId, other: &ReplicaRecord) -> bool {
    whereabouts.is_fit(other.node) && !survey.is_closed(group, other)
}

/// Brings a group to the replicas that the catalog wants, while this node leads it, until it is stopped.
pub(super) async fn run(
    member: Arc<dyn Member>,
    whereabouts: Arc<Whereabouts>,
    survey: Arc<Survey>,
    settled: Arc<Settled>,
    stop: CancellationToken,
) {
    let mut view = whereabouts.view.subscribe();
    let mut leadership = member.watch_leadership();
    let group = member.id();
    let (mut uniform, mut leads_since) = (None::<(u64, GroupMembers)>, None::<Instant>);
    let mut course = Course::default();
    loop {
        let state = view.borrow_and_update().clone();
        let mut look = None;
        if let Some(term) = leadership.led() {
            let wanted = state.wanted(group.0);
            let is_new = leads_since.get_or_insert_with(Instant::now).elapsed() < LEAD_FOR;
            let (members, metrics) = (member.members(), member.metrics());
            let (own, is_damaged) = (member.replica(), member.is_damaged());
            let now = Instant::now();
            course.note(now, metrics.applied_index);
            let has_room = whereabouts.has_room(&members.voters);
            let can_lead = |replica: ReplicaId| match members.voters.get(&replica) {
                Some(at) if replica == own => !is_damaged && !has_moved(&state, node_of(at)),
                _ if replica == own => !is_damaged,
                Some(at) => {
                    let record = ReplicaRecord { replica: replica.0, node: node_of(at) };
                    // Who answers nothing need not wait for somebody who answers at once.
                    let keeps_up = is_damaged || course.keeps_up(now, survey.applied(group, &record));
                    has_room
                        && keeps_up
                        && !has_moved(&state, record.node)
                        && can_lead(&whereabouts, &survey, group, &record)
                }
                None => false,
            };
            let next = next(own, wanted, &members, |replica| member.is_ready(replica), can_lead);
            if members.is_joint || uniform.as_ref().is_none_or(|(_, known)| *known != members) {
                uniform = Some((metrics.last_log_index.unwrap_or_default(), members.clone()));
            }
            // What is not committed yet may be taken back.
            let since = uniform.as_ref().map_or(u64::MAX, |(since, _)| *since);
            let is_settled = !members.is_joint && metrics.committed_index >= Some(since);
            if is_settled {
                settled.set(term, &members, state.epoch);
            }
            look = Some(match next {
                Next::Settled if is_settled => LOOK_EVERY_SETTLED,
                Next::Settled | Next::Wait => LOOK_EVERY,
                Next::Step(Step::Transfer(_)) if is_new && !is_damaged => LOOK_EVERY,
                Next::Step(step) => {
                    tracing::info!(group = group.0, ?step, "the replicas of the group change");
                    let taken = tokio::select! {
                        () = stop.cancelled() => return,
                        taken = member.step(step) => taken,
                    };
                    match taken {
                        Ok(()) => Duration::ZERO,
                        Err(error) => {
                            tracing::debug!(group = group.0, %error, "a change of the replicas failed");
                            RETRY_AFTER
                        }
                    }
                }
            });
        } else {
            (uniform, leads_since, course) = (None, None, Course::default());
        }
        let wait = async {
            match look {
                Some(delay) => tokio::time::sleep(delay).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            changed = view.changed() => if changed.is_err() { return },
            changed = leadership.changed() => if !changed { return },
            () = wait => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::address_of;

    fn ids(ids: &[u64]) -> BTreeSet<ReplicaId> {
        ids.iter().copied().map(ReplicaId).collect()
    }

    fn wanted(ids: &[u64]) -> Vec<ReplicaRecord> {
        ids.iter().map(|id| ReplicaRecord { replica: *id, node: *id }).collect()
    }

    /// Takes steps until there is none, with replicas that are ready as soon as they are members, but for the silent.
    fn walk(start: &[u64], own: u64, goal: &[u64], silent: &[u64]) -> (GroupMembers, u64, Next) {
        let address = |id: &u64| (ReplicaId(*id), address_of(*id));
        let mut members =
            GroupMembers { voters: start.iter().map(address).collect(), ..GroupMembers::default() };
        let mut own = ReplicaId(own);
        for _ in 0..50 {
            let is_ready = |replica: ReplicaId| members.contains(replica) && !silent.contains(&replica.0);
            let next = next(own, &wanted(goal), &members, is_ready, |_| true);
            match next {
                Next::Step(Step::AddLearner(record)) => {
                    members.learners.insert(ReplicaId(record.replica), address_of(record.node));
                }
                Next::Step(Step::ChangeVoters(voters)) => {
                    let ready = voters.iter().filter(|voter| !silent.contains(&voter.0)).count();
                    assert!(ready > voters.len() / 2, "{voters:?} have no quorum");
                    assert!(voters.contains(&own));
                    members.learners.retain(|replica, _| !voters.contains(replica));
                    members.voters = voters.iter().map(|voter| address(&voter.0)).collect();
                }
                Next::Step(Step::RemoveLearner(replica)) => {
                    members.learners.remove(&replica).unwrap();
                }
                Next::Step(Step::Transfer(replica)) => {
                    assert!(members.voters.contains_key(&replica) && !silent.contains(&replica.0));
                    own = replica;
                }
                Next::Wait | Next::Settled => return (members, own.0, next),
            }
        }
        panic!("no end");
    }

    #[test]
    fn a_group_becomes_what_is_wanted() {
        let cases: [(&[u64], u64, &[u64]); 6] = [
            (&[1], 1, &[1, 2, 3]),
            (&[1], 1, &[2]),
            (&[1, 2, 3], 1, &[4, 5, 6]),
            (&[1, 2, 3], 2, &[1]),
            (&[1, 2, 3], 3, &[2, 1, 3]),
            (&[1, 2, 3, 4, 5], 4, &[9]),
        ];
        for (start, own, goal) in cases {
            let (members, leader, next) = walk(start, own, goal, &[]);
            let voters: BTreeSet<_> = members.voters.keys().copied().collect();
            assert_eq!((voters, leader, next), (ids(goal), goal[0], Next::Settled), "{start:?} to {goal:?}");
            assert!(members.learners.is_empty());
        }
    }

    #[test]
    fn a_silent_replica_is_replaced_and_a_silent_newcomer_waited_for() {
        let (members, leader, next) = walk(&[1, 2, 3], 2, &[4, 2, 3], &[1]);
        assert_eq!(
            (members.voters.keys().copied().collect(), leader, next),
            (ids(&[2, 3, 4]), 4, Next::Settled)
        );
        let (members, _, next) = walk(&[1, 2, 3], 2, &[2, 3, 4], &[4]);
        assert_eq!((members.voters.keys().copied().collect(), next), (ids(&[1, 2, 3]), Next::Wait));
        // A preferred leader that is silent does not hold the group up.
        let (_, leader, next) = walk(&[1, 2, 3], 2, &[1, 2, 3], &[1]);
        assert_eq!((leader, next), (2, Next::Settled));
    }

    #[test]
    fn a_change_that_was_left_half_done_ends_with_as_many_voters_as_are_wanted() {
        let address = |id: u64| (ReplicaId(id), address_of(id));
        let voters = [1, 2, 3, 4].map(address).into();
        let members = GroupMembers { voters, is_joint: true, ..GroupMembers::default() };
        // Two of those that are wanted by now are not there yet, and one of the others is silent.
        let step = next(ReplicaId(1), &wanted(&[4, 5, 6]), &members, |replica| replica.0 != 2, |_| true);
        assert_eq!(step, Next::Step(Step::ChangeVoters(ids(&[1, 3, 4]))));
        let step = next(ReplicaId(1), &wanted(&[1, 2, 4]), &members, |_| true, |_| true);
        assert_eq!(step, Next::Step(Step::ChangeVoters(ids(&[1, 2, 4]))));
    }

    #[test]
    fn a_node_gets_a_new_replica_when_it_is_rid_of_the_old_one() {
        let own = ReplicaId(2);
        let address = |id: u64| (ReplicaId(id), address_of(id));
        let voters = [1, 2, 3].map(address).into();
        let members = GroupMembers { voters, ..GroupMembers::default() };
        let wanted = [(2, 2), (3, 3), (9, 1)].map(|(replica, node)| ReplicaRecord { replica, node });
        let is_ready = |replica: ReplicaId| [2, 3].contains(&replica.0);
        let step = next(own, &wanted, &members, is_ready, |_| true);
        assert_eq!(step, Next::Step(Step::ChangeVoters(ids(&[2, 3]))));
        let members = GroupMembers { voters: [2, 3].map(address).into(), ..members };
        let step = next(own, &wanted, &members, is_ready, |_| true);
        assert_eq!(step, Next::Step(Step::AddLearner(wanted[2])));
    }
    #[test]
    fn who_holds_the_log_and_has_not_applied_it_does_not_keep_up() {
        let begun = Instant::now();
        let mut course = Course::default();
        for second in 0..10 {
            course.note(begun + Duration::from_secs(second), 100 * second);
        }
        let now = begun + Duration::from_secs(9);
        assert_eq!(course.0.len(), 3);
        assert!(course.keeps_up(now, Some(700)) && !course.keeps_up(now, Some(699)));
        assert!(!course.keeps_up(now, None), "nobody said anything of it");
        let mut course = Course::default();
        course.note(now, 900);
        assert!(!course.keeps_up(now, Some(900)), "who leads since now knows nothing of then");
    }

    #[test]
    fn who_cannot_answer_leads_nothing_and_gets_no_leadership() {
        let address = |id: u64| (ReplicaId(id), address_of(id));
        let members = GroupMembers { voters: [1, 2, 3].map(address).into(), ..GroupMembers::default() };
        let step = |own: u64, ready: &[u64], damaged: &[u64], goal: &[u64]| {
            let is_ready = |replica: ReplicaId| ready.contains(&replica.0);
            let can_lead = |replica: ReplicaId| !damaged.contains(&replica.0);
            next(ReplicaId(own), &wanted(goal), &members, is_ready, can_lead)
        };
        let to = |id: u64| Next::Step(Step::Transfer(ReplicaId(id)));
        assert_eq!(step(1, &[2, 3], &[1], &[1, 2, 3]), to(2));
        assert_eq!(step(1, &[2, 3], &[1, 2], &[1, 2, 3]), to(3));
        assert_eq!(step(1, &[2, 3], &[1, 2, 3], &[1, 2, 3]), Next::Settled, "nobody is better");
        assert_eq!(step(2, &[1, 3], &[1], &[1, 2, 3]), Next::Settled, "the preferred one would not answer");
        // Before the members change, and whatever is wanted by then.
        assert_eq!(step(1, &[3], &[1], &[9, 2, 3]), to(3));
        assert_eq!(step(1, &[], &[1], &[9, 2, 3]), Next::Step(Step::AddLearner(wanted(&[9])[0])));
    }
}
