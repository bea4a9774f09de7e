//! An export of version 1: what is exported of its directory today is the same, and it is imported as it was.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use fanfold_server::workload::node_process::{NodeProcess, NodeProcessOptions};

use crate::{PARTITIONS, fanfold, packed, testdata};

const NODE: &str = env!("CARGO_BIN_EXE_fanfold-tests-node");

/// The files of an export that hold lines, of one kind or of both.
fn files(dir: &Path, kind: &str) -> Vec<PathBuf> {
    let is_of_it = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with(kind) && path.extension().is_some_and(|extension| extension == "zst")
    };
    packed::files(dir).into_iter().filter(is_of_it).collect()
}

/// All lines of one kind, in an order of their own: entries stand in files as they lie in segments.
fn lines(dir: &Path, kind: &str) -> Vec<String> {
    let unpacked = |path: PathBuf| zstd::decode_all(&*std::fs::read(path).unwrap()).unwrap();
    let text: Vec<u8> = files(dir, kind).into_iter().flat_map(unpacked).collect();
    let mut lines: Vec<_> = String::from_utf8(text).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

fn exported(data_dir: &Path, out: &Path) {
    let output = fanfold(&["export", "all", "--out", out.to_str().unwrap()], data_dir);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn the_directory_of_version_1_is_exported_as_it_was() {
    let place = tempfile::tempdir().unwrap();
    let (data_dir, out) = (place.path().join("data"), place.path().join("out"));
    packed::unpack(&testdata().join("data"), &data_dir);
    exported(&data_dir, &out);
    let golden = testdata().join("export");
    for kind in ["entries.", "follows."] {
        let names = |dir| {
            files(dir, kind).iter().map(|path| path.file_name().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(&out), names(&golden));
        assert_eq!(names(&golden).len(), usize::from(PARTITIONS));
        assert_eq!(lines(&out, kind), lines(&golden, kind));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_of_version_1_is_imported_as_it_was() {
    let place = tempfile::tempdir().unwrap();
    let (golden, again) = (place.path().join("export"), place.path().join("again"));
    // The state of an import stands beside its first input.
    std::fs::create_dir(&golden).unwrap();
    for path in packed::files(&testdata().join("export")) {
        std::fs::copy(&path, golden.join(path.file_name().unwrap())).unwrap();
    }
    let options = NodeProcessOptions {
        program: PathBuf::from(NODE),
        arguments: Vec::new(),
        start_arguments: ["--partitions", &PARTITIONS.to_string()].map(Into::into).to_vec(),
        ready_timeout: Duration::from_secs(60),
    };
    let mut node = NodeProcess::start(options).await.unwrap();
    let imported = |kind: &str, code| {
        let mut command = Command::new(NODE);
        command.args(["import", kind, "--address", &node.address().to_string()]);
        let output = command.args(files(&golden, kind)).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{output:?}");
    };
    imported("entries", 3);
    imported("follows", 0);
    node.terminate().await.unwrap();
    exported(&node.data_dir(), &again);
    assert_eq!(lines(&again, "follows."), lines(&golden, "follows."));
    // What has expired by now is rejected, and nothing else.
    let (lasting, expired): (Vec<_>, Vec<_>) =
        lines(&golden, "entries.").into_iter().partition(|line| line.contains(r#""expires":"never""#));
    assert!(lasting.len() > 10 && expired.len() > 10);
    assert_eq!(lines(&again, "entries."), lasting);
    let first = files(&golden, "entries.").remove(0);
    let rejects = std::fs::read_to_string(first.with_added_extension("rejects")).unwrap();
    assert_eq!(rejects.lines().count(), expired.len());
    assert!(rejects.lines().all(|line| line.contains("expired")), "{rejects}");
}
