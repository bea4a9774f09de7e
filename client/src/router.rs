//! Owns the way from what a request is about to the node that must get it: the map, and the links.
//!
//! Invariants:
//! - The map is fetched once by whoever needs it first, and again when a refusal or a lost node shows that it is old. A leader
//!   that a refusal names is put into the map at hand, once for each call: where two nodes name each other, a new map decides.
//! - There is one link per address.
//! - Only maps of one cluster are taken: sessions, tokens and ids mean nothing to another.
//! - What is about a partition without a leader goes to any node, and the next attempt to another: they answer with a
//!   status that says whether to try again.
//! - Whose map led to a node that does not answer is asked for the next one after the others.
//! - A node that does not answer with the map in time is asked last from then on; the map is fetched by one call at a
//!   time, and not more often than every `MAP_INTERVAL`.
//! - A cluster of one node is reached under the address that the application gave, whatever the node calls itself.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use fanfold_protocol::message::Map;
use fanfold_protocol::{
    Call, ClusterId, Field, LeaderHint, NodeId, PartitionId, Request, Response, SlotIndex, UserId,
};
use tokio::time::{Instant, sleep_until, timeout};

use crate::claim::Claim;
use crate::deadline::Deadline;
use crate::defaults;
use crate::error::{Error, Loss};
use crate::link::Link;
use crate::lock::lock;
use crate::pending::Unanswered;
use crate::renewable::Renewable;

/// What a request is about, which decides the node that gets it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    AnyNode,
    /// Any but this one, which goes with what is asked for.
    OtherThan(NodeId),
    Node(NodeId),
    Partition(PartitionId),
    Slot(SlotIndex),
    User(UserId),
    /// Any replica of the partition of a slot; the leader if there is no list of replicas, or they do not answer.
    Replica(SlotIndex),
}

impl Target {
    /// Where a read about a slot goes: to the leader, or to any replica.
    pub fn of_read(slot: SlotIndex, any_replica: bool) -> Self {
        if any_replica { Self::Replica(slot) } else { Self::Slot(slot) }
    }
}

/// A map, with the address of each node.
#[derive(Debug, Clone)]
pub(crate) struct Routes {
    map: Map,
    addresses: BTreeMap<NodeId, String>,
    /// Where the map was asked for.
    told_at: String,
}

impl Routes {
    /// The routes of a map; refuses a map that says nothing about the leader of a partition, or names one without an
    /// address. A partition may have no leader.
    fn new(map: Map, asked: &str) -> Option<Self> {
        let mut addresses: BTreeMap<_, _> =
            map.nodes.iter().map(|node| (node.node, node.address.clone())).collect();
        if let (1, Some(only)) = (addresses.len(), addresses.first_entry()) {
            asked.clone_into(only.into_mut());
        }
        let known = |leader: &NodeId| *leader == Map::NO_LEADER || addresses.contains_key(leader);
        let sound = !addresses.is_empty()
            && map.partitions.is_power_of_two()
            && map.leaders.len() == usize::from(map.partitions)
            && map.leaders.iter().all(known);
        sound.then(|| Self { map, addresses, told_at: asked.to_owned() })
    }

    pub fn epoch(&self) -> u64 {
        self.map.epoch
    }

    pub fn partitions(&self) -> u16 {
        self.map.partitions
    }

    pub fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.addresses.keys().copied()
    }

    pub fn partition_of(&self, user: UserId) -> PartitionId {
        PartitionId::of_user(user, self.map.partitions)
    }

    pub fn partition_of_slot(&self, slot: SlotIndex) -> PartitionId {
        PartitionId::of_slot(slot, self.map.partitions)
    }

    /// The nodes that lead a partition; all nodes if one has no leader, so that somebody says so.
    pub fn leading_nodes(&self) -> Vec<NodeId> {
        let mut leading: Vec<_> = self.map.leaders.clone();
        if leading.contains(&Map::NO_LEADER) {
            return self.nodes().collect();
        }
        leading.sort_unstable();
        leading.dedup();
        leading
    }

    /// Whether every partition has the leader that it has in another map.
    pub fn has_leaders_of(&self, other: &Self) -> bool {
        self.map.leaders == other.map.leaders
    }

    /// The node to ask about a partition: the one that leads it, or any node for a partition that has no leader or does
    /// not exist, which that node will say.
    pub fn leader(&self, partition: PartitionId) -> NodeId {
        self.known_leader(partition).or_else(|| self.nodes().next()).unwrap_or_default()
    }

    /// The partition that a target is about, if it is about one.
    fn partition(&self, target: Target) -> Option<PartitionId> {
        match target {
            Target::AnyNode | Target::OtherThan(_) | Target::Node(_) => None,
            Target::Partition(partition) => Some(partition),
            Target::Slot(slot) | Target::Replica(slot) => Some(self.partition_of_slot(slot)),
            Target::User(user) => Some(self.partition_of(user)),
        }
    }

    /// Whether what a target is about has the leader that it has in another map.
    fn has_leader_of(&self, other: &Self, target: Target) -> bool {
        let leader =
            |routes: &Self| routes.partition(target).and_then(|partition| routes.known_leader(partition));
        leader(self) == leader(other)
    }

    /// The same with another leader of what a target is about; none if that is no news, or no node of the map.
    fn led_by(&self, target: Target, hint: &LeaderHint) -> Option<Self> {
        let partition = self.partition(target)?;
        let is_there = self.addresses.get(&hint.node) == Some(&hint.address);
        if !is_there || self.known_leader(partition) == Some(hint.node) {
            return None;
        }
        let mut other = self.clone();
        *other.map.leaders.get_mut(usize::from(partition.0))? = hint.node;
        Some(other)
    }

    fn known_leader(&self, partition: PartitionId) -> Option<NodeId> {
        let leader = self.map.leaders.get(usize::from(partition.0)).copied();
        leader.filter(|leader| *leader != Map::NO_LEADER)
    }

    /// The address of the one node that a request is for; none if any will do.
    fn known_address(&self, target: Target) -> Option<&str> {
        let node = match target {
            Target::Node(node) => Some(node),
            _ => self.partition(target).and_then(|partition| self.known_leader(partition)),
        };
        node.and_then(|node| self.addresses.get(&node)).map(String::as_str)
    }

    /// The nodes that will do for what any will do for.
    fn round(&self, target: Target) -> impl Iterator<Item = &String> {
        let except = if let Target::OtherThan(node) = target { Some(node) } else { None };
        self.addresses.iter().filter(move |(node, _)| Some(**node) != except).map(|(_, address)| address)
    }

    /// The address to send to; `attempt` goes round the nodes where any will do.
    fn address(&self, target: Target, attempt: usize) -> &str {
        let any = || {
            let others = self.round(target).count().max(1);
            self.round(target).nth(attempt % others).or_else(|| self.addresses.values().next())
        };
        self.known_address(target)
            .or_else(|| any().map(String::as_str))
            .expect("routes have at least one node")
    }
}

/// The way to all nodes of one cluster.
#[derive(Debug)]
pub(crate) struct Router {
    seeds: Vec<String>,
    routes: Renewable<Routes>,
    /// Where a map may be had: the nodes of the last one, and hints since then.
    known: Mutex<Vec<String>>,
    links: Mutex<HashMap<String, Link>>,
    /// The cluster that the first map was of.
    cluster: OnceLock<ClusterId>,
    /// When the map was fetched last.
    fetched: Mutex<Option<Instant>>,
}

impl Router {
    pub fn new(seeds: Vec<String>) -> Self {
        Self {
            seeds,
            routes: Renewable::new(),
            known: Mutex::default(),
            links: Mutex::default(),
            cluster: OnceLock::new(),
            fetched: Mutex::default(),
        }
    }

    /// The map, fetched from the first node that answers if there is none.
    pub async fn routes(&self, deadline: Deadline) -> Result<Arc<Routes>, Error> {
        self.routes.get(|| self.fetch(deadline)).await
    }

    /// The map was found old.
    pub fn renew(&self, stale: &Arc<Routes>) {
        self.routes.renew(stale);
    }

    /// A node says that another one leads what a target is about. That is believed if `is_first`; the next map is asked for
    /// there first.
    pub fn hint(&self, stale: &Arc<Routes>, target: Target, hint: &LeaderHint, is_first: bool) {
        {
            let mut known = lock(&self.known);
            known.retain(|other| *other != hint.address);
            known.insert(0, hint.address.clone());
        }
        // Other partitions may have moved meanwhile; if this one has, that is the newer word.
        let current = self.routes.peek().filter(|current| current.has_leader_of(stale, target));
        match current.filter(|_| is_first).and_then(|current| Some((current.led_by(target, hint)?, current)))
        {
            Some((routes, current)) => self.routes.replace(&current, routes),
            None => self.renew(stale),
        }
    }

    /// A node does not answer: the next map is asked for there last.
    fn doubt(&self, address: &str) {
        let mut known = lock(&self.known);
        if let Some(at) = known.iter().position(|other| other == address) {
            let silent = known.remove(at);
            known.push(silent);
        }
    }

    /// A node that a map names does not answer: the next map is asked for there last, and of others before who told this one, who
    /// may not have heard that somebody else leads.
    pub fn lost(&self, stale: &Arc<Routes>, address: &str) {
        self.doubt(&stale.told_at);
        self.doubt(address);
        self.renew(stale);
    }

    /// Whether a target is at another address than `from` by a map that is not older than `LEADER_DOUBT_AGAIN`; it is asked of
    /// the other nodes first.
    pub async fn has_moved(&self, target: Target, from: &str, deadline: Deadline) -> bool {
        let is_fresh = lock(&self.fetched).is_some_and(|at| at.elapsed() < defaults::LEADER_DOUBT_AGAIN / 2);
        if let Some(current) = self.routes.peek().filter(|_| !is_fresh) {
            self.lost(&current, from);
        }
        let moved = |now: &Arc<Routes>| now.known_address(target).is_some_and(|address| address != from);
        self.routes(deadline).await.is_ok_and(|now| moved(&now))
    }

    /// The link to the node that a request is for.
    pub fn link(&self, routes: &Routes, target: Target, attempt: usize) -> Link {
        if routes.known_address(target).is_none()
            && let Some(address) = self.any_address(routes, target, attempt)
        {
            return self.link_to(&address);
        }
        self.link_to(routes.address(target, attempt))
    }

    /// Where any node will do: those that answered last first, one after the other.
    fn any_address(&self, routes: &Routes, target: Target, attempt: usize) -> Option<String> {
        let known = lock(&self.known);
        let is_one = |address: &&String| routes.round(target).any(|node| node == *address);
        let named: Vec<_> = known.iter().filter(is_one).collect();
        named.get(attempt % named.len().max(1)).map(|address| (*address).clone())
    }

    /// The link to a node, if the map names it.
    pub fn link_to_node(&self, routes: &Routes, node: NodeId) -> Option<Link> {
        routes.addresses.get(&node).map(|address| self.link_to(address))
    }

    fn link_to(&self, address: &str) -> Link {
        let mut links = lock(&self.links);
        if let Some(link) = links.get(address) {
            return link.clone();
        }
        let link = Link::new(address);
        links.insert(address.to_owned(), link.clone());
        link
    }

    /// Asks one node after the other for the map; the error is that of the last.
    async fn fetch(&self, deadline: Deadline) -> Result<Routes, Error> {
        let next = lock(&self.fetched).map(|last| last + defaults::MAP_INTERVAL);
        if let Some(next) = next {
            sleep_until(next.min(deadline.at())).await;
        }
        let mut addresses = lock(&self.known).clone();
        for seed in &self.seeds {
            if !addresses.contains(seed) {
                addresses.push(seed.clone());
            }
        }
        let mut last = Error::Closed;
        for address in addresses {
            match self.fetch_from(&address, deadline).await {
                Ok(routes) => {
                    self.take_addresses(&routes, &address);
                    return Ok(routes);
                }
                Err(error) => {
                    self.doubt(&address);
                    last = error;
                }
            }
        }
        Err(last)
    }

    /// Knows the nodes of a map from now on, those first that have answered so far.
    fn take_addresses(&self, routes: &Routes, answered: &str) {
        *lock(&self.fetched) = Some(Instant::now());
        let mut known = lock(&self.known);
        known.retain(|address| routes.addresses.values().any(|other| other == address));
        for address in routes.addresses.values() {
            if !known.contains(address) {
                known.push(address.clone());
            }
        }
        if let Some(at) = known.iter().position(|address| address == answered) {
            let first = known.remove(at);
            known.insert(0, first);
        }
    }

    async fn fetch_from(&self, address: &str, deadline: Deadline) -> Result<Routes, Error> {
        let call = Call { deadline_ms: Some(deadline.remaining_ms()), request: Request::GetMap };
        let link = self.link_to(address);
        let wait: Duration = defaults::MAP_TIMEOUT.min(deadline.remaining());
        let silent = || Err(Unanswered::Lost(Loss::Silent));
        let answer = timeout(wait, link.exchange(&call, Claim::new())).await.unwrap_or_else(|_| silent());
        let frame = answer.map_err(|unanswered| not_answered(unanswered, address))?;
        let bad = |field| Error::BadAnswer { address: address.to_owned(), field, may_have_applied: false };
        match frame.decode_reply() {
            Ok(Ok(Response::Map(map))) => {
                let (expected, found) = (*self.cluster.get_or_init(|| map.cluster), map.cluster);
                if found != expected {
                    return Err(Error::OtherCluster { address: address.to_owned(), expected, found });
                }
                Routes::new(map, address).ok_or_else(|| bad(Field::Leaders))
            }
            Ok(Ok(_)) | Err(_) => Err(bad(Field::Body)),
            Ok(Err(status)) => Err(Error::Refused { status, may_have_applied: false }),
        }
    }
}

/// The error of a request that had no effect whatever became of it.
pub(crate) fn not_answered(unanswered: Unanswered, address: &str) -> Error {
    let address = address.to_owned();
    match unanswered {
        Unanswered::NotConnected(source) => Error::Connect { address, source },
        Unanswered::TooLarge { bytes, limit } => Error::RequestTooLarge { bytes, limit },
        Unanswered::Lost(source) => Error::ConnectionLost { address, may_have_applied: false, source },
    }
}

#[cfg(test)]
mod tests {
    use fanfold_protocol::message::NodeAddress;

    use super::*;

    fn map(nodes: &[(u64, &str)], leaders: &[u64]) -> Map {
        Map {
            cluster: ClusterId(1),
            epoch: 1,
            partitions: leaders.len() as u16,
            nodes: nodes
                .iter()
                .map(|(node, address)| NodeAddress { node: NodeId(*node), address: (*address).to_owned() })
                .collect(),
            leaders: leaders.iter().copied().map(NodeId).collect(),
        }
    }

    #[test]
    fn user_is_routed_to_the_leader_of_its_partition() {
        let routes = Routes::new(map(&[(1, "a:1"), (2, "b:1")], &[1, 2]), "a:1").expect("sound");
        for user in (0..100).map(UserId) {
            let expected = if SlotIndex::of(user).0 < 2_048 { "a:1" } else { "b:1" };
            assert_eq!(routes.address(Target::User(user), 0), expected);
        }
        let round: Vec<_> = (0..3).map(|attempt| routes.address(Target::AnyNode, attempt)).collect();
        assert_eq!(round, ["a:1", "b:1", "a:1"]);
        let other = |node, attempt| routes.address(Target::OtherThan(NodeId(node)), attempt);
        assert_eq!([other(1, 0), other(1, 1), other(2, 0)], ["b:1", "b:1", "a:1"]);
    }

    #[test]
    fn single_node_is_reached_where_it_was_asked() {
        let routes = Routes::new(map(&[(1, "0.0.0.0:7117")], &[1]), "10.0.0.9:7117").expect("sound");
        assert_eq!(routes.address(Target::Partition(PartitionId(0)), 0), "10.0.0.9:7117");
        assert_eq!(routes.address(Target::OtherThan(NodeId(1)), 0), "10.0.0.9:7117");
    }

    #[test]
    fn partition_without_a_leader_is_asked_for_at_any_node() {
        let routes = Routes::new(map(&[(1, "a:1"), (2, "b:1")], &[0, 2]), "a:1").expect("sound");
        let (orphan, led) = (PartitionId(0), PartitionId(1));
        let asked = |partition| [0, 1].map(|attempt| routes.address(Target::Partition(partition), attempt));
        assert_eq!(asked(orphan), ["a:1", "b:1"]);
        assert_eq!(asked(led), ["b:1", "b:1"]);
        assert_eq!((routes.leader(orphan), routes.leader(led)), (NodeId(1), NodeId(2)));
        let slot = SlotIndex::of(UserId(1));
        let nobody = Routes::new(map(&[(1, "0.0.0.0:1")], &[0]), "c:1").expect("sound");
        for target in [Target::User(UserId(1)), Target::Slot(slot)] {
            assert_eq!(nobody.address(target, 0), "c:1");
        }
    }

    #[test]
    fn unsound_maps_are_refused() {
        assert!(Routes::new(map(&[], &[1]), "a:1").is_none());
        assert!(Routes::new(map(&[(1, "a:1")], &[2]), "a:1").is_none());
        assert!(Routes::new(map(&[(1, "a:1")], &[1, 1, 1]), "a:1").is_none());
        assert!(Routes::new(Map { partitions: 2, ..map(&[(1, "a:1")], &[1]) }, "a:1").is_none());
    }
}
