//! A client that is too slow to send a frame, or to take its answers, is told so or closed, and holds up nobody else.

use std::time::Duration;

use fanfold_protocol::message::{ReadTimeline, Request, TtlChoice};
use fanfold_protocol::{Hello, Status, UserId};
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::peer::{Config, Peer, config, encoded, metric, node, read_timeline, server, soon};

const OWNER: UserId = UserId(7);
const REQUESTS: usize = 60;
const FRAME_TIMEOUT: Duration = Duration::from_millis(300);

fn short_frame_timeout() -> Config {
    Config { frame_timeout_ms: FRAME_TIMEOUT.as_millis() as u64, ..config() }
}

#[tokio::test]
async fn truncated_frame_is_closed_at_its_deadline_and_an_idle_connection_is_not() {
    let node = node(short_frame_timeout()).await;
    let mut idle = Peer::connect(node.socket_address()).await;
    idle.assert_serves().await;
    let mut peer = Peer::connect(node.socket_address()).await;
    let frame = encoded(&peer.frame(Request::Ping));
    let begun = Instant::now();
    peer.send(&frame[..frame.len() - 1]).await;
    assert_eq!(peer.refusal_and_close().await, Status::TooSlow);
    assert!(begun.elapsed() >= FRAME_TIMEOUT, "{:?}", begun.elapsed());
    idle.assert_serves().await;
    node.stop().await.unwrap();
}

#[tokio::test]
async fn frame_that_comes_byte_by_byte_is_closed_at_its_deadline() {
    let node = node(short_frame_timeout()).await;
    let mut peer = Peer::connect(node.socket_address()).await;
    let mut home = peer.session(OWNER).await;
    let append = home.append(TtlChoice::SpaceDefault, vec![0; 10_000]);
    let frame = encoded(&peer.frame(append));
    // Each byte comes well within the deadline; the frame as a whole would take minutes.
    let mut ticks = interval(FRAME_TIMEOUT / 20);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let Peer { incoming, outgoing, .. } = &mut peer;
    let drip = async {
        for byte in &frame {
            ticks.tick().await;
            if outgoing.write_all(&[*byte]).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    let refusal = tokio::select! {
        frame = incoming.next() => frame.expect("a refusal comes before the close"),
        () = drip => unreachable!("it never ends"),
    };
    assert_eq!(refusal.decode_status().unwrap(), Status::TooSlow);
    assert_eq!(incoming.next().await, None);
    let mut second = Peer::connect(node.socket_address()).await;
    assert_eq!(second.timeline_len(OWNER).await, 0);
    node.stop().await.unwrap();
}

#[tokio::test]
async fn a_frame_behind_whole_ones_has_a_deadline_of_its_own() {
    let node = node(short_frame_timeout()).await;
    let mut peer = Peer::connect(node.socket_address()).await;
    let whole = encoded(&peer.frame(Request::Ping));
    peer.send(&[&whole[..], &whole[..3]].concat()).await;
    let pong = peer.incoming.next().await.unwrap();
    assert!(pong.decode_reply().unwrap().is_ok());
    assert_eq!(peer.refusal_and_close().await, Status::TooSlow);
    node.stop().await.unwrap();
}

#[tokio::test]
async fn connection_without_a_whole_hello_is_closed_at_its_deadline() {
    let node = node(Config { handshake_timeout_ms: 200, ..config() }).await;
    let mut peer = Peer::silent(node.socket_address()).await;
    peer.send(&Hello::current().to_bytes()[..5]).await;
    assert_eq!(peer.refusal_and_close().await, Status::TooSlow);
    node.stop().await.unwrap();
}

#[tokio::test]
async fn client_that_stops_reading_is_disconnected_and_others_are_served() {
    let (server, _dir) = server(Config { write_timeout_ms: 300, ..config() }).await;
    let http = server.http_address().unwrap();
    let mut second = Peer::connect(server.address()).await;
    let mut home = second.session(OWNER).await;
    for _ in 0..40 {
        let append = home.append(TtlChoice::SpaceDefault, vec![b'x'; 30_000]);
        second.append(append).await;
    }
    let mut peer = Peer::with_small_buffer(server.address()).await;
    let hydrated = ReadTimeline { hydrate: true, limit: 40, ..read_timeline(OWNER) };
    let frame = encoded(&peer.frame(Request::ReadTimeline(hydrated)));
    // It asks for more than a megabyte again and again and takes nothing; the node closes, so that writing fails.
    soon(async { while peer.outgoing.write_all(&frame).await.is_ok() {} }).await;
    assert_eq!(metric(http, r#"fanfold_connections_refused_total{status="too_slow"}"#).await, 1);
    assert_eq!(second.timeline_len(OWNER).await, 40);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn large_answers_that_wait_for_a_client_count_against_the_node() {
    // About three of the answers fit at a time; they are far larger than a page usually is.
    let limits = Config { node_bytes_max: 4 << 20, connection_bytes_max: 4 << 20, ..config() };
    let node = node(limits).await;
    let mut peer = Peer::connect(node.socket_address()).await;
    let mut home = peer.session(OWNER).await;
    for _ in 0..40 {
        let append = home.append(TtlChoice::SpaceDefault, vec![b'x'; 30_000]);
        peer.append(append).await;
    }
    let mut slow = Peer::with_small_buffer(node.socket_address()).await;
    let hydrated = ReadTimeline { hydrate: true, limit: 40, ..read_timeline(OWNER) };
    for _ in 0..REQUESTS {
        let frame = slow.frame(Request::ReadTimeline(hydrated.clone()));
        slow.send_frame(&frame).await;
    }
    let (mut pages, mut busy) = (0, 0);
    while pages + busy < REQUESTS {
        match slow.incoming.next().await.unwrap().decode_reply().unwrap() {
            Ok(_) => pages += 1,
            Err(Status::Busy { delay_ms }) if delay_ms > 0 => busy += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(pages > 0 && busy > 0, "{pages} pages, {busy} busy");
    // Everything was given back.
    slow.call(Request::ReadTimeline(hydrated)).await.unwrap();
    node.stop().await.unwrap();
}
