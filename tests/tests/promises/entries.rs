//! Amending, deleting and expiring entries.

use std::time::Duration;

use fanfold_client::{Audience, EntryRef, ReferenceState, Status};

use crate::model::Model;
use crate::world::{World, feed_ids, refused, timeline_ids, user};

const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test]
async fn an_amend_of_another_version_is_refused() {
    let world = World::start().await;
    let (ada, ben) = (user(0, 0), user(1, 0));
    world.client.follows().follow(ben, ada).await.unwrap();
    let entry = world.posts.append(ada, "first").await.unwrap();
    for wrong in [0, 2, u32::MAX] {
        let status = refused(world.posts.amend(ada, entry.id, wrong, "lost").await);
        assert_eq!(status, Status::VersionMismatch { current: 1 });
    }
    let amended = world.posts.amend(ada, entry.id, 1, "second").await.unwrap();
    assert_eq!(amended.version, 2);
    let status = refused(world.posts.amend(ada, entry.id, 1, "lost").await);
    assert_eq!(status, Status::VersionMismatch { current: 2 });

    world.client.wait_delivered(&amended.token).await.unwrap();
    let page = world.posts.feed(ben).hydrate().await.unwrap();
    assert_eq!(page.entries.len(), 1);
    assert_eq!((page.entries[0].version, page.entries[0].payload.as_deref()), (2, Some(&b"second"[..])));
}

/// Row 29.
#[tokio::test]
async fn only_the_owner_deletes_and_twice_is_once() {
    let world = World::start().await;
    let (ada, ben, cleo) = (user(0, 0), user(0, 1), user(1, 0));
    let entry = world.posts.append(ada, "mine").await.unwrap();
    for other in [ben, cleo] {
        assert_eq!(refused(world.posts.delete(other, entry.id).await), Status::NotTheOwner, "user {other}");
        assert_eq!(refused(world.posts.amend(other, entry.id, 1, "x").await), Status::NotTheOwner);
        assert_eq!(refused(world.posts.clear_expiry(other, entry.id).await), Status::NotTheOwner);
    }
    assert_eq!(timeline_ids(world.posts.timeline(ada)).await, vec![entry.id]);
    assert!(world.posts.delete(ada, entry.id).await.unwrap().existed);
    assert!(!world.posts.delete(ada, entry.id).await.unwrap().existed);
    assert!(timeline_ids(world.posts.timeline(ada)).await.is_empty());
}

#[tokio::test]
async fn what_was_deleted_and_delivered_never_shows_again() {
    let mut world = World::start().await;
    let ada = user(0, 0);
    let readers = [user(0, 1), user(1, 0), user(2, 0), user(3, 0)];
    for reader in readers {
        world.client.follows().follow(reader, ada).await.unwrap();
    }
    let kept = world.posts.append(ada, "kept").await.unwrap();
    let gone = world.posts.append(ada, "gone").await.unwrap();
    world.client.wait_delivered(&gone.token).await.unwrap();
    for reader in readers {
        assert_eq!(feed_ids(world.posts.feed(reader)).await, vec![gone.id, kept.id]);
    }
    let deleted = world.posts.delete(ada, gone.id).await.unwrap();
    world.client.wait_delivered(&deleted.token).await.unwrap();
    for round in 0..2 {
        for reader in readers {
            assert_eq!(feed_ids(world.posts.feed(reader)).await, vec![kept.id], "round {round}");
            let entries = world.posts.entries(&[gone.id, kept.id]).viewer(reader).await.unwrap();
            assert!(entries[0].is_none() && entries[1].is_some());
            assert!(!world.posts.explain(reader, gone.id).await.unwrap().shown);
        }
        for page in world.posts.feeds(&readers).await.unwrap() {
            assert_eq!(page.unwrap().entries.len(), 1);
        }
        assert_eq!(timeline_ids(world.posts.timeline(ada)).await, vec![kept.id]);
        world.node.restart_hard().await.unwrap();
    }
}

#[tokio::test]
async fn a_story_becomes_a_highlight_and_stays() {
    let mut world = World::start().await;
    let (ada, ben) = (user(0, 0), user(1, 0));
    world.client.follows().follow(ben, ada).await.unwrap();
    let story = world.stories.append(ada, "gone tomorrow").await.unwrap();
    let highlight = world.stories.append(ada, "for ever").await.unwrap();
    let short = world.stories.append(ada, "gone in an hour").await.unwrap();
    let default_ms = story.id.time().0 + 24 * 3_600 * 1_000;
    let page = world.stories.timeline(ada).await.unwrap();
    assert!(page.entries.iter().all(|entry| entry.expiry.unwrap().0 == default_ms));

    assert_eq!(world.stories.clear_expiry(ada, highlight.id).await.unwrap().expiry, None);
    let set = world.stories.set_expiry(ada, short.id, HOUR).await.unwrap();
    assert_eq!(set.expiry.unwrap().0, short.id.time().0 + 3_600 * 1_000);
    world.client.wait_drained().await.unwrap();
    assert_eq!(feed_ids(world.stories.feed(ben)).await, vec![short.id, highlight.id, story.id]);

    world.node.advance(2 * HOUR).await.unwrap();
    assert_eq!(feed_ids(world.stories.feed(ben)).await, vec![highlight.id, story.id]);
    world.node.advance(23 * HOUR).await.unwrap();
    for round in 0..2 {
        assert_eq!(feed_ids(world.stories.feed(ben)).await, vec![highlight.id], "round {round}");
        assert_eq!(timeline_ids(world.stories.timeline(ada)).await, vec![highlight.id]);
        assert_eq!(refused(world.stories.clear_expiry(ada, story.id).await), Status::NotFound);
        world.node.restart_hard().await.unwrap();
    }
}

#[tokio::test]
async fn a_reference_to_what_is_gone_hydrates_as_gone() {
    let world = World::start().await;
    let (ada, ben, cleo) = (user(0, 0), user(1, 0), user(2, 0));
    world.client.follows().follow(cleo, ben).await.unwrap();
    let original = world.posts.append(ada, "original").await.unwrap();
    let secret = world.posts.append(ada, "secret").audience(Audience::Private).await.unwrap();
    let refer = |id| EntryRef { owner: ada, id };
    world.posts.append(ben, "to a secret").refer_to(refer(secret.id)).await.unwrap();
    world.posts.append(ben, "to a post").refer_to(refer(original.id)).await.unwrap();
    world.client.wait_drained().await.unwrap();

    let page = world.posts.feed(cleo).hydrate().await.unwrap();
    let states: Vec<_> = page.entries.iter().map(|entry| &entry.reference.as_ref().unwrap().state).collect();
    assert!(
        matches!(states[0], ReferenceState::Live(entry) if entry.payload.as_deref() == Some(b"original"))
    );
    assert_eq!(states[1], &ReferenceState::Gone);

    let deleted = world.posts.delete(ada, original.id).await.unwrap();
    world.client.wait_delivered(&deleted.token).await.unwrap();
    let page = world.posts.feed(cleo).hydrate().await.unwrap();
    assert_eq!(page.entries.len(), 2);
    let gone = |entry: &fanfold_client::EntryView| {
        entry.reference.as_ref().is_some_and(|reference| reference.state == ReferenceState::Gone)
    };
    assert!(page.entries.iter().all(gone));
}

#[tokio::test]
async fn a_timeline_shows_a_viewer_what_its_audience_admits() {
    let world = World::start().await;
    let (ada, follower, stranger, blocked) = (user(0, 0), user(1, 0), user(2, 0), user(3, 0));
    let mut model = Model::of(&world.client, "posts").await;
    world.client.follows().follow(follower, ada).await.unwrap();
    model.follow(follower, ada);
    world.client.block(ada, blocked).await.unwrap();
    model.block(ada, blocked);
    let mut ids = Vec::new();
    for audience in [Audience::Public, Audience::Followers, Audience::Private] {
        let entry = world.posts.append(ada, "words").audience(audience).await.unwrap();
        model.append(entry.id, ada, audience, None);
        ids.insert(0, entry.id);
    }
    world.client.wait_drained().await.unwrap();
    let expected = [(None, 3), (Some(ada), 3), (Some(follower), 2), (Some(stranger), 1), (Some(blocked), 0)];
    for (viewer, count) in expected {
        let mut read = world.posts.timeline(ada).limit(2);
        let mut entries = world.posts.entries(&ids);
        if let Some(viewer) = viewer {
            read = read.viewer(viewer);
            entries = entries.viewer(viewer);
        }
        let shown = timeline_ids(read).await;
        assert_eq!(shown.len(), count, "viewer {viewer:?}");
        assert_eq!(shown, model.timeline(ada, viewer));
        assert_eq!(entries.await.unwrap().iter().flatten().count(), count);
    }
    assert_eq!(feed_ids(world.posts.feed(follower)).await, model.feed(follower));
}
