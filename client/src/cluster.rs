//! Owns the calls about the cluster: its view, changes of it, what is hot, owners whose fan-out is paused, founding.
//!
//! Invariant: a change is sent again only if it certainly was not made, or if it is the same when made twice.

use std::time::Duration;

use fanfold_protocol::message::{
    ChangeCluster, ClusterChange, ClusterChanged, ClusterView, GetHot, HotBy, HotList, InitCluster,
    NodeStatus, PauseFanOut,
};
use fanfold_protocol::{Call as WireCall, NodeId, Request, Response, UserId};
use futures_util::future::join_all;
use tokio::time::timeout_at;

use crate::call::Call;
use crate::claim::Claim;
use crate::client::Client;
use crate::core::{Core, Effect};
use crate::deadline::Deadline;
use crate::defaults;
use crate::error::Error;
use crate::link::Link;
use crate::pending::Unanswered;
use crate::router::{Target, not_answered};

/// What each node of a cluster answered, by node.
pub type ByNode<T> = Vec<(NodeId, Result<T, Error>)>;

impl Client {
    /// The cluster as the node that answers sees it.
    pub fn cluster(&self) -> Call<ClusterView> {
        Call::new(self.core.clone(), |core, deadline| async move {
            match core.ask(Target::AnyNode, &Request::GetCluster, Effect::None, deadline).await? {
                Response::Cluster(view) => Ok(view),
                _ => Err(Error::unexpected_read()),
            }
        })
    }

    /// The cluster as one node sees it.
    pub fn cluster_at(&self, node: NodeId) -> Call<ClusterView> {
        Call::new(self.core.clone(), move |core, deadline| async move {
            match core.ask(Target::Node(node), &Request::GetCluster, Effect::None, deadline).await? {
                Response::Cluster(view) => Ok(view),
                _ => Err(Error::unexpected_read()),
            }
        })
    }

    /// Changes the cluster; `dry_run` only says what would change. Answered when the change is made; replicas move
    /// afterwards, and [`Client::cluster`] shows how far they are.
    pub fn change_cluster(&self, change: ClusterChange, dry_run: bool) -> Call<ClusterChanged> {
        // Settings, drains and the like are the same when made twice; a move, a replacement and a recovery are refused then.
        let effect = match change {
            _ if dry_run => Effect::None,
            ClusterChange::Settings { .. }
            | ClusterChange::Drain { .. }
            | ClusterChange::Undrain { .. }
            | ClusterChange::TransferLeader { .. }
            | ClusterChange::Upgrade { .. }
            | ClusterChange::Balance => Effect::Idempotent,
            _ => Effect::Once,
        };
        Call::new(self.core.clone(), move |core, deadline| async move {
            // A node that is removed by it may be cut off before it can answer.
            let target = match change {
                ClusterChange::Remove { node } | ClusterChange::Replace { node, .. } => {
                    Target::OtherThan(node)
                }
                _ => Target::AnyNode,
            };
            let request = Request::ChangeCluster(ChangeCluster { change, dry_run });
            match core.ask(target, &request, effect, deadline).await? {
                Response::ClusterChanged(changed) => Ok(changed),
                _ => Err(Error::unexpected_write()),
            }
        })
    }

    /// What is hot, node by node: each counts what it does itself.
    pub fn hot(&self, by: HotBy, limit: u32) -> Call<ByNode<HotList>> {
        Call::new(self.core.clone(), move |core, deadline| async move {
            let request = Request::GetHot(GetHot { by, limit });
            by_node(&core, request, Effect::None, deadline, |response| match response {
                Response::Hot(list) => Some(list),
                _ => None,
            })
            .await
        })
    }

    /// The status of every node, or why it did not answer.
    pub fn statuses(&self) -> Call<ByNode<NodeStatus>> {
        Call::new(self.core.clone(), |core, deadline| async move {
            by_node(&core, Request::GetStatus, Effect::None, deadline, |response| match response {
                Response::NodeStatus(status) => Some(status),
                _ => None,
            })
            .await
        })
    }

    /// Pauses the fan-out of an owner's entries, or lets it go on. What is written meanwhile is in the owner's timeline at
    /// once and comes into the feeds when it goes on. Twice is accepted.
    pub fn pause_fan_out(&self, owner: UserId, paused: bool) -> Call<()> {
        Call::new(self.core.clone(), move |core, deadline| async move {
            let request = Request::PauseFanOut(PauseFanOut { owner, paused });
            match core.ask(Target::User(owner), &request, Effect::Idempotent, deadline).await? {
                Response::Done => Ok(()),
                _ => Err(Error::unexpected_write()),
            }
        })
    }

    /// The owners whose fan-out is paused, in order.
    ///
    /// # Errors
    /// That of a node which does not answer: see [`Client::paused_by_node`].
    pub fn paused(&self) -> Call<Vec<UserId>> {
        Call::new(self.core.clone(), |core, deadline| async move {
            let mut all = Vec::new();
            for (_, owners) in paused(&core, deadline).await? {
                all.extend(owners?);
            }
            all.sort_unstable();
            all.dedup();
            Ok(all)
        })
    }

    /// The owners whose fan-out is paused, of the partitions that each node has a replica of.
    pub fn paused_by_node(&self) -> Call<ByNode<Vec<UserId>>> {
        Call::new(self.core.clone(), |core, deadline| async move { paused(&core, deadline).await })
    }
}

async fn paused(core: &Core, deadline: Deadline) -> Result<ByNode<Vec<UserId>>, Error> {
    let take = |response| match response {
        Response::Paused(owners) => Some(owners),
        _ => None,
    };
    by_node(core, Request::ListPaused, Effect::None, deadline, take).await
}

/// Founds a cluster on the node at `address`, which waits for one.
///
/// # Errors
/// [`Error::Refused`] with `ChangeRefused` if there is a cluster already, or if another node that it was told to join is silent or is to
/// found one too.
pub async fn init_cluster(address: &str, init: InitCluster, deadline: Duration) -> Result<(), Error> {
    let deadline = Deadline::within(deadline);
    let call = WireCall { deadline_ms: Some(deadline.remaining_ms()), request: Request::InitCluster(init) };
    let (link, claim) = (Link::new(address), Claim::new());
    let Ok(answer) = timeout_at(deadline.at(), link.exchange(&call, claim.clone())).await else {
        let (given, may_have_applied) = (deadline.given(), !claim.withdraw());
        return Err(Error::DeadlineExceeded { deadline: given, may_have_applied, last: None });
    };
    let frame = answer.map_err(|unanswered| match unanswered {
        Unanswered::Lost(source) => {
            let (address, may_have_applied) = (address.to_owned(), !claim.withdraw());
            Error::ConnectionLost { address, may_have_applied, source }
        }
        unanswered => not_answered(unanswered, address),
    })?;
    match frame.decode_reply() {
        Ok(Ok(Response::Done)) => Ok(()),
        Ok(Err(status)) => {
            let may_have_applied = status.may_have_applied();
            Err(Error::Refused { status, may_have_applied })
        }
        Ok(Ok(_)) | Err(_) => Err(Error::unexpected_write()),
    }
}

/// The same question to each node; one that does not answer keeps the others from nothing, and one that the others have not
/// heard of lately is not waited for as long.
pub(crate) async fn by_node<T>(
    core: &Core,
    request: Request,
    effect: Effect,
    deadline: Deadline,
    take: impl Fn(Response) -> Option<T>,
) -> Result<ByNode<T>, Error> {
    let nodes = core.nodes(deadline).await?;
    let silent = if nodes.len() > 1 { silent(core, deadline).await } else { Vec::new() };
    let request = &request;
    let asks = nodes.iter().map(|node| {
        let deadline = if silent.contains(node) { deadline.at_most(defaults::SILENT_WAIT) } else { deadline };
        core.ask(Target::Node(*node), request, effect, deadline)
    });
    let unexpected =
        || if effect == Effect::None { Error::unexpected_read() } else { Error::unexpected_write() };
    let answers = join_all(asks)
        .await
        .into_iter()
        .map(|answer| answer.and_then(|response| take(response).ok_or_else(unexpected)));
    Ok(nodes.into_iter().zip(answers).collect())
}

/// The nodes that were not heard of lately, as one that answers says; none if nobody does.
async fn silent(core: &Core, deadline: Deadline) -> Vec<NodeId> {
    let soon = deadline.at_most(defaults::MAP_TIMEOUT);
    match core.ask(Target::AnyNode, &Request::GetCluster, Effect::None, soon).await {
        Ok(Response::Cluster(view)) => {
            view.nodes.iter().filter(|node| !node.is_alive).map(|node| node.node).collect()
        }
        _ => Vec::new(),
    }
}
