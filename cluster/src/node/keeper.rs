//! Owns the keeper: on the node that leads the catalog, it gives every group the replicas that it should have (C1).
//!
//! - A group that lost its majority with nodes that were removed goes on with the furthest of what is left, once all that
//!   may have something of it have been heard, and long enough for a majority that is there to have elected a leader.

use std::sync::Arc;
use std::time::Duration;

use fanfold_storage::log::GroupId;
use tokio::time::{Instant, sleep};

use super::host::Host;
use super::plan::{self, Facts};
use super::survey::Surveyed;
use crate::catalog::{CatalogCommand, CatalogState, NodeState};
use crate::peer::PeerNetwork;

/// How many of the longest election times a majority has to find its leader.
const ELECTIONS: u32 = 5;

/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Who is alive, as the network knows.
pub(super) struct Liveness<'a> {
    pub host: &'a Host,
    pub peers: Option<&'a PeerNetwork>,
    /// Nobody counts as silent for longer than since then.
    pub since: Instant,
}

impl Liveness<'_> {
    /// For how long nothing was heard of a node; none: nothing since this node started.
    pub fn silence(&self, node: u64) -> Option<Duration> {
        if node == self.host.node {
            return Some(Duration::ZERO);
        }
        self.peers?.alive(node)
    }

    /// Whether a node was heard lately, and its process has not ended since.
    pub fn is_alive(&self, node: u64) -> bool {
        let is_heard = |peers: &PeerNetwork| {
            peers.watch_alive().borrow().contains(&node) && !peers.watch_gone().borrow().contains(&node)
        };
        node == self.host.node || self.peers.is_some_and(is_heard)
    }

    fn is_lost(&self, state: &CatalogState, node: u64) -> bool {
        let after = Duration::from_millis(state.settings.repair_after_ms);
        let silence = self.silence(node).unwrap_or_else(|| self.since.elapsed()).min(self.since.elapsed());
        !after.is_zero() && !self.is_alive(node) && silence > after
    }

    /// Whether everything is known that can be: all nodes have said what they have, but for those that are lost.
    fn is_complete(&self, state: &CatalogState) -> bool {
        let survey = self.host.survey.all();
        let is_known = |node: u64| self.is_alive(node) && survey.has_heard(node) || self.is_lost(state, node);
        let members = state.nodes.iter().filter(|(_, record)| record.state != NodeState::Removed);
        members.map(|(node, _)| *node).all(is_known)
    }

    /// Whether a group is on its way to the replicas that it should have, or nobody says that it has them.
    fn is_moving(survey: &Surveyed, state: &CatalogState, group: GroupId) -> bool {
        let Some(report) = survey.of(group) else { return true };
        let mut wanted = state.wanted(group.0).to_vec();
        wanted.sort_unstable();
        let mut voters = report.voters.clone();
        voters.sort_unstable();
        voters != wanted || !report.learners.is_empty()
    }

    /// Makes a plan of a state.
    pub fn plan<T>(&self, state: &CatalogState, plan: impl FnOnce(&Facts<'_>) -> T) -> T {
        let is_alive = |node| self.is_alive(node);
        let is_lost = |node| self.is_lost(state, node);
        let survey = self.host.survey.all();
        let is_moving = |group| Self::is_moving(&survey, state, group);
        let (is_alive, is_lost, is_moving) = (&is_alive, &is_lost, &is_moving);
        plan(&Facts { state, survey: &survey, is_alive, is_lost, is_moving })
    }
}

/// Keeps the placement while this node leads the catalog, until the node stops.
pub(super) async fn run(host: Arc<Host>, peers: PeerNetwork) {
    // A leader that is new has to hear of the others before it can call them silent.
    let mut since = Instant::now();
    let mut complete_since = None::<Instant>;
    let patience = ELECTIONS * Duration::from_millis(host.opening.options.raft.election_max_ms);
    loop {
        tokio::select! {
            () = host.stopping.cancelled() => return,
            () = sleep(LOOK_EVERY) => {}
        }
        if !host.catalog.here().is_some_and(|here| here.group().is_leader()) {
            (since, complete_since) = (Instant::now(), None);
            continue;
        }
        host.survey.note(host.node, host.report());
        let state = host.whereabouts.view.current();
        let liveness = Liveness { host: &host, peers: Some(&peers), since };
        if liveness.is_complete(&state) {
            complete_since.get_or_insert_with(Instant::now);
        } else {
            complete_since = None;
        }
        let may_give_up = complete_since.is_some_and(|since| since.elapsed() >= patience);
        let give_up = |facts: &Facts<'_>| may_give_up.then(|| plan::give_up(facts)).flatten();
        let planned = liveness.plan(&state, |facts| plan::keep(facts).or_else(|| give_up(facts)));
        let Some(edit) = planned else { continue };
        for (group, node) in &edit.recover {
            tracing::warn!(
                group,
                node,
                "the group lost its majority with the nodes that are gone; it goes on here"
            );
        }
        tracing::info!(groups = edit.groups.len(), "the placement of replicas changes");
        let command = CatalogCommand::Edit(edit);
        let proposed = tokio::select! {
            () = host.stopping.cancelled() => return,
            proposed = host.catalog.propose(&command) => proposed,
        };
        if let Err(error) = proposed {
            tracing::debug!(%error, "the placement was not changed");
        }
    }
}
