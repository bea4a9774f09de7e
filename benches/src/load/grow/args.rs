//! Owns the arguments of `grow`.

use std::time::Duration;

use clap::Args;

use crate::load::args::{CommonArgs, rate, seconds};

/// Measures what adding a node and moving it its share does to a loaded cluster.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "The cluster has `--nodes` nodes, of which one more joins. Reads and posts come at an even pace all the time, and the latency of each counts \
        from its intended time: for `--duration` without a change; from the start of the new node until it has joined, `balance` has moved it \
        its share, and every partition has all its replicas and its preferred leader; and for `--duration` again. Afterwards, sampled feeds are \
        compared with the oracle; a difference or a refused request makes the command fail.\n\nExamples:\n  \
        fanfold-bench grow --users 50000 --nodes 3 --partitions 16 --rate 5000\n  \
        fanfold-bench grow --users 50000 --nodes 3 --replicas 1 --partitions 16 --rate 5000 --hydrate"
)]
pub struct GrowArgs {
    /// What all commands take.
    #[command(flatten)]
    pub common: CommonArgs,

    /// Reads and posts a second together.
    #[arg(long, value_name = "REQUESTS", default_value = "2000", value_parser = rate)]
    pub rate: f64,

    /// Reads for each post.
    #[arg(long, default_value_t = 20)]
    pub reads_per_post: u32,

    /// Pages come with payloads.
    #[arg(long)]
    pub hydrate: bool,

    /// Entries of a page.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub limit: u32,

    /// Also give the figures of each such time, in seconds.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub window: Option<Duration>,
}
