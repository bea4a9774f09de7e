//! Owns hydration: payloads, and what entries refer to, with one batched question per partition.

use std::collections::BTreeSet;

use fanfold_storage::entry::{Delivery, Entry};
use fanfold_storage::ids::{EntryId, PartitionId, SpaceId, UserId};

use super::ask::Asker;
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

/// Hydrates the rows of a viewer's feed of a space, in their order.
pub(super) async fn hydrate(
    asker: Asker<'_>,
    viewer: UserId,
    space: SpaceId,
    rows: &[Delivery],
) -> Result<Vec<Hydrated>, NodeError> {
    let ids: Vec<EntryId> = rows.iter().map(|row| row.id).collect();
    let (found, unreachable) = asker.entries_by_id(&ids).await;
    let taken = rows.iter().zip(found).map(|(row, found)| match found {
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
    refer(asker, Some(viewer), live.collect()).await?;
    Ok(hydrated)
}

/// Whether an entry is the one that a row is of: an import may give the id of one that is gone to another.
pub(super) fn is_of(entry: &Entry, space: SpaceId, row: &Delivery) -> bool {
    (entry.owner, entry.space) == (row.owner, space)
}

/// Fills in what views refer to.
pub(super) async fn refer(
    asker: Asker<'_>,
    viewer: Option<UserId>,
    mut views: Vec<&mut EntryView>,
) -> Result<(), NodeError> {
    let wanted: BTreeSet<(PartitionId, EntryId)> = views
        .iter()
        .filter_map(|view| view.reference.as_ref())
        .map(|reference| (asker.home_of(reference.owner), reference.id))
        .collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let (found, unreachable) = asker.entries(wanted).await;
    let visible = visible(asker, viewer, found.values()).await?;
    for view in &mut views {
        let Some(reference) = &mut view.reference else { continue };
        let entry = found.get(&reference.id).filter(|entry| entry.owner == reference.owner);
        reference.state = match entry {
            Some(entry) if visible.contains(&entry.id) => {
                ReferenceState::Live(Box::new(EntryView::hydrated(entry.clone())))
            }
            None if unreachable.contains(&asker.home_of(reference.owner)) => ReferenceState::Unreachable,
            _ => ReferenceState::Gone,
        };
    }
    Ok(())
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
