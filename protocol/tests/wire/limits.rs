//! What is well formed and not allowed is refused with the field and its limit (`promises.md`, rows 7 and 14).

use bytes::Bytes;
use fanfold_protocol::message::{
    AlterSpace, AppendItem, Audience, Consistency, CreateSpace, EntryName, ExpiryChoice, FanOut, ReadEntries,
    ReadFeed, ReadFeeds, SetExpiry, SpaceChanges, SpacePolicy, TtlChoice, Write, WriteOp, WriteTag,
};
use fanfold_protocol::{
    Cursor, CursorScope, EntryId, Field, GraphId, Limits, PartitionId, Request, Sequence, SessionId, SpaceId,
    Status, UserId,
};

fn item() -> AppendItem {
    AppendItem {
        space: SpaceId(1),
        owner: UserId(1),
        author: None,
        audience: Audience::Public,
        ttl: TtlChoice::SpaceDefault,
        key: None,
        reference: None,
        payload: Bytes::new(),
    }
}

fn write(op: WriteOp) -> Request {
    let tag = WriteTag { session: SessionId(1), sequence: Sequence(2), lowest_unanswered: Sequence(2) };
    Request::Write(Write { partition: PartitionId(0), epoch: 1, tag, op })
}

fn append(item: AppendItem) -> Request {
    write(WriteOp::Append(vec![item]))
}

fn feed(limit: u32) -> Request {
    Request::ReadFeed(ReadFeed {
        space: SpaceId(1),
        reader: UserId(1),
        limit,
        cursor: None,
        newer_than: None,
        hydrate: false,
        at_least: None,
        consistency: Consistency::Leader,
    })
}

fn check(request: &Request) -> Result<(), Status> {
    request.check(&Limits::default())
}

#[test]
fn any_replica_is_allowed_only_under_a_token_or_an_age() {
    let Request::ReadFeed(plain) = feed(1) else { unreachable!() };
    let field = Field::Consistency;
    let read = |consistency, at_least| {
        check(&Request::ReadFeed(ReadFeed { consistency, at_least, ..plain.clone() }))
    };
    let token = Some(crate::samples::token());
    assert_eq!(read(Consistency::AtLeast, None), Err(Status::Malformed { field }));
    assert_eq!(read(Consistency::AtLeast, token), Ok(()));
    assert_eq!(read(Consistency::StaleOk { max_ms: 1 }, None), Ok(()));
    let refused = Status::OutOfRange { field, min: 1, max: u32::MAX.into(), got: 0 };
    assert_eq!(read(Consistency::StaleOk { max_ms: 0 }, token), Err(refused));
    let (space, consistency) = (SpaceId(1), Consistency::AtLeast);
    let entries = |at_least| {
        check(&Request::ReadEntries(ReadEntries {
            space,
            ids: Vec::new(),
            viewer: None,
            consistency,
            at_least,
        }))
    };
    assert_eq!((entries(None), entries(token)), (Err(Status::Malformed { field }), Ok(())));
    let feeds = |at_least| {
        let feeds = ReadFeeds { space, readers: Vec::new(), limit: 1, hydrate: false, consistency, at_least };
        check(&Request::ReadFeeds(feeds))
    };
    assert_eq!((feeds(None), feeds(token)), (Err(Status::Malformed { field }), Ok(())));
}

#[test]
fn limit_of_zero_or_above_the_page_is_refused() {
    for (limit, got) in [(0, 0), (1_001, 1_001), (u32::MAX, i64::from(u32::MAX))] {
        let refused = Status::OutOfRange { field: Field::Limit, min: 1, max: 1_000, got };
        assert_eq!(check(&feed(limit)), Err(refused));
    }
    assert_eq!(check(&feed(1)), Ok(()));
    assert_eq!(check(&feed(1_000)), Ok(()));
}

#[test]
fn payload_above_the_limit_is_refused() {
    let limit = Limits::default().payload_bytes_max as usize;
    let fits = AppendItem { payload: vec![0; limit].into(), ..item() };
    assert_eq!(check(&append(fits)), Ok(()));
    let large = AppendItem { payload: vec![0; limit + 1].into(), ..item() };
    assert_eq!(check(&append(large)), Err(Status::TooLarge { field: Field::Payload, limit: limit as u64 }));
}

#[test]
fn key_above_64_bytes_is_refused() {
    let keyed = |bytes: usize| append(AppendItem { key: Some(vec![1; bytes].into()), ..item() });
    assert_eq!(check(&keyed(64)), Ok(()));
    assert_eq!(check(&keyed(65)), Err(Status::TooLarge { field: Field::Key, limit: 64 }));
    assert_eq!(check(&keyed(0)), Err(Status::OutOfRange { field: Field::Key, min: 1, max: 64, got: 0 }));
}

#[test]
fn lifetime_that_is_no_time_or_above_a_hundred_years_is_refused() {
    let longest = 100 * 366 * 24 * 3_600 * 1_000;
    for got in [0, -1, i64::MIN, longest + 1, i64::MAX] {
        let refused = |field| Err(Status::OutOfRange { field, min: 1, max: longest as u64, got });
        let ttl = append(AppendItem { ttl: TtlChoice::Ms(got), ..item() });
        assert_eq!(check(&ttl), refused(Field::Ttl));
        let entry = EntryName { space: SpaceId(1), owner: UserId(1), id: EntryId(1) };
        let expiry = write(WriteOp::SetExpiry(SetExpiry { entry, expiry: ExpiryChoice::InMs(got) }));
        assert_eq!(check(&expiry), refused(Field::Expiry));
    }
    for ttl_ms in [1, longest] {
        assert_eq!(check(&append(AppendItem { ttl: TtlChoice::Ms(ttl_ms), ..item() })), Ok(()));
    }
}

#[test]
fn sequence_below_the_lowest_unanswered_is_refused() {
    let tagged = |sequence, lowest| {
        let tag = WriteTag {
            session: SessionId(1),
            sequence: Sequence(sequence),
            lowest_unanswered: Sequence(lowest),
        };
        let op = WriteOp::Append(vec![item()]);
        check(&Request::Write(Write { partition: PartitionId(0), epoch: 1, tag, op }))
    };
    assert_eq!(tagged(1, 1), Ok(()));
    assert!(matches!(tagged(0, 0), Err(Status::OutOfRange { field: Field::Sequence, .. })));
    assert!(matches!(tagged(5, 6), Err(Status::OutOfRange { field: Field::LowestUnanswered, max: 5, .. })));
    assert!(matches!(tagged(5, 0), Err(Status::OutOfRange { field: Field::LowestUnanswered, min: 1, .. })));
}

#[test]
fn policy_that_cannot_hold_is_refused() {
    let policy = SpacePolicy {
        default_ttl_ms: None,
        feed_cap: 800,
        horizon_ms: None,
        fan_out: FanOut::Auto,
        pull_threshold: 1,
        payload_bytes_max: 4_096,
        is_read_only: false,
    };
    let create = |name: &str, policy: SpacePolicy| {
        check(&Request::CreateSpace(CreateSpace { name: name.to_owned(), graph: None, policy }))
    };
    assert_eq!(create("posts", policy.clone()), Ok(()));
    assert!(matches!(create("", policy.clone()), Err(Status::OutOfRange { field: Field::Name, .. })));
    let long = "n".repeat(65);
    assert_eq!(create(&long, policy.clone()), Err(Status::TooLarge { field: Field::Name, limit: 64 }));
    let no_feed = SpacePolicy { feed_cap: 0, ..policy };
    assert!(matches!(create("posts", no_feed), Err(Status::OutOfRange { field: Field::FeedCap, .. })));
}

/// The change that sets one rule to a number.
type Change<'a> = &'a dyn Fn(u64) -> SpaceChanges;

#[test]
fn value_of_a_policy_out_of_range_is_refused_with_its_range() {
    let longest = 100 * 366 * 24 * 3_600 * 1_000;
    let none = SpaceChanges::default();
    let alter =
        |changes: SpaceChanges| check(&Request::AlterSpace(AlterSpace { name: "posts".to_owned(), changes }));
    let ttl = |ms| SpaceChanges { default_ttl_ms: Some(Some(ms)), ..none.clone() };
    let horizon = |ms| SpaceChanges { horizon_ms: Some(Some(ms)), ..none.clone() };
    let feed_cap = |cap| SpaceChanges { feed_cap: Some(cap as u32), ..none.clone() };
    let threshold = |count| SpaceChanges { pull_threshold: Some(count as u32), ..none.clone() };
    let payload = |bytes| SpaceChanges { payload_bytes_max: Some(bytes as u32), ..none.clone() };
    let rules: [(Field, u64, Change<'_>); 5] = [
        (Field::DefaultTtl, longest, &ttl),
        (Field::Horizon, longest, &horizon),
        (Field::FeedCap, 100_000, &feed_cap),
        (Field::PullThreshold, u64::from(u32::MAX), &threshold),
        (Field::PayloadBytesMax, 1 << 20, &payload),
    ];
    for (field, max, changes) in rules {
        assert_eq!(alter(changes(1)), Ok(()), "{field}");
        assert_eq!(alter(changes(max)), Ok(()), "{field}");
        let refused = |got: u64| Err(Status::OutOfRange { field, min: 1, max, got: got as i64 });
        assert_eq!(alter(changes(0)), refused(0), "{field}");
        if max != u64::from(u32::MAX) {
            assert_eq!(alter(changes(max + 1)), refused(max + 1), "{field}");
        }
    }
    let forever = SpaceChanges { default_ttl_ms: Some(None), horizon_ms: Some(None), ..none.clone() };
    assert_eq!(alter(forever), Ok(()));
}

#[test]
fn cursor_of_another_scan_is_refused() {
    let scope = CursorScope::Feed(SpaceId(1));
    let cursor = Cursor { scope, subject: UserId(7), below: EntryId(9), as_of: 0, after: None };
    assert_eq!(cursor.check(scope, UserId(7)), Ok(()));
    assert_eq!(cursor.check(scope, UserId(8)), Err(Status::BadCursor));
    assert_eq!(cursor.check(CursorScope::Feed(SpaceId(2)), UserId(7)), Err(Status::BadCursor));
    assert_eq!(cursor.check(CursorScope::Timeline(SpaceId(1)), UserId(7)), Err(Status::BadCursor));
    assert_eq!(cursor.check(CursorScope::Followers(GraphId(1)), UserId(7)), Err(Status::BadCursor));
}
