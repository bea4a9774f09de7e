//! The rules of the architecture that a reader could break without noticing.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

/// Folder, and the folders of ours it may import.
const MAY_IMPORT: [(&str, &[&str]); 5] = [
    ("protocol", &[]),
    ("storage", &[]),
    ("cluster", &["protocol", "storage"]),
    ("client", &["protocol"]),
    ("server", &["protocol", "storage", "cluster", "client"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for item in fs::read_dir(folder).unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
    found
}

fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.starts_with("//"))
}

#[test]
fn dependencies_run_one_way() {
    for (folder, allowed) in MAY_IMPORT {
        let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        let manifest: toml::Table = manifest.parse().unwrap();
        let dependencies = manifest["dependencies"].as_table().unwrap();
        let ours: Vec<&str> = dependencies.keys().filter_map(|name| name.strip_prefix("fanfold-")).collect();
        assert!(ours.iter().all(|name| allowed.contains(name)), "{folder} depends on {ours:?}");
        for (path, text) in sources(&root().join(folder).join("src")) {
            for (other, _) in MAY_IMPORT {
                let named = code(&text).any(|line| line.contains(&format!("fanfold_{other}::")));
                let own = other == folder;
                assert!(
                    !named || own || allowed.contains(&other),
                    "{} names fanfold_{other}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn openraft_is_named_only_by_the_raft_layer() {
    for (folder, _) in MAY_IMPORT {
        for (path, text) in sources(&root().join(folder).join("src")) {
            // Its name in a string, such as a log filter's, is no dependency.
            let named = code(&text).any(|line| line.contains("openraft::") || line.contains("use openraft"));
            assert!(!named || path.starts_with(root().join("cluster/src/raft")), "{}", path.display());
        }
    }
}

#[test]
fn storage_knows_no_clock_no_chance_and_no_runtime() {
    let is_test = |path: &Path| path.components().any(|part| part.as_os_str() == "tests");
    for (path, text) in sources(&root().join("storage/src"))
        .into_iter()
        .filter(|(path, _)| !is_test(path.strip_prefix(root()).expect("sources are below the root")))
    {
        for word in ["tokio", "SystemTime", "Instant::now", "rand::", "RandomState", "async fn"] {
            assert!(!code(&text).any(|line| line.contains(word)), "{} names {word}", path.display());
        }
    }
}

#[test]
fn a_file_has_one_room() {
    for (folder, _) in MAY_IMPORT {
        for (path, text) in sources(&root().join(folder).join("src")) {
            let body = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
            let lines = body.lines().count();
            assert!(lines <= 600, "{} has {lines} lines", path.display());
        }
    }
}
