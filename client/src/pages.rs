//! Owns the stream of pages that feeds and timelines share.
//!
//! Invariants:
//! - The stream ends only at the true end; where a page makes no progress, or would have the scan go on below entries that
//!   it could not show, it ends with an error instead.
//! - Each page reflects at least what the one before reflected, whichever replica it comes from (R16).

use fanfold_protocol::message::Page;
use fanfold_protocol::{Cursor, EntryId, Token};
use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, StreamExt, try_unfold};

use crate::error::Error;

enum Step {
    Read(Option<Cursor>, Option<Token>),
    /// Entries at or above this id were shown.
    Stalled(EntryId),
    End,
}

/// All pages from a cursor (or the newest entry) on, each read when the one before was taken; `read` gets the cursor and the
/// token of the page before.
pub(crate) fn pages<F>(first: Option<Cursor>, read: F) -> BoxStream<'static, Result<Page, Error>>
where
    F: Fn(Option<Cursor>, Option<Token>) -> BoxFuture<'static, Result<Page, Error>> + Send + 'static,
{
    let start = (Step::Read(first, None), read);
    try_unfold(start, |(step, read)| async move {
        let (cursor, token) = match step {
            Step::Read(cursor, token) => (cursor, token),
            Step::Stalled(below) => return Err(Error::ScanStalled { below }),
            Step::End => return Ok(None),
        };
        let page = read(cursor, token).await?;
        let next = match page.next {
            None => Step::End,
            Some(next) if page.entries.is_empty() && cursor == Some(next) => Step::Stalled(next.below),
            Some(next) if page.complete_to > next.below => Step::Stalled(page.complete_to),
            Some(next) => Step::Read(Some(next), Some(page.token)),
        };
        Ok(Some((page, (next, read))))
    })
    .boxed()
}
