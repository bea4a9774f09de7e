//! What operators do to spaces and owners, and what readers see of it.

use fanfold_client::{Hot, HotBy, PartitionId, Status, UserId};

use crate::world::{PARTITIONS, World, feed_ids, refused, timeline_ids, user};

#[tokio::test]
async fn read_only_space_refuses_writes_until_it_is_opened_again() {
    let mut world = World::start().await;
    let (posts, owner) = (world.client.space("posts"), user(1, 0));
    let before = posts.append(owner, "before").key("request-1").await.unwrap();
    let changes = |is_read_only| fanfold_client::SpaceChanges {
        is_read_only: Some(is_read_only),
        ..fanfold_client::SpaceChanges::default()
    };
    let altered = world.client.spaces().alter("posts", changes(true)).await.unwrap();
    assert!(altered.policy.is_read_only);
    for round in 0..2 {
        let status = refused(posts.append(owner, "no").await);
        assert_eq!(status, Status::ReadOnlySpace { space: "posts".to_owned() }, "{round}");
        assert!(matches!(refused(posts.delete(owner, before.id).await), Status::ReadOnlySpace { .. }));
        // A retry under its key is no new write: it gets the answer that was given before.
        let again = posts.append(owner, "before").key("request-1").await.unwrap();
        assert_eq!((again.id, again.duplicate), (before.id, true));
        let other = refused(posts.append(owner, "other").key("request-1").await);
        assert_eq!(other, Status::KeyConflict { existing: before.id });
        let new = refused(posts.append(owner, "new").key("request-2").await);
        assert!(matches!(new, Status::ReadOnlySpace { .. }), "{new}");
        world.client.space("stories").append(owner, "elsewhere").await.unwrap();
        assert_eq!(timeline_ids(posts.timeline(owner)).await, [before.id]);
        world.node.restart_hard().await.unwrap();
    }
    world.client.spaces().alter("posts", changes(false)).await.unwrap();
    let after = posts.append(owner, "after").await.unwrap();
    assert_eq!(timeline_ids(posts.timeline(owner)).await, [after.id, before.id]);
}

#[tokio::test]
async fn paused_fan_out_keeps_entries_back_and_shows_all_when_it_goes_on() {
    let mut world = World::start().await;
    let (posts, owner) = (world.client.space("posts"), user(1, 0));
    // One reader at the owner's home, one elsewhere.
    let readers: [UserId; 2] = [user(1, 1), user(2, 0)];
    for reader in readers {
        world.client.follows().follow(reader, owner).await.unwrap();
    }
    let first = posts.append(owner, "before").await.unwrap();
    world.client.wait_drained().await.unwrap();
    world.client.pause_fan_out(owner, true).await.unwrap();
    let kept = posts.append(owner, "kept back").await.unwrap();
    // What is kept back is not waited for: nothing is on its way.
    let waited = world.client.wait_delivered(&kept.token).deadline(std::time::Duration::from_secs(20)).await;
    waited.unwrap();
    let deleted = posts.append(owner, "kept back, then deleted").await.unwrap();
    posts.delete(owner, deleted.id).await.unwrap();
    for round in 0..2 {
        world.client.wait_drained().await.unwrap();
        assert_eq!(world.client.paused().await.unwrap(), [owner], "{round}");
        assert_eq!(timeline_ids(posts.timeline(owner)).await, [kept.id, first.id]);
        for reader in readers {
            assert_eq!(feed_ids(posts.feed(reader)).await, [first.id], "{reader} {round}");
        }
        world.node.restart_hard().await.unwrap();
    }
    world.client.pause_fan_out(owner, false).await.unwrap();
    let last = posts.append(owner, "after").await.unwrap();
    world.client.wait_drained().await.unwrap();
    assert!(world.client.paused().await.unwrap().is_empty());
    for reader in readers {
        assert_eq!(feed_ids(posts.feed(reader)).await, [last.id, kept.id, first.id], "{reader}");
    }
}

#[tokio::test]
async fn whose_posts_cost_most_is_found_among_many_who_post_more_often() {
    const BUSY: u64 = 600;
    let world = World::start().await;
    let (loved, readers) = (UserId(1_000_000), (2..62).map(UserId).collect::<Vec<_>>());
    for reader in &readers {
        world.client.follows().follow(*reader, loved).await.unwrap();
    }
    world.client.wait_drained().await.unwrap();
    world.posts.append(loved, "rare").await.unwrap();
    // Followed by nobody, or by one.
    let busy: Vec<_> = (1_000..1_000 + BUSY).map(UserId).collect();
    world.client.follows().follow(readers[0], busy[0]).await.unwrap();
    world.client.wait_drained().await.unwrap();
    for _ in 0..2 {
        let posts = busy.iter().map(async |owner| world.posts.append(*owner, "often").await.unwrap());
        futures_util::future::join_all(posts).await;
    }
    world.client.wait_drained().await.unwrap();
    let hot = world.client.hot(HotBy::FanOut, 10).await.unwrap();
    let (_, hot) = hot.into_iter().next().unwrap();
    let hot = hot.unwrap();
    let count = |of, count| Hot { of, count, error: 0 };
    assert_eq!(hot.users, [count(loved, readers.len() as u64), count(busy[0], 2)]);
    // By partition it is what was delivered there.
    let mut delivered = vec![0; usize::from(PARTITIONS)];
    for reader in &readers {
        delivered[usize::from(PartitionId::of_user(*reader, PARTITIONS).0)] += 1;
    }
    delivered[usize::from(PartitionId::of_user(readers[0], PARTITIONS).0)] += 2;
    let mut told = vec![0; usize::from(PARTITIONS)];
    hot.partitions.iter().for_each(|hot| told[usize::from(hot.of.0)] = hot.count);
    assert_eq!(told, delivered);
}
