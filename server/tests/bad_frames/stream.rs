//! Bytes that put the stream out of step end the connection; bytes that concern one request do not.

use fanfold_protocol::handshake::{VERSION_MAX, VERSION_MIN};
use fanfold_protocol::message::{AppendOutcome, Request, TtlChoice};
use fanfold_protocol::{Field, Frame, Hello, Opcode, Status, UserId};

use crate::peer::{Peer, config, encoded, node};

const OWNER: UserId = UserId(7);

async fn assert_refused_as_other_protocol(first: &[u8]) {
    let node = node(config()).await;
    let mut peer = Peer::silent(node.socket_address()).await;
    peer.send(first).await;
    assert_eq!(peer.refusal_and_close().await, Status::BadMagic);
    Peer::connect(node.socket_address()).await.assert_serves().await;
    node.stop().await.unwrap();
}

#[tokio::test]
async fn wrong_magic_is_refused_and_closed() {
    let mut hello = Hello::current().to_bytes().to_vec();
    hello[3] ^= 1;
    assert_refused_as_other_protocol(&hello).await;
}

#[tokio::test]
async fn tls_hello_is_refused_and_closed() {
    // A TLS 1.2 record with the head of a ClientHello.
    let hello = [0x16, 0x03, 0x01, 0x00, 0xc8, 0x01, 0x00, 0x00, 0xc4, 0x03, 0x03];
    assert_refused_as_other_protocol(&[&hello[..], &[0x5a; 194]].concat()).await;
}

#[tokio::test]
async fn http_request_is_refused_and_closed() {
    assert_refused_as_other_protocol(b"GET /livez HTTP/1.1\r\nHost: fanfold\r\n\r\n").await;
}

#[tokio::test]
async fn damaged_hello_is_refused_and_closed() {
    let node = node(config()).await;
    let mut peer = Peer::silent(node.socket_address()).await;
    let mut hello = Hello::current().to_bytes().to_vec();
    hello[9] ^= 1;
    peer.send(&hello).await;
    assert_eq!(peer.refusal_and_close().await, Status::BadChecksum);
    node.stop().await.unwrap();
}

#[tokio::test]
async fn unknown_version_is_refused_with_the_supported_ones_and_closed() {
    let node = node(config()).await;
    let mut peer = Peer::silent(node.socket_address()).await;
    let hello = Hello { version_min: VERSION_MAX + 1, version_max: u16::MAX, feature_level: 1 };
    peer.send(&hello.to_bytes()).await;
    let supported = Status::UnsupportedVersion { min: VERSION_MIN, max: VERSION_MAX };
    assert_eq!(peer.refusal_and_close().await, supported);
    node.stop().await.unwrap();
}

#[tokio::test]
async fn length_of_4_gib_is_refused_from_its_four_bytes_and_closed() {
    let node = node(config()).await;
    let mut peer = Peer::connect(node.socket_address()).await;
    // No byte follows: the length alone is enough.
    peer.send(&u32::MAX.to_le_bytes()).await;
    let limit = config().frame_bytes_max;
    assert_eq!(peer.refusal_and_close().await, Status::FrameTooLarge { limit, got: u32::MAX });
    node.stop().await.unwrap();
}

#[tokio::test]
async fn frame_one_byte_above_the_limit_is_refused_and_one_at_it_is_not() {
    let limit = 4_096;
    let node = node(crate::peer::Config { frame_bytes_max: limit, ..config() }).await;
    let mut peer = Peer::connect(node.socket_address()).await;
    let ping = peer.frame(Request::Ping);
    let padded = |length: u32| Frame { body: vec![0; length as usize - 16].into(), ..ping.clone() };
    let at = peer.exchange(padded(limit)).await;
    assert_eq!(at, Err(Status::Malformed { field: Field::Body }));
    peer.send_frame(&padded(limit + 1)).await;
    assert_eq!(peer.refusal_and_close().await, Status::FrameTooLarge { limit, got: limit + 1 });
    node.stop().await.unwrap();
}

#[tokio::test]
async fn length_below_a_header_is_refused_and_closed() {
    let node = node(config()).await;
    let mut peer = Peer::connect(node.socket_address()).await;
    peer.send(&15u32.to_le_bytes()).await;
    assert_eq!(peer.refusal_and_close().await, Status::Malformed { field: Field::FrameLength });
    node.stop().await.unwrap();
}

#[tokio::test]
async fn append_with_a_wrong_checksum_is_refused_and_never_applied() {
    let node = node(config()).await;
    let mut peer = Peer::connect(node.socket_address()).await;
    let mut home = peer.session(OWNER).await;
    let append = home.append(TtlChoice::SpaceDefault, "once");
    let frame = peer.frame(append.clone());
    let mut damaged = encoded(&frame);
    *damaged.last_mut().unwrap() ^= 1;
    peer.send(&damaged).await;
    assert_eq!(peer.refusal_and_close().await, Status::BadChecksum);

    let mut second = Peer::connect(node.socket_address()).await;
    assert_eq!(second.timeline_len(OWNER).await, 0);
    // The session does not know the number either: the whole append is new.
    assert!(matches!(second.append(append).await, AppendOutcome::Ok { duplicate: false, .. }));
    assert_eq!(second.timeline_len(OWNER).await, 1);
    node.stop().await.unwrap();
}

#[tokio::test]
async fn requests_before_a_wrong_checksum_are_still_answered() {
    let node = node(config()).await;
    let mut peer = Peer::connect(node.socket_address()).await;
    let good = peer.frame(Request::Ping);
    let mut bytes = encoded(&good);
    let bad = peer.frame(Request::Ping);
    bytes.extend_from_slice(&encoded(&bad));
    *bytes.last_mut().unwrap() ^= 1;
    peer.send(&bytes).await;
    let mut answers = Vec::new();
    while let Some(frame) = peer.incoming.next().await {
        answers.push(frame);
    }
    let refused = answers.iter().find(|frame| frame.is_connection_refusal()).unwrap();
    assert_eq!(refused.decode_status().unwrap(), Status::BadChecksum);
    assert!(
        answers.iter().any(|frame| frame.request_id == good.request_id && !frame.is_connection_refusal())
    );
    assert!(answers.iter().all(|frame| frame.request_id != bad.request_id));
    node.stop().await.unwrap();
}

#[tokio::test]
async fn unknown_opcode_is_refused_and_the_connection_goes_on() {
    let node = node(config()).await;
    let mut peer = Peer::connect(node.socket_address()).await;
    let unknown = Frame { opcode: 999, ..peer.frame(Request::Ping) };
    assert_eq!(peer.exchange(unknown).await, Err(Status::UnknownOpcode { opcode: 999 }));
    peer.assert_serves().await;
    node.stop().await.unwrap();
}

#[tokio::test]
async fn trailing_bytes_in_a_body_are_refused_and_the_connection_goes_on() {
    let node = node(config()).await;
    let mut peer = Peer::connect(node.socket_address()).await;
    let mut home = peer.session(OWNER).await;
    let append = home.append(TtlChoice::SpaceDefault, "with a tail");
    let mut frame = peer.frame(append);
    frame.body = [&frame.body[..], &[0]].concat().into();
    assert_eq!(peer.exchange(frame).await, Err(Status::Malformed { field: Field::Body }));
    peer.assert_serves().await;
    assert_eq!(peer.timeline_len(OWNER).await, 0, "what was refused was not applied");
    node.stop().await.unwrap();
}

#[tokio::test]
async fn truncated_body_and_unknown_flags_are_refused_and_the_connection_goes_on() {
    let node = node(config()).await;
    let mut peer = Peer::connect(node.socket_address()).await;
    let mut home = peer.session(OWNER).await;
    let append = home.append(TtlChoice::SpaceDefault, "cut");
    let mut frame = peer.frame(append);
    frame.body.truncate(frame.body.len() - 1);
    assert_eq!(peer.exchange(frame).await, Err(Status::Malformed { field: Field::Payload }));
    let flagged = Frame { flags: fanfold_protocol::Flags(4), ..peer.frame(Request::Ping) };
    assert_eq!(peer.exchange(flagged).await, Err(Status::Malformed { field: Field::Flags }));
    peer.assert_serves().await;
    node.stop().await.unwrap();
}

#[tokio::test]
async fn bad_item_of_a_batch_is_refused_alone() {
    let node = node(config()).await;
    let mut peer = Peer::connect(node.socket_address()).await;
    let good = peer.frame(Request::Ping);
    let bad = Frame { opcode: 999, ..peer.frame(Request::Ping) };
    peer.send_frame(&Frame::batch(&[good.clone(), bad.clone()])).await;
    for _ in 0..2 {
        let answer = peer.incoming.next().await.unwrap();
        let expected = if answer.request_id == good.request_id {
            Ok(fanfold_protocol::Response::Pong)
        } else {
            assert_eq!(answer.request_id, bad.request_id);
            Err(Status::UnknownOpcode { opcode: 999 })
        };
        assert_eq!(answer.decode_reply().unwrap(), expected);
    }
    // A batch that announces nine items and ends.
    let mut cut = Frame { opcode: Opcode::Batch.code(), ..peer.frame(Request::Ping) };
    cut.body = vec![9].into();
    assert!(matches!(peer.exchange(cut).await, Err(Status::Malformed { .. })));
    peer.assert_serves().await;
    node.stop().await.unwrap();
}
