//! The feature level by hand: a cluster of an older version is run by a newer program, and is raised once.

use fanfold_cluster::{Node, NodeOptions};

use crate::process::{Place, failure, fanfold, json, stdout};

/// A data directory of a cluster of one node that uses the first level.
fn founded_by_an_older_version() -> Place {
    let place = Place::new();
    let mut options = NodeOptions::new(place.data_dir());
    options.partitions = Some(4);
    options.log.segment_bytes = 8 << 20;
    options.feature_level = 1;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async { Node::open(options).await.unwrap().close().await.unwrap() });
    place
}

#[test]
fn operator_raises_the_feature_level_once_and_not_above_what_programs_have() {
    let place = founded_by_an_older_version();
    let node = place.start(&[]);
    let upgrade = |arguments: &[&str]| node.run(&[&["cluster", "upgrade"], arguments].concat());
    let epoch = || node.json(&["cluster", "status"])["epoch"].clone();
    let level = json(&upgrade(&["--dry-run", "--output", "json"]))["steps"][0]["to"].as_u64().unwrap();
    assert!(level > 1, "this program has more than the first level");

    let before = epoch();
    let dry = stdout(&upgrade(&["--dry-run"]));
    assert!(dry.contains(&format!("feature level: {level} (was 1)")), "{dry}");
    let above = (level + 1).to_string();
    let refused = failure(&upgrade(&["--to", &above]), 1);
    assert!(refused.contains(&format!("feature level {above}")) && refused.contains("node 1"), "{refused}");
    failure(&upgrade(&["--to", "0"]), 2);
    assert_eq!(epoch(), before, "nothing was raised");

    let raised = upgrade(&[]);
    assert_eq!(raised.status.code(), Some(0), "{raised:?}");
    let said = stdout(&raised);
    assert!(said.contains(&format!("feature level: {level} (was 1), and programs that have less")), "{said}");
    let again = stdout(&upgrade(&[]));
    assert!(again.contains(&format!("feature level: {level}, as it was")), "{again}");
    let falls = failure(&upgrade(&["--to", "1"]), 1);
    assert!(falls.contains("never falls"), "{falls}");
    node.stop();

    // It is kept.
    let node = place.start(&[]);
    assert_eq!(node.json(&["cluster", "status"])["feature_level"].as_u64(), Some(level));
    let kept = node.json(&["cluster", "upgrade", "--dry-run"]);
    assert_eq!(
        (kept["steps"][0]["from"].as_u64(), kept["steps"][0]["to"].as_u64()),
        (Some(level), Some(level))
    );
    node.stop();
    let nobody = fanfold(&["cluster", "upgrade", "--address", "127.0.0.1:1", "--deadline", "1s"]);
    failure(&nobody, 1);
}
