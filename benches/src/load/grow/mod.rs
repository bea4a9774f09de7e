//! Owns the measurement of a cluster that grows under load: what it is called with, what it comes to, and how that is told.

pub mod args;
pub mod report;

use self::args::GrowArgs;
use self::report::{GrowReport, GrowRun};
use super::bench::{Bench, BenchError, progress};
use super::target::{GrowLoad, Target, TargetError};

/// Measures a growing cluster; each round on new nodes.
pub fn run(args: &GrowArgs) -> Result<GrowReport, BenchError> {
    let common = &args.common;
    let mut bench = Bench::new(common, false)?;
    let mut runs = Vec::new();
    for size in common.sizes() {
        for round in 1..=common.rounds {
            let mut side = bench.fanfold(size, common.payload_bytes)?;
            bench.prepare(&mut side)?;
            let mut grow = |first, duration, grows| {
                let load = GrowLoad {
                    rate: args.rate,
                    reads_per_post: args.reads_per_post,
                    payload_bytes: common.payload_bytes,
                    hydrate: args.hydrate,
                    limit: args.limit,
                    connections: common.connections,
                    duration,
                    first,
                    grows,
                    window: args.window,
                    sample_readers: common.sample_readers,
                };
                side.grow(&load).map_err(TargetError::from)
            };
            progress(&format!("round {round}: {} nodes and one more", size.nodes));
            grow(bench.numbers(), common.warm_up, false)?;
            let figures = grow(bench.numbers(), common.duration, true)?;
            runs.push(GrowRun::new(size, round, args, &figures));
            side.stop()?;
        }
    }
    Ok(GrowReport::new(common.parameters("grow"), runs))
}
