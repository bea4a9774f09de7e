//! Pages, cursors, and what is new.

use std::cmp::Reverse;

use fanfold_client::{Audience, EntryId, SpacePolicy, Spaces, UserId};

use crate::model::Model;
use crate::world::{World, feed_ids, user};

/// A cap of two, so that nearly all of a feed is read from the owners' timelines.
fn capped() -> SpacePolicy {
    SpacePolicy { feed_cap: 2, ..Spaces::default_policy() }
}

#[tokio::test]
async fn a_feed_has_no_cliff_at_its_cap() {
    let mut world = World::start().await;
    world.client.spaces().create("small", capped()).await.unwrap();
    let (small, reader) = (world.client.space("small"), user(0, 0));
    let mut model = Model::of(&world.client, "small").await;
    let owners = [user(0, 1), user(1, 0), user(2, 0), user(3, 0)];
    world.client.follows().follow_many(reader, owners).await.unwrap();
    owners.iter().for_each(|owner| model.follow(reader, *owner));
    for n in 0..40 {
        let owner = if n % 5 == 4 { reader } else { owners[n % 5] };
        let audience = [Audience::Public, Audience::Followers, Audience::Private][n % 3];
        let entry = small.append(owner, format!("{n}")).audience(audience).await.unwrap();
        model.append(entry.id, owner, audience, None);
        if n % 7 == 6 {
            small.delete(owner, entry.id).await.unwrap();
            model.delete(entry.id);
        }
    }
    world.client.wait_drained().await.unwrap();
    let expected = model.feed(reader);
    assert!(expected.len() > 20);
    for round in 0..2 {
        for limit in [1, 3, 7, 1_000] {
            assert_eq!(feed_ids(small.feed(reader).limit(limit)).await, expected, "limit {limit}, {round}");
            assert_eq!(feed_ids(small.feed(reader).limit(limit).hydrate()).await, expected);
        }
        let page = small.feed(reader).limit(5).await.unwrap();
        assert_eq!(page.entries.len(), 5, "a page is never short because of a filter or the cap");
        world.node.restart_hard().await.unwrap();
    }
}

/// The pages below a first one, two entries at a time.
async fn rest(world: &World, space: &str, reader: UserId, first: fanfold_client::Page) -> Vec<EntryId> {
    let read = world.client.space(space).feed(reader).limit(2);
    feed_ids(read.cursor(first.next.unwrap())).await
}

#[tokio::test]
async fn cursors_stay_valid_while_entries_come_and_go() {
    let mut world = World::start().await;
    world.client.spaces().create("small", capped()).await.unwrap();
    for (space, base) in [("posts", 0), ("small", 50)] {
        let (reader, ada, ben) = (user(0, base), user(1, base), user(2, base));
        let entries = world.client.space(space);
        world.client.follows().follow_many(reader, [ada, ben]).await.unwrap();
        let mut made = Vec::new();
        for n in 0..12 {
            let owner = [ada, ben, reader][n % 3];
            made.push((owner, entries.append(owner, "old").await.unwrap().id));
        }
        // The clock stands still, so that ids of different owners do not sort by the order of the calls.
        made.sort_unstable_by_key(|(_, id)| Reverse(*id));
        world.client.wait_drained().await.unwrap();
        let first = entries.feed(reader).limit(4).await.unwrap();
        let shown: Vec<EntryId> = first.entries.iter().map(|entry| entry.id).collect();
        assert_eq!(shown, made[..4].iter().map(|(_, id)| *id).collect::<Vec<_>>());

        for owner in [ada, ben, reader] {
            entries.append(owner, "new").await.unwrap();
        }
        // One that was shown, the one where the next page begins, and two further down.
        for (owner, id) in [made[3], made[4], made[7], made[11]] {
            assert!(entries.delete(owner, id).await.unwrap().existed);
        }
        world.client.wait_drained().await.unwrap();
        let expected: Vec<EntryId> = [5, 6, 8, 9, 10].map(|n| made[n].1).to_vec();
        assert_eq!(rest(&world, space, reader, first.clone()).await, expected, "{space}");
        world.node.restart_hard().await.unwrap();
        assert_eq!(rest(&world, space, reader, first).await, expected, "{space}, after a restart");
    }
}

#[tokio::test]
async fn what_is_new_is_counted_and_shown() {
    let world = World::start().await;
    let (reader, ada, ben, stranger) = (user(0, 0), user(1, 0), user(2, 0), user(3, 0));
    world.client.follows().follow_many(reader, [ada, ben]).await.unwrap();
    world.posts.append(ada, "old").await.unwrap();
    world.client.wait_drained().await.unwrap();
    let mark = world.posts.feed(reader).await.unwrap().mark.unwrap();
    let none = world.posts.feed(reader).newer_than(mark).await.unwrap();
    assert_eq!((none.new_count, none.entries.len()), (Some(0), 0));

    let mut new = Vec::new();
    for owner in [ada, ben, reader, ada] {
        new.push(world.posts.append(owner, "new").await.unwrap().id);
    }
    new.sort_unstable_by_key(|id| Reverse(*id));
    world.posts.append(stranger, "not for this feed").await.unwrap();
    world.client.wait_drained().await.unwrap();
    let all = world.posts.feed(reader).newer_than(mark).await.unwrap();
    let ids: Vec<EntryId> = all.entries.iter().map(|entry| entry.id).collect();
    assert_eq!((all.new_count, ids), (Some(4), new.clone()));
    let few = world.posts.feed(reader).newer_than(mark).limit(2).await.unwrap();
    assert_eq!(few.new_count, Some(4));
    let ids: Vec<EntryId> = few.entries.iter().map(|entry| entry.id).collect();
    assert_eq!(ids, new[..2]);
    let after = world.posts.feed(reader).newer_than(all.mark.unwrap()).await.unwrap();
    assert_eq!(after.new_count, Some(0));
}

/// Promise 5: one's own entries are there at once, and a token makes anybody's.
#[tokio::test]
async fn a_read_with_a_token_sees_what_it_stands_for() {
    let world = World::start().await;
    let (reader, ada) = (user(0, 0), user(1, 0));
    world.client.follows().follow(reader, ada).await.unwrap();
    for _ in 0..20 {
        let own = world.posts.append(reader, "mine").await.unwrap();
        assert_eq!(world.posts.feed(reader).limit(1).await.unwrap().entries[0].id, own.id);
        let other = world.posts.append(ada, "hers").await.unwrap();
        let page = world.posts.feed(reader).limit(2).at_least(&other.token).await.unwrap();
        assert!(page.entries.iter().any(|entry| entry.id == other.id));
        let deleted = world.posts.delete(ada, other.id).await.unwrap();
        let page = world.posts.feed(reader).at_least(&deleted.token).await.unwrap();
        assert!(page.entries.iter().all(|entry| entry.id != other.id));
    }
}
