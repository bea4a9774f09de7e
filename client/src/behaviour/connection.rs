//! Connections: pipelining, batches, limits, and servers that are none.

use fanfold_protocol::{ClusterId, Frame, Limits, Response, Status, UserId};
use futures_util::future::join_all;
use tokio::io::AsyncWriteExt;

use crate::client::Client;
use crate::error::Error;
use crate::scripted::{Server, appended, page};

#[tokio::test]
async fn answers_in_any_order_reach_their_callers() {
    let server = Server::start().await;
    let (client, mut peer) = server.connect().await;
    let posts = client.space("posts");
    let calls: Vec<_> =
        (0..5).map(|owner| tokio::spawn(posts.timeline(UserId(owner)).into_future())).collect();
    let mut asks = Vec::new();
    for _ in 0..5 {
        asks.push(peer.next().await);
    }
    for ask in asks.iter().rev() {
        let fanfold_protocol::Request::ReadTimeline(read) = &ask.call.request else { panic!("{ask:?}") };
        peer.answer(ask, &Response::Page(page(1_000 + read.owner.0))).await;
    }
    for (owner, call) in (0..).zip(calls) {
        let page = call.await.expect("no panic").expect("answered");
        assert_eq!(page.complete_to.0, 1_000 + owner);
    }
}

#[tokio::test]
async fn concurrent_calls_share_frames_and_so_may_their_answers() {
    let server = Server::start().await;
    let (client, mut peer) = server.connect().await;
    let posts = client.space("posts");
    let calls = tokio::spawn(join_all((0..100).map(|n| posts.append(UserId(n), "hello").into_future())));
    let mut answers = Vec::new();
    for n in 0..100 {
        let ask = peer.next_write().await;
        answers.push(Frame::response(ask.opcode, ask.id, &appended(1 + n)));
    }
    let largest = peer.frame_items.iter().max().copied().unwrap_or_default();
    assert!(largest > 10, "100 calls at once came in frames of at most {largest}: {:?}", peer.frame_items);
    peer.send(Frame::batch(&answers)).await;
    let appended = calls.await.expect("no panic");
    let ids: Vec<u64> = appended.into_iter().map(|one| one.expect("answered").id.0).collect();
    assert_eq!(ids, (1..=100).collect::<Vec<_>>());
}

#[tokio::test]
async fn no_more_are_in_flight_than_the_server_allows() {
    let server = Server::with(Limits { pipelined_max: 3, ..Limits::default() }, 1).await;
    let (client, mut peer) = server.connect().await;
    let posts = client.space("posts");
    let calls = tokio::spawn(join_all((0..7).map(|n| posts.timeline(UserId(n)).into_future())));
    let mut open = Vec::new();
    for _ in 0..7 {
        open.push(peer.next().await);
        // One of the three places is kept for a ping. Two are answered together, so that a third one in flight would
        // show as a larger frame.
        if open.len() == 2 {
            for ask in open.drain(..) {
                peer.answer(&ask, &Response::Page(page(1))).await;
            }
        }
    }
    assert!(peer.frame_items.iter().all(|items| *items <= 2), "{:?}", peer.frame_items);
    for ask in open {
        peer.answer(&ask, &Response::Page(page(1))).await;
    }
    assert!(calls.await.expect("no panic").into_iter().all(|page| page.is_ok()));
}

#[tokio::test]
async fn oversize_request_is_refused_here_and_the_connection_goes_on() {
    let server = Server::with(Limits { frame_bytes_max: 8 * 1024, ..Limits::default() }, 1).await;
    let (client, mut peer) = server.connect().await;
    let posts = client.space("posts");
    let call = tokio::spawn(posts.append(UserId(1), vec![0; 9_000]).into_future());
    peer.serve_until_idle(&call).await;
    let error = call.await.expect("no panic").expect_err("too large");
    assert!(matches!(error, Error::RequestTooLarge { limit: 8_192, .. }), "{error:?}");
    assert!(!error.may_have_applied());
    let call = tokio::spawn(posts.append(UserId(1), "small").into_future());
    let ask = peer.next_write().await;
    peer.answer(&ask, &appended(5)).await;
    assert!(call.await.expect("no panic").is_ok());
}

#[tokio::test]
async fn nobody_listening_is_told_at_once() {
    let server = Server::start().await;
    let address = server.address();
    drop(server);
    let error = Client::connect(address.clone()).await.expect_err("nobody listens");
    assert!(matches!(&error, Error::Connect { address: tried, .. } if *tried == address), "{error:?}");
}

#[tokio::test]
async fn second_seed_is_asked_when_the_first_is_down() {
    let (down, up) = (Server::start().await, Server::start().await);
    let builder = Client::builder(down.address()).or(up.address());
    drop(down);
    let (client, mut peer) = up.connect_as(builder).await;
    let call = tokio::spawn(client.ping().into_future());
    let ask = peer.next().await;
    peer.answer(&ask, &Response::Pong).await;
    assert!(call.await.expect("no panic").is_ok());
}

#[tokio::test]
async fn web_server_is_told_from_a_node() {
    let server = Server::start().await;
    let (connected, ()) = tokio::join!(Client::connect(server.address()), async {
        let mut stream = server.accept_raw().await;
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.expect("written");
    });
    assert!(matches!(connected, Err(Error::Connect { .. })), "{connected:?}");
}

#[tokio::test]
async fn refused_connection_says_why() {
    let server = Server::start().await;
    let status = Status::UnsupportedVersion { min: 2, max: 3 };
    let (connected, ()) = tokio::join!(Client::connect(server.address()), async {
        let mut stream = server.accept_raw().await;
        let mut bytes = bytes::BytesMut::new();
        Frame::connection_refusal(&status).encode_into(&mut bytes, 4_096).expect("fits");
        stream.write_all(&bytes).await.expect("written");
    });
    let error = connected.expect_err("refused");
    assert_eq!(error.status(), Some(&status));
    assert!(!error.is_retryable());
}

#[tokio::test]
async fn connection_that_is_refused_later_is_made_anew() {
    let server = Server::start().await;
    let (client, mut peer) = server.connect().await;
    let call = tokio::spawn(client.space("posts").timeline(UserId(1)).into_future());
    peer.next().await;
    peer.send(Frame::connection_refusal(&Status::BadChecksum)).await;
    let mut peer = server.accept().await;
    let ask = peer.next().await;
    peer.answer(&ask, &Response::Page(page(1))).await;
    assert!(call.await.expect("no panic").is_ok());
}

#[tokio::test]
async fn node_of_another_cluster_under_the_same_address_is_refused() {
    let server = Server::start().await;
    let (client, mut peer) = server.connect().await;
    let call = tokio::spawn(client.space("posts").timeline(UserId(1)).into_future());
    let ask = peer.next().await;
    peer.cluster = ClusterId(8);
    peer.refuse(&ask, &Status::WrongEpoch { current: 2 }).await;
    peer.serve_until_idle(&call).await;
    let error = call.await.expect("no panic").expect_err("another cluster");
    let (expected, found) = (ClusterId(7), ClusterId(8));
    assert!(
        matches!(&error, Error::OtherCluster { expected: e, found: f, .. } if (*e, *f) == (expected, found)),
        "{error:?}"
    );
}
