//! Owns the read of one feed: one page, or all of them.

use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use fanfold_protocol::message::{Page, ReadFeed};
use fanfold_protocol::{Cursor, Mark, Request, Token, UserId};
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

use crate::consistency::Choice;
use crate::core::Core;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::pages::pages;
use crate::paging::Paging;

/// A read of one feed: awaited it gives one page, [`pages`](Self::pages) gives all.
#[derive(Debug, Clone)]
#[must_use = "a feed is only read when this is awaited"]
pub struct FeedRead {
    paging: Paging,
    reader: UserId,
    newer_than: Option<Mark>,
}

impl FeedRead {
    pub(crate) fn new(core: Arc<Core>, space: Arc<str>, reader: UserId) -> Self {
        Self { paging: Paging::new(core, space), reader, newer_than: None }
    }

    /// Entries on one page, 1 to 1,000. Default 50.
    pub fn limit(mut self, limit: u32) -> Self {
        self.paging.limit = limit;
        self
    }

    /// With payloads, and with the entries referred to. They are fetched when the ids are known: what is deleted in between
    /// is not on the page, though it has nothing that came after its ids were merged.
    pub fn hydrate(mut self) -> Self {
        self.paging.hydrate = true;
        self
    }

    /// Goes on where an earlier page ended ([`Page::next`]).
    pub fn cursor(mut self, cursor: Cursor) -> Self {
        self.paging.cursor = Some(cursor);
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
        self.paging.at_least = Some(*token);
        self
    }

    /// Any replica may answer, if the page reflects everything that was answered longer than `max` before it is read. Under
    /// [`at_least`](Self::at_least) both hold.
    pub fn stale_ok(mut self, max: Duration) -> Self {
        self.paging.choice.stale_ok(max);
        self
    }

    /// The leader answers, as it does by default, also under [`at_least`](Self::at_least): everything is reflected that was
    /// answered before.
    pub fn leader(mut self) -> Self {
        self.paging.choice.leader();
        self
    }

    /// Who may answer, and what the page must reflect, as another read was told.
    pub(crate) fn of_choice(mut self, choice: Choice, at_least: Option<Token>) -> Self {
        (self.paging.choice, self.paging.at_least) = (choice, at_least);
        self
    }

    /// How long each page may take.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.paging.deadline = Some(deadline);
        self
    }

    /// All pages from here to the true end.
    pub fn pages(self) -> BoxStream<'static, Result<Page, Error>> {
        pages(self.paging.cursor, move |cursor, token| {
            Self { paging: self.paging.at(cursor, token), ..self.clone() }.into_future()
        })
    }

    async fn read(self, deadline: Deadline) -> Result<Page, Error> {
        let Self { paging, reader, newer_than } = self;
        let &Paging { limit, cursor, at_least, hydrate, .. } = &paging;
        let request = |space, consistency| {
            Request::ReadFeed(ReadFeed {
                space,
                reader,
                limit,
                cursor,
                newer_than,
                hydrate,
                at_least,
                consistency,
            })
        };
        paging.read(reader, deadline, request).await
    }
}

impl IntoFuture for FeedRead {
    type Output = Result<Page, Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let deadline = self.paging.until();
        Box::pin(self.read(deadline))
    }
}
