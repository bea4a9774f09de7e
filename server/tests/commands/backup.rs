//! The commands that check, back up and restore what is on disk.

use std::process::Stdio;

use serde_json::Value;

use crate::process::{FANFOLD, Place, failure, fanfold, json, stdout};

#[test]
fn a_node_is_checked_backed_up_and_restored_by_hand() {
    let place = Place::new();
    let node = place.start(&[]);
    for arguments in [&["follow", "2", "1"][..], &["post", "1", "hello"], &["post", "1", "again"]] {
        assert!(node.run(arguments).status.success());
    }
    let verified = node.run(&["verify", "--rate", "100MiB", "--output", "json"]);
    assert!(verified.status.success(), "{verified:?}");
    assert_eq!(json(&verified)["found"], 0);
    let (backup, data) = (place.path("backup"), place.data_dir());
    let (backup, data) = (backup.to_str().unwrap(), data.to_str().unwrap());
    let created = node.run(&["backup", "create", backup, "--output", "json"]);
    assert!(created.status.success(), "{created:?}");
    assert!(failure(&node.run(&["backup", "create", backup]), 1).contains("not empty"));
    assert!(failure(&fanfold(&["verify", "--data-dir", data]), 1).contains("in use"));
    node.stop();

    let listed = json(&fanfold(&["backup", "list", place.path("").to_str().unwrap(), "--output", "json"]));
    let complete: Vec<_> = listed.as_array().unwrap().iter().map(|item| &item["is_complete"]).collect();
    assert!(complete.contains(&&Value::Bool(true)), "{listed}");
    // A place that is not there hides none of the others, and is told.
    let listed = fanfold(&["backup", "list", place.path("none").to_str().unwrap(), backup]);
    let shown = String::from_utf8_lossy(&listed.stdout);
    assert!(shown.contains("UNUSABLE") && shown.contains("complete"), "{listed:?}");
    let target = place.path("restored");
    let target = target.to_str().unwrap();
    let restored = fanfold(&["backup", "restore", backup, "--data-dir", target]);
    assert!(restored.status.success(), "{restored:?}");
    let shown = json(&fanfold(&["inspect", "data-dir", "--data-dir", target, "--output", "json"]));
    assert_eq!(shown["restored"], "the next start changes incarnations");
    assert_eq!(shown["groups"].as_array().unwrap().len(), 5);
    let one = fanfold(&["backup", "restore", backup, "--data-dir", data, "--partition", "1"]);
    assert!(one.status.success(), "{one:?}");
    let beyond = fanfold(&["backup", "restore", backup, "--data-dir", data, "--partition", "4"]);
    assert_eq!(beyond.status.code(), Some(1));
}

#[test]
fn snapshots_and_segments_are_shown_and_damage_is_named() {
    let place = Place::new();
    let node = place.start(&[]);
    for n in 0..5 {
        assert!(node.run(&["post", "1", &format!("post {n}"), "--ttl", "1h"]).status.success());
    }
    assert!(node.run(&["backup", "create", place.path("backup").to_str().unwrap()]).status.success());
    node.stop();
    let data = place.data_dir();
    let data = data.to_str().unwrap();
    let snapshots = fanfold(&["inspect", "snapshot", "--data-dir", data, "--output", "json"]);
    let snapshots = json(&snapshots);
    let with_entries =
        snapshots.as_array().unwrap().iter().find(|s| !s["segments"].as_array().unwrap().is_empty());
    let with_entries = with_entries.expect("the home of user 1 has a segment");
    assert_eq!(with_entries["segments"][0]["entries"], 5);
    assert!(with_entries["sections"].as_array().unwrap().iter().any(|s| s["section"] == "timelines"));
    let partition = (with_entries["group"].as_u64().unwrap() - 1).to_string();
    let shown = fanfold(&["inspect", "segment", "--data-dir", data, "--partition", &partition, "--entries"]);
    let text = String::from_utf8(shown.stdout.clone()).unwrap();
    assert!(shown.status.success() && text.matches("payload_bytes=6").count() == 5, "{text}");
    assert!(text.contains("5 entries, from "), "{text}");
    let missing =
        fanfold(&["inspect", "snapshot", "--data-dir", data, "--partition", &partition, "--number", "ff"]);
    assert_eq!(missing.status.code(), Some(1));

    let file = with_entries["segments"][0]["file"].as_str().unwrap();
    let manifest = std::path::PathBuf::from(with_entries["file"].as_str().unwrap());
    let file = manifest.with_file_name(file);
    let mut content = std::fs::read(&file).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 4;
    std::fs::write(&file, content).unwrap();
    let verified = fanfold(&["verify", "--data-dir", data]);
    assert_eq!(verified.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&verified.stdout).contains(file.to_str().unwrap()), "{verified:?}");
    let shown = fanfold(&["inspect", "segment", file.to_str().unwrap(), "--entries"]);
    assert_eq!(shown.status.code(), Some(1), "{shown:?}");
    // The backup has the same file under another name, so that it is damaged with it.
    let target = place.path("restored");
    let backup = place.path("backup");
    let refused =
        fanfold(&["backup", "restore", backup.to_str().unwrap(), "--data-dir", target.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(!target.exists());
}

#[test]
fn a_job_whose_command_was_killed_is_named_listed_and_cancelled() {
    let place = Place::new();
    let node = place.start(&[]);
    assert!(node.run(&["post", "1", "hello"]).status.success());
    assert_eq!(node.json(&["job", "list"]), serde_json::json!([]));
    let mut left = std::process::Command::new(FANFOLD)
        .args(["verify", "--rate", "1", "--address", &node.address])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let job = loop {
        if let [job] = node.json(&["job", "list"]).as_array().unwrap().as_slice() {
            break job.clone();
        }
    };
    left.kill().unwrap();
    left.wait().unwrap();
    assert_eq!((&job["what"], &job["state"]), (&Value::from("verify"), &Value::from("running")), "{job}");
    let refused = failure(&node.run(&["verify"]), 1);
    assert!(refused.contains("fanfold job cancel 1"), "{refused}");
    assert!(failure(&node.run(&["job", "cancel", "7"]), 1).contains("no job 7"));
    let nobody = failure(&node.run(&["job", "cancel", "1", "--node", "9"]), 1);
    assert!(
        nobody.contains("there is no node 9") && node.json(&["job", "list"])[0]["state"] == "running",
        "{nobody}"
    );
    assert!(node.run(&["job", "cancel", "1"]).status.success());
    while node.json(&["job", "list"])[0]["state"] != "cancelled" {}
    let again = failure(&node.run(&["job", "cancel", "1"]), 1);
    assert!(again.contains("job 1 has ended already (cancelled)"), "{again}");
    assert_eq!(node.json(&["verify"])["found"], 0);
    node.stop();
}

#[test]
fn a_damaged_partition_is_shown_left_out_and_salvaged_by_hand() {
    let place = Place::new();
    let node = place.start(&[]);
    for user in ["1", "2", "3", "4", "5", "6", "7", "8"] {
        assert!(node.run(&["post", user, "hello"]).status.success());
    }
    node.stop();
    let note = place.data_dir().join("groups/0002/replica");
    let mut content = std::fs::read(&note).unwrap();
    content[20] ^= 1;
    std::fs::write(&note, content).unwrap();
    let data = place.data_dir();
    let data = data.to_str().unwrap();
    assert!(stdout(&fanfold(&["verify", "--data-dir", data])).contains(note.to_str().unwrap()));

    let node = place.start(&[]);
    assert_eq!(node.json(&["status"])[0]["damaged"], serde_json::json!([1]));
    let kept = &node.json(&["status"])[0]["kept_by_damaged"][0];
    assert_eq!(kept["partition"], 1);
    let kept = kept["bytes"].as_u64().filter(|bytes| *bytes > 0).unwrap();
    assert!(stdout(&node.run(&["status"])).contains("kept by DAMAGED partition 1,"));
    let (head, ready) = node.get("/readyz");
    assert!(head.contains("503") && ready.contains("partition 1 keeps "), "{head}\n{ready}");
    // Every write of the others adds to it.
    assert!(["1", "2", "3", "4"].iter().any(|user| node.run(&["post", user, "more"]).status.success()));
    let metrics = node.get("/metrics").1;
    let mut lines = metrics.lines();
    let bytes =
        lines.find_map(|line| line.strip_prefix(r#"fanfold_log_kept_by_damaged_bytes{partition="1"} "#));
    assert!(bytes.unwrap().parse::<u64>().unwrap() > kept, "{bytes:?} after {kept}");
    let dir = place.path("backup");
    let dir = dir.to_str().unwrap();
    let refused = failure(&node.run(&["backup", "create", dir]), 1);
    assert!(refused.contains("partition 1") && refused.contains("--leave-out-damaged"), "{refused}");
    assert!(!place.path("backup").exists());
    let made = node.run(&["backup", "create", dir, "--leave-out-damaged"]);
    assert_eq!(made.status.code(), Some(1));
    assert!(stdout(&made).contains("LEFT OUT: partition 1"), "{made:?}");
    assert!(
        failure(&node.run(&["backup", "create", &format!("{data}/backup")]), 1).contains("data directory")
    );
    node.stop();
    // Alone it is as its list says. As the image of a cluster, what it lacks is in none.
    assert!(fanfold(&["verify", "--data-dir", dir]).status.success());
    let set = place.path("set");
    std::fs::create_dir(&set).unwrap();
    std::os::unix::fs::symlink(dir, set.join("node-1")).unwrap();
    let lacking = fanfold(&["verify", "--data-dir", set.to_str().unwrap()]);
    assert_eq!(lacking.status.code(), Some(1));
    assert!(stdout(&lacking).contains("partitions [1] are in none of the images"), "{lacking:?}");

    let out = place.path("export");
    let export = ["export", "all", "--out", out.to_str().unwrap()];
    // The last good copy of what is left out stays, also where it would be empty.
    let earlier = out.join("entries.0001.jsonl.zst");
    std::fs::create_dir(&out).unwrap();
    std::fs::write(&earlier, "an earlier export").unwrap();
    let names = || {
        let items = std::fs::read_dir(&out).unwrap();
        let mut names: Vec<_> = items.map(|item| item.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let whole_only = fanfold(&[&export[..], &["--data-dir", data]].concat());
    assert_eq!(whole_only.status.code(), Some(1));
    assert_eq!(names(), ["entries.0001.jsonl.zst"]);
    for from in [["--data-dir", data], ["--backup", dir]] {
        let exported = fanfold(&[&export[..], &from[..], &["--leave-out-damaged"]].concat());
        assert_eq!(exported.status.code(), Some(1));
        assert!(stdout(&exported).contains("LEFT OUT: partition 1"), "{exported:?}");
        assert_eq!(std::fs::read_to_string(&earlier).unwrap(), "an earlier export", "{from:?}");
        let mut written = [0, 1, 2, 3].map(|n| format!("entries.{n:04}.jsonl.zst")).to_vec();
        written.push("fanfold-export.json".to_owned());
        assert_eq!(names(), written);
    }

    let salvage = ["partition", "salvage", "1", "--data-dir", data];
    assert_eq!(fanfold(&salvage).status.code(), Some(2), "neither a look nor accepted");
    for how in ["--dry-run", "--accept-loss"] {
        let said = fanfold(&[&salvage[..], &[how]].concat());
        assert!(said.status.success() && stdout(&said).contains("nothing is lost"), "{said:?}");
    }
    let node = place.start(&[]);
    assert_eq!(node.json(&["status"])[0]["damaged"], serde_json::json!([]));
    for user in ["1", "2", "3", "4", "5", "6", "7", "8"] {
        assert!(stdout(&node.run(&["timeline", user])).contains("hello"));
    }
    node.stop();
}
