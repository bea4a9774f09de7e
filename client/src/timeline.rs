//! Owns the read of one timeline: one page, or all of them.

use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use fanfold_protocol::message::{Page, ReadTimeline};
use fanfold_protocol::{Cursor, Request, Response, Token, UserId};
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

use crate::core::{Core, Effect};
use crate::deadline::Deadline;
use crate::defaults;
use crate::error::Error;
use crate::pages::pages;
use crate::router::Target;

/// A read of one timeline: awaited it gives one page, [`pages`](Self::pages) gives all.
#[derive(Debug, Clone)]
#[must_use = "a timeline is only read when this is awaited"]
pub struct TimelineRead {
    core: Arc<Core>,
    space: Arc<str>,
    owner: UserId,
    viewer: Option<UserId>,
    limit: u32,
    cursor: Option<Cursor>,
    at_least: Option<Token>,
    hydrate: bool,
    deadline: Option<Duration>,
}

impl TimelineRead {
    pub(crate) fn new(core: Arc<Core>, space: Arc<str>, owner: UserId) -> Self {
        Self {
            core,
            space,
            owner,
            viewer: None,
            limit: defaults::PAGE_LIMIT,
            cursor: None,
            at_least: None,
            hydrate: false,
            deadline: None,
        }
    }

    /// Whose eyes: audience, mutes and blocks apply. Default: everything is shown.
    pub fn viewer(mut self, viewer: UserId) -> Self {
        self.viewer = Some(viewer);
        self
    }

    /// Entries on one page, 1 to 1,000. Default 50.
    pub fn limit(mut self, limit: u32) -> Self {
        self.limit = limit;
        self
    }

    /// With payloads, and with the entries referred to.
    pub fn hydrate(mut self) -> Self {
        self.hydrate = true;
        self
    }

    /// Goes on where an earlier page ended ([`Page::next`]).
    pub fn cursor(mut self, cursor: Cursor) -> Self {
        self.cursor = Some(cursor);
        self
    }

    /// Waits until the page reflects at least what a token stands for.
    pub fn at_least(mut self, token: &Token) -> Self {
        self.at_least = Some(*token);
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
        pages(first, move |cursor| {
            let mut read = self.clone();
            read.cursor = cursor;
            read.into_future()
        })
    }

    async fn read(self, deadline: Deadline) -> Result<Page, Error> {
        let space = self.core.space_id(&self.space, deadline).await?;
        let request = Request::ReadTimeline(ReadTimeline {
            space,
            owner: self.owner,
            viewer: self.viewer,
            limit: self.limit,
            cursor: self.cursor,
            at_least: self.at_least,
            hydrate: self.hydrate,
        });
        match self.core.ask(Target::User(self.owner), &request, Effect::None, deadline).await? {
            Response::Page(page) => Ok(page),
            _ => Err(Error::unexpected_read()),
        }
    }
}

impl IntoFuture for TimelineRead {
    type Output = Result<Page, Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let deadline = self.core.deadline(self.deadline);
        Box::pin(self.read(deadline))
    }
}
