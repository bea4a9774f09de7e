//! Owns hydration: payloads, and what entries refer to, with one batched question per partition.

use std::collections::{BTreeMap, BTreeSet};

use fanfold_storage::entry::Entry;
use fanfold_storage::ids::{EntryId, GraphId, PartitionId, SpaceId, UserId};
use fanfold_storage::partition::Subject;

use super::ask::Asker;
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

/// Hydrates entries by id, in the order asked.
pub(super) async fn hydrate(
    asker: Asker<'_>,
    viewer: Option<UserId>,
    ids: &[EntryId],
) -> Result<Vec<Hydrated>, NodeError> {
    let (found, unreachable) = asker.entries_by_id(ids).await;
    let taken = ids.iter().zip(found).map(|(id, found)| match found {
        Some(entry) => Hydrated::Live(EntryView::hydrated(entry)),
        None if unreachable.contains(&asker.home_of_entry(*id)) => {
            Hydrated::Unreachable(asker.home_of_entry(*id))
        }
        None => Hydrated::Gone,
    });
    let mut hydrated: Vec<_> = taken.collect();
    let live = hydrated.iter_mut().filter_map(|item| match item {
        Hydrated::Live(view) => Some(view),
        _ => None,
    });
    refer(asker, viewer, live.collect()).await?;
    Ok(hydrated)
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
    let home = asker.confirmed_home(viewer).await?;
    home.read(|state| {
        let graphs: BTreeMap<SpaceId, GraphId> =
            state.spaces().map(|space| (space.id, space.graph)).collect();
        // An entry of a space that the viewer's partition does not know cannot have been followed there.
        let subject = |entry: &&Entry| Subject {
            graph: graphs.get(&entry.space).copied().unwrap_or_default(),
            owner: entry.owner,
            author: entry.author,
            referenced_owner: entry.reference.map(|reference| reference.owner),
            audience: entry.audience,
        };
        let admitted = state.admits(viewer, &entries.iter().map(subject).collect::<Vec<_>>());
        entries.iter().zip(admitted).filter(|(_, admitted)| *admitted).map(|(entry, _)| entry.id).collect()
    })
}
