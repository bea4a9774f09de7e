//! Owns how a node with a new data directory becomes part of a cluster.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use fanfold_storage::log::GroupId;
use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::peers::{KnownNodes, Peers};
use super::survey::{Control, Held, NodeReport, body, whole};
use super::tasks::catalog_of;
use crate::backup::Alone;
use crate::catalog::{CATALOG_GROUP, CatalogRefusal, CatalogState, EPOCH_LEAP, NodeFacts};
use crate::change::ClusterRefusal;
use crate::error::OpenError;
use crate::identity::{Identity, StoredIdentity};
use crate::map::Whereabouts;
use crate::options::NodeOptions;
use crate::peer::{
    Addresses, DialError, HelloRefusal, JoinAnswer, JoinRequest, PeerAnswer, PeerCall, PeerError,
    PeerIdentity, PeerListener, PeerNetwork, PeerOptions, PeerRefusal,
};

/// How long one attempt to join may take.
const JOIN_WAIT: Duration = Duration::from_secs(5);

/// How long those who may be of another cluster have to say so.
const CHECK_WAIT: Duration = Duration::from_secs(1);

/// How long they have if this node is to take the cluster over: one that is overlooked may do so too.
const CONTEST_WAIT: Duration = Duration::from_secs(5);

/// How much longer than a silent connection lives another process has to be seen as this node.
const TWIN_MARGIN: Duration = Duration::from_secs(1);

/// How long after all addresses were tried the first is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// The network of this node to the others.
pub(super) struct Peering {
    pub network: PeerNetwork,
    pub handler: Arc<Peers>,
    pub own: watch::Sender<Option<PeerIdentity>>,
    pub known: Arc<KnownNodes>,
    /// Where the others are told to find this node.
    pub address: String,
    pub listening: SocketAddr,
    pub serving: JoinHandle<()>,
}

impl Peering {
    /// Listens for other nodes, if the options say so.
    pub async fn begin(
        options: &NodeOptions,
        whereabouts: &Arc<Whereabouts>,
        stop: &CancellationToken,
    ) -> Result<Option<Self>, OpenError> {
        let Some(address) = options.peer_listen else { return Ok(None) };
        let own = watch::Sender::default();
        let known = Arc::new(KnownNodes { whereabouts: whereabouts.clone(), own: OnceLock::default() });
        let network = PeerNetwork::new(own.subscribe(), known.clone(), PeerOptions::default());
        let listener = PeerListener::bind(address, &network).await;
        let listener = listener.map_err(|source| OpenError::PeerListen { address, source })?;
        let listening = listener.local_addr();
        let handler = Arc::new(Peers::default());
        let serving = tokio::spawn(listener.run(handler.clone(), stop.clone()));
        let address = options.peer_advertise.clone().unwrap_or_else(|| listening.to_string());
        Ok(Some(Self { network, handler, own, known, address, listening, serving }))
    }

    /// From now on this node is known.
    pub fn introduce(&self, identity: Identity) {
        let _ = self.known.own.set(identity.node_id);
        self.own.send_replace(Some(PeerIdentity { cluster: identity.cluster_id, node: identity.node_id }));
    }

    /// Asks the nodes at these addresses to let this one in, until one does or the cluster refuses.
    pub async fn join(
        &self,
        addresses: &[String],
        options: &NodeOptions,
        stored: &StoredIdentity,
    ) -> Result<(StoredIdentity, CatalogState), OpenError> {
        let request = JoinRequest {
            directory: stored.directory_id,
            client_address: options.advertise.clone(),
            peer_address: self.address.clone(),
            zone: options.zone.clone(),
            feature_level: options.feature_level,
        };
        loop {
            for address in addresses {
                let call = PeerCall::Join(request.clone());
                match self.network.call_address(address, call, JOIN_WAIT).await {
                    Ok(PeerAnswer::Joined(answer)) => {
                        if let Some(joined) = taken(&answer, stored) {
                            return Ok(joined);
                        }
                        tracing::warn!(%address, "what a node answered makes no sense; trying the others");
                    }
                    Ok(_) => {
                        tracing::warn!(%address, "what a node answered makes no sense; trying the others");
                    }
                    Err(PeerError::Refused(PeerRefusal::Other { reason })) => {
                        return Err(refused(&reason, options));
                    }
                    Err(PeerError::Unreachable {
                        reason: DialError::Refused(HelloRefusal::NotReady),
                        ..
                    }) => {
                        tracing::debug!(%address, "the node belongs to no cluster yet");
                    }
                    Err(error) => tracing::info!(%address, %error, "not joined yet; trying on"),
                }
            }
            sleep(RETRY_AFTER).await;
        }
    }

    /// Checks that those whom this node is told to join are of its own cluster, as far as they answer at once.
    pub async fn check_cluster(
        &self,
        addresses: &[String],
        stored: &StoredIdentity,
        options: &NodeOptions,
    ) -> Result<(), OpenError> {
        self.introduce(stored.identity);
        let asked = addresses.iter().map(async |address| {
            let call = PeerCall::FetchCatalog { than_epoch: u64::MAX, wait_ms: 0 };
            let answered = self.network.call_address(address, call, CHECK_WAIT).await;
            let is_other = matches!(
                answered,
                Err(PeerError::Unreachable { reason: DialError::Refused(HelloRefusal::WrongCluster), .. })
            );
            is_other.then(|| address.clone())
        });
        match join_all(asked).await.into_iter().flatten().next() {
            Some(address) => {
                let (data_dir, own) = (options.data_dir.clone(), stored.identity.cluster_id);
                Err(OpenError::OtherCluster { data_dir, own, address })
            }
            None => Ok(()),
        }
    }

    /// Asks the others what the catalog says now, as far as they answer at once: what this node was before it stopped may
    /// have been given up, and must not run again. One that has an order to take the cluster over does not, if another has
    /// one too, or has done it.
    ///
    /// Of two that have an order at least one hears of the other's: both say so before they ask.
    pub async fn learn(
        &self,
        stored: &StoredIdentity,
        whereabouts: &Arc<Whereabouts>,
        options: &NodeOptions,
        order: Option<&Alone>,
    ) -> Result<(), OpenError> {
        let known = whereabouts.view.current();
        if !stored.founded || known.nodes.len() < 2 {
            return Ok(());
        }
        if order.is_some() {
            self.handler.announce_take_over();
        }
        self.introduce(stored.identity);
        let wait = if order.is_some() { CONTEST_WAIT } else { CHECK_WAIT };
        let address = |node: u64| Some((node, self.known.peer_address(node)?));
        let asked: Vec<_> = self.known.peers().into_iter().filter_map(address).collect();
        let node = stored.identity.node_id;
        // The connections of a process that ended just now may still be there.
        let deadline = Instant::now() + self.network.silence() + TWIN_MARGIN;
        loop {
            let mut has_twin = false;
            let asked = asked.iter().map(async |(other, address)| {
                let call = PeerCall::FetchCatalog { than_epoch: known.epoch, wait_ms: 0 };
                (*other, self.network.call_address(address, call, wait).await)
            });
            for (other, answered) in join_all(asked).await {
                match answered {
                    Ok(PeerAnswer::Catalog { epoch, state }) => {
                        let state = state.and_then(|bytes| catalog_of(&bytes));
                        if let Some(order) = order {
                            uncontested(order, &known, other, (epoch, state.as_ref()), options)?;
                            self.check_damaged(order, other, options).await?;
                        }
                        if let Some(state) = state {
                            whereabouts.view.offer(epoch, || Arc::new(state));
                        }
                    }
                    Err(PeerError::Unreachable {
                        reason: DialError::Refused(HelloRefusal::TakingOver),
                        ..
                    }) if order.is_some() => {
                        let data_dir = options.data_dir.clone();
                        return Err(OpenError::TakeOverTwice { data_dir, node: other });
                    }
                    Err(PeerError::Unreachable {
                        reason: DialError::Refused(HelloRefusal::Removed), ..
                    }) => {
                        return Err(OpenError::Refused(ClusterRefusal::NodeRemoved { node }));
                    }
                    Err(PeerError::Unreachable {
                        reason: DialError::Refused(HelloRefusal::Twice), ..
                    }) => {
                        has_twin = true;
                    }
                    _ => {}
                }
            }
            if !has_twin {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(OpenError::RunsElsewhere { data_dir: options.data_dir.clone(), node });
            }
            sleep(RETRY_AFTER).await;
        }
    }

    /// Checks that another node has no whole replica of the catalog if an order says that its own is damaged. An order that has begun goes
    /// on: it cannot be withdrawn, and others may know of it.
    async fn check_damaged(&self, order: &Alone, other: u64, options: &NodeOptions) -> Result<(), OpenError> {
        if order.is_begun || !order.damaged.contains(&other) {
            return Ok(());
        }
        let Some(address) = self.known.peer_address(other) else { return Ok(()) };
        let call = PeerCall::Control(body(&Control::Reports));
        let Ok(PeerAnswer::Control(said)) = self.network.call_address(&address, call, CONTEST_WAIT).await
        else {
            return Ok(());
        };
        let is_whole = |held: &Held| GroupId(held.group) == CATALOG_GROUP && held.is_open;
        if NodeReport::from_bytes(&said).is_ok_and(|report| report.held.iter().any(is_whole)) {
            return Err(OpenError::CatalogWhole { data_dir: options.data_dir.clone(), node: other });
        }
        Ok(())
    }

    /// What this node says of itself.
    pub fn facts(&self, options: &NodeOptions, directory_id: u128) -> NodeFacts {
        NodeFacts {
            directory_id,
            address: options.advertise.clone(),
            peer_address: self.address.clone(),
            zone: options.zone.clone(),
        }
    }
}

/// Checks that what another node knows leaves it to this one to take the cluster over.
fn uncontested(
    order: &Alone,
    known: &CatalogState,
    other: u64,
    (epoch, state): (u64, Option<&CatalogState>),
    options: &NodeOptions,
) -> Result<(), OpenError> {
    let data_dir = options.data_dir.clone();
    if order.gone.contains(&other) {
        return Err(OpenError::NotGone { data_dir, node: other });
    }
    // A stop may have come between the take-over and the end of its note.
    let is_own = |state: &CatalogState| state.given_up_before.get(&0) == Some(&order.replica);
    if epoch >= known.epoch + EPOCH_LEAP && !state.is_some_and(is_own) {
        return Err(OpenError::TakenOver { data_dir, node: other, epoch });
    }
    Ok(())
}

fn taken(answer: &JoinAnswer, stored: &StoredIdentity) -> Option<(StoredIdentity, CatalogState)> {
    let state = catalog_of(&answer.catalog)?;
    let is_whole = state.cluster_id == Some(answer.cluster) && state.nodes.contains_key(&answer.node);
    let identity = Identity { cluster_id: answer.cluster, node_id: answer.node };
    let joined = StoredIdentity { identity, partitions: answer.partitions, founded: true, ..*stored };
    (is_whole && answer.partitions.is_power_of_two()).then_some((joined, state))
}

fn refused(reason: &[u8], options: &NodeOptions) -> OpenError {
    let address = options.advertise.clone();
    OpenError::Refused(match whole::<CatalogRefusal>(reason) {
        Ok(CatalogRefusal::NodeRemoved { node }) => ClusterRefusal::NodeRemoved { node },
        Ok(CatalogRefusal::OtherDirectory { node }) => ClusterRefusal::OtherDirectory { node },
        Ok(CatalogRefusal::AddressTaken { node }) => ClusterRefusal::AddressTaken { node, address },
        Ok(CatalogRefusal::FeatureLevel { needed }) => {
            ClusterRefusal::FeatureLevel { needed, supported: options.feature_level }
        }
        _ => ClusterRefusal::NotTaken,
    })
}
