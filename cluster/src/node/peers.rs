//! Owns what this node does for the others: it takes in their messages and answers their questions.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use fanfold_storage::log::GroupId;
use futures_util::future::BoxFuture;
use tokio::time::timeout;

use super::addresses::ListensAt;
use super::changes::OTHERS_WAIT;
use super::host::Host;
use super::rest;
use super::survey::{Control, body, whole};
use crate::catalog::{CatalogCommand, CatalogOutcome, CatalogRefusal, NodeFacts, NodeState};
use crate::dispatcher::take_in;
use crate::error::NodeError;
use crate::map::Whereabouts;
use crate::peer::{
    Addresses, HelloRefusal, JoinAnswer, JoinRequest, PeerAnswer, PeerCall, PeerHandler, PeerRefusal, Ping,
};
use crate::raft::{EndpointError, MessageKind, ReplicaId};
use crate::read::answer_asked;

/// How long a fetch of the catalog is held while there is nothing newer, at most.
const FETCH_WAIT_MAX: Duration = Duration::from_secs(30);

/// When a leader may try again to send entries to a replica whose disk is full.
const FULL_DELAY_MS: u64 = 500;

/// What other nodes reach; nothing before the node is open.
#[derive(Default)]
pub(super) struct Peers {
    host: OnceLock<Arc<Host>>,
    /// Whether the node is to take the cluster over as soon as it is open.
    is_taking_over: AtomicBool,
}

/// Where the catalog says that the others listen.
pub(super) struct KnownNodes {
    pub whereabouts: Arc<Whereabouts>,
    /// This node; none before it has joined.
    pub own: OnceLock<u64>,
}

impl Addresses for KnownNodes {
    fn peer_address(&self, node: u64) -> Option<String> {
        let state = self.whereabouts.view.current();
        let record = state.nodes.get(&node)?;
        let is_there = record.state != NodeState::Removed && !record.peer_address.is_empty();
        let told = || self.whereabouts.told_address(node, &record.peer_address);
        is_there.then(|| told().unwrap_or_else(|| record.peer_address.clone()))
    }

    fn peers(&self) -> Vec<u64> {
        let state = self.whereabouts.view.current();
        let own = self.own.get();
        let others = state.nodes.iter().filter(|(node, record)| {
            own != Some(*node) && record.state != NodeState::Removed && !record.peer_address.is_empty()
        });
        others.map(|(node, _)| *node).collect()
    }
}

impl Peers {
    /// From now on there is something to reach.
    pub fn open(&self, host: Arc<Host>) {
        let _ = self.host.set(host);
    }

    /// Until the node is open, others are told that it is to take the cluster over.
    pub fn announce_take_over(&self) {
        self.is_taking_over.store(true, Ordering::SeqCst);
    }

    fn host(&self) -> Result<&Arc<Host>, PeerRefusal> {
        self.host.get().ok_or(PeerRefusal::Unavailable { may_have_applied: false })
    }

    async fn answer(&self, from: u64, call: PeerCall) -> Result<PeerAnswer, PeerRefusal> {
        let host = self.host()?;
        if host.stopping.is_cancelled() {
            return Err(PeerRefusal::Stopping);
        }
        match call {
            PeerCall::Join(request) => join(host, request).await.map(PeerAnswer::Joined),
            PeerCall::FetchCatalog { than_epoch, wait_ms } => {
                let mut view = host.whereabouts.view.subscribe();
                let wait = Duration::from_millis(u64::from(wait_ms)).min(FETCH_WAIT_MAX);
                tokio::select! {
                    _ = timeout(wait, view.wait_for(|state| state.epoch > than_epoch)) => {}
                    () = host.stopping.cancelled() => return Err(PeerRefusal::Stopping),
                }
                let state = host.whereabouts.view.current();
                let newer = (state.epoch > than_epoch).then(|| body(&*state));
                Ok(PeerAnswer::Catalog { epoch: state.epoch, state: newer })
            }
            PeerCall::ProposeCatalog(command) => {
                host.catalog.propose_for(command).await.map(PeerAnswer::Proposed)
            }
            PeerCall::Stream { destination, message } => {
                take_in(&host.partitions, destination, message).await.map(PeerAnswer::Stream)
            }
            PeerCall::Ask(questions) => {
                answer_asked(&host.partitions, &questions).await.map(PeerAnswer::Replies)
            }
            PeerCall::Control(question) => {
                let control: Control = whole(&question).map_err(|_| PeerRefusal::Malformed)?;
                if let Control::ListensAt { peer_address } = control {
                    host.whereabouts.note_told_address(from, peer_address);
                    return Ok(PeerAnswer::Control(Bytes::new()));
                }
                control_of(host, control).await.map(PeerAnswer::Control)
            }
        }
    }
}

pub(super) async fn control_of(host: &Host, control: Control) -> Result<Bytes, PeerRefusal> {
    match control {
        Control::Reports => Ok(body(&host.report())),
        Control::Level => Ok(body(&host.opening.options.feature_level)),
        Control::AwaitSpace { space, version } => {
            // Who asks waits no longer, and a leader without a quorum would keep this for ever.
            let waited = timeout(OTHERS_WAIT, host.distributor.wait_for(space, version)).await;
            let unavailable = PeerRefusal::Unavailable { may_have_applied: true };
            if matches!(waited, Ok(Ok(()))) { Ok(Bytes::new()) } else { Err(unavailable) }
        }
        Control::Addresses => {
            let address = host.opening.options.advertise.clone();
            Ok(body(&ListensAt { address, peer_address: host.peer_address.clone() }))
        }
        // Whose it is only the connection tells.
        Control::ListensAt { .. } => Err(PeerRefusal::Malformed),
    }
}

async fn join(host: &Host, request: JoinRequest) -> Result<JoinAnswer, PeerRefusal> {
    let needed = host.whereabouts.view.current().feature_level;
    if request.feature_level < needed {
        tracing::warn!(
            needed,
            supported = request.feature_level,
            "a node that wants to join is of an older version than the cluster, and is refused"
        );
        return Err(PeerRefusal::Other { reason: body(&CatalogRefusal::FeatureLevel { needed }) });
    }
    let facts = NodeFacts {
        directory_id: request.directory,
        address: request.client_address,
        peer_address: request.peer_address,
        zone: request.zone,
    };
    let unavailable = |may_have_applied| PeerRefusal::Unavailable { may_have_applied };
    let answered = host.catalog.propose_raw(&CatalogCommand::AddNode(facts)).await;
    let node = match answered {
        Ok(CatalogOutcome::Node { node }) => node,
        Ok(CatalogOutcome::Refused(refusal)) => {
            tracing::warn!(?refusal, "a node that wants to join is refused");
            return Err(PeerRefusal::Other { reason: body(&refusal) });
        }
        Ok(_) => return Err(unavailable(true)),
        Err(NodeError::Busy { delay_ms }) => return Err(PeerRefusal::Busy { delay_ms }),
        Err(error) => return Err(unavailable(error.may_have_applied())),
    };
    let state = host.whereabouts.view.current();
    let cluster = state.cluster_id.ok_or(unavailable(true))?;
    Ok(JoinAnswer { cluster, node, partitions: state.partitions, catalog: body(&*state) })
}

impl PeerHandler for Peers {
    fn admit(&self, from: u64) -> Result<(), HelloRefusal> {
        let Some(host) = self.host.get() else {
            let is_taking_over = self.is_taking_over.load(Ordering::SeqCst);
            return Err(if is_taking_over { HelloRefusal::TakingOver } else { HelloRefusal::NotReady });
        };
        match host.whereabouts.view.current().nodes.get(&from).map(|record| record.state) {
            None => Err(HelloRefusal::UnknownNode),
            Some(NodeState::Removed) => Err(HelloRefusal::Removed),
            Some(_) => Ok(()),
        }
    }

    fn raft(
        &self,
        _from: u64,
        group: GroupId,
        target: ReplicaId,
        kind: MessageKind,
        message: Bytes,
    ) -> BoxFuture<'_, Result<Bytes, PeerRefusal>> {
        let endpoint = self.host().map(|host| host.endpoint(group, target));
        Box::pin(async move {
            let endpoint = endpoint?.ok_or(PeerRefusal::NotHosted)?;
            endpoint.handle(kind, message).await.map_err(|error| match error {
                EndpointError::Stopped => PeerRefusal::Stopping,
                EndpointError::DiskFull => PeerRefusal::Busy { delay_ms: FULL_DELAY_MS },
                EndpointError::Message(_) => PeerRefusal::Malformed,
            })
        })
    }

    fn call(&self, from: u64, call: PeerCall) -> BoxFuture<'_, Result<PeerAnswer, PeerRefusal>> {
        Box::pin(self.answer(from, call))
    }

    fn ping(&self) -> Ping {
        let Some(host) = self.host.get() else { return Ping::default() };
        let members = host.members();
        let led = members.iter().filter_map(|member| Some((member.id(), member.led()?)));
        let quiet = members.iter().filter_map(|member| Some((member.id(), member.quiet()?)));
        Ping { quiet: quiet.collect(), led: led.collect(), ..self.pong() }
    }

    fn pong(&self) -> Ping {
        let Some(host) = self.host.get() else { return Ping::default() };
        let members = host.members();
        let asleep = members.iter().filter_map(|member| Some((member.id(), member.sleeps_in()?)));
        Ping {
            wall_ms: host.clock.wall_unix_ms().max(0).cast_unsigned(),
            catalog_epoch: host.whereabouts.view.current().epoch,
            asleep: asleep.collect(),
            is_slow: host.whereabouts.is_slow(host.node) || host.is_leaving.load(Ordering::Relaxed),
            is_full: host.whereabouts.is_full(host.node),
            ..Ping::default()
        }
    }

    fn pinged(&self, from: u64, ping: &Ping) {
        if let Some(host) = self.host.get() {
            rest::pinged(host, from, &ping.quiet);
        }
        self.heard(from, ping);
    }

    fn heard(&self, from: u64, ping: &Ping) {
        let Some(host) = self.host.get() else { return };
        for (group, term) in &ping.led {
            host.whereabouts.leaders.note(*group, *term, from);
        }
        host.sleepers.note(from, ping.asleep.clone());
        host.whereabouts.note_slow(from, ping.is_slow);
        host.whereabouts.note_full(from, ping.is_full);
        let mut newest = host.heard_epoch.lock();
        *newest = (*newest).max((ping.catalog_epoch, from));
    }
}
