//! What a running node tells about itself: the HTTP port and the log lines.

use std::io::{Read, Write};
use std::net::TcpStream;

use fanfold_protocol::frame::Frame;
use fanfold_protocol::handshake::{Hello, ServerHello};
use fanfold_protocol::ids::RequestId;
use serde_json::{Value, json};

use crate::process::Place;

#[test]
fn http_port_tells_alive_ready_and_metrics() {
    let place = Place::new();
    let node = place.start(&[]);
    node.json(&["follow", "1", "2"]);
    node.json(&["post", "2", "hello"]);
    assert_eq!(node.get("/livez"), ("HTTP/1.1 200 OK".to_owned(), "alive\n".to_owned()));
    assert_eq!(node.get("/readyz"), ("HTTP/1.1 200 OK".to_owned(), "ready\n".to_owned()));
    assert_eq!(node.get("/nosuch").0, "HTTP/1.1 404 Not Found");
    let (head, metrics) = node.get("/metrics");
    assert_eq!(head, "HTTP/1.1 200 OK");
    assert!(metrics.ends_with("# EOF\n"));
    let writes = metrics.lines().find(|line| line.starts_with(r#"fanfold_requests_total{kind="append""#));
    assert!(writes.is_some_and(|line| line.contains(r#"status="ok""#) && line.ends_with(" 1")), "{metrics}");
    let entries: u64 = metrics
        .lines()
        .filter(|line| line.starts_with("fanfold_entries{"))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        .sum();
    assert_eq!(entries, 1);
    node.stop();
}

#[test]
fn json_log_lines_parse_and_a_refusal_carries_its_request_id() {
    const REQUEST: u64 = 4_711;
    let place = Place::new();
    let node = place.start(&["--log-format", "json", "--log-level", "info,fanfold_server=debug"]);
    let mut stream = TcpStream::connect(&node.address).unwrap();
    stream.write_all(&Hello::current().to_bytes()).unwrap();
    let mut hello = [0; ServerHello::BYTES];
    stream.read_exact(&mut hello).unwrap();
    let read = fanfold_protocol::message::ReadTimeline {
        space: fanfold_protocol::SpaceId(999),
        owner: fanfold_protocol::UserId(1),
        viewer: None,
        limit: 1,
        cursor: None,
        at_least: None,
        consistency: fanfold_protocol::message::Consistency::Leader,
        hydrate: false,
    };
    let request = fanfold_protocol::Request::ReadTimeline(read);
    let call = fanfold_protocol::Call { deadline_ms: None, request };
    let unknown = Frame { opcode: 999, ..call.to_frame(RequestId(REQUEST + 1)) };
    for frame in [call.to_frame(RequestId(REQUEST)), unknown] {
        let mut out = bytes::BytesMut::new();
        frame.encode_into(&mut out, 4_096).unwrap();
        stream.write_all(&out).unwrap();
        // Its answer has come: it is logged.
        let mut head = [0; 4];
        stream.read_exact(&mut head).unwrap();
        stream.read_exact(&mut vec![0; u32::from_le_bytes(head) as usize]).unwrap();
    }
    stream.write_all(&u32::MAX.to_le_bytes()).unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
    node.stop();

    let log = place.log();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let refused = |request: u64| {
        let found = lines.iter().find(|line| line["request"] == json!(request));
        found.unwrap_or_else(|| panic!("no line names request {request}:\n{log}"))
    };
    assert!(refused(REQUEST)["status"].as_str().unwrap().contains("no such space"));
    assert!(refused(REQUEST + 1)["error"].as_str().unwrap().contains("999"));
    let closed = lines.iter().find(|line| line["message"] == "connection closed").unwrap();
    assert!(closed["status"].as_str().unwrap().contains("4294967295"), "{closed}");
    assert!(closed["span"]["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{closed}");
    assert!(lines.iter().all(|line| line["timestamp"].is_string() && line["level"].is_string()));
}

#[test]
fn slow_requests_are_logged_with_their_phases_and_nothing_that_users_wrote() {
    let place = Place::new();
    // Everything is slow.
    let node = place.start(&["--log-format", "json", "--slow-request-ms", "0"]);
    for arguments in [&["follow", "2", "1"][..], &["post", "1", "a secret"], &["feed", "2"]] {
        assert!(node.run(arguments).status.success());
    }
    node.stop();
    let log = place.log();
    assert!(!log.contains("a secret"), "payloads are nobody's business");
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let slow = |kind: &str| {
        let is_it = |line: &&Value| line["message"] == "slow request" && line["kind"] == kind;
        lines.iter().find(is_it).unwrap_or_else(|| panic!("no line of a slow {kind}:\n{log}"))
    };
    let write = slow("append");
    assert!(write["request"].is_u64() && write["took_ms"].is_u64() && write["status"] == "ok", "{write}");
    let batch = lines.iter().find(|line| {
        let is_it = (line["index"].as_u64(), line["group"].as_u64());
        line["message"] == "slow batch"
            && is_it == (write["index"].as_u64(), write["partition"].as_u64().map(|partition| partition + 1))
    });
    let batch = batch.unwrap_or_else(|| panic!("no line of the batch of {write}:\n{log}"));
    assert!(batch["queue_ms"].is_u64() && batch["commit_ms"].is_u64(), "{batch}");
    assert!(slow("read_feed")["request"].is_u64());
}
