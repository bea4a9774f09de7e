//! Exporting, and importing what was exported, with a real node and real processes.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use crate::process::{FANFOLD, Node, Place, failure, fanfold, json as shown, stderr, stdout};
use fanfold_client::{Client, EntryId, UserId};

pub fn export(data_dir: &Path, out: &Path) -> Vec<PathBuf> {
    export_from("--data-dir", data_dir, out)
}

fn export_from(what: &str, dir: &Path, out: &Path) -> Vec<PathBuf> {
    let (dir, out_name) = (dir.to_str().unwrap(), out.to_str().unwrap());
    let exported = fanfold(&["export", "all", what, dir, "--out", out_name, "--output", "json"]);
    assert!(shown(&exported)["entries"].as_u64().unwrap() > 0);
    let mut files: Vec<_> = std::fs::read_dir(out).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let list = files.iter().position(|file| file.ends_with("fanfold-export.json"));
    files.remove(list.unwrap());
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
    let gone = node.json(&["post", "2", "gone", "--key", "k2"]);
    node.json(&["delete", "2", gone["id"].as_str().unwrap()]);
    node.json(&["expire", "2", first["id"].as_str().unwrap(), "never"]);
    let draft = node.json(&["post", "3", "draft", "--key", "k3"]);
    let draft = EntryId(draft["id"].as_str().unwrap().parse().unwrap());
    amend(&node, UserId(3), draft, "amended");
    node.json(&["post", "4", "short", "--ttl", "2d"]);
    node.json(&["post", "4", "brief", "--space", "stories"]);
    // Times that nobody has by following.
    let since = place.path("since.tsv");
    std::fs::write(&since, "5\t4\t1714564800000\n6\t2\t2024-05-01T12:00:00.123Z\n").unwrap();
    node.json(&["import", "follows", since.to_str().unwrap()]);
    node.json(&["unfollow", "1", "4"]);
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
    let exported = lines(&files, "entries.");
    let line = |text: &str| exported.iter().find(|line| line.contains(text)).unwrap();
    assert!(line("amended").contains(r#""version":2"#) && line("amended").contains(r#""key":"k3""#));
    assert!(!line("short").contains("never") && line("first").contains(r#""expires":"never""#));
    assert!(!exported.iter().any(|line| line.contains("gone") || line.contains("draft")));
    let follows = lines(&files, "follows.");
    assert!(follows.contains(&"5\t4\t1714564800000".to_owned()), "{follows:?}");
    assert!(follows.contains(&"6\t2\t1714564800123".to_owned()), "{follows:?}");

    let other = Place::new();
    let node = other.start(&[]);
    import_all(&node, &files);
    assert_eq!(feeds(&node), before);
    // An append under a key that came along makes nothing, and says which entry came along.
    let under_key = failure(&node.run(&["post", "3", "draft", "--key", "k3"]), 1);
    assert!(under_key.contains(&draft.0.to_string()), "{under_key}");
    node.stop();
    assert_same(&files, &export(&other.data_dir(), &other.path("export")));
}

pub fn import_all(node: &Node, files: &[PathBuf]) {
    for (what, start) in [("entries", "entries."), ("follows", "follows.")] {
        let mine = files.iter().filter(|f| f.file_name().unwrap().to_str().unwrap().starts_with(start));
        let names: Vec<&str> = mine.map(|file| file.to_str().unwrap()).collect();
        node.json(&[&["import", what], &names[..]].concat());
    }
}

pub fn assert_same(files: &[PathBuf], others: &[PathBuf]) {
    assert_eq!(files.len(), others.len());
    for (one, other) in files.iter().zip(others) {
        assert_eq!(one.file_name(), other.file_name());
        let (one, other) = (unpacked(one), unpacked(other));
        let differs = one.lines().zip(other.lines()).find(|(one, other)| one != other);
        assert!(one == other, "{} bytes and {}, first at {differs:?}", one.len(), other.len());
    }
}

fn amend(node: &Node, owner: UserId, id: EntryId, payload: &'static str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = Client::connect(&node.address).await.unwrap();
        client.space("posts").amend(owner, id, 1, payload).await.unwrap();
        client.close().await.unwrap();
    });
}

/// What every file in a directory holds, and when it was changed; directories hold nothing.
fn everything(dir: &Path) -> BTreeMap<PathBuf, (SystemTime, Vec<u8>)> {
    let mut all = BTreeMap::new();
    for item in std::fs::read_dir(dir).unwrap() {
        let path = item.unwrap().path();
        let changed = path.metadata().unwrap().modified().unwrap();
        if path.is_dir() {
            all.append(&mut everything(&path));
            all.insert(path, (changed, Vec::new()));
        } else {
            all.insert(path.clone(), (changed, std::fs::read(path).unwrap()));
        }
    }
    all
}

#[test]
fn an_export_changes_nothing_in_the_directory_that_it_exports() {
    let place = Place::new();
    let node = place.start(&[]);
    node.json(&["follow", "1", "2", "3"]);
    for n in 0..20 {
        node.json(&["post", &(n % 4).to_string(), &format!("in a segment {n}")]);
    }
    // The backup puts them into segments; what comes then is in the log alone.
    assert!(node.run(&["backup", "create", place.path("backup").to_str().unwrap()]).status.success());
    node.json(&["post", "1", "in the log"]);
    node.kill();
    let contents = |dir: &Path| {
        let mut all = everything(dir);
        // Whose it was last is put back, later than it was.
        all.get_mut(&dir.join("LOCK")).unwrap().0 = SystemTime::UNIX_EPOCH;
        all
    };
    let before = contents(&place.data_dir());
    assert!(before.keys().any(|path| path.extension().is_some_and(|ending| ending == "segment")));
    let files = export(&place.data_dir(), &place.path("export"));
    let exported = lines(&files, "entries.");
    assert!(exported.len() == 21 && exported.iter().any(|line| line.contains("in the log")), "{exported:?}");
    assert!(contents(&place.data_dir()) == before, "a file of the data directory was changed");
    // Nor does anybody else who looks.
    let data = place.data_dir();
    for command in [&["verify"][..], &["inspect", "data-dir"], &["inspect", "log"], &["inspect", "snapshot"]]
    {
        let looked = fanfold(&[command, &["--data-dir", data.to_str().unwrap()]].concat());
        assert!(looked.status.success(), "{looked:?}");
        assert!(contents(&data) == before, "{command:?} changed a file of the data directory");
    }
    let looked = fanfold(&["inspect", "data-dir", "--output", "json", "--data-dir", data.to_str().unwrap()]);
    let groups = shown(&looked)["groups"].as_array().unwrap().clone();
    let is_note = |path: &serde_json::Value| path.as_str().unwrap().ends_with("/replica");
    let orphans = |group: &serde_json::Value| group["orphans"].as_array().unwrap().iter().any(is_note);
    assert!(!groups.is_empty() && !groups.iter().any(orphans), "{groups:?}");
    // A copy without a lock file is as good, and gets none.
    let copy = place.path("copy");
    let copied = std::process::Command::new("cp").arg("-r").arg(place.data_dir()).arg(&copy).status();
    assert!(copied.unwrap().success());
    std::fs::remove_file(copy.join("LOCK")).unwrap();
    let again = export(&copy, &place.path("again"));
    assert_eq!(lines(&again, "entries."), exported);
    assert!(!copy.join("LOCK").exists());
    // No node runs meanwhile, and none is exported.
    let node = place.start(&[]);
    let out = place.path("never");
    let refused =
        fanfold(&["export", "all", "--data-dir", data.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    assert!(failure(&refused, 1).contains("is in use"), "{refused:?}");
    assert!(std::fs::read_dir(&out).unwrap().next().is_none());
    node.stop();
}

#[test]
fn an_export_takes_the_place_of_an_earlier_one() {
    let place = Place::new();
    let node = place.start(&[]);
    node.json(&["follow", "1", "2"]);
    node.json(&["post", "1", "a post"]);
    node.stop();
    let (data, out) = (place.data_dir(), place.path("export"));
    std::fs::create_dir(&out).unwrap();
    // What people put there stays, however much it is named as what an export writes.
    let kept = [
        "README.txt",
        "entries.jsonl.zst",
        "entries.01.jsonl.zst",
        "entries.2024.05.jsonl.zst",
        "entries.march.jsonl.zst",
        "entries.tsv.zst",
        "follows.0001.tsv.zst",
        "follows.csv",
        "follows.friends.tsv.zst",
        "follows.of.us.0001.tsv.zst",
        "follows.tsv.zst",
        "follows.tsv.zst.new",
    ];
    for kept in kept {
        std::fs::write(out.join(kept), "what people put there stays").unwrap();
    }
    let first = lines(&export(&data, &out)[..], "follows.follows");
    assert_eq!(first.len(), 1);
    // What was never finished is no part of an export either.
    std::fs::write(out.join("follows.other.0003.tsv.zst.new"), "half").unwrap();
    let node = place.start(&[]);
    node.json(&["unfollow", "1", "2"]);
    node.stop();
    // Of edges only the files of edges are replaced: there are none any more.
    let exported = |what: &str| {
        let out =
            fanfold(&["export", what, "--data-dir", data.to_str().unwrap(), "--out", out.to_str().unwrap()]);
        assert!(out.status.success(), "{out:?}");
    };
    let names = || -> Vec<String> {
        let items = std::fs::read_dir(&out).unwrap();
        let mut names: Vec<_> = items.map(|item| item.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let before = names();
    exported("entries");
    assert_eq!(names(), before);
    exported("follows");
    let stays = |name: &String| !name.starts_with("follows.") || kept.contains(&name.as_str());
    let left: Vec<_> = before.into_iter().filter(stays).collect();
    assert_eq!(names(), left);
    assert!(kept.iter().all(|name| left.iter().any(|left| left == name)), "{left:?}");
    assert!(left.iter().filter(|name| name.starts_with("entries.")).count() > 1);
}

#[test]
fn what_is_wrong_is_told_of_the_directory_that_was_named() {
    let place = Place::new();
    let node = place.start(&[]);
    node.json(&["post", "1", "a post"]);
    node.stop();
    let (data, out) = (place.data_dir(), place.path("export"));
    let export = || {
        let (data, out) = (data.to_str().unwrap(), out.to_str().unwrap());
        let said = failure(&fanfold(&["export", "all", "--data-dir", data, "--out", out]), 1);
        assert!(said.contains(data) && !said.contains(".fanfold-export"), "{said}");
        assert!(std::fs::read_dir(out).unwrap().next().is_none());
        said
    };
    for log in std::fs::read_dir(data.join("log")).unwrap() {
        let log = log.unwrap().path();
        let mut content = std::fs::read(&log).unwrap();
        let begin = content.len().min(4_096);
        content[..begin].fill(7);
        std::fs::write(&log, content).unwrap();
    }
    export();
    std::fs::rename(data.join("log"), place.path("log")).unwrap();
    assert!(export().contains("its log is missing"));
}

#[test]
fn who_looks_into_an_empty_directory_is_told_so_and_leaves_it_empty() {
    let place = Place::new();
    let dir = place.path("empty");
    std::fs::create_dir(&dir).unwrap();
    let dir = dir.to_str().unwrap();
    let out = place.path("out");
    for command in [
        &["verify"][..],
        &["inspect", "data-dir"],
        &["inspect", "log"],
        &["export", "all", "--out", out.to_str().unwrap()],
    ] {
        let said = failure(&fanfold(&[command, &["--data-dir", dir]].concat()), 1);
        assert!(said.contains("holds no node") && said.contains("--data-dir"), "{said}");
        assert!(std::fs::read_dir(dir).unwrap().next().is_none(), "{command:?} left something");
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
    let partition = rot(&data, "flipped");
    let out = place.path("export");
    let exported =
        fanfold(&["export", "all", "--data-dir", data.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    assert_eq!(exported.status.code(), Some(1), "{exported:?}");
    let said = stderr(&exported);
    assert!(said.contains("damaged at offset") && said.contains(".segment"), "{said}");
    assert!(said.contains(data.to_str().unwrap()) && !said.contains(".fanfold-export"), "{said}");
    assert!(!out.join(format!("entries.{partition:04}.jsonl.zst")).exists());
}

/// Flips a bit of a text in a segment, of the last partition that has it in one, and answers which that is.
fn rot(data: &Path, text: &str) -> u64 {
    let snapshots =
        fanfold(&["inspect", "snapshot", "--data-dir", data.to_str().unwrap(), "--output", "json"]);
    let mut found = None;
    for snapshot in shown(&snapshots).as_array().unwrap() {
        let manifest = PathBuf::from(snapshot["file"].as_str().unwrap());
        for segment in snapshot["segments"].as_array().unwrap() {
            let file = manifest.with_file_name(segment["file"].as_str().unwrap());
            let content = std::fs::read(&file).unwrap();
            let at = content.windows(text.len()).position(|bytes| bytes == text.as_bytes());
            found = found.max(at.map(|at| (snapshot["group"].as_u64().unwrap() - 1, at, file)));
        }
    }
    let (partition, at, file) = found.unwrap();
    let mut content = std::fs::read(&file).unwrap();
    content[at] ^= 1;
    std::fs::write(&file, content).unwrap();
    partition
}

#[test]
fn an_export_that_fails_leaves_the_earlier_one_as_it_was() {
    let place = Place::new();
    let post = |text: &str, backup: &str| {
        let node = place.start(&[]);
        for user in ["1", "2", "3", "4", "5", "6", "7", "8"] {
            node.json(&["post", user, text]);
        }
        assert!(node.run(&["backup", "create", place.path(backup).to_str().unwrap()]).status.success());
        node.stop();
    };
    let (data, out) = (place.data_dir(), place.path("export"));
    post("early", "one");
    let files = export(&data, &out);
    assert_eq!(lines(&files, "entries.").len(), 8);
    post("flipped", "two");
    let partition = rot(&data, "flipped");
    assert!(partition > 0, "nothing is written before the one that is damaged");
    let before = everything(&out);
    let again = |more: &[&str]| {
        let (data, out) = (data.to_str().unwrap(), out.to_str().unwrap());
        let exported = fanfold(&[&["export", "all", "--data-dir", data, "--out", out], more].concat());
        assert_eq!(exported.status.code(), Some(1), "{exported:?}");
        stdout(&exported)
    };
    again(&[]);
    assert!(everything(&out) == before, "an export that failed changed the earlier one");
    // Left out, the partition has what it had, and the others what they have now.
    let said = again(&["--leave-out-damaged"]);
    let named = said.lines().find(|line| line.starts_with(&format!("LEFT OUT: partition {partition}: ")));
    let place = format!("segment \"{}", data.display());
    assert!(named.is_some_and(|line| line.contains(&place) && line.contains("damaged at offset")), "{said}");
    let after = everything(&out);
    assert!(after.keys().eq(before.keys()), "{:?}", after.keys());
    let kept = out.join(format!("entries.{partition:04}.jsonl.zst"));
    assert!(after[&kept] == before[&kept]);
    let news = lines(&files, "entries.").iter().filter(|line| line.contains("flipped")).count();
    assert!(news > 0 && !unpacked(&kept).contains("flipped"));
}

#[test]
fn files_of_two_exports_are_never_imported_as_one() {
    let place = Place::new();
    let (data, out) = (place.data_dir(), place.path("export"));
    let post = |text: &str| {
        let node = place.start(&[]);
        for user in ["1", "2", "3", "4", "5", "6", "7", "8"] {
            node.json(&["post", user, text]);
        }
        node.stop();
    };
    let dry = |file: &Path| fanfold(&["import", "entries", file.to_str().unwrap(), "--dry-run", "--offline"]);
    post("early");
    let files = export(&data, &out);
    let entries: Vec<_> = files.iter().filter(|file| file.to_str().unwrap().contains("/entries.")).collect();
    assert!(entries.len() > 2 && entries.iter().all(|file| dry(file).status.success()));
    let last = entries[entries.len() - 1];
    let early = std::fs::read(entries[0]).unwrap();
    // It ends between two names, because one of them is taken by what it does not replace.
    post("late");
    let taken = entries[1];
    std::fs::remove_file(taken).unwrap();
    std::fs::create_dir(taken).unwrap();
    let named = |dir: &Path| dir.to_str().unwrap().to_owned();
    let stopped = fanfold(&["export", "all", "--data-dir", &named(&data), "--out", &named(&out)]);
    assert!(failure(&stopped, 1).contains(taken.to_str().unwrap()), "{stopped:?}");
    let is_late = |file: &Path| unpacked(file).contains("late");
    assert!(is_late(entries[0]) && !is_late(last), "they are of two exports");
    for file in [entries[0], last] {
        let said = failure(&dry(file), 1);
        assert!(said.contains("may be of another export") && said.contains(file.to_str().unwrap()), "{said}");
    }
    // An export of edges alone changes nothing of that; one of entries makes it good.
    std::fs::remove_dir(taken).unwrap();
    for (what, is_good) in [("follows", false), ("entries", true)] {
        let again = fanfold(&["export", what, "--data-dir", &named(&data), "--out", &named(&out)]);
        assert!(again.status.success(), "{again:?}");
        assert!(
            entries.iter().filter(|file| file.exists()).all(|file| dry(file).status.success() == is_good)
        );
    }
    // A file of an earlier export that is put among them is known, unless nobody says what was exported.
    assert!(is_late(last));
    std::fs::write(entries[0], early).unwrap();
    assert!(failure(&dry(entries[0]), 1).contains("is not as it was exported"));
    std::fs::remove_file(out.join("fanfold-export.json")).unwrap();
    assert!(dry(entries[0]).status.success());
}

/// The lines of all files, in no order, without their names.
pub fn lines(files: &[PathBuf], start: &str) -> Vec<String> {
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
fn an_export_that_is_interrupted_leaves_nothing_and_the_next_one_removes_what_a_killed_one_left() {
    let place = Place::new();
    let node = place.start(&[]);
    // More than fits into a pipe.
    let line = |n: u64| format!("1\t{}\t{}\n", 1_714_564_800_000_u64 + n, "x".repeat(20_000));
    let text: String = (0..60).map(line).collect();
    let posts = place.path("posts.tsv");
    std::fs::write(&posts, text).unwrap();
    node.json(&["import", "entries", posts.to_str().unwrap()]);
    node.stop();
    let (data, temporary) = (place.data_dir(), place.path("temporary"));
    std::fs::create_dir(&temporary).unwrap();
    let mut command = Command::new(FANFOLD);
    command.args(["export", "entries", "--out", "-", "--data-dir", data.to_str().unwrap()]);
    command.env("TMPDIR", &temporary).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0]).unwrap();
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 1);
    let interrupt = format!("kill -INT {}", child.id());
    assert!(Command::new("sh").args(["-c", &interrupt]).status().unwrap().success());
    std::io::copy(&mut stdout, &mut std::io::sink()).unwrap();
    let status = child.wait().unwrap();
    assert!(status.code().is_some(), "it was killed and did not end: {status}");
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0);

    // A directory that nobody holds is left over, and one that somebody holds is of an export that runs.
    let out = place.path("export");
    let (left, held) = (out.join(".fanfold-export1"), out.join(".fanfold-export2"));
    std::fs::create_dir_all(left.join("data")).unwrap();
    std::fs::write(left.join("data/file"), "left over").unwrap();
    std::fs::create_dir(&held).unwrap();
    let lock = std::fs::File::open(&held).unwrap();
    lock.lock().unwrap();
    export(&data, &out);
    assert!(!left.exists() && held.exists());
    drop(lock);
    export(&data, &out);
    assert!(!held.exists());
}
