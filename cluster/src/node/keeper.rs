//! Owns the keeper: on the node that leads the catalog, it gives every group the replicas that it should have (C1).

use std::sync::Arc;
use std::time::Duration;

use fanfold_storage::log::GroupId;
use tokio::time::{Instant, sleep};

use super::host::Host;
use super::plan::{self, Facts};
use super::survey::Surveyed;
use crate::catalog::{CatalogCommand, CatalogState};
use crate::peer::PeerNetwork;

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

    pub fn is_alive(&self, node: u64) -> bool {
        let is_heard = |peers: &PeerNetwork| peers.watch_alive().borrow().contains(&node);
        node == self.host.node || self.peers.is_some_and(is_heard)
    }

    fn is_lost(&self, state: &CatalogState, node: u64) -> bool {
        let after = Duration::from_millis(state.settings.repair_after_ms);
        let silence = self.silence(node).unwrap_or_else(|| self.since.elapsed()).min(self.since.elapsed());
        !after.is_zero() && !self.is_alive(node) && silence > after
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
    loop {
        tokio::select! {
            () = host.stopping.cancelled() => return,
            () = sleep(LOOK_EVERY) => {}
        }
        if !host.catalog.here().is_some_and(|here| here.group().is_leader()) {
            since = Instant::now();
            continue;
        }
        host.survey.note(host.node, host.report());
        let state = host.whereabouts.view.current();
        let liveness = Liveness { host: &host, peers: Some(&peers), since };
        let Some(edit) = liveness.plan(&state, plan::keep) else { continue };
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
