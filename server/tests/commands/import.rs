//! Importing and exporting, with a real node and real processes.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::process::{FANFOLD, Node, Place, stderr, stdout};

const TIME: u64 = 1_714_564_800_000;

fn write(place: &Place, name: &str, text: impl AsRef<[u8]>) -> String {
    let path = place.path(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn payloads(page: &Value) -> Vec<&str> {
    page["entries"].as_array().unwrap().iter().map(|entry| entry["payload"].as_str().unwrap()).collect()
}

fn entries_of(node: &Node) -> u64 {
    let status = node.json(&["status"]);
    status[0]["partitions"].as_array().unwrap().iter().map(|p| p["entries"].as_u64().unwrap()).sum()
}

#[test]
fn what_is_wrong_is_listed_and_the_rest_is_there() {
    let place = Place::new();
    let node = place.start(&[]);
    let text = [
        format!("1\t2\t{TIME}\r\n").as_bytes(),
        b"\n1\tx\n\xff\xfe\t2\n",
        b"1\t3\n1\t2\n1\t9\t99999999999999\n1\t1",
    ]
    .concat();
    let file = write(&place, "follows.tsv", text);
    let dry = node.run(&["import", "follows", &file, "--dry-run", "--output", "json"]);
    assert_eq!(dry.status.code(), Some(3), "{}", stderr(&dry));
    let dry: Value = serde_json::from_slice(&dry.stdout).unwrap();
    assert_eq!((&dry["imported"], &dry["well_formed"], &dry["rejected"]), (&json!(0), &json!(4), &json!(3)));
    assert_eq!(dry["not_checked"].as_array().unwrap().len(), 1, "{dry}");
    assert!(
        !Path::new(&format!("{file}.rejects")).exists() && !Path::new(&format!("{file}.import")).exists()
    );
    assert_eq!(node.json(&["status"])[0]["partitions"][0]["edges"], json!(0));

    let output = node.run(&["import", "follows", &file, "--output", "json"]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    // Whoever follows itself, or again, changes nothing.
    let counts = |s: &Value| (s["imported"].clone(), s["known"].clone(), s["rejected"].clone());
    assert_eq!(counts(&summary), (json!(2), json!(2), json!(3)));
    let rejects = std::fs::read_to_string(format!("{file}.rejects")).unwrap();
    let lines: Vec<Vec<&str>> = rejects.lines().map(|line| line.split('\t').collect()).collect();
    assert!(lines.iter().all(|columns| columns[0] == file && columns.len() == 3), "{rejects}");
    assert_eq!(lines.iter().map(|columns| columns[1]).collect::<Vec<_>>(), ["3", "4", "7"]);
    assert!(lines[2][2].contains("time"), "{rejects}");
    // Done is done, and said to be.
    assert_eq!((&summary["new"], &summary["done_before"]), (&json!(2), &json!(false)));
    let again = node.run(&["import", "follows", &file, "--output", "json"]);
    let again: Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!(counts(&again), counts(&summary));
    assert_eq!((&again["new"], &again["done_before"]), (&json!(0), &json!(true)));
    let again = stdout(&node.run(&["import", "follows", &file]));
    assert!(again.starts_with("0 new") && again.contains(&format!("{file}.import")), "{again}");
    node.stop();
}

#[test]
fn entries_keep_times_order_and_keys_and_are_in_every_feed() {
    let place = Place::new();
    let node = place.start(&[]);
    node.json(&["follow", "1", "2", "3"]);
    node.json(&["post", "2", "new"]);
    node.drain();
    let line = |owner: u64, n: u64, text: &str| format!("{owner}\t{}\t{text}\tkey-{n}\n", TIME + n / 2);
    let text: String =
        (0..6).map(|n| line(2 + n % 2, n, &format!("old {n}"))).chain([line(2, 0, "old 0")]).collect();
    let packed = zstd::encode_all(text.as_bytes(), 1).unwrap();
    let file = write(&place, "posts.tsv.zst", packed);
    let ids = place.path("ids.tsv");
    let ids = ids.to_str().unwrap();
    let summary = node.json(&["import", "entries", &file, "--ids-out", ids]);
    assert_eq!((&summary["imported"], &summary["known"]), (&json!(6), &json!(1)));
    node.drain();
    let feed = node.json(&["feed", "1"]);
    let mut shown = payloads(&feed);
    assert_eq!(shown.remove(0), "new");
    // Entries of one millisecond in different partitions stand in any order.
    shown.sort_unstable_by_key(|payload| std::cmp::Reverse(payload.to_string()));
    assert_eq!(shown, ["old 5", "old 4", "old 3", "old 2", "old 1", "old 0"]);
    assert_eq!(payloads(&node.json(&["timeline", "2"])), ["new", "old 4", "old 2", "old 0"]);
    let ids = std::fs::read_to_string(ids).unwrap();
    let ids: Vec<Vec<&str>> = ids.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!((ids.len(), ids[1][1], ids[1][2], ids[0][3]), (7, "2", "key-1", ids[6][3]));
    node.stop();
}

#[test]
fn an_import_that_is_killed_goes_on_and_does_nothing_twice() {
    const LINES: u64 = 6_000;
    let place = Place::new();
    let node = place.start(&[]);
    let line = |n: u64| {
        // There is no such space yet, and what becomes of a line does not change in the middle.
        let space = if n % 100 == 7 { "later" } else { "posts" };
        let (owner, time) = (n % 50, TIME + n);
        format!("{{\"space\":\"{space}\",\"owner\":{owner},\"time\":{time},\"payload\":\"entry {n}\"}}\n")
    };
    let text: String = (0..LINES).map(line).collect();
    let file = write(&place, "entries.jsonl", text);
    let import = |rate: &str| {
        let mut command = Command::new(FANFOLD);
        command.args(["import", "entries", &file, "--address", &node.address, "--rate", rate]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let mut kills = 0;
    loop {
        let mut child = import("3000").spawn().unwrap();
        // It is killed whenever it has come a little further.
        let goal = (entries_of(&node) + 400).min(LINES - LINES / 100);
        while entries_of(&node) < goal && child.try_wait().unwrap().is_none() {}
        if let Some(status) = child.try_wait().unwrap() {
            assert_eq!(status.code(), Some(3));
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
        if kills == 1 {
            node.json(&["space", "create", "later"]);
        }
        if kills == 6 {
            assert_eq!(import("1000000").status().unwrap().code(), Some(3));
            break;
        }
    }
    assert!(kills > 0, "nothing was killed");
    assert_eq!(entries_of(&node), LINES - LINES / 100);
    let rejects = std::fs::read_to_string(format!("{file}.rejects")).unwrap();
    let lines: Vec<u64> =
        rejects.lines().map(|line| line.split('\t').nth(1).unwrap().parse().unwrap()).collect();
    assert!(lines.iter().copied().eq((0..LINES / 100).map(|n| n * 100 + 8)), "each once, in order");
    let timeline = node.json(&["timeline", "3", "--limit", "200"]);
    let numbers: Vec<u64> = payloads(&timeline).iter().map(|p| p[6..].parse().unwrap()).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] == pair[1] + 50), "in the order of the file");
    node.stop();
}
