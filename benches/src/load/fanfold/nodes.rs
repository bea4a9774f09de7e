//! Owns the processes of the nodes as a measurement needs them: started as one store, looked at together, stopped together.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use fanfold_client::{ClusterChange, ClusterView, GroupHealth, GroupName, NodeId};
use fanfold_protocol::UserId;
use fanfold_protocol::message::{NodeStatus, SpaceChanges};
use fanfold_server::workload::WorkloadError;
use fanfold_server::workload::access::Access;
use fanfold_server::workload::fleet::Fleet;
use fanfold_server::workload::node_process::{NodeProcess, NodeProcessOptions};
use rustix::process::{Pid, Signal, kill_process};
use tokio::runtime::Runtime;

use super::error::FanfoldError;
use super::pump::Routing;
use crate::load::target::{Grown, ServerUse};
use crate::load::usage;

/// How long a call of the control connection is repeated; draining a backlog may take long.
const CONTROL_DEADLINE: Duration = Duration::from_secs(600);
/// How often the replicas are looked at until all have applied what the leaders have.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// How often the groups are looked at until all are where they should be.
const GROUPS_LOOK_EVERY: Duration = Duration::from_millis(200);

/// The nodes of a measurement, and a client for what is not measured.
#[derive(Debug)]
pub(super) struct Nodes {
    runtime: Runtime,
    fleet: Option<Fleet>,
    /// How a node is started.
    options: NodeProcessOptions,
    replicas: usize,
    process_ids: Vec<u32>,
    access: Access,
}

impl Nodes {
    /// Starts nodes that form a store with so many replicas, and gives the space its rules.
    pub(super) fn start(
        options: NodeProcessOptions,
        (nodes, replicas): (u8, u8),
        rules: SpaceChanges,
    ) -> Result<Self, FanfoldError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|source| FanfoldError::Runtime { source })?;
        let fleet = Fleet::start_replicated(options.clone(), usize::from(nodes), usize::from(replicas));
        let fleet = runtime.block_on(fleet)?;
        let process_ids = fleet.nodes().iter().map(NodeProcess::process_id).collect::<Option<_>>();
        let process_ids = process_ids.ok_or(FanfoldError::Closed)?;
        let access = runtime.block_on(async {
            let access = Access::of(fleet.client(CONTROL_DEADLINE).await?).await?;
            access.alter(rules).await?;
            Ok::<_, WorkloadError>(access)
        })?;
        let (fleet, replicas) = (Some(fleet), usize::from(replicas));
        Ok(Self { runtime, fleet, options, replicas, process_ids, access })
    }

    /// Where requests go now.
    pub(super) fn routing(&self) -> Result<Routing, FanfoldError> {
        let nodes = self.fleet.as_ref().ok_or(FanfoldError::Closed)?.nodes();
        let addresses: Vec<_> = nodes.iter().map(NodeProcess::address).collect();
        let (map, space) = self.runtime.block_on(async {
            let map = self.access.client.map().await.map_err(|source| WorkloadError::Prepare { source })?;
            Ok::<_, WorkloadError>((map, self.access.definition().await?))
        })?;
        let leader = |leader| {
            let node = map.nodes.iter().find(|node| node.node == leader)?;
            addresses.iter().position(|address| address.to_string() == node.address)
        };
        // Who is not known yet is told by whoever is asked.
        let leaders = map.leaders.iter().map(|node| leader(*node).unwrap_or_default()).collect();
        Ok(Routing {
            leaders,
            partitions: map.partitions,
            epoch: map.epoch,
            space: fanfold_protocol::SpaceId(space.id.0),
            graph: fanfold_protocol::GraphId(space.graph.0),
            addresses,
        })
    }

    /// Starts one more node, tells where it listens when it has joined, and has the replicas balanced; returns when every
    /// partition has all its replicas and its preferred leader.
    pub(super) fn grow(
        &mut self,
        joined: &dyn Fn(SocketAddr) -> Result<(), FanfoldError>,
    ) -> Result<Grown, FanfoldError> {
        let Self { runtime, fleet, options, access, replicas, process_ids } = self;
        let fleet = fleet.as_mut().ok_or(FanfoldError::Closed)?;
        let begun = Instant::now();
        runtime.block_on(fleet.add(options.clone()))?;
        let join_seconds = begun.elapsed().as_secs_f64();
        let newcomer = fleet.nodes().last().ok_or(FanfoldError::Closed)?;
        let process = newcomer.process_id().ok_or(FanfoldError::Closed)?;
        process_ids.push(process);
        joined(newcomer.address())?;
        let address = newcomer.address().to_string();
        let begun = Instant::now();
        let (replicas, leads) = runtime.block_on(async {
            let failed = |source| WorkloadError::Prepare { source };
            let changed =
                access.client.change_cluster(ClusterChange::Balance, false).await.map_err(failed)?;
            loop {
                let view = access.client.cluster().await.map_err(failed)?;
                if view.epoch >= changed.epoch
                    && let Some(share) = share(&view, &address, *replicas)
                {
                    return Ok::<_, WorkloadError>(share);
                }
                if begun.elapsed() > CONTROL_DEADLINE {
                    return Err(WorkloadError::NotWhole {
                        waited: CONTROL_DEADLINE,
                        seen: format!("{view:?}"),
                    });
                }
                tokio::time::sleep(GROUPS_LOOK_EVERY).await;
            }
        })?;
        let move_seconds = begun.elapsed().as_secs_f64();
        let used = usage::of_process(process).map_err(|source| FanfoldError::Process { source })?;
        Ok(Grown { join_seconds, move_seconds, replicas, leads, written_bytes: used.written_bytes })
    }

    /// Where the first node listens, and its process.
    pub(super) fn first(&self) -> Result<(SocketAddr, u32), FanfoldError> {
        let node = self.fleet.as_ref().and_then(|fleet| fleet.nodes().first()).ok_or(FanfoldError::Closed)?;
        Ok((node.address(), self.process_ids[0]))
    }

    /// What the processes used so far, in sum.
    pub(super) fn used(&self) -> Result<ServerUse, FanfoldError> {
        let mut sum = ServerUse::default();
        for process in &self.process_ids {
            let used = usage::of_process(*process).map_err(|source| FanfoldError::Process { source })?;
            sum.cpu_seconds += used.cpu_seconds;
            sum.resident_bytes += used.resident_bytes;
            sum.written_bytes += used.written_bytes;
            // One disk for all.
            sum.disk_written_bytes = used.disk_written_bytes;
        }
        Ok(sum)
    }

    /// Waits until everything acknowledged has reached every feed, on every replica.
    pub(super) fn drain(&self) -> Result<(), FanfoldError> {
        self.runtime.block_on(self.access.wait_drained())?;
        let before = replicas(&self.statuses()?);
        while !covers(&replicas(&self.statuses()?), &before) {
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// What every node says of itself.
    pub(super) fn statuses(&self) -> Result<Vec<NodeStatus>, FanfoldError> {
        let statuses = self.runtime.block_on(async { self.access.client.status().await });
        Ok(statuses.map_err(|source| WorkloadError::Drain { source })?)
    }

    /// Whom a user follows, ascending.
    pub(super) fn followees(&self, reader: UserId) -> Result<Vec<UserId>, FanfoldError> {
        let failed = |source| WorkloadError::Prepare { source };
        let followees = self.runtime.block_on(async {
            let mut scan = self.access.graph.followees(reader);
            let mut all = Vec::new();
            loop {
                let page = scan.clone().await.map_err(failed)?;
                all.extend(page.users.iter().map(|edge| edge.user));
                match page.next {
                    Some(next) => scan = scan.cursor(next),
                    None => return Ok::<_, WorkloadError>(all),
                }
            }
        })?;
        Ok(followees)
    }

    /// Sends all processes a signal.
    pub(super) fn signal(&self, signal: Signal) -> Result<(), FanfoldError> {
        for process in &self.process_ids {
            let process = Pid::from_raw(*process as i32).ok_or(FanfoldError::Closed)?;
            kill_process(process, signal)
                .map_err(|source| FanfoldError::Process { source: source.into() })?;
        }
        Ok(())
    }

    /// Ends them and removes their files.
    pub(super) fn stop(&mut self) -> Result<(), FanfoldError> {
        match self.fleet.take() {
            Some(fleet) => Ok(self.runtime.block_on(fleet.end())?),
            None => Ok(()),
        }
    }
}

/// How many replicas of partitions the node at an address has, and how many of them lead; none as long as it has none or
/// anything is still on its way.
fn share(view: &ClusterView, address: &str, replicas: usize) -> Option<(u64, u64)> {
    let node: NodeId = view.nodes.iter().rfind(|node| node.address == address)?.node;
    let is_done = view.groups.iter().all(|group| {
        let has_all = group.group == GroupName::Catalog || group.replicas.len() == replicas;
        group.health == GroupHealth::Whole && has_all && group.leader == group.preferred
    });
    let partitions = view.groups.iter().filter(|group| group.group != GroupName::Catalog);
    let held = partitions.filter(|group| group.replicas.iter().any(|replica| replica.node == node));
    let (held, led) =
        held.fold((0, 0), |(held, led), group| (held + 1, led + u64::from(group.leader == Some(node))));
    (is_done && held > 0).then_some((held, led))
}

/// A replica of a partition: the partition, whether it leads, and the index it has applied.
type Replica = (u16, bool, u64);

fn replicas(statuses: &[NodeStatus]) -> Vec<Replica> {
    let all = statuses.iter().flat_map(|status| &status.partitions);
    all.map(|replica| (replica.partition.0, replica.is_leader, replica.applied)).collect()
}

/// Whether every replica has applied what the leaders had when they were looked at.
fn covers(replicas: &[Replica], before: &[Replica]) -> bool {
    before.iter().filter(|(_, is_leader, _)| *is_leader).all(|(partition, _, index)| {
        let of = replicas.iter().filter(|(other, _, _)| other == partition);
        of.map(|(_, _, applied)| applied).min().is_some_and(|applied| applied >= index)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_that_lags_is_waited_for() {
        let before = [(0, true, 9), (0, false, 3), (1, false, 9), (1, true, 4)];
        assert!(!covers(&[(0, true, 9), (0, false, 8), (1, false, 4), (1, true, 4)], &before));
        assert!(covers(&[(0, true, 12), (0, false, 9), (1, false, 5), (1, true, 4)], &before));
        assert!(!covers(&[(0, true, 12)], &before), "who says nothing has nothing");
    }
}
