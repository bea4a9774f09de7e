//! Owns the read of one feed: one page, or all of them.

use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use fanfold_protocol::message::{Consistency, Page, ReadFeed};
use fanfold_protocol::{Cursor, Mark, Request, SlotIndex, Token, UserId};
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

use crate::consistency::Choice;
use crate::core::Core;
use crate::deadline::Deadline;
use crate::defaults;
use crate::error::Error;
use crate::pages::pages;
use crate::patience::read_page;
use crate::router::Target;

/// A read of one feed: awaited it gives one page, [`pages`](Self::pages) gives all.
#[derive(Debug, Clone)]
#[must_use = "a feed is only read when this is awaited"]
pub struct FeedRead {
    core: Arc<Core>,
    space: Arc<str>,
    reader: UserId,
    limit: u32,
    cursor: Option<Cursor>,
    newer_than: Option<Mark>,
    at_least: Option<Token>,
    choice: Choice,
    hydrate: bool,
    deadline: Option<Duration>,
}

impl FeedRead {
    pub(crate) fn new(core: Arc<Core>, space: Arc<str>, reader: UserId) -> Self {
        Self {
            core,
            space,
            reader,
            limit: defaults::PAGE_LIMIT,
            cursor: None,
            newer_than: None,
            at_least: None,
            choice: Choice::default(),
            hydrate: false,
            deadline: None,
        }
    }

    /// Entries on one page, 1 to 1,000. Default 50.
    pub fn limit(mut self, limit: u32) -> Self {
        self.limit = limit;
        self
    }

    /// With payloads, and with the entries referred to. They are fetched when the ids are known: what is deleted in between
    /// is not on the page, though it has nothing that came after its ids were merged.
    pub fn hydrate(mut self) -> Self {
        self.hydrate = true;
        self
    }

    /// Goes on where an earlier page ended ([`Page::next`]).
    pub fn cursor(mut self, cursor: Cursor) -> Self {
        self.cursor = Some(cursor);
        self
    }

    /// Only what arrived after an earlier page was read ([`Page::mark`]), with a count ([`Page::new_count`]).
    pub fn newer_than(mut self, mark: Mark) -> Self {
        self.newer_than = Some(mark);
        self
    }

    /// Waits until the page reflects at least what a token stands for: one's own write, or another's. Any replica may answer
    /// then, not only the leader.
    pub fn at_least(mut self, token: &Token) -> Self {
        self.at_least = Some(*token);
        self
    }

    /// Any replica may answer, if the page reflects everything that was answered longer than `max` before it is read. Under
    /// [`at_least`](Self::at_least) both hold.
    pub fn stale_ok(mut self, max: Duration) -> Self {
        self.choice.stale_ok(max);
        self
    }

    /// The leader answers, as it does by default, also under [`at_least`](Self::at_least): everything is reflected that was
    /// answered before.
    pub fn leader(mut self) -> Self {
        self.choice.leader();
        self
    }

    /// Who may answer, as another read was told.
    pub(crate) fn of_choice(mut self, choice: Choice) -> Self {
        self.choice = choice;
        self
    }

    /// How long each page may take.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// All pages from here to the true end.
    pub fn pages(self) -> BoxStream<'static, Result<Page, Error>> {
        let first = self.cursor;
        pages(first, move |cursor, token| {
            let mut read = self.clone();
            read.cursor = cursor;
            if read.choice.is_any_replica(read.at_least.is_some()) {
                read.at_least = token.or(read.at_least);
            }
            read.into_future()
        })
    }

    async fn read(self, deadline: Deadline) -> Result<Page, Error> {
        let space = self.core.space_id(&self.space, deadline).await?;
        let consistency = self.choice.consistency(self.at_least.is_some());
        let request = Request::ReadFeed(ReadFeed {
            space,
            reader: self.reader,
            limit: self.limit,
            cursor: self.cursor,
            newer_than: self.newer_than,
            hydrate: self.hydrate,
            at_least: self.at_least,
            consistency,
        });
        let any_replica = consistency != Consistency::Leader;
        let target = Target::of_read(SlotIndex::of(self.reader), any_replica);
        read_page(&self.core, target, &request, self.hydrate, deadline).await
    }
}

impl IntoFuture for FeedRead {
    type Output = Result<Page, Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let deadline = self.core.deadline(self.deadline);
        Box::pin(self.read(deadline))
    }
}
