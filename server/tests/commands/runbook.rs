//! The runbook is held to the program: every alarm has its page, and every metric that it names is registered.

use std::collections::BTreeSet;

const RUNBOOK: &str = include_str!("../../RUNBOOK.md");

/// Where metrics are registered; a node tells of some only when there is something to tell.
const SOURCES: [&str; 4] = [
    include_str!("../../src/metrics/mod.rs"),
    include_str!("../../src/metrics/node.rs"),
    include_str!("../../src/metrics/cluster.rs"),
    include_str!("../../src/metrics/phases.rs"),
];

/// The metrics that the rules name.
pub fn of_rules() -> BTreeSet<&'static str> {
    let (_, rules) = RUNBOOK.split_once("```yaml").unwrap();
    let is_boundary = |c: char| !c.is_ascii_alphanumeric() && c != '_';
    rules.split(is_boundary).filter(|word| word.starts_with("fanfold_")).collect()
}

#[test]
fn every_alarm_has_a_page_and_every_metric_is_registered() {
    let (pages, rules) = RUNBOOK.split_once("```yaml").unwrap();
    let alerts: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() >= 10);
    for alert in alerts {
        let own = pages.lines().filter(|line| line.strip_prefix("## ") == Some(alert)).count();
        assert_eq!(own, 1, "{alert} has to have a page of its own");
    }
    let is_boundary = |c: char| !c.is_ascii_alphanumeric() && c != '_';
    let metrics = RUNBOOK.split(is_boundary).filter_map(|word| word.strip_prefix("fanfold_"));
    for name in metrics {
        let plain = ["_total", "_bucket"].iter().find_map(|suffix| name.strip_suffix(suffix));
        let name = format!("\"{}\"", plain.unwrap_or(name));
        assert!(SOURCES.iter().any(|source| source.contains(&name)), "{name} is not registered");
    }
}
