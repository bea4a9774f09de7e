//! Owns the mapping of what reads answer: pages, entries, edges, explanations, positions and cursors.
//!
//! - A cursor or mark of another space, subject or kind is refused, never misread.
//! - A page that would not fit a frame ends early and says so.

use fanfold_cluster::Position;
use fanfold_cluster::read as stored;
use fanfold_protocol as wire;
use fanfold_protocol::message as answer;
use fanfold_storage::entry::Delivery;
use fanfold_storage::ids::{EntryId, JournalPosition, PartitionId, RowPosition};

use super::{
    audience_to_wire, entry_id, entry_id_to_wire, partition_id, partition_id_to_wire, stamp_to_wire, user,
    user_to_wire,
};

const SPENT_BYTES: answer::ShortReason = answer::ShortReason::Spent(answer::Budget::Bytes);

/// About the bytes of an entry besides its payload.
const ENTRY_OVERHEAD_BYTES: usize = 64;

/// A token, to the wire.
pub fn token(position: &Position) -> wire::Token {
    wire::Token {
        partition: partition_id_to_wire(position.partition),
        incarnation: position.incarnation,
        log_index: position.index,
        journal_position: position.journal.map(|journal| journal.0),
    }
}

/// A token, from the wire.
pub fn position(token: &wire::Token) -> Position {
    Position {
        partition: PartitionId(token.partition.0),
        incarnation: token.incarnation,
        index: token.log_index,
        journal: token.journal_position.map(JournalPosition),
    }
}

/// A mark, from the wire.
pub fn mark(mark: &wire::Mark) -> stored::Mark {
    stored::Mark {
        partition: partition_id(mark.partition),
        incarnation: mark.incarnation,
        row: RowPosition(mark.row_position),
        id_bound: entry_id(mark.id_bound),
    }
}

fn mark_to_wire(mark: &stored::Mark) -> wire::Mark {
    wire::Mark {
        partition: partition_id_to_wire(mark.partition),
        incarnation: mark.incarnation,
        row_position: mark.row.0,
        id_bound: entry_id_to_wire(mark.id_bound),
    }
}

/// Where a scan of entries goes on: at the top, or below the cursor's id.
pub fn below(
    cursor: Option<&wire::Cursor>,
    scope: wire::CursorScope,
    subject: wire::UserId,
) -> Result<EntryId, wire::Status> {
    let Some(cursor) = cursor else { return Ok(EntryId::MAX) };
    cursor.check(scope, subject)?;
    Ok(entry_id(cursor.below))
}

/// Where a scan of edges goes on.
pub fn after(
    cursor: Option<&wire::Cursor>,
    scope: wire::CursorScope,
    subject: wire::UserId,
) -> Result<Option<stored::ScanAfter>, wire::Status> {
    let Some(cursor) = cursor else { return Ok(None) };
    cursor.check(scope, subject)?;
    let after = cursor.after.ok_or(wire::Status::BadCursor)?;
    Ok(Some(stored::ScanAfter { partition: partition_id(after.partition), user: user(after.user) }))
}

/// A page, to the wire, of at most about `bytes_max` bytes.
pub fn page(
    mut page: stored::Page,
    scope: wire::CursorScope,
    subject: wire::UserId,
    bytes_max: usize,
) -> answer::Page {
    let mut bytes = 0;
    let fitting = page.entries.iter().take_while(|entry| {
        bytes += entry_bytes(entry);
        bytes <= bytes_max
    });
    let mut fitting = fitting.count();
    if let Some(first) = page.entries.first_mut().filter(|_| fitting == 0) {
        // Its own payload fits always, being at most half a frame; with what it refers to it may not.
        if let Some(reference) = &mut first.reference {
            reference.state = stored::ReferenceState::NotHydrated;
        }
        fitting = 1;
    }
    let is_cut = fitting < page.entries.len();
    let last = page.entries[..fitting].last().map(|entry| entry.id);
    let (next, complete_to) = match last.filter(|_| is_cut) {
        Some(last) => (Some(last), page.complete_to.max(last)),
        None => (page.next, page.complete_to),
    };
    let mut short_of: Vec<_> = page.short_of.iter().copied().map(short_reason).collect();
    if is_cut && !short_of.contains(&SPENT_BYTES) {
        short_of.push(SPENT_BYTES);
    }
    let next = next.map(|below| wire::Cursor {
        scope,
        subject,
        below: entry_id_to_wire(below),
        as_of: 0,
        after: None,
    });
    answer::Page {
        entries: page.entries.into_iter().take(fitting).map(entry).collect(),
        next,
        complete_to: entry_id_to_wire(complete_to),
        short_of,
        mark: page.mark.as_ref().map(mark_to_wire),
        new_count: page.new_count,
        token: token(&page.position),
    }
}

/// A page that was found at once, but for its entries; none if it might not fit into so many bytes.
pub fn ready_page(
    page: &stored::ReadyPage<'_>,
    scope: wire::CursorScope,
    subject: wire::UserId,
    bytes_max: usize,
) -> Option<answer::Page> {
    if page.len() * ENTRY_OVERHEAD_BYTES + page.payload_bytes() > bytes_max {
        return None;
    }
    let next = page.next.map(|below| wire::Cursor {
        scope,
        subject,
        below: entry_id_to_wire(below),
        as_of: 0,
        after: None,
    });
    Some(answer::Page {
        entries: Vec::new(),
        next,
        complete_to: entry_id_to_wire(page.next.unwrap_or(EntryId::ZERO)),
        short_of: Vec::new(),
        mark: Some(mark_to_wire(&page.mark)),
        new_count: None,
        token: token(&page.position),
    })
}

fn entry_bytes(entry: &stored::EntryView) -> usize {
    let referenced = entry.reference.as_ref().map_or(0, |reference| match &reference.state {
        stored::ReferenceState::Live(entry) => entry_bytes(entry),
        _ => ENTRY_OVERHEAD_BYTES,
    });
    ENTRY_OVERHEAD_BYTES + entry.payload.as_ref().map_or(0, bytes::Bytes::len) + referenced
}

fn short_reason(reason: stored::ShortReason) -> answer::ShortReason {
    match reason {
        stored::ShortReason::Unreachable { partition } => {
            answer::ShortReason::Unreachable(partition_id_to_wire(partition))
        }
        stored::ShortReason::Spent { budget: stored::Budget::OwnersAsked } => {
            answer::ShortReason::Spent(answer::Budget::OwnersAsked)
        }
        stored::ShortReason::Spent { budget: stored::Budget::Rounds } => {
            answer::ShortReason::Spent(answer::Budget::Time)
        }
        stored::ShortReason::Spent { budget: stored::Budget::Bytes } => SPENT_BYTES,
    }
}

/// An entry of a page that was found at once, to the wire.
#[inline]
pub fn entry_parts<'a>((entry, payload): (&'a Delivery, Option<&'a [u8]>)) -> answer::EntryParts<'a> {
    answer::EntryParts {
        id: entry_id_to_wire(entry.id),
        owner: user_to_wire(entry.owner),
        author: user_to_wire(entry.author),
        audience: audience_to_wire(entry.audience),
        version: entry.version,
        expiry: entry.expiry.map(stamp_to_wire),
        payload,
        reference: None,
    }
}

/// An entry, to the wire.
pub fn entry(entry: stored::EntryView) -> answer::EntryView {
    answer::EntryView {
        id: entry_id_to_wire(entry.id),
        owner: user_to_wire(entry.owner),
        author: user_to_wire(entry.author),
        audience: audience_to_wire(entry.audience),
        version: entry.version,
        expiry: entry.expiry.map(stamp_to_wire),
        payload: entry.payload,
        reference: entry.reference.map(|reference| answer::ReferenceView {
            owner: user_to_wire(reference.owner),
            id: entry_id_to_wire(reference.id),
            state: reference_state(reference.state),
        }),
    }
}

fn reference_state(state: stored::ReferenceState) -> answer::ReferenceState {
    match state {
        stored::ReferenceState::NotHydrated | stored::ReferenceState::Unreachable => {
            answer::ReferenceState::NotHydrated
        }
        stored::ReferenceState::Gone => answer::ReferenceState::Gone,
        stored::ReferenceState::Live(live) => answer::ReferenceState::Live(Box::new(entry(*live))),
    }
}

/// A page of edges, to the wire.
pub fn edge_page(
    page: &stored::EdgePage,
    scope: wire::CursorScope,
    subject: wire::UserId,
) -> answer::EdgePage {
    let edge = |edge: &stored::Edge| answer::Edge {
        user: user_to_wire(edge.user),
        since: stamp_to_wire(edge.since),
    };
    let next = page.next.map(|after| wire::Cursor {
        scope,
        subject,
        below: wire::EntryId(0),
        as_of: 0,
        after: Some(wire::EdgePosition {
            partition: partition_id_to_wire(after.partition),
            user: user_to_wire(after.user),
        }),
    });
    answer::EdgePage { users: page.users.iter().map(edge).collect(), next }
}

/// An explanation, to the wire.
pub fn explanation(explanation: &stored::Explanation) -> answer::Explanation {
    let reasons = explanation.reasons.iter().filter_map(reason).collect();
    answer::Explanation { shown: explanation.shown, reasons }
}

fn reason(reason: &stored::Reason) -> Option<answer::Reason> {
    Some(match *reason {
        stored::Reason::OwnEntry => answer::Reason::OwnEntry,
        stored::Reason::FollowedSince { since } => answer::Reason::FollowedSince(stamp_to_wire(since)),
        stored::Reason::NotFollowed => answer::Reason::NotFollowed,
        stored::Reason::Pushed => answer::Reason::Pushed,
        stored::Reason::Pulled => answer::Reason::Pulled,
        stored::Reason::BelowFloor { floor } => answer::Reason::BelowFloor { floor: entry_id_to_wire(floor) },
        stored::Reason::NotFilledYet => answer::Reason::NotFilledYet,
        stored::Reason::OnItsWay { source, position, acknowledged } => answer::Reason::OnItsWay {
            source: partition_id_to_wire(source),
            position: position.0,
            acknowledged: acknowledged.0,
        },
        stored::Reason::Muted { user } => answer::Reason::Muted(user_to_wire(user)),
        stored::Reason::Blocked { blocker, blocked } => {
            answer::Reason::Blocked { blocker: user_to_wire(blocker), blocked: user_to_wire(blocked) }
        }
        stored::Reason::Expired { at } => answer::Reason::Expired(stamp_to_wire(at)),
        stored::Reason::Deleted => answer::Reason::Deleted,
        stored::Reason::AudienceExcludes { audience } => {
            answer::Reason::AudienceExcludes(audience_to_wire(audience))
        }
        stored::Reason::BelowHorizon { horizon } => answer::Reason::BelowHorizon(stamp_to_wire(horizon)),
        stored::Reason::PendingSlice => answer::Reason::PendingSlice,
        // The store may name reasons that this version of the protocol has no words for.
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use fanfold_storage::entry::Audience;
    use fanfold_storage::ids::UserId;

    use super::*;

    fn entry(id: u64, payload: usize, reference: Option<stored::EntryView>) -> stored::EntryView {
        let reference = reference.map(|to| stored::ReferenceView {
            owner: to.owner,
            id: to.id,
            state: stored::ReferenceState::Live(Box::new(to)),
        });
        stored::EntryView {
            id: EntryId(id),
            owner: UserId(1),
            author: UserId(1),
            audience: Audience::Public,
            version: 1,
            expiry: None,
            payload: Some(Bytes::from(vec![0; payload])),
            reference,
        }
    }

    #[test]
    fn an_entry_that_fits_only_without_what_it_refers_to_is_sent_without() {
        let entries = vec![entry(9, 500, Some(entry(3, 500, None))), entry(8, 500, None)];
        let position = Position { partition: PartitionId(0), incarnation: 1, index: 1, journal: None };
        let all = stored::Page {
            entries,
            next: None,
            complete_to: EntryId::ZERO,
            short_of: Vec::new(),
            mark: None,
            new_count: None,
            position,
        };
        let scope = wire::CursorScope::Feed(wire::SpaceId(1));
        let sent = |bytes_max| {
            let sent = page(all.clone(), scope, wire::UserId(1), bytes_max);
            let is_live = sent.entries[0]
                .reference
                .as_ref()
                .is_some_and(|reference| matches!(reference.state, answer::ReferenceState::Live(_)));
            (sent.entries.len(), is_live, sent.next.map(|next| next.below.0))
        };
        assert_eq!(sent(1_000), (1, false, Some(9)));
        assert_eq!(sent(1_200), (1, true, Some(9)));
        assert_eq!(sent(2_000), (2, true, None));
    }
}
