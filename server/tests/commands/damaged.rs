//! A catalog that is damaged on a majority, by hand: what health says, what the command refuses, and how it goes on.

use std::path::{Path, PathBuf};

use crate::cluster::{trio, until};
use crate::operators::id_of;
use crate::process::{Node, Place, failure, fanfold, json, stderr, stdout};

/// Where bytes stand in the files of a log.
fn find(log: &Path, bytes: &[u8]) -> Option<(PathBuf, usize)> {
    std::fs::read_dir(log).unwrap().find_map(|file| {
        let path = file.unwrap().path();
        let content = std::fs::read(&path).ok()?;
        let at = content.windows(bytes.len()).position(|window| window == bytes)?;
        Some((path, at))
    })
}

/// Kills a node, and flips a bit of a record of the catalog in its log.
fn rot((place, node): (Place, Node), by: &Node, space: &str) -> (Place, [String; 2]) {
    let listens = listens(by, &node);
    let made = |name: &str| {
        let made = by.run(&["space", "create", name]);
        assert!(made.status.success(), "{}", stderr(&made));
        assert!(by.run(&["post", "1", name]).status.success());
    };
    made(space);
    // What is durable is known from the next batch on.
    let log = place.data_dir().join("log");
    until("the record in the log of the follower", || find(&log, space.as_bytes()).is_some());
    made(&format!("behind-{space}"));
    node.kill();
    let (path, at) = find(&log, space.as_bytes()).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    (place, listens)
}

/// Where a node listens for clients and for the others.
fn listens(by: &Node, node: &Node) -> [String; 2] {
    let nodes = by.json(&["node", "list"]);
    let known = nodes.as_array().unwrap().iter().find(|known| known["address"] == node.address).unwrap();
    ["address", "peer_address"].map(|field| known[field].as_str().unwrap().to_owned())
}

fn start(place: &Place, [address, peers]: &[String; 2]) -> Node {
    place.start(&["--listen", address, "--peer-listen", peers])
}

#[test]
fn operator_lets_a_catalog_go_on_that_is_damaged_on_a_majority_and_not_one_that_is_whole() {
    let [(place, node), two, three] = trio();
    let first = id_of(&node, &node);
    let mut others = [&two.1, &three.1].map(|other| id_of(&node, other));
    others.sort();
    let damaged = others.join(",");
    let own = listens(&node, &node);
    let recover = |arguments: &[&str]| {
        let data_dir = place.data_dir();
        let command = ["cluster", "recover", "--data-dir", data_dir.to_str().unwrap()];
        fanfold(&[&command, arguments].concat())
    };
    let order = |arguments: &[&str]| recover(&[&["--catalog-damaged", &damaged], arguments].concat());
    let is_whole = |node: &Node| node.run(&["cluster", "health"]).status.success();

    // What is said of the others is not so.
    node.stop();
    failure(&order(&[]), 2);
    failure(&order(&["--withdraw"]), 2);
    let majority = failure(&recover(&["--catalog-damaged", &others[0], "--accept-loss"]), 1);
    assert!(majority.contains("still has a majority"), "{majority}");
    assert!(order(&["--accept-loss"]).status.success());
    let [address, peers] = own.each_ref().map(String::as_str);
    let mut command = place.start_command(&["--listen", address, "--peer-listen", peers]);
    let refused = failure(&command.output().unwrap(), 1);
    assert!(
        refused.contains("has a whole replica of the catalog") && refused.contains("--withdraw"),
        "{refused}"
    );
    assert!(recover(&["--withdraw"]).status.success());
    let node = start(&place, &own);
    until("a whole cluster", || is_whole(&node));

    // Now it is.
    let rotten =
        [(three, "flipped-first"), (two, "flipped-second")].map(|(other, name)| rot(other, &node, name));
    let back = rotten.each_ref().map(|(place, listens)| start(place, listens));
    let way_out = format!("fanfold cluster recover --catalog-damaged {damaged}");
    until("what is to be done", || stdout(&node.run(&["cluster", "health"])).contains(&way_out));
    node.stop();
    let dry = json(&order(&["--dry-run", "--output", "json"]));
    assert_eq!(dry["node"], serde_json::json!(first));
    assert_eq!(["gone", "kept", "lost"].map(|all| dry[all].as_array().unwrap().len()), [0; 3]);
    let ordered = order(&["--accept-loss"]);
    assert!(ordered.status.success() && stdout(&ordered).contains("removed: none"), "{ordered:?}");
    let node = start(&place, &own);
    until("a whole cluster", || is_whole(&node));
    let nodes = node.json(&["node", "list"]);
    assert!(nodes.as_array().unwrap().iter().all(|node| node["state"] == "active"), "{nodes}");
    assert!(back[0].run(&["space", "create", "after"]).status.success());
}
