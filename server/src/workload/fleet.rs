//! Owns the nodes that a workload runs against, each in a process of its own: one, or a cluster of several.
//!
//! - The nodes of a cluster form it themselves, by the list that each is given.
//! - Who is killed is whoever leads most partitions at that moment: that costs the most.
//! - Nothing is guessed from time: a cluster is ready when every partition has all its replicas.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use fanfold_client::{Client, ClientBuilder, GroupHealth, GroupName};
use futures_util::future::{select_all, try_join_all};

use super::error::WorkloadError;
use super::node_process::{NodeProcess, NodeProcessError, NodeProcessOptions, free_addresses};

/// How often the cluster is looked at while it forms.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long one look may take.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);

/// The nodes of a workload, at least one.
#[derive(Debug)]
pub struct Fleet {
    nodes: Vec<NodeProcess>,
}

/// Where a node of a cluster runs.
#[derive(Debug, Clone)]
pub struct Spot {
    /// How.
    pub options: NodeProcessOptions,
    /// Where clients reach it.
    pub client: SocketAddr,
    /// Where it listens for other nodes.
    pub peer: SocketAddr,
    /// Where it tells them to find it, if that is another address.
    pub told: Option<SocketAddr>,
}

impl Spot {
    /// Spots on free ports of this machine.
    pub fn free(options: &NodeProcessOptions, count: usize) -> Result<Vec<Self>, NodeProcessError> {
        let addresses = free_addresses(2 * count)?;
        let (clients, peers) = addresses.split_at(count);
        let spots = clients.iter().zip(peers);
        Ok(spots
            .map(|(client, peer)| Self { options: options.clone(), client: *client, peer: *peer, told: None })
            .collect())
    }

    async fn start<const N: usize>(mut self, more: [&str; N]) -> Result<NodeProcess, NodeProcessError> {
        let listen = ["--peer-listen".to_owned(), self.peer.to_string()];
        let told = self.told.map(|told| ["--peer-advertise".to_owned(), told.to_string()]);
        let all = listen.into_iter().chain(told.into_iter().flatten());
        let all = all.chain(more.map(str::to_owned)).map(OsString::from);
        self.options.start_arguments.extend(all);
        NodeProcess::start_at(self.options, self.client).await
    }
}

impl From<NodeProcess> for Fleet {
    fn from(node: NodeProcess) -> Self {
        Self { nodes: vec![node] }
    }
}

impl Fleet {
    /// Starts nodes that form a cluster with a replica of everything on each (of an even number: on all but one), and waits until it stands.
    pub async fn start(options: NodeProcessOptions, nodes: usize) -> Result<Self, WorkloadError> {
        let replicas = if nodes.is_multiple_of(2) { nodes.saturating_sub(1) } else { nodes };
        Self::start_replicated(options, nodes, replicas).await
    }

    /// The same with so many replicas of everything: an odd number, at most as many as there are nodes.
    pub async fn start_replicated(
        options: NodeProcessOptions,
        nodes: usize,
        replicas: usize,
    ) -> Result<Self, WorkloadError> {
        if nodes <= 1 {
            return Ok(NodeProcess::start(options).await?.into());
        }
        Self::form(Spot::free(&options, nodes)?, replicas).await
    }

    /// Starts nodes at these spots, that form a cluster with so many replicas of everything, and waits until it stands.
    pub async fn form(spots: Vec<Spot>, replicas: usize) -> Result<Self, WorkloadError> {
        let list: Vec<String> = spots.iter().map(|spot| spot.client.to_string()).collect();
        let ready_timeout = spots.iter().map(|spot| spot.options.ready_timeout).max().unwrap_or_default();
        let (list, replicas_named) = (list.join(","), replicas.to_string());
        let starts =
            spots.into_iter().map(|spot| spot.start(["--form", &list, "--replicas", &replicas_named]));
        let fleet = Self { nodes: try_join_all(starts).await? };
        fleet.whole(replicas, ready_timeout).await?;
        Ok(fleet)
    }

    /// The nodes.
    pub fn nodes(&self) -> &[NodeProcess] {
        &self.nodes
    }

    /// One of the nodes.
    pub fn node_mut(&mut self, at: usize) -> &mut NodeProcess {
        &mut self.nodes[at]
    }

    /// Starts one more node, which joins the others.
    pub async fn add(&mut self, options: NodeProcessOptions) -> Result<(), WorkloadError> {
        let spot = Spot::free(&options, 1)?.remove(0);
        self.join(spot).await
    }

    /// The same at this spot.
    pub async fn join(&mut self, spot: Spot) -> Result<(), WorkloadError> {
        let join = self.addresses().join(",");
        self.nodes.push(spot.start(["--join", &join]).await?);
        Ok(())
    }

    /// Gives up a node of these; its process is not ended.
    pub fn remove(&mut self, at: usize) -> NodeProcess {
        self.nodes.remove(at)
    }

    /// Where clients reach the nodes.
    pub fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.address().to_string()).collect()
    }

    /// A client that learns of the cluster from any of the nodes.
    pub async fn client(&self, deadline: Duration) -> Result<Client, WorkloadError> {
        let mut addresses = self.addresses().into_iter();
        let first = addresses.next().unwrap_or_default();
        let builder = addresses.fold(Client::builder(first), ClientBuilder::or);
        let connected = builder.deadline(deadline).connect().await;
        connected.map_err(|source| WorkloadError::Prepare { source })
    }

    /// Waits until every partition has so many voters, every group those that it should have and a leader, and everybody is
    /// alive. (The catalog has as many as there are nodes for.)
    pub async fn whole(&self, replicas: usize, within: Duration) -> Result<(), WorkloadError> {
        let begun = Instant::now();
        let client = self.client(within).await?;
        loop {
            let seen = client.cluster().deadline(LOOK_TIMEOUT).await;
            let is_whole = seen.as_ref().is_ok_and(|view| {
                !view.groups.is_empty()
                    && view.groups.iter().all(|group| {
                        let has_all = group.group == GroupName::Catalog || group.replicas.len() == replicas;
                        group.health == GroupHealth::Whole && has_all
                    })
            });
            if is_whole {
                return Ok(());
            }
            if begun.elapsed() >= within {
                let seen = seen.map_or_else(|error| error.to_string(), |view| format!("{view:?}"));
                return Err(WorkloadError::NotWhole { waited: within, seen });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The node that leads most partitions; the first one if nobody says.
    pub async fn leader(&self) -> usize {
        if self.nodes.len() == 1 {
            return 0;
        }
        let Ok(client) = self.client(LOOK_TIMEOUT).await else { return 0 };
        let Ok(map) = client.map().await else { return 0 };
        let led = |at: &usize| {
            let address = self.nodes[*at].address().to_string();
            let node = map.nodes.iter().find(|node| node.address == address);
            node.map_or(0, |node| map.leaders.iter().filter(|leader| **leader == node.node).count())
        };
        (0..self.nodes.len()).max_by_key(led).unwrap_or_default()
    }

    /// Waits for ever, unless a node ends by itself: then how.
    pub async fn watch(&mut self) -> NodeProcessError {
        let watches = self.nodes.iter_mut().map(|node| Box::pin(node.watch()));
        select_all(watches).await.0
    }

    /// Ends the node that leads most with SIGKILL, and starts it again with the same data on the same port.
    ///
    /// Answers how long the start took, from the new process to its readiness.
    pub async fn kill_and_restart(&mut self) -> Result<Duration, NodeProcessError> {
        let victim = self.leader().await;
        self.nodes[victim].kill_and_restart().await
    }

    /// Main memory that the processes hold now, in sum, if the system tells.
    pub fn memory_bytes(&self) -> Option<u64> {
        self.nodes.iter().map(NodeProcess::memory_bytes).sum()
    }

    /// Ends all nodes with SIGKILL and reaps them.
    pub async fn end(self) -> Result<(), NodeProcessError> {
        for node in self.nodes {
            node.end().await?;
        }
        Ok(())
    }
}
