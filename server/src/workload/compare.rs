//! Owns the comparison of everything a node shows with the oracle.
//!
//! - Every user's feed is read in full, page by page to the true end, and compared id by id, in order.
//! - Every user's timeline is read in full and hydrated, and compared in ids, payloads and references.
//! - Every user's counts of followers and followees are compared.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fanfold_client::{EntryView, ReferenceState};
use fanfold_protocol::{EntryId, UserId};
use fanfold_storage::entry::Entry;
use futures_util::stream::TryStreamExt;
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

    fn keep(&mut self, difference: Difference) {
        if self.differences.len() < DIFFERENCES_KEPT_MAX {
            self.differences.push(difference);
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
    compare_feed(access, mirror, user, found).await.map_err(failed)?;
    compare_timeline(access, mirror, user, found).await.map_err(failed)?;
    let counts = access.graph.counts(user).await.map_err(failed)?;
    if (Degree { followers: counts.followers, followees: counts.followees }) != mirror.degree(user) {
        found.counts_mismatched += 1;
    }
    Ok(())
}

async fn compare_feed(
    access: &Access,
    mirror: &Mirror,
    reader: UserId,
    found: &mut Comparison,
) -> Result<(), fanfold_client::Error> {
    let mut pages = access.space.feed(reader).limit(PAGE_LIMIT).pages();
    let mut got = Vec::new();
    while let Some(page) = pages.try_next().await? {
        found.pages_short += u64::from(!page.short_of.is_empty());
        got.extend(page.entries.iter().map(|entry| entry.id));
    }
    found.feeds_checked += 1;
    found.feed_entries += got.len() as u64;
    if let Some(difference) = difference(Compared::Feed, reader, &mirror.feed(reader), &got) {
        found.feeds_mismatched += 1;
        found.keep(difference.with_owners(mirror));
    }
    Ok(())
}

async fn compare_timeline(
    access: &Access,
    mirror: &Mirror,
    owner: UserId,
    found: &mut Comparison,
) -> Result<(), fanfold_client::Error> {
    let mut pages = access.space.timeline(owner).limit(PAGE_LIMIT).hydrate().pages();
    let (mut got, mut altered) = (Vec::new(), Vec::new());
    while let Some(page) = pages.try_next().await? {
        found.pages_short += u64::from(!page.short_of.is_empty());
        for view in page.entries {
            got.push(view.id);
            // An entry that the oracle has not is extra, not altered.
            if mirror.entry(view.id).is_some_and(|entry| !shows(&view, entry, mirror)) {
                altered.push(view.id);
            }
        }
    }
    found.timelines_checked += 1;
    let expected: Vec<EntryId> = mirror.timeline(owner);
    let differs = difference(Compared::Timeline, owner, &expected, &got);
    let difference = differs.or_else(|| Difference::altered(owner, &altered));
    if let Some(difference) = difference {
        found.timelines_mismatched += 1;
        found.keep(difference.with_owners(mirror));
    }
    Ok(())
}

/// Whether a hydrated view shows an entry as it is, with what it refers to.
fn shows(view: &EntryView, entry: &Entry, mirror: &Mirror) -> bool {
    shows_alone(view, entry)
        && match (&view.reference, &entry.reference) {
            (None, None) => true,
            (Some(shown), Some(wanted)) => {
                let target = mirror.entry(shown.id);
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
