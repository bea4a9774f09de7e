//! What is well formed and not allowed is refused with the field and its limit, and has no effect.

use fanfold_protocol::message::{
    AppendOutcome, Consistency, EntryName, ExpiryChoice, Page, ReadFeed, ReadFeeds, ReadTimeline, Request,
    Response, ScanEdges, SetExpiry, TtlChoice, WriteOp,
};
use fanfold_protocol::{EntryId, Field, GraphId, SlotIndex, SpaceId, Stamp, Status, UserId};
use fanfold_server::TestNode;

use crate::peer::{Home, POSTS, Peer, config, node, read_timeline};

const OWNER: UserId = UserId(7);
const OTHER: UserId = UserId(8);
const HUNDRED_YEARS_MS: u64 = 100 * 366 * 24 * 3_600 * 1_000;

struct Scene {
    node: TestNode,
    peer: Peer,
    home: Home,
}

async fn scene() -> Scene {
    let node = node(config()).await;
    let mut peer = Peer::connect(node.socket_address()).await;
    let home = peer.session(OWNER).await;
    Scene { node, peer, home }
}

impl Scene {
    async fn append(&mut self, ttl: TtlChoice, payload_bytes: usize) -> AppendOutcome {
        let append = self.home.append(ttl, vec![b'x'; payload_bytes]);
        self.peer.append(append).await
    }

    /// The connection goes on, and nothing was applied.
    async fn assert_nothing_happened(mut self) {
        self.peer.assert_serves().await;
        assert_eq!(self.peer.timeline_len(OWNER).await, 0);
        self.node.stop().await.unwrap();
    }
}

fn read_feed(reader: UserId) -> ReadFeed {
    ReadFeed {
        space: POSTS,
        reader,
        limit: 1,
        cursor: None,
        newer_than: None,
        hydrate: false,
        at_least: None,
        consistency: fanfold_protocol::message::Consistency::Leader,
    }
}

fn page(reply: fanfold_protocol::Reply) -> Page {
    match reply {
        Ok(Response::Page(page)) => page,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn payload_above_the_limit_of_the_space_is_refused_with_it() {
    let mut scene = scene().await;
    let limit = 64 * 1024;
    let refused = scene.append(TtlChoice::SpaceDefault, limit + 1).await;
    let too_large = Status::TooLarge { field: Field::Payload, limit: limit as u64 };
    assert_eq!(refused, AppendOutcome::Refused(too_large));
    scene.assert_nothing_happened().await;
}

#[tokio::test]
async fn payload_above_what_any_space_allows_is_refused_with_that_limit() {
    let mut scene = scene().await;
    let limit = 1 << 20;
    let refused = scene.append(TtlChoice::SpaceDefault, limit + 1).await;
    let too_large = Status::TooLarge { field: Field::Payload, limit: limit as u64 };
    assert_eq!(refused, AppendOutcome::Refused(too_large));
    scene.assert_nothing_happened().await;
}

#[tokio::test]
async fn limit_of_0_or_above_a_page_is_refused_with_the_range() {
    let mut scene = scene().await;
    for limit in [0, 1_001, u32::MAX] {
        let edges = ScanEdges { graph: GraphId(1), user: OWNER, limit, cursor: None };
        let feeds = ReadFeeds {
            space: POSTS,
            readers: vec![OWNER; 1_024],
            limit,
            hydrate: true,
            consistency: Consistency::Leader,
            at_least: None,
        };
        let requests = [
            Request::ReadFeed(ReadFeed { limit, ..read_feed(OWNER) }),
            Request::ReadTimeline(ReadTimeline { limit, hydrate: true, ..read_timeline(OWNER) }),
            Request::ReadFeeds(feeds),
            Request::ScanFollowers(edges.clone()),
            Request::ScanFollowees(edges),
        ];
        for request in requests {
            let refused = Status::OutOfRange { field: Field::Limit, min: 1, max: 1_000, got: limit.into() };
            assert_eq!(scene.peer.call(request.clone()).await, Err(refused), "{request:?}");
        }
    }
    // Many feeds have a limit together.
    let consistency = Consistency::Leader;
    let readers = vec![OWNER; 1_024];
    let feeds = ReadFeeds { space: POSTS, readers, limit: 65, hydrate: true, consistency, at_least: None };
    let refused = Status::OutOfRange { field: Field::Limit, min: 1, max: 64, got: 65 };
    assert_eq!(scene.peer.call(Request::ReadFeeds(feeds)).await, Err(refused));
    scene.assert_nothing_happened().await;
}

#[tokio::test]
async fn damaged_cursor_and_cursor_of_another_scan_are_refused() {
    let mut scene = scene().await;
    for _ in 0..3 {
        assert!(matches!(scene.append(TtlChoice::SpaceDefault, 10).await, AppendOutcome::Ok { .. }));
    }
    let first = page(scene.peer.call(Request::ReadFeed(read_feed(OWNER))).await);
    let cursor = first.next;
    assert!(cursor.is_some(), "two more entries follow");
    let good = ReadFeed { cursor, ..read_feed(OWNER) };

    let mut damaged = scene.peer.frame(Request::ReadFeed(good.clone()));
    let sealed = cursor.unwrap().to_bytes();
    let mut body = damaged.body.to_vec();
    let at = body.windows(sealed.len()).position(|bytes| bytes == &sealed[..]).unwrap();
    body[at + sealed.len() / 2] ^= 1;
    damaged.body = body.into();
    assert_eq!(scene.peer.exchange(damaged).await, Err(Status::BadCursor));

    let others = [
        Request::ReadFeed(ReadFeed { reader: OTHER, ..good.clone() }),
        Request::ReadFeed(ReadFeed { space: SpaceId(2), ..good.clone() }),
        Request::ReadTimeline(ReadTimeline { cursor, ..read_timeline(OWNER) }),
        Request::ScanFollowers(ScanEdges { graph: GraphId(1), user: OWNER, limit: 1, cursor }),
    ];
    for other in others {
        assert_eq!(scene.peer.call(other.clone()).await, Err(Status::BadCursor), "{other:?}");
    }
    let second = page(scene.peer.call(Request::ReadFeed(good)).await);
    assert!(second.entries[0].id < first.entries[0].id, "the cursor itself is good");
    scene.node.stop().await.unwrap();
}

#[tokio::test]
async fn unknown_space_is_refused_with_those_that_exist() {
    let mut scene = scene().await;
    let known = vec![(SpaceId(1), "posts".to_owned()), (SpaceId(2), "stories".to_owned())];
    let unknown = Status::UnknownSpace { known };
    let space = SpaceId(999);
    let (readers, consistency, at_least) = (vec![OWNER], Consistency::Leader, None);
    let feeds = ReadFeeds { space, readers, limit: 1, hydrate: false, consistency, at_least };
    let requests = [
        Request::ReadFeed(ReadFeed { space, ..read_feed(OWNER) }),
        Request::ReadTimeline(ReadTimeline { space, ..read_timeline(OWNER) }),
    ];
    for request in requests {
        assert_eq!(scene.peer.call(request).await, Err(unknown.clone()));
    }
    match scene.peer.call(Request::ReadFeeds(feeds)).await {
        Ok(Response::Pages(pages)) => assert_eq!(pages, [Err(unknown.clone())]),
        other => assert_eq!(other, Err(unknown.clone())),
    }
    let mut append = scene.home.append(TtlChoice::SpaceDefault, "x");
    if let Request::Write(write) = &mut append
        && let WriteOp::Append(items) = &mut write.op
    {
        items[0].space = space;
    }
    assert_eq!(scene.peer.append(append).await, AppendOutcome::Refused(unknown));
    scene.assert_nothing_happened().await;
}

#[tokio::test]
async fn ttl_of_0_negative_or_overflowing_is_refused_with_field_and_range() {
    let mut scene = scene().await;
    for ttl_ms in [0, -1, i64::MIN, i64::MAX, HUNDRED_YEARS_MS as i64 + 1] {
        match scene.append(TtlChoice::Ms(ttl_ms), 1).await {
            AppendOutcome::Refused(Status::OutOfRange { field: Field::Ttl, min: 1, max, got }) => {
                assert_eq!(got, ttl_ms);
                assert!(got < 1 || got as u64 > max, "{got} is said to lie outside 1 to {max}");
            }
            other => panic!("{ttl_ms}: {other:?}"),
        }
    }
    scene.assert_nothing_happened().await;
}

#[tokio::test]
async fn expiry_of_0_negative_or_overflowing_is_refused_and_the_entry_stays() {
    let mut scene = scene().await;
    let AppendOutcome::Ok { id, .. } = scene.append(TtlChoice::Never, 1).await else { panic!("refused") };
    for ms in [0, -1, i64::MIN, i64::MAX] {
        let entry = EntryName { space: POSTS, owner: OWNER, id };
        let set = scene.home.write(WriteOp::SetExpiry(SetExpiry { entry, expiry: ExpiryChoice::InMs(ms) }));
        match scene.peer.call(set).await {
            Err(Status::OutOfRange { field: Field::Expiry, min: 1, got, .. }) => assert_eq!(got, ms),
            other => panic!("{ms}: {other:?}"),
        }
    }
    assert_eq!(scene.peer.timeline_len(OWNER).await, 1);
    let page = page(scene.peer.call(Request::ReadTimeline(read_timeline(OWNER))).await);
    assert_eq!((page.entries[0].id, page.entries[0].expiry), (id, None));
    scene.node.stop().await.unwrap();
}

#[tokio::test]
async fn write_for_another_partition_or_none_is_refused() {
    let mut scene = scene().await;
    let append = scene.home.append(TtlChoice::SpaceDefault, "x");
    let Request::Write(write) = append else { unreachable!("an append is a write") };
    let wrong = fanfold_protocol::PartitionId((write.partition.0 + 1) % 4);
    let mut elsewhere = write.clone();
    elsewhere.partition = wrong;
    assert!(matches!(scene.peer.append(Request::Write(elsewhere)).await, AppendOutcome::Refused(_)));
    let mut nowhere = write;
    nowhere.partition = fanfold_protocol::PartitionId(4_095);
    let refused = scene.peer.append(Request::Write(nowhere)).await;
    assert_eq!(refused, AppendOutcome::Refused(Status::Malformed { field: Field::Partition }));
    scene.assert_nothing_happened().await;
}

#[tokio::test]
async fn entry_that_does_not_exist_is_named_as_such() {
    let mut scene = scene().await;
    let never = EntryId::from_parts(Stamp(1), 0, SlotIndex::of(OWNER)).unwrap();
    let entry = EntryName { space: POSTS, owner: OWNER, id: never };
    let set = scene.home.write(WriteOp::SetExpiry(SetExpiry { entry, expiry: ExpiryChoice::InMs(1_000) }));
    assert_eq!(scene.peer.call(set).await, Err(Status::NotFound));
    scene.assert_nothing_happened().await;
}
