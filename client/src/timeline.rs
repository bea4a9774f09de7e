//! Owns the read of one timeline: one page, or all of them.

use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use fanfold_protocol::message::{Page, ReadTimeline};
use fanfold_protocol::{Cursor, Request, Token, UserId};
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

use crate::core::Core;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::pages::pages;
use crate::paging::Paging;

/// A read of one timeline: awaited it gives one page, [`pages`](Self::pages) gives all.
#[derive(Debug, Clone)]
#[must_use = "a timeline is only read when this is awaited"]
pub struct TimelineRead {
    paging: Paging,
    owner: UserId,
    viewer: Option<UserId>,
}

impl TimelineRead {
    pub(crate) fn new(core: Arc<Core>, space: Arc<str>, owner: UserId) -> Self {
        Self { paging: Paging::new(core, space), owner, viewer: None }
    }

    /// Whose eyes: audience, mutes and blocks apply. Default: everything is shown.
    pub fn viewer(mut self, viewer: UserId) -> Self {
        self.viewer = Some(viewer);
        self
    }

    /// Entries on one page, 1 to 1,000. Default 50.
    pub fn limit(mut self, limit: u32) -> Self {
        self.paging.limit = limit;
        self
    }

    /// With payloads, and with the entries referred to.
    pub fn hydrate(mut self) -> Self {
        self.paging.hydrate = true;
        self
    }

    /// Goes on where an earlier page ended ([`Page::next`]).
    pub fn cursor(mut self, cursor: Cursor) -> Self {
        self.paging.cursor = Some(cursor);
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
        let Self { paging, owner, viewer } = self;
        let &Paging { limit, cursor, at_least, hydrate, .. } = &paging;
        let request = |space, consistency| {
            Request::ReadTimeline(ReadTimeline {
                space,
                owner,
                viewer,
                limit,
                cursor,
                at_least,
                hydrate,
                consistency,
            })
        };
        paging.read(owner, deadline, request).await
    }
}

impl IntoFuture for TimelineRead {
    type Output = Result<Page, Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let deadline = self.paging.until();
        Box::pin(self.read(deadline))
    }
}
