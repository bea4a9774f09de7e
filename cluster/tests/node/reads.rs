//! Pages, floors, hydration, marks, edges, explanations.

use std::collections::BTreeSet;

use fanfold_cluster::read::{
    Consistency, EntriesRequest, FeedRequest, FeedsRequest, Reason, ReferenceState, ScanAfter,
    TimelineRequest,
};
use fanfold_cluster::{NodeError, SpaceChanges};
use fanfold_storage::command::{Append, Write};
use fanfold_storage::entry::{Audience, EntryRef};
use fanfold_storage::ids::{EntryId, UserId};

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_goes_on_below_its_cap_from_the_owners_timelines() {
    let test = TestNode::new().await;
    let changes = SpaceChanges { feed_cap: Some(2), ..SpaceChanges::default() };
    test.node.alter_space("posts", changes).await.unwrap();
    let owners: Vec<_> = (0..PARTITIONS).flat_map(|p| [user_at(p, 1), user_at(p, 2)]).collect();
    let reader = user_at(0, 0);
    let mut expected = BTreeSet::new();
    for round in 0..6 {
        if round == 2 {
            test.follow(reader, &owners).await;
        }
        for owner in &owners {
            expected.insert(test.post(*owner, "x").await);
        }
        expected.insert(test.post(reader, "own").await);
    }
    test.drained().await;
    let expected: Vec<_> = expected.into_iter().rev().collect();
    for limit in [1, 2, 3, 7, 53, 54, 55, 1_000] {
        assert_eq!(test.feed_by(reader, limit).await, expected, "limit {limit}");
    }
    let test = test.restart_hard().await;
    assert_eq!(test.feed_by(reader, 5).await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hydration_brings_payloads_and_what_entries_refer_to() {
    let test = TestNode::new().await;
    let (owner, quoted, reader) = (user_at(0, 0), user_at(1, 0), user_at(2, 0));
    test.follow(reader, &[owner]).await;
    let seen = test.post(quoted, "seen").await;
    let gone = test.post(quoted, "gone").await;
    let (secret, _) = test.append(Append { audience: Audience::Followers, ..entry(quoted, "secret") }).await;
    let mut replies = Vec::new();
    for id in [seen, gone, secret] {
        replies.push(test.append(reply(owner, EntryRef { owner: quoted, id })).await.0);
    }
    test.write(quoted, Write::Delete { space: POSTS, owner: quoted, id: gone }).await;
    test.drained().await;
    let page = test.page(&FeedRequest { hydrate: true, ..feed(reader) }).await;
    let states: Vec<_> = page.entries.iter().map(|e| e.reference.clone().unwrap().state).collect();
    assert!(matches!(states[0], ReferenceState::Gone), "not for this reader: {states:?}");
    assert!(matches!(states[1], ReferenceState::Gone), "{states:?}");
    let ReferenceState::Live(live) = &states[2] else { panic!("{states:?}") };
    assert_eq!((live.id, live.payload.as_deref()), (seen, Some(&b"seen"[..])));
    assert!(page.entries.iter().all(|e| e.payload.as_deref() == Some(b"reply")));

    test.follow(reader, &[quoted]).await;
    let ids = replies.clone();
    let consistency = Consistency::Leader;
    let request = EntriesRequest { space: POSTS, ids, viewer: Some(reader), at_least: None, consistency };
    let entries = test.node.read_entries(&request).await.unwrap();
    let state = &entries[2].as_ref().unwrap().reference.as_ref().unwrap().state;
    assert!(matches!(state, ReferenceState::Live(_)), "follows now: {state:?}");
    test.write(reader, Write::Mute { user: reader, targets: vec![quoted] }).await;
    let entries = test.node.read_entries(&request).await.unwrap();
    assert!(entries.iter().all(Option::is_none), "they refer to somebody muted: {entries:?}");
    let all = EntriesRequest { viewer: None, ids: vec![gone, secret, EntryId(5)], ..request };
    let entries = test.node.read_entries(&all).await.unwrap();
    assert_eq!(entries.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true, false]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_is_refilled_when_hydration_finds_entries_gone() {
    let held = crate::streams::Held::default();
    let wrap = held.clone();
    let test = TestNode::with(|_| {}, Box::new(move |streams| wrap.around(streams))).await;
    let (owner, reader) = (user_at(0, 0), user_at(1, 0));
    test.follow(reader, &[owner]).await;
    let mut posts = Vec::new();
    for _ in 0..10 {
        posts.insert(0, test.post(owner, "x").await);
    }
    test.drained().await;
    held.hold(true);
    for id in posts.drain(0..4) {
        test.write(owner, Write::Delete { space: POSTS, owner, id }).await;
    }
    let request = FeedRequest { hydrate: true, limit: 5, ..feed(reader) };
    let page = test.page(&request).await;
    assert_eq!(ids(&page.entries), posts[..5]);
    let page = test.page(&FeedRequest { below: page.next.unwrap(), ..request }).await;
    assert_eq!((ids(&page.entries), page.next), (posts[5..].to_vec(), None));
    held.hold(false);
    test.drained().await;
    assert_eq!(test.feed(reader).await, posts);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn newer_than_counts_what_arrived_since() {
    let test = TestNode::new().await;
    let (owner, late, reader) = (user_at(0, 0), user_at(2, 0), user_at(1, 0));
    test.follow(reader, &[owner, late]).await;
    test.post(owner, "old").await;
    test.drained().await;
    let first = test.page(&feed(reader)).await;
    assert_eq!(first.entries.len(), 1);
    let nothing = test.page(&FeedRequest { newer_than: first.mark, ..feed(reader) }).await;
    assert_eq!((nothing.new_count, nothing.entries.len(), nothing.next), (Some(0), 0, None));
    let mut new = Vec::new();
    for n in 0..7 {
        new.insert(0, test.post(if n % 2 == 0 { owner } else { late }, "new").await);
    }
    // Within a millisecond, ids of different partitions are in no order of time.
    new.sort_unstable_by(|a, b| b.cmp(a));
    test.drained().await;
    let request = FeedRequest { newer_than: first.mark, limit: 3, hydrate: true, ..feed(reader) };
    let page = test.page(&request).await;
    assert_eq!((page.new_count, ids(&page.entries)), (Some(7), new[..3].to_vec()));
    let rest = test.page(&FeedRequest { below: page.next.unwrap(), limit: 10, ..request }).await;
    assert_eq!((ids(&rest.entries), rest.next), (new[3..].to_vec(), None));
    let again = test.page(&FeedRequest { newer_than: page.mark, ..feed(reader) }).await;
    assert_eq!(again.new_count, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timeline_page_is_filled_up_behind_the_viewers_filter() {
    let test = TestNode::new().await;
    let (owner, viewer) = (user_at(0, 0), user_at(1, 0));
    let mut public = Vec::new();
    for n in 0..30 {
        let audience = if n % 3 == 0 { Audience::Public } else { Audience::Private };
        let (id, _) = test.append(Append { audience, ..entry(owner, "x") }).await;
        if audience == Audience::Public {
            public.insert(0, id);
        }
    }
    let mut request = TimelineRequest { limit: 4, ..timeline(owner, Some(viewer)) };
    let mut seen = Vec::new();
    loop {
        let page = test.node.read_timeline(&request).await.unwrap();
        assert!(page.next.is_none() || page.entries.len() == 4, "{page:?}");
        seen.extend(ids(&page.entries));
        let Some(next) = page.next else { break };
        request.below = next;
    }
    assert_eq!(seen, public);
    let own = test.node.read_timeline(&timeline(owner, Some(owner))).await.unwrap();
    assert_eq!(own.entries.len(), 30);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edges_are_counted_and_scanned_across_partitions() {
    let test = TestNode::new().await;
    let owner = user_at(0, 0);
    let mut readers: Vec<UserId> = (0..PARTITIONS).flat_map(|p| (1..6).map(move |n| user_at(p, n))).collect();
    for reader in &readers {
        test.follow(*reader, &[owner, user_at(3, 9)]).await;
    }
    test.drained().await;
    let counts = test.node.counts(FOLLOWS, owner).await.unwrap();
    assert_eq!((counts.followers, counts.followees), (readers.len() as u64, 0));
    assert_eq!(test.node.counts(FOLLOWS, readers[0]).await.unwrap().followees, 2);
    readers.sort_by_key(|reader| (test.node.partition_of(*reader), *reader));
    for limit in [1, 3, 5, 20, 1_000] {
        let (mut seen, mut after) = (Vec::new(), None::<ScanAfter>);
        loop {
            let page = test.node.scan_followers(FOLLOWS, owner, after, limit).await.unwrap();
            seen.extend(page.users.iter().map(|edge| edge.user));
            after = page.next;
            if after.is_none() {
                break;
            }
            assert_eq!(page.users.len(), limit as usize);
        }
        assert_eq!(seen, readers, "limit {limit}");
    }
    let first = test.node.scan_followees(FOLLOWS, readers[0], None, 1).await.unwrap();
    let after = first.next.map(|next| next.user);
    let second = test.node.scan_followees(FOLLOWS, readers[0], after, 1).await.unwrap();
    assert_eq!((first.users.len(), second.users.len(), second.next), (1, 1, None));
    assert!(first.users[0].user < second.users[0].user);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_feeds_come_in_the_order_asked() {
    let test = TestNode::new().await;
    let owner = user_at(0, 0);
    let readers: Vec<_> = (0..20).map(|n| user_at(n % PARTITIONS, 1 + usize::from(n / PARTITIONS))).collect();
    let mut own = Vec::new();
    for reader in &readers {
        test.follow(*reader, &[owner]).await;
        own.push(test.post(*reader, "own").await);
    }
    let shared = test.post(owner, "shared").await;
    test.drained().await;
    let consistency = Consistency::Leader;
    let request =
        FeedsRequest { space: POSTS, readers, limit: 10, hydrate: true, at_least: None, consistency };
    let pages = test.node.read_feeds(&request).await.unwrap();
    for (page, own) in pages.into_iter().zip(own) {
        assert_eq!(ids(&page.unwrap().entries), [shared, own]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_and_unknown_names_are_told() {
    let test = TestNode::new().await;
    for limit in [0, 1_001] {
        let refused = test.node.read_feed(&FeedRequest { limit, ..feed(user_at(0, 0)) }).await;
        let named = matches!(refused, Err(NodeError::OutOfRange { min: 1, max: 1_000, got, .. }) if got == u64::from(limit));
        assert!(named, "{refused:?}");
    }
    let space = fanfold_storage::ids::SpaceId(99);
    let known = |error: NodeError| matches!(error, NodeError::UnknownSpace { known } if known.len() == 2);
    assert!(known(test.node.read_feed(&FeedRequest { space, ..feed(user_at(0, 0)) }).await.unwrap_err()));
    let request = TimelineRequest { space, ..timeline(user_at(0, 0), None) };
    assert!(known(test.node.read_timeline(&request).await.unwrap_err()));
    let item = Append { space, ..entry(user_at(0, 0), "x") };
    let receipt = test.write(user_at(0, 0), Write::Append { items: vec![item] }).await;
    assert!(format!("{:?}", receipt.result).contains("UnknownSpace"), "{receipt:?}");
    let graph = fanfold_storage::ids::GraphId(9);
    assert!(matches!(test.node.counts(graph, user_at(0, 0)).await, Err(NodeError::UnknownGraph { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explanations_name_the_deciding_reason() {
    let held = crate::streams::Held::default();
    let wrap = held.clone();
    let test = TestNode::with(|_| {}, Box::new(move |streams| wrap.around(streams))).await;
    let (owner, reader, stranger) = (user_at(0, 0), user_at(1, 0), user_at(2, 0));
    test.follow(reader, &[owner]).await;
    let id = test.post(owner, "x").await;
    test.drained().await;
    let why = |user: UserId, id: EntryId| test.node.explain(POSTS, user, id);
    let shown = why(reader, id).await.unwrap();
    assert!(
        shown.shown && matches!(shown.reasons[..], [Reason::FollowedSince { .. }, Reason::Pushed]),
        "{shown:?}"
    );
    let own = why(owner, id).await.unwrap();
    assert!(own.shown && own.reasons == [Reason::OwnEntry], "{own:?}");
    let not = why(stranger, id).await.unwrap();
    assert!(!not.shown && not.reasons == [Reason::NotFollowed], "{not:?}");
    held.hold(true);
    let late = test.post(owner, "late").await;
    let why_late = why(reader, late).await.unwrap();
    assert!(!why_late.shown && matches!(why_late.reasons[0], Reason::OnItsWay { .. }), "{why_late:?}");
    held.hold(false);
    test.drained().await;
    assert!(why(reader, late).await.unwrap().shown);
    test.write(reader, Write::Mute { user: reader, targets: vec![owner] }).await;
    let muted = why(reader, id).await.unwrap();
    assert!(!muted.shown && muted.reasons[0] == Reason::Muted { user: owner }, "{muted:?}");
    test.write(owner, Write::Delete { space: POSTS, owner, id }).await;
    let deleted = why(stranger, id).await.unwrap();
    assert!(!deleted.shown && deleted.reasons[0] == Reason::Deleted, "{deleted:?}");
}
