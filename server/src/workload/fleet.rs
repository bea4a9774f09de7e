//! Owns the nodes that a workload runs against, each in a process of its own: one, or a cluster of several.
//!
//! - The nodes of a cluster form it themselves, by the list that each is given.
//! - Who is killed is whoever leads most partitions at that moment: that costs the most.
//! - Nothing is guessed from time: a cluster is ready when every partition has all its replicas.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use fanfold_client::{Client, ClientBuilder, GroupHealth};
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

impl From<NodeProcess> for Fleet {
    fn from(node: NodeProcess) -> Self {
        Self { nodes: vec![node] }
    }
}

impl Fleet {
    /// Starts nodes that form a cluster with a replica of everything on each (of an even number: on all but one), and waits until it stands.
    pub async fn start(options: NodeProcessOptions, nodes: usize) -> Result<Self, WorkloadError> {
        if nodes <= 1 {
            return Ok(NodeProcess::start(options).await?.into());
        }
        let addresses = free_addresses(2 * nodes)?;
        let (clients, peers) = addresses.split_at(nodes);
        let list: Vec<String> = clients.iter().map(SocketAddr::to_string).collect();
        let replicas = if nodes.is_multiple_of(2) { nodes - 1 } else { nodes };
        let starts = clients.iter().zip(peers).map(|(client, peer)| {
            let mut options = options.clone();
            let replicas = replicas.to_string();
            let more =
                ["--form", &list.join(","), "--peer-listen", &peer.to_string(), "--replicas", &replicas];
            options.start_arguments.extend(more.map(OsString::from));
            NodeProcess::start_at(options, *client)
        });
        let ready_timeout = options.ready_timeout;
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
    pub async fn add(&mut self, mut options: NodeProcessOptions) -> Result<(), WorkloadError> {
        let addresses = free_addresses(2)?;
        let join = self.addresses().join(",");
        let more = ["--join", &join, "--peer-listen", &addresses[1].to_string()];
        options.start_arguments.extend(more.map(OsString::from));
        self.nodes.push(NodeProcess::start_at(options, addresses[0]).await?);
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

    /// Waits until every group has so many voters and a leader, and everybody is alive.
    pub async fn whole(&self, replicas: usize, within: Duration) -> Result<(), WorkloadError> {
        let begun = Instant::now();
        let client = self.client(within).await?;
        loop {
            let seen = client.cluster().deadline(LOOK_TIMEOUT).await;
            let is_whole = seen.as_ref().is_ok_and(|view| {
                !view.groups.is_empty()
                    && view
                        .groups
                        .iter()
                        .all(|group| group.health == GroupHealth::Whole && group.replicas.len() == replicas)
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
