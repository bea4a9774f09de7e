//! Owns hydration: payloads, and what entries refer to, with one batched question per partition.
//!
//! - A row says which version of a payload its reader is owed, and that never changes: a replica on this node that has it, or a
//!   later one, answers without asking who leads. It must be of the very entry the row is of, so it counts only for rows that came as
//!   deliveries: those give an id once, while an import may give it to another entry of its owner when the first is gone.
//! - What a replica here does not have is asked of the leaders; what is asked for often is kept (`kept.rs`), and serves as a replica
//!   does.
//!
//! What is gathered has a limit in bytes: one for the entries, and the same for what they refer to. Where it is spent, hydration
//! ends; the first entry has always all that belongs to it, or no scan would go on.

use std::collections::{BTreeMap, BTreeSet};

use fanfold_storage::entry::{Delivery, Entry};
use fanfold_storage::ids::{EntryId, PartitionId, SpaceId, UserId};

use super::ask::{Asker, Gathered};
use super::question::{Question, Reply, Shown};
use super::view::{EntryView, ReferenceState};
use crate::error::NodeError;

/// Entries of a replica on this node that are read under one lock.
const NEAR_AT_ONCE: usize = 64;

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
/// (not 0) of payloads are there. `told` are those rows that their owners' homes told.
pub(super) async fn hydrate(
    asker: Asker<'_>,
    viewer: UserId,
    (space, rows): (SpaceId, &[Delivery]),
    told: &BTreeSet<EntryId>,
    bytes_max: usize,
) -> Result<Vec<Hydrated>, NodeError> {
    let delivered = rows.iter().filter(|row| !told.contains(&row.id));
    let mut near = near(asker, space, delivered, bytes_max);
    let left_of = |near: &BTreeMap<EntryId, Entry>| {
        let taken = near.values().map(|entry| entry.payload.len()).sum();
        bytes_max.saturating_sub(taken)
    };
    let is_far =
        |id: EntryId| asker.hosted(asker.home_of_entry(id)).is_none_or(|here| !here.group().is_leader());
    let lacking = rows.iter().filter(|row| !told.contains(&row.id) && !near.contains_key(&row.id));
    let far = lacking.filter(|row| is_far(row.id));
    let kept = asker.kept().find(far, left_of(&near), |entry, row| serves(entry, space, row));
    near.extend(kept.into_iter().map(|entry| (entry.id, entry)));
    let ids = rows.iter().filter(|row| !near.contains_key(&row.id));
    let ids = ids.map(|row| (asker.home_of_entry(row.id), row.id));
    // The first entry is asked for whatever the others take.
    let Gathered { mut found, unreachable, left } = asker.entries(ids, left_of(&near).max(1)).await;
    asker.kept().answered(found.values().filter(|entry| is_far(entry.id)));
    found.append(&mut near);
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

/// The entries of delivered rows that replicas on this node have, whoever leads: of each partition about its part of `bytes_max`
/// bytes of payloads, and one entry at least.
fn near<'r>(
    asker: Asker<'_>,
    space: SpaceId,
    rows: impl Iterator<Item = &'r Delivery>,
    bytes_max: usize,
) -> BTreeMap<EntryId, Entry> {
    let mut by_home: BTreeMap<PartitionId, Vec<&Delivery>> = BTreeMap::new();
    for row in rows {
        by_home.entry(asker.home_of_entry(row.id)).or_default().push(row);
    }
    let part = bytes_max / by_home.len().max(1);
    let mut near = BTreeMap::new();
    for (home, rows) in by_home {
        let Some(replica) = asker.hosted(home) else { continue };
        let mut bytes = 0;
        for rows in rows.chunks(NEAR_AT_ONCE) {
            let ids: Vec<EntryId> = rows.iter().map(|row| row.id).collect();
            let read = replica.read(|state| {
                state.entries_into(&ids, |place, entry| {
                    if serves(entry, space, rows[place])
                        && (bytes == 0 || bytes + entry.payload.len() <= part)
                    {
                        bytes += entry.payload.len();
                        near.insert(entry.id, entry.clone());
                    }
                });
            });
            // What a damaged replica has is nobody's.
            if read.is_err() || bytes >= part {
                break;
            }
        }
    }
    near
}

/// Whether what a replica has, which may be old, is what the reader of a row is owed: the version that was delivered or a later
/// one, which expires when the row does.
fn serves(entry: &Entry, space: SpaceId, row: &Delivery) -> bool {
    is_of(entry, space, row) && entry.version >= row.version && entry.expiry == row.expiry
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use fanfold_storage::entry::Audience;
    use fanfold_storage::ids::Stamp;

    use super::*;

    #[test]
    fn a_replica_serves_the_version_that_was_delivered_or_a_later_one() {
        let (space, other) = (SpaceId(1), SpaceId(2));
        let entry = |version, expiry| Entry {
            id: EntryId(7),
            space,
            owner: UserId(3),
            author: UserId(3),
            audience: Audience::Public,
            payload: Bytes::from_static(b"text"),
            version,
            expiry,
            reference: None,
        };
        let row = entry(2, None).delivery();
        assert!(serves(&entry(2, None), space, &row) && serves(&entry(3, None), space, &row));
        assert!(!serves(&entry(1, None), space, &row), "it was amended since");
        assert!(!serves(&entry(2, Some(Stamp(9))), space, &row), "its expiry was cleared since");
        assert!(!serves(&entry(2, None), other, &row));
        let of_another = Entry { owner: UserId(4), ..entry(2, None) };
        assert!(!serves(&of_another, space, &row));
    }
}
