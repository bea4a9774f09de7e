//! Owns hydration: payloads, and what entries refer to, with one batched question per partition.
//!
//! What is gathered has a limit in bytes: one for the entries, and the same for what they refer to. Where it is spent, hydration
//! ends; the first entry has always all that belongs to it, or no scan would go on.

use std::collections::BTreeSet;

use fanfold_storage::entry::{Delivery, Entry};
use fanfold_storage::ids::{EntryId, PartitionId, SpaceId, UserId};

use super::ask::{Asker, Gathered};
use super::question::{Question, Reply, Shown};
use super::view::{EntryView, ReferenceState};
use crate::error::NodeError;

/// What hydration found of one entry.
#[derive(Debug)]
pub(super) enum Hydrated {
    /// It lives.
    Live(EntryView),
    /// It is gone: deleted or expired meanwhile.
    Gone,
    /// Its partition did not answer.
    Unreachable(PartitionId),
}

/// Hydrates the rows of a viewer's feed of a space, in their order: the first of them, one at least, until about `bytes_max` bytes
/// (not 0) of payloads are there.
pub(super) async fn hydrate(
    asker: Asker<'_>,
    viewer: UserId,
    space: SpaceId,
    rows: &[Delivery],
    bytes_max: usize,
) -> Result<Vec<Hydrated>, NodeError> {
    let ids = rows.iter().map(|row| (asker.home_of_entry(row.id), row.id));
    let Gathered { mut found, unreachable, left } = asker.entries(ids, bytes_max).await;
    let first = rows.iter().take_while(|row| !left.contains(&row.id));
    let taken = first.map(|row| match found.remove(&row.id) {
        Some(entry) if is_of(&entry, space, row) => Hydrated::Live(EntryView::hydrated(entry)),
        None if unreachable.contains(&asker.home_of_entry(row.id)) => {
            Hydrated::Unreachable(asker.home_of_entry(row.id))
        }
        _ => Hydrated::Gone,
    });
    let mut hydrated: Vec<_> = taken.collect();
    let live = hydrated.iter_mut().filter_map(|item| match item {
        Hydrated::Live(view) => Some(view),
        _ => None,
    });
    let whole = refer(asker, Some(viewer), live.collect(), bytes_max).await?;
    let mut live = hydrated.iter().enumerate().filter(|(_, item)| matches!(item, Hydrated::Live(_)));
    if let Some((end, _)) = live.nth(whole) {
        hydrated.truncate(end);
    }
    Ok(hydrated)
}

/// Whether an entry is the one that a row is of: an import may give the id of one that is gone to another.
pub(super) fn is_of(entry: &Entry, space: SpaceId, row: &Delivery) -> bool {
    (entry.owner, entry.space) == (row.owner, space)
}

/// Fills in what views refer to, in their order, until about `bytes_max` bytes (not 0) of payloads are there; answers of how many
/// of the first views it is filled in: of one at least.
pub(super) async fn refer(
    asker: Asker<'_>,
    viewer: Option<UserId>,
    mut views: Vec<&mut EntryView>,
    bytes_max: usize,
) -> Result<usize, NodeError> {
    let mut seen = BTreeSet::new();
    let references = views.iter().filter_map(|view| view.reference.as_ref());
    let wanted = references.map(|reference| (asker.home_of(reference.owner), reference.id));
    let wanted: Vec<(PartitionId, EntryId)> = wanted.filter(|wanted| seen.insert(*wanted)).collect();
    if wanted.is_empty() {
        return Ok(views.len());
    }
    let Gathered { found, unreachable, left } = asker.entries(wanted, bytes_max).await;
    let visible = visible(asker, viewer, found.values()).await?;
    for view in &mut views {
        let Some(reference) = &mut view.reference else { continue };
        if left.contains(&reference.id) {
            continue;
        }
        let entry = found.get(&reference.id).filter(|entry| entry.owner == reference.owner);
        reference.state = match entry {
            Some(entry) if visible.contains(&entry.id) => {
                ReferenceState::Live(Box::new(EntryView::hydrated(entry.clone())))
            }
            None if unreachable.contains(&asker.home_of(reference.owner)) => ReferenceState::Unreachable,
            _ => ReferenceState::Gone,
        };
    }
    let is_left = |view: &&mut EntryView| view.reference.as_ref().is_some_and(|r| left.contains(&r.id));
    Ok(views.iter().position(is_left).unwrap_or(views.len()))
}

/// Which of some entries a viewer may see; all of them without a viewer.
pub(super) async fn visible<'e>(
    asker: Asker<'_>,
    viewer: Option<UserId>,
    entries: impl Iterator<Item = &'e Entry>,
) -> Result<BTreeSet<EntryId>, NodeError> {
    let entries: Vec<&Entry> = entries.collect();
    let Some(viewer) = viewer.filter(|_| !entries.is_empty()) else {
        return Ok(entries.iter().map(|entry| entry.id).collect());
    };
    let home = asker.home_of(viewer);
    let question =
        Question::Visible { viewer, entries: entries.iter().map(|entry| Shown::of(entry)).collect() };
    match asker.ask_one(home, question).await? {
        Reply::Visible { visible } if visible.len() == entries.len() => {
            let seen = entries.iter().zip(visible).filter(|(_, visible)| *visible);
            Ok(seen.map(|(entry, _)| entry.id).collect())
        }
        _ => Err(NodeError::Unavailable { partition: home, may_have_applied: false }),
    }
}
