//! Owns the scans of a graph: followees and followers, page by page.

use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use fanfold_protocol::message::{EdgePage, ScanEdges};
use fanfold_protocol::{Cursor, Request, Response, UserId};
use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, StreamExt, try_unfold};

use crate::core::{Core, Effect};
use crate::deadline::Deadline;
use crate::defaults;
use crate::error::Error;
use crate::router::Target;

/// Which end of the edges is scanned.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Side {
    Followees,
    Followers,
}

/// A scan of followees or followers: awaited it gives one page, [`pages`](Self::pages) gives all.
#[derive(Debug, Clone)]
#[must_use = "a scan is only made when it is awaited"]
pub struct EdgeScan {
    core: Arc<Core>,
    graph: Arc<str>,
    side: Side,
    user: UserId,
    limit: u32,
    cursor: Option<Cursor>,
    deadline: Option<Duration>,
}

impl EdgeScan {
    pub(crate) fn new(core: Arc<Core>, graph: Arc<str>, side: Side, user: UserId) -> Self {
        Self { core, graph, side, user, limit: defaults::PAGE_LIMIT, cursor: None, deadline: None }
    }

    /// Users on one page, 1 to 1,000. Default 50.
    pub fn limit(mut self, limit: u32) -> Self {
        self.limit = limit;
        self
    }

    /// Goes on where an earlier page ended ([`EdgePage::next`]).
    pub fn cursor(mut self, cursor: Cursor) -> Self {
        self.cursor = Some(cursor);
        self
    }

    /// How long each page may take.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// All pages from here to the end.
    pub fn pages(self) -> BoxStream<'static, Result<EdgePage, Error>> {
        try_unfold(Some(self), |scan| async move {
            let Some(scan) = scan else { return Ok(None) };
            let page = scan.clone().await?;
            let next = page.next.map(|next| scan.cursor(next));
            Ok(Some((page, next)))
        })
        .boxed()
    }

    async fn read(self, deadline: Deadline) -> Result<EdgePage, Error> {
        let graph = self.core.graph_id(&self.graph, deadline).await?;
        let scan = ScanEdges { graph, user: self.user, limit: self.limit, cursor: self.cursor };
        let request = match self.side {
            Side::Followees => Request::ScanFollowees(scan),
            Side::Followers => Request::ScanFollowers(scan),
        };
        match self.core.ask(Target::User(self.user), &request, Effect::None, deadline).await? {
            Response::Edges(page) => Ok(page),
            _ => Err(Error::unexpected_read()),
        }
    }
}

impl IntoFuture for EdgeScan {
    type Output = Result<EdgePage, Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let deadline = self.core.deadline(self.deadline);
        Box::pin(self.read(deadline))
    }
}
