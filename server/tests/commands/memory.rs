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

#[test]
fn a_node_over_its_budget_says_so_everywhere_and_takes_what_needs_no_memory() {
    let place = Place::new();
    let node = place.start(&[]);
    node.json(&["follow", "2", "1"]);
    let post = node.json(&["post", "1", "hello"])["id"].clone();
    assert_eq!(node.get("/readyz").1, "ready\n");
    assert_eq!(node.json(&["status"])[0]["memory"], serde_json::Value::Null);
    node.drain();
    node.stop();
    // No program of this size fits into it.
    let node = place.start(&["--memory-bytes", "8388608"]);
    until(|| node.json(&["status"])[0]["memory"]["refusing_writes"] == true);
    let status = node.json(&["status"])[0]["memory"].clone();
    assert_eq!((&status["budget_bytes"], &status["over_budget"]), (&8_388_608.into(), &true.into()));
    let text = String::from_utf8(node.run(&["status"]).stdout).unwrap();
    assert!(text.contains("of a budget of 8.0 MiB, OVER"), "{text}");
    let (head, ready) = node.get("/readyz");
    assert!(
        head.contains("200") && ready.starts_with("ready\nwarning: over the memory budget"),
        "{head} {ready}"
    );
    let refused = node.run(&["post", "1", "more", "--deadline", "1500ms"]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && said.contains("`memory_bytes`"), "{said}");
    let (_, metrics) = node.get("/metrics");
    let value = |name: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} is missing in {metrics}")).parse::<u64>().unwrap()
    };
    assert_eq!(value("fanfold_memory_budget_bytes"), 8_388_608);
    assert!(value("fanfold_memory_resident_bytes") > 8_388_608);
    let states = (value("fanfold_memory_over_budget"), value("fanfold_memory_refusing_writes"));
    assert_eq!(states, (1, 1));
    let refusals = r#"fanfold_requests_total{kind="append",status="memory_full"}"#;
    assert!(metrics.contains(refusals), "{metrics}");
    assert_eq!(node.json(&["feed", "2"])["entries"][0]["id"], post);
    node.json(&["unfollow", "2", "1"]);
    assert_eq!(node.json(&["feed", "2"])["entries"].as_array().unwrap().len(), 0);
    node.stop();
    assert_eq!(place.log().matches("is over its memory budget").count(), 1, "{}", place.log());
    // With a budget that is enough, or none, it takes writes as before.
    let node = place.start(&["--memory-bytes", "4294967296"]);
    node.json(&["post", "1", "more"]);
    assert_eq!(node.json(&["status"])[0]["memory"]["over_budget"], false);
    assert_eq!(node.get("/readyz").1, "ready\n");
    node.stop();
    assert_eq!(place.log().matches("is over its memory budget").count(), 1);
}

fn until(holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "it does not come about");
    }
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
