//! Owns the strategies that draw writes.

use fanfold_protocol::message::{
    Amend, AppendItem, Audience, Edges, EntryName, EntryRef, ExpiryChoice, FanOut, ImportEdge, ImportEntry,
    ImportExpiry, ImportFollows, ImportPlace, SetExpiry, SpaceChanges, SpacePolicy, Targets, TtlChoice,
    Write, WriteOp, WriteTag,
};
use fanfold_protocol::{Sequence, SessionId, Stamp};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::{bytes, entry_id, graph, number, number32, partition, space, stamp, user, users};

fn fan_out() -> impl Strategy<Value = FanOut> {
    select(vec![FanOut::Auto, FanOut::Push, FanOut::Pull])
}

pub(super) fn audience() -> impl Strategy<Value = Audience> {
    select(vec![Audience::Public, Audience::Followers, Audience::Private])
}

pub(super) fn policy() -> impl Strategy<Value = SpacePolicy> {
    let numbers = (number32(), number32(), any::<bool>());
    (option::of(number()), number32(), option::of(number()), fan_out(), numbers).prop_map(
        |(
            default_ttl_ms,
            feed_cap,
            horizon_ms,
            fan_out,
            (pull_threshold, payload_bytes_max, is_read_only),
        )| SpacePolicy {
            default_ttl_ms,
            feed_cap,
            horizon_ms,
            fan_out,
            pull_threshold,
            payload_bytes_max,
            is_read_only,
        },
    )
}

pub(super) fn changes() -> impl Strategy<Value = SpaceChanges> {
    let nullable = || option::of(option::of(number()));
    let number = || option::of(number32());
    let is_read_only = option::of(any::<bool>());
    (nullable(), number(), nullable(), option::of(fan_out()), number(), number(), is_read_only).prop_map(
        |(default_ttl_ms, feed_cap, horizon_ms, fan_out, pull_threshold, payload_bytes_max, is_read_only)| {
            SpaceChanges {
                default_ttl_ms,
                feed_cap,
                horizon_ms,
                fan_out,
                pull_threshold,
                payload_bytes_max,
                is_read_only,
            }
        },
    )
}

fn entry_name() -> impl Strategy<Value = EntryName> {
    (space(), user(), entry_id()).prop_map(|(space, owner, id)| EntryName { space, owner, id })
}

fn append_item() -> impl Strategy<Value = AppendItem> {
    let ttl = prop_oneof![
        Just(TtlChoice::SpaceDefault),
        Just(TtlChoice::Never),
        any::<i64>().prop_map(TtlChoice::Ms)
    ];
    let reference = (user(), entry_id()).prop_map(|(owner, id)| EntryRef { owner, id });
    (
        space(),
        user(),
        option::of(user()),
        audience(),
        ttl,
        option::of(bytes()),
        option::of(reference),
        bytes(),
    )
        .prop_map(|(space, owner, author, audience, ttl, key, reference, payload)| AppendItem {
            space,
            owner,
            author,
            audience,
            ttl,
            key,
            reference,
            payload,
        })
}

fn import_follows() -> impl Strategy<Value = ImportFollows> {
    let since = option::of((0..u64::MAX).prop_map(Stamp));
    let edge = (user(), user(), since).prop_map(|(reader, owner, since)| ImportEdge { reader, owner, since });
    (graph(), vec(edge, 0..5)).prop_map(|(graph, edges)| ImportFollows { graph, edges })
}

fn import_entry() -> impl Strategy<Value = ImportEntry> {
    let place = prop_oneof![stamp().prop_map(ImportPlace::Time), entry_id().prop_map(ImportPlace::Id)];
    let expiry = prop_oneof![
        Just(ImportExpiry::SpaceDefault),
        Just(ImportExpiry::Never),
        stamp().prop_map(ImportExpiry::At)
    ];
    (append_item(), place, expiry, number32()).prop_map(|(item, place, expiry, version)| ImportEntry {
        space: item.space,
        owner: item.owner,
        place,
        author: item.author,
        audience: item.audience,
        expiry,
        version,
        key: item.key,
        reference: item.reference,
        payload: item.payload,
    })
}

fn write_op() -> impl Strategy<Value = WriteOp> {
    let edges =
        || (graph(), user(), users()).prop_map(|(graph, reader, owners)| Edges { graph, reader, owners });
    let targets = || (user(), users()).prop_map(|(user, targets)| Targets { user, targets });
    let expiry = prop_oneof![Just(ExpiryChoice::Clear), any::<i64>().prop_map(ExpiryChoice::InMs)];
    prop_oneof![
        vec(append_item(), 0..5).prop_map(WriteOp::Append),
        (entry_name(), number32(), bytes()).prop_map(|(entry, expected_version, payload)| {
            WriteOp::Amend(Amend { entry, expected_version, payload })
        }),
        entry_name().prop_map(WriteOp::Delete),
        (entry_name(), expiry).prop_map(|(entry, expiry)| WriteOp::SetExpiry(SetExpiry { entry, expiry })),
        edges().prop_map(WriteOp::Follow),
        edges().prop_map(WriteOp::Unfollow),
        targets().prop_map(WriteOp::Mute),
        targets().prop_map(WriteOp::Unmute),
        targets().prop_map(WriteOp::Block),
        targets().prop_map(WriteOp::Unblock),
        import_follows().prop_map(WriteOp::ImportFollows),
        vec(import_entry(), 0..5).prop_map(WriteOp::ImportEntries),
    ]
}

pub(super) fn write() -> impl Strategy<Value = Write> {
    let tag = (number(), number(), number()).prop_map(|(session, sequence, lowest)| WriteTag {
        session: SessionId(session),
        sequence: Sequence(sequence),
        lowest_unanswered: Sequence(lowest),
    });
    (partition(), number(), tag, write_op()).prop_map(|(partition, epoch, tag, op)| Write {
        partition,
        epoch,
        tag,
        op,
    })
}
