//! Owns the mapping of writes and of what came of them.

use fanfold_cluster::{NodeError, Receipt};
use fanfold_protocol::message as wire;
use fanfold_storage::command as stored;
use fanfold_storage::entry::EntryRef;
use fanfold_storage::ids::{Sequence, SessionId};
use fanfold_storage::space::SpaceDefinition;

use super::import::{import_entry, import_follows};
use super::{
    Refused, audience, entry_id, entry_id_to_wire, error_to_status, graph_id, refusal_to_status, space_id,
    stamp_to_wire, token, user, user_to_wire, users,
};

/// What makes a write recognisable, from the wire.
pub fn tag(tag: wire::WriteTag) -> stored::WriteTag {
    stored::WriteTag {
        session: SessionId(tag.session.0),
        sequence: Sequence(tag.sequence.0),
        lowest_unanswered: Sequence(tag.lowest_unanswered.0),
    }
}

/// A write, from the wire.
pub fn write(op: wire::WriteOp) -> stored::Write {
    match op {
        wire::WriteOp::Append(items) => {
            stored::Write::Append { items: items.into_iter().map(append).collect() }
        }
        wire::WriteOp::Amend(amend) => stored::Write::Amend {
            space: space_id(amend.entry.space),
            owner: user(amend.entry.owner),
            id: entry_id(amend.entry.id),
            expected_version: amend.expected_version,
            payload: amend.payload,
        },
        wire::WriteOp::Delete(entry) => stored::Write::Delete {
            space: space_id(entry.space),
            owner: user(entry.owner),
            id: entry_id(entry.id),
        },
        wire::WriteOp::SetExpiry(set) => stored::Write::SetExpiry {
            space: space_id(set.entry.space),
            owner: user(set.entry.owner),
            id: entry_id(set.entry.id),
            ttl: match set.expiry {
                wire::ExpiryChoice::Clear => stored::Ttl::Never,
                wire::ExpiryChoice::InMs(ms) => in_ms(ms),
            },
        },
        wire::WriteOp::Follow(e) => stored::Write::Follow {
            graph: graph_id(e.graph),
            reader: user(e.reader),
            owners: users(e.owners),
        },
        wire::WriteOp::Unfollow(e) => stored::Write::Unfollow {
            graph: graph_id(e.graph),
            reader: user(e.reader),
            owners: users(e.owners),
        },
        wire::WriteOp::Mute(t) => stored::Write::Mute { user: user(t.user), targets: users(t.targets) },
        wire::WriteOp::Unmute(t) => stored::Write::Unmute { user: user(t.user), targets: users(t.targets) },
        wire::WriteOp::Block(t) => stored::Write::Block { user: user(t.user), targets: users(t.targets) },
        wire::WriteOp::Unblock(t) => stored::Write::Unblock { user: user(t.user), targets: users(t.targets) },
        wire::WriteOp::ImportFollows(follows) => import_follows(follows),
        wire::WriteOp::ImportEntries(entries) => {
            stored::Write::ImportEntries { entries: entries.into_iter().map(import_entry).collect() }
        }
    }
}

fn append(item: wire::AppendItem) -> stored::Append {
    stored::Append {
        space: space_id(item.space),
        owner: user(item.owner),
        author: item.author.map(user),
        audience: audience(item.audience),
        ttl: match item.ttl {
            wire::TtlChoice::SpaceDefault => stored::Ttl::SpaceDefault,
            wire::TtlChoice::Never => stored::Ttl::Never,
            wire::TtlChoice::Ms(ms) => in_ms(ms),
        },
        key: item.key,
        reference: item.reference.map(|r| EntryRef { owner: user(r.owner), id: entry_id(r.id) }),
        payload: item.payload,
    }
}

/// A time to live; a negative one becomes zero, which the partition refuses in the same way.
fn in_ms(ms: i64) -> stored::Ttl {
    stored::Ttl::Ms { ttl_ms: u64::try_from(ms).unwrap_or(0) }
}

/// The times to live that a write names, so that a refusal can say what came.
pub fn named_ttls(op: &wire::WriteOp) -> Vec<i64> {
    match op {
        wire::WriteOp::Append(items) => {
            let ms = |item: &wire::AppendItem| if let wire::TtlChoice::Ms(ms) = item.ttl { ms } else { 0 };
            items.iter().map(ms).collect()
        }
        wire::WriteOp::SetExpiry(wire::SetExpiry { expiry: wire::ExpiryChoice::InMs(ms), .. }) => vec![*ms],
        _ => Vec::new(),
    }
}

/// What the refusal of a write says besides its reason.
pub struct WriteRefused<'a> {
    /// The times to live that the write named ([`named_ttls`]).
    pub ttls_ms: &'a [i64],
    /// Whether it was to set an expiry.
    pub is_expiry: bool,
}

/// The answer to a write. The spaces are asked for only to word a refusal.
pub fn receipt(
    written: Result<Receipt, NodeError>,
    refused: &WriteRefused<'_>,
    spaces: impl Fn() -> Vec<SpaceDefinition>,
) -> fanfold_protocol::Reply {
    let words = |spaces| Refused { spaces, ttls_ms: refused.ttls_ms, expiry: refused.is_expiry };
    match written {
        Ok(receipt) => {
            let is_refused =
                |item: &stored::AppendResult| matches!(item, stored::AppendResult::Refused { .. });
            let spaces = match &receipt.result {
                stored::WriteResult::Appended { items } if items.iter().any(is_refused) => spaces(),
                stored::WriteResult::FollowsImported { refused, .. } if !refused.is_empty() => spaces(),
                _ => Vec::new(),
            };
            let result = write_result_to_wire(receipt.result, &words(&spaces));
            Ok(wire::Response::Written(wire::Written { token: token(&receipt.position), result }))
        }
        Err(error) => Err(error_to_status(error, &words(&spaces()), true)),
    }
}

/// What came of a write, to the wire.
fn write_result_to_wire(result: stored::WriteResult, refused: &Refused<'_>) -> wire::WriteResult {
    match result {
        stored::WriteResult::Appended { items } => {
            let outcome = |(at, item)| append_outcome(item, &refused.at(at));
            wire::WriteResult::Appended(items.into_iter().enumerate().map(outcome).collect())
        }
        stored::WriteResult::Amended { version } => wire::WriteResult::Amended { version },
        stored::WriteResult::Deleted { existed } => wire::WriteResult::Deleted { existed },
        stored::WriteResult::ExpirySet { expiry } => {
            wire::WriteResult::ExpirySet { expiry: expiry.map(stamp_to_wire) }
        }
        stored::WriteResult::Related { changed, refused } => {
            wire::WriteResult::Related { changed, refused: refused.into_iter().map(user_to_wire).collect() }
        }
        stored::WriteResult::FollowsImported { changed, refused: edges } => {
            let edges = edges.into_iter().map(|(at, why)| (at, refusal_to_status(why, refused)));
            wire::WriteResult::FollowsImported { changed, refused: edges.collect() }
        }
    }
}

fn append_outcome(item: stored::AppendResult, refused: &Refused<'_>) -> wire::AppendOutcome {
    match item {
        stored::AppendResult::Made { id, duplicate } => {
            wire::AppendOutcome::Ok { id: entry_id_to_wire(id), duplicate }
        }
        stored::AppendResult::Refused { refusal } => {
            wire::AppendOutcome::Refused(refusal_to_status(refusal, refused))
        }
    }
}
