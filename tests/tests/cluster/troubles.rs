//! Owns what machines, networks and operators do to the nodes of a cluster.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fanfold_client::{Client, ClusterChange, ClusterView, GroupName, NodeId, NodeState};
use fanfold_server::workload::fleet::{Fleet, Spot};
use fanfold_server::workload::node_process::{NodeProcess, NodeProcessError, NodeProcessOptions};
use futures_util::FutureExt;
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use crate::network::{End, Network, Way};
use crate::replicas::Left;

/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Replicas of every partition.
pub const REPLICAS: usize = 3;

/// Something that happens to a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// One after the other is stopped cleanly and started again.
    RollingRestart,
    /// One is held where it is, for longer than others wait for it.
    Suspend,
    /// One ends with SIGKILL, and comes back at once or after a while.
    Kill,
    /// Ways between nodes are cut for a while.
    Cut,
    /// One more joins, and replicas move to it.
    AddAndBalance,
    /// One is drained and removed.
    DrainAndRemove,
    /// The disk of one is lost, and another one takes its place.
    WipeAndReplace,
    /// Each partition's first replica moves to a node that has none.
    MoveAll,
    /// The same, and one is killed meanwhile.
    MoveAllAndKill,
}

/// A cluster in trouble.
pub struct Ordeal {
    pub fleet: Fleet,
    pub network: Box<dyn Network>,
    pub client: Client,
    /// Where the nodes are, in the order of the fleet.
    spots: Vec<Spot>,
    options: NodeProcessOptions,
    rng: ChaCha8Rng,
    tally: Tally,
}

/// What happened, counted.
#[derive(Debug, Default, Clone)]
pub struct Tally {
    pub troubles: BTreeMap<Trouble, usize>,
    pub cuts_both_ways: usize,
    pub cuts_one_way: usize,
    /// Of the nodes that were killed or held, those that led most.
    pub leaders: usize,
}

impl Ordeal {
    /// Starts a cluster on a network.
    pub async fn begin(
        mut network: Box<dyn Network>,
        founding: &NodeProcessOptions,
        joining: NodeProcessOptions,
        rng: ChaCha8Rng,
    ) -> Self {
        let spots = network.spots(founding, REPLICAS);
        let fleet = Fleet::form(spots.clone(), REPLICAS).await.unwrap();
        let client = fleet.client(PATIENCE).await.unwrap();
        Self { fleet, network, client, spots, options: joining, rng, tally: Tally::default() }
    }

    /// What has happened so far.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Waits until everybody is well and everything where it should be.
    pub async fn whole(&self) {
        self.fleet.whole(REPLICAS, PATIENCE).await.unwrap();
    }

    /// Ends all nodes cleanly.
    pub async fn end(mut self) -> (Vec<Left>, Vec<NodeProcess>, Box<dyn Network>) {
        self.all_run("the end");
        for at in 0..self.fleet.nodes().len() {
            self.fleet.node_mut(at).terminate().await.unwrap();
        }
        self.network.bring_home();
        let mut ended = Vec::new();
        while !self.fleet.nodes().is_empty() {
            let node = self.fleet.remove(0);
            nothing_panicked(&node);
            ended.push(node);
        }
        let left = ended.iter().zip(self.spots);
        let left = left.map(|(node, spot)| Left { spot, data_dir: node.data_dir() }).collect();
        (left, ended, self.network)
    }

    /// Makes it happen, and waits until it is over; not until all is well again, if it is nothing that people do.
    pub async fn make(&mut self, trouble: Trouble) {
        // Else a kill could hide that its victim had ended before.
        self.all_run(&format!("{trouble:?}"));
        *self.tally.troubles.entry(trouble).or_default() += 1;
        match trouble {
            Trouble::RollingRestart => self.restart_all().await,
            Trouble::Suspend => {
                let at = self.any_or_leader().await;
                self.fleet.node_mut(at).suspend().unwrap();
                let held = self.rng.random_range(4_000..9_000);
                tokio::time::sleep(Duration::from_millis(held)).await;
                self.fleet.node_mut(at).resume().unwrap();
            }
            Trouble::Kill => self.kill().await,
            Trouble::Cut => self.cut().await,
            Trouble::AddAndBalance => {
                self.add().await;
                self.change(ClusterChange::Balance).await;
                let node = self.id_of(self.fleet.nodes().len() - 1).await;
                self.until("replicas on the new node", |view| replicas_on(view, node) > 0).await;
                self.whole().await;
            }
            Trouble::DrainAndRemove => {
                self.whole().await;
                let at = self.rng.random_range(0..self.spots.len());
                let node = self.id_of(at).await;
                self.change(ClusterChange::Drain { node: NodeId(node) }).await;
                self.until("the drain", |view| replicas_on(view, node) == 0).await;
                self.whole().await;
                self.change(ClusterChange::Remove { node: NodeId(node) }).await;
                let removed = self.remove(at);
                nothing_panicked(&removed);
                removed.end().await.unwrap();
                self.whole().await;
            }
            Trouble::WipeAndReplace => self.replace().await,
            Trouble::MoveAll => {
                self.begin_moves().await;
                self.whole().await;
            }
            Trouble::MoveAllAndKill => {
                self.begin_moves().await;
                let moved = Duration::from_millis(self.rng.random_range(0..3_000));
                tokio::time::sleep(moved).await;
                self.kill().await;
                self.whole().await;
            }
        }
    }

    /// No node has ended by itself.
    fn all_run(&mut self, before: &str) {
        if let Some(error) = self.fleet.watch().now_or_never() {
            panic!("before {before}: {error}");
        }
    }

    async fn kill(&mut self) {
        let at = self.any_or_leader().await;
        self.fleet.node_mut(at).kill().await.unwrap();
        let away = if self.rng.random() { 0 } else { self.rng.random_range(0..6_000) };
        tokio::time::sleep(Duration::from_millis(away)).await;
        self.fleet.node_mut(at).restart().await.unwrap();
    }

    async fn restart_all(&mut self) {
        for at in 0..self.fleet.nodes().len() {
            self.whole().await;
            self.fleet.node_mut(at).terminate().await.unwrap();
            self.fleet.node_mut(at).restart().await.unwrap();
        }
        self.whole().await;
    }

    /// Cuts both ways or one, between two nodes or around one, for a while.
    async fn cut(&mut self) {
        let mut ends = Vec::new();
        for at in 0..self.spots.len() {
            ends.push(End { node: self.id_of(at).await, ip: self.spots[at].client.ip() });
        }
        let one = *ends.choose(&mut self.rng).unwrap();
        let mut others: Vec<End> = ends.into_iter().filter(|end| *end != one).collect();
        if self.rng.random() {
            others = vec![*others.choose(&mut self.rng).unwrap()];
        }
        let (from, to): (Vec<Way>, Vec<Way>) =
            others.iter().map(|other| ((one, *other), (*other, one))).unzip();
        // Dealt, not drawn, so that none of them is left out.
        let is_both_ways = self.tally.cuts_both_ways <= self.tally.cuts_one_way;
        let ways = match (is_both_ways, self.tally.cuts_one_way.is_multiple_of(2)) {
            (true, _) => [from, to].concat(),
            (false, true) => from,
            (false, false) => to,
        };
        *(if is_both_ways { &mut self.tally.cuts_both_ways } else { &mut self.tally.cuts_one_way }) += 1;
        let named: Vec<_> = ways.iter().map(|(from, to)| (from.node, to.node)).collect();
        println!("  cut: {named:?}");
        self.network.cut(&ways);
        tokio::time::sleep(Duration::from_millis(self.rng.random_range(4_000..10_000))).await;
        self.network.heal(self.rng.random());
    }

    async fn replace(&mut self) {
        self.whole().await;
        let at = self.rng.random_range(0..self.spots.len());
        let node = self.id_of(at).await;
        let mut lost = self.remove(at);
        nothing_panicked(&lost);
        lost.kill().await.unwrap();
        std::fs::remove_dir_all(lost.data_dir()).unwrap();
        // With an empty directory it is not what it was.
        match lost.restart().await {
            Err(NodeProcessError::NotReady { log_tail, .. }) if log_tail.contains("node replace") => {}
            other => panic!("the wiped node {node} was not refused with what to do: {other:?}"),
        }
        self.add().await;
        let by = self.id_of(self.spots.len() - 1).await;
        self.until("silence", |view| view.nodes.iter().any(|n| n.node.0 == node && !n.is_alive)).await;
        self.change(ClusterChange::Replace { node: NodeId(node), by: NodeId(by) }).await;
        self.until("the replacement", |view| replicas_on(view, node) == 0).await;
        self.whole().await;
    }

    async fn begin_moves(&mut self) {
        self.whole().await;
        let view = self.client.cluster().await.unwrap();
        for group in view.groups.iter().filter(|group| group.group != GroupName::Catalog) {
            let is_free = |node: NodeId| group.replicas.iter().all(|replica| replica.node != node);
            let to = view.nodes.iter().find(|node| node.state == NodeState::Active && is_free(node.node));
            let to = to.expect("there are more nodes than replicas").node;
            let from = group.preferred.unwrap();
            self.change(ClusterChange::Move { group: group.group, from, to }).await;
        }
    }

    async fn add(&mut self) {
        let spot = self.network.spots(&self.options, 1).remove(0);
        self.fleet.join(spot.clone()).await.unwrap();
        self.spots.push(spot);
    }

    fn remove(&mut self, at: usize) -> NodeProcess {
        self.spots.remove(at);
        self.fleet.remove(at)
    }

    async fn any_or_leader(&mut self) -> usize {
        let leader = self.fleet.leader().await;
        let at = if self.rng.random() { leader } else { self.rng.random_range(0..self.spots.len()) };
        self.tally.leaders += usize::from(at == leader);
        at
    }

    async fn change(&self, change: ClusterChange) {
        self.client
            .change_cluster(change.clone(), false)
            .await
            .unwrap_or_else(|error| panic!("{change:?}: {error}"));
    }

    /// The id of the node that is there, as the cluster knows it.
    async fn id_of(&self, at: usize) -> u64 {
        let address = self.fleet.addresses().swap_remove(at);
        let view = self.client.cluster().await.unwrap();
        view.nodes.iter().rfind(|node| node.address == address).unwrap().node.0
    }

    /// Waits until the cluster is as it should be.
    async fn until(&self, what: &str, is_so: impl Fn(&ClusterView) -> bool) {
        let begun = Instant::now();
        loop {
            let seen = self.client.cluster().await;
            if seen.as_ref().is_ok_and(&is_so) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{what} did not come: {seen:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// A task that panics does not always end its process.
fn nothing_panicked(node: &NodeProcess) {
    let log = std::fs::read(node.log_file()).unwrap();
    let log = String::from_utf8_lossy(&log);
    let found: Vec<_> = log.lines().filter(|line| line.contains("panicked at")).collect();
    assert!(found.is_empty(), "the node at {} panicked: {found:?}", node.address());
}

fn replicas_on(view: &ClusterView, node: u64) -> usize {
    view.groups.iter().flat_map(|group| &group.replicas).filter(|replica| replica.node.0 == node).count()
}
