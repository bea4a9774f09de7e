//! A stop by signal is clean: exit code 0, and a start on what it left.

use serde_json::json;

use crate::process::Place;

#[test]
fn sigterm_and_sigint_stop_cleanly_and_the_next_start_has_everything() {
    let place = Place::new();
    for (n, signal) in ["TERM", "INT", "TERM"].into_iter().enumerate() {
        let mut node = place.start(&[]);
        let timeline = node.json(&["timeline", "2"]);
        assert_eq!(timeline["entries"].as_array().unwrap().len(), n, "before SIG{signal}");
        node.json(&["post", "2", signal]);
        node.signal(signal);
        let status = node.wait();
        assert_eq!(status.code(), Some(0), "SIG{signal}: {status}");
    }
    let node = place.start(&[]);
    let timeline = node.json(&["timeline", "2"]);
    assert_eq!(timeline["entries"][2]["payload"], json!("TERM"));
    node.stop();
    assert!(!place.log().contains("ERROR") && !place.log().contains("panicked"), "{}", place.log());
}

#[test]
fn stop_closes_idle_connections_at_once() {
    let place = Place::new();
    // Longer than any test runner waits.
    let mut node = place.start(&["--stop-timeout-ms", "3600000"]);
    let idle = std::net::TcpStream::connect(&node.address).unwrap();
    let http = std::net::TcpStream::connect(&node.http).unwrap();
    node.json(&["post", "2", "hello"]);
    node.signal("TERM");
    assert_eq!(node.wait().code(), Some(0));
    drop((idle, http));
}
