//! Owns the read of many feeds at once, spread over the nodes that hold them.

use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use fanfold_protocol::message::{Page, ReadFeeds};
use fanfold_protocol::{Request, Response, SlotIndex, SpaceId, Status, UserId};
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

    /// Any replica may answer, if what it has reflects everything that was answered longer than `max` before it is read.
    pub fn stale_ok(mut self, max: Duration) -> Self {
        self.choice.stale_ok(max);
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
        let any_replica = self.choice.is_any_replica(false);
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
        Target::of_read(SlotIndex::of(reader), self.choice.is_any_replica(false))
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
        let (limit, hydrate, consistency) = (self.limit, self.hydrate, self.choice.consistency(false));
        let request = Request::ReadFeeds(ReadFeeds { space, readers, limit, hydrate, consistency });
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
            let again = again.of_choice(self.choice).deadline(deadline.remaining());
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
