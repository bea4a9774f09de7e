//! Posting, following and reading by hand, over a hard kill.

use fanfold_protocol::{EntryId, SlotIndex, Stamp, UserId};
use serde_json::{Value, json};

use crate::process::{Node, Place, failure, fanfold};

fn payloads(page: &Value) -> Vec<&str> {
    page["entries"].as_array().unwrap().iter().map(|entry| entry["payload"].as_str().unwrap()).collect()
}

#[test]
fn everything_done_by_hand_is_there_after_a_hard_kill() {
    let place = Place::new();
    let node = place.start(&[]);
    assert_eq!(node.json(&["follow", "1", "2", "3"]), json!({ "changed": 2, "refused": [] }));
    let hello = node.json(&["post", "2", "hello", "--key", "first"]);
    assert_eq!(hello["duplicate"], json!(false));
    let hello_id = hello["id"].as_str().unwrap();
    let again = node.json(&["post", "2", "hello", "--key", "first"]);
    assert_eq!((again["id"].as_str().unwrap(), &again["duplicate"]), (hello_id, &json!(true)));
    node.json(&["post", "3", "from three", "--ttl", "1h"]);
    let gone = node.json(&["post", "2", "gone"]);
    let gone_id = gone["id"].as_str().unwrap();
    assert_eq!(node.json(&["delete", "2", gone_id]), json!({ "existed": true }));
    assert_eq!(node.json(&["delete", "2", gone_id]), json!({ "existed": false }));
    assert_ne!(node.json(&["expire", "2", hello_id, "24h"])["expiry"], Value::Null);
    assert_eq!(node.json(&["expire", "2", hello_id, "never"])["expiry"], Value::Null);
    let photos = ["space", "create", "photos", "--graph", "friends", "--default-ttl", "30d"];
    assert_eq!(node.json(&photos)["default_ttl_ms"], json!(30_u64 * 24 * 3_600 * 1_000));
    let altered = node.json(&["space", "alter", "photos", "--feed-cap", "400", "--default-ttl", "none"]);
    assert_eq!((&altered["feed_cap"], &altered["default_ttl_ms"]), (&json!(400), &Value::Null));
    node.json(&["mute", "1", "9"]);
    node.json(&["block", "2", "8"]);
    assert_all_there(&node, hello_id);
    node.kill();

    let node = place.start(&[]);
    assert_all_there(&node, hello_id);
    assert_eq!(node.json(&["unfollow", "1", "2"])["changed"], json!(1));
    node.drain();
    assert_eq!(payloads(&node.json(&["feed", "1"])), ["from three"]);
    node.stop();
}

fn assert_all_there(node: &Node, hello_id: &str) {
    node.drain();
    let feed = node.json(&["feed", "1"]);
    assert_eq!(payloads(&feed), ["from three", "hello"]);
    assert_eq!((&feed["more"], &feed["short_of"]), (&json!(false), &json!([])));
    let timeline = node.json(&["timeline", "2", "--viewer", "1"]);
    assert_eq!(payloads(&timeline), ["hello"]);
    assert_eq!(timeline["entries"][0]["id"].as_str(), Some(hello_id));
    let explained = node.json(&["feed", "explain", "1", hello_id]);
    assert_eq!(explained["shown"], json!(true));
    let reasons: Vec<&str> =
        explained["reasons"].as_array().unwrap().iter().map(|r| r["reason"].as_str().unwrap()).collect();
    assert!(reasons.contains(&"followed_since"), "{reasons:?}");
    let stranger = node.json(&["feed", "explain", "77", hello_id]);
    assert_eq!(stranger["shown"], json!(false));
    let spaces = node.json(&["space", "list"]);
    let names: Vec<&str> = spaces.as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["posts", "stories", "photos"]);
    assert_eq!(node.json(&["space", "show", "photos"])["feed_cap"], json!(400));
    let status = node.json(&["status"]);
    let partitions = status[0]["partitions"].as_array().unwrap();
    assert_eq!(partitions.len(), 4);
    let entries: u64 = partitions.iter().map(|p| p["entries"].as_u64().unwrap()).sum();
    assert_eq!(entries, 2);
}

#[test]
fn tables_show_the_same_as_json() {
    let place = Place::new();
    let node = place.start(&[]);
    let shown = |arguments: &[&str]| {
        let output = node.run(arguments);
        assert!(output.status.success());
        crate::process::stdout(&output)
    };
    assert_eq!(shown(&["follow", "1", "2"]), "changed 1 of 1\n");
    let id = shown(&["post", "2", "hello"]);
    node.drain();
    let feed = shown(&["feed", "1"]);
    assert!(feed.contains(id.trim()) && feed.contains("hello"), "{feed}");
    assert!(shown(&["feed", "explain", "1", id.trim()]).contains("is in the feed of 1"));
    assert_eq!(shown(&["feed", "99"]), "no entries\n");
    assert!(shown(&["status"]).contains("streams: "));
    assert!(shown(&["space", "list"]).contains("stories"));
    assert!(shown(&["clock", "accept"]).contains("wall clock"));
    node.stop();
}

#[test]
fn pages_of_a_feed_follow_each_other_as_lines_of_json() {
    let place = Place::new();
    let node = place.start(&[]);
    for n in 0..5 {
        node.json(&["post", "2", &format!("entry {n}")]);
    }
    let output = node.run(&["timeline", "2", "--limit", "2", "--pages", "9", "--output", "json"]);
    let text = crate::process::stdout(&output);
    let pages: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let shown: Vec<&str> = pages.iter().flat_map(payloads).collect();
    assert_eq!(shown, ["entry 4", "entry 3", "entry 2", "entry 1", "entry 0"]);
    assert_eq!(pages.last().unwrap()["more"], json!(false));
    node.stop();
}

#[test]
fn refusals_say_what_was_wrong_and_exit_with_1() {
    let place = Place::new();
    let node = place.start(&[]);
    let refusal = |arguments: &[&str]| failure(&node.run(arguments), 1);
    let unknown = refusal(&["post", "2", "hello", "--space", "nosuch"]);
    assert!(unknown.contains("posts") && unknown.contains("stories"), "{unknown}");
    assert!(refusal(&["feed", "1", "--limit", "0"]).contains("1000"));
    let large = refusal(&["post", "2", &"x".repeat(70_000)]);
    assert!(large.contains("65536"), "{large}");
    assert!(refusal(&["space", "create", "posts"]).contains("exists"));
    let never = EntryId::from_parts(Stamp(1), 0, SlotIndex::of(UserId(2))).unwrap();
    assert!(refusal(&["expire", "2", &never.to_string(), "1h"]).contains("no such entry"));
    let ttl = refusal(&["post", "2", "x", "--ttl", "0s"]);
    assert!(ttl.to_lowercase().contains("ttl") || ttl.contains("time to live"), "{ttl}");
    node.json(&["block", "2", "1"]);
    let output = node.run(&["follow", "1", "2", "--output", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(shown, json!({ "changed": 0, "refused": ["2"] }));
    node.stop();
}

#[test]
fn commands_leave_no_session_behind() {
    let place = Place::new();
    let node = place.start(&[]);
    let post = node.json(&["post", "2", "hello"]);
    node.json(&["follow", "1", "2"]);
    node.json(&["mute", "1", "3", "4"]);
    node.json(&["block", "2", "9"]);
    node.json(&["expire", "2", post["id"].as_str().unwrap(), "1h"]);
    node.json(&["delete", "2", post["id"].as_str().unwrap()]);
    // The failed ones opened a session too.
    failure(&node.run(&["expire", "2", post["id"].as_str().unwrap(), "1h"]), 1);
    assert_eq!(node.run(&["follow", "9", "2"]).status.code(), Some(1));
    let status = node.json(&["status"]);
    let partitions = status[0]["partitions"].as_array().unwrap();
    let sessions: u64 = partitions.iter().map(|p| p["sessions"].as_u64().unwrap()).sum();
    assert_eq!(sessions, 0);
    node.stop();
}

#[test]
fn refusals_name_what_is_accepted() {
    let place = Place::new();
    let node = place.start(&[]);
    for name in [&["Photos"][..], &["photos", "--graph", "a b"]] {
        let message = failure(&node.run(&[&["space", "create"], name].concat()), 1);
        assert!(message.contains("a-z, 0-9, - and _"), "{message}");
    }
    for (rule, range) in [
        (["--feed-cap", "100001"], "100000"),
        (["--pull-threshold", "0"], "4294967295"),
        (["--payload-bytes-max", "0"], "1048576"),
        (["--default-ttl", "200years"], "3162240000000"),
        (["--horizon", "200years"], "3162240000000"),
    ] {
        let message = failure(&node.run(&[&["space", "alter", "posts"], &rule[..]].concat()), 1);
        assert!(message.contains(range), "{message}");
    }
    node.stop();
}

#[test]
fn misuse_exits_with_2() {
    for arguments in [
        &["post", "2"][..],
        &["nosuch"],
        &["feed"],
        &["feed", "one"],
        &["post", "2", "x", "--ttl", "soon"],
        &["start", "--partitions", "12"],
        &["start", "--connections-max", "0"],
        &["start", "--log-level", "a=b=c"],
        &["start", "--listen", "localhost"],
        &["space", "alter", "posts"],
    ] {
        failure(&fanfold(arguments), 2);
    }
    for arguments in [&["--help"][..], &["feed", "explain", "--help"], &["--version"]] {
        assert_eq!(fanfold(arguments).status.code(), Some(0), "{arguments:?}");
    }
}

#[test]
fn every_command_says_that_no_node_listens() {
    // Nobody listens on a port that was free a moment ago and is held by no listener.
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap().to_string();
    drop(socket);
    for arguments in [
        &["post", "2", "x"][..],
        &["delete", "2", "5"],
        &["expire", "2", "5", "1h"],
        &["follow", "1", "2"],
        &["unfollow", "1", "2"],
        &["mute", "1", "2"],
        &["unmute", "1", "2"],
        &["block", "1", "2"],
        &["unblock", "1", "2"],
        &["timeline", "2"],
        &["feed", "1"],
        &["feed", "explain", "1", "5"],
        &["space", "list"],
        &["space", "show", "posts"],
        &["space", "create", "photos"],
        &["space", "alter", "posts", "--feed-cap", "9"],
        &["status"],
        &["clock", "accept"],
    ] {
        let remote = ["--address", &address, "--deadline", "200ms"];
        let message = failure(&fanfold(&[arguments, &remote].concat()), 1);
        assert!(message.contains("no node listens on"), "{arguments:?}: {message}");
        assert!(message.contains(&address), "{arguments:?}: {message}");
    }
}
