//! Row 15: the wall clock jumps by an hour.

use std::time::Duration;

use fanfold_client::{EntryId, UserId};

use crate::world::{World, feed_ids, timeline_ids, user};

const HOUR_MS: i64 = 3_600 * 1_000;
const MINUTE: Duration = Duration::from_secs(60);

async fn held_ms(world: &World) -> Option<i64> {
    world.client.status().await.unwrap()[0].clock_held_ms
}

/// What the owner's timeline and the reader's feed show; both must agree.
async fn shown(world: &World, owner: UserId, reader: UserId) -> Vec<EntryId> {
    let feed = feed_ids(world.stories.feed(reader)).await;
    assert_eq!(timeline_ids(world.stories.timeline(owner)).await, feed);
    feed
}

/// A world in which a reader sees an owner's story of half an hour.
async fn story_of_half_an_hour() -> (World, UserId, UserId, EntryId) {
    let world = World::start().await;
    let (owner, reader) = (user(0, 0), user(1, 0));
    world.client.follows().follow(reader, owner).await.unwrap();
    let story = world.stories.append(owner, "half an hour").ttl(30 * MINUTE).await.unwrap();
    world.client.wait_delivered(&story.token).await.unwrap();
    assert_eq!(held_ms(&world).await, None);
    assert_eq!(shown(&world, owner, reader).await, vec![story.id]);
    (world, owner, reader, story.id)
}

#[tokio::test]
async fn an_hour_forward_expires_nothing_early_until_it_is_accepted() {
    let (world, owner, reader, story) = story_of_half_an_hour().await;
    world.node.jump(HOUR_MS);
    world.node.advance(Duration::ZERO).await.unwrap();
    assert_eq!(shown(&world, owner, reader).await, vec![story]);
    assert_eq!(held_ms(&world).await, Some(HOUR_MS));

    world.node.advance(29 * MINUTE).await.unwrap();
    assert_eq!(shown(&world, owner, reader).await, vec![story]);
    world.node.advance(2 * MINUTE).await.unwrap();
    assert!(shown(&world, owner, reader).await.is_empty(), "expiry goes on while a jump is held");

    let later = world.stories.append(owner, "another").ttl(30 * MINUTE).await.unwrap();
    world.client.wait_delivered(&later.token).await.unwrap();
    assert_eq!(later.id.time().0, story.time().0 + 31 * 60 * 1_000);
    world.client.accept_clock().await.unwrap();
    assert_eq!(held_ms(&world).await, None);
    world.node.advance(Duration::ZERO).await.unwrap();
    assert!(shown(&world, owner, reader).await.is_empty(), "the accepted hour counts");
}

#[tokio::test]
async fn an_hour_back_neither_freezes_expiry_nor_returns_anything() {
    let (mut world, owner, reader, story) = story_of_half_an_hour().await;
    world.node.jump(-HOUR_MS);
    world.node.advance(29 * MINUTE).await.unwrap();
    assert_eq!(held_ms(&world).await, Some(-HOUR_MS));
    assert_eq!(shown(&world, owner, reader).await, vec![story]);
    world.node.advance(2 * MINUTE).await.unwrap();
    assert!(shown(&world, owner, reader).await.is_empty());

    world.node.restart_hard().await.unwrap();
    assert!(shown(&world, owner, reader).await.is_empty(), "a restart behind its log brings nothing back");
    assert_eq!(held_ms(&world).await, Some(-HOUR_MS));
    world.client.accept_clock().await.unwrap();
    assert_eq!(held_ms(&world).await, None);
    assert!(shown(&world, owner, reader).await.is_empty());
    let later = world.stories.append(owner, "another").ttl(30 * MINUTE).await.unwrap();
    assert!(later.id > story);
    world.client.wait_delivered(&later.token).await.unwrap();
    // Stamps run at half speed until the wall clock has caught up, so this takes at most twice as long.
    world.node.advance(29 * MINUTE).await.unwrap();
    assert_eq!(shown(&world, owner, reader).await, vec![later.id]);
    world.node.advance(32 * MINUTE).await.unwrap();
    assert!(shown(&world, owner, reader).await.is_empty());
}
