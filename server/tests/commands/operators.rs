//! What an operator is told who asks for what cannot be, and who asks while nodes are down.

use std::time::{Duration, Instant};

use crate::cluster::{trio, until};
use crate::process::{Node, Place};

/// What a command says that must end with this code: stdout, then stderr.
fn ends(node: &Node, code: i32, arguments: &[&str]) -> (String, String) {
    let output = node.run(arguments);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said:?}");
    said
}

fn refused(node: &Node, code: i32, arguments: &[&str], why: &str) {
    let (_, said) = ends(node, code, arguments);
    assert!(said.contains(why), "{arguments:?}: {said}");
}

#[test]
fn operator_is_told_what_cannot_be_and_who_is_missing() {
    let [one, two, three] = trio();
    what_cannot_be_is_refused(&one.1);
    what_was_done_is_said(&one.1);
    a_wait_ends_when_all_is_as_it_was_said(&one.1);
    let ids = [&one, &two, &three].map(|(_, node)| id_of(&one.1, node));
    three.1.kill();
    with_a_node_down(&one.1, &ids[2]);
    two.1.kill();
    without_a_majority(&one, &ids);
}

/// The id of a node, as one of them knows it.
pub fn id_of(by: &Node, node: &Node) -> String {
    let nodes = by.json(&["node", "list"]);
    let found = nodes.as_array().unwrap().iter().find(|known| known["address"] == node.address).unwrap();
    found["node"].as_str().unwrap().to_owned()
}

fn what_cannot_be_is_refused(one: &Node) {
    let before = one.json(&["cluster", "status"])["epoch"].clone();
    let moved = ["partition", "move", "99", "--from", "1", "--to", "2", "--wait=30s"];
    refused(one, 1, &moved, "there is no partition 99; there are 0 to 3");
    for dry in [&[][..], &["--dry-run"]] {
        let transfer =
            |partition, to| [&["partition", "transfer-leader", partition, "--to", to], dry].concat();
        refused(one, 1, &transfer("99", "2"), "there is no partition 99");
        refused(one, 1, &transfer("3", "9"), "there is no node 9");
    }
    let recover = ["partition", "recover", "catalog", "--from", "1", "--accept-loss"];
    refused(one, 1, &recover, "fanfold cluster recover");
    refused(one, 1, &["node", "replace", "2", "--by", "2"], "cannot take its own place");
    refused(one, 1, &["clock", "accept", "--node", "9"], "there is no node 9");
    refused(one, 2, &["cluster", "init", "--partitions", "7"], "power of two");
    refused(one, 2, &["cluster", "settings", "--repair-after", "0s"], "`never`");
    refused(one, 2, &["cluster", "settings", "--replicas", "1"], "--accept-less-redundancy");
    assert_eq!(one.json(&["cluster", "status"])["epoch"], before, "nothing was changed");
}

fn what_was_done_is_said(one: &Node) {
    let (said, _) = ends(one, 0, &["cluster", "settings", "--replicas", "1", "--dry-run"]);
    assert!(said.contains("replicas: 1 (was 3)"), "{said}");
    let (said, _) = ends(one, 0, &["cluster", "settings", "--repair-after", "20m"]);
    assert!(said.contains("repair-after: 20m (was 10m)"), "{said}");
    assert_eq!(one.json(&["cluster", "settings"])["repair_after_ms"], 1_200_000);
    let (said, _) = ends(one, 0, &["space", "alter", "posts", "--read-only", "--dry-run"]);
    assert!(said.contains("this would change") && said.contains("read-only"), "{said}");
    refused(one, 1, &["space", "alter", "posts", "--feed-cap", "0", "--dry-run"], "must lie between");
    assert_eq!(one.json(&["space", "show", "posts"])["read_only"], false);
    let show = one.json(&["partition", "show", "0"]);
    let leads = |node: &&str| show["leader"] == **node;
    let other = ["1", "2", "3"].into_iter().find(|node| !leads(node)).unwrap();
    let (_, said) = ends(one, 0, &["partition", "transfer-leader", "0", "--to", other, "--wait"]);
    assert!(said.lines().last().unwrap().starts_with("done: 0 of"), "{said}");
    assert_eq!(one.json(&["clock", "accept", "--node", "2"])["nodes"], serde_json::json!(["2"]));
    ends(one, 0, &["fan-out", "pause", "1"]);
}

fn a_wait_ends_when_all_is_as_it_was_said(one: &Node) {
    let partitions = || one.json(&["partition", "list"]).as_array().unwrap().clone();
    for replicas in ["1", "3"] {
        let settings = ["cluster", "settings", "--replicas", replicas, "--accept-less-redundancy", "--wait"];
        ends(one, 0, &settings);
        for partition in partitions() {
            let count = partition["replicas"].as_array().unwrap().len().to_string();
            assert!(count == replicas || partition["partition"] == "catalog", "{partition}");
        }
    }
    // One node leads everything; then each its share.
    for partition in ["0", "1", "2", "3"] {
        ends(one, 0, &["partition", "transfer-leader", partition, "--to", "1", "--wait"]);
    }
    let (said, _) = ends(one, 0, &["cluster", "balance", "--wait"]);
    let is_led =
        |line: &str| Some(line.strip_prefix("partition ")?.split_once(" is led by node ")?.0.to_owned());
    let led: Vec<_> = said.lines().filter_map(is_led).collect();
    assert!(!led.is_empty(), "{said}");
    for partition in partitions() {
        let name = partition["partition"].to_string();
        let leader = partition["leader"].as_str().unwrap();
        let as_said = said.contains(&format!("partition {name} is led by node {leader}"));
        assert!(as_said || !led.contains(&name), "{partition}: {said}");
    }
}

fn with_a_node_down(one: &Node, down: &str) {
    let is_silent = || {
        let nodes = one.json(&["node", "list"]);
        nodes.as_array().unwrap().iter().any(|node| node["node"] == down && node["alive"] == false)
    };
    until("the silence", is_silent);
    let begun = Instant::now();
    for command in [&["fan-out", "list"][..], &["hot", "--by", "writes"]] {
        let (_, said) = ends(one, 0, &[command, &["--deadline", "90s"]].concat());
        assert!(said.contains(&format!("node {down} is left out")), "{said}");
    }
    assert_eq!(one.json(&["fan-out", "list"]), serde_json::json!(["1"]));
    let accept = one.run(&["clock", "accept", "--output", "json", "--deadline", "90s"]);
    assert!(begun.elapsed() < Duration::from_secs(90), "nobody waits for who is known to be down");
    assert_eq!(accept.status.code(), Some(1), "{accept:?}");
    let said: serde_json::Value = serde_json::from_slice(&accept.stdout).unwrap();
    assert_eq!(said["left_out"], serde_json::json!([down]));
    assert_eq!(said["nodes"].as_array().unwrap().len(), 2, "{said}");
    let transfer = ["partition", "transfer-leader", "0", "--to", down, "--dry-run"];
    refused(one, 1, &transfer, &format!("node {down} is silent"));
}

fn without_a_majority((_, one): &(Place, Node), [id, gone @ ..]: &[String; 3]) {
    let mut gone = gone.clone();
    gone.sort();
    let silent = format!("nodes {} are silent", gone.join(", "));
    until("the loss", || {
        let health = one.run(&["cluster", "health"]);
        String::from_utf8_lossy(&health.stdout).contains("the catalog has no majority")
    });
    let (health, _) = ends(one, 1, &["cluster", "health"]);
    assert!(health.contains(&silent) && health.contains("fanfold cluster recover"), "{health}");
    for command in [&["post", "1", "hello"][..], &["feed", "1"], &["timeline", "1"]] {
        let (_, said) = ends(one, 1, &[command, &["--deadline", "4s"]].concat());
        assert!(!said.contains("no node listens"), "{command:?}: {said}");
        // A node that is not there, a partition without a leader, or one that cannot serve.
        assert!(
            ["cluster health", "cannot serve"].iter().any(|why| said.contains(why)),
            "{command:?}: {said}"
        );
    }
    refused(one, 1, &["space", "create", "photos"], &format!("the catalog has no majority: {silent}"));
    for change in [&["node", "remove", &gone[0]][..], &["cluster", "balance", "--dry-run"]] {
        refused(one, 1, change, &format!("the catalog has no majority: {silent}"));
    }
    let recover = |end| [&["partition", "recover", "0", "--from", id][..], &[end]].concat();
    refused(one, 1, &recover("--accept-loss"), "fanfold cluster recover");
    let mut dry = String::new();
    until("what is left of the partition", || {
        dry = String::from_utf8_lossy(&one.run(&recover("--dry-run")).stdout).into_owned();
        !dry.contains("not known yet")
    });
    assert!(
        dry.contains(&format!("node {id} has it up to term ")) && dry.contains(", applied up to 2"),
        "{dry}"
    );
    assert!(dry.contains("no replica that is left has more"), "{dry}");
}
