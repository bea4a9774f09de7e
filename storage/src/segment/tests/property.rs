//! Owns the comparison of a segment with an ordered map.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

type Model = BTreeMap<(SpaceId, UserId, Reverse<EntryId>), Entry>;

fn owners() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0u64..6, 2 => 100u64..400, 1 => any::<u64>(), 1 => Just(u64::MAX)]
}

fn ids() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0u64..600, 4 => (0u64..1 << 30).prop_map(|tick| tick << 12), 1 => any::<u64>()]
}

fn payloads() -> impl Strategy<Value = Vec<u8>> {
    let bytes = |sizes| prop::collection::vec(any::<u8>(), sizes);
    let long = (any::<u8>(), 30_000usize..200_000).prop_map(|(byte, size)| vec![byte; size]);
    prop_oneof![20 => bytes(0..60), 4 => Just(Vec::new()), 1 => long]
}

fn entries() -> impl Strategy<Value = Entry> {
    let audience = prop_oneof![Just(Audience::Public), Just(Audience::Followers), Just(Audience::Private)];
    let reference = prop::option::of((any::<u64>(), any::<u64>()));
    let expiry = prop::option::of(prop_oneof![3 => 5_000u64..9_000, 1 => any::<u64>()]);
    let rest = (prop::option::of(owners()), audience, prop_oneof![Just(1), any::<u32>()], expiry, reference);
    (1u16..4, owners(), ids(), payloads(), rest).prop_map(|(space, owner, id, payload, rest)| {
        let (author, audience, version, expiry, reference) = rest;
        Entry {
            author: UserId(author.unwrap_or(owner)),
            audience,
            version,
            expiry: expiry.map(Stamp),
            reference: reference.map(|(owner, id)| EntryRef { owner: UserId(owner), id: EntryId(id) }),
            ..entry(space, owner, id, &payload)
        }
    })
}

fn model() -> impl Strategy<Value = Model> {
    prop::collection::vec(entries(), 1..400).prop_map(|entries| {
        let by_id: BTreeMap<EntryId, Entry> = entries.into_iter().map(|entry| (entry.id, entry)).collect();
        by_id.into_values().map(|entry| ((entry.space, entry.owner, Reverse(entry.id)), entry)).collect()
    })
}

/// Compares a timeline below one id, whether it is there or not.
fn compare(segment: &Segment, model: &Model, space: SpaceId, owner: UserId, below: EntryId) {
    let expected: Vec<Entry> = model
        .range((space, owner, Reverse(EntryId::MAX))..=(space, owner, Reverse(EntryId::ZERO)))
        .map(|(_, entry)| entry.clone())
        .filter(|entry| entry.id < below)
        .collect();
    let newest: Result<Vec<Entry>, _> = segment.newest(space, owner, below).collect();
    assert_eq!(newest.unwrap(), expected);
    let ids: Result<Vec<EntryId>, _> = segment.ids(space, owner, below).collect();
    assert!(ids.unwrap().into_iter().eq(expected.iter().map(|entry| entry.id)));
    assert!(expected.is_empty() || segment.may_hold(space, owner));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_read_answers_as_an_ordered_map(
        model in model(),
        others in prop::collection::vec((0u16..5, owners(), ids()), 40),
    ) {
        let entries: Vec<Entry> = model.values().cloned().collect();
        let (fs, segment) = segment(&entries);
        segment.verify().unwrap();
        prop_assert_eq!(all(&segment).unwrap(), entries.clone());

        let info = *segment.info();
        let expiries = || entries.iter().filter_map(|entry| entry.expiry);
        prop_assert_eq!(info.number, NUMBER);
        prop_assert_eq!(info.entries, entries.len() as u64);
        prop_assert_eq!(Some(info.lowest), entries.iter().map(|entry| entry.id).min());
        prop_assert_eq!(Some(info.highest), entries.iter().map(|entry| entry.id).max());
        prop_assert_eq!(info.expiry, expiries().min().zip(expiries().max()));
        prop_assert_eq!(info.expiring, expiries().count() as u64);
        prop_assert_eq!(info.payload_bytes, entries.iter().map(|entry| entry.payload.len() as u64).sum::<u64>());
        let content = fs.content(&path()).unwrap();
        prop_assert_eq!((info.bytes, info.checksum), (content.len() as u64, crc32fast::hash(&content)));

        for entry in &entries {
            let found = segment.get(entry.id).unwrap();
            prop_assert_eq!(found.as_ref(), Some(entry));
            for id in [entry.id.0.saturating_sub(1), entry.id.0.saturating_add(1)].map(EntryId) {
                let there = entries.iter().any(|entry| entry.id == id);
                prop_assert_eq!(segment.holds(id).unwrap(), there);
                compare(&segment, &model, entry.space, entry.owner, id);
            }
            compare(&segment, &model, entry.space, entry.owner, entry.id);
            compare(&segment, &model, entry.space, entry.owner, EntryId::MAX);
        }
        for (space, owner, id) in others {
            let there = entries.iter().find(|entry| entry.id.0 == id);
            let found = segment.get(EntryId(id)).unwrap();
            prop_assert_eq!(found.as_ref(), there);
            compare(&segment, &model, SpaceId(space), UserId(owner), EntryId(id));
        }
        for stamp in expiries().flat_map(|stamp| [stamp.0, stamp.0.saturating_sub(1), stamp.0.saturating_add(1)]).chain([0]) {
            let expected = expiries().filter(|expiry| expiry.0 > stamp).min();
            prop_assert_eq!(segment.next_expiry_after(Stamp(stamp)), expected);
        }
    }
}
