//! The memory of a node is bounded by its settings, whatever its clients ask for and leave unread.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use fanfold_protocol::message::ReadTimeline;
use fanfold_protocol::{Call, Frame, Hello, Request, RequestId, SpaceId, UserId};

use crate::process::{Node, Place};

const ENTRIES: usize = 40;
const PAYLOAD_BYTES: usize = 60_000;
const CONNECTIONS: u64 = 20;
const REQUESTS_EACH: u64 = 50;

/// How long the node may take before the test fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(60);

/// More than the answers that may wait and their copies on the way, and a tenth of what was asked for.
const GROWTH_BYTES_MAX: u64 = 200 << 20;
const _: () = assert!(GROWTH_BYTES_MAX * 10 < CONNECTIONS * REQUESTS_EACH * (ENTRIES * PAYLOAD_BYTES) as u64);

#[test]
fn answers_that_nobody_reads_take_bounded_memory() {
    let place = Place::new();
    // The writes must not time out while the test looks.
    let node = place.start(&["--node-bytes-max", "33554432", "--write-timeout-ms", "3600000"]);
    let payload = "x".repeat(PAYLOAD_BYTES);
    for _ in 0..ENTRIES {
        node.json(&["post", "2", &payload]);
    }
    let before = node.memory_bytes();
    let connections: Vec<TcpStream> = (0..CONNECTIONS).map(|_| ask_without_reading(&node)).collect();
    let most = until_all_are_answered(&node);
    let growth = most.saturating_sub(before);
    assert!(growth < GROWTH_BYTES_MAX, "{growth} bytes more than the {before} before");
    drop(connections);
    assert_eq!(node.json(&["timeline", "2"])["entries"].as_array().unwrap().len(), 20);
    node.stop();
}

fn ask_without_reading(node: &Node) -> TcpStream {
    let mut stream = TcpStream::connect(&node.address).unwrap();
    stream.write_all(&Hello::current().to_bytes()).unwrap();
    let mut hello = [0; fanfold_protocol::ServerHello::BYTES];
    stream.read_exact(&mut hello).unwrap();
    let read = ReadTimeline {
        space: SpaceId(1),
        owner: UserId(2),
        viewer: None,
        limit: ENTRIES as u32,
        cursor: None,
        at_least: None,
        consistency: fanfold_protocol::message::Consistency::Leader,
        hydrate: true,
    };
    let call = Call { deadline_ms: None, request: Request::ReadTimeline(read) };
    let frames: Vec<Frame> = (1..=REQUESTS_EACH).map(|id| call.to_frame(RequestId(id))).collect();
    let mut out = bytes::BytesMut::new();
    Frame::batch(&frames).encode_into(&mut out, 1 << 20).unwrap();
    stream.write_all(&out).unwrap();
    stream
}

/// Waits until the node has worked all requests off, and answers the most memory it held meanwhile.
fn until_all_are_answered(node: &Node) -> u64 {
    let mut most = 0;
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < PATIENCE, "the requests are not worked off");
        most = most.max(node.memory_bytes());
        let (_, metrics) = node.get("/metrics");
        let answered = metrics.lines().filter(|line| line.starts_with("fanfold_requests_total{"));
        let reads = answered.filter(|line| line.contains(r#"kind="read_timeline""#));
        let count: u64 = reads.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum();
        if count == CONNECTIONS * REQUESTS_EACH {
            return most.max(node.memory_bytes());
        }
    }
}
