//! Owns the handle of a graph: following, counting, scanning.

use std::sync::Arc;

use fanfold_protocol::message::{Counts, Edges, GetCounts, ImportEdge, WriteOp};
use fanfold_protocol::{GraphId, Request, Response, UserId};

use crate::call::Call;
use crate::core::{Core, Effect};
use crate::edges::{EdgeScan, Side};
use crate::error::Error;
use crate::import::{ImportedFollows, import_follows};
use crate::related::Related;
use crate::router::Target;

/// A graph: who follows whom.
#[derive(Debug, Clone)]
pub struct Graph {
    core: Arc<Core>,
    name: Arc<str>,
}

impl Graph {
    pub(crate) fn new(core: Arc<Core>, name: Arc<str>) -> Self {
        Self { core, name }
    }

    /// The graph's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes `reader` follow `owner`. Following twice, and following oneself, is accepted and has no effect. If a
    /// block or a limit is in the way, [`Related::refused`] names the owner.
    pub fn follow(&self, reader: UserId, owner: UserId) -> Call<Related> {
        self.follow_many(reader, vec![owner])
    }

    /// Makes `reader` follow all `owners` in one write, which has an effect on all of them or none.
    pub fn follow_many(&self, reader: UserId, owners: impl Into<Vec<UserId>>) -> Call<Related> {
        self.change(reader, owners.into(), WriteOp::Follow)
    }

    /// Makes `reader` follow `owner` no more; if there is no such follow it is accepted and has no effect.
    pub fn unfollow(&self, reader: UserId, owner: UserId) -> Call<Related> {
        self.unfollow_many(reader, vec![owner])
    }

    /// Makes `reader` follow none of `owners` any more, in one write.
    pub fn unfollow_many(&self, reader: UserId, owners: impl Into<Vec<UserId>>) -> Call<Related> {
        self.change(reader, owners.into(), WriteOp::Unfollow)
    }

    /// Imports edges with their times; nothing is filled for them. Edges of one reader behind each other cost least.
    pub fn import_follows(&self, edges: Vec<ImportEdge>) -> Call<ImportedFollows> {
        let name = self.name.clone();
        Call::new(self.core.clone(), move |core, deadline| async move {
            let graph = core.graph_id(&name, deadline).await?;
            import_follows(&core, graph, edges, deadline).await
        })
    }

    /// The graph's id.
    pub fn id(&self) -> Call<GraphId> {
        let name = self.name.clone();
        Call::new(
            self.core.clone(),
            move |core, deadline| async move { core.graph_id(&name, deadline).await },
        )
    }

    /// How many follow `user`, and how many `user` follows.
    pub fn counts(&self, user: UserId) -> Call<Counts> {
        let name = self.name.clone();
        Call::new(self.core.clone(), move |core, deadline| async move {
            let graph = core.graph_id(&name, deadline).await?;
            let request = Request::GetCounts(GetCounts { graph, user });
            match core.ask(Target::User(user), &request, Effect::None, deadline).await? {
                Response::Counts(counts) => Ok(counts),
                _ => Err(Error::unexpected_read()),
            }
        })
    }

    /// The owners whom `reader` follows, by user id.
    pub fn followees(&self, reader: UserId) -> EdgeScan {
        EdgeScan::new(self.core.clone(), self.name.clone(), Side::Followees, reader)
    }

    /// The readers who follow `owner`, by partition, then user id.
    pub fn followers(&self, owner: UserId) -> EdgeScan {
        EdgeScan::new(self.core.clone(), self.name.clone(), Side::Followers, owner)
    }

    fn change(&self, reader: UserId, mut owners: Vec<UserId>, op: fn(Edges) -> WriteOp) -> Call<Related> {
        let name = self.name.clone();
        owners.sort_unstable();
        owners.dedup();
        Call::new(self.core.clone(), move |core, deadline| async move {
            let graph: GraphId = core.graph_id(&name, deadline).await?;
            let written = core.write(reader, op(Edges { graph, reader, owners }), deadline).await?;
            Related::of(written)
        })
    }
}
