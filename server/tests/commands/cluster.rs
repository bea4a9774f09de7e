//! A cluster of three nodes by hand: founded by an operator, looked at, changed, refused.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::process::{FANFOLD, Node, Place, fanfold, json};

/// Two free ports, below those that systems give to outgoing connections.
fn ports() -> [String; 2] {
    let addresses = fanfold_server::workload::node_process::free_addresses(2).unwrap();
    [addresses[0].to_string(), addresses[1].to_string()]
}

/// A node that waits for its cluster.
struct Waiting {
    place: Place,
    address: String,
    spawned: std::thread::JoinHandle<Node>,
}

fn start(join: &str, [address, peers]: [String; 2], arguments: &[&str]) -> Waiting {
    let place = Place::new();
    let mut command = Command::new(FANFOLD);
    command.arg("start").arg("--data-dir").arg(place.data_dir()).stdin(Stdio::null());
    command.args(["--http", "127.0.0.1:0", "--log-segment-bytes", "8388608"]);
    command.args(["--listen", &address, "--peer-listen", &peers, "--join", join]);
    command.args(arguments);
    let log = place.path("node.log");
    let spawned = std::thread::spawn(move || Node::spawn(command, Path::new(&log)));
    Waiting { place, address, spawned }
}

pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what} did not come");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn whole(node: &Node, replicas: usize) -> bool {
    let status = node.json(&["cluster", "status"]);
    let partitions = status["partitions"].as_array().unwrap().clone();
    let is_whole = |partition: &Value| {
        partition["health"] == "whole" && partition["replicas"].as_array().unwrap().len() == replicas
    };
    partitions.iter().all(is_whole)
}

/// A cluster of three nodes with four partitions on each; node `n` is in the zone `zone-n`. Node ids are as they joined.
pub fn trio() -> [(Place, Node); 3] {
    trio_in(["zone-1", "zone-2", "zone-3"])
}

/// The same, in these zones.
fn trio_in(zones: [&str; 3]) -> [(Place, Node); 3] {
    let ports = [ports(), ports(), ports()];
    let join = ports.each_ref().map(|[address, _]| address.clone()).join(",");
    let mut zones = zones.into_iter();
    let waiting = ports.map(|ports| start(&join, ports, &["--zone", zones.next().unwrap()]));
    // It is said to all of them at once, as by a playbook, and one does it.
    let mut founded = 0;
    until("a founded cluster", || {
        let say = |waiting: &Waiting| {
            let address = waiting.address.clone();
            let init = ["cluster", "init", "--replicas", "3", "--partitions", "4", "--address"];
            std::thread::spawn(move || fanfold(&[&init[..], &[&address]].concat()))
        };
        let said = waiting.each_ref().map(say).map(|said| said.join().unwrap());
        founded += said.iter().filter(|said| said.status.success()).count();
        founded > 0
    });
    assert_eq!(founded, 1);
    let nodes = waiting.map(|waiting| (waiting.place, waiting.spawned.join().unwrap()));
    until("three replicas of everything", || whole(&nodes[0].1, 3));
    nodes
}

#[test]
fn a_zone_that_joins_later_gets_replicas_by_the_balance_that_health_names() {
    let nodes = trio_in(["a", "a", "b"]);
    let one = &nodes[0].1;
    let is_healthy = || one.run(&["cluster", "health"]).status.success();
    until("health", is_healthy);
    let fourth = start(&one.address, ports(), &["--zone", "c"]);
    let _fourth = (fourth.place, fourth.spawned.join().unwrap());
    until("word of the zone", || {
        let said = String::from_utf8_lossy(&one.run(&["cluster", "health"]).stdout).into_owned();
        said.contains("share a zone") && said.contains("`fanfold cluster balance`")
    });
    let balanced = one.run(&["cluster", "balance", "--wait"]);
    assert!(balanced.status.success(), "{balanced:?}");
    until("health again", is_healthy);
    let status = one.json(&["cluster", "status"]);
    let members = status["nodes"].as_array().unwrap();
    let zone = |node: &Value| members.iter().find(|known| known["node"] == *node).unwrap()["zone"].as_str();
    for partition in status["partitions"].as_array().unwrap() {
        let replicas = partition["replicas"].as_array().unwrap().iter();
        let zones: BTreeSet<_> = replicas.map(|replica| zone(&replica["node"])).collect();
        assert_eq!(zones, BTreeSet::from(["a", "b", "c"].map(Some)), "{partition}");
    }
}

#[test]
fn operator_founds_a_cluster_looks_at_it_and_changes_it() {
    let ports = [ports(), ports(), ports()];
    let join: Vec<_> = ports.iter().map(|[address, _]| address.clone()).collect();
    let waiting = ports.map(|ports| start(&join.join(","), ports, &[]));
    let first = waiting[0].address.clone();
    let early =
        |arguments: &[&str]| fanfold(&[arguments, &["--address", &first, "--deadline", "1s"]].concat());
    until("an answer before there is a cluster", || {
        let said = String::from_utf8_lossy(&early(&["cluster", "status"]).stderr).into_owned();
        said.contains("belongs to no cluster yet")
    });
    let init =
        ["cluster", "init", "--replicas", "3", "--partitions", "4", "--address", &first, "--output", "json"];
    let mut founded = None;
    until("a founded cluster", || {
        let said = fanfold(&init);
        let is_done = said.status.success();
        founded = Some(said);
        is_done
    });
    assert_eq!(json(&founded.unwrap())["founded"], true);
    let again = fanfold(&["cluster", "init", "--address", &first]);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("in a cluster already"), "{again:?}");

    let [one, two, three] = waiting.map(|waiting| (waiting.place, waiting.spawned.join().unwrap()));
    until("three replicas of everything", || whole(&one.1, 3));
    let nodes = two.1.json(&["node", "list"]);
    assert_eq!(nodes.as_array().unwrap().len(), 3);
    // Another node hears of it a little later.
    until("health", || two.1.run(&["cluster", "health"]).status.success());

    // Every node answers, whoever leads.
    assert!(three.1.run(&["follow", "2", "1"]).status.success());
    assert!(one.1.run(&["post", "1", "hello"]).status.success());
    until("the post in the feed", || {
        two.1.json(&["feed", "2"])["entries"].as_array().is_some_and(|entries| entries.len() == 1)
    });

    // Every metric of the alert rules is there, but for what is late: nothing is.
    let scrapes: Vec<String> = [&one.1, &two.1, &three.1].map(|node| node.get("/metrics").1).to_vec();
    for metric in crate::runbook::of_rules() {
        let has = |scrape: &String| scrape.lines().any(|line| line.starts_with(metric));
        assert!(scrapes.iter().any(has) || metric == "fanfold_stream_oldest_age_seconds", "{metric}");
    }

    // Leaders move by command.
    let show = one.1.json(&["partition", "show", "0"]);
    let leader = show["leader"].as_str().unwrap().to_owned();
    let other = ["1", "2", "3"].into_iter().find(|node| *node != leader).unwrap();
    let moved = two.1.run(&["partition", "transfer-leader", "0", "--to", other]);
    assert!(moved.status.success(), "{moved:?}");
    until("the new leader", || one.1.json(&["partition", "show", "0"])["leader"] == other);

    // What cannot be is refused, and says what to do.
    let drain = one.1.run(&["node", "drain", "3", "--dry-run"]);
    assert_eq!(drain.status.code(), Some(1), "{drain:?}");
    let unknown = one.1.run(&["node", "show", "9"]);
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("there is no node 9"), "{unknown:?}");
    let empty = one.1.run(&["partition", "recover", "0", "--empty", "--to", "1", "--dry-run"]);
    assert!(String::from_utf8_lossy(&empty.stderr).contains("has its quorum"), "{empty:?}");
    assert_eq!(one.1.run(&["partition", "recover", "0", "--empty", "--accept-loss"]).status.code(), Some(2));
    let recover = one.1.run(&["partition", "recover", "0", "--from", "1"]);
    assert_eq!(recover.status.code(), Some(2), "a loss is accepted by name only");
    let hot = one.1.json(&["hot", "--by", "writes"]);
    assert!(hot["users"].is_array());

    // All of them together, and one of them, have everything.
    let backup = two.0.path("backup");
    let backup = backup.to_str().unwrap();
    let created = json(&two.1.run(&["backup", "create", backup, "--output", "json"]));
    assert_eq!((created["images"].as_array().unwrap().len(), &created["is_complete"]), (3, &true.into()));
    let again = two.1.run(&["backup", "create", backup]);
    assert_eq!(again.status.code(), Some(1));
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(said.contains("3 nodes have made no image") && said.contains("not complete"), "{again:?}");
    let unknown = two.1.run(&["backup", "create", backup, "--node", "9"]);
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("there is no node 9"), "{unknown:?}");
    let lone = two.0.path("lone");
    let lone = two.1.run(&["backup", "create", lone.to_str().unwrap(), "--node", "2"]);
    assert!(lone.status.success(), "{lone:?}");
    let listed = json(&fanfold(&["backup", "list", backup, "--output", "json"]));
    let set = listed.as_array().unwrap().last().unwrap();
    assert_eq!((&set["images"], &set["is_complete"]), (&3.into(), &true.into()), "{listed}");
    let places = [one, two, three].map(|(place, node)| {
        node.stop();
        place
    });
    let restored = Place::new();
    let target = restored.data_dir();
    let put = fanfold(&["backup", "restore", backup, "--data-dir", target.to_str().unwrap()]);
    assert!(put.status.success(), "{put:?}");
    let alone = restored.start(&[]);
    until("the post in the restored feed", || {
        alone.json(&["feed", "2"])["entries"].as_array().is_some_and(|entries| entries.len() == 1)
    });
    assert_eq!(alone.json(&["node", "list"]).as_array().unwrap().len(), 1);
    alone.stop();

    // What is exported of all images is what they were restored to.
    let export = |what: [&str; 2], out: &str| {
        let out = restored.path(out);
        let out = out.to_str().unwrap();
        json(&fanfold(&[&["export", "all", "--out", out, "--output", "json"], &what[..]].concat()))
    };
    let exported = export(["--backup", backup], "of the images");
    assert!(
        exported["entries"].as_u64().unwrap() > 0 && exported["edges"].as_u64().unwrap() > 0,
        "{exported}"
    );
    assert_eq!(export(["--data-dir", target.to_str().unwrap()], "of the restored"), exported);

    goes_on_alone(&places[0].data_dir(), restored.path("export").to_str().unwrap());
}

/// Of the others, none knows for sure that it has everything, and one goes on.
fn goes_on_alone(data: &Path, out: &str) {
    let export = fanfold(&["export", "all", "--data-dir", data.to_str().unwrap(), "--out", out]);
    let said = String::from_utf8_lossy(&export.stderr).into_owned();
    assert!(!export.status.success() && said.contains("one of 3 nodes"), "{export:?}");
    let recover = |arguments: &[&str]| {
        let command = ["cluster", "recover", "--data-dir", data.to_str().unwrap()];
        fanfold(&[&command, arguments].concat())
    };
    assert_eq!(recover(&["--gone", "2,3"]).status.code(), Some(2), "a loss is accepted by name only");
    let early = recover(&["--gone", "2", "--dry-run"]);
    assert!(String::from_utf8_lossy(&early.stderr).contains("still has a majority"), "{early:?}");
    let dry = json(&recover(&["--gone", "2,3", "--dry-run", "--output", "json"]));
    assert_eq!((dry["kept"].as_array().unwrap().len(), dry["lost"].as_array().unwrap().len()), (4, 0));
    let done = recover(&["--gone", "2,3", "--accept-loss"]);
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success() && said.contains("goes on at its next start"), "{done:?}");
    assert!(said.contains("do it on one node only"), "{said}");
    assert_eq!(recover(&["--gone", "2,3", "--accept-loss"]).status.code(), Some(1), "it is done once");
    assert!(recover(&["--withdraw"]).status.success());
    assert_eq!(recover(&["--withdraw"]).status.code(), Some(1), "there is none");
    assert!(recover(&["--gone", "2,3", "--accept-loss"]).status.success());
}
