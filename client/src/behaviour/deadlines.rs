//! Deadlines: what the caller is told when time is up. The clock is paused, so that no test waits.

use std::time::Duration;

use fanfold_protocol::{Response, Status, UserId};

use crate::error::{Error, Loss};
use crate::scripted::{Server, appended};

#[tokio::test]
async fn deadline_of_a_write_that_was_sent_may_have_applied() {
    let server = Server::start().await;
    let (client, mut peer) = server.connect().await;
    let append = client.space("posts").append(UserId(1), "hello").deadline(Duration::from_secs(2));
    let call = tokio::spawn(append.into_future());
    let ask = peer.next_write().await;
    assert!(ask.call.deadline_ms.is_some_and(|left| (1..=2_000).contains(&left)), "{:?}", ask.call);
    tokio::time::pause();
    let error = call.await.expect("no panic").expect_err("never answered");
    assert!(
        matches!(error, Error::DeadlineExceeded { may_have_applied: true, deadline, .. } if deadline.as_secs() == 2),
        "{error:?}"
    );
    assert!(error.is_retryable());
}

#[tokio::test]
async fn deadline_of_a_read_never_may_have_applied() {
    let server = Server::start().await;
    let (client, mut peer) = server.connect().await;
    let call = tokio::spawn(client.space("posts").timeline(UserId(1)).into_future());
    let ask = peer.next().await;
    assert!(ask.call.deadline_ms.is_some_and(|left| left > 2_000 && left <= 10_000), "the default is 10 s");
    tokio::time::pause();
    let error = call.await.expect("no panic").expect_err("never answered");
    assert!(matches!(error, Error::DeadlineExceeded { may_have_applied: false, .. }), "{error:?}");
}

#[tokio::test]
async fn deadline_of_a_write_that_was_never_sent_has_not_applied() {
    let server = Server::start().await;
    let (client, mut peer) = server.connect().await;
    let warm = tokio::spawn(client.space("posts").append(UserId(1), "opens the session").into_future());
    let ask = peer.next_write().await;
    peer.answer(&ask, &appended(5)).await;
    assert!(warm.await.expect("no panic").is_ok());
    // The client notices the end of its connection by a call that was under way, and connects anew; now the server
    // says nothing, not even hello.
    let _ping = tokio::spawn(client.ping().into_future());
    peer.next().await;
    drop(peer);
    let _silent = server.accept_raw().await;
    let append = client.space("posts").append(UserId(1), "hello").deadline(Duration::from_secs(2));
    let call = tokio::spawn(append.into_future());
    tokio::time::pause();
    let error = call.await.expect("no panic").expect_err("never answered");
    assert!(matches!(error, Error::DeadlineExceeded { may_have_applied: false, .. }), "{error:?}");
}

#[tokio::test]
async fn server_gone_silent_is_given_up_before_a_long_deadline() {
    let server = Server::start().await;
    let (client, mut peer) = server.connect().await;
    let read = client.space("posts").timeline(UserId(1)).deadline(Duration::from_secs(60));
    let call = tokio::spawn(read.into_future());
    peer.next().await;
    tokio::time::pause();
    let error = call.await.expect("no panic").expect_err("never answered");
    let Error::DeadlineExceeded { last: Some(last), .. } = &error else { panic!("{error:?}") };
    let asked_anew =
        matches!(**last, Error::Connect { .. } | Error::ConnectionLost { source: Loss::Silent, .. });
    assert!(asked_anew, "the client tried to connect anew: {last:?}");
}

#[tokio::test]
async fn shorter_deadline_of_the_server_does_not_end_a_longer_one_of_the_caller() {
    let server = Server::start().await;
    let (client, mut peer) = server.connect().await;
    let call = tokio::spawn(client.wait_drained().deadline(Duration::from_secs(3_600)).into_future());
    let ask = peer.next().await;
    peer.refuse(&ask, &Status::DeadlineExceeded).await;
    let ask = peer.next().await;
    peer.answer(&ask, &Response::Done).await;
    assert!(call.await.expect("no panic").is_ok());
}
