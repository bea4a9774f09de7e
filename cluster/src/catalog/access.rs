//! Owns the way to the catalog from any node: proposals go to its leader, wherever that is; reads see the view.
//!
//! - A proposal is sent again only while it is certain that it was not made.
//! - Who proposed from afar sees what it changed in its own view before it goes on.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use fanfold_storage::command::Limits;
use fanfold_storage::ids::{GraphId, SpaceId};
use fanfold_storage::log::GroupId;
use fanfold_storage::space::{SpaceDefinition, SpacePolicy};
use tokio::time::{Instant, sleep, timeout_at};

use super::command::{CatalogCommand, CatalogOutcome, CatalogRefusal, SpaceChanges};
use super::handle::CatalogHandle;
use super::nodes::NodeFacts;
use super::policy::name_refusal;
use super::state::{CatalogState, DEFAULT_GRAPH, SPACES_MAX};
use super::{FEATURE_LEVEL, answer};
use crate::change::ClusterRefusal;
use crate::error::NodeError;
use crate::map::{Whereabouts, node_of};
use crate::peer::{PeerAnswer, PeerCall, PeerError, PeerNetwork, PeerRefusal};

/// The group of the catalog.
pub(crate) const CATALOG_GROUP: GroupId = GroupId(0);

/// How long a proposal looks for a leader, and then waits for its answer.
const PROPOSE_WAIT: Duration = Duration::from_secs(10);

/// After how long without a leader those who are silent are named as the reason: nodes that have just met may not have
/// heard of each other.
const SILENT_AFTER: Duration = Duration::from_secs(1);

/// How long after a failed attempt the next one begins.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// When to try again a change that was made for another state.
const STALE_DELAY_MS: u64 = 20;

/// The catalog as this node reaches it.
pub(crate) struct Catalog {
    here: ArcSwapOption<CatalogHandle>,
    whereabouts: Arc<Whereabouts>,
    /// None: there are no other nodes.
    peers: Option<PeerNetwork>,
}

impl Catalog {
    /// The catalog, no replica of which is here yet.
    pub fn new(whereabouts: Arc<Whereabouts>, peers: Option<PeerNetwork>) -> Self {
        Self { here: ArcSwapOption::empty(), whereabouts, peers }
    }

    /// Its replica on this node, if there is one.
    pub fn here(&self) -> Option<Arc<CatalogHandle>> {
        self.here.load_full()
    }

    /// Takes the replica of this node in, or out.
    pub fn set_here(&self, handle: Option<Arc<CatalogHandle>>) {
        self.here.store(handle);
    }

    /// The state as this node knows it.
    pub fn state(&self) -> Arc<CatalogState> {
        self.whereabouts.view.current()
    }

    /// Makes a space.
    pub async fn create_space(
        &self,
        name: &str,
        graph: Option<&str>,
        policy: SpacePolicy,
    ) -> Result<SpaceDefinition, NodeError> {
        let graph = graph.unwrap_or(DEFAULT_GRAPH);
        if let Some(refusal) = name_refusal(name).or_else(|| name_refusal(graph)) {
            return Err(refusal);
        }
        let (name, graph) = (name.to_owned(), graph.to_owned());
        self.space(&CatalogCommand::CreateSpace { name, graph, policy }).await
    }

    /// Changes a space.
    pub async fn alter_space(&self, name: &str, changes: SpaceChanges) -> Result<SpaceDefinition, NodeError> {
        self.space(&CatalogCommand::AlterSpace { name: name.to_owned(), changes }).await
    }

    /// Says what a node says of itself, if the catalog says otherwise.
    pub async fn update_node(&self, node: u64, facts: &NodeFacts) -> Result<(), NodeError> {
        if self.state().nodes.get(&node).is_some_and(|known| facts.agree(known)) {
            return Ok(());
        }
        self.propose(&CatalogCommand::UpdateNode { node, facts: facts.clone() }).await.map(|_| ())
    }

    /// Sets the limits of every partition, if the catalog has others.
    pub async fn set_limits(&self, limits: &Limits) -> Result<(), NodeError> {
        if self.state().limits == *limits {
            return Ok(());
        }
        self.propose(&CatalogCommand::SetLimits { limits: limits.clone() }).await.map(|_| ())
    }

    /// Proposes a command and waits until it is applied, and seen here; it may have been refused.
    pub async fn propose_raw(&self, command: &CatalogCommand) -> Result<CatalogOutcome, NodeError> {
        self.propose_bytes(command.to_bytes()).await
    }

    /// Like [`Catalog::propose_raw`], with refusals as errors.
    pub async fn propose(&self, command: &CatalogCommand) -> Result<CatalogOutcome, NodeError> {
        match self.propose_raw(command).await? {
            CatalogOutcome::Refused(refusal) => Err(self.refused(refusal)),
            outcome => Ok(outcome),
        }
    }

    async fn propose_bytes(&self, command: Bytes) -> Result<CatalogOutcome, NodeError> {
        let begun = Instant::now();
        let (deadline, mut told) = (begun + PROPOSE_WAIT, None);
        loop {
            // A leader without followers would log it all the same, and nobody could say what comes of it.
            if let Some(silent) = self.silent().filter(|_| self.leads()) {
                return Err(NodeError::CatalogSilent { silent });
            }
            let failed = match self.attempt(&command, deadline, &mut told).await {
                Err(error) if error.is_retryable() && !error.may_have_applied() => error,
                done => return done,
            };
            if let Some(silent) = self.silent().filter(|_| begun.elapsed() >= SILENT_AFTER) {
                return Err(NodeError::CatalogSilent { silent });
            }
            if Instant::now() + RETRY_AFTER > deadline {
                return Err(match failed {
                    NodeError::NotLeader { .. } => NodeError::CatalogUnavailable { may_have_applied: false },
                    failed => failed,
                });
            }
            sleep(RETRY_AFTER).await;
        }
    }

    fn leads(&self) -> bool {
        self.here().is_some_and(|here| here.group().is_leader())
    }

    /// The nodes with a replica of the catalog that are silent, if they are so many that nobody can lead it: by the voters
    /// that the replica here knows, or else by those that are wanted.
    pub fn silent(&self) -> Option<Vec<u64>> {
        let peers = self.peers.as_ref()?;
        let alive = peers.watch_alive().borrow().clone();
        // The node of a replica that is here may not be known by its id yet.
        let voters: Vec<(u64, bool)> = if let Some(here) = self.here() {
            let own = here.group().replica();
            let all = here.group().members().voters.into_iter();
            all.map(|(replica, address)| (node_of(&address), replica == own)).collect()
        } else {
            let all = self.state().wanted(CATALOG_GROUP.0).to_vec().into_iter();
            all.map(|record| (record.node, Some(record.node) == peers.node())).collect()
        };
        let count = voters.len();
        let silent = voters.into_iter().filter(|(node, is_own)| !is_own && !alive.contains(node));
        let mut silent: Vec<u64> = silent.map(|(node, _)| node).collect();
        silent.sort_unstable();
        (!silent.is_empty() && 2 * silent.len() >= count).then_some(silent)
    }

    /// Proposes once, to the leader, or to whom another node takes for it; `told` is what it says.
    async fn attempt(
        &self,
        command: &Bytes,
        deadline: Instant,
        told: &mut Option<u64>,
    ) -> Result<CatalogOutcome, NodeError> {
        let unavailable = |may_have_applied| NodeError::CatalogUnavailable { may_have_applied };
        let propose = async |here: Arc<CatalogHandle>| {
            // What was handed to the proposer may still be applied when nobody waits for it any longer.
            let proposed = timeout_at(deadline, here.propose(command.clone())).await;
            proposed.unwrap_or(Err(unavailable(true)))
        };
        let here = self.here();
        let Some(peers) = &self.peers else {
            return propose(here.ok_or(unavailable(false))?).await;
        };
        if let Some(here) = here
            && here.group().is_leader()
        {
            return propose(here).await;
        }
        let known = self.whereabouts.leaders.of(CATALOG_GROUP).or(told.take());
        let leader = known.or_else(|| self.holder(peers.node())).ok_or(unavailable(false))?;
        let left = deadline.saturating_duration_since(Instant::now());
        let answered = peers.call(leader, PeerCall::ProposeCatalog(command.clone()), left).await;
        let bytes = match answered {
            Ok(PeerAnswer::Proposed(bytes)) => bytes,
            Ok(_) => return Err(unavailable(true)),
            Err(error) => {
                tracing::debug!(leader, %error, "the catalog's leader did not take a proposal");
                if let PeerError::Refused(PeerRefusal::NotLeader { leader }) = &error {
                    *told = *leader;
                }
                if !error.may_have_applied() {
                    self.whereabouts.leaders.forget(CATALOG_GROUP, leader);
                }
                return Err(unavailable(error.may_have_applied()));
            }
        };
        let (outcome, epoch) = answer::from_bytes(&bytes).map_err(|_| unavailable(true))?;
        let mut view = self.whereabouts.view.subscribe();
        // Whoever reads next here is to see it; without the others it comes later.
        let _ = timeout_at(deadline, view.wait_for(|state| state.epoch >= epoch)).await;
        Ok(outcome)
    }

    /// Another node with a replica of the catalog. Who listens elsewhere than the others know is reached by nobody, and hears
    /// from none of them who leads.
    fn holder(&self, own: Option<u64>) -> Option<u64> {
        let state = self.state();
        let others = state.wanted(CATALOG_GROUP.0).iter().map(|record| record.node);
        let others: Vec<u64> = others.filter(|node| Some(*node) != own).collect();
        (!others.is_empty()).then(|| others[rand::random_range(0..others.len())])
    }

    /// Proposes for another node, if the leader is here.
    pub async fn propose_for(&self, command: Bytes) -> Result<Bytes, PeerRefusal> {
        let here = self.here().filter(|here| here.group().is_leader());
        let leader = || self.whereabouts.leaders.of(CATALOG_GROUP);
        let here = here.ok_or_else(|| PeerRefusal::NotLeader { leader: leader() })?;
        if self.silent().is_some() {
            return Err(PeerRefusal::Unavailable { may_have_applied: false });
        }
        match here.propose(command).await {
            Ok(outcome) => Ok(answer::to_bytes(&outcome, self.state().epoch)),
            Err(NodeError::NotLeader { .. }) => Err(PeerRefusal::NotLeader { leader: leader() }),
            Err(NodeError::Busy { delay_ms }) => Err(PeerRefusal::Busy { delay_ms }),
            Err(NodeError::DiskFull) => Err(PeerRefusal::DiskFull),
            Err(error) => Err(PeerRefusal::Unavailable { may_have_applied: error.may_have_applied() }),
        }
    }

    async fn space(&self, command: &CatalogCommand) -> Result<SpaceDefinition, NodeError> {
        match self.propose(command).await? {
            CatalogOutcome::Space(definition) => Ok(definition),
            _ => Err(NodeError::CatalogUnavailable { may_have_applied: true }),
        }
    }

    /// What a refusal of the catalog is for those who asked.
    pub fn refused(&self, refusal: CatalogRefusal) -> NodeError {
        match refusal {
            CatalogRefusal::UnknownSpace => NodeError::UnknownSpace { known: self.known_spaces() },
            CatalogRefusal::SpaceExists => NodeError::SpaceExists,
            CatalogRefusal::Exhausted => NodeError::SpacesExhausted { limit: SPACES_MAX },
            CatalogRefusal::Policy(refusal) => refusal.into(),
            CatalogRefusal::UnknownNode { node } => {
                let known = self.state().present_nodes().collect();
                ClusterRefusal::UnknownNode { node, known }.into()
            }
            CatalogRefusal::NodeRemoved { node } => ClusterRefusal::NodeRemoved { node }.into(),
            CatalogRefusal::OtherDirectory { node } => ClusterRefusal::OtherDirectory { node }.into(),
            CatalogRefusal::AddressTaken { node } => {
                let address = self.state().nodes.get(&node).map(|node| node.address.clone());
                ClusterRefusal::AddressTaken { node, address: address.unwrap_or_default() }.into()
            }
            CatalogRefusal::Stale => NodeError::Busy { delay_ms: STALE_DELAY_MS },
            CatalogRefusal::FeatureLevel { needed } => {
                ClusterRefusal::FeatureLevel { needed, supported: FEATURE_LEVEL }.into()
            }
            // Another replica may have applied what the leader's state is too damaged for.
            CatalogRefusal::Malformed => NodeError::CatalogUnavailable { may_have_applied: true },
            CatalogRefusal::Founded | CatalogRefusal::NotFounded => {
                NodeError::CatalogUnavailable { may_have_applied: false }
            }
        }
    }

    /// The spaces by id.
    pub fn known_spaces(&self) -> Vec<(SpaceId, String)> {
        self.state().spaces.values().map(|space| (space.id, space.name.clone())).collect()
    }

    /// The graphs by id.
    pub fn known_graphs(&self) -> Vec<(GraphId, String)> {
        self.state().graphs.iter().map(|(id, name)| (*id, name.clone())).collect()
    }
}
