//! Importing and exporting, with a real node and real processes.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::process::{FANFOLD, Node, Place, fanfold, json as shown, stderr};

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
    assert_eq!((&dry["imported"], &dry["well_formed"], &dry["rejected"]), (&json!(0), &json!(5), &json!(2)));
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
    // Done is done.
    let again = node.run(&["import", "follows", &file, "--output", "json"]);
    assert_eq!(counts(&serde_json::from_slice(&again.stdout).unwrap()), counts(&summary));
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

fn export(data_dir: &Path, out: &Path) -> Vec<PathBuf> {
    export_from("--data-dir", data_dir, out)
}

fn export_from(what: &str, dir: &Path, out: &Path) -> Vec<PathBuf> {
    let (dir, out_name) = (dir.to_str().unwrap(), out.to_str().unwrap());
    let exported = fanfold(&["export", "all", what, dir, "--out", out_name, "--output", "json"]);
    assert!(shown(&exported)["entries"].as_u64().unwrap() > 0);
    let mut files: Vec<_> = std::fs::read_dir(out).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

fn unpacked(file: &Path) -> String {
    String::from_utf8(zstd::decode_all(std::fs::File::open(file).unwrap()).unwrap()).unwrap()
}

#[test]
fn an_export_imported_again_is_the_same() {
    let place = Place::new();
    let node = place.start(&[]);
    node.json(&["follow", "1", "2", "3", "4"]);
    node.json(&["follow", "5", "2"]);
    let first = node.json(&["post", "2", "first", "--key", "k1"]);
    let reference = format!("2:{}", first["id"].as_str().unwrap());
    node.json(&["post", "3", "reply\twith a tab", "--refer-to", &reference, "--audience", "followers"]);
    node.json(&["post", "4", "story", "--space", "stories", "--ttl", "20h", "--author", "9"]);
    let gone = node.json(&["post", "2", "gone"]);
    node.json(&["delete", "2", gone["id"].as_str().unwrap()]);
    node.json(&["expire", "2", first["id"].as_str().unwrap(), "never"]);
    let feeds = |node: &Node| {
        node.drain();
        let feed =
            |reader: &str, space: &str| node.json(&["feed", reader, "--space", space])["entries"].clone();
        [feed("1", "posts"), feed("1", "stories"), feed("5", "posts")]
    };
    let before = feeds(&node);
    node.stop();
    let files = export(&place.data_dir(), &place.path("export"));
    assert!(files.len() > 4);

    let other = Place::new();
    let node = other.start(&[]);
    for (what, start) in [("entries", "entries."), ("follows", "follows.")] {
        let mine = files.iter().filter(|f| f.file_name().unwrap().to_str().unwrap().starts_with(start));
        let names: Vec<&str> = mine.map(|file| file.to_str().unwrap()).collect();
        node.json(&[&["import", what], &names[..]].concat());
    }
    assert_eq!(feeds(&node), before);
    node.stop();
    let again = export(&other.data_dir(), &other.path("export"));
    assert_eq!(files.len(), again.len());
    for (one, other) in files.iter().zip(&again) {
        assert_eq!((one.file_name(), unpacked(one)), (other.file_name(), unpacked(other)));
    }
}

#[test]
fn an_export_that_meets_a_rotten_record_fails_and_names_no_file() {
    let place = Place::new();
    let node = place.start(&[]);
    node.json(&["post", "1", "what a bit is flipped in"]);
    node.json(&["post", "1", "another"]);
    // The backup puts them into a segment.
    assert!(node.run(&["backup", "create", place.path("backup").to_str().unwrap()]).status.success());
    node.stop();
    let data = place.data_dir();
    let snapshots =
        fanfold(&["inspect", "snapshot", "--data-dir", data.to_str().unwrap(), "--output", "json"]);
    let snapshots = shown(&snapshots);
    let with_entries = |s: &&Value| !s["segments"].as_array().unwrap().is_empty();
    let snapshot = snapshots.as_array().unwrap().iter().find(with_entries).unwrap();
    let manifest = PathBuf::from(snapshot["file"].as_str().unwrap());
    let file = manifest.with_file_name(snapshot["segments"][0]["file"].as_str().unwrap());
    let mut content = std::fs::read(&file).unwrap();
    let at = content.windows(7).position(|bytes| bytes == b"flipped").unwrap();
    content[at] ^= 1;
    std::fs::write(&file, content).unwrap();
    let out = place.path("export");
    let exported =
        fanfold(&["export", "all", "--data-dir", data.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    assert_eq!(exported.status.code(), Some(1), "{exported:?}");
    assert!(stderr(&exported).contains("damaged"), "{exported:?}");
    let partition = snapshot["group"].as_u64().unwrap() - 1;
    assert!(!out.join(format!("entries.{partition:04}.jsonl.zst")).exists());
}

/// The lines of all files, in no order, without their names.
fn lines(files: &[PathBuf], start: &str) -> Vec<String> {
    let mine = files.iter().filter(|file| file.file_name().unwrap().to_str().unwrap().starts_with(start));
    let mut lines: Vec<String> =
        mine.flat_map(|file| unpacked(file).lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    lines.sort_unstable();
    lines
}

#[test]
fn a_backup_made_while_writing_is_exported_without_a_stop() {
    let place = Place::new();
    let node = place.start(&[]);
    node.json(&["follow", "1", "2", "3", "4"]);
    for n in 0..10 {
        node.json(&["post", "2", &format!("before {n}")]);
    }
    let (is_done, address) = (AtomicBool::new(false), node.address.clone());
    let (backup, out) = (place.path("backup"), place.path("export"));
    let (files, posted) = std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let mut posted = 0;
            while !is_done.load(Ordering::Relaxed) {
                let (owner, text) = ((2 + posted % 3).to_string(), format!("during {posted}"));
                shown(&fanfold(&["post", &owner, &text, "--address", &address, "--output", "json"]));
                posted += 1;
            }
            posted
        });
        node.json(&["backup", "create", backup.to_str().unwrap()]);
        let files = export_from("--backup", &backup, &out);
        is_done.store(true, Ordering::Relaxed);
        (files, writing.join().unwrap())
    });
    assert!(posted > 0);
    let exported = lines(&files, "entries.");
    assert!((10..10 + posted).contains(&(exported.len() as u64)), "{} of {posted}", exported.len());
    assert!(exported.iter().filter(|line| line.contains("before")).count() == 10);
    // One moment of the writer, who waits for each answer: nothing is missing before the last.
    let during = exported.len() as u64 - 10;
    assert!((0..during).all(|n| exported.iter().any(|line| line.contains(&format!("\"during {n}\"")))));
    assert_eq!(lines(&files, "follows.").len(), 3);
    node.stop();
    // Nothing else is left beside the files, and the backup is as it was.
    assert!(files.iter().all(|file| file.extension().is_some_and(|extension| extension == "zst")));
    assert_eq!(export_from("--backup", &backup, &place.path("export again")).len(), files.len());

    let other = Place::new();
    let node = other.start(&[]);
    for (what, start) in [("entries", "entries."), ("follows", "follows.")] {
        let mine = files.iter().filter(|f| f.file_name().unwrap().to_str().unwrap().starts_with(start));
        let names: Vec<&str> = mine.map(|file| file.to_str().unwrap()).collect();
        node.json(&[&["import", what], &names[..]].concat());
    }
    let backup = other.path("backup");
    node.json(&["backup", "create", backup.to_str().unwrap()]);
    let again = export_from("--backup", &backup, &other.path("export"));
    node.stop();
    for start in ["entries.", "follows."] {
        assert_eq!(lines(&again, start), lines(&files, start));
    }
    let both = fanfold(&["export", "all", "--backup", "a", "--data-dir", "b", "--out", "c"]);
    assert_eq!(both.status.code(), Some(2), "{both:?}");
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
