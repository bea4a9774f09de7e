//! Owns the calls that concern whole nodes: status, waits, the clock, the map.

use std::sync::Arc;

use fanfold_protocol::message::{ChangeRefusal, Map, NodeStatus, WaitDelivered};
use fanfold_protocol::{NodeId, Request, Response, Status, Token};

use crate::call::Call;
use crate::client::Client;
use crate::cluster::{ByNode, by_node};
use crate::core::{Core, Effect};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::router::Target;

impl Client {
    /// Waits until every write answered before this call has reached every partition, and no fan-out is under way.
    ///
    /// While others write it may take long: give it a deadline of its own.
    pub fn wait_drained(&self) -> Call<()> {
        Call::new(self.core.clone(), |core, deadline| async move { drained(&core, deadline).await })
    }

    /// The status of every node of the cluster: partitions, applied indexes, undelivered events, memory.
    pub fn status(&self) -> Call<Vec<NodeStatus>> {
        Call::new(self.core.clone(), |core, deadline| async move {
            let answers = each_node(&core, Request::GetStatus, Effect::None, deadline).await?;
            let mut all = Vec::with_capacity(answers.len());
            for answer in answers {
                match answer {
                    Response::NodeStatus(status) => all.push(status),
                    _ => return Err(Error::unexpected_read()),
                }
            }
            Ok(all)
        })
    }

    /// Accepts the wall clocks of the nodes after a jump, so that stamps follow them again.
    pub fn accept_clock(&self) -> Call<()> {
        Call::new(self.core.clone(), |core, deadline| async move {
            each_node(&core, Request::AcceptClock, Effect::Idempotent, deadline).await?;
            Ok(())
        })
    }

    /// The same, node by node: one that does not answer keeps the others from nothing.
    pub fn accept_clocks(&self) -> Call<ByNode<()>> {
        Call::new(self.core.clone(), |core, deadline| async move {
            let take = |response| matches!(response, Response::Done).then_some(());
            by_node(&core, Request::AcceptClock, Effect::Idempotent, deadline, take).await
        })
    }

    /// Accepts the wall clock of one node.
    ///
    /// # Errors
    /// [`Error::Refused`] with `ChangeRefused` if there is no such node.
    pub fn accept_clock_at(&self, node: NodeId) -> Call<()> {
        Call::new(self.core.clone(), move |core, deadline| async move {
            if !core.nodes(deadline).await?.contains(&node) {
                let (refusal, said) = (ChangeRefusal::UnknownNode, format!("there is no node {node}"));
                let status = Status::ChangeRefused { refusal, said };
                return Err(Error::Refused { status, may_have_applied: false });
            }
            let accept = Request::AcceptClock;
            match core.ask(Target::Node(node), &accept, Effect::Idempotent, deadline).await? {
                Response::Done => Ok(()),
                _ => Err(Error::unexpected_write()),
            }
        })
    }

    /// Which nodes there are and which of them leads each partition, fetched anew.
    pub fn map(&self) -> Call<Map> {
        Call::new(self.core.clone(), |core, deadline| async move {
            match core.ask(Target::AnyNode, &Request::GetMap, Effect::None, deadline).await? {
                Response::Map(map) => Ok(map),
                _ => Err(Error::unexpected_read()),
            }
        })
    }

    /// Asks the node for a sign of life.
    pub fn ping(&self) -> Call<()> {
        Call::new(self.core.clone(), |core, deadline| async move {
            match core.ask(Target::AnyNode, &Request::Ping, Effect::None, deadline).await? {
                Response::Pong => Ok(()),
                _ => Err(Error::unexpected_read()),
            }
        })
    }
}

/// Waits at every leader. A leadership that moved meanwhile is waited for at the new leader.
async fn drained(core: &Core, deadline: Deadline) -> Result<(), Error> {
    loop {
        let before = core.map(deadline).await?;
        let asks = before
            .leading_nodes()
            .into_iter()
            .map(|node| core.ask(Target::Node(node), &Request::WaitDrained, Effect::None, deadline));
        futures_util::future::try_join_all(asks).await?;
        let after = core.map(deadline).await?;
        if before.has_leaders_of(&after) {
            return Ok(());
        }
    }
}

/// The same request to each node of the map.
async fn each_node(
    core: &Core,
    request: Request,
    effect: Effect,
    deadline: Deadline,
) -> Result<Vec<Response>, Error> {
    let nodes = core.nodes(deadline).await?;
    let asks = nodes.into_iter().map(|node| core.ask(Target::Node(node), &request, effect, deadline));
    futures_util::future::try_join_all(asks).await
}

pub(crate) fn wait_delivered(core: &Arc<Core>, token: Token) -> Call<()> {
    Call::new(core.clone(), move |core, deadline| async move {
        let request = Request::WaitDelivered(WaitDelivered { token });
        match core.ask(Target::Partition(token.partition), &request, Effect::None, deadline).await? {
            Response::Done => Ok(()),
            _ => Err(Error::unexpected_read()),
        }
    })
}
