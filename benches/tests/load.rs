//! The measuring commands with small parameters, as they are called: every kind of figure, compared with the oracle.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A graph and feeds that take a moment.
const SMALL: [&str; 14] = [
    "--users",
    "300",
    "--mean-followers",
    "12",
    "--feed-cap",
    "40",
    "--duration",
    "0.3",
    "--warm-up",
    "0.1",
    "--connections",
    "3",
    "--sample-readers",
    "100",
];

fn call(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fanfold-bench"));
    command.args(arguments).args(SMALL).args(["--output", "json"]).output().unwrap()
}

/// The report of a command that has to succeed.
fn report(arguments: &[&str]) -> Value {
    let output = call(arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    for run in runs(&report) {
        assert_eq!(run["mismatched_readers"], 0, "{run}");
    }
    report
}

fn runs(report: &Value) -> &[Value] {
    report["runs"].as_array().unwrap()
}

fn number(run: &Value, name: &str) -> f64 {
    run[name].as_f64().unwrap_or_else(|| panic!("{name} in {run}"))
}

fn has_redis() -> bool {
    let has = Command::new("redis-server").arg("--version").output().is_ok();
    if !has {
        eprintln!("skipped: redis-server is not on the PATH");
    }
    has
}

#[test]
fn a_fan_out_reports_every_figure_of_every_round_and_draws_them() {
    let dir = tempfile::tempdir().unwrap();
    let plot = dir.path().join("plot.svg");
    let report = report(&[
        "fanout",
        "--rounds",
        "2",
        "--in-flight",
        "2,8",
        "--partitions",
        "1,4",
        "--plot",
        plot.to_str().unwrap(),
    ]);
    assert_eq!(runs(&report).len(), 8);
    assert!(report["ratio_to_best_redis"].is_null());
    let machine = &report["machine"];
    assert!(machine["cores"].as_u64() > Some(0), "{machine}");
    assert!(machine["file_system"].is_string(), "{machine}");
    // Other processors have no name in /proc.
    assert!(machine["cpu"].is_string() || !cfg!(target_arch = "x86_64"), "{machine}");
    assert_eq!(machine["redis_server"].is_string(), has_redis(), "{machine}");
    for run in runs(&report) {
        assert_eq!((&run["target"], &run["persistence"]), (&"fanfold".into(), &"always".into()));
        assert_eq!((&run["users"], &run["connections"]), (&300.into(), &3.into()));
        assert!(number(run, "sampled_readers") > 50.0);
        for name in [
            "posts_per_second",
            "deliveries_per_second",
            "mean_followers",
            "partitions",
            "in_flight",
            "log_bytes_per_delivery",
        ] {
            assert!(number(run, name) > 0.0, "{name} in {run}");
        }
        for name in ["p50", "p99", "max"] {
            assert!(number(&run["last_delivery_ms"], name) > 0.0, "{name} in {run}");
            assert!(number(&run["post_ms"], name) > 0.0, "{name} in {run}");
        }
        for name in ["server_cpu_seconds", "client_cpu_seconds", "bytes_per_entry", "bytes_per_edge"] {
            assert!(number(run, name) >= 0.0, "{name} in {run}");
        }
        // What is on no disk is written by none.
        assert!(run["disk_written_bytes"].is_u64() || machine["file_system"] != "ext4", "{run}");
        // Everybody posts equally often, so that a post has as many followers as an owner on average.
        let per_post = number(run, "deliveries") / number(run, "posts");
        assert!((9.0..15.0).contains(&per_post), "{per_post} in {run}");
    }
    assert!(std::fs::read_to_string(&plot).unwrap().contains("partitions of the node"));
}

#[test]
fn posts_at_a_rate_come_at_that_rate() {
    let report = report(&["fanout", "--rate", "200", "--graph", "uniform"]);
    let [run] = runs(&report) else { panic!("{report}") };
    // 200 a second for 0.3 seconds, the first at once.
    assert_eq!(run["posts"], 60);
    assert!(number(&run["post_to_last_delivery_ms"], "p99") >= number(&run["last_delivery_ms"], "p50"));
}

#[test]
fn reads_beside_posts_are_reported_by_windows() {
    let report = report(&["fanout", "--reads", "200", "--window", "0.1", "--rate", "200", "--hydrate"]);
    let [run] = runs(&report) else { panic!("{report}") };
    // For 0.3 seconds, the first at once.
    assert_eq!(run["posts"], 60);
    let windows = run["windows"].as_array().unwrap();
    assert!((3..6).contains(&windows.len()), "{run}");
    let sum = |name: &str| -> f64 {
        windows.iter().map(|window| number(window, name) * number(window, "seconds")).sum()
    };
    assert!(sum("reads_per_second") > 30.0 && sum("posts_per_second") > 30.0, "{run}");
    assert!(sum("deliveries_per_second") > 30.0, "{run}");
    for window in windows {
        assert!(number(window, "stalls") >= 0.0 && number(window, "resident_bytes") > 0.0, "{window}");
    }
    assert!(number(&run["read_ms"], "p99") > 0.0, "{run}");
}

#[test]
fn reads_are_reported_for_each_kind_and_depth() {
    let report = report(&["read", "--depth", "1,4"]);
    assert_eq!(runs(&report).len(), 8);
    for run in runs(&report) {
        assert_eq!(run["kind"], "read");
        assert!(run["bytes_per_entry"].is_null(), "payloads would count on one side alone: {run}");
        assert!(number(run, "reads_per_second") > 0.0, "{run}");
        for name in ["p50", "p99", "p999"] {
            assert!(number(&run["read_ms"], name) > 0.0, "{name} in {run}");
        }
    }
}

#[test]
fn mixed_requests_keep_the_ratio_of_reads_to_posts() {
    let report = report(&["mixed", "--rate", "500", "--reads-per-post", "9", "--hydrate"]);
    let [run] = runs(&report) else { panic!("{report}") };
    assert_eq!(run["posts"], 15);
    assert!(number(&run["read_ms"], "p50") > 0.0);
}

#[test]
fn a_whale_reaches_everybody() {
    let report = report(&["whale", "--rate", "200", "--whale-pause", "0.1"]);
    let [without, with] = runs(&report) else { panic!("{report}") };
    assert_eq!((&without["with_whale"], &with["with_whale"]), (&false.into(), &true.into()));
    assert_eq!(with["whale_followers"], 300);
    assert!(number(&with["whale_last_delivery_ms"], "max") > 0.0);
    // Two or three posts of the whale, each to all.
    assert!(number(with, "deliveries") >= number(without, "deliveries") + 300.0, "{report}");
}

#[test]
fn a_whale_is_warmed_up_for() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fanfold-bench"));
    command.args(["whale", "--users", "50", "--mean-followers", "2", "--feed-cap", "10", "--rate", "50"]);
    // All else takes a moment, on a busy machine two.
    command.args(["--whale-pause", "0.05", "--duration", "0.1", "--sample-readers", "10", "--warm-up", "8"]);
    let begun = Instant::now();
    assert!(command.output().unwrap().status.success());
    assert!(begun.elapsed() > Duration::from_secs(8));
}

#[test]
fn a_cluster_grows_while_it_is_read() {
    for replicas in ["3", "1"] {
        let size = ["--nodes", "3", "--replicas", replicas, "--partitions", "4"];
        let load = ["--rate", "200", "--reads-per-post", "4", "--hydrate", "--window", "0.2"];
        let report = report(&[["grow"].as_slice(), size.as_slice(), load.as_slice()].concat());
        let [run] = runs(&report) else { panic!("{report}") };
        assert_eq!((number(run, "errors"), number(run, "nodes")), (0.0, 3.0), "{run}");
        assert!(number(run, "sampled_readers") > 50.0, "{run}");
        // Of twelve replicas or four, spread over four nodes instead of three.
        assert!(number(run, "replicas_moved") >= 1.0 && number(run, "newcomer_written_bytes") > 0.0, "{run}");
        let stages = run["stages"].as_array().unwrap();
        assert_eq!(
            stages.iter().map(|stage| &stage["stage"]).collect::<Vec<_>>(),
            ["before", "during", "after"]
        );
        assert_eq!(stages[0]["short_pages"], 0, "{run}");
        for stage in stages {
            // Whatever happens to the nodes, the load does not wait for them.
            let rates = number(stage, "reads_per_second") + number(stage, "posts_per_second");
            assert!((150.0..250.0).contains(&rates), "{run}");
            assert!(
                number(&stage["read_ms"], "p99") > 0.0 && number(&stage["post_ms"], "max") > 0.0,
                "{run}"
            );
        }
        let during = number(&stages[1]["read_ms"], "p99") / number(&stages[0]["read_ms"], "p99");
        assert!((number(run, "read_p99_ratio") - during).abs() < 0.001, "{run}");
        assert!(run["windows"].as_array().unwrap().len() > 3, "{run}");
    }
}

#[test]
fn loading_counts_every_edge() {
    let report = report(&["load", "--graph", "uniform"]);
    let [run] = runs(&report) else { panic!("{report}") };
    assert_eq!(run["edges"], 300 * 12);
    assert!(number(run, "sampled_readers") > 50.0, "{run}");
    // What was used, and not what was asked for and has no effect.
    assert_eq!((&run["connections"], &run["in_flight"]), (&4.into(), &64.into()));
    assert!(report["parameters"]["duration_seconds"].is_null());
    assert!(number(run, "edges_per_second") > 0.0);
}

#[test]
fn three_nodes_are_measured_as_one_is_and_a_plan_is_made_of_it() {
    let size = ["--nodes", "1,3", "--partitions", "2"];
    let fanout = report(&[["fanout", "--in-flight", "8"].as_slice(), size.as_slice()].concat());
    let read = report(&[["read", "--depth", "4", "--celebrities", "0"].as_slice(), size.as_slice()].concat());
    let sizes = |report| runs(report).iter().map(|run| (number(run, "nodes"), number(run, "replicas")));
    assert_eq!(sizes(&fanout).collect::<Vec<_>>(), [(1.0, 1.0), (3.0, 3.0)]);
    assert_eq!(sizes(&read).filter(|size| *size == (3.0, 3.0)).count(), 2);
    for run in runs(&fanout) {
        assert!(number(run, "sampled_readers") > 50.0);
        assert!((1.5..=2.0).contains(&number(run, "partitions_reached")), "{run}");
        // Each delivery counts once, however many replicas apply it.
        let per_post = number(run, "deliveries") / number(run, "posts");
        assert!((9.0..15.0).contains(&per_post), "{per_post} in {run}");
        assert!(number(run, "cpu_micros_per_post") > 0.0 && number(run, "cpu_nanos_per_delivery") > 0.0);
    }
    let [one, three] = runs(&fanout) else { panic!("{fanout}") };
    let log_bytes = |run| number(run, "log_bytes_per_delivery");
    assert!(log_bytes(three) > 1.5 * log_bytes(one), "each replica has a log: {one} {three}");
    assert!(runs(&read).iter().all(|run| number(run, "cpu_micros_per_read") > 0.0));

    let dir = tempfile::tempdir().unwrap();
    let mut measured = Vec::new();
    for (name, report) in [("fanout.json", &fanout), ("read.json", &read)] {
        measured.push(dir.path().join(name).to_str().unwrap().to_owned());
        std::fs::write(dir.path().join(name), report.to_string()).unwrap();
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_fanfold-bench"));
    command.args(["plan", "--users", "1M", "--posts-peak", "100", "--reads-peak", "1k", "--measured"]);
    let output = command.args(&measured).args(["--output", "json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&plan["plan"]["replicas"], &plan["plan"]["deliveries_peak"]), (&3.into(), &20_000.0.into()));
    assert!(plan["plan"]["nodes"].as_u64().unwrap() >= 3, "{plan}");
}

#[test]
fn a_plan_needs_no_measurement_but_a_load() {
    let plan = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fanfold-bench"));
        command.arg("plan").args(arguments).output().unwrap()
    };
    let output = plan(&["--users", "200M", "--posts-peak", "15k", "--reads-peak", "1.5M"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("3.00 M/s"), "{said}");
    assert_eq!(plan(&["--users", "200M"]).status.code(), Some(2));
    let other = plan(&["--users", "1M", "--posts-peak", "1", "--reads-peak", "1", "--replicas", "5"]);
    assert_eq!(other.status.code(), Some(1));
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let output = call(&["fanout", "--graph", "no-such-file.tsv"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no-such-file.tsv"));
    assert_eq!(call(&["read", "--celebrities", "3"]).status.code(), Some(2));
    assert_eq!(call(&["fanout", "--target", "redis-cluster"]).status.code(), Some(2));
}

#[test]
fn both_sides_are_compared_in_one_run() {
    if !has_redis() {
        return;
    }
    let fanout =
        report(&["fanout", "--target", "both", "--redis-persistence", "none,always", "--redis-as-given"]);
    for target in ["fanfold", "redis"] {
        assert!(runs(&fanout).iter().any(|run| run["target"] == target), "{target}");
    }
    assert!(number(&fanout, "ratio_to_best_redis") > 0.0);

    let read = report(&[
        "read",
        "--target",
        "both",
        "--depth",
        "4",
        "--celebrities",
        "10",
        "--redis-instances",
        "1",
    ]);
    for name in ["celebrities_10_plain_depth_4", "celebrities_10_hydrated_depth_4"] {
        assert!(number(&read["ratio_to_best_redis"], name) > 0.0, "{name}");
    }
}

#[test]
fn what_is_due_is_sent_however_late_on_both_sides() {
    if !has_redis() {
        return;
    }
    let redis = ["--target", "both", "--redis-instances", "1", "--redis-as-given"];
    // More than either side of a debug build gets done in time.
    let report = report(&[["fanout", "--rate", "20000"].as_slice(), redis.as_slice()].concat());
    assert_eq!(runs(&report).len(), 4);
    for run in runs(&report) {
        // 20,000 a second for 0.3 seconds, the first at once.
        assert_eq!(run["posts"], 6_000, "{run}");
    }
    let report =
        self::report(&[["whale", "--rate", "4000", "--whale-pause", "0.1"].as_slice(), &redis].concat());
    for run in runs(&report) {
        assert_eq!(run["posts"], 1_200, "{run}");
    }
}

#[test]
fn redis_is_measured_in_every_other_way_too() {
    if !has_redis() {
        return;
    }
    let redis = ["--target", "redis", "--redis-instances", "1", "--redis-as-given"];
    for command in [["mixed", "--rate", "500"], ["whale", "--rate", "100"], ["load", "--rounds", "1"]] {
        let report = report(&[command.as_slice(), redis.as_slice()].concat());
        assert!(!runs(&report).is_empty(), "{command:?}");
        if command[0] != "load" {
            assert!(runs(&report).iter().all(|run| run["in_flight"] == 1_024), "{report}");
        }
    }
}
