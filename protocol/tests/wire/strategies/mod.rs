//! Owns the strategies that draw any message, for round trips; what all of them are made of is here.

use bytes::Bytes;
use fanfold_protocol::{
    Cursor, CursorScope, EdgePosition, EntryId, GraphId, Mark, PartitionId, SpaceId, Stamp, Token, UserId,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

mod writes;

pub use requests::request;
pub use responses::response;
pub use statuses::status;
mod cluster;
mod requests;
mod responses;
mod statuses;

/// Numbers of all magnitudes: uniform ones would nearly always be huge.
fn number() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0u32..64).prop_map(|(number, shift)| number >> shift)
}

fn number32() -> impl Strategy<Value = u32> {
    (any::<u32>(), 0u32..32).prop_map(|(number, shift)| number >> shift)
}

fn user() -> impl Strategy<Value = UserId> {
    number().prop_map(UserId)
}

fn users() -> impl Strategy<Value = Vec<UserId>> {
    (vec(user(), 0..20), any::<bool>()).prop_map(|(mut users, sorted)| {
        if sorted {
            users.sort_unstable();
        }
        users
    })
}

fn entry_id() -> impl Strategy<Value = EntryId> {
    any::<u64>().prop_map(EntryId)
}

fn stamp() -> impl Strategy<Value = Stamp> {
    number().prop_map(Stamp)
}

fn space() -> impl Strategy<Value = SpaceId> {
    any::<u16>().prop_map(SpaceId)
}

fn graph() -> impl Strategy<Value = GraphId> {
    any::<u16>().prop_map(GraphId)
}

fn partition() -> impl Strategy<Value = PartitionId> {
    any::<u16>().prop_map(PartitionId)
}

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn text() -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..12).prop_map(|characters| characters.into_iter().collect())
}

/// Any token.
pub fn token() -> impl Strategy<Value = Token> {
    (partition(), number(), number(), option::of(number())).prop_map(
        |(partition, incarnation, log_index, journal_position)| Token {
            partition,
            incarnation,
            log_index,
            journal_position,
        },
    )
}

/// Any cursor.
pub fn cursor() -> impl Strategy<Value = Cursor> {
    let scope = prop_oneof![
        space().prop_map(CursorScope::Feed),
        space().prop_map(CursorScope::Timeline),
        graph().prop_map(CursorScope::Followees),
        graph().prop_map(CursorScope::Followers),
    ];
    let after = (partition(), user()).prop_map(|(partition, user)| EdgePosition { partition, user });
    (scope, user(), entry_id(), number(), option::of(after))
        .prop_map(|(scope, subject, below, as_of, after)| Cursor { scope, subject, below, as_of, after })
}

/// Any mark.
pub fn mark() -> impl Strategy<Value = Mark> {
    (partition(), number(), number(), entry_id()).prop_map(
        |(partition, incarnation, row_position, id_bound)| Mark {
            partition,
            incarnation,
            row_position,
            id_bound,
        },
    )
}
