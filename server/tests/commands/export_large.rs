//! Exporting much of everything, and importing it again.

use crate::export::{assert_same, export, import_all, lines};
use crate::process::Place;

/// A line for an import of entries, with all that an entry can have, in the course of many lines.
fn many_fields(n: u64, reference: Option<&str>) -> String {
    const TIME: u64 = 1_714_564_800_000;
    let mut line =
        serde_json::json!({ "owner": 1 + n % 97, "time": TIME + n / 3 * 1_000, "version": 1 + n % 4 });
    line["space"] = if n.is_multiple_of(7) { "stories" } else { "posts" }.into();
    line["audience"] = ["public", "followers", "private"][n as usize % 3].into();
    // What lives for ever in both spaces, what lives as long as others do, and what lives for a time of its own.
    line["expires"] = match n % 5 {
        0 | 3 => "never".into(),
        1 | 4 => 4_000_000_000_000_u64.into(),
        _ => (3_900_000_000_000 + n * 1_001).into(),
    };
    if n % 5 == 1 {
        line["author"] = (1_000 + n % 13).into();
    }
    if n % 4 == 2 {
        line["key"] = format!("key {n}").into();
    } else if n % 4 == 3 {
        // 0xff, 0xfe, 0xfd and digits are no text.
        line["key_base64"] = format!("//79{:04}", n % 10_000).into();
    }
    if n % 11 == 5 {
        line["payload_base64"] = format!("//79{:04}", n % 10_000).into();
    } else {
        line["payload"] = format!("entry {n} \t\"\\ \u{1f600}\n{}", "x".repeat(n as usize % 300)).into();
    }
    if let Some((owner, id)) = reference.and_then(|reference| reference.split_once(':')) {
        line["reference"] = serde_json::json!({ "owner": owner, "id": id });
    }
    format!("{line}\n")
}

#[test]
fn a_large_export_imported_again_is_the_same() {
    const ENTRIES: u64 = 4_000;
    const EDGES: u64 = 30_000;
    let place = Place::new();
    let node = place.start(&[]);
    let write = |name: &str, text: String| {
        std::fs::write(place.path(name), text).unwrap();
        place.path(name).to_str().unwrap().to_owned()
    };
    // The later entries refer to the earlier ones.
    let first = write("first.jsonl", (0..ENTRIES / 2).map(|n| many_fields(n, None)).collect());
    let ids = place.path("ids.tsv");
    node.json(&["import", "entries", &first, "--ids-out", ids.to_str().unwrap()]);
    let ids = std::fs::read_to_string(ids).unwrap();
    let ids = ids.lines().map(|line| line.rsplit('\t').next().unwrap());
    let later = (ENTRIES / 2..ENTRIES).zip(ids).map(|(n, id)| {
        let reference = format!("{}:{id}", 1 + (n - ENTRIES / 2) % 97);
        many_fields(n, n.is_multiple_of(2).then_some(&reference))
    });
    let later = write("later.jsonl", later.collect());
    node.json(&["import", "entries", &later]);
    let edge = |n: u64| match (n % 3_000, 1 + n / 3_000 * 7) {
        (reader, owner) if n.is_multiple_of(2) => format!("{}\t{owner}\n", 100 + reader),
        (reader, owner) => format!("{}\t{owner}\t{}\n", 100 + reader, 1_600_000_000_000 + n * 1_003),
    };
    let edges = write("edges.tsv", (0..EDGES).map(edge).collect());
    node.json(&["import", "follows", &edges]);
    node.stop();

    let files = export(&place.data_dir(), &place.path("export"));
    let (exported, follows) = (lines(&files, "entries."), lines(&files, "follows."));
    assert_eq!((exported.len() as u64, follows.len() as u64), (ENTRIES, EDGES));
    let count = |text: &str| exported.iter().filter(|line| line.contains(text)).count() as u64;
    for (text, least) in [
        (r#""space":"stories""#, ENTRIES / 8),
        (r#""author":"#, ENTRIES / 6),
        (r#""audience":"followers""#, ENTRIES / 4),
        (r#""audience":"private""#, ENTRIES / 4),
        (r#""expires":"never""#, ENTRIES / 8),
        (r#""expires":"4000000000000""#, ENTRIES / 8),
        (r#""version":4"#, ENTRIES / 5),
        (r#""key":"#, ENTRIES / 5),
        (r#""key_base64":"#, ENTRIES / 5),
        (r#""payload_base64":"#, ENTRIES / 12),
        (r#""reference":"#, ENTRIES / 4),
    ] {
        assert!(count(text) >= least, "{text} in {}, such as {}", count(text), exported[0]);
    }
    assert_eq!(follows.iter().filter(|line| line.contains("\t16")).count() as u64, EDGES / 2);

    let other = Place::new();
    let node = other.start(&[]);
    import_all(&node, &files);
    node.stop();
    assert_same(&files, &export(&other.data_dir(), &other.path("export")));
}
