//! Owns the reads of timelines and of entries by id, through the eyes of a viewer if there is one.

use fanfold_storage::ids::EntryId;

use super::ask::{Asker, Gathered};
use super::hydrate::{refer, visible};
use super::request::{EntriesRequest, IDS_BYTES_MAX, PAGE_BYTES_MAX, TimelineRequest};
use super::view::{Budget, EntryView, Page, ShortReason};
use crate::error::NodeError;
use crate::partition::{PartitionHandle, position_of};

/// The most rounds in which a page is filled up after a viewer's filter.
const ROUNDS_MAX: u32 = 64;

/// Reads a timeline at the owner's home, which was confirmed.
pub(crate) async fn read_timeline(
    asker: Asker<'_>,
    home: &PartitionHandle,
    request: &TimelineRequest,
) -> Result<Page, NodeError> {
    let limit = request.limit as usize;
    let mut shown: Vec<EntryView> = Vec::new();
    let (mut below, mut short_of) = (request.below, Vec::new());
    let position = home.read(position_of)?;
    let mut rounds = 0;
    let bound = loop {
        rounds += 1;
        let (space, owner, want) = (request.space, request.owner, limit - shown.len());
        let slice = home.read(|state| state.timeline(space, owner, below, want))?;
        let bound = slice.entries.last().filter(|_| slice.more).map_or(EntryId::ZERO, |last| last.id);
        let seen = visible(asker, request.viewer, slice.entries.iter()).await?;
        let entries = slice.entries.into_iter().filter(|entry| seen.contains(&entry.id));
        let view =
            |entry| if request.hydrate { EntryView::hydrated(entry) } else { EntryView::of_entry(&entry) };
        shown.extend(entries.map(view));
        if bound == EntryId::ZERO || shown.len() == limit {
            break bound;
        }
        below = bound;
        if rounds == ROUNDS_MAX {
            short_of.push(ShortReason::Spent { budget: Budget::Rounds });
            break bound;
        }
    };
    let mut bound = bound;
    if request.hydrate {
        let whole = refer(asker, request.viewer, shown.iter_mut().collect(), PAGE_BYTES_MAX).await?;
        if whole < shown.len() {
            shown.truncate(whole);
            bound = shown.last().map_or(bound, |last| last.id);
            short_of.push(ShortReason::Spent { budget: Budget::Bytes });
        }
    }
    let next = (bound > EntryId::ZERO).then_some(bound);
    Ok(Page { entries: shown, next, complete_to: bound, short_of, mark: None, new_count: None, position })
}

/// Reads entries by id, in the order asked; none where there is no such entry in the space, or not for the viewer. What they refer
/// to is left out if it is too much, as they are answered one for one.
pub(crate) async fn read_entries(
    asker: Asker<'_>,
    request: &EntriesRequest,
) -> Result<Vec<Option<EntryView>>, NodeError> {
    let ids = request.ids.iter().map(|id| (asker.home_of_entry(*id), *id));
    let Gathered { found, unreachable, left } = asker.entries(ids, IDS_BYTES_MAX).await;
    if !left.is_empty() {
        let bytes: usize = found.values().map(|entry| entry.payload.len()).sum();
        return Err(NodeError::TooLarge { bytes: bytes as u64, limit_bytes: IDS_BYTES_MAX as u64 });
    }
    if let Some(partition) = unreachable.first() {
        return Err(NodeError::Unavailable { partition: *partition, may_have_applied: false });
    }
    let in_space = found.values().filter(|entry| entry.space == request.space);
    let seen = visible(asker, request.viewer, in_space).await?;
    let view = |id: &EntryId| {
        let entry = found.get(id).filter(|entry| entry.space == request.space && seen.contains(id))?;
        Some(EntryView::hydrated(entry.clone()))
    };
    let mut views: Vec<_> = request.ids.iter().map(view).collect();
    refer(asker, request.viewer, views.iter_mut().flatten().collect(), IDS_BYTES_MAX).await?;
    Ok(views)
}
