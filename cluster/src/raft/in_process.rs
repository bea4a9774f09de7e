//! Owns the transport between replicas in one process, whose links can be cut.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use fanfold_storage::log::GroupId;
use futures_util::future::BoxFuture;

use super::transport::{PeerEndpoint, PeerRequest, PeerTransport, TransportError};
use super::types::ReplicaId;

/// Connects replicas of one process, whatever nodes they belong to. Clones share the connections.
#[derive(Clone, Default)]
pub struct InProcessTransport {
    peers: Arc<Mutex<Peers>>,
}

#[derive(Default)]
struct Peers {
    endpoints: HashMap<(GroupId, ReplicaId), Weak<dyn PeerEndpoint>>,
    isolated: HashSet<(GroupId, ReplicaId)>,
}

impl InProcessTransport {
    /// Makes a replica reachable for as long as its endpoint exists; a later one takes its place.
    pub fn register(&self, group: GroupId, replica: ReplicaId, endpoint: &Arc<dyn PeerEndpoint>) {
        self.lock().endpoints.insert((group, replica), Arc::downgrade(endpoint));
    }

    /// Cuts all links of a replica, or joins them again.
    pub fn isolate(&self, group: GroupId, replica: ReplicaId, isolated: bool) {
        let mut peers = self.lock();
        if isolated {
            peers.isolated.insert((group, replica));
        } else {
            peers.isolated.remove(&(group, replica));
        }
    }

    fn endpoint(&self, request: &PeerRequest) -> Option<Arc<dyn PeerEndpoint>> {
        let peers = self.lock();
        let cut = |replica| peers.isolated.contains(&(request.group, replica));
        if cut(request.source) || cut(request.target) {
            return None;
        }
        peers.endpoints.get(&(request.group, request.target))?.upgrade()
    }

    fn lock(&self) -> MutexGuard<'_, Peers> {
        // Every change is a single insert or remove, so the maps are whole whatever happened to the holder.
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PeerTransport for InProcessTransport {
    fn send(&self, request: PeerRequest) -> BoxFuture<'static, Result<Bytes, TransportError>> {
        let this = self.clone();
        Box::pin(async move {
            let unreachable =
                || TransportError::Unreachable { target: request.target, address: request.address.clone() };
            let endpoint = this.endpoint(&request).ok_or_else(unreachable)?;
            let answer = endpoint.handle(request.kind, request.body.clone()).await?;
            // A link that was cut meanwhile loses the answer, as a wire would.
            this.endpoint(&request).ok_or_else(unreachable)?;
            Ok(answer)
        })
    }
}
