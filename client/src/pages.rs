//! Owns the stream of pages that feeds and timelines share.
//!
//! Invariant: the stream ends only at the true end; where a page makes no progress it ends with an error instead.

use fanfold_protocol::Cursor;
use fanfold_protocol::message::Page;
use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, StreamExt, try_unfold};

use crate::error::Error;

enum Step {
    Read(Option<Cursor>),
    Stalled(Cursor),
    End,
}

/// All pages from a cursor (or the newest entry) on, each read when the one before was taken.
pub(crate) fn pages<F>(first: Option<Cursor>, read: F) -> BoxStream<'static, Result<Page, Error>>
where
    F: Fn(Option<Cursor>) -> BoxFuture<'static, Result<Page, Error>> + Send + 'static,
{
    let start = (Step::Read(first), read);
    try_unfold(start, |(step, read)| async move {
        let cursor = match step {
            Step::Read(cursor) => cursor,
            Step::Stalled(cursor) => return Err(Error::ScanStalled { below: cursor.below }),
            Step::End => return Ok(None),
        };
        let page = read(cursor).await?;
        let next = match page.next {
            None => Step::End,
            Some(next) if page.entries.is_empty() && cursor == Some(next) => Step::Stalled(next),
            Some(next) => Step::Read(Some(next)),
        };
        Ok(Some((page, (next, read))))
    })
    .boxed()
}
