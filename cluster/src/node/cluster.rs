//! Owns what an operator sees of the cluster and changes in it.

use std::time::Duration;

use fanfold_storage::ids::PartitionId;
use fanfold_storage::log::GroupId;
use tokio::time::{sleep, timeout};

use super::Node;
use super::host::groups_of;
use super::keeper::Liveness;
use super::plan;
use super::survey::Surveyed;
use crate::catalog::{
    CATALOG_GROUP, CatalogCommand, CatalogState, Edit, NodeRecord, NodeState, ReplicaRecord,
};
use crate::change::{ClusterChange, ClusterChanged, ClusterRefusal};
use crate::error::{NodeError, NodeFailure};
use crate::map::{group_of, partition_of};
use crate::peer::PeerNetwork;
use crate::view::{ClusterView, GroupHealth, GroupView, NodeView};

/// How often a change is planned anew because the catalog changed meanwhile.
const ATTEMPTS_MAX: usize = 16;

/// How long a leader is waited for.
const TRANSFER_WAIT: Duration = Duration::from_secs(15);

/// How long the leaders are waited for before a node is removed.
const SURVEYED_WAIT: Duration = Duration::from_secs(5);

/// How long nodes are waited for of which nothing was heard yet.
const ACQUAINTED_WAIT: Duration = Duration::from_secs(3);

/// How long the catalog has to show a change whose answer was lost.
const TAKEN_WAIT: Duration = Duration::from_secs(5);

/// How often it is looked whether what is waited for is so.
const LOOK_EVERY: Duration = Duration::from_millis(20);

impl Node {
    /// The cluster as this node knows it.
    pub fn view(&self) -> ClusterView {
        let state = self.whereabouts.view.current();
        self.host.survey.note(self.host.node, self.host.report());
        let liveness = self.liveness();
        let surveyed = self.host.survey.all();
        let group_view = |group| self.group_view(&state, &liveness, &surveyed, group);
        let groups: Vec<_> = groups_of(self.partition_count).map(group_view).collect();
        let compared = |peers: &PeerNetwork| peers.clock_offsets(self.host.clock.wall_unix_ms());
        let ahead_ms = self.peers.as_ref().map(compared).unwrap_or_default();
        let nodes = state.nodes.iter().map(|(node, record)| NodeView {
            node: *node,
            address: record.address.clone(),
            peer_address: record.peer_address.clone(),
            zone: record.zone.clone(),
            state: record.state,
            silent_ms: liveness.silence(*node).map(|silence| silence.as_millis() as u64),
            clock_ahead_ms: if *node == self.host.node { Some(0) } else { ahead_ms.get(node).copied() },
            is_clock_off: self.whereabouts.is_clock_off(*node),
            is_disk_slow: self.whereabouts.is_slow(*node),
            is_disk_full: self.whereabouts.is_full(*node),
            is_over_memory: surveyed.is_over_memory(*node),
            is_alive: liveness.is_alive(*node),
            replicas: groups.iter().filter(|group| group.is_on(*node)).count() as u32,
            leads: groups.iter().filter(|group| group.leader == Some(*node)).count() as u32,
        });
        ClusterView {
            cluster_id: self.identity.cluster_id,
            epoch: state.epoch,
            feature_level: state.feature_level,
            partitions: self.partition_count,
            settings: state.settings,
            told_by: self.identity.node_id,
            nodes: nodes.collect(),
            groups,
        }
    }

    fn liveness(&self) -> Liveness<'_> {
        Liveness { host: &self.host, peers: self.peers.as_ref(), since: self.opened_at }
    }

    fn group_view(
        &self,
        state: &CatalogState,
        liveness: &Liveness<'_>,
        surveyed: &Surveyed,
        group: GroupId,
    ) -> GroupView {
        let wanted = state.wanted(group.0).to_vec();
        let report = self.host.survey.of(group);
        let led = self.whereabouts.leaders.led(group).filter(|(leader, _)| liveness.is_alive(*leader));
        let (leader, term) = (led.map(|(leader, _)| leader), led.map_or(0, |(_, term)| term));
        let voters = report.as_ref().map_or_else(|| wanted.clone(), |report| report.voters.clone());
        // What is damaged takes no part, like what is silent.
        let is_away =
            |record: &&ReplicaRecord| !liveness.is_alive(record.node) || surveyed.is_closed(group, record);
        let silent = |records: &[ReplicaRecord]| records.iter().filter(is_away).count();
        let is_settled = report.as_ref().is_some_and(|report| {
            let is_wanted = |voter| wanted.contains(voter);
            report.settled_epoch > 0
                && report.learners.is_empty()
                && report.voters.len() == wanted.len()
                && report.voters.iter().all(is_wanted)
        });
        let health = if 2 * silent(&voters) >= voters.len() && !voters.is_empty() {
            GroupHealth::Lost
        } else if leader.is_none() {
            GroupHealth::Electing
        } else if silent(&voters) + silent(&wanted) > 0 {
            GroupHealth::Degraded
        } else if is_settled {
            GroupHealth::Whole
        } else {
            GroupHealth::Changing
        };
        let record = |replica: u64| {
            let report = report.as_ref()?;
            report.voters.iter().chain(&report.learners).find(|known| known.replica == replica).copied()
        };
        let lag = report.iter().flat_map(|report| &report.lag);
        let lag = lag.filter_map(|(replica, lag)| Some((record(*replica)?, *lag))).collect();
        let (voters, learners) = match &report {
            Some(report) => (report.voters.clone(), report.learners.clone()),
            None => (Vec::new(), Vec::new()),
        };
        let all = wanted.iter().chain(&voters).chain(&learners);
        let mut closed: Vec<_> = all.filter(|record| surveyed.is_closed(group, record)).copied().collect();
        closed.sort_unstable();
        closed.dedup();
        let is_diverged = surveyed.diverged().iter().any(|(differs, _)| *differs == group);
        let partition = partition_of(group);
        GroupView { partition, wanted, leader, term, voters, learners, lag, closed, is_diverged, health }
    }

    /// Changes the cluster, or says what would change. Answered when the catalog has it; what follows from it goes on
    /// in the background, and [`Node::view`] shows how far it is.
    pub async fn change_cluster(
        &self,
        change: ClusterChange,
        is_dry_run: bool,
    ) -> Result<ClusterChanged, NodeError> {
        let _pass = self.enter()?;
        self.acquainted().await?;
        self.host.survey.note(self.host.node, self.host.report());
        // What is left of a partition can be asked for before the catalog is recovered.
        let looks =
            is_dry_run && matches!(change, ClusterChange::Recover { .. } | ClusterChange::BeginEmpty { .. });
        if let Some(silent) = self.catalog.silent().filter(|_| !looks) {
            return Err(NodeError::CatalogSilent { silent });
        }
        if let ClusterChange::Upgrade { to } = change {
            return self.upgrade(to, is_dry_run).await;
        }
        if matches!(change, ClusterChange::Remove { .. }) {
            self.surveyed().await?;
        }
        let planned = |liveness: &Liveness<'_>, state: &CatalogState| {
            liveness.plan(state, |facts| {
                let edit = plan::plan(facts, change)?;
                let changed = plan::outcome(facts, &edit);
                Ok((edit, changed))
            })
        };
        self.edit(planned, is_dry_run).await
    }

    /// Waits for a while until this node knows the catalog as its leader does, and has heard of every node. One that joined a
    /// moment ago would pass for unknown or silent, and be left out without a word; and where this node has just started,
    /// every majority would pass for lost.
    async fn acquainted(&self) -> Result<(), NodeError> {
        let Some(peers) = &self.peers else { return Ok(()) };
        let acquainted = async {
            let leader =
                self.whereabouts.leaders.of(CATALOG_GROUP).filter(|leader| *leader != self.host.node);
            if let Some(leader) = leader {
                let learnt = self.host.fetch_catalog(peers, leader, Duration::ZERO).await;
                if let Err(error) = learnt {
                    tracing::debug!(leader, %error, "the catalog's leader was not asked for what is new");
                }
            }
            let liveness = self.liveness();
            let is_heard = |node| liveness.silence(node).is_some();
            let is_known =
                |(node, record): (&u64, &NodeRecord)| record.state == NodeState::Removed || is_heard(*node);
            while !self.whereabouts.view.current().nodes.iter().all(is_known) {
                sleep(LOOK_EVERY).await;
            }
        };
        tokio::select! {
            _ = timeout(ACQUAINTED_WAIT, acquainted) => Ok(()),
            () = self.stopping.cancelled() => Err(NodeError::ShuttingDown),
        }
    }

    /// Waits for a while until all leaders have said that they go by the catalog as it is.
    async fn surveyed(&self) -> Result<(), NodeError> {
        let surveyed = async {
            loop {
                self.host.survey.note(self.host.node, self.host.report());
                let (survey, epoch) = (self.host.survey.all(), self.whereabouts.view.current().epoch);
                let has_said = |group| survey.of(group).is_some_and(|report| report.settled_epoch >= epoch);
                if groups_of(self.partition_count).all(has_said) {
                    return;
                }
                sleep(LOOK_EVERY).await;
            }
        };
        tokio::select! {
            // Who has not said so counts as one that may need the node.
            _ = timeout(SURVEYED_WAIT, surveyed) => Ok(()),
            () = self.stopping.cancelled() => Err(NodeError::ShuttingDown),
        }
    }

    /// Proposes an edit, planned anew while the catalog changes under it.
    async fn edit(
        &self,
        planned: impl Fn(&Liveness<'_>, &CatalogState) -> Result<(Edit, ClusterChanged), ClusterRefusal>,
        is_dry_run: bool,
    ) -> Result<ClusterChanged, NodeError> {
        let mut busy = NodeError::CatalogUnavailable { may_have_applied: false };
        for _ in 0..ATTEMPTS_MAX {
            let state = self.whereabouts.view.current();
            let (edit, changed) = planned(&self.liveness(), &state)?;
            if is_dry_run || edit.is_empty() {
                return Ok(changed);
            }
            let command = CatalogCommand::Edit(edit);
            let proposed = tokio::select! {
                proposed = self.catalog.propose(&command) => proposed,
                () = self.stopping.cancelled() => {
                    return Err(NodeError::CatalogUnavailable { may_have_applied: true });
                }
            };
            match proposed {
                Ok(_) => {
                    return Ok(ClusterChanged { epoch: self.whereabouts.view.current().epoch, ..changed });
                }
                Err(error @ NodeError::Busy { delay_ms }) => {
                    busy = error;
                    sleep(Duration::from_millis(delay_ms)).await;
                }
                // The answer was lost, with its leader or its connection: the catalog tells.
                Err(error) if error.may_have_applied() && self.has_taken(&command).await => {
                    return Ok(ClusterChanged { epoch: self.whereabouts.view.current().epoch, ..changed });
                }
                Err(error) => return Err(error),
            }
        }
        Err(busy)
    }

    /// Whether the catalog shows an edit within a while.
    async fn has_taken(&self, command: &CatalogCommand) -> bool {
        let CatalogCommand::Edit(edit) = command else { return false };
        let mut view = self.whereabouts.view.subscribe();
        let seen = view.wait_for(|state| state.epoch > edit.epoch);
        // To a node that it removes nobody shows the catalog any more.
        let own = (self.host.node, NodeState::Removed);
        let mut failure = self.host.failure.subscribe();
        let removed = failure.wait_for(|failure| matches!(failure, Some(NodeFailure::Removed { .. })));
        tokio::select! {
            seen = timeout(TAKEN_WAIT, seen) => seen.is_ok_and(|seen| seen.is_ok_and(|state| state.shows(edit))),
            removed = removed, if edit.nodes.contains(&own) => removed.is_ok(),
            () = self.stopping.cancelled() => false,
        }
    }

    /// Makes a node the preferred leader of a partition (none: of the catalog). Answered when it leads; a dry run only checks
    /// whether it can.
    pub async fn transfer_leader(
        &self,
        partition: Option<PartitionId>,
        to: u64,
        is_dry_run: bool,
    ) -> Result<(), NodeError> {
        let _pass = self.enter()?;
        self.acquainted().await?;
        self.host.survey.note(self.host.node, self.host.report());
        let planned = |liveness: &Liveness<'_>, state: &CatalogState| {
            liveness.plan(state, |facts| Ok((plan::prefer(facts, partition, to)?, ClusterChanged::default())))
        };
        self.edit(planned, is_dry_run).await?;
        if is_dry_run {
            return Ok(());
        }
        let group = group_of(partition);
        let led = async {
            while self.whereabouts.leaders.of(group) != Some(to) {
                sleep(LOOK_EVERY).await;
            }
        };
        tokio::select! {
            led = timeout(TRANSFER_WAIT, led) => {
                led.map_err(|_| ClusterRefusal::CannotLead { partition, node: to }.into())
            }
            () = self.stopping.cancelled() => Err(NodeError::ShuttingDown),
        }
    }
}
