//! Owns the read of many feeds at once, spread over the nodes that hold them.

use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use fanfold_protocol::message::{Page, ReadFeeds};
use fanfold_protocol::{Request, Response, SlotIndex, SpaceId, Status, Token, UserId};
use futures_util::future::{BoxFuture, join_all};

use crate::consistency::Choice;
use crate::core::{Core, Effect};
use crate::deadline::Deadline;
use crate::defaults;
use crate::error::Error;
use crate::feed::FeedRead;
use crate::patience::lacks;
use crate::router::Target;
use crate::spread::{Part, spread};

/// A read of the first page of many feeds, made when it is awaited. The answers stand in the order of the readers,
/// and one that fails does not keep the others from being answered.
#[derive(Debug, Clone)]
#[must_use = "feeds are only read when this is awaited"]
pub struct FeedsRead {
    core: Arc<Core>,
    space: Arc<str>,
    readers: Vec<UserId>,
    limit: u32,
    hydrate: bool,
    at_least: Option<Token>,
    choice: Choice,
    deadline: Option<Duration>,
}

impl FeedsRead {
    pub(crate) fn new(core: Arc<Core>, space: Arc<str>, readers: Vec<UserId>) -> Self {
        Self {
            core,
            space,
            readers,
            limit: defaults::PAGE_LIMIT,
            hydrate: false,
            at_least: None,
            choice: Choice::default(),
            deadline: None,
        }
    }

    /// Entries on each page, 1 to 1,000. Default 50.
    pub fn limit(mut self, limit: u32) -> Self {
        self.limit = limit;
        self
    }

    /// With payloads, and with the entries referred to.
    pub fn hydrate(mut self) -> Self {
        self.hydrate = true;
        self
    }

    /// Waits until each page reflects at least what a token stands for: one's own write, or another's. Any replica may answer
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

    async fn read(self, deadline: Deadline) -> Result<Vec<Result<Page, Error>>, Error> {
        let space = self.core.space_id(&self.space, deadline).await?;
        let map = self.core.map(deadline).await?;
        let count = self.readers.len();
        let any_replica = self.is_any_replica();
        let replicas = if any_replica { self.core.replicas(&map, deadline).await } else { None };
        let home =
            |reader: &UserId| self.core.node_of_read(&map, replicas.as_deref(), SlotIndex::of(*reader));
        let parts = spread(self.readers.clone(), home, readers_max(self.limit));
        let asks = parts.into_iter().map(|part| self.ask_part(space, part, deadline));
        let mut pages: Vec<Option<Result<Page, Error>>> = (0..count).map(|_| None).collect();
        for (place, page) in join_all(asks).await.into_iter().flatten() {
            pages[place] = Some(page);
        }
        Ok(pages.into_iter().map(|page| page.unwrap_or_else(|| Err(Error::unexpected_read()))).collect())
    }

    fn target(&self, reader: UserId) -> Target {
        Target::of_read(SlotIndex::of(reader), self.is_any_replica())
    }

    fn is_any_replica(&self) -> bool {
        self.choice.is_any_replica(self.at_least.is_some())
    }

    /// One request; readers whose partition refused for now are asked for again, each alone.
    async fn ask_part(
        &self,
        space: SpaceId,
        part: Part<UserId>,
        deadline: Deadline,
    ) -> Vec<(usize, Result<Page, Error>)> {
        let first = part.items[0];
        let readers = part.items.clone();
        let &Self { limit, hydrate, at_least, choice, .. } = self;
        let consistency = choice.consistency(at_least.is_some());
        let request = Request::ReadFeeds(ReadFeeds { space, readers, limit, hydrate, consistency, at_least });
        let pages = match self.core.ask(self.target(first), &request, Effect::None, deadline).await {
            Ok(Response::Pages(pages)) if pages.len() == part.items.len() => pages,
            Ok(_) => return each(&part.places, &Error::unexpected_read()),
            Err(error) => return each(&part.places, &error),
        };
        let answers =
            part.items.into_iter().zip(pages).map(|(reader, page)| self.settle(reader, page, deadline));
        part.places.into_iter().zip(join_all(answers).await).collect()
    }

    async fn settle(
        &self,
        reader: UserId,
        page: Result<Page, Status>,
        deadline: Deadline,
    ) -> Result<Page, Error> {
        let again = || {
            let again = FeedRead::new(self.core.clone(), self.space.clone(), reader).limit(self.limit);
            let again = again.of_choice(self.choice, self.at_least).deadline(deadline.remaining());
            if self.hydrate { again.hydrate() } else { again }
        };
        match page {
            // What it lacks may come back soon; else it is as good as the next one.
            Ok(page) if lacks(&page, self.hydrate) => Ok(again().await.unwrap_or(page)),
            Ok(page) => Ok(page),
            Err(status) if status.is_retryable() => again().await,
            Err(status) => Err(Error::Refused { status, may_have_applied: false }),
        }
    }
}

/// How many readers one request asks for, so that its answer fits a frame.
fn readers_max(limit: u32) -> usize {
    (defaults::FEEDS_ENTRIES_MAX / limit.max(1) as usize).clamp(1, defaults::READERS_MAX)
}

fn each(places: &[usize], error: &Error) -> Vec<(usize, Result<Page, Error>)> {
    places.iter().map(|place| (*place, Err(error.clone()))).collect()
}

impl IntoFuture for FeedsRead {
    type Output = Result<Vec<Result<Page, Error>>, Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let deadline = self.core.deadline(self.deadline);
        Box::pin(self.read(deadline))
    }
}
