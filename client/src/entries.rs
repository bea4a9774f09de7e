//! Owns the read of entries by id, spread over the nodes that hold them.

use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use fanfold_protocol::message::{EntryView, ReadEntries};
use fanfold_protocol::{EntryId, Request, Response, SpaceId, Token, UserId};
use futures_util::future::{BoxFuture, try_join_all};

use crate::consistency::Choice;
use crate::core::{Core, Effect};
use crate::deadline::Deadline;
use crate::defaults;
use crate::error::Error;
use crate::router::Target;
use crate::spread::{Part, spread};

/// A read of entries by id, made when it is awaited. The answers stand in the order of the ids.
#[derive(Debug, Clone)]
#[must_use = "entries are only read when this is awaited"]
pub struct EntriesRead {
    core: Arc<Core>,
    space: Arc<str>,
    ids: Vec<EntryId>,
    viewer: Option<UserId>,
    at_least: Option<Token>,
    choice: Choice,
    deadline: Option<Duration>,
}

impl EntriesRead {
    pub(crate) fn new(core: Arc<Core>, space: Arc<str>, ids: Vec<EntryId>) -> Self {
        Self { core, space, ids, viewer: None, at_least: None, choice: Choice::default(), deadline: None }
    }

    /// Whose eyes: audience, mutes and blocks apply. Default: everything is shown.
    pub fn viewer(mut self, viewer: UserId) -> Self {
        self.viewer = Some(viewer);
        self
    }

    /// Waits until the answer reflects at least what a token stands for: one's own write, or another's. Any replica may answer
    /// then, not only the leader.
    pub fn at_least(mut self, token: &Token) -> Self {
        self.at_least = Some(*token);
        self
    }

    /// Any replica may answer, if what it has reflects everything that was answered longer than `max` before it is read. Under
    /// [`at_least`](Self::at_least) both hold.
    pub fn stale_ok(mut self, max: Duration) -> Self {
        self.choice.stale_ok(max);
        self
    }

    /// The leaders answer, as they do by default, also under [`at_least`](Self::at_least): everything is reflected that was
    /// answered before.
    pub fn leader(mut self) -> Self {
        self.choice.leader();
        self
    }

    /// How long this call may take.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    async fn read(self, deadline: Deadline) -> Result<Vec<Option<EntryView>>, Error> {
        let space = self.core.space_id(&self.space, deadline).await?;
        let map = self.core.map(deadline).await?;
        let mut views: Vec<Option<EntryView>> = self.ids.iter().map(|_| None).collect();
        let replicas = if self.is_any_replica() { self.core.replicas(&map, deadline).await } else { None };
        let home = |id: &EntryId| self.core.node_of_read(&map, replicas.as_deref(), id.slot());
        let parts = spread(self.ids.clone(), home, defaults::ENTRY_IDS_MAX);
        let asks = parts.into_iter().map(|part| self.ask_part(space, part, deadline));
        for (places, answers) in try_join_all(asks).await? {
            for (place, view) in places.into_iter().zip(answers) {
                views[place] = view;
            }
        }
        Ok(views)
    }

    fn is_any_replica(&self) -> bool {
        self.choice.is_any_replica(self.at_least.is_some())
    }

    /// Asks one node for its part; the node is named by the home of the part's first id, so that a retry follows it.
    async fn ask_part(
        &self,
        space: SpaceId,
        part: Part<EntryId>,
        deadline: Deadline,
    ) -> Result<(Vec<usize>, Vec<Option<EntryView>>), Error> {
        let &Self { viewer, at_least, choice, .. } = self;
        let target = Target::of_read(part.items[0].slot(), self.is_any_replica());
        let count = part.items.len();
        let consistency = choice.consistency(at_least.is_some());
        let request =
            Request::ReadEntries(ReadEntries { space, ids: part.items, viewer, consistency, at_least });
        match self.core.ask(target, &request, Effect::None, deadline).await? {
            Response::Entries(views) if views.len() == count => Ok((part.places, views)),
            _ => Err(Error::unexpected_read()),
        }
    }
}

impl IntoFuture for EntriesRead {
    type Output = Result<Vec<Option<EntryView>>, Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let deadline = self.core.deadline(self.deadline);
        Box::pin(self.read(deadline))
    }
}
