//! Owns the comparison of everything a node shows with the oracle.
//!
//! - Every user's feed is read in full, page by page to the true end, and compared id by id, in order.
//! - The first page of each is read again, hydrated, and compared in payloads and references.
//! - Every user's timeline is read in full and hydrated, and compared in ids, payloads and references.
//! - Every user's counts of followers and followees are compared.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fanfold_client::{EntryView, Page, ReferenceState};
use fanfold_protocol::{EntryId, UserId};
use fanfold_storage::entry::Entry;
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use indicatif::ProgressBar;
use tokio::task::JoinSet;

use super::access::Access;
use super::difference::{Compared, Difference, difference};
use super::error::WorkloadError;
use super::mirror::{Degree, Mirror};
use super::words::stored_audience;

/// Users under comparison at once.
const UNDER_WAY: usize = 64;
/// Entries on a page: the most the protocol allows.
const PAGE_LIMIT: u32 = 1_000;
/// Looks at pages that say that they lack something, and the pause between two.
const LOOKS_MAX: u32 = 30;
const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_millis(200);
/// Entries on a first page that is read again, hydrated.
const FIRST_PAGE_LIMIT: u32 = 20;
/// Differences described in full; further ones are only counted.
pub const DIFFERENCES_KEPT_MAX: usize = 5;

/// What a comparison found.
#[derive(Debug, Clone, Default)]
pub struct Comparison {
    /// Feeds read in full.
    pub feeds_checked: u64,
    /// Of them, those that differ from the oracle.
    pub feeds_mismatched: u64,
    /// Timelines read in full.
    pub timelines_checked: u64,
    /// Of them, those that differ from the oracle.
    pub timelines_mismatched: u64,
    /// Users whose counts of followers or followees differ.
    pub counts_mismatched: u64,
    /// Entries that the feeds held together.
    pub feed_entries: u64,
    /// Pages that were short of something (R15) and were continued.
    pub pages_short: u64,
    /// The first differences.
    pub differences: Vec<Difference>,
}

impl Comparison {
    /// Whether nothing differs.
    pub fn is_clean(&self) -> bool {
        self.feeds_mismatched + self.timelines_mismatched + self.counts_mismatched == 0
    }

    /// Adds what another comparison found.
    pub fn add(&mut self, other: Self) {
        self.feeds_checked += other.feeds_checked;
        self.feeds_mismatched += other.feeds_mismatched;
        self.timelines_checked += other.timelines_checked;
        self.timelines_mismatched += other.timelines_mismatched;
        self.counts_mismatched += other.counts_mismatched;
        self.feed_entries += other.feed_entries;
        self.pages_short += other.pages_short;
        let room = DIFFERENCES_KEPT_MAX.saturating_sub(self.differences.len());
        self.differences.extend(other.differences.into_iter().take(room));
    }

    fn keep(&mut self, difference: Option<Difference>, mirror: &Mirror) {
        if self.differences.len() < DIFFERENCES_KEPT_MAX {
            self.differences.extend(difference.map(|difference| difference.with_owners(mirror)));
        }
    }
}

/// Compares everything of every user that the mirror knows. The fan-out must have drained.
pub async fn compare_all(
    access: &Access,
    mirror: &Arc<Mirror>,
    progress: &ProgressBar,
) -> Result<Comparison, WorkloadError> {
    let users: Arc<[UserId]> = mirror.users().collect();
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..UNDER_WAY {
        let (access, mirror, users) = (access.clone(), mirror.clone(), users.clone());
        let (next, progress) = (next.clone(), progress.clone());
        tasks.spawn(async move {
            let mut found = Comparison::default();
            while let Some(user) = users.get(next.fetch_add(1, Ordering::Relaxed)) {
                compare_user(&access, &mirror, *user, &mut found).await?;
                progress.inc(1);
            }
            Ok::<_, WorkloadError>(found)
        });
    }
    let mut all = Comparison::default();
    while let Some(found) = tasks.join_next().await {
        all.add(found??);
    }
    for difference in &mut all.differences {
        difference.explain(&access.space).await;
    }
    Ok(all)
}

async fn compare_user(
    access: &Access,
    mirror: &Mirror,
    user: UserId,
    found: &mut Comparison,
) -> Result<(), WorkloadError> {
    let failed = |source| WorkloadError::Read { user, source };
    let feed = || access.space.feed(user).limit(PAGE_LIMIT).pages();
    let feed = collect_whole(feed, Compare::Ids, mirror, found).await.map_err(failed)?;
    found.feeds_checked += 1;
    found.feed_entries += feed.ids.len() as u64;
    let mut differs = difference(Compared::Feed, user, &mirror.feed(user), &feed.ids);
    if differs.is_none() && !feed.ids.is_empty() {
        let page = || {
            let page = access.space.feed(user).limit(FIRST_PAGE_LIMIT).hydrate().into_future();
            stream::once(page).boxed()
        };
        let first =
            collect_whole(page, Compare::Contents(Some(user)), mirror, found).await.map_err(failed)?;
        let expected = &feed.ids[..feed.ids.len().min(FIRST_PAGE_LIMIT as usize)];
        differs = difference(Compared::Feed, user, expected, &first.ids)
            .or_else(|| Difference::altered(Compared::Feed, user, &first.altered));
    }
    found.feeds_mismatched += u64::from(differs.is_some());
    found.keep(differs, mirror);

    let timeline = || access.space.timeline(user).limit(PAGE_LIMIT).hydrate().pages();
    let timeline = collect_whole(timeline, Compare::Contents(None), mirror, found).await.map_err(failed)?;
    found.timelines_checked += 1;
    let differs = difference(Compared::Timeline, user, &mirror.timeline(user), &timeline.ids)
        .or_else(|| Difference::altered(Compared::Timeline, user, &timeline.altered));
    found.timelines_mismatched += u64::from(differs.is_some());
    found.keep(differs, mirror);

    let counts = access.graph.counts(user).await.map_err(failed)?;
    let degree = Degree { followers: counts.followers, followees: counts.followees };
    found.counts_mismatched += u64::from(degree != mirror.degree(user));
    Ok(())
}

/// What is compared of the entries on pages.
#[derive(Debug, Clone, Copy)]
enum Compare {
    /// Their ids.
    Ids,
    /// Everything, with references as far as this viewer may see them. The pages must be hydrated.
    Contents(Option<UserId>),
}

/// What pages held.
#[derive(Debug, Default)]
struct Collected {
    ids: Vec<EntryId>,
    /// Entries shown otherwise than they are; only of hydrated pages.
    altered: Vec<EntryId>,
    /// Whether a page said that it could not ask somebody: it was short, or left a reference open.
    is_partial: bool,
}

/// Collects pages, again as long as they say themselves that they lack something: while a partition changes its leader they
/// may. What pages do not say of themselves is a difference at the first look.
async fn collect_whole(
    pages: impl Fn() -> BoxStream<'static, Result<Page, fanfold_client::Error>>,
    compare: Compare,
    mirror: &Mirror,
    found: &mut Comparison,
) -> Result<Collected, fanfold_client::Error> {
    for _ in 1..LOOKS_MAX {
        let collected = collect(pages(), compare, mirror, found).await?;
        if !collected.is_partial {
            return Ok(collected);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    collect(pages(), compare, mirror, found).await
}

async fn collect(
    mut pages: BoxStream<'static, Result<Page, fanfold_client::Error>>,
    compare: Compare,
    mirror: &Mirror,
    found: &mut Comparison,
) -> Result<Collected, fanfold_client::Error> {
    let mut collected = Collected::default();
    while let Some(page) = pages.try_next().await? {
        let is_open = |view: &EntryView| {
            view.reference.as_ref().is_some_and(|reference| reference.state == ReferenceState::NotHydrated)
        };
        let leaves_open = matches!(compare, Compare::Contents(_)) && page.entries.iter().any(is_open);
        found.pages_short += u64::from(!page.short_of.is_empty());
        collected.is_partial |= leaves_open || !page.short_of.is_empty();
        for view in page.entries {
            collected.ids.push(view.id);
            // An entry that the oracle has not is extra, not altered.
            if let (Compare::Contents(viewer), Some(entry)) = (compare, mirror.entry(view.id))
                && !shows(&view, entry, viewer, mirror)
            {
                collected.altered.push(view.id);
            }
        }
    }
    Ok(collected)
}

/// Whether a hydrated view shows an entry as it is, with what it refers to as far as the viewer may see it.
fn shows(view: &EntryView, entry: &Entry, viewer: Option<UserId>, mirror: &Mirror) -> bool {
    shows_alone(view, entry)
        && match (&view.reference, &entry.reference) {
            (None, None) => true,
            (Some(shown), Some(wanted)) => {
                let target = mirror.entry(shown.id).filter(|target| mirror.admits(viewer, target));
                let state = match (&shown.state, target) {
                    (ReferenceState::Live(view), Some(target)) => shows_alone(view, target),
                    (ReferenceState::Gone, None) => true,
                    _ => false,
                };
                state && (shown.owner.0, shown.id.0) == (wanted.owner.0, wanted.id.0)
            }
            _ => false,
        }
}

fn shows_alone(view: &EntryView, entry: &Entry) -> bool {
    view.id.0 == entry.id.0
        && view.owner.0 == entry.owner.0
        && view.author.0 == entry.author.0
        && stored_audience(view.audience) == entry.audience
        && view.version == entry.version
        && view.payload.as_ref() == Some(&entry.payload)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use fanfold_protocol::message::Audience;

    use super::*;
    use crate::TestNode;
    use crate::workload::driver::Driver;
    use crate::workload::operation::{AppendNumber, Made, Operation, Post};

    fn post(owner: u64, reference: Option<Made>) -> Operation {
        let (owner, payload) = (UserId(owner), Bytes::from_static(b"text"));
        Operation::Append(Post { owner, author: None, audience: Audience::Public, reference, payload })
    }

    fn operations() -> Vec<Operation> {
        let of_9 = Made { owner: UserId(9), by: AppendNumber(0) };
        let follow =
            |reader| Operation::Follow { reader: UserId(reader), owners: vec![UserId(9), UserId(8)] };
        vec![follow(1), follow(2), follow(3), post(9, None), post(8, Some(of_9)), post(9, None)]
    }

    async fn compared(access: &Access, mirror: &Arc<Mirror>) -> Comparison {
        access.wait_drained().await.unwrap();
        compare_all(access, mirror, &ProgressBar::hidden()).await.unwrap()
    }

    /// A comparison that cannot fail would prove nothing: each thing done behind the mirror's back must show.
    #[tokio::test]
    async fn what_the_mirror_did_not_see_is_found() {
        let node = TestNode::start().await.unwrap();
        let access = Access::connect(&node.address(), Duration::from_secs(60)).await.unwrap();
        let mut mirror = Mirror::new(access.definition().await.unwrap());
        let mut driver = Driver::new(access.clone(), 4);
        driver.run(operations(), &mut mirror, &ProgressBar::hidden()).await.unwrap();
        let mirror = Arc::new(mirror);

        let clean = compared(&access, &mirror).await;
        assert!(clean.is_clean(), "{:?}", clean.differences);
        assert_eq!((clean.feeds_checked, clean.timelines_checked, clean.feed_entries), (5, 5, 12));

        let of_9 = mirror.timeline(UserId(9));
        access.space.amend(UserId(9), of_9[0], 1, "other").await.unwrap();
        let found = compared(&access, &mirror).await;
        // The owner and three readers see it on their first pages.
        assert_eq!((found.feeds_mismatched, found.timelines_mismatched), (4, 1));

        access.space.delete(UserId(9), of_9[1]).await.unwrap();
        let found = compared(&access, &mirror).await;
        // The reply to it stands in the timeline of 8, with a reference that is gone.
        assert_eq!((found.feeds_mismatched, found.timelines_mismatched), (5, 2));

        access.space.append(UserId(2), "extra").await.unwrap();
        access.graph.unfollow(UserId(2), UserId(8)).await.unwrap();
        let found = compared(&access, &mirror).await;
        assert_eq!((found.timelines_mismatched, found.counts_mismatched), (3, 2));
        assert_eq!(found.differences.len(), DIFFERENCES_KEPT_MAX);
        let named = found.differences.iter().any(|d| d.to_string().contains("shown: "));
        assert!(named, "{:?}", found.differences);
        node.stop().await.unwrap();
    }
}
