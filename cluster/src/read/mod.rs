//! Owns the read coordinators: they gather what one answer needs from the partitions that have it.
//!
//! - The reader's partition decides what a feed admits; the owners' partitions only say what there is.
//! - Every partition is asked in batches, once per round, and every node with one call; rounds and owners have named
//!   budgets.
//! - A page says down to which id it is complete, and why it is short if it is (R15).
//! - Reads change nothing.

mod ask;
mod edges;
mod explain;
mod feed;
mod hydrate;
mod kept;
mod question;
mod ready;
mod request;
#[cfg(test)]
mod tests;
mod timeline;
mod view;

pub(crate) use ask::{Asker, answer_asked};
pub(crate) use edges::{counts, scan_followees, scan_followers};
pub(crate) use explain::explain;
pub(crate) use feed::read_feed;
pub(crate) use kept::KeptEntries;
pub(crate) use question::{Question, Reply};
pub(crate) use timeline::{read_entries, read_timeline};

pub use ready::{ReadyFeeds, ReadyPage};
pub use request::{
    Consistency, EntriesRequest, FOLLOW_SCAN_LIMIT_MAX, FeedRequest, FeedsRequest, IDS_MAX, LIMIT_MAX, Mark,
    PAGE_BYTES_MAX, READERS_MAX, ScanAfter, TimelineRequest,
};
pub use view::{
    Budget, Counts, Edge, EdgePage, EntryView, Explanation, Page, Reason, ReferenceState, ReferenceView,
    ShortReason,
};
