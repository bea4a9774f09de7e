//! Every file that a node, a backup, an export and an import leave on disk is named in `storage/FORMAT.md`, and every field of those
//! that are JSON.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::migrate::write;
use crate::process::{Place, fanfold};

/// The tables of files of a section: by each name in a first column, all names in that line.
struct Section(Vec<(BTreeSet<String>, BTreeSet<String>)>);

impl Section {
    fn of(title: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../storage/FORMAT.md");
        let text = std::fs::read_to_string(path).unwrap().replace("HHHHHHHHHHHHHHHH", "NNNNNNNNNNNNNNNN");
        let section = text.split("\n## ").find(|section| section.starts_with(title)).unwrap();
        let is_code = |text: &str| text.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        let rows = section.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" | "));
        Self(rows.map(|(name, all)| (is_code(name), is_code(all))).collect())
    }

    /// Whether a path is named: a file, or a directory (with `/` at its end), or a file in one that is named in its line.
    fn names(&self, path: &str) -> bool {
        let has = |name: &str| self.0.iter().any(|(names, _)| names.contains(name));
        let in_dir = |dir: &str, file: &str| {
            self.0.iter().any(|(names, all)| names.contains(dir) && all.contains(file))
        };
        let is_in_dir = path.rfind('/').is_some_and(|at| in_dir(&path[..=at], &path[at + 1..]));
        // What is in a database of sled is that's own.
        has(path) || is_in_dir || path.starts_with("identity/")
    }
}

/// All files below a directory, with numbers as the text has them.
fn files(dir: &Path, prefix: &str) -> BTreeSet<String> {
    let is_hex = |part: &str| part.len() == 16 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_four = |part: &str| part.len() == 4 && part.bytes().all(|byte| byte.is_ascii_digit());
    let general = |part: &str| match part {
        hex if is_hex(hex) => "N".repeat(16),
        four if is_four(four) => "NNNN".to_owned(),
        other => other.to_owned(),
    };
    let mut all = BTreeSet::new();
    for item in std::fs::read_dir(dir).unwrap() {
        let path = item.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let name = format!("{prefix}{}", name.split('.').map(general).collect::<Vec<_>>().join("."));
        if path.is_dir() {
            all.append(&mut files(&path, &format!("{name}/")));
        } else {
            all.insert(name);
        }
    }
    all
}

fn assert_named(title: &str, found: &BTreeSet<String>, expected: &[&str]) {
    let section = Section::of(title);
    let unnamed: Vec<_> = found.iter().filter(|path| !section.names(path)).collect();
    assert!(unnamed.is_empty(), "{title} does not name {unnamed:?}");
    for path in expected {
        assert!(found.contains(*path), "there is no {path} among {found:?}");
    }
}

/// Holds the fields of a file of JSON, sealed or not, against those that a section names.
fn assert_fields(title: &str, file: &Path) {
    let text = std::fs::read_to_string(file).unwrap();
    let value = serde_json::Deserializer::from_str(&text).into_iter::<Value>().next().unwrap().unwrap();
    let section = Section::of(title);
    let fields = value.as_object().unwrap().keys();
    let unnamed: Vec<_> = fields.filter(|field| !section.names(field)).collect();
    assert!(unnamed.is_empty(), "{title} does not name {unnamed:?} of {}", file.display());
}

#[test]
fn the_format_names_every_file_on_disk() {
    let place = Place::new();
    let (data, backup, export) = (place.data_dir(), place.path("backup"), place.path("export"));
    let (data_dir, backup_dir) = (data.to_str().unwrap(), backup.to_str().unwrap());
    let node = place.start(&["--snapshot-log-bytes", "1048576"]);
    node.json(&["follow", "1", "2", "3"]);
    let inputs = place.path("inputs");
    std::fs::create_dir(&inputs).unwrap();
    let file = write(&place, "inputs/FILE", "1\t1714564800000\tx\nbad\n");
    let ids = format!("{file}.ids");
    let import = ["import", "entries", &*file, "--format", "tsv", "--ids-out", &*ids];
    assert_eq!(node.run(&import).status.code(), Some(3));
    assert!(node.run(&["backup", "create", backup_dir]).status.success());
    let mut found = files(&data, "");
    node.stop();
    found.append(&mut files(&data, ""));
    let restored = place.path("restored");
    let restore = ["backup", "restore", backup_dir, "--data-dir", restored.to_str().unwrap()];
    assert!(fanfold(&restore).status.success());
    found.append(&mut files(&restored, ""));
    let exported = fanfold(&["export", "all", "--data-dir", data_dir, "--out", export.to_str().unwrap()]);
    assert!(exported.status.success(), "{exported:?}");
    // An identity that cannot be read is set aside.
    std::fs::remove_dir_all(data.join("identity")).unwrap();
    std::fs::write(data.join("identity"), "no database").unwrap();
    place.start(&[]).stop();
    found.extend(
        files(&data, "").into_iter().map(|path| path.replace("identity.damaged", "identity.damaged/")),
    );
    assert_named(
        "The data directory",
        &found,
        &[
            "LOCK",
            "RESERVE",
            "restore.json",
            "identity.damaged/",
            "log/NNNNNNNNNNNNNNNN.log",
            "log/node",
            "groups/NNNN/replica",
            "groups/NNNN/NNNNNNNNNNNNNNNN.manifest",
            "groups/NNNN/NNNNNNNNNNNNNNNN.buckets",
            "groups/NNNN/NNNNNNNNNNNNNNNN.segment",
        ],
    );
    assert_named("Backups", &files(&backup, ""), &["backup.json", "log/NNNNNNNNNNNNNNNN.log"]);
    let found = files(&export, "").into_iter().map(|path| path.replace("follows.follows.", "follows.GRAPH."));
    let expected = ["entries.NNNN.jsonl.zst", "follows.GRAPH.NNNN.tsv.zst", "fanfold-export.json"];
    assert_named("Exports", &found.collect(), &expected);
    let mut found = files(&inputs, "");
    assert!(found.remove("FILE") && found.remove("FILE.ids"));
    assert_named("Imports", &found, &["FILE.import", "FILE.rejects"]);
    for (title, file) in [
        ("Backups", backup.join("backup.json")),
        ("Backups", restored.join("restore.json")),
        ("Exports", export.join("fanfold-export.json")),
        ("Imports", inputs.join("FILE.import")),
    ] {
        assert_fields(title, &file);
    }
}
