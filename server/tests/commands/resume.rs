//! What operators do to an import that was begun: start it twice, and go on with it under other arguments.

use serde_json::{Value, json};

use crate::migrate::{count, importing, known, numbers, write};
use crate::process::Place;

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
