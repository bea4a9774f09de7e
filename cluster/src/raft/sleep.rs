//! Owns the sleep of idle groups, in which Raft's clock stands still: no beats, and no elections by time.
//!
//! - Only time is switched off. Messages are taken in as ever, and terms, votes and quorums are Raft's: sleep may cost a
//!   moment, and never an entry.
//! - A follower sleeps in one term, whose leader says with each ping of its node that it still leads in it and has nothing
//!   that the follower does not hold. It wakes when that is not said for [`silence`], or not said any more, or entries come.
//! - A leader sleeps while the node of every member says that the member sleeps in this term. It wakes before it proposes or
//!   changes anything, and has then heard a quorum before it goes on, so that Raft takes what it proposes.
//! - What is said in pings stands for beats: who heard it lately refuses candidates as it would within a lease.
//! - Reads ask a quorum in sleep as well.

use std::time::Duration;

use openraft::ReadPolicy;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::raft::{AppendEntriesRequest, VoteRequest, VoteResponse};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

use super::group::{Group, Inner};
use super::machine::Machine;
use super::settings::RaftSettings;
use super::types::{ReplicaAddress, ReplicaId, Types};

/// For how many looks in a row nothing may have been proposed before a leader says that its group is idle.
const QUIET_LOOKS: u32 = 4;

/// After so many beats who woke because its leader did must have heard one.
const TRUSTED_BEATS: u64 = 4;

/// For how long nothing may be heard of a leader whose group sleeps, or of a member of it.
pub(super) fn silence(settings: &RaftSettings) -> Duration {
    Duration::from_millis(settings.election_max_ms * 3 / 2)
}

/// What a leader says of a group in which nothing happens: every member may sleep that is led in this term and whose log
/// ends here, applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quiet {
    /// The leader's term.
    pub term: u64,
    /// The end of its log.
    pub index: u64,
}

/// Whether a replica sleeps.
#[derive(Debug, Default)]
pub(super) struct Sleep {
    state: Mutex<State>,
    /// Who woke because its leader did has its beats by then, and till then rests on what it heard last.
    trusts_until: Mutex<Option<Instant>>,
    /// Held while a leader wakes: who comes meanwhile waits.
    waking: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    /// So many looks in a row found that nothing was proposed.
    Awake { looks: u32 },
    /// It leads, and says that the members may sleep.
    Offers(Quiet),
    /// `leader`: on which node; none if it is this replica. `confirmed`: when what it rests on was heard last.
    Asleep { quiet: Quiet, leader: Option<(ReplicaId, u64)>, confirmed: Instant },
    /// It leads, and makes sure of a quorum.
    Wakes,
    /// Its leader is lost, and it campaigns in turn.
    Succeeds,
}

impl Default for State {
    fn default() -> Self {
        Self::Awake { looks: 0 }
    }
}

impl Sleep {
    fn set(&self, state: State) {
        *self.state.lock() = state;
    }

    fn get(&self) -> State {
        *self.state.lock()
    }

    /// Whether the clock is to stand still.
    fn stops_clock(&self) -> bool {
        matches!(self.get(), State::Asleep { .. } | State::Succeeds)
    }

    /// Whether this replica leads a group whose members have all said lately that they hold everything.
    pub fn leads_asleep(&self) -> bool {
        matches!(self.get(), State::Asleep { leader: None, .. })
    }
}

impl<M: Machine> Inner<M> {
    /// Lets Raft's clock run, unless this replica is alone or sleeps.
    pub fn set_clock(&self) {
        // Whoever comes later sees what is newer.
        let _one = self.clock.lock();
        let stands = self.alone.is_alone() || self.sleep.stops_clock();
        self.raft.runtime_config().tick(!stands);
    }

    /// Wakes, whatever the replica is.
    fn wake(&self) {
        let before = std::mem::take(&mut *self.sleep.state.lock());
        if matches!(before, State::Asleep { .. } | State::Succeeds) {
            self.set_clock();
        }
    }

    /// Wakes before entries, or another leader's message, are taken in.
    pub fn before_append(&self, request: &AppendEntriesRequest<Types>) {
        match self.sleep.get() {
            State::Asleep { quiet, .. }
                if request.entries.is_empty() && request.vote.leader_id.term == quiet.term => {}
            State::Asleep { .. } | State::Succeeds => self.wake(),
            _ => {}
        }
    }

    /// Wakes before anything else is taken in.
    pub fn before_order(&self) {
        self.wake();
    }

    /// The refusal of a candidate while the leader is known to be there; else wakes.
    pub fn before_vote(&self, request: &VoteRequest<Types>) -> Option<VoteResponse<Types>> {
        let is_led = match self.sleep.get() {
            State::Asleep { confirmed, .. } => confirmed.elapsed() < silence(&self.settings),
            State::Awake { .. } => self.sleep.trusts_until.lock().is_some_and(|until| Instant::now() < until),
            State::Offers(_) | State::Wakes | State::Succeeds => return None,
        };
        if request.leadership_transfer || !is_led {
            self.wake();
            return None;
        }
        let vote = self.raft.metrics().borrow_watched().vote;
        Some(VoteResponse::new(vote, None, false))
    }

    /// Before anything is proposed: the group is not idle, and a leader that slept makes sure of a quorum.
    pub async fn stir(&self) {
        {
            let mut state = self.sleep.state.lock();
            match *state {
                State::Asleep { leader: None, .. } | State::Wakes => {}
                State::Awake { .. } | State::Offers(_) => {
                    *state = State::default();
                    return;
                }
                State::Asleep { .. } | State::Succeeds => return,
            }
        }
        let _turn = self.sleep.waking.lock().await;
        if !self.sleep.leads_asleep() {
            return;
        }
        self.sleep.set(State::Wakes);
        self.set_clock();
        // Without a quorum Raft refuses what is proposed, as it should.
        let election = Duration::from_millis(self.settings.election_max_ms);
        let _ = timeout(election, self.raft.ensure_linearizable(ReadPolicy::ReadIndex)).await;
        let mut state = self.sleep.state.lock();
        if *state == State::Wakes {
            *state = State::default();
        }
    }
}

impl<M: Machine> Group<M> {
    /// Whether Raft's clock stands still here because the group is idle.
    pub fn is_asleep(&self) -> bool {
        matches!(self.inner.sleep.get(), State::Asleep { .. })
    }

    /// On a follower that sleeps: the term in which it does.
    pub fn sleeps_in(&self) -> Option<u64> {
        match self.inner.sleep.get() {
            State::Asleep { quiet, leader: Some(_), .. } => Some(quiet.term),
            _ => None,
        }
    }

    /// On the leader of an idle group: what the members may rest on.
    pub fn quiet(&self) -> Option<Quiet> {
        match self.inner.sleep.get() {
            State::Offers(quiet) | State::Asleep { quiet, leader: None, .. } => Some(quiet),
            _ => None,
        }
    }

    /// To be called again and again: offers sleep, falls asleep or wakes, as a leader. `sleeps` tells when the member on a node
    /// said last that it sleeps in a term. The leader of a follower that has heard nothing of it for too long is answered:
    /// it is to be [succeeded](Self::succeed).
    pub fn look(&self, sleeps: &dyn Fn(&ReplicaAddress, u64) -> Option<Instant>) -> Option<ReplicaId> {
        let Inner { sleep, settings, .. } = &*self.inner;
        let silence = silence(settings);
        match sleep.get() {
            State::Awake { looks } => {
                let idle = if looks < QUIET_LOOKS || !self.is_leader() { None } else { self.idle() };
                let next = idle.map_or(State::Awake { looks: (looks + 1).min(QUIET_LOOKS) }, State::Offers);
                self.turn_from(State::Awake { looks }, next);
            }
            State::Offers(quiet) => {
                if self.idle() != Some(quiet) {
                    self.turn_from(State::Offers(quiet), State::default());
                } else if let Some(confirmed) = self.all_sleep(quiet.term, silence, sleeps) {
                    let asleep = State::Asleep { quiet, leader: None, confirmed };
                    self.turn_from(State::Offers(quiet), asleep);
                }
            }
            State::Asleep { quiet, leader: None, confirmed } => {
                let before = State::Asleep { quiet, leader: None, confirmed };
                let is_led = self.watch_leadership().led() == Some(quiet.term);
                let all = self.all_sleep(quiet.term, silence, sleeps).filter(|_| is_led);
                let asleep = |confirmed| State::Asleep { quiet, leader: None, confirmed };
                self.turn_from(before, all.map_or(State::default(), asleep));
            }
            State::Asleep { leader: Some((leader, _)), confirmed, .. } if confirmed.elapsed() >= silence => {
                return Some(leader);
            }
            State::Asleep { .. } | State::Wakes | State::Succeeds => {}
        }
        None
    }

    /// Takes what the ping of a node says of this group: that it leads it, idle, or nothing of the kind. `is_there` tells
    /// whether an address is on that node.
    pub fn heard_quiet(&self, node: u64, is_there: impl Fn(&ReplicaAddress) -> bool, quiet: Option<Quiet>) {
        let inner = &*self.inner;
        let now = Instant::now();
        match (inner.sleep.get(), quiet) {
            (State::Asleep { quiet: known, leader: Some(leader), confirmed }, said) if leader.1 == node => {
                let before = State::Asleep { quiet: known, leader: Some(leader), confirmed };
                let after = State::Asleep { quiet: known, leader: Some(leader), confirmed: now };
                let holds = said == Some(known);
                self.turn_from(before, if holds { after } else { State::default() });
                if holds {
                    inner.heard.note(now, known.index);
                } else {
                    let beats = Duration::from_millis(TRUSTED_BEATS * inner.settings.heartbeat_ms);
                    *inner.sleep.trusts_until.lock() = Some(now + beats);
                }
            }
            (State::Awake { looks }, Some(quiet)) => {
                let Some(leader) = self.may_rest_on(&is_there, quiet) else { return };
                let asleep = State::Asleep { quiet, leader: Some((leader, node)), confirmed: now };
                self.turn_from(State::Awake { looks }, asleep);
            }
            _ => {}
        }
    }

    /// From now on until [`Self::wakes`] this replica campaigns, and time does not interfere.
    pub(super) fn stop_for_succession(&self) {
        *self.inner.sleep.trusts_until.lock() = None;
        let mut state = self.inner.sleep.state.lock();
        if matches!(*state, State::Asleep { .. }) {
            *state = State::Succeeds;
        }
    }

    /// Lets Raft's clock run again.
    pub(super) fn wakes(&self) {
        self.inner.wake();
    }

    /// Goes from one state to the next, unless somebody else was faster.
    fn turn_from(&self, before: State, after: State) {
        {
            let mut state = self.inner.sleep.state.lock();
            if *state != before || before == after {
                return;
            }
            *state = after;
        }
        let stops = |state: &State| matches!(state, State::Asleep { .. });
        if stops(&before) != stops(&after) {
            self.inner.set_clock();
        }
    }

    /// The leader on that node, if this replica follows it in that term, and holds all that it has.
    fn may_rest_on(&self, is_there: &impl Fn(&ReplicaAddress) -> bool, quiet: Quiet) -> Option<ReplicaId> {
        let metrics = self.inner.raft.metrics().borrow_watched().clone();
        let (vote, leader) = (metrics.vote, metrics.vote.leader_id.node_id);
        let address = metrics.membership_config.get_node(&leader)?;
        let may_rest = vote.committed
            && vote.leader_id.term == quiet.term
            && leader != self.replica()
            && is_there(address)
            && metrics.last_log_index == Some(quiet.index)
            && self.applied_index() == quiet.index;
        may_rest.then_some(leader)
    }

    /// On a leader: what is so if nothing happens in the group and every member holds everything.
    fn idle(&self) -> Option<Quiet> {
        let metrics = self.inner.raft.metrics().borrow_watched().clone();
        let (term, index) = (metrics.vote.leader_id.term, metrics.last_log_index?);
        let membership = &metrics.membership_config;
        let held = metrics.replication.as_ref()?;
        let holds =
            |member: &ReplicaId| held.get(member).copied().flatten().is_some_and(|id| id.index == index);
        let mut others = membership.nodes().map(|(member, _)| member).filter(|id| **id != self.replica());
        let is_idle = metrics.state.is_leader()
            && metrics.vote.committed
            && membership.get_joint_config().len() == 1
            && membership.nodes().count() > 1
            && !self.inner.hand_over.is_of(term)
            && self.applied_index() == index
            && others.all(holds);
        is_idle.then_some(Quiet { term, index })
    }

    /// When the last of the other members said that it sleeps in a term; none if one did not, or is silent.
    fn all_sleep(
        &self,
        term: u64,
        silence: Duration,
        sleeps: &dyn Fn(&ReplicaAddress, u64) -> Option<Instant>,
    ) -> Option<Instant> {
        let metrics = self.inner.raft.metrics().borrow_watched().clone();
        let others = metrics.membership_config.nodes().filter(|(member, _)| **member != self.replica());
        let said = others.map(|(_, address)| sleeps(address, term));
        let first = said.collect::<Option<Vec<_>>>()?.into_iter().min()?;
        (first.elapsed() < silence).then_some(first)
    }
}
