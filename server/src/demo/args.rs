//! Owns the arguments of `fanfold demo`.

use clap::{Args, ValueEnum};

/// Shows the main job on this machine: post, fan out, read, kill, recover, and compare with the oracle.
#[derive(Debug, Clone, Copy, Args)]
#[command(
    after_help = "Example:\n  fanfold demo --users 5000 --seed 7 --output json\n  fanfold demo --nodes 3"
)]
pub struct DemoArgs {
    /// Users of the follower graph, 100 to 1,000,000.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(100..=1_000_000))]
    pub users: u64,

    /// Nodes, each in a process of its own, 1 to 7. With several, one that leads is killed and restarted while posts go on.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=7))]
    pub nodes: u64,

    /// What graph and activity are drawn from; the same seed gives the same ones.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// Operations after the graph stands, nearly all of them posts; by default two per user.
    #[arg(long)]
    pub posts: Option<u64>,

    /// How to print the report.
    #[arg(long, value_enum, default_value_t = OutputKind::Table)]
    pub output: OutputKind,
}

/// How a report is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputKind {
    /// Lines for people.
    Table,
    /// One JSON object.
    Json,
}
