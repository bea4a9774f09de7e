//! What operators do to an import that was begun: start it twice, and go on with it under other arguments.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::migrate::{count, importing, known, numbers, shell, stopped, write};
use crate::process::{FANFOLD, Place, failure, fanfold, stdout};

/// Lines of entries, each with a time of its own.
fn posts(lines: u64) -> String {
    let line = |n: u64| format!("{}\t{}\tx\n", n % 9, 1_714_564_800_000 + n);
    (1..=lines).map(line).collect()
}

/// What the state file says.
fn state(file: &str) -> Value {
    serde_json::from_slice(&std::fs::read(format!("{file}.import")).unwrap()).unwrap()
}

#[test]
fn an_import_that_runs_is_not_begun_again_and_its_lists_are_nobody_elses() {
    const LINES: u64 = 6_000;
    let place = Place::new();
    let node = place.start(&[]);
    let (file, other) = (write(&place, "posts.tsv", posts(LINES)), write(&place, "other.tsv", posts(9)));
    let ids = format!("{file}.ids");
    let mut child = importing(&node, &file, &ids, "2000");
    while known(&file).is_none_or(|(_, ids)| ids == 0) {
        assert!(child.try_wait().unwrap().is_none(), "it is done too soon");
    }
    let said = failure(&node.run(&["import", "entries", &file, "--ids-out", &ids]), 1);
    let names_it = said.contains(&child.id().to_string()) && said.contains(".import");
    assert!(names_it && said.contains("run the same command again"), "{said}");
    let said = failure(&node.run(&["import", "entries", &other, "--ids-out", &ids]), 1);
    assert!(said.contains("written by another import"), "{said}");
    assert!(child.wait().unwrap().success());
    assert!(numbers(&ids).into_iter().eq(1..=LINES), "each once, in order");
    assert_eq!(count(&node, "entries"), LINES);
    assert!(!Path::new(&format!("{file}.import.lock")).exists());
    // What is named is kept, by an import that begins as by its next attempt; one that is done minds nothing.
    for list in ["--ids-out", "--rejects", "--ids-out"] {
        let said = failure(&node.run(&["import", "entries", &other, list, &ids]), 2);
        assert!(said.contains("is there already") && said.contains(&ids), "{said}");
    }
    assert!(numbers(&ids).into_iter().eq(1..=LINES), "as it was");
    assert!(stdout(&node.run(&["import", "entries", &file, "--ids-out", &ids])).starts_with("0 new"));
    node.stop();
}

#[test]
fn ids_are_listed_from_the_beginning_of_an_import_to_its_end_or_not_at_all() {
    const LINES: u64 = 6_000;
    let place = Place::new();
    let node = place.start(&[]);
    let file = write(&place, "posts.tsv", posts(LINES));
    let ids = format!("{file}.ids");
    let written = stopped(&node, &file, &ids, false);
    let said = failure(&node.run(&["import", "entries", &file]), 2);
    assert!(said.contains("runs with --ids-out") && said.contains("from now on"), "{said}");
    assert_eq!(known(&file), Some(written));
    assert_eq!(node.json(&["import", "entries", &file, "--ids-out", &ids])["imported"], json!(LINES));
    assert!(numbers(&ids).into_iter().eq(1..=LINES), "each once, in order");
    // Of what is done nothing is left to be listed.
    assert!(stdout(&node.run(&["import", "entries", &file])).starts_with("0 new"));

    let file = write(&place, "without.tsv", posts(9));
    node.json(&["import", "entries", &file]);
    let said = failure(&node.run(&["import", "entries", &file, "--ids-out", &ids]), 2);
    assert!(said.contains("runs without --ids-out") && said.contains("imported already"), "{said}");
    assert!(numbers(&ids).into_iter().eq(1..=LINES), "the list of another import");
    node.stop();
}

#[test]
fn an_import_goes_on_at_another_rate_in_blocks_of_another_size() {
    // At the first rate a block has 25.
    const LINES: u64 = 4_000;
    let place = Place::new();
    let node = place.start(&[]);
    let file = write(&place, "posts.tsv", posts(LINES));
    let ids = format!("{file}.ids");
    let mut child = importing(&node, &file, &ids, "100");
    // Some was sent that the state file does not know of.
    let is_ahead = || count(&node, "entries") > state(&file)["counts"]["imported"].as_u64().unwrap();
    while !(known(&file).is_some_and(|(_, ids)| ids > 0) && is_ahead()) {
        assert!(child.try_wait().unwrap().is_none(), "it is done too soon");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(state(&file)["block_items"], json!(25));
    let imported = node.json(&["import", "entries", &file, "--ids-out", &ids]);
    assert_eq!((&imported["imported"], &imported["known"]), (&json!(LINES), &json!(0)));
    assert!(state(&file)["block_items"].as_u64().unwrap() > 25);
    assert!(numbers(&ids).into_iter().eq(1..=LINES), "each once, in order");
    assert_eq!(count(&node, "entries"), LINES);
    node.stop();
}

#[test]
fn what_stops_an_import_says_how_it_goes_on() {
    let place = Place::new();
    let node = place.start(&[]);
    // What comes through a pipe does not go on, and a list that cannot be written stops it.
    let line =
        "printf '1\\t2\\nbad\\n' | \"$0\" import follows --format tsv - --rejects /dev/full --address $1";
    let said = failure(&shell(line, &[&node.address]), 1);
    assert!(said.contains("/dev/full") && said.contains("cannot be gone on with"), "{said}");
    assert!(!said.contains("same command"), "{said}");
    // What is another import is named.
    let (file, state) = (write(&place, "posts.tsv", posts(3)), place.path("posts.tsv.import"));
    node.json(&["import", "entries", &file]);
    let other = write(&place, "other.tsv", "1\t2\n");
    for (arguments, differs) in [
        (&["follows", &*other][..], "of edges, and entries"),
        (&["entries", &file, "--space", "stories"], "to another graph or space"),
        (&["entries", &other], "of other files"),
        (&["entries", &file, "--format", "json"], "written in another way"),
    ] {
        let import = [&["import"], arguments, &["--state", state.to_str().unwrap()]].concat();
        let said = failure(&node.run(&import), 1);
        assert!(said.contains(differs) && said.contains("a second time"), "{arguments:?}: {said}");
    }
    node.stop();
}

#[test]
fn an_import_is_stopped_by_a_partition_that_was_restored_meanwhile() {
    const EDGES: u64 = 6_000;
    let place = Place::new();
    let node = place.start(&[]);
    let backup = place.path("backup");
    let backup = backup.to_str().unwrap();
    assert!(node.run(&["backup", "create", backup]).status.success());
    let edge = |edges: String, n: u64| format!("{edges}{n}\t{}\n", n + 1);
    let file = write(&place, "follows.tsv", (1..=EDGES).fold(String::new(), edge));
    let mut import = Command::new(FANFOLD);
    import.args(["import", "follows", &file, "--rate", "2000", "--address", &node.address]);
    let mut child = import.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let has_answered = || {
        let lanes = known(&file).map(|_| state(&file)["lanes"].clone());
        lanes.is_some_and(|lanes| lanes.as_array().unwrap().iter().all(|lane| !lane["incarnation"].is_null()))
    };
    while !has_answered() {
        assert!(child.try_wait().unwrap().is_none(), "it is done too soon");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    node.stop();
    let data = place.data_dir();
    let restore = ["backup", "restore", backup, "--data-dir", data.to_str().unwrap(), "--partition", "1"];
    assert!(fanfold(&restore).status.success());
    let node = place.start(&[]);
    let said = failure(&node.run(&["import", "follows", &file]), 1);
    assert!(said.contains("partition 1 was restored") && said.contains("begin it anew"), "{said}");
    assert_eq!(state(&file)["done"], json!(false));
    std::fs::remove_file(format!("{file}.import")).unwrap();
    let imported = node.json(&["import", "follows", &file]);
    let count = |what: &str| imported[what].as_u64().unwrap();
    assert!(count("imported") + count("known") == EDGES && count("known") > 0, "{imported}");
    assert_eq!(crate::migrate::count(&node, "edges"), EDGES);
    node.stop();
}
