//! Owns the arguments of `fanfold-bench replay`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args};

use crate::cli::OutputKind;

/// What to replay, into which node, and what to do with it.
#[derive(Debug, Clone, Args)]
#[command(
    group = ArgGroup::new("input").args(["follows", "activity"]).required(true).multiple(true),
    after_help = "Examples:\n  \
        fanfold-bench replay --follows follows.tsv.zst --posts 100000 --seed 1 --check\n  \
        fanfold-bench replay --activity activity.tsv.zst --infer-follows --check --kill-every 5 --output json"
)]
pub struct ReplayArgs {
    /// Follow links to make first: follower and followee on each line.
    #[arg(long, value_name = "FILE")]
    pub follows: Option<PathBuf>,

    /// Activity to replay: unix time, kind (RT, MT or RE), actor and target on each line. Without it, an activity is
    /// drawn over the users of the follow links.
    #[arg(long, value_name = "FILE")]
    pub activity: Option<PathBuf>,

    /// Follow links from the activity: each actor follows each of its targets.
    #[arg(long, requires = "activity")]
    pub infer_follows: bool,

    /// Lines to read of each file at most.
    #[arg(long, value_name = "LINES")]
    pub lines: Option<usize>,

    /// Posts of a drawn activity; deletes, amends, follows, mutes and blocks come on top.
    #[arg(long, default_value_t = 100_000)]
    pub posts: usize,

    /// What a drawn activity and the readers of the measured reads are drawn from.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// Read every user's feed and timeline in full and compare with the oracle.
    #[arg(long)]
    pub check: bool,

    /// Kill the node (SIGKILL) and restart it, again and again, this many seconds after it was ready.
    #[arg(long, value_name = "SECONDS", value_parser = seconds, conflicts_with = "address")]
    pub kill_every: Option<Duration>,

    /// A flag of `fanfold start` for the node that is started, such as `snapshot-log-bytes=262144`; may be repeated.
    #[arg(long = "node-flag", value_name = "NAME=VALUE", conflicts_with = "address")]
    pub node_flags: Vec<String>,

    /// A running, empty node; without it, one is started in a temporary directory.
    #[arg(long, value_name = "ADDR")]
    pub address: Option<String>,

    /// Partitions of the node that is started.
    #[arg(long, value_name = "COUNT", conflicts_with = "address")]
    pub partitions: Option<u16>,

    /// Owners with more followers in a partition are pulled; without it, as the space says.
    #[arg(long, value_name = "FOLLOWERS")]
    pub pull_threshold: Option<u32>,

    /// References that a feed keeps; without it, as the space says.
    #[arg(long, value_name = "ENTRIES")]
    pub feed_cap: Option<u32>,

    /// Operations under way at once, 1 to 100,000.
    #[arg(long, default_value_t = 4_096, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub window: u32,

    /// First pages of feeds to measure at the end, plain and again hydrated.
    #[arg(long, default_value_t = 50_000)]
    pub reads: u64,

    /// How results are printed.
    #[arg(long, value_enum, default_value_t)]
    pub output: OutputKind,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    let pause = Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?;
    if pause.is_zero() { Err("must be more than 0".to_owned()) } else { Ok(pause) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_positive_seconds() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["0", "-1", "x", "NaN", "inf"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
