//! Exactly once: sessions, sequences, application keys.

use std::time::Duration;

use fanfold_protocol::message::{
    AppendOutcome, CloseSession, EntryName, ExpiryChoice, SetExpiry, TtlChoice, WriteOp, WriteResult,
    WriteTag, Written,
};
use fanfold_protocol::{
    Field, PartitionId, Reply, Request, Response, Sequence, SessionId, SpaceId, Status, UserId,
};
use fanfold_storage::command::TTL_MS_MAX;

use crate::wire::{Wire, append, appended, tag, written};
use crate::world::{PARTITIONS, World, refused, timeline_ids, user};

fn post(owner: UserId, payload: &'static str) -> WriteOp {
    append(owner, payload, TtlChoice::SpaceDefault)
}

/// Whether an answer is the first one again. Its token names the log entry that found it, which is a later one.
#[track_caller]
fn assert_same(again: &Written, first: &Written) {
    assert_eq!(again.result, first.result);
    assert_eq!(again.token.partition, first.token.partition);
    assert_eq!(again.token.journal_position, first.token.journal_position);
    assert!(again.token.log_index > first.token.log_index);
}

/// Row 11, on one connection, on another, and over a hard restart.
#[tokio::test]
async fn a_repeated_write_gets_the_first_answer() {
    let mut world = World::start().await;
    let ada = user(0, 0);
    let mut wire = Wire::connect(world.node.socket_address()).await;
    let session = wire.open_session(ada).await;
    let first = written(wire.write(ada, tag(session, 1), post(ada, "once")).await);
    assert_same(&written(wire.write(ada, tag(session, 1), post(ada, "once")).await), &first);
    let mut other = Wire::connect(world.node.socket_address()).await;
    assert_same(&written(other.write(ada, tag(session, 1), post(ada, "once")).await), &first);

    world.node.restart_hard().await.unwrap();
    let mut wire = Wire::connect(world.node.socket_address()).await;
    assert_same(&written(wire.write(ada, tag(session, 1), post(ada, "once")).await), &first);
    // The same words under a number of their own are another entry.
    let second = written(wire.write(ada, tag(session, 2), post(ada, "once")).await);
    let both = vec![appended(&second), appended(&first)];
    assert_eq!(timeline_ids(world.posts.timeline(ada)).await, both);
}

/// Who leads is not the map's to say.
#[tokio::test]
async fn a_write_is_taken_once_whatever_map_it_was_routed_by() {
    let world = World::start().await;
    let ada = user(0, 0);
    let mut wire = Wire::connect(world.node.socket_address()).await;
    let session = wire.open_session(ada).await;
    let routed_by = wire.epoch;
    let policy = world.client.spaces().list().await.unwrap().remove(0).policy;
    world.client.spaces().create("photos", policy).await.unwrap();
    let now = Wire::connect(world.node.socket_address()).await.epoch;
    assert!(now > routed_by, "another space is another map");
    let mut made = Vec::new();
    for (epoch, sequence) in [(routed_by, 1), (0, 2), (now + 1, 3), (u64::MAX, 4)] {
        wire.epoch = epoch;
        let first = written(wire.write(ada, tag(session, sequence), post(ada, "once")).await);
        // Sent again by another map it is the same write.
        wire.epoch = now;
        assert_same(&written(wire.write(ada, tag(session, sequence), post(ada, "once")).await), &first);
        made.insert(0, appended(&first));
    }
    assert_eq!(timeline_ids(world.posts.timeline(ada)).await, made);
}

/// Row 12.
#[tokio::test]
async fn another_body_under_the_same_number_is_a_conflict() {
    let mut world = World::start().await;
    let ada = user(1, 0);
    let mut wire = Wire::connect(world.node.socket_address()).await;
    let session = wire.open_session(ada).await;
    let first = written(wire.write(ada, tag(session, 1), post(ada, "one")).await);
    assert_eq!(wire.write(ada, tag(session, 1), post(ada, "two")).await, Err(Status::SequenceConflict));
    world.node.restart_hard().await.unwrap();
    let mut wire = Wire::connect(world.node.socket_address()).await;
    assert_eq!(wire.write(ada, tag(session, 1), post(ada, "two")).await, Err(Status::SequenceConflict));
    assert_same(&written(wire.write(ada, tag(session, 1), post(ada, "one")).await), &first);
    assert_eq!(timeline_ids(world.posts.timeline(ada)).await, vec![appended(&first)]);
}

#[tokio::test]
async fn an_answered_number_is_never_run_again() {
    let world = World::start().await;
    let ada = user(2, 0);
    let mut wire = Wire::connect(world.node.socket_address()).await;
    let session = wire.open_session(ada).await;
    let first = written(wire.write(ada, tag(session, 1), post(ada, "one")).await);
    let seen = WriteTag { session, sequence: Sequence(2), lowest_unanswered: Sequence(2) };
    let second = written(wire.write(ada, seen, post(ada, "two")).await);
    assert_eq!(wire.write(ada, tag(session, 1), post(ada, "one")).await, Err(Status::SequenceTooOld));
    let both = vec![appended(&second), appended(&first)];
    assert_eq!(timeline_ids(world.posts.timeline(ada)).await, both);
}

/// Row 13: never opened, closed, and expired; also over a hard restart.
#[tokio::test]
async fn an_unknown_session_is_an_error_and_never_a_new_one() {
    let mut world = World::start().await;
    let ada = user(3, 0);
    let mut wire = Wire::connect(world.node.socket_address()).await;
    let expired = wire.open_session(ada).await;
    let first = written(wire.write(ada, tag(expired, 1), post(ada, "one")).await);
    world.node.advance(Duration::from_secs(25 * 3_600)).await.unwrap();

    let closed = wire.open_session(ada).await;
    let partition = PartitionId::of_user(ada, PARTITIONS);
    let close = Request::CloseSession(CloseSession { partition, session: closed });
    assert_eq!(wire.ask(close).await, Ok(Response::Done));

    let never = SessionId(closed.0 + 1_000);
    for _ in 0..2 {
        for session in [expired, closed, never] {
            let answer = wire.write(ada, tag(session, 1), post(ada, "one")).await;
            assert_eq!(answer, Err(Status::UnknownSession), "session {session}");
        }
        world.node.restart_hard().await.unwrap();
        wire = Wire::connect(world.node.socket_address()).await;
    }
    assert_eq!(timeline_ids(world.posts.timeline(ada)).await, vec![appended(&first)]);
}

#[tokio::test]
async fn a_session_in_use_lives_on() {
    let world = World::start().await;
    let ada = user(0, 1);
    let mut wire = Wire::connect(world.node.socket_address()).await;
    let session = wire.open_session(ada).await;
    for sequence in 1..=3 {
        world.node.advance(Duration::from_secs(20 * 3_600)).await.unwrap();
        written(wire.write(ada, tag(session, sequence), post(ada, "still here")).await);
    }
}

/// Row 14.
#[tokio::test]
async fn a_time_to_live_out_of_range_is_refused() {
    let world = World::start().await;
    let ada = user(0, 2);
    let mut wire = Wire::connect(world.node.socket_address()).await;
    let session = wire.open_session(ada).await;
    let longest = append(ada, "a century", TtlChoice::Ms(TTL_MS_MAX as i64));
    let id = appended(&written(wire.write(ada, tag(session, 1), longest).await));

    let mut sequence = 1;
    for ttl_ms in [0, -1, i64::MIN, TTL_MS_MAX as i64 + 1, i64::MAX] {
        sequence += 2;
        let reply =
            wire.write(ada, tag(session, sequence), append(ada, "never", TtlChoice::Ms(ttl_ms))).await;
        let status = status_of(reply);
        assert!(out_of_range(&status, Field::Ttl, ttl_ms), "{status:?}");
        let entry = EntryName { space: SpaceId(1), owner: ada, id };
        let set = WriteOp::SetExpiry(SetExpiry { entry, expiry: ExpiryChoice::InMs(ttl_ms) });
        let status = status_of(wire.write(ada, tag(session, sequence + 1), set).await);
        assert!(out_of_range(&status, Field::Expiry, ttl_ms), "{status:?}");
    }
    assert_eq!(timeline_ids(world.posts.timeline(ada)).await, vec![id]);
    let page = world.posts.timeline(ada).await.unwrap();
    assert_eq!(page.entries[0].expiry.unwrap().0, id.time().0 + TTL_MS_MAX);
}

fn status_of(reply: Reply) -> Status {
    match reply {
        Err(status) => status,
        Ok(Response::Written(written)) => match written.result {
            WriteResult::Appended(outcomes) => match &outcomes[..] {
                [AppendOutcome::Refused(status)] => status.clone(),
                _ => panic!("{outcomes:?}"),
            },
            other => panic!("{other:?}"),
        },
        Ok(other) => panic!("{other:?}"),
    }
}

fn out_of_range(status: &Status, wanted: Field, given: i64) -> bool {
    matches!(status, Status::OutOfRange { field, got, .. } if *field == wanted && *got == given)
}

#[tokio::test]
async fn a_key_makes_a_retry_from_another_client_the_same_entry() {
    let mut world = World::start().await;
    let (ada, ben) = (user(0, 0), user(0, 1));
    let first = world.posts.append(ada, "hello").key("request-1").await.unwrap();
    assert!(!first.duplicate);
    for round in 0..2 {
        let other = world.another_client().await;
        let again = other.space("posts").append(ada, "hello").key("request-1").await.unwrap();
        assert!(again.duplicate && again.id == first.id, "round {round}");
        let conflict = refused(other.space("posts").append(ada, "other").key("request-1").await);
        assert_eq!(conflict, Status::KeyConflict { existing: first.id });
        world.node.restart_hard().await.unwrap();
    }
    assert_eq!(timeline_ids(world.posts.timeline(ada)).await, vec![first.id]);

    // A key belongs to one owner and one space, and is forgotten after its window.
    assert!(!world.posts.append(ben, "hello").key("request-1").await.unwrap().duplicate);
    assert!(!world.stories.append(ada, "hello").key("request-1").await.unwrap().duplicate);
    world.node.advance(Duration::from_secs(25 * 3_600)).await.unwrap();
    let later = world.posts.append(ada, "hello").key("request-1").await.unwrap();
    assert!(!later.duplicate && later.id != first.id);
}
