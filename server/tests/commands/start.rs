//! What a start accepts and refuses: directories, addresses, settings.

use std::process::Stdio;

use serde_json::json;

use crate::process::{FANFOLD, Node, Place, failure, fanfold, json, stdout};

#[test]
fn second_process_on_a_data_directory_is_refused_by_its_name() {
    let place = Place::new();
    let node = place.start(&[]);
    let output = place.start_command(&[]).stdout(Stdio::piped()).output().unwrap();
    let message = failure(&output, 1);
    assert!(message.contains(place.data_dir().to_str().unwrap()) && message.contains("in use"), "{message}");
    node.json(&["post", "2", "the first goes on"]);
    node.stop();
    place.start(&[]).stop();
}

/// Row 24 of the promises: whoever was started once before it was told to join has a cluster of its own.
#[test]
fn directory_of_another_cluster_than_the_one_to_join_is_refused() {
    let (place, foreign) = (Place::new(), Place::new());
    foreign.start(&[]).stop();
    let node = place.start(&[]);
    let peers = ["--peer-listen", "127.0.0.1:0"];
    for told in ["--join", "--form"] {
        let own = "127.0.0.1:9";
        let list = if told == "--form" { format!("{own},{}", node.address) } else { node.address.clone() };
        let arguments = [&[told, &list][..], &["--advertise", own], &peers].concat();
        let message = failure(&foreign.start_command(&arguments).output().unwrap(), 1);
        let named = [foreign.data_dir().to_str().unwrap().to_owned(), node.address.clone()];
        assert!(named.iter().all(|name| message.contains(name)), "{message}");
        assert!(message.contains("another one") && message.contains("empty data directory"), "{message}");
    }
    // Silence is no other cluster.
    node.stop();
    foreign.start(&[&["--join", "127.0.0.1:1"][..], &peers].concat()).stop();
}

#[test]
fn joining_with_another_number_of_partitions_leaves_no_trace_in_the_cluster() {
    let (place, other) = (Place::new(), Place::new());
    let node = place.start(&["--peer-listen", "127.0.0.1:0"]);
    let data_dir = other.data_dir();
    let start = ["start", "--data-dir", data_dir.to_str().unwrap(), "--partitions", "64", "--http", "off"];
    let ports = ["--listen", "127.0.0.1:0", "--peer-listen", "127.0.0.1:0", "--join", &node.address];
    let message = failure(&fanfold(&[&start[..], &ports].concat()), 1);
    assert!(
        message.contains("4 partitions, not 64") && message.contains("leave the setting out"),
        "{message}"
    );
    let nodes = node.json(&["node", "list"]);
    assert_eq!(nodes.as_array().unwrap().len(), 1, "{nodes}");
    node.stop();
}

#[test]
fn address_in_use_is_refused_with_the_flag() {
    let place = Place::new();
    let node = place.start(&[]);
    let other = Place::new();
    let message = failure(&other.start_command(&["--listen", &node.address]).output().unwrap(), 1);
    assert!(message.contains(&node.address) && message.contains("--listen"), "{message}");
    let message = failure(&other.start_command(&["--http", &node.http]).output().unwrap(), 1);
    assert!(message.contains(&node.http) && message.contains("--http"), "{message}");
    node.stop();
}

#[test]
fn address_off_loopback_needs_the_flag_that_says_so() {
    let place = Place::new();
    for port in ["--listen", "--http"] {
        let message = failure(&place.start_command(&[port, "0.0.0.0:0"]).output().unwrap(), 2);
        assert!(message.contains("--insecure-listen-without-tls"), "{message}");
        assert!(message.contains("0.0.0.0:0"), "{message}");
    }
    assert!(!place.data_dir().exists(), "a refused start leaves nothing behind");
    let node = place.start(&["--listen", "0.0.0.0:0", "--insecure-listen-without-tls"]);
    assert!(node.address.starts_with("0.0.0.0:"), "{}", node.address);
    node.stop();
}

#[test]
fn printed_default_config_is_accepted_by_start() {
    let place = Place::new();
    let file = place.path("fanfold.toml");
    let printed = fanfold(&["config", "--print-default"]);
    std::fs::write(&file, &printed.stdout).unwrap();
    // Flags win over the file.
    let node = place.start(&["--config", file.to_str().unwrap()]);
    node.json(&["status"]);
    node.stop();
}

#[test]
fn config_file_alone_starts_a_node() {
    let place = Place::new();
    let file = place.path("fanfold.toml");
    let data_dir = place.data_dir();
    let text = format!(
        "data_dir = {data_dir:?}\nlisten = \"127.0.0.1:0\"\nhttp = \"off\"\npartitions = 2\n\
         log_segment_bytes = 8388608\n"
    );
    std::fs::write(&file, text).unwrap();
    let mut command = std::process::Command::new(FANFOLD);
    command.args(["start", "--config"]).arg(&file);
    let node = Node::spawn(command, &place.path("node.log"));
    assert_eq!(node.http, "off");
    assert_eq!(node.json(&["status"])[0]["partitions"].as_array().unwrap().len(), 2);
    node.stop();
}

#[test]
fn unknown_config_key_is_refused_by_name() {
    let place = Place::new();
    let file = place.path("fanfold.toml");
    std::fs::write(&file, "partition_count = 4\n").unwrap();
    for command in ["start", "config"] {
        let message = failure(&fanfold(&[command, "--config", file.to_str().unwrap()]), 2);
        assert!(message.contains("partition_count"), "{message}");
        assert!(message.contains(file.to_str().unwrap()), "{message}");
    }
    let missing = place.path("missing.toml");
    let message = failure(&fanfold(&["start", "--config", missing.to_str().unwrap()]), 2);
    assert!(message.contains("missing.toml"), "{message}");
}

#[test]
fn other_number_of_partitions_and_foreign_directories_are_refused() {
    let place = Place::new();
    place.start(&[]).stop();
    let other = place.start_command(&["--partitions", "8"]).output().unwrap();
    // The flag stands twice on this command line, which is misuse.
    failure(&other, 2);
    let data_dir = place.data_dir();
    let data_dir = data_dir.to_str().unwrap();
    let free = ["--listen", "127.0.0.1:0", "--http", "off"];
    // 16 is what a new directory gets, and no less a number that somebody has named.
    for number in ["8", "16"] {
        let start = ["start", "--data-dir", data_dir, "--partitions", number];
        let message = failure(&fanfold(&[&start[..], &free].concat()), 1);
        assert!(message.contains(&format!("4 partitions, not {number}")), "{message}");
    }
    let mut unnamed = std::process::Command::new(FANFOLD);
    unnamed.args(["start", "--data-dir", data_dir, "--log-segment-bytes", "8388608"]).args(free);
    let node = Node::spawn(unnamed, &place.path("node.log"));
    assert_eq!(node.json(&["status"])[0]["partitions"].as_array().unwrap().len(), 4);
    node.stop();

    let foreign = place.path("foreign");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("letters.txt"), "not yours").unwrap();
    let start = ["start", "--data-dir", foreign.to_str().unwrap()];
    let message = failure(&fanfold(&[&start[..], &free].concat()), 1);
    assert!(message.contains("letters.txt"), "{message}");
    assert_eq!(std::fs::read_to_string(foreign.join("letters.txt")).unwrap(), "not yours");
}

#[test]
fn data_directory_is_inspected_while_no_node_runs_and_refused_while_one_does() {
    let place = Place::new();
    let data_dir = place.data_dir();
    let data_dir = data_dir.to_str().unwrap();
    let node = place.start(&[]);
    node.json(&["follow", "1", "2"]);
    node.json(&["post", "2", "hello"]);
    for what in ["log", "data-dir"] {
        let message = failure(&fanfold(&["inspect", what, "--data-dir", data_dir]), 1);
        assert!(message.contains("in use") && message.contains(data_dir), "{message}");
    }
    let cluster = node.json(&["status"])[0]["cluster"].clone();
    node.kill();

    let facts = json(&fanfold(&["inspect", "data-dir", "--data-dir", data_dir, "--output", "json"]));
    assert_eq!((&facts["cluster"], &facts["partitions"]), (&cluster, &json!(4)));
    let log = json(&fanfold(&["inspect", "log", "--data-dir", data_dir, "--output", "json", "--records"]));
    assert_eq!((&log["damaged_places"], &log["bad_records"]), (&json!(0), &json!(0)));
    assert_eq!(log["records"].as_u64().unwrap(), count(&log, "record"));
    assert!(log["commands"].to_string().contains("append"), "{}", log["commands"]);
    let table = fanfold(&["inspect", "log", "--data-dir", data_dir]);
    assert_eq!(table.status.code(), Some(0));
    assert!(stdout(&table).contains("damaged places"));

    let node = place.start(&[]);
    assert_eq!(node.json(&["timeline", "2"])["entries"].as_array().unwrap().len(), 1);
    node.stop();
    let missing = place.path("missing");
    let message = failure(&fanfold(&["inspect", "log", "--data-dir", missing.to_str().unwrap()]), 1);
    assert!(message.contains("missing") && !missing.exists(), "{message}");
}

fn count(log: &serde_json::Value, what: &str) -> u64 {
    log["items"].as_array().unwrap().iter().filter(|item| item["what"] == what).count() as u64
}
