//! What people who come from elsewhere do to an import: other files than it expects, stops, full disks.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};

use crate::process::{FANFOLD, Node, Place, failure, fanfold, json as shown, stderr, stdout};

pub fn write(place: &Place, name: &str, text: impl AsRef<[u8]>) -> String {
    let path = place.path(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

pub fn count(node: &Node, what: &str) -> u64 {
    let status = node.json(&["status"]);
    status[0]["partitions"].as_array().unwrap().iter().map(|p| p[what].as_u64().unwrap()).sum()
}

/// The numbers of the lines in a list of rejects or ids, which must hold nothing but lines.
pub fn numbers(list: &str) -> Vec<u64> {
    let content = std::fs::read_to_string(list).unwrap();
    assert!(!content.contains('\0') && content.ends_with('\n'), "{content:?}");
    content.lines().map(|line| line.split('\t').nth(1).unwrap().parse().unwrap()).collect()
}

/// A shell runs a command line of the binary, `$0`, with arguments `$1` and so on.
pub fn shell(line: &str, arguments: &[&str]) -> Output {
    Command::new("sh").args(["-c", line, FANFOLD]).args(arguments).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn what_cannot_be_imported_is_refused_with_what_to_do_and_leaves_nothing() {
    let place = Place::new();
    let node = place.start(&[]);
    let good = write(&place, "good.tsv", "1\t2\n");
    let json = write(&place, "good.jsonl", r#"{"reader":1,"owner":2}"#);
    let packed = b"\x1f\x8b\x08\x00\x00\x00\x00\x00";
    let named = write(&place, "follows.tsv.gz", packed);
    let unnamed = write(&place, "follows.tsv", packed);
    let table = write(&place, "follows.csv", "1,2\n");
    let dir = place.path("dir.tsv");
    std::fs::create_dir(&dir).unwrap();
    let (dir, gone) = (dir.to_str().unwrap(), place.path("gone.tsv"));
    for (files, code, says) in [
        (&[&*named][..], 2, "gzip; unpack it"),
        (&[&*unnamed], 2, "gzip; unpack it"),
        (&[&*good, &*unnamed], 2, "gzip; unpack it"),
        (&[&*good, &*json], 2, "one after the other"),
        (&[&*table], 2, "--format"),
        (&[dir], 1, "directory"),
        (&[gone.to_str().unwrap()], 1, "No such file"),
    ] {
        let said = failure(&node.run(&[&["import", "follows"], files].concat()), code);
        assert!(said.contains(says), "{files:?}: {said}");
    }
    let piped =
        shell("exec \"$0\" import follows --format tsv - --address $1 < $2", &[&node.address, &unnamed]);
    assert!(failure(&piped, 2).contains("gzip"), "{piped:?}");
    let left = std::fs::read_dir(place.path("")).unwrap().map(|item| item.unwrap().file_name());
    let left: Vec<String> = left.map(|name| name.into_string().unwrap()).collect();
    assert!(!left.iter().any(|name| name.ends_with(".import") || name.ends_with(".rejects")), "{left:?}");
    assert_eq!(count(&node, "edges"), 0);
    node.stop();
}

#[test]
fn marks_line_ends_empty_files_and_huge_lines_do_no_harm() {
    let place = Place::new();
    let node = place.start(&[]);
    let import = |file: &str, new: u64| {
        let summary = node.json(&["import", "follows", file]);
        assert_eq!((&summary["new"], &summary["rejected"]), (&json!(new), &json!(0)), "{file}: {summary}");
    };
    import(&write(&place, "bom.tsv", "\u{feff}1\t2\r\n1\t3\r\n"), 2);
    import(&write(&place, "bom.jsonl", "\u{feff}{\"reader\":2,\"owner\":3}\r\n\r\n"), 1);
    import(&write(&place, "empty.tsv", ""), 0);
    import(&write(&place, "empty.tsv.zst", zstd::encode_all(&b""[..], 1).unwrap()), 0);
    import(&write(&place, "packed.tsv", zstd::encode_all(&b"3\t4\n3\t5"[..], 1).unwrap()), 2);
    // A whole table as one line, and one of a payload that is too large.
    let (payload, time) = ("x".repeat(5 << 20), 1_714_564_800_000_u64);
    let text = format!("1\t{time}\t{payload}\n1\t{time}\t{}\n1\t{time}\tshort", &payload[..100_000]);
    let file = write(&place, "huge.tsv", text);
    let summary = node.run(&["import", "entries", &file, "--output", "json"]);
    assert_eq!(summary.status.code(), Some(3), "{}", stderr(&summary));
    let summary: Value = serde_json::from_slice(&summary.stdout).unwrap();
    assert_eq!((&summary["new"], &summary["rejected"]), (&json!(1), &json!(2)));
    assert_eq!(numbers(&format!("{file}.rejects")), [1, 2]);
    node.stop();
}

#[test]
fn a_pipe_is_read_to_its_end_from_its_beginning() {
    const EDGES: u64 = 60_000;
    let place = Place::new();
    let node = place.start(&[]);
    // More than is looked at of a file to know it again.
    let line = |n: u64| format!("{n}\t{}\n", n + 1);
    let file = write(&place, "edges", (0..EDGES).map(line).collect::<String>());
    let line = "cd $3 && cat $2 | \"$0\" import follows --format tsv /dev/stdin --address $1 --output json --state s";
    let piped = shell(line, &[&node.address, &file, place.path("").to_str().unwrap()]);
    assert_eq!(shown(&piped)["new"], json!(EDGES));
    assert!(stderr(&piped).contains("--state has no effect") && !place.path("s").exists(), "{piped:?}");
    // What stands there may be a file all the same.
    let line = line.replace("cat $2 | ", "").replace("$1", "$1 < $2");
    let again = shown(&shell(&line, &[&node.address, &file, place.path("").to_str().unwrap()]));
    assert_eq!((&again["new"], &again["known"]), (&json!(0), &json!(EDGES)));
    assert_eq!(count(&node, "edges"), EDGES);
    node.stop();
}

#[test]
fn nothing_that_is_named_is_overwritten() {
    let place = Place::new();
    let node = place.start(&[]);
    let text = "1\tnobody\n";
    let file = write(&place, "posts.tsv", text);
    let link = place.path("link.tsv");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let other = place.path("other");
    let (link, other) = (link.to_str().unwrap(), other.to_str().unwrap());
    for outputs in [
        &["--rejects", &*file][..],
        &["--rejects", link],
        &["--ids-out", &file],
        &["--state", &file],
        &["--rejects", other, "--ids-out", other],
        &["--rejects", other, "--state", other],
        &["--rejects", &file, "--dry-run"],
    ] {
        let said = failure(&node.run(&[&["import", "entries", &file], outputs].concat()), 2);
        assert!(said.contains("would be overwritten"), "{outputs:?}: {said}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), text, "{outputs:?}");
    }
    // A plain file in the memory that the system keeps under /dev is one as any other, and an import of it is known again.
    if let Ok(memory) = tempfile::tempdir_in("/dev/shm") {
        let file = memory.path().join("posts.tsv");
        let file = file.to_str().unwrap();
        std::fs::write(file, text).unwrap();
        let said = failure(&node.run(&["import", "entries", file, "--rejects", file]), 2);
        assert!(said.contains("would be overwritten"), "{said}");
        assert_eq!(std::fs::read_to_string(file).unwrap(), text);
        assert_eq!(node.run(&["import", "entries", file]).status.code(), Some(3));
        assert!(
            known(file).is_some_and(|(rejects, _)| rejects > 0) && numbers(&format!("{file}.rejects")) == [1]
        );
    }
    node.stop();
}

#[test]
fn a_dry_run_overwrites_no_list_of_an_import_that_was_done() {
    let place = Place::new();
    let node = place.start(&[]);
    let (done, other) = (write(&place, "done.tsv", "1\tnobody\n"), write(&place, "other.tsv", "1\t2\n"));
    let list = place.path("list");
    let list = list.to_str().unwrap();
    assert_eq!(node.run(&["import", "follows", &done, "--rejects", list]).status.code(), Some(3));
    assert_eq!(numbers(list), [1]);
    let dry = |list: &str| node.run(&["import", "follows", &other, "--dry-run", "--rejects", list]);
    assert!(failure(&dry(list), 2).contains("overwrites nothing"));
    assert_eq!(numbers(list), [1]);
    // What holds nothing is free.
    for free in [&*write(&place, "empty", ""), "/dev/null", place.path("new").to_str().unwrap()] {
        assert!(dry(free).status.success(), "{free}");
    }
    node.stop();
}

#[test]
fn a_dry_run_asks_a_node_and_says_what_it_did_not_check() {
    let place = Place::new();
    let node = place.start(&[]);
    let line = |space: &str, id: u64| {
        format!("{{\"space\":\"{space}\",\"owner\":2,\"id\":{id},\"payload\":\"\"}}\n")
    };
    let right = node.json(&["post", "2", "a post"])["id"].as_str().unwrap().parse::<u64>().unwrap();
    let file = write(
        &place,
        "posts.jsonl",
        [line("posts", right), line("posts", right ^ 1), line("no", right)].concat(),
    );
    let dry = |arguments: &[&str]| fanfold(&[&["import", "entries", &file, "--dry-run"], arguments].concat());
    let rejects = place.path("rejects");
    let rejects = rejects.to_str().unwrap();
    let asked = dry(&["--address", &node.address, "--rejects", rejects]);
    assert_eq!(asked.status.code(), Some(3), "{asked:?}");
    assert!(stdout(&asked).contains("1 entries well-formed, 2 rejected\nnot checked: "), "{asked:?}");
    assert_eq!(numbers(rejects), [2, 3]);
    // An import of the same file rejects the same lines.
    let imported = node.run(&["import", "entries", &file]);
    assert_eq!((imported.status.code(), numbers(&format!("{file}.rejects"))), (Some(3), vec![2, 3]));
    let unknown = dry(&["--address", &node.address, "--space", "nowhere"]);
    assert!(failure(&unknown, 1).contains("nowhere"), "{unknown:?}");
    let edges = write(&place, "edges.tsv", "1\t2\n");
    let unknown = node.run(&["import", "follows", &edges, "--dry-run", "--graph", "nowhere"]);
    assert!(failure(&unknown, 1).contains("nowhere"), "{unknown:?}");
    let address = node.address.clone();
    node.stop();
    assert!(failure(&dry(&["--address", &address]), 1).contains("no node listens"));
    let offline = dry(&["--offline", "--output", "json"]);
    assert_eq!(offline.status.code(), Some(3), "{offline:?}");
    let summary: Value = serde_json::from_slice(&offline.stdout).unwrap();
    // What spaces there are is not known.
    assert_eq!((&summary["well_formed"], &summary["rejected"]), (&json!(2), &json!(1)));
    assert_eq!(summary["not_checked"].as_array().unwrap().len(), 2);
    assert_eq!(fanfold(&["import", "entries", &file, "--offline"]).status.code(), Some(2));
}

/// What the state file of an import says of the lengths of its lists of rejects and ids.
pub fn known(file: &str) -> Option<(u64, u64)> {
    let state: Value = serde_json::from_slice(&std::fs::read(format!("{file}.import")).ok()?).ok()?;
    Some((state["written"][0].as_u64()?, state["written"][1].as_u64()?))
}

/// An import that is stopped when some ids are listed, and some rejects if there are any, and known to be; how much is.
pub fn stopped(node: &Node, file: &str, ids: &str, has_rejects: bool) -> (u64, u64) {
    let mut child = importing(node, file, ids, "2000");
    while !known(file).is_some_and(|(rejects, ids)| (rejects > 0 || !has_rejects) && ids > 0) {
        assert!(child.try_wait().unwrap().is_none(), "it is done too soon");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    known(file).unwrap()
}

pub fn importing(node: &Node, file: &str, ids: &str, rate: &str) -> Child {
    let mut command = Command::new(FANFOLD);
    command.args(["import", "entries", file, "--ids-out", ids, "--rate", rate, "--address", &node.address]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn lists_that_were_moved_away_are_noticed_when_an_import_goes_on() {
    const LINES: u64 = 8_000;
    let place = Place::new();
    let node = place.start(&[]);
    let line = |n: u64| {
        if n.is_multiple_of(4) {
            "bad\n".to_owned()
        } else {
            format!("{}\t{}\tx\n", n % 9, 1_714_564_800_000 + n)
        }
    };
    let file = write(&place, "posts.tsv", (1..=LINES).map(line).collect::<String>());
    let (rejects, ids, aside) = (format!("{file}.rejects"), format!("{file}.ids"), format!("{file}.aside"));
    let written = stopped(&node, &file, &ids, true);
    // A dry run meanwhile leaves the import alone, and its list.
    let (list, state) = (std::fs::read(&rejects).unwrap(), format!("{file}.import"));
    for named in [&rejects, &state] {
        let said = node.run(&["import", "entries", &file, "--dry-run", "--rejects", named]);
        assert!(failure(&said, 2).contains("would be overwritten"), "{said:?}");
    }
    assert!(std::fs::read(&rejects).unwrap() == list && known(&file) == Some(written));
    // Something else in the place of the ids: nothing is written, and nothing is imported.
    let kept = std::fs::read(&ids).unwrap();
    for other in [&b"mine\n"[..], &vec![0; kept.len()]] {
        std::fs::write(&ids, other).unwrap();
        let said = node.run(&["import", "entries", &file, "--ids-out", &ids]);
        assert!(failure(&said, 1).contains("put that file back"), "{said:?}");
        assert_eq!(std::fs::read(&ids).unwrap(), other);
        assert_eq!(known(&file), Some(written));
    }
    std::fs::write(&ids, kept).unwrap();
    // The rejects are looked at elsewhere: what comes then is in a new file.
    std::fs::rename(&rejects, &aside).unwrap();
    let said = node.run(&["import", "entries", &file, "--ids-out", &ids]);
    assert_eq!(said.status.code(), Some(3), "{said:?}");
    assert!(stderr(&said).contains("was moved away"), "{said:?}");
    let before = numbers(&aside).into_iter();
    let listed = std::fs::read_to_string(&aside).unwrap()[..written.0 as usize].lines().count();
    let all: Vec<u64> = before.take(listed).chain(numbers(&rejects)).collect();
    assert!(all.iter().copied().eq((1..=LINES / 4).map(|n| 4 * n)), "each once, in order");
    assert!(numbers(&ids).into_iter().eq((1..=LINES).filter(|n| n % 4 != 0)), "each once, in order");
    assert_eq!(count(&node, "entries"), LINES - LINES / 4);
    // An import that rejects nothing leaves no list of an earlier one.
    std::fs::write(&file, "1\t1714564800000\tx\n").unwrap();
    std::fs::remove_file(format!("{file}.import")).unwrap();
    assert!(node.run(&["import", "entries", &file]).status.success());
    assert!(!Path::new(&rejects).exists());
    node.stop();
}

#[test]
fn a_full_disk_under_the_rejects_stops_an_import_that_then_goes_on() {
    const LINES: u64 = 4_000;
    let place = Place::new();
    let node = place.start(&[]);
    let text: String =
        (1..=LINES).map(|n| if n % 2 == 0 { "x\n".to_owned() } else { format!("1\t{n}\n") }).collect();
    let file = write(&place, "edges.tsv", text);
    // No file of this process grows beyond a few KiB, which the state file does not need.
    let line = "trap '' XFSZ; ulimit -f 16; exec \"$0\" import follows $1 --address $2 --rate 1000000";
    let full = shell(line, &[&file, &node.address]);
    let said = failure(&full, 1);
    assert!(
        said.contains("cannot write") && said.contains(".rejects") && said.contains("to go on"),
        "{said}"
    );
    let summary = node.run(&["import", "follows", &file, "--output", "json"]);
    assert_eq!(summary.status.code(), Some(3), "{}", stderr(&summary));
    assert!(numbers(&format!("{file}.rejects")).into_iter().eq((1..=LINES / 2).map(|n| 2 * n)));
    assert_eq!(count(&node, "edges"), LINES / 2 - 1, "nobody follows itself");
    node.stop();
}

#[test]
fn an_import_outlives_the_node() {
    const LINES: u64 = 6_000;
    let place = Place::new();
    let mut node = place.start(&[]);
    let line = |n: u64| format!("{}\t{}\tentry {n}\n", n % 50, 1_714_564_800_000 + n);
    let text: String = (0..LINES).map(line).collect();
    let file = write(&place, "posts.tsv", text);
    let ids = format!("{file}.ids");
    let mut child = importing(&node, &file, &ids, "2000");
    for goal in [500, 1_500, 3_000] {
        while count(&node, "entries") < goal {
            // If the node was away for longer than it waits, it is run again.
            if child.try_wait().unwrap().is_some_and(|status| !status.success()) {
                child = importing(&node, &file, &ids, "2000");
            }
        }
        let address = node.address.clone();
        node.kill();
        node = place.start(&["--listen", &address]);
    }
    if !child.wait().unwrap().success() {
        assert!(importing(&node, &file, &ids, "1000000").wait().unwrap().success());
    }
    assert_eq!(count(&node, "entries"), LINES);
    assert!(numbers(&ids).into_iter().eq(1..=LINES), "each once, in order");
    node.stop();
}

#[test]
fn a_million_rejects_do_not_stop_an_import() {
    const REJECTS: usize = 1_000_000;
    let place = Place::new();
    let node = place.start(&[]);
    let mut text = "x\n".repeat(REJECTS / 2);
    text.push_str("1\t2\n");
    text.push_str(&"x\n".repeat(REJECTS / 2));
    text.push_str("1\t3");
    let file = write(&place, "edges.tsv", text);
    let imported = node.run(&["import", "follows", &file, "--output", "json"]);
    assert_eq!(imported.status.code(), Some(3), "{}", stderr(&imported));
    let summary: Value = serde_json::from_slice(&imported.stdout).unwrap();
    assert_eq!((&summary["new"], &summary["rejected"]), (&json!(2), &json!(REJECTS)));
    let numbers = numbers(&format!("{file}.rejects"));
    let bad = (1..=REJECTS as u64 / 2).chain(REJECTS as u64 / 2 + 2..=REJECTS as u64 + 1);
    assert!(numbers.into_iter().eq(bad));
    node.stop();
}
