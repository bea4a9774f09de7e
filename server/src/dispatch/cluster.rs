//! Owns the requests about the cluster: its view, changes of it, what is hot.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fanfold_cluster::ClusterChange;
use fanfold_protocol::message::{
    self as wire, ChangeCluster, GetHot, Hot, HotBy, HotList, PAUSED_MAX, PauseFanOut, Response,
};
use fanfold_protocol::{Field, NodeId, Reply, Status, UserId};
use fanfold_storage::partition::Deliveries;

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

/// What is hot here.
pub(super) fn hot(shared: &Shared, get: GetHot) -> Response {
    let mut counted = match get.by {
        HotBy::Reads => shared.hot.reads(),
        HotBy::Writes => shared.hot.writes(),
        HotBy::FanOut => delivered(shared),
    };
    counted.users.truncate(get.limit as usize);
    let over_ms = u64::try_from(counted.over.as_millis()).unwrap_or(u64::MAX);
    Response::Hot(HotList { over_ms, partitions: counted.partitions, users: counted.users })
}

/// What was delivered in the partitions that are led here, and whose entries that were.
fn delivered(shared: &Shared) -> Counted {
    let delivered = shared.node.deliveries();
    let (mut users, mut partitions) = (BTreeMap::<UserId, Hot<UserId>>::new(), Vec::new());
    for (partition, Deliveries { total, owners, .. }) in &delivered {
        for by in owners {
            let of = translate::user_to_wire(by.owner);
            let sum = users.entry(of).or_insert(Hot { of, count: 0, error: 0 });
            (sum.count, sum.error) = (sum.count + by.count, sum.error + by.error);
        }
        if *total > 0 {
            partitions.push(Hot { of: translate::partition_id_to_wire(*partition), count: *total, error: 0 });
        }
    }
    let mut users: Vec<_> = users.into_values().collect();
    users.sort_unstable_by_key(|hot| (Reverse(hot.count), hot.of));
    partitions.sort_unstable_by_key(|hot| (Reverse(hot.count), hot.of));
    let over_ms = delivered.iter().map(|(_, delivered)| delivered.over_ms).max().unwrap_or_default();
    Counted { over: Duration::from_millis(over_ms), users, partitions }
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
