//! Owns `plan`: how many nodes, how much memory and disk a given number of users, follows, posts and reads takes.

mod costs;
mod fit;
mod measured;
mod model;
mod report;

use std::path::PathBuf;

use clap::Args;

use crate::cli::OutputKind;
pub use costs::{Costs, CostsError};
use model::{Demand, GIB, Machine};
pub use report::PlanReport;

/// Reckons how many nodes, how much memory and disk a load takes.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Numbers may end in k, M, G or T. What is given a day comes to a peak by --peak-times, and the other way round.\n\n\
        What things cost was measured on a small machine; --measured takes reports of your own, made with\n  \
        fanfold-bench fanout --nodes 3 --partitions 1,4,16,64 --in-flight 64 --output json > fanout.json\n  \
        fanfold-bench read --nodes 3 --partitions 1,4,16,64 --depth 16 --output json > read.json\n\nExample:\n  \
        fanfold-bench plan --users 200M --follows 200 --posts-peak 15k --reads-peak 1.5M"
)]
pub struct PlanArgs {
    /// Users whose feeds are held.
    #[arg(long, value_parser = amount)]
    pub users: f64,

    /// Owners that a user follows on average, which is as many followers as an owner has.
    #[arg(long, default_value = "200", value_parser = amount)]
    pub follows: f64,

    /// Posts a day.
    #[arg(long, value_name = "POSTS", value_parser = amount, required_unless_present = "posts_peak")]
    pub posts_a_day: Option<f64>,

    /// Posts a second at peak.
    #[arg(long, value_name = "POSTS", value_parser = amount)]
    pub posts_peak: Option<f64>,

    /// Pages read a day.
    #[arg(long, value_name = "PAGES", value_parser = amount, required_unless_present = "reads_peak")]
    pub reads_a_day: Option<f64>,

    /// Pages read a second at peak.
    #[arg(long, value_name = "PAGES", value_parser = amount)]
    pub reads_peak: Option<f64>,

    /// How many times the day's average a peak is.
    #[arg(long, value_name = "TIMES", default_value = "3", value_parser = amount)]
    pub peak_times: f64,

    /// Pages come without payloads.
    #[arg(long)]
    pub plain: bool,

    /// Entries that a feed keeps.
    #[arg(long, value_name = "ENTRIES", default_value = "800", value_parser = amount)]
    pub feed_entries: f64,

    /// Bytes of a payload.
    #[arg(long, value_name = "BYTES", default_value = "500", value_parser = amount)]
    pub payload_bytes: f64,

    /// Days that entries are kept.
    #[arg(long, value_name = "DAYS", default_value = "90", value_parser = amount)]
    pub keep_days: f64,

    /// Days whose payloads are to be read from memory.
    #[arg(long, value_name = "DAYS", default_value = "1", value_parser = amount)]
    pub hot_days: f64,

    /// Replicas of each partition: 1 or 3, or as many as the reports have.
    #[arg(long, default_value_t = 3)]
    pub replicas: u32,

    /// Cores of a node.
    #[arg(long, value_name = "CORES", default_value = "32", value_parser = amount)]
    pub node_cores: f64,

    /// Main memory of a node in GiB.
    #[arg(long, value_name = "GIB", default_value = "256", value_parser = amount)]
    pub node_memory: f64,

    /// Disk of a node in GiB.
    #[arg(long, value_name = "GIB", default_value = "7500", value_parser = amount)]
    pub node_disk: f64,

    /// The largest partition in GiB of memory, as it is moved, and read at a start, as a whole; without it, what a node holds.
    #[arg(long, value_name = "GIB", value_parser = amount)]
    pub partition_memory: Option<f64>,

    /// Share of a node's cores that may be busy at peak; the rest is for failed nodes and background work.
    #[arg(long, value_name = "SHARE", default_value_t = 0.5, value_parser = share)]
    pub cores_share: f64,

    /// Share of a node's memory that may be used.
    #[arg(long, value_name = "SHARE", default_value_t = 0.75, value_parser = share)]
    pub memory_share: f64,

    /// Share of a node's disk that may be used.
    #[arg(long, value_name = "SHARE", default_value_t = 0.7, value_parser = share)]
    pub disk_share: f64,

    /// Reports of `fanout` and `read` to take the costs from.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub measured: Vec<PathBuf>,

    /// How results are printed.
    #[arg(long, value_enum, default_value_t)]
    pub output: OutputKind,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The costs are not known.
    #[error(transparent)]
    Costs(#[from] CostsError),
    /// Nothing was measured with so many replicas.
    #[error(
        "nothing was measured with {replicas} replicas; name reports with --measured, or plan for 1 or 3"
    )]
    Replicas {
        /// How many were asked for.
        replicas: u32,
    },
    /// No number of partitions fits.
    #[error(
        "with any number of partitions, one is too much for a node or for a thread; take larger nodes, or allow larger partitions"
    )]
    Impossible,
}

/// Makes the plan.
pub fn run(args: &PlanArgs) -> Result<PlanReport, PlanError> {
    let replicas = args.replicas;
    let costs = if args.measured.is_empty() {
        measured::costs(replicas).ok_or(PlanError::Replicas { replicas })?
    } else {
        Costs::of_files(&args.measured, replicas)?
    };
    let (demand, machine) = (args.demand(), args.machine());
    let plan = model::plan(&demand, &machine, &costs).ok_or(PlanError::Impossible)?;
    Ok(PlanReport { demand, machine, costs, plan })
}

impl PlanArgs {
    fn demand(&self) -> Demand {
        let times = self.peak_times;
        let both = |a_day: Option<f64>, peak: Option<f64>| {
            let a_day = a_day.or(peak.map(|peak| model::day_of(peak, times))).unwrap_or_default();
            (a_day, peak.unwrap_or(model::peak_of(a_day, times)))
        };
        let (posts_a_day, posts_peak) = both(self.posts_a_day, self.posts_peak);
        let (reads_a_day, reads_peak) = both(self.reads_a_day, self.reads_peak);
        Demand {
            users: self.users,
            follows: self.follows,
            posts_a_day,
            reads_a_day,
            posts_peak,
            reads_peak,
            hydrated: !self.plain,
            feed_entries: self.feed_entries,
            payload_bytes: self.payload_bytes,
            keep_days: self.keep_days,
            hot_days: self.hot_days,
        }
    }

    fn machine(&self) -> Machine {
        Machine {
            cores: self.node_cores,
            memory_bytes: self.node_memory * GIB,
            disk_bytes: self.node_disk * GIB,
            partition_bytes: self.partition_memory.unwrap_or(self.node_memory) * GIB,
            cores_share: self.cores_share,
            memory_share: self.memory_share,
            disk_share: self.disk_share,
        }
    }
}

/// A positive number, with a letter for a thousand, a million, and so on.
fn amount(text: &str) -> Result<f64, String> {
    let units = [('k', 1e3), ('M', 1e6), ('G', 1e9), ('T', 1e12)];
    let unit = units.iter().find_map(|(letter, unit)| Some((text.strip_suffix(*letter)?, *unit)));
    let (digits, unit) = unit.unwrap_or((text, 1.0));
    let number: f64 = digits.parse().map_err(|_| "not a number; it may end in k, M, G or T".to_owned())?;
    let amount = number * unit;
    if amount > 0.0 && amount.is_finite() { Ok(amount) } else { Err("must be more than 0".to_owned()) }
}

fn share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if share > 0.0 && share <= 1.0 { Ok(share) } else { Err("must lie above 0 and at most at 1".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_may_end_in_a_letter() {
        assert_eq!(amount("1.5M"), Ok(1.5e6));
        assert_eq!(amount("15k"), Ok(15_000.0));
        assert_eq!(amount("200"), Ok(200.0));
        assert!(amount("0").is_err() && amount("-1k").is_err() && amount("many").is_err());
        assert!(share("1.5").is_err() && share("0").is_err() && share("0.5").is_ok());
    }
}
