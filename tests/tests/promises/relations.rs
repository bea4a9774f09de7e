//! Following, unfollowing and blocking.

use fanfold_client::{Audience, Counts, UserId};
use futures_util::TryStreamExt;

use crate::model::Model;
use crate::world::{World, feed_ids, timeline_ids, user};

/// Row 28.
#[tokio::test]
async fn following_oneself_or_twice_and_unfollowing_nobody_change_nothing() {
    let mut world = World::start().await;
    let (ada, ben, cleo) = (user(0, 0), user(1, 0), user(2, 0));
    let follows = world.client.follows();
    assert_eq!(follows.follow(ada, ada).await.unwrap().changed, 0);
    assert_eq!(follows.follow(ada, ben).await.unwrap().changed, 1);
    assert_eq!(follows.follow(ada, ben).await.unwrap().changed, 0);
    assert_eq!(follows.follow_many(ada, [ada, ben, cleo, cleo]).await.unwrap().changed, 1);
    assert_eq!(follows.unfollow(ada, cleo).await.unwrap().changed, 1);
    assert_eq!(follows.unfollow(ada, cleo).await.unwrap().changed, 0);
    assert_eq!(follows.unfollow(ben, ada).await.unwrap().changed, 0);
    assert_eq!(follows.unfollow(ada, ada).await.unwrap().changed, 0);
    for _ in 0..2 {
        world.client.wait_drained().await.unwrap();
        assert_eq!(follows.counts(ada).await.unwrap(), Counts { followers: 0, followees: 1 });
        assert_eq!(follows.counts(ben).await.unwrap(), Counts { followers: 1, followees: 0 });
        assert_eq!(follows.counts(cleo).await.unwrap(), Counts { followers: 0, followees: 0 });
        let pages: Vec<_> = follows.followees(ada).pages().try_collect().await.unwrap();
        let users: Vec<UserId> = pages.iter().flat_map(|page| &page.users).map(|edge| edge.user).collect();
        assert_eq!(users, [ben]);
        world.node.restart_hard().await.unwrap();
    }
}

/// The three steps of row 31.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Unfollow,
    Delete,
    Follow,
}

use Step::{Delete, Follow, Unfollow};

const ORDERS: [[Step; 3]; 6] = [
    [Unfollow, Delete, Follow],
    [Unfollow, Follow, Delete],
    [Delete, Unfollow, Follow],
    [Delete, Follow, Unfollow],
    [Follow, Unfollow, Delete],
    [Follow, Delete, Unfollow],
];

/// Row 31: every order, and after each step either everything is delivered or nothing is waited for.
#[tokio::test]
async fn a_deleted_entry_never_shows_whatever_is_unfollowed_and_followed() {
    let world = World::start().await;
    let mut model = Model::of(&world.client, "posts").await;
    let mut pairs = Vec::new();
    for (n, (order, delays)) in ORDERS.iter().flat_map(|o| (0..4).map(move |d| (o, d))).enumerate() {
        // Half of the readers live with their owner; a second reader keeps the subscription alive in a third.
        let (owner, reader) = (user(0, n), user((n % 2) as u16, 100 + n));
        if n % 3 == 0 {
            let other = user((n % 2) as u16, 200 + n);
            world.client.follows().follow(other, owner).await.unwrap();
            model.follow(other, owner);
            pairs.push((other, owner));
        }
        follow_delete_unfollow(&world, &mut model, (reader, owner), *order, delays).await;
        pairs.push((reader, owner));
    }
    world.client.wait_drained().await.unwrap();
    for (reader, owner) in pairs {
        assert_eq!(feed_ids(world.posts.feed(reader)).await, model.feed(reader), "reader {reader}");
        assert_eq!(timeline_ids(world.posts.timeline(owner)).await, model.timeline(owner, None));
    }
}

async fn follow_delete_unfollow(
    world: &World,
    model: &mut Model,
    (reader, owner): (UserId, UserId),
    order: [Step; 3],
    delays: u32,
) {
    let follows = world.client.follows();
    follows.follow(reader, owner).await.unwrap();
    let mut following = true;
    let kept = world.posts.append(owner, "kept").await.unwrap();
    let gone = world.posts.append(owner, "gone").await.unwrap();
    model.append(kept.id, owner, Audience::Public, None);
    for (n, step) in order.into_iter().enumerate() {
        match step {
            Unfollow => {
                follows.unfollow(reader, owner).await.unwrap();
                following = false;
            }
            Follow => {
                follows.follow(reader, owner).await.unwrap();
                following = true;
            }
            Delete => {
                let deleted = world.posts.delete(owner, gone.id).await.unwrap();
                assert!(deleted.existed);
                // From here on no read that is at least as new may show it.
                let page = world.posts.feed(reader).at_least(&deleted.token).await.unwrap();
                assert!(page.entries.iter().all(|entry| entry.id != gone.id), "{order:?}, delays {delays}");
            }
        }
        if delays & 1 << n != 0 {
            world.client.wait_drained().await.unwrap();
        }
        if !following {
            assert!(feed_ids(world.posts.feed(reader)).await.is_empty(), "{order:?}, delays {delays}");
        }
    }
    if following {
        model.follow(reader, owner);
    }
}

#[tokio::test]
async fn a_block_is_answered_when_both_partitions_know_it() {
    let world = World::start().await;
    let mut model = Model::of(&world.client, "posts").await;
    let follows = world.client.follows();
    for n in 0..20 {
        let (ada, ben) = (user(0, n), user(1 + (n % 3) as u16, n));
        follows.follow(ada, ben).await.unwrap();
        follows.follow(ben, ada).await.unwrap();
        model.follow(ada, ben);
        model.follow(ben, ada);
        let mut tokens = Vec::new();
        for owner in [ada, ben] {
            let entry = world.posts.append(owner, "before").await.unwrap();
            model.append(entry.id, owner, Audience::Public, None);
            tokens.push(entry.token);
        }
        for token in &tokens {
            world.client.wait_delivered(token).await.unwrap();
        }
        assert_eq!(model.feed(ada).len(), 2);
        assert_eq!(feed_ids(world.posts.feed(ada)).await, model.feed(ada));

        world.client.block(ada, ben).await.unwrap();
        model.block(ada, ben);
        // Nothing is waited for: the answer alone says that both sides know.
        for (reader, owner) in [(ada, ben), (ben, ada)] {
            let feed = feed_ids(world.posts.feed(reader)).await;
            assert_eq!((feed.len(), feed), (1, model.feed(reader)));
            assert!(timeline_ids(world.posts.timeline(owner).viewer(reader)).await.is_empty());
            follows.unfollow(reader, owner).await.unwrap();
            let refused = follows.follow(reader, owner).await.unwrap();
            assert_eq!((refused.changed, refused.refused), (0, vec![owner]));
            follows.follow(reader, user(3, 500)).await.unwrap();
        }

        world.client.unblock(ada, ben).await.unwrap();
        for (reader, owner) in [(ada, ben), (ben, ada)] {
            let followed = follows.follow(reader, owner).await.unwrap();
            assert_eq!((followed.changed, followed.refused), (1, vec![]));
        }
        model.unblock(ada, ben);
        world.client.wait_drained().await.unwrap();
        for reader in [ada, ben] {
            assert_eq!(feed_ids(world.posts.feed(reader)).await, model.feed(reader));
        }
    }
}

/// A block is a fact of its own: what it hid, edges included, counts again once it is undone.
#[tokio::test]
async fn an_unblock_shows_again_what_is_still_followed() {
    let world = World::start().await;
    let (ada, ben) = (user(0, 0), user(1, 0));
    world.client.follows().follow(ben, ada).await.unwrap();
    let entry = world.posts.append(ada, "hello").await.unwrap();
    world.client.wait_delivered(&entry.token).await.unwrap();
    world.client.block(ada, ben).await.unwrap();
    assert!(feed_ids(world.posts.feed(ben)).await.is_empty());
    assert_eq!(world.client.unblock(ada, ben).await.unwrap().changed, 1);
    assert_eq!(world.client.unblock(ada, ben).await.unwrap().changed, 0);
    assert_eq!(feed_ids(world.posts.feed(ben)).await, vec![entry.id]);
}
