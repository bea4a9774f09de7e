//! The replay runs with tiny inputs, against a real process that is killed under it, and finds no mismatch.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// 60 users; each follows some, and the first few are followed by many.
fn follows() -> String {
    let mut text = String::new();
    for reader in 0..60u64 {
        for step in 1..=12u64 {
            let owner = (reader * 7 + step * step * 11) % 60;
            writeln!(text, "{reader}\t{}", if step < 5 { owner % 6 } else { owner }).unwrap();
        }
    }
    text
}

/// 900 actions of 60 users, a repeatable jumble of all kinds.
fn actions() -> String {
    let mut text = String::new();
    for n in 0..900u64 {
        let kind = ["RT", "MT", "RE"][(n % 7 % 3) as usize];
        let (actor, target) = (n * n * 31 % 60, n * 17 % 59);
        writeln!(text, "{}\t{kind}\t{actor}\t{target}", 1_341_100_972 + n).unwrap();
    }
    text
}

fn replay(arguments: &[&str]) -> (Output, Value) {
    let output = Command::new(env!("CARGO_BIN_EXE_fanfold-bench"))
        .arg("replay")
        .args(arguments)
        .args(["--check", "--partitions", "4", "--reads", "50", "--output", "json"])
        .output()
        .unwrap();
    let json = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr))
    });
    (output, json)
}

fn assert_clean(output: &Output, report: &Value) {
    let said = String::from_utf8_lossy(&output.stderr);
    for field in ["feeds_mismatched", "timelines_mismatched", "counts_mismatched", "answers_mismatched"] {
        assert_eq!(report[field], 0, "{field}\n{said}");
    }
    assert_eq!(report["feeds_checked"], report["users"]);
    assert_eq!(report["timelines_checked"], report["users"]);
    assert!(report["deliveries"].as_u64().unwrap() > 0);
    assert!(output.status.success(), "{}", output.status);
}

fn write(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    let compressed = zstd::encode_all(text.as_bytes(), 1).unwrap();
    std::fs::write(&path, compressed).unwrap();
    path.into_os_string().into_string().unwrap()
}

#[test]
fn drawn_activity_under_kills_equals_the_oracle() {
    let dir = tempfile::tempdir().unwrap();
    let file = write(dir.path(), "follows.tsv.zst", &follows());
    let (output, report) = replay(&[
        "--follows",
        &file,
        "--posts",
        "1500",
        "--kill-every",
        "0.2",
        "--pull-threshold",
        "8",
        "--feed-cap",
        "20",
        "--window",
        "64",
    ]);
    assert_clean(&output, &report);
    assert_eq!(report["posts"], 1_500);
    assert!(report["restarts"].as_u64().unwrap() >= 1);
}

#[test]
fn recorded_activity_under_kills_equals_the_oracle() {
    let dir = tempfile::tempdir().unwrap();
    let file = write(dir.path(), "activity.tsv.zst", &actions());
    let often = ["--node-flag", "table-bytes=65536", "--node-flag", "snapshot-log-bytes=65536"];
    let arguments = ["--activity", &file, "--infer-follows", "--kill-every", "0.2", "--window", "32"];
    let (output, report) = replay(&[&arguments[..], &often[..]].concat());
    assert_clean(&output, &report);
    assert_eq!(report["posts"], 900);
    assert!(report["restarts"].as_u64().unwrap() >= 1);
}

#[test]
fn recorded_activity_without_kills_equals_the_oracle() {
    let dir = tempfile::tempdir().unwrap();
    let file = write(dir.path(), "activity.tsv.zst", &actions());
    let (output, report) = replay(&["--activity", &file, "--infer-follows"]);
    assert_clean(&output, &report);
    assert_eq!(report["restarts"], 0);
}

#[test]
fn a_replay_without_input_is_misuse() {
    let status = Command::new(env!("CARGO_BIN_EXE_fanfold-bench")).arg("replay").output().unwrap().status;
    assert_eq!(status.code(), Some(2));
}
