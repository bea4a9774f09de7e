//! More requests or connections than allowed are held up or refused, each one is answered, and the HTTP port stays
//! usable.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::BytesMut;
use fanfold_protocol::call::Call;
use fanfold_protocol::message::{ReadTimeline, Request, Response};
use fanfold_protocol::{RequestId, Status, Token, UserId};
use tokio::io::AsyncWriteExt;

use crate::peer::{Config, FRAME_BYTES_MAX, Peer, config, get, metric, node, read_timeline, server, soon};

const IN_FLIGHT: u32 = 64;
const PIPELINED: u64 = 100_000;

/// A read that waits for a position that never comes, until its deadline.
async fn hopeless_read(peer: &mut Peer, deadline_ms: u32) -> Call {
    let reply = peer.call(Request::ReadTimeline(read_timeline(UserId(7)))).await;
    let Ok(Response::Page(page)) = reply else { panic!("{reply:?}") };
    let at_least = Some(Token { log_index: page.token.log_index + 1_000_000, ..page.token });
    let request = Request::ReadTimeline(ReadTimeline { at_least, ..read_timeline(UserId(7)) });
    Call { deadline_ms: Some(deadline_ms), request }
}

#[tokio::test]
async fn request_beyond_those_in_flight_waits_until_one_is_answered() {
    for (reads, ping_is_first) in [(IN_FLIGHT - 1, true), (IN_FLIGHT, false)] {
        let node = node(Config { connection_requests_max: IN_FLIGHT, ..config() }).await;
        let mut peer = Peer::connect(node.socket_address()).await;
        let read = hopeless_read(&mut peer, 500).await;
        for id in 1..=u64::from(reads) {
            peer.send_frame(&read.to_frame(RequestId(id))).await;
        }
        let ping = Call { deadline_ms: None, request: Request::Ping };
        peer.send_frame(&ping.to_frame(RequestId(1_000))).await;
        let mut answered = Vec::new();
        for _ in 0..=reads {
            let frame = peer.incoming.next().await.unwrap();
            let reply = frame.decode_reply().unwrap();
            match frame.request_id {
                RequestId(1_000) => assert_eq!(reply, Ok(Response::Pong)),
                _ => assert_eq!(reply, Err(Status::DeadlineExceeded)),
            }
            answered.push(frame.request_id.0);
        }
        assert_eq!(answered[0] == 1_000, ping_is_first, "{reads} reads: {answered:?}");
        answered.sort_unstable();
        assert_eq!(answered, (1..=u64::from(reads)).chain([1_000]).collect::<Vec<_>>());
        node.stop().await.unwrap();
    }
}

#[tokio::test]
async fn node_with_too_many_bytes_in_flight_answers_busy() {
    let limits = Config { node_bytes_max: 1 << 20, connection_bytes_max: 1 << 20, ..config() };
    let node = node(limits).await;
    let mut first = Peer::connect(node.socket_address()).await;
    // The reads wait and hold the bytes of the pages that they expect: 1,000 entries with payloads each.
    let mut read = hopeless_read(&mut first, 1_000).await;
    if let Request::ReadTimeline(read) = &mut read.request {
        read.hydrate = true;
    }
    first.send_frame(&read.to_frame(RequestId(1_000))).await;
    let mut second = Peer::connect(node.socket_address()).await;
    let large = ReadTimeline { hydrate: true, ..read_timeline(UserId(7)) };
    // Both were sent to different connections, so that either may come first; the first holds the bytes for a second.
    loop {
        match second.call(Request::ReadTimeline(large.clone())).await {
            Ok(_) => {}
            Err(Status::Busy { delay_ms }) => break assert!(delay_ms > 0),
            other => panic!("{other:?}"),
        }
    }
    second.assert_serves().await;
    let waited = first.incoming.next().await.unwrap();
    assert_eq!(waited.decode_reply().unwrap(), Err(Status::DeadlineExceeded));
    second.call(Request::ReadTimeline(large)).await.unwrap();
    node.stop().await.unwrap();
}

#[tokio::test]
async fn every_one_of_100_000_pipelined_requests_is_answered_once() {
    let limits = Config { connection_requests_max: IN_FLIGHT, write_timeout_ms: 600_000, ..config() };
    let (server, _dir) = server(limits).await;
    let http = server.http_address().unwrap();
    let mut peer = Peer::with_small_buffer(server.address()).await;
    let call = Call { deadline_ms: None, request: Request::ListSpaces };
    let mut requests = BytesMut::new();
    for id in 1..=PIPELINED {
        call.to_frame(RequestId(id)).encode_into(&mut requests, FRAME_BYTES_MAX).unwrap();
    }
    // As much as the node takes while nothing is read; then the rest, while the answers are.
    let mut sent = 0;
    while sent < requests.len() {
        let write = peer.outgoing.write(&requests[sent..]);
        match tokio::time::timeout(Duration::from_millis(500), write).await {
            Ok(written) => sent += written.unwrap(),
            Err(_) => break,
        }
    }
    assert!(metric(http, "fanfold_requests_in_flight").await <= u64::from(IN_FLIGHT));
    let answered = metric(http, r#"fanfold_requests_total{kind="list_spaces",status="ok"}"#).await;
    assert!(answered < PIPELINED, "the node must not work ahead of a client that reads nothing");

    let Peer { mut incoming, mut outgoing, .. } = peer;
    let rest = requests.split_off(sent);
    let writing = tokio::spawn(async move {
        outgoing.write_all(&rest).await.unwrap();
        outgoing
    });
    let mut ids = BTreeSet::new();
    while ids.len() < PIPELINED as usize {
        let frame = incoming.next().await.unwrap();
        match frame.decode_reply().unwrap() {
            Ok(Response::Spaces(_)) | Err(Status::Busy { .. }) => {}
            other => panic!("{other:?}"),
        }
        assert!(ids.insert(frame.request_id.0), "{} was answered twice", frame.request_id);
    }
    assert_eq!((ids.first(), ids.last()), (Some(&1), Some(&PIPELINED)));
    drop(soon(writing).await.unwrap());
    assert_eq!(incoming.next().await, None, "nothing but the answers comes");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn connection_above_the_cap_is_refused_and_the_http_port_still_answers() {
    let (server, _dir) = server(Config { connections_max: 2, ..config() }).await;
    let http = server.http_address().unwrap();
    let mut first = Peer::connect(server.address()).await;
    let mut second = Peer::connect(server.address()).await;
    for _ in 0..3 {
        let mut third = Peer::silent(server.address()).await;
        assert_eq!(third.shake_hands().await, Err(Status::TooManyConnections));
        assert_eq!(third.incoming.next().await, None, "it is closed");
    }
    assert!(get(http, "/livez").await.ends_with("alive\n"));
    assert!(get(http, "/readyz").await.ends_with("ready\n"));
    let refused = metric(http, r#"fanfold_connections_refused_total{status="too_many_connections"}"#).await;
    assert_eq!(refused, 3);
    first.assert_serves().await;
    second.assert_serves().await;

    drop(first);
    // The place is free once the node has seen the close.
    let again = async { while Peer::silent(server.address()).await.shake_hands().await.is_err() {} };
    soon(again).await;
    second.assert_serves().await;
    server.stop().await.unwrap();
}

#[tokio::test]
async fn node_that_stops_answers_what_is_in_flight_and_closes() {
    let node = node(config()).await;
    let mut peer = Peer::connect(node.socket_address()).await;
    let read = hopeless_read(&mut peer, 300).await;
    peer.send_frame(&read.to_frame(RequestId(1_000))).await;
    // The ping behind it was taken, hence the read before it as well.
    peer.assert_serves().await;
    let (stopped, answer) = tokio::join!(node.stop(), peer.incoming.next());
    stopped.unwrap();
    assert_eq!(answer.unwrap().decode_reply().unwrap(), Err(Status::DeadlineExceeded));
    assert_eq!(peer.incoming.next().await, None);
}
