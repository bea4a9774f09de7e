//! Owns how far Fanfold is ahead of the best Redis way.
//!
//! - The lower of two ratios counts: by wall clock, and by processor second of the servers.
//! - Each of the two is taken to the Redis way that is best in it.
//! - Medians of the rounds are compared, within one kind of measurement, and posts only within one durability mode.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::run::{RunKind, RunResult, rounds_together, spread};
use super::target::{Persistence, TargetKind};

/// How far Fanfold is ahead.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Ratio {
    /// Of a fan-out: the best of Fanfold's loads.
    Fanout(f64),
    /// Of reads: one for each kind and depth.
    Read(Map<String, Value>),
}

/// The ratio of these runs, if both sides were measured in a way that compares.
pub fn to_best_redis(runs: &[RunResult]) -> Option<Ratio> {
    if runs.iter().any(|run| matches!(run.kind, RunKind::Read { .. })) {
        return reads(runs);
    }
    // Only closed loops compare: at a pace, every side does what it is asked for.
    let fanout = |target| -> Vec<RunResult> {
        let is_wanted = |run: &&RunResult| {
            run.target == target
                && run.persistence == Persistence::Always
                && matches!(run.kind, RunKind::Fanout { rate: None, .. })
        };
        runs.iter().filter(is_wanted).cloned().collect()
    };
    let metrics: [fn(&RunResult) -> f64; 2] =
        [|run| run.deliveries_per_second, |run| run.deliveries_per_server_cpu_second];
    ratio(&fanout(TargetKind::Fanfold), &fanout(TargetKind::Redis), metrics).map(Ratio::Fanout)
}

fn reads(runs: &[RunResult]) -> Option<Ratio> {
    let mut ratios = Map::new();
    for run in runs {
        let RunKind::Read { celebrities, hydrated, depth } = run.kind else { continue };
        let name = format!(
            "celebrities_{celebrities}_{}_depth_{depth}",
            if hydrated { "hydrated" } else { "plain" }
        );
        if ratios.contains_key(&name) {
            continue;
        }
        let of_kind = |target| -> Vec<RunResult> {
            runs.iter().filter(|other| other.target == target && other.kind == run.kind).cloned().collect()
        };
        let metrics: [fn(&RunResult) -> f64; 2] =
            [|run| run.reads_per_second, |run| run.reads_per_server_cpu_second];
        if let Some(ratio) = ratio(&of_kind(TargetKind::Fanfold), &of_kind(TargetKind::Redis), metrics) {
            ratios.insert(name, json!(ratio));
        }
    }
    (!ratios.is_empty()).then_some(Ratio::Read(ratios))
}

/// The lower of the ratios by each metric, of the best medians of both sides.
fn ratio(ours: &[RunResult], theirs: &[RunResult], metrics: [fn(&RunResult) -> f64; 2]) -> Option<f64> {
    let best = |runs: &[RunResult], metric: fn(&RunResult) -> f64| {
        let medians = rounds_together(runs);
        let medians = medians.iter().filter_map(|rounds| spread(rounds, metric)).map(|spread| spread.median);
        medians.max_by(f64::total_cmp).filter(|best| *best > 0.0)
    };
    // One load of ours has to be good in both: the best of one and the best of another do not add up.
    let of_load = |rounds: &Vec<&RunResult>| {
        let ratios = metrics.map(|metric| Some(spread(rounds, metric)?.median / best(theirs, metric)?));
        let [wall, processor] = ratios;
        Some(wall?.min(processor?))
    };
    rounds_together(ours).iter().filter_map(of_load).max_by(f64::total_cmp)
}

#[cfg(test)]
mod tests {
    use super::super::run::tests::run;
    use super::*;

    const FANOUT: RunKind = RunKind::Fanout { asked_in_flight: 16, rate: None };

    #[test]
    fn the_lower_ratio_to_the_best_way_of_the_same_durability_counts() {
        let mut another = run(TargetKind::Redis, Persistence::Always, FANOUT, [2.0, 10.0]);
        another.way = "another";
        let runs = [
            run(TargetKind::Fanfold, Persistence::Always, FANOUT, [100.0, 200.0]),
            run(TargetKind::Redis, Persistence::Always, FANOUT, [4.0, 5.0]),
            another,
            run(TargetKind::Redis, Persistence::None, FANOUT, [90.0, 90.0]),
        ];
        assert_eq!(to_best_redis(&runs), Some(Ratio::Fanout(20.0)));
        assert_eq!(to_best_redis(&runs[..1]), None);
        assert_eq!(to_best_redis(&[runs[0].clone(), runs[3].clone()]), None);
    }

    #[test]
    fn reads_have_one_ratio_for_each_kind_and_depth() {
        let read = |depth| RunKind::Read { celebrities: 10, hydrated: false, depth };
        let runs = [
            run(TargetKind::Fanfold, Persistence::Always, read(1), [8.0, 30.0]),
            run(TargetKind::Fanfold, Persistence::Always, read(16), [50.0, 50.0]),
            run(TargetKind::Redis, Persistence::None, read(1), [2.0, 10.0]),
            run(TargetKind::Redis, Persistence::None, read(16), [5.0, 5.0]),
        ];
        let value = serde_json::to_value(to_best_redis(&runs)).unwrap();
        let expected = json!({"celebrities_10_plain_depth_1": 3.0, "celebrities_10_plain_depth_16": 10.0});
        assert_eq!(value, expected);
    }
}
