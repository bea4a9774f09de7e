//! Writes: sessions, retries, exactly once.

use std::time::{Duration, Instant};

use fanfold_protocol::message::{SpaceInfo, WriteResult};
use fanfold_protocol::{EntryId, PartitionId, Request, Response, Sequence, SessionId, Status, UserId};

use crate::error::Error;
use crate::import::{ImportLane, ImportOp};
use crate::scripted::{Ask, Server, appended, written};

fn number(ask: &Ask) -> (SessionId, Sequence) {
    (ask.write().tag.session, ask.write().tag.sequence)
}

#[tokio::test]
async fn retry_after_a_lost_connection_keeps_session_sequence_and_content() {
    let server = Server::start().await;
    let (client, mut peer) = server.connect().await;
    let call = tokio::spawn(client.space("posts").append(UserId(1), "hello").into_future());
    let first = peer.next_write().await;
    drop(peer);
    let mut peer = server.accept().await;
    let second = peer.next_write().await;
    assert_eq!(number(&second), number(&first));
    assert_eq!(second.write().op, first.write().op);
    peer.answer(&second, &appended(5)).await;
    let appended = call.await.expect("no panic").expect("answered at the second attempt");
    assert_eq!(appended.id, EntryId(5));
}

#[tokio::test]
async fn busy_write_is_repeated_under_its_number_and_not_before_the_delay() {
    let server = Server::start().await;
    let (client, mut peer) = server.connect().await;
    let call = tokio::spawn(client.space("posts").append(UserId(1), "hello").into_future());
    let first = peer.next_write().await;
    let refused = Instant::now();
    peer.refuse(&first, &Status::Busy { delay_ms: 300 }).await;
    let second = peer.next_write().await;
    assert!(refused.elapsed() >= Duration::from_millis(300));
    assert_eq!(number(&second), number(&first));
    peer.answer(&second, &appended(5)).await;
    assert!(call.await.expect("no panic").is_ok());
}

#[tokio::test]
async fn busy_beyond_the_deadline_fails_at_once_and_has_not_applied() {
    let server = Server::start().await;
    let (client, mut peer) = server.connect().await;
    let append = client.space("posts").append(UserId(1), "hello").deadline(Duration::from_secs(60));
    let call = tokio::spawn(append.into_future());
    let ask = peer.next_write().await;
    peer.refuse(&ask, &Status::Busy { delay_ms: 3_600_000 }).await;
    let error = call.await.expect("no panic").expect_err("an hour is beyond the deadline");
    assert!(matches!(error, Error::DeadlineExceeded { may_have_applied: false, .. }), "{error:?}");
    assert_eq!(error.status(), Some(&Status::Busy { delay_ms: 3_600_000 }));
    assert!(error.is_retryable());
}

#[tokio::test]
async fn not_leader_fetches_the_map_again_and_keeps_the_number() {
    let server = Server::start().await;
    let (client, mut peer) = server.connect().await;
    let call = tokio::spawn(client.space("posts").append(UserId(1), "hello").into_future());
    let first = peer.next_write().await;
    assert_eq!(peer.maps, 1);
    peer.refuse(&first, &Status::NotLeader { hint: None }).await;
    let second = peer.next_write().await;
    assert_eq!(peer.maps, 2);
    assert_eq!(number(&second), number(&first));
    peer.answer(&second, &appended(5)).await;
    assert!(call.await.expect("no panic").is_ok());
}

#[tokio::test]
async fn unknown_session_at_the_first_attempt_takes_a_new_session() {
    let server = Server::start().await;
    let (client, mut peer) = server.connect().await;
    let call = tokio::spawn(client.space("posts").append(UserId(1), "hello").into_future());
    let first = peer.next_write().await;
    peer.refuse(&first, &Status::UnknownSession).await;
    let second = peer.next_write().await;
    assert_ne!(second.write().tag.session, first.write().tag.session);
    assert_eq!(second.write().tag.sequence, Sequence(1));
    assert_eq!(second.write().op, first.write().op);
    peer.answer(&second, &appended(5)).await;
    assert!(call.await.expect("no panic").is_ok());
}

#[tokio::test]
async fn unknown_session_after_a_lost_answer_is_an_error_and_no_second_run() {
    let server = Server::start().await;
    let (client, mut peer) = server.connect().await;
    let call = tokio::spawn(client.space("posts").append(UserId(1), "hello").into_future());
    peer.next_write().await;
    drop(peer);
    let mut peer = server.accept().await;
    let second = peer.next_write().await;
    peer.refuse(&second, &Status::UnknownSession).await;
    let error = call.await.expect("no panic").expect_err("the first attempt may have applied");
    assert!(matches!(error, Error::SessionForgotten { .. }), "{error:?}");
    assert!(error.may_have_applied());
    drop(client);
    assert!(peer.closes().await, "nothing more was sent");
}

#[tokio::test]
async fn an_import_tells_a_session_that_was_unknown_at_once_from_one_forgotten_meanwhile() {
    let server = Server::start().await;
    let (client, mut peer) = server.connect().await;
    let lane = client.import_lane(PartitionId(0), Some(SessionId(7))).await.expect("no call is made");
    let write = |lane: &ImportLane| {
        let lane = lane.clone();
        tokio::spawn(async move { lane.write(3, 3, ImportOp::Entries(Vec::new())).await })
    };
    let call = write(&lane);
    let ask = peer.next_write().await;
    peer.refuse(&ask, &Status::UnknownSession).await;
    let error = call.await.expect("no panic").expect_err("it is unknown");
    assert!(matches!(error, Error::Refused { status: Status::UnknownSession, .. }), "{error:?}");
    let call = write(&lane);
    peer.next_write().await;
    drop(peer);
    let mut peer = server.accept().await;
    let ask = peer.next_write().await;
    peer.refuse(&ask, &Status::UnknownSession).await;
    let error = call.await.expect("no panic").expect_err("the first attempt may have applied");
    assert!(matches!(error, Error::SessionForgotten { session: SessionId(7), .. }), "{error:?}");
}

#[tokio::test]
async fn unavailable_then_unknown_session_is_an_error_too() {
    let server = Server::start().await;
    let (client, mut peer) = server.connect().await;
    let call = tokio::spawn(client.space("posts").append(UserId(1), "hello").into_future());
    let first = peer.next_write().await;
    peer.refuse(&first, &Status::Unavailable { partition: first.write().partition }).await;
    let second = peer.next_write().await;
    assert_eq!(number(&second), number(&first));
    peer.refuse(&second, &Status::UnknownSession).await;
    let error = call.await.expect("no panic").expect_err("it may have been proposed");
    assert!(error.may_have_applied());
}

/// What comes of a delete whose first answer is lost, when the second attempt is refused.
async fn refused_after_a_lost_answer(status: Status) -> Error {
    let server = Server::start().await;
    let (client, mut peer) = server.connect().await;
    let call = tokio::spawn(client.space("posts").delete(UserId(1), EntryId(9)).into_future());
    peer.next_write().await;
    drop(peer);
    let mut peer = server.accept().await;
    let second = peer.next_write().await;
    peer.refuse(&second, &status).await;
    let error = call.await.expect("no panic").expect_err("refused");
    assert_eq!(error.status(), Some(&status));
    error
}

#[tokio::test]
async fn refusal_after_a_lost_answer_is_certain_only_if_it_is_the_writes_result() {
    for status in [Status::NotFound, Status::NotTheOwner, Status::ReadOnlySpace { space: "posts".to_owned() }]
    {
        assert!(!refused_after_a_lost_answer(status).await.may_have_applied());
    }
    // A node may refuse before it asks the partition.
    let field = fanfold_protocol::Field::Payload;
    for status in [Status::TooLarge { field, limit: 1 }, Status::Malformed { field }] {
        assert!(refused_after_a_lost_answer(status).await.may_have_applied());
    }
}

#[tokio::test]
async fn call_of_a_client_that_is_closed_meanwhile_may_have_applied() {
    let server = Server::start().await;
    let (client, mut peer) = server.connect().await;
    let call = tokio::spawn(client.space("posts").append(UserId(1), "hello").into_future());
    let first = peer.next_write().await;
    let closing = tokio::spawn(client.close());
    let close = peer.next().await;
    peer.answer(&close, &Response::Done).await;
    closing.await.expect("no panic").expect("closed");
    peer.refuse(&first, &Status::Unavailable { partition: first.write().partition }).await;
    let error = call.await.expect("no panic").expect_err("closed");
    assert!(matches!(error, Error::OutcomeUnknown { .. }) && error.may_have_applied(), "{error:?}");
}

#[tokio::test]
async fn dropped_write_holds_nobody_back() {
    let server = Server::start().await;
    let (client, mut peer) = server.connect().await;
    let posts = client.space("posts");
    let dropped = tokio::spawn(posts.append(UserId(1), "never mind").into_future());
    let first = peer.next_write().await;
    assert_eq!(first.write().tag.sequence, Sequence(1));
    dropped.abort();
    assert!(dropped.await.expect_err("aborted").is_cancelled());
    let call = tokio::spawn(posts.append(UserId(1), "this one").into_future());
    let second = peer.next_write().await;
    assert_eq!(second.write().tag.sequence, Sequence(2));
    assert_eq!(second.write().tag.lowest_unanswered, Sequence(2));
    // The late answer to the dropped one disturbs nobody.
    peer.answer(&first, &appended(4)).await;
    peer.answer(&second, &appended(5)).await;
    assert_eq!(call.await.expect("no panic").expect("answered").id, EntryId(5));
}

#[tokio::test]
async fn open_write_keeps_its_result_from_being_dropped() {
    let server = Server::start().await;
    let (client, mut peer) = server.connect().await;
    let posts = client.space("posts");
    let slow = tokio::spawn(posts.append(UserId(1), "slow").into_future());
    let first = peer.next_write().await;
    let quick = tokio::spawn(posts.append(UserId(1), "quick").into_future());
    let second = peer.next_write().await;
    assert_eq!(second.write().tag.lowest_unanswered, Sequence(1));
    peer.answer(&second, &appended(6)).await;
    assert!(quick.await.expect("no panic").is_ok());
    peer.answer(&first, &appended(5)).await;
    assert!(slow.await.expect("no panic").is_ok());
}

#[tokio::test]
async fn refusal_for_good_is_told_at_once() {
    let server = Server::start().await;
    let (client, mut peer) = server.connect().await;
    let call = tokio::spawn(client.space("posts").delete(UserId(1), EntryId(9)).into_future());
    let ask = peer.next_write().await;
    peer.refuse(&ask, &Status::NotTheOwner).await;
    let error = call.await.expect("no panic").expect_err("refused");
    assert_eq!(error.status(), Some(&Status::NotTheOwner));
    assert!(!error.is_retryable() && !error.may_have_applied());
}

#[tokio::test]
async fn create_of_a_space_is_not_sent_twice() {
    let server = Server::start().await;
    let (client, mut peer) = server.connect().await;
    let list = tokio::spawn(client.spaces().show("posts").into_future());
    peer.serve_until_idle(&list).await;
    let SpaceInfo { policy, .. } = list.await.expect("no panic").expect("listed");
    let call = tokio::spawn(client.spaces().create("albums", policy).into_future());
    let ask = peer.next().await;
    assert!(matches!(ask.call.request, Request::CreateSpace(_)));
    drop(peer);
    let error = call.await.expect("no panic").expect_err("the outcome is unknown");
    assert!(matches!(error, Error::ConnectionLost { may_have_applied: true, .. }), "{error:?}");
}

#[tokio::test]
async fn follow_names_each_owner_once_and_sorted() {
    let server = Server::start().await;
    let (client, mut peer) = server.connect().await;
    let owners = [5, 3, 5, 4].map(UserId);
    let call = tokio::spawn(client.follows().follow_many(UserId(1), owners).into_future());
    let ask = peer.next_write().await;
    match &ask.write().op {
        fanfold_protocol::message::WriteOp::Follow(edges) => {
            assert_eq!(edges.owners, [3, 4, 5].map(UserId));
        }
        other => panic!("not a follow: {other:?}"),
    }
    let related = WriteResult::Related { changed: 2, refused: vec![UserId(4)] };
    peer.answer(&ask, &written(related)).await;
    let related = call.await.expect("no panic").expect("answered");
    assert_eq!((related.changed, related.refused), (2, vec![UserId(4)]));
}

#[tokio::test]
async fn closing_closes_the_sessions_and_ends_the_calls() {
    let server = Server::start().await;
    let (client, mut peer) = server.connect().await;
    let other = client.clone();
    let call = tokio::spawn(client.space("posts").append(UserId(1), "hello").into_future());
    let ask = peer.next_write().await;
    peer.answer(&ask, &appended(5)).await;
    assert!(call.await.expect("no panic").is_ok());
    let close = tokio::spawn(client.close());
    let ask2 = peer.next().await;
    match &ask2.call.request {
        Request::CloseSession(close) => assert_eq!(close.session, ask.write().tag.session),
        other => panic!("not a close: {other:?}"),
    }
    peer.answer(&ask2, &fanfold_protocol::Response::Done).await;
    assert!(close.await.expect("no panic").is_ok());
    assert!(matches!(other.ping().await, Err(Error::Closed)));
}
