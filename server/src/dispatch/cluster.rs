//! Owns the requests about the cluster: its view, changes of it, what is hot.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use fanfold_cluster::ClusterChange;
use fanfold_protocol::message::{
    self as wire, ChangeCluster, GetHot, Hot, HotBy, HotList, PAUSED_MAX, PauseFanOut, Response,
};
use fanfold_protocol::{Field, NodeId, PartitionId, Reply, Status};

use super::status as failure;
use crate::hot::Counted;
use crate::listener::Shared;
use crate::translate;

pub(super) fn view(shared: &Shared) -> Response {
    Response::Cluster(translate::cluster_view(shared.node.view()))
}

pub(super) async fn change(shared: &Arc<Shared>, ask: ChangeCluster) -> Reply {
    let node = &shared.node;
    let failed = |error| failure(shared, error, !ask.dry_run);
    let change = match ask.change {
        wire::ClusterChange::TransferLeader { group, to } => {
            return transfer(shared, group, to, ask.dry_run).await;
        }
        wire::ClusterChange::Settings { replicas, repair_after_ms } => {
            let replicas = replicas.map(u8::try_from).transpose();
            let replicas = replicas.map_err(|_| Status::Malformed { field: Field::Replicas })?;
            ClusterChange::Settings { replicas, repair_after_ms }
        }
        wire::ClusterChange::Drain { node } => ClusterChange::Drain { node: node.0 },
        wire::ClusterChange::Undrain { node } => ClusterChange::Undrain { node: node.0 },
        wire::ClusterChange::Remove { node } => ClusterChange::Remove { node: node.0 },
        wire::ClusterChange::Replace { node, by } => ClusterChange::Replace { node: node.0, by: by.0 },
        wire::ClusterChange::Move { group, from, to } => {
            ClusterChange::Move { partition: translate::group(group), from: from.0, to: to.0 }
        }
        wire::ClusterChange::Balance => ClusterChange::Balance,
        wire::ClusterChange::Upgrade { to } => ClusterChange::Upgrade { to },
        wire::ClusterChange::BeginEmpty { group, to } => {
            let partition = translate::group(group).ok_or_else(no_recovery_of_the_catalog)?;
            ClusterChange::BeginEmpty { partition, to: to.0 }
        }
        wire::ClusterChange::Recover { group, from } => {
            let partition = translate::group(group).ok_or_else(no_recovery_of_the_catalog)?;
            ClusterChange::Recover { partition, from: from.0 }
        }
    };
    let changed = node.change_cluster(change, ask.dry_run).await.map_err(failed)?;
    Ok(Response::ClusterChanged(translate::cluster_changed(changed)))
}

/// The catalog says who recovers what, so it cannot say so of itself.
fn no_recovery_of_the_catalog() -> Status {
    let said = "the catalog goes on by a command at a stopped node: start the nodes that have its replicas or, if they \
                are gone for good, see `fanfold cluster recover --help`";
    Status::ChangeRefused { refusal: wire::ChangeRefusal::Majority, said: said.to_owned() }
}

async fn transfer(shared: &Arc<Shared>, group: wire::GroupName, to: NodeId, dry_run: bool) -> Reply {
    let steps = vec![wire::ChangeStep::MoveLeader { group, to }];
    let moved = shared.node.transfer_leader(translate::group(group), to.0, dry_run).await;
    moved.map_err(|error| failure(shared, error, !dry_run))?;
    let epoch = shared.node.view().epoch;
    Ok(Response::ClusterChanged(wire::ClusterChanged { epoch, steps, losses: Vec::new() }))
}

/// A founding comes too late: this node is in a cluster.
pub(super) fn init() -> Reply {
    let said = "this node is in a cluster already; `fanfold cluster status` shows it";
    Err(Status::ChangeRefused { refusal: wire::ChangeRefusal::Founded, said: said.to_owned() })
}

/// What is hot here. By fan-out, the appends of each owner times the followers that they have now.
pub(super) async fn hot(shared: &Arc<Shared>, get: GetHot) -> Reply {
    let mut counted = shared.hot.counted(get.by);
    if get.by == HotBy::FanOut {
        reached(shared, &mut counted).await;
    }
    counted.users.truncate(get.limit as usize);
    let over_ms = u64::try_from(counted.over.as_millis()).unwrap_or(u64::MAX);
    Ok(Response::Hot(HotList { over_ms, partitions: counted.partitions, users: counted.users }))
}

/// Owners that are asked for their followers: those who append most.
const OWNERS_ASKED_MAX: usize = 128;

/// Turns appends into deliveries.
async fn reached(shared: &Arc<Shared>, counted: &mut Counted) {
    let graphs = shared.node.graphs();
    counted.users.truncate(OWNERS_ASKED_MAX);
    let mut partitions: BTreeMap<PartitionId, u64> = BTreeMap::new();
    for hot in &mut counted.users {
        let mut followers = 0;
        for (graph, _) in &graphs {
            let counts = shared.node.counts(*graph, translate::user(hot.of)).await;
            followers += counts.map_or(0, |counts| counts.followers);
        }
        hot.count = hot.count.saturating_mul(followers);
        hot.error = hot.error.saturating_mul(followers);
        *partitions.entry(PartitionId::of_user(hot.of, shared.node.partitions())).or_default() += hot.count;
    }
    counted.users.retain(|hot| hot.count > 0);
    counted.users.sort_unstable_by_key(|hot| (Reverse(hot.count), hot.of));
    let partitions = partitions.into_iter().filter(|(_, count)| *count > 0);
    counted.partitions = partitions.map(|(of, count)| Hot { of, count, error: 0 }).collect();
    counted.partitions.sort_unstable_by_key(|hot| (Reverse(hot.count), hot.of));
}

pub(super) async fn pause(shared: &Arc<Shared>, pause: PauseFanOut) -> Reply {
    let done = shared.node.pause_fan_out(translate::user(pause.owner), pause.paused).await;
    done.map(|()| Response::Done).map_err(|error| failure(shared, error, true))
}

pub(super) fn paused(shared: &Shared) -> Reply {
    let paused = shared.node.paused().map_err(|error| failure(shared, error, false))?;
    let mut owners: Vec<_> = paused.into_iter().map(translate::user_to_wire).collect();
    owners.sort_unstable();
    owners.truncate(PAUSED_MAX);
    Ok(Response::Paused(owners))
}
